"""What honest and hostile repositories do to a client, step by step, beyond the captured cases."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.scanner.trust.notary_server import cases as captured_cases
from tests.scanner.trust.notary_server import tree
from tests.scanner.trust.simulator import (
    DAY,
    GUN,
    NEW,
    NOW,
    OLD,
    OTHER,
    Sim,
    SimKey,
    Template,
    bare,
    certified,
    entry,
    pem,
    private,
    private_rsa,
)

Files = Mapping[str, bytes | None]


@dataclass(frozen=True)
class Step:
    """What the server has, what is asked, and the digest, or the only reasons that are right."""

    files: Files
    expect: str | tuple[str, ...] = OLD
    tag: str | None = "v1"
    digest: str | None = None
    signers: tuple[str, ...] = ()
    now: datetime = NOW


@dataclass(frozen=True)
class Case:
    name: str
    steps: Sequence[Step]
    anchor: Mapping[str, Any]
    gun: str = GUN


_MADE: dict[str, Callable[[], Case]] = {}
TOFU = {"mode": "tofu"}


def case(make: Callable[[], Sequence[Step] | Case]) -> Callable[[], Sequence[Step] | Case]:
    """Registers a case under its function's name. Steps alone are a client that trusts on first use."""
    name = make.__name__.replace("_", "-")

    def made() -> Case:
        found = make()
        return replace(found, name=name) if isinstance(found, Case) else Case(name, found, TOFU)

    assert name not in _MADE
    _MADE[name] = made
    return make


@cache
def find(name: str) -> Case:
    """A case made here, or a captured one."""
    if name in _MADE:
        return _MADE[name]()
    return _captured(next(c for c in captured_cases() if c["id"] == name))


def names() -> list[str]:
    """Every case; of the captured those that need no fault of the server."""
    return [
        *_MADE,
        *(c["id"] for c in captured_cases() if not any(s.get("http") or s["tls"] != "server" for s in c["steps"])),
    ]


def _captured(found: Mapping[str, Any]) -> Case:
    steps = []
    for step in found["steps"]:
        files = {path.partition("/_trust/tuf/")[2][:-5]: data for path, data in tree(step["tree"]).items()}
        choices = step["expect"].get("any_of", [step["expect"]])
        digest = next((choice["digest"] for choice in choices if "digest" in choice), None)
        reasons = tuple(reason for choice in choices for reason in choice.get("error", ()))
        query = step["query"]
        steps.append(
            Step(
                files,
                digest if digest and not reasons else reasons if not digest else (*reasons, digest),
                query.get("tag"),
                query.get("digest"),
                tuple(query.get("require_signers", ())),
                datetime.fromisoformat(step["time"]),
            )
        )
    return Case(found["id"], steps, found["trust"], found["gun"])


def refused(files: Files, *reasons: str, **more: Any) -> Step:
    return Step(files, reasons, **more)


# Good repositories


@case
def good() -> Sequence[Step]:
    return [Step(Sim().publish())]


@case
def good_update() -> Sequence[Step]:
    return [Step(Sim().publish()), Step(Sim(version=2, tags={"targets": {"v1": NEW}}).publish(), NEW)]


@case
def good_unchanged() -> Sequence[Step]:
    sim = Sim().publish()
    return [Step(sim), Step(sim)]


@case
def good_members_in_any_order() -> Sequence[Step]:
    """Served in another order than that in which it was signed: the signature is over the canonical form."""

    def reorder(data: bytes) -> bytes:
        value = json.loads(data)
        return json.dumps({**value, "signed": dict(reversed(value["signed"].items()))}, indent=1).encode()

    return [Step(Sim(bytes_after={"timestamp": reorder}).publish())]


@case
def good_unknown_members() -> Sequence[Step]:
    def add(signed: dict[str, Any]) -> None:
        signed["x-note"] = {"é": "ä<>&\u2028", "a": [1, None, True]}

    return [Step(Sim(edits={"timestamp": add, "targets": add}).publish())]


@case
def good_wildcard_certificate() -> Sequence[Step]:
    return [Step(Sim(root_keys=[certified("root", Template(name="registry.example/team/*"))]).publish())]


@case
def good_releases_first() -> Sequence[Step]:
    sim = Sim().delegate("releases", "alice", tags={"v1": NEW}).publish()
    return [Step(sim, NEW), Step(sim, ("not_signed",), tag=None, digest=OLD), Step(sim, NEW, tag=None, digest=NEW)]


