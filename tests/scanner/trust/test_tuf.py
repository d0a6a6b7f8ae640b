"""The Notary v1 client without I/O, against honest and hostile repositories; and against itself with single steps
taken out.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from hypothesis import given
from hypothesis import strategies as st

import scanner.trust._tuf
from scanner.trust._tuf import documents
from scanner.trust._tuf.anchors import anchor_of
from scanner.trust._tuf.repository import Query, SeenDocument, State, Want, drive, verify
from scanner.trust.base import SignatureRefused
from tests.scanner.trust import attacks
from tests.scanner.trust.attacks import Case, Step
from tests.scanner.trust.certificates import b64, ec_key, rsa_key
from tests.scanner.trust.simulator import GUN, NOW, OLD, Sim, bare, canonical, certified

PACKAGE = Path(scanner.trust._tuf.__file__).parent


def outcome(tuf: str, case: Case) -> list[str]:
    """What a client says at each step: a digest, or the reason of its refusal. Its state is kept as its own bytes."""
    anchors, repository = (importlib.import_module(f"{tuf}.{name}") for name in ("anchors", "repository"))
    anchor, said = anchors.anchor_of(case.anchor), list[str]()
    state: bytes | None = None

    def keep(found: Any) -> None:
        nonlocal state
        state = found.dump()

    for step in case.steps:
        query = repository.Query(step.tag, step.digest, step.signers)
        remembered = repository.State.load(state) if state else None
        steps = repository.verify(case.gun, anchor, remembered, step.now, query, keep)
        try:
            answer, _ = repository.drive(steps, lambda want, files=step.files: files.get(want.name))
        except SignatureRefused as error:
            said.append(error.reason)
        else:
            said.append(answer.digest)
    return said


def right(said: str, step: Step) -> bool:
    return said == step.expect if isinstance(step.expect, str) else said in step.expect


@pytest.mark.parametrize("name", attacks.names())
def test_case(name: str) -> None:
    case = attacks.find(name)
    for number, (said, step) in enumerate(zip(outcome("scanner.trust._tuf", case), case.steps, strict=True)):
        assert right(said, step), (number, said, step.expect)


def test_what_was_verified_is_kept_before_the_target_is_resolved() -> None:
    """A process that is killed meanwhile has remembered it."""
    files = Sim().delegate("releases", "alice", tags={"v1": OLD}).publish()
    kept: list[tuple[str, ...]] = []

    def fetch(want: Want) -> bytes | None:
        if want.name.startswith("targets/releases"):
            assert kept, "nothing was kept before a delegated role was asked for"
        return files.get(want.name)

    anchor = anchor_of({"mode": "tofu"})
    steps = verify(GUN, anchor, None, NOW, Query("v1"), lambda state: kept.append(tuple(state.roles)))
    drive(steps, fetch)
    assert kept == [("targets",), ("targets", "targets/releases")]


PINNED = {"mode": "cert_ids", "ids": [certified("root").id]}


def said(files: dict[str, bytes | None], state: list[State], anchor: dict[str, Any] = PINNED) -> str:
    """The answer to a run; the last item of ``state`` is what it remembers."""
    steps = verify(GUN, anchor_of(anchor), state[-1] if state else None, NOW, Query("v1"), state.append)
    try:
        return drive(steps, lambda want: files.get(want.name))[0].digest
    except SignatureRefused as error:
        return error.reason


def without(files: dict[str, bytes | None], beginning: str) -> dict[str, bytes | None]:
    return {name: data for name, data in files.items() if not name.startswith(beginning)}


@pytest.mark.parametrize("lost", ["snapshot", "targets"])
def test_a_timestamp_is_remembered_although_the_rest_could_not_be_read(lost: str) -> None:
    """TUF 5.4.5: the old metadata that follows is a replay, whoever loses the files in between."""
    state: list[State] = []
    old, new = Sim(version=3).publish(), Sim(version=5, tags={"targets": {}}).publish()
    assert said(old, state) == OLD
    assert said(without(new, lost), state) == "missing"
    assert said(old, state) == "rollback"
    assert said(new, state) == "not_signed"


@pytest.mark.parametrize("lost", ["timestamp", "snapshot"])
def test_a_new_root_is_remembered_although_the_rest_could_not_be_read(lost: str) -> None:
    """TUF 5.3.8: otherwise the keys that it replaced sign again as soon as somebody withholds a file."""
    state: list[State] = []
    old = Sim().publish()
    rotated = Sim(version=2, root_version=2, roles={"targets": [bare("another")]}).publish()
    assert said(old, state) == OLD
    assert said(without(rotated, lost), state) == "missing"
    assert said(old, state) == "rollback"
    assert said(rotated, state) == OLD


def test_online_keys_that_were_replaced_are_forgotten_once_although_the_run_failed() -> None:
    """Fast-forward recovery is not lost when the run that saw the new root ends early."""
    state: list[State] = []
    assert said(Sim(version=900).publish(), state) == OLD
    keys = {name: [bare(f"new {name}")] for name in ("timestamp", "snapshot")}
    honest = Sim(version=3, root_version=2, roles=keys, versions={"targets": 901}).publish()
    assert said(without(honest, "timestamp"), state) == "missing"
    assert said(honest, state) == OLD


def test_a_first_root_that_no_anchor_verifies_is_remembered_with_its_repository_alone() -> None:
    seen: list[State] = []
    assert said(without(Sim().publish(), "timestamp"), seen, {"mode": "tofu"}) == "no_trust_data"
    assert seen == []
    assert said(without(Sim().publish(), "timestamp"), seen) == "no_trust_data"
    assert [state.timestamp for state in seen] == [None]


def test_new_names_do_not_displace_the_version_of_targets() -> None:
    crowd = {f"targets/old{number}": SeenDocument(1, "x") for number in range(1000)}
    state: list[State] = []
    assert said(Sim(version=5).publish(), state) == OLD
    state.append(replace(state[-1], roles={**state[-1].roles, **crowd}))
    assert said(Sim(version=6).publish(), state) == OLD
    assert state[-1].roles["targets"].version == 6
    assert len(state[-1].roles) == 1000


def test_forty_signers_are_all_named() -> None:
    sim = Sim()
    for number in range(40):
        sim.delegate(f"s{number}", f"s{number}", tags={"v1": OLD})
    files = sim.publish()
    steps = verify(GUN, anchor_of({"mode": "tofu"}), None, NOW, Query("v1"), lambda state: None)
    answer, _ = drive(steps, lambda want: files.get(want.name))
    assert {signer.name for signer in answer.signers} == {"Repo Admin", *(f"s{number}" for number in range(40))}


@dataclass(frozen=True)
class Mutation:
    """One step taken out of the client, and the case that notices."""

    file: str
    old: str
    new: str
    noticed_by: str


D, A, R = "documents.py", "anchors.py", "repository.py"
MUTATIONS = [
    Mutation(D, "_ESCAPE.sub(_unescape, text)", "text", "form-control-signed"),
    Mutation(D, "sort_keys=True", "sort_keys=False", "good-members-in-any-order"),
    Mutation(D, "isinstance(value, float) or", "", "a-fraction-is-signed"),
    Mutation(D, "abs(value) > _MAX_INTEGER", "False", "a-number-that-readers-disagree-about"),
    Mutation(D, " and not isinstance(value, bool)", "", "a-version-that-is-true"),
    Mutation(D, "validate=True", "validate=False", "base64-with-noise"),
    Mutation(D, "depth=64", "depth=1000", "nested-deeply"),
    Mutation(D, "-offset if match[3]", "offset if match[3]", "exp-offset-west"),
    Mutation(D, " or key.id != signature.keyid", "", "a-key-under-a-false-id"),
    Mutation(D, "return spki(self.public) if self.public is not None else", "return", "the-same-key-twice"),
    Mutation(D, "len(found) < role.threshold", "not found", "one-of-two"),
    Mutation(D, " or threshold < 1", "", "threshold-of-nothing"),
    Mutation(D, "range(2048, 16385)", "range(512, 16385)", "a-short-rsa-key"),
    Mutation(D, "len(value) != 2 * half", "False", "an-unpadded-signature"),
    Mutation(D, " or len(value) > _MAX_SIGNATURES", "", "too-many-signatures"),
    Mutation(D, 'signed.get("_type") != kind', "False", "another-type"),
    Mutation(D, "not is_int(version) or version < 1", "not is_int(version)", "version-nought"),
    Mutation(D, "len(data) != self.length", "False", "length-short"),
    Mutation(D, "hashlib.sha256(data).digest() != self.sha256", "False", "another-targets-document"),
    Mutation(D, "self.sha512 is not None and hashlib", "False and hashlib", "the-second-hash-is-another"),
    Mutation(D, "len(sha256) != 32 or", "", "entry-without-a-digest"),
    Mutation(D, "len(sha512) != 64", "False", "a-hash-of-another-length"),
    Mutation(D, "now >= document.expires", "False", "expired-timestamp"),
    Mutation(D, "if any(keyid not in keys for keyid in keyids):", "if False:", "del-key-missing"),
    Mutation(D, "        if name in found:", "        if False:", "del-duplicate-role"),
    Mutation(
        D, "all(any(tag.startswith(prefix) for prefix in level) for level in self.paths)", "True", "del-path-absent"
    ),
    Mutation(D, "*(above.paths if above else ())", "*()", "delegation-beyond-its-parent"),
    Mutation(D, ' and name.rpartition("/")[0] == parent', "", "delegation-of-a-grandchild"),
    Mutation(A, "if not names(leaf, gun):", "if False:", "pinned-key-of-another-repository"),
    Mutation(
        A, 'if name.endswith("*") else name == gun', 'if name.endswith("*") else gun.startswith(name)', "root-cn-prefix"
    ),
    Mutation(A, "is_authority(leaf) or", "", "certificate-of-an-authority"),
    Mutation(A, "if weak(leaf) or", "if", "certificate-signed-with-sha1"),
    Mutation(A, "now < leaf.not_valid_before_utc - _GRACE", "False", "certificate-of-next-week"),
    Mutation(A, "now > leaf.not_valid_after_utc", "False", "certificate-that-expired"),
    Mutation(A, "return leaf.key.id in anchor.ids", "return True", "pinned-other-certificate"),
    Mutation(A, "return leaf.key.identity in anchor.keys", "return True", "pinned-other-key"),
    Mutation(A, "    _self_signed(root, good)", "    pass", "root-not-signed-by-itself"),
    Mutation(A, "    _self_signed(root, leaves.good)", "    pass", "rotation-that-the-new-root-did-not-sign"),
    Mutation(A, 'verify_role(new.document, old.roles["root"])', "pass", "rotation-that-the-old-root-did-not-sign"),
    Mutation(A, "    confirm(new, gun, now)", "    pass", "rotation-to-another-repository"),
    Mutation(A, "certificate.verify_directly_issued_by(issuer)", "pass", "issued-by-another-authority"),
    Mutation(A, "bool(_USAGES & set(usage))", "True", "issued-for-mail"),
    Mutation(A, "e.critical and not isinstance", "False and not isinstance", "issued-with-what-nobody-understands"),
    Mutation(A, "below > constraints.path_length", "False", "issued-beyond-the-path-length"),
    Mutation(A, "usage is not None and not usage.key_cert_sign", "False", "issued-by-one-that-may-not-issue"),
    Mutation(A, "<= now <= certificate.not_valid_after_utc", "<= now", "issued-by-an-expired-intermediate"),
    Mutation(R, "current(served.document, self._now)", "pass", "expired-root"),
    Mutation(R, "self._old_timestamp)\n        current(found, self._now)", "self._old_timestamp)", "expired-timestamp"),
    Mutation(R, "self._old_snapshot)\n        current(found, self._now)", "self._old_snapshot)", "expired-snapshot"),
    Mutation(R, "current(found.document, self._now)", "pass", "expired-targets"),
    Mutation(R, 'verify_role(found, self._root.roles["timestamp"])', "pass", "timestamp-by-a-stranger"),
    Mutation(R, 'verify_role(found, self._root.roles["snapshot"])', "pass", "snapshot-by-a-stranger"),
    Mutation(R, "keys = verify_role(found.document, role)", "keys = ()", "releases-by-a-stranger"),
    Mutation(R, "newer(found, self._old_timestamp)", "pass", "older-timestamp"),
    Mutation(R, "newer(found, self._old_snapshot)", "pass", "older-snapshot"),
    Mutation(R, "newer(found.document, self._old_roles.get(name))", "pass", "older-releases"),
    Mutation(
        R,
        "document.version == seen.version and document.fingerprint",
        "False and document.fingerprint",
        "another-document-of-the-same-version",
    ),
    Mutation(
        R,
        'self._files["root"].compare(self._root.document.data, "root.json")',
        "pass",
        "the-snapshot-is-of-another-root",
    ),
    Mutation(R, "        if hidden:", "        if False:", "releases-are-hidden"),
    Mutation(R, " & found.delegations.keys()", "", "good-removed-delegation-may-vanish"),
    Mutation(R, "if served.version < held.version:", "if False:", "older-root"),
    Mutation(R, "served.version - held.version > _MAX_ROTATIONS", "False", "a-thousand-rotations"),
    Mutation(
        R, "served.document.fingerprint != held.document.fingerprint", "False", "another-root-of-the-same-version"
    ),
    Mutation(R, "            confirm(served, self._gun, self._now)", "            pass", "certificate-expires-later"),
    Mutation(R, "step.version != version", "False", "rotation-over-a-false-step"),
    Mutation(R, "        self._forget_online_roles(held, new)", "        pass", "good-fast-forward-recovery"),
    Mutation(R, "        keep(repository.state())  #", "        pass  #", "a-replay-of-a-signer-who-withdrew-the-tag"),
    Mutation(R, "meta.length > limit", "False", "a-huge-file-is-announced"),
    Mutation(
        R, "for place in (released, self._targets)", "for place in (self._targets, released)", "good-releases-first"
    ),
    Mutation(R, "if tag not in taken and", "if", "good-releases-first"),
    Mutation(R, "query.digest is not None and digest != query.digest", "False", "tag-and-digest-disagree"),
    Mutation(R, "    if missing:", "    if False:", "signers-disagree"),
    Mutation(R, "len(digests) != 1", "False", "signers-disagree"),
    Mutation(
        R,
        "                faults.append(",
        "                raise error\n                faults.append(",
        "good-old-signer-is-broken",
    ),
]


@pytest.fixture
def mutant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The client's package, with one step taken out, under another name."""
    mutation: Mutation = request.param
    name = f"mutant_{tmp_path.name.replace('-', '_')}"
    copy = tmp_path / name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file in copy.glob("*.py"):
        text = file.read_text().replace("scanner.trust._tuf", name)
        if file.name == mutation.file:
            assert mutation.old in text, f"{mutation.file} has no {mutation.old!r} any more"
            text = text.replace(mutation.old, mutation.new)
            compile(text, file.name, "exec")
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("mutant", "noticed_by"),
    [(m, m.noticed_by) for m in MUTATIONS],
    indirect=["mutant"],
    ids=[m.noticed_by for m in MUTATIONS],
)
def test_a_case_notices_when_a_step_is_taken_out(mutant: str, noticed_by: str) -> None:
    case = attacks.find(noticed_by)
    try:
        said = outcome(mutant, case)
    except (KeyError, ValueError, AssertionError):
        return  # breaking is no answer, so the case fails as well
    assert not all(right(word, step) for word, step in zip(said, case.steps, strict=True))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_json_is_what_the_form_says(value: Any) -> None:
    assert documents.canonical(value) == canonical(value)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_in_strings_only_quote_and_backslash_are_escaped(text: str) -> None:
    assert documents.canonical(text) == b'"' + text.encode().replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


