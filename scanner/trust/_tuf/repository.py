"""A repository's update order and its lookups, as generators.

Each ``yield`` requests a file by name; the caller sends its bytes, or None if the server does not have it. ``drive``
does the fetching. Comments name the steps of the TUF specification's client workflow (section 5), where Notary has
them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from scanner.errors import RemoteError, ScannerError
from scanner.model.finding import Signer
from scanner.model.untrusted import clean_text
from scanner.trust._tuf.anchors import Anchor, Mode, begin, confirm, follow
from scanner.trust._tuf.documents import (
    ROOT_LIMIT,
    Delegation,
    Document,
    FileMeta,
    Role,
    Root,
    Targets,
    current,
    decode_base64,
    is_int,
    is_text_list,
    load,
    malformed_document,
    parse_document,
    parse_root,
    parse_snapshot_meta,
    parse_targets,
    parse_timestamp_meta,
    verify_role,
)
from scanner.trust.base import SignatureRefused

T = TypeVar("T")

# Bytes. The parent states the size of every other file; of this one nobody does.
TIMESTAMP_LIMIT = 1 << 20
SNAPSHOT_LIMIT = 16 << 20
TARGETS_LIMIT = 16 << 20
STATE_LIMIT = 16 << 20
_MAX_ROTATIONS = 256  # roots that one update may step through: the TUF specification demands a limit
_MAX_SIGNERS = 200
_MAX_REMEMBERED = 1000
RELEASES = "targets/releases"


@dataclass(frozen=True)
class Want:
    """The file needed next: ``<server>/v2/<gun>/_trust/tuf/<name>.json``, of at most ``limit`` bytes."""

    name: str
    limit: int


Steps = Generator[Want, bytes | None, T]


def drive(steps: Steps[T], fetch: Callable[[Want], bytes | None]) -> T:
    """Run the steps to the end. An error of ``fetch`` is thrown into them, because not every file is required."""
    try:
        want = next(steps)
        while True:
            try:
                data = fetch(want)
            except ScannerError as error:
                want = steps.throw(error)
            else:
                want = steps.send(data)
    except StopIteration as done:
        result: T = done.value
        return result


@dataclass(frozen=True)
class SeenDocument:
    """The newest known document of a role. A later one must not be older, nor differ in content at the same version."""

    version: int
    fingerprint: str


@dataclass(frozen=True)
class State:
    """What is remembered of a repository. ``root``: its root.json. ``listed``: the roles of the last snapshot."""

    root: bytes
    timestamp: SeenDocument | None = None  # None: the repository was never read
    snapshot: SeenDocument | None = None
    listed: frozenset[str] = frozenset()
    roles: Mapping[str, SeenDocument] = field(default_factory=dict)

    def dump(self) -> bytes:
        def pair(seen: SeenDocument | None) -> list[Any] | None:
            return [seen.version, seen.fingerprint] if seen else None

        return json.dumps(
            {
                "schema": "dockwarden/notary-state/1",
                "root": base64.b64encode(self.root).decode(),
                "timestamp": pair(self.timestamp),
                "snapshot": pair(self.snapshot),
                "listed": sorted(self.listed),
                "roles": {name: pair(seen) for name, seen in sorted(self.roles.items())},
            }
        ).encode()

    @classmethod
    def load(cls, data: bytes) -> State:
        """Raises SignatureRefused(reason="malformed"): treating an unreadable state as none would accept a rollback."""
        what = "the remembered trust state"
        value = load(data, what, STATE_LIMIT)
        if not isinstance(value, dict) or value.get("schema") != "dockwarden/notary-state/1":
            raise malformed_document(what, "not written by this version")

        def seen(pair: Any) -> SeenDocument | None:
            if pair is None:
                return None
            if not isinstance(pair, list) or len(pair) != 2 or not is_int(pair[0]) or not isinstance(pair[1], str):
                raise malformed_document(what, "not a version and a fingerprint")
            return SeenDocument(pair[0], pair[1])

        roles, listed = value.get("roles"), value.get("listed")
        if not isinstance(roles, dict) or not is_text_list(listed):
            raise malformed_document(what, "no roles")
        found = {name: item for name, pair in roles.items() if (item := seen(pair))}
        root = decode_base64(value.get("root"), what)
        return cls(root, seen(value.get("timestamp")), seen(value.get("snapshot")), frozenset(listed), found)


@dataclass(frozen=True)
class Query:
    """A tag, a digest, or both, which must then agree. All ``signers`` must have signed."""

    tag: str | None = None
    digest: str | None = None
    signers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """A signer's role that the answer did not need and that could not be used.

    ``known``: the role is broken; otherwise it could not be fetched.
    """

    role: str
    reason: str
    message: str
    known: bool


@dataclass(frozen=True)
class Answer:
    """The signed digest, the role that lists it, and who signed it."""

    digest: str  # sha256 in hexadecimal
    role: str
    tag: str
    signers: tuple[Signer, ...]
    faults: tuple[Fault, ...] = ()


def verify(
    gun: str, anchor: Anchor, remembered: State | None, now: datetime, query: Query, keep: Callable[[State], None]
) -> Steps[tuple[Answer, Repository]]:
    """Run one verification. Raises SignatureRefused, and whatever ``keep`` raises.

    ``keep`` receives what was verified, however the run ends. "Not signed" and "digest mismatch" also rest on
    verified metadata, and so does a run that ends behind a new root or timestamp: if these were forgotten, a server
    could replay the version before a tag was revoked or a key was replaced (TUF steps 5.3.8, 5.4.5, 5.5.7).
    """
    repository = Repository(gun, anchor, remembered, now)
    try:
        yield from repository.load()
    finally:
        # A first root that no anchor verifies is not remembered before its repository is complete.
        if repository.complete or (repository.has_root and (remembered or anchor.mode is not Mode.TOFU)):
            keep(repository.state())
    try:
        answer = yield from repository.resolve(query)
    finally:
        keep(repository.state())  # now with the delegated roles that the answer needed
    return answer, repository


class Repository:
    """One run against one repository: ``load``, then ``resolve``.

    ``state`` is what to keep: what this run has verified, otherwise what was known before.
    """

    def __init__(self, gun: str, anchor: Anchor, remembered: State | None, now: datetime) -> None:
        self._gun, self._anchor, self._remembered, self._now = gun, anchor, remembered, now
        self._roles: dict[str, Targets | SignatureRefused | RemoteError | None] = {}
        self._root: Root
        self._timestamp: Document | None = None
        self._snapshot: Document | None = None
        self._files: Mapping[str, FileMeta]
        self.has_root = self.complete = False
        self._old_timestamp = remembered.timestamp if remembered else None
        self._old_snapshot = remembered.snapshot if remembered else None
        self._old_listed = remembered.listed if remembered else frozenset[str]()
        self._old_roles = remembered.roles if remembered else {}
        self._targets: Targets

    def load(self) -> Steps[None]:
        """Update root, timestamp, snapshot and targets, in this order. Raises SignatureRefused."""
        yield from self._update_root()
        yield from self._update_timestamp()
        yield from self._update_snapshot()
        yield from self._update_targets()
        self.complete = True

    # 5.3: update the root role

    def _update_root(self) -> Steps[None]:
        data = yield Want("root", ROOT_LIMIT)
        if data is None:
            raise self._missing_target("root")
        served = parse_root(data, ROOT_LIMIT)
        held = self._trusted_root()
        if held is None:
            begin(self._anchor, served, self._gun, self._now)
        else:
            yield from self._rotate(held, served)
        self._trust(served)
        current(served.document, self._now)

    def _trust(self, root: Root) -> None:
        self._root, self.has_root = root, True

    def _trusted_root(self) -> Root | None:
        """The root that is already trusted: from the last run, or given as a whole by the trust root."""
        if self._remembered is not None:
            return parse_root(self._remembered.root, ROOT_LIMIT)
        return self._anchor.root if self._anchor.mode is Mode.ROOT_JSON else None

    def _rotate(self, held: Root, served: Root) -> Steps[None]:
        """Follow the chain of roots from the trusted one to the served one, version by version."""
        # TUF specification 5.3.5: an old root with a key that was stolen since would otherwise be accepted again.
        if served.version < held.version:
            raise SignatureRefused(
                f"the server offers root {served.version}; root {held.version} was seen before", reason="rollback"
            )
        if served.version - held.version > _MAX_ROTATIONS:
            raise SignatureRefused(f"more than {_MAX_ROTATIONS} root rotations at once", reason="too_large")
        if served.version == held.version:
            if served.document.fingerprint != held.document.fingerprint:
                raise SignatureRefused(
                    f"root {served.version} differs from the one seen before", reason="root_untrusted"
                )
            confirm(served, self._gun, self._now)
        for version in range(held.version + 1, served.version):
            name = f"{version}.root"
            data = yield Want(name, ROOT_LIMIT)
            if data is None:  # the newest root may still be signed by the last one found
                break
            step = parse_root(data, ROOT_LIMIT, name)
            # Each root in between must be followed: a jump would skip the root that revoked a stolen key (TUF
            # specification 5.3.4).
            if step.version != version:
                raise SignatureRefused(f"{name}.json holds root {step.version}", reason="root_untrusted")
            self._follow(held, step)
            held = step
        if served.version > held.version:
            self._follow(held, served)

    def _follow(self, held: Root, new: Root) -> None:
        follow(held, new, self._gun, self._now)
        self._forget_online_roles(held, new)
        self._trust(new)

    def _forget_online_roles(self, held: Root, served: Root) -> None:
        """Fast-forward recovery (section 5.3.11): after a change of the online keys, older versions are not
        compared.
        """
        # An attacker with a stolen key may have published version 2^31; without this, no honest version could follow.
        if any(held.roles[name].signing != served.roles[name].signing for name in ("timestamp", "snapshot")):
            self._old_timestamp = self._old_snapshot = None
            self._old_listed = frozenset()

    def _missing_target(self, name: str) -> SignatureRefused:
        if self._remembered is not None:
            return SignatureRefused(f"the server has no {name} any more; it had one before", reason="missing")
        return SignatureRefused("this repository has no trust data: nothing was ever signed", reason="no_trust_data")

    # 5.4: update the timestamp role

    def _update_timestamp(self) -> Steps[None]:
        data = yield Want("timestamp", TIMESTAMP_LIMIT)
        if data is None:
            raise self._missing_target("timestamp")
        found = parse_document(data, "timestamp", "Timestamp", TIMESTAMP_LIMIT)
        verify_role(found, self._root.roles["timestamp"])
        newer(found, self._old_timestamp)
        current(found, self._now)
        self._timestamp = found

    # 5.5: update the snapshot role

    def _update_snapshot(self) -> Steps[None]:
        assert self._timestamp is not None
        meta = parse_timestamp_meta(self._timestamp)
        # By hash, never by name: between two requests the server may publish, and the timestamp signs one
        # snapshot only.
        data = yield from fetch_target("snapshot", meta, SNAPSHOT_LIMIT)
        found = parse_document(data, "snapshot", "Snapshot", SNAPSHOT_LIMIT)
        verify_role(found, self._root.roles["snapshot"])
        newer(found, self._old_snapshot)
        current(found, self._now)
        self._snapshot, self._files = found, parse_snapshot_meta(found)
        # The snapshot names the root too. A server that shows an old snapshot with a new root mixes two states.
        self._files["root"].compare(self._root.document.data, "root.json")

    # 5.6: update the targets role

    def _update_targets(self) -> Steps[None]:
        found = yield from self._load_published("targets", self._root.roles["targets"], None)
        # A delegation that vanishes from the snapshot, but is still delegated, would hide what its signer has revoked.
        hidden = sorted(self._old_listed - self._files.keys() & found.delegations.keys())
        if hidden:
            raise SignatureRefused(
                f"the snapshot omits {clean_text(', '.join(hidden), 300)}, which was published before",
                reason="rollback",
            )
        self._targets = found
        self._roles["targets"] = found

    def _load_published(self, name: str, role: Role, delegation: Delegation | None) -> Steps[Targets]:
        """Fetch and verify a targets document that the snapshot lists."""
        data = yield from fetch_target(name, self._files[name], TARGETS_LIMIT)
        found = parse_targets(data, name, TARGETS_LIMIT, delegation)
        keys = verify_role(found.document, role)
        newer(found.document, self._old_roles.get(name))
        current(found.document, self._now)
        return replace(found, signed_by=keys)

    def _load_delegated(self, name: str) -> Steps[Targets | None]:
        """Load a delegated role, once.

        Returns None if nobody delegates it or it was never published. A failure is remembered and raised again.
        """
        if name not in self._roles:
            # Only along the tree: a role that its parent no longer delegates must not count, although its file is
            # still served.
            parent = yield from self._load_delegated(name.rpartition("/")[0])
            delegation = parent.delegations.get(name) if parent else None
            if delegation is None or name not in self._files:
                self._roles[name] = None
            else:
                try:
                    self._roles[name] = yield from self._load_published(name, delegation.role, delegation)
                except (SignatureRefused, RemoteError) as error:
                    self._roles[name] = error
        found = self._roles[name]
        if isinstance(found, (SignatureRefused, RemoteError)):
            raise found
        return found

    # From a tag to a digest

    def resolve(self, query: Query) -> Steps[Answer]:
        """Look up the digest. Raises SignatureRefused: not_signed, signer_missing, signer_conflict, digest_mismatch,
        bad_target, and all reasons of ``load``.
        """
        if query.signers:
            tag, digest, role = yield from self._by_signers(query)
        else:
            tag, digest, role = yield from self._by_release(query)
        # Asked by digest and tag: a moved tag is a refusal, and not "unsigned", because another digest is signed.
        if query.digest is not None and digest != query.digest:
            raise SignatureRefused(
                f"{clean_text(tag, 130)} is signed with another digest: {digest}", reason="digest_mismatch"
            )
        signers, faults = yield from self._signers(tag, digest, role)
        return Answer(digest, role, tag, signers, faults)

    def _by_release(self, query: Query) -> Steps[tuple[str, str, str]]:
        """Look in ``targets/releases``, then in ``targets``, and nowhere else, as docker pull does."""
        released = yield from self._load_delegated(RELEASES)
        places = [place for place in (released, self._targets) if place is not None]
        if query.tag is not None:
            for place in places:
                # The first place decides even if its entry is wrong, because docker pull would use it.
                if place.lists(query.tag):
                    return query.tag, place.digest(query.tag), place.role
            raise SignatureRefused("this tag is not signed", reason="not_signed")
        for place, tag in _effective_entries(places):
            if _digest_or_none(place, tag) == query.digest:
                return tag, place.digest(tag), place.role
        raise SignatureRefused("no signed tag has this digest", reason="not_signed")

    def _by_signers(self, query: Query) -> Steps[tuple[str, str, str]]:
        """The digest that all required signers list for the tag; without a tag, for any tag that all of them list."""
        places = []
        for signer in query.signers:
            role = signer if signer.startswith("targets/") else f"targets/{signer}"
            place = yield from self._load_delegated(role)
            if place is None:
                raise SignatureRefused(
                    f"{clean_text(signer, 100)} has signed nothing in this repository", reason="signer_missing"
                )
            places.append(place)
        if query.tag is not None:
            return query.tag, _agreed_digest(places, query.tag), places[0].role
        for tag in places[0].entries:
            if all(place.lists(tag) and _digest_or_none(place, tag) == query.digest for place in places):
                return tag, places[0].digest(tag), places[0].role
        raise SignatureRefused("the required signers did not sign this digest", reason="signer_missing")

    def _signers(self, tag: str, digest: str, role: str) -> Steps[tuple[tuple[Signer, ...], tuple[Fault, ...]]]:
        """Return who signed: the keys of the deciding role, and of every other role that lists the tag with this
        digest.

        A broken role of another signer is reported as a fault. It does not block an answer that does not need it.
        """
        decided = self._roles[role]
        assert isinstance(decided, Targets)
        signers, faults = list(_as_signers(decided)), []
        others = [name for name in self._targets.delegations if name not in (role, RELEASES)]
        for name in others[_MAX_SIGNERS:]:
            faults.append(
                Fault(name, "too_large", f"more than {_MAX_SIGNERS} roles, so it was not examined", known=False)
            )
        for name in others[:_MAX_SIGNERS]:
            try:
                place = yield from self._load_delegated(name)
            except (SignatureRefused, RemoteError) as error:
                faults.append(Fault(name, error.reason, str(error), isinstance(error, SignatureRefused)))
                continue
            if place is not None and place.lists(tag) and _digest_or_none(place, tag) == digest:
                signers += _as_signers(place)
        return tuple(signers), tuple(faults)

    def root_ids(self) -> tuple[str, ...]:
        """Ids of the root certificates, in the form in which they are pinned."""
        return tuple(sorted(key.id for key in self._root.roles["root"].keys.values()))

    def expiries(self) -> Iterator[tuple[str, datetime]]:
        """Expiry of each certificate and document that this run used."""
        role = self._root.roles["root"]
        for keyid in sorted(role.keyids):
            key = role.keys[keyid]
            if key.certificates:
                yield f"root certificate {key.id[:16]}", key.certificates[0].not_valid_after_utc
        for document in (self._root.document, self._timestamp, self._snapshot):
            if document is not None:
                yield document.name, document.expires
        for name, found in self._roles.items():
            if isinstance(found, Targets):
                yield name, found.document.expires

    def state(self) -> State:
        """The state to remember. What this run did not reach or need keeps what was known before."""
        used = {
            name: _seen_document(found.document) for name, found in self._roles.items() if isinstance(found, Targets)
        }
        unused = {name: seen for name, seen in self._old_roles.items() if name not in used}
        return State(
            root=self._root.document.data,
            timestamp=_seen_document(self._timestamp) if self._timestamp else self._old_timestamp,
            snapshot=_seen_document(self._snapshot) if self._snapshot else self._old_snapshot,
            listed=frozenset(self._files) if self.complete else self._old_listed,
            # Those in use are the last to be forgotten: new names must not displace the version of ``targets``.
            roles=dict([*unused.items(), *used.items()][-_MAX_REMEMBERED:]),
        )


def fetch_target(name: str, meta: FileMeta, limit: int) -> Steps[bytes]:
    """Fetch a file by its hash, and compare length and every hash with the verified metadata that names it."""
    if meta.length > limit:
        raise SignatureRefused(
            f"{name}.json has, by its metadata, {meta.length} bytes, more than {limit}", reason="too_large"
        )
    data = yield Want(f"{name}.{meta.hex}", meta.length)
    if data is None:
        raise SignatureRefused(f"the server lists {name}.json but does not have it", reason="missing")
    meta.compare(data, f"{name}.json")
    return data


def newer(document: Document, seen: SeenDocument | None) -> None:
    """Check that a document is not older than the one seen, and not different at the same version.

    Raises SignatureRefused(reason="rollback").
    """
    if seen is None:
        return
    if document.version < seen.version:
        raise SignatureRefused(
            f"{document.name}.json is version {document.version}; {seen.version} was seen before", reason="rollback"
        )
    if document.version == seen.version and document.fingerprint != seen.fingerprint:
        raise SignatureRefused(
            f"{document.name}.json differs from version {document.version} seen before", reason="rollback"
        )


def _seen_document(document: Document) -> SeenDocument:
    return SeenDocument(document.version, document.fingerprint)


def _effective_entries(places: Sequence[Targets]) -> Iterator[tuple[Targets, str]]:
    """Every tag at the first place that lists it; later entries of the same tag are shadowed."""
    taken: set[str] = set()
    for place in places:
        for tag in place.entries:
            if tag not in taken and place.lists(tag):
                taken.add(tag)
                yield place, tag


def _digest_or_none(place: Targets, tag: str) -> str | None:
    try:
        return place.digest(tag)
    except SignatureRefused:
        return None


def _agreed_digest(places: Sequence[Targets], tag: str) -> str:
    missing = [place.role for place in places if not place.lists(tag)]
    if missing:
        raise SignatureRefused(f"{', '.join(missing)} did not sign this tag", reason="signer_missing")
    digests = {place.digest(tag) for place in places}
    if len(digests) != 1:
        raise SignatureRefused("the required signers signed different digests", reason="signer_conflict")
    return digests.pop()


def _as_signers(place: Targets) -> Iterator[Signer]:
    """The keys that signed a role.

    The name is the role's; the repository's own role is called "Repo Admin", as in docker.
    """
    name = {"targets": "Repo Admin", RELEASES: ""}.get(place.role, place.role.removeprefix("targets/"))
    for key in place.signed_by:
        yield Signer(name=name, keyid=key.id, role=place.role, expires=place.document.expires)