@case
def good_never_published_releases() -> Sequence[Step]:
    return [Step(Sim().delegate("releases", "alice").publish())]


@case
def good_rotation() -> Sequence[Step]:
    second = Sim(version=2, root_version=2, root_keys=[certified("root-2")])
    return [Step(Sim().publish()), Step(second.publish(second.root(also=[certified("root")])))]


@case
def good_fast_forward_recovery() -> Sequence[Step]:
    """New online keys: the huge version numbers that the old ones signed are forgotten."""
    first = Sim(versions={"timestamp": 10**9, "snapshot": 10**9})
    fresh = Sim(root_version=2, roles={"timestamp": [bare("timestamp-2")], "snapshot": [bare("snapshot-2")]})
    return [Step(first.publish()), Step(fresh.publish(fresh.root()))]


@case
def good_removed_delegation_may_vanish() -> Sequence[Step]:
    first = Sim().delegate("releases", "alice", tags={"v1": NEW})
    return [Step(first.publish(), NEW), Step(Sim(version=2).publish())]


@case
def good_two_of_two() -> Sequence[Step]:
    return [Step(Sim(roles={"targets": [bare("t1"), bare("t2")]}, thresholds={"targets": 2}).publish())]


@case
def good_old_signer_is_broken() -> Sequence[Step]:
    sim = Sim(ends={"targets/bob": -DAY}).delegate("bob", "bob", tags={"v1": OLD}).publish()
    return [Step(sim), refused(sim, "expired", signers=("bob",))]


@case
def good_nested_signer() -> Sequence[Step]:
    sim = Sim().delegate("alice", "alice", tags={"v1": OLD}).delegate("alice/ci", "ci", tags={"v1": OLD})
    return [Step(sim.publish(), OLD, signers=("alice/ci",))]


# Signatures and thresholds


def _by_stranger(name: str, sim: Sim | None = None) -> Files:
    sim = sim or Sim()
    sim.signers[name] = [bare("mallory")]
    return sim.publish()


@case
def timestamp_by_a_stranger() -> Sequence[Step]:
    return [refused(_by_stranger("timestamp"), "signature")]


@case
def snapshot_by_a_stranger() -> Sequence[Step]:
    return [refused(_by_stranger("snapshot"), "signature")]


@case
def targets_by_a_stranger() -> Sequence[Step]:
    return [refused(_by_stranger("targets"), "signature")]


@case
def releases_by_a_stranger() -> Sequence[Step]:
    sim = Sim().delegate("releases", "alice", tags={"v1": NEW})
    return [refused(_by_stranger("targets/releases", sim), "signature")]


@case
def one_of_two() -> Sequence[Step]:
    sim = Sim(roles={"targets": [bare("t1"), bare("t2")]}, thresholds={"targets": 2}, signers={"targets": [bare("t1")]})
    return [refused(sim.publish(), "signature")]


@case
def the_same_key_twice() -> Sequence[Step]:
    """Bare and in a certificate: two ids, one key."""
    sim = Sim(roles={"targets": [bare("t1"), certified("t1")]}, thresholds={"targets": 2})
    return [refused(sim.publish(), "signature")]


@case
def threshold_of_nothing() -> Sequence[Step]:
    return [refused(Sim(thresholds={"timestamp": 0}, signers={"timestamp": []}).publish(), "malformed")]


@case
def a_key_under_a_false_id() -> Sequence[Step]:
    """A key that an attacker lists under the id of another."""
    false = SimKey(private("mallory"), listed_as=bare("timestamp").id)
    return [refused(Sim(roles={"timestamp": [false]}).publish(), "signature")]


@case
def a_short_rsa_key() -> Sequence[Step]:
    return [refused(Sim(roles={"timestamp": [SimKey(private_rsa("short", 1024))]}).publish(), "signature")]


@case
def an_unpadded_signature() -> Sequence[Step]:
    """s without its leading zero byte: numerically right, and not what Notary writes."""

    class Unpadded(SimKey):
        def sign(self, content: bytes) -> dict[str, str]:
            while True:
                made = super().sign(content)
                value = base64.b64decode(made["sig"])
                if value[32] == 0:
                    return {**made, "sig": base64.b64encode(value[:32] + value[33:]).decode()}

    return [refused(Sim(signers={"timestamp": [Unpadded(private("timestamp"))]}).publish(), "signature")]