@given(st.binary(max_size=300))
def test_bytes_are_refused_never_more(data: bytes) -> None:
    with pytest.raises(SignatureRefused):
        documents.parse_document(data, "root", "Root", 1 << 20)


SIGNED = {"_type": "Targets", "version": 1, "expires": "2027-01-01T00:00:00Z", "targets": {}}


def targets(*, signatures: Any = (), **signed: Any) -> bytes:
    return json.dumps({"signed": {**SIGNED, **signed}, "signatures": list(signatures)}).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (targets(targets=[]), "targets is not an object"),
        (targets(delegations=[]), "delegations is not an object"),
        (targets(delegations={"keys": {}, "roles": {}}), "the delegated roles are not a list"),
        (
            targets(delegations={"keys": {}, "roles": [{"name": "targets/a", "paths": "all"}]}),
            "the paths of targets/a are not a list",
        ),
        (
            targets(delegations={"keys": {}, "roles": [{"name": "targets/a", "keyids": "x", "threshold": 1}]}),
            "role targets/a has no list of key ids",
        ),
        (targets(signatures=[{"keyid": "x"}]), "a signature without keyid or method"),
        (targets(signatures=[[]]), "a signature without keyid or method"),
        (targets(signatures=[{}] * 1000), "no list of signatures"),
        (targets(version=0), "version is not a whole number"),
        (targets(version=True), "version is not a whole number"),
        (targets(_type="Root"), "its type is not Targets"),
        (b'{"signed": []}', "no signed member"),
    ],
)
def test_a_document_of_another_form(data: bytes, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why) as refused:
        documents.parse_targets(data, "targets", 1 << 20)
    assert refused.value.reason == "malformed"