# The form of documents


def _edited(name: str, edit: Callable[[dict[str, Any]], None], *reasons: str) -> Sequence[Step]:
    return [refused(Sim(edits={name: edit}).publish(), *reasons)]


@case
def a_fraction_is_signed() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(x=1.5), "malformed")


@case
def a_number_that_readers_disagree_about() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(x=(1 << 53) + 2), "malformed")


@case
def a_version_that_is_true() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(version=True), "malformed")


@case
def version_nought() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(version=0), "malformed")


@case
def expires_in_words() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(expires="tomorrow"), "malformed")


@case
def expires_beyond_time() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(expires="0001-01-01T00:00:00+23:59"), "malformed")


@case
def nested_deeply() -> Sequence[Step]:
    def deep(signed: dict[str, Any]) -> None:
        signed["x"] = json.loads("[" * 70 + "]" * 70)

    return _edited("timestamp", deep, "malformed")


@case
def another_type() -> Sequence[Step]:
    return _edited("timestamp", lambda signed: signed.update(_type="Snapshot"), "malformed")


@case
def a_member_twice() -> Sequence[Step]:
    def twice(data: bytes) -> bytes:
        return data.replace(b'"signatures":', b'"signatures": [], "signatures":')

    return [refused(Sim(bytes_after={"timestamp": twice}).publish(), "malformed")]


@case
def base64_with_noise() -> Sequence[Step]:
    def noise(data: bytes) -> bytes:
        return data.replace(b'"sig": "', b'"sig": "*')

    return [refused(Sim(bytes_after={"timestamp": noise}).publish(), "malformed")]


@case
def too_many_signatures() -> Sequence[Step]:
    return [refused(Sim(signers={"timestamp": [bare("mallory")] * 300}).publish(), "malformed")]


@case
def not_even_an_object() -> Sequence[Step]:
    return [refused({"root": data}, "malformed") for data in (b"[]", b"null", b"", b"\xff", b'{"signed": []}')]


# What parents say of their children


@case
def another_targets_document() -> Sequence[Step]:
    def only_sha256(signed: dict[str, Any]) -> None:
        for item in signed["meta"].values():
            del item["hashes"]["sha512"]

    files = dict(Sim(edits={"snapshot": only_sha256}).publish())
    name = next(name for name in files if name.startswith("targets."))
    other = next(d for n, d in Sim(tags={"targets": {"v1": NEW}}).publish().items() if n.startswith("targets."))
    assert other and files[name] and len(other) == len(files[name] or b"")
    return [refused({**files, name: other}, "checksum")]


@case
def the_second_hash_is_another() -> Sequence[Step]:
    def false(signed: dict[str, Any]) -> None:
        signed["meta"]["targets"]["hashes"]["sha512"] = base64.b64encode(b"\0" * 64).decode()

    return _edited("snapshot", false, "checksum")


@case
def a_hash_of_another_length() -> Sequence[Step]:
    def false(signed: dict[str, Any]) -> None:
        signed["meta"]["targets"]["hashes"]["sha512"] = base64.b64encode(b"\0" * 63).decode()

    return _edited("snapshot", false, "malformed")


@case
def the_snapshot_is_of_another_root() -> Sequence[Step]:
    def false(signed: dict[str, Any]) -> None:
        signed["meta"]["root"]["hashes"] = {"sha256": base64.b64encode(b"\0" * 32).decode()}

    return _edited("snapshot", false, "checksum")


@case
def a_huge_file_is_announced() -> Sequence[Step]:
    def huge(signed: dict[str, Any]) -> None:
        signed["meta"]["targets"]["length"] = 10**12

    return _edited("snapshot", huge, "too_large")


@case
def an_announced_file_is_missing() -> Sequence[Step]:
    files = {name: data for name, data in Sim().publish().items() if not name.startswith("targets.")}
    return [refused(files, "missing")]


@case
def nothing_was_ever_signed() -> Sequence[Step]:
    return [refused({}, "no_trust_data"), refused({**Sim().publish(), "timestamp": None}, "no_trust_data")]


@case
def it_vanishes() -> Sequence[Step]:
    return [Step(Sim().publish()), refused({}, "missing")]


# Expiry


def _expired(name: str, sim: Sim | None = None, **more: Any) -> Sequence[Step]:
    sim = sim or Sim()
    sim.ends[name] = timedelta(seconds=-1)
    return [refused(sim.publish(), "expired", **more)]


@case
def expired_root() -> Sequence[Step]:
    return _expired("root")


@case
def expired_timestamp() -> Sequence[Step]:
    return _expired("timestamp")


@case
def expired_snapshot() -> Sequence[Step]:
    return _expired("snapshot")


@case
def expired_targets() -> Sequence[Step]:
    return _expired("targets")


@case
def expired_releases_do_not_fall_back() -> Sequence[Step]:
    return _expired("targets/releases", Sim().delegate("releases", "alice", tags={"v1": NEW}))


# Rollback


def _older(name: str, first: Callable[[], Sim] = Sim) -> Sequence[Step]:
    sims = [first(), first()]
    for sim, version in zip(sims, (5, 4), strict=True):
        sim.versions[name] = version
    sims[1].versions.update({n: 9 for n in ("timestamp", "snapshot", "targets") if n != name})
    expect = NEW if "targets/releases" in sims[0].tags else OLD
    return [Step(sims[0].publish(), expect), refused(sims[1].publish(), "rollback")]


@case
def older_timestamp() -> Sequence[Step]:
    return _older("timestamp")


@case
def older_snapshot() -> Sequence[Step]:
    return _older("snapshot")


@case
def older_targets() -> Sequence[Step]:
    return _older("targets")


@case
def older_releases() -> Sequence[Step]:
    return _older("targets/releases", lambda: Sim().delegate("releases", "alice", tags={"v1": NEW}))


@case
def another_document_of_the_same_version() -> Sequence[Step]:
    second = Sim(tags={"targets": {"v1": NEW}}, versions={"timestamp": 2, "snapshot": 2})
    return [Step(Sim().publish()), refused(second.publish(), "rollback")]


@case
def releases_are_hidden() -> Sequence[Step]:
    """Leaving it out of the snapshot would make an old entry in targets current again."""
    first = Sim().delegate("releases", "alice", tags={"v1": NEW})
    second = Sim(hidden={"targets/releases"}, versions={"timestamp": 2, "snapshot": 2})
    second.delegate("releases", "alice", tags={"v1": NEW})
    return [Step(first.publish(), NEW), refused(second.publish(), "rollback")]


@case
def older_signer_that_was_not_needed() -> Sequence[Step]:
    """Seen while it was not needed, so noticed when it is."""
    first = Sim(versions={"targets/alice": 5}).delegate("alice", "alice", tags={"v1": OLD})
    second = Sim(version=2, versions={"targets/alice": 4}).delegate("alice", "alice", tags={"v1": OLD}).publish()
    return [Step(first.publish()), refused(second, "rollback", signers=("alice",)), Step(second)]


# What was seen with an answer that is not "verified" counts as much: these answers rest on verified metadata


@case
def a_replay_after_the_tag_was_revoked() -> Sequence[Step]:
    revoked = Sim(version=5, tags={"targets": {"v2": NEW}}).publish()
    return [
        Step(Sim(version=3).publish()),
        refused(revoked, "not_signed"),
        refused(Sim(version=4).publish(), "rollback"),
    ]


@case
def a_replay_after_the_tag_was_unsigned_at_first_sight() -> Sequence[Step]:
    revoked = Sim(version=5, tags={"targets": {"v2": NEW}}).publish()
    return [refused(revoked, "not_signed"), refused(Sim(version=4).publish(), "rollback")]


@case
def a_replay_after_a_digest_mismatch() -> Sequence[Step]:
    moved = Sim(version=5, tags={"targets": {"v1": NEW}}).publish()
    return [
        Step(Sim(version=3).publish(), digest=OLD),
        refused(moved, "digest_mismatch", digest=OLD),
        refused(Sim(version=4).publish(), "rollback", digest=OLD),
    ]


@case
def a_replay_after_a_signer_was_missing() -> Sequence[Step]:
    before = Sim(version=4).delegate("alice", "alice", tags={"v1": OLD})
    return [
        refused(Sim(version=5).publish(), "signer_missing", signers=("alice",)),
        refused(before.publish(), "rollback", signers=("alice",)),
    ]