def test_a_document_beyond_its_limit_is_not_parsed() -> None:
    with pytest.raises(SignatureRefused, match="larger than 10 bytes") as refused:
        documents.parse_targets(targets(), "targets", 10)
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize(
    "value", [None, [], {}, {"hashes": {}}, {"hashes": {}, "length": -1}, {"hashes": 1, "length": 1}]
)
def test_a_parent_that_says_nothing_of_a_file(value: Any) -> None:
    with pytest.raises(SignatureRefused, match="no hashes or length"):
        documents.parse_meta(value, "here")


def test_every_kind_of_key_verifies_its_own_signatures_and_no_others() -> None:
    content, keys = b"content", {"ecdsa": ec_key(), "rsa": rsa_key(), "ed25519": ed25519.Ed25519PrivateKey.generate()}
    made = {
        "rsapkcs1v15": keys["rsa"].sign(content, padding.PKCS1v15(), hashes.SHA256()),
        "rsapss": keys["rsa"].sign(content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        "eddsa": keys["ed25519"].sign(content),
    }
    for kind, key in keys.items():
        public = documents.Key("id", kind, documents.usable_key(key.public_key(), kind), ())
        fitting = {
            method
            for method, value in made.items()
            if documents.signature_is_valid(public, documents.Signature("id", method, value), content)
        }
        assert fitting == {"rsa": {"rsapkcs1v15", "rsapss"}, "ed25519": {"eddsa"}}.get(kind, set())


def test_a_key_of_a_kind_that_nobody_knows_never_counts() -> None:
    value = {"id": {"keytype": "dilithium", "keyval": {"private": None, "public": b64(b"key")}}}
    identifier = documents.key_id("dilithium", b"key")
    found = documents.parse_keys({identifier: value["id"]}, "here")
    assert found[identifier].public is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"schema": "another/1"}, "not written by this version"),
        ({"timestamp": [1]}, "not a version and a fingerprint"),
        ({"snapshot": ["1", "x"]}, "not a version and a fingerprint"),
        ({"roles": []}, "no roles"),
        ({"listed": "targets"}, "no roles"),
        ({"root": "?"}, "base64"),
    ],
)
def test_a_remembered_state_of_another_form_is_not_taken_for_none(changed: dict[str, Any], why: str) -> None:
    written = State(b"{}", SeenDocument(1, "x"), None, frozenset({"targets"}), {"targets": SeenDocument(2, "y")})
    assert State.load(written.dump()) == written
    with pytest.raises(SignatureRefused, match=why) as refused:
        State.load(json.dumps({**json.loads(written.dump()), **changed}).encode())
    assert refused.value.reason == "malformed"