@case
def a_replay_of_a_signer_who_withdrew_the_tag() -> Sequence[Step]:
    """The delegated role is loaded only when it is needed: what it said then is remembered too."""

    def released(version: int, tags: Mapping[str, str]) -> Files:
        sim = Sim(version=5, versions={"targets/releases": version, "timestamp": 9 - version, "snapshot": 9 - version})
        return sim.delegate("releases", "alice", tags=tags).publish()

    return [
        refused(released(5, {"v2": NEW}), "not_signed", tag="v3"),
        refused(released(4, {"v3": NEW}), "rollback", tag="v3"),
    ]


@case
def a_replay_from_before_a_rotation_that_was_seen_while_the_tag_was_unsigned() -> Sequence[Step]:
    """The old online keys were stolen, so the root was rotated: the thief cannot go back to the old root."""
    second = Sim(version=2, root_version=2, root_keys=[certified("root-2")], tags={"targets": {"v2": NEW}})
    stolen = Sim(version=9, tags={"targets": {"v1": NEW}})
    return [
        Step(Sim().publish()),
        refused(second.publish(second.root(also=[certified("root")])), "not_signed"),
        refused(stolen.publish(), "rollback"),
    ]


# Roots and their anchors


def _certificate(template: Template, *reasons: str) -> Sequence[Step]:
    return [refused(Sim(root_keys=[certified("root", template)]).publish(), *(reasons or ("root_untrusted",)))]


@case
def certificate_of_another_repository() -> Sequence[Step]:
    return _certificate(Template(name="registry.example/team/other"))


@case
def certificate_of_a_prefix() -> Sequence[Step]:
    return _certificate(Template(name="registry.example/team"))


@case
def certificate_of_another_prefix() -> Sequence[Step]:
    return _certificate(Template(name="registry.example/tean*"))


@case
def certificate_that_expired() -> Sequence[Step]:
    return _certificate(Template(ends=-DAY))


@case
def certificate_of_next_week() -> Sequence[Step]:
    return _certificate(Template(begins=7 * DAY))


@case
def certificate_of_an_authority() -> Sequence[Step]:
    return _certificate(Template(authority=True))


@case
def certificate_signed_with_sha1() -> Sequence[Step]:
    """The certificate's own signature is not verified, so its algorithm may simply be renamed."""
    key = private_rsa("root", 2048)
    der = Template().make(key).public_bytes(serialization.Encoding.DER)
    sha256, sha1 = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
    weak = x509.load_der_x509_certificate(der.replace(sha256, sha1))
    return [refused(Sim(root_keys=[SimKey(key, pem(weak))]).publish(), "root_untrusted")]


@case
def root_key_without_certificate() -> Sequence[Step]:
    return [refused(Sim(root_keys=[bare("root")]).publish(), "root_untrusted")]


@case
def root_not_signed_by_itself() -> Sequence[Step]:
    return [refused(Sim(signers={"root": [bare("targets")]}).publish(), "root_untrusted")]


def _pinned(anchor: Mapping[str, Any], sim: Sim, *reasons: str) -> Case:
    step = refused(sim.publish(), *reasons) if reasons else Step(sim.publish())
    return Case("", [step], anchor)


@case
def pinned_certificate() -> Case:
    return _pinned({"mode": "cert_ids", "ids": [certified("root").id]}, Sim())


@case
def pinned_other_certificate() -> Case:
    return _pinned({"mode": "cert_ids", "ids": [certified("other").id]}, Sim(), "root_untrusted")


def _public(name: str) -> str:
    key = private(name).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@case
def pinned_key() -> Case:
    return _pinned({"mode": "root_keys", "pem": [_public("root")]}, Sim())


@case
def pinned_other_key() -> Case:
    return _pinned({"mode": "root_keys", "pem": [_public("other")]}, Sim(), "root_untrusted")


@case
def pinned_key_of_another_repository() -> Case:
    """Docker has one root key for all of a user's repositories."""
    sim = Sim(root_keys=[certified("root", Template(name="registry.example/team/other"))])
    return _pinned({"mode": "root_keys", "pem": [_public("root")]}, sim, "root_untrusted")


@case
def pinned_root() -> Case:
    second = Sim(version=2, root_version=2, root_keys=[certified("root-2")])
    files = [Sim().publish(), second.publish(second.root(also=[certified("root")]))]
    return Case("", [Step(f) for f in files], {"mode": "root_json", "root_json": Sim().root().decode()})


@case
def pinned_other_root() -> Case:
    other = Sim(root_keys=[certified("other")]).root().decode()
    return _pinned({"mode": "root_json", "root_json": other}, Sim(), "root_untrusted")


_BY_CA = Template(issuer="CA")


def _issued(leaf: Template = _BY_CA, *between: Template, authority: Template | None = None) -> Case:
    """A root certificate issued by a pinned CA, over intermediates."""
    chain = [authority or Template(name="CA", authority=True), *between]
    signers = [private(f"ca-{n}") for n in range(len(chain))]
    made = [chain[0].make(signers[0])]
    made += [t.make(signers[n], signers[n - 1]) for n, t in enumerate(chain[1:], 1)]
    bundle = pem(leaf.make(private("root"), signers[-1])) + b"".join(map(pem, reversed(made[1:])))
    sim = Sim(root_keys=[SimKey(private("root"), bundle)])
    return Case("", [Step(sim.publish())], {"mode": "ca", "pem": pem(made[0]).decode()})


def _not_issued(found: Case) -> Case:
    return replace(found, steps=[replace(step, expect=("root_untrusted",)) for step in found.steps])


_BETWEEN = Template(name="Between", issuer="CA", authority=True)
_LEAF = Template(issuer="Between")


@case
def issued() -> Case:
    return _issued()


@case
def issued_for_code_signing() -> Case:
    return _issued(Template(issuer="CA", usages=(ExtendedKeyUsageOID.CODE_SIGNING,)))


@case
def issued_over_an_intermediate() -> Case:
    return _issued(_LEAF, _BETWEEN)


@case
def issued_by_another_authority() -> Case:
    found = _issued()
    other = pem(Template(name="CA", authority=True).make(private("another"))).decode()
    return _not_issued(replace(found, anchor={"mode": "ca", "pem": other}))


@case
def issued_for_mail() -> Case:
    return _not_issued(_issued(Template(issuer="CA", usages=(ExtendedKeyUsageOID.EMAIL_PROTECTION,))))


@case
def issued_with_what_nobody_understands() -> Case:
    return _not_issued(_issued(Template(issuer="CA", critical=True)))


@case
def issued_beyond_the_path_length() -> Case:
    return _not_issued(_issued(_LEAF, _BETWEEN, authority=Template(name="CA", authority=True, path_length=0)))


@case
def issued_by_one_that_may_not_issue() -> Case:
    return _not_issued(_issued(_LEAF, replace(_BETWEEN, cert_sign=False)))


@case
def issued_by_an_expired_intermediate() -> Case:
    return _not_issued(_issued(_LEAF, replace(_BETWEEN, ends=-DAY)))


# Rotation


def _rotated(second: Sim, also: Sequence[SimKey], *reasons: str, **served: bytes) -> Sequence[Step]:
    second.served.update({name.replace("v", "", 1).replace("_", "."): data for name, data in served.items()})
    return [Step(Sim().publish()), refused(second.publish(second.root(also=also)), *reasons)]


@case
def rotation_that_the_old_root_did_not_sign() -> Sequence[Step]:
    return _rotated(Sim(version=2, root_version=2, root_keys=[certified("root-2")]), [], "root_untrusted")


@case
def rotation_that_the_new_root_did_not_sign() -> Sequence[Step]:
    second = Sim(version=2, root_version=2, root_keys=[certified("root-2")], signers={"root": [certified("root")]})
    return _rotated(second, [], "root_untrusted")


@case
def rotation_to_another_repository() -> Sequence[Step]:
    other = certified("root-2", Template(name="registry.example/team/other"))
    return _rotated(Sim(version=2, root_version=2, root_keys=[other]), [certified("root")], "root_untrusted")


@case
def rotation_over_a_false_step() -> Sequence[Step]:
    """2.root holds version 3."""
    third = Sim(version=3, root_version=3, root_keys=[certified("root-3")])
    step = third.root(also=[certified("root")])
    return _rotated(third, [certified("root")], "root_untrusted", v2_root=step)


@case
def another_root_of_the_same_version() -> Sequence[Step]:
    return [Step(Sim().publish()), refused(Sim(roles={"targets": [bare("t2")]}).publish(), "root_untrusted")]


@case
def older_root() -> Sequence[Step]:
    second = Sim(version=2, root_version=2)
    return [Step(second.publish()), refused(Sim(version=3).publish(), "rollback")]


@case
def a_thousand_rotations() -> Sequence[Step]:
    return _rotated(Sim(version=2, root_version=1000), [], "too_large")


@case
def certificate_expires_later() -> Sequence[Step]:
    sim = Sim(root_keys=[certified("root", Template(ends=DAY))])
    return [Step(sim.publish()), refused(sim.publish(), "root_untrusted", now=NOW + 2 * DAY)]


# Delegations and entries


@case
def delegation_without_paths() -> Sequence[Step]:
    sim = Sim().delegate("releases", "alice", paths=[], tags={"v9": NEW})
    return [refused(sim.publish(), "not_signed", tag="v9")]


@case
def delegation_for_other_paths() -> Sequence[Step]:
    sim = Sim().delegate("releases", "alice", paths=["nightly"], tags={"v9": NEW, "nightly-1": NEW}).publish()
    return [refused(sim, "not_signed", tag="v9"), Step(sim, NEW, tag="nightly-1")]


@case
def delegation_beyond_its_parent() -> Sequence[Step]:
    sim = Sim().delegate("alice", "alice", paths=["a"], tags={"a1": OLD}).delegate("alice/x", "x", tags={"v9": NEW})
    return [refused(sim.publish(), "signer_missing", tag="v9", signers=("alice/x",))]


@case
def delegation_of_a_grandchild() -> Sequence[Step]:
    def rename(signed: dict[str, Any]) -> None:
        signed["delegations"]["roles"][0]["name"] = "targets/alice/x"

    return [refused(Sim(edits={"targets": rename}).delegate("alice", "alice").publish(), "malformed")]


@case
def a_signers_own_tag_is_not_released() -> Sequence[Step]:
    sim = Sim().delegate("alice", "alice", tags={"v9": NEW}).publish()
    return [refused(sim, "not_signed", tag="v9"), Step(sim, NEW, tag="v9", signers=("alice",))]


@case
def signers_disagree() -> Sequence[Step]:
    sim = (
        Sim().delegate("alice", "alice", tags={"v1": OLD, "v7": OLD}).delegate("bob", "bob", tags={"v1": NEW}).publish()
    )
    return [
        refused(sim, "signer_missing", tag="v7", signers=("alice", "bob")),
        refused(sim, "signer_conflict", signers=("alice", "bob")),
        refused(sim, "signer_missing", signers=("alice", "carol")),
        refused(sim, "digest_mismatch", digest=OTHER, signers=("alice",)),
        refused(sim, "signer_missing", tag=None, digest=OTHER, signers=("alice",)),
        Step(sim, NEW, tag=None, digest=NEW, signers=("bob",)),
    ]


@case
def tag_and_digest_disagree() -> Sequence[Step]:
    sim = Sim().publish()
    return [refused(sim, "digest_mismatch", digest=NEW), Step(sim, digest=OLD)]


@case
def entry_without_a_digest() -> Sequence[Step]:
    def spoil(signed: dict[str, Any]) -> None:
        signed["targets"]["v1"] = {"hashes": {"sha256": base64.b64encode(b"\0" * 31).decode()}, "length": 1}
        signed["targets"]["v2"] = entry(NEW)

    sim = Sim(edits={"targets": spoil}).publish()
    return [refused(sim, "bad_target"), Step(sim, NEW, tag="v2"), Step(sim, NEW, tag=None, digest=NEW)]


@case
def every_tree_of_bytes_is_answered() -> Sequence[Step]:
    """Hostile values in every place where a document is expected to hold something else."""
    values = (None, [], "x", -7, {}, [[]], {"a": None}, [None], "\x00", {"name": 1})
    places = [
        ("root", "keys"),
        ("root", "roles"),
        ("root", "expires"),
        ("root", "version"),
        ("snapshot", "meta"),
        ("timestamp", "meta"),
    ]
    places += [("targets", "delegations")]
    wrong = [(name, place, value) for value in values for name, place in places]
    return [_wrong(number, *what) for number, what in enumerate(wrong, 1)]


def _wrong(number: int, name: str, place: str, value: Any) -> Step:
    harmless = name == "targets" and (value is None or value in ({}, {"a": None}, {"name": 1}))
    step = Step(Sim(version=number, edits={name: lambda signed: signed.update({place: value})}).publish())
    return step if harmless else replace(step, expect=("malformed",))
