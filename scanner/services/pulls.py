"""The pull gate: what a proxy in front of a registry asks about each request, answered by the gate.

OCI distribution-spec 1.1, https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull

Only pulls of manifests are judged, and with ``strict`` those of blobs: nothing runs without its manifest. Pushes, lists
and token requests pass. A path that the proxy and the registry might read in two ways is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson
from sqlalchemy.engine import Connection

from scanner.errors import ImageError, UsageError
from scanner.model.actor import Actor
from scanner.model.reference import Digest, Reference
from scanner.model.untrusted import clean_text
from scanner.services import doors, gate
from scanner.services.door_calls import Call
from scanner.store import pulls, registries

_URI_LENGTH = 8192
_PASSING_METHODS = frozenset({"PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_PULLING_METHODS = frozenset({"GET", "HEAD"})
# Characters that every part between the client and the registry reads in one way. Escapes of '/', '.' and '\\' are how
# one path becomes two: they are not among the four that clients do write.
_PATH = re.compile(r"(?:/[A-Za-z0-9._~:@+=,!$&'()*;-]+)*/?", re.ASCII)
_ESCAPES = {"%3a": ":", "%40": "@", "%2b": "+", "%7e": "~"}
_ESCAPE = re.compile("|".join(_ESCAPES), re.IGNORECASE)
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<name>[^/]+)/?")
_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<name>[^/]+)/?")
# What else is read of a registry and runs nowhere. Anything else below /v2/ is refused, because nobody knows what it
# serves.
_READS = re.compile(
    r"/v2/?|/v2/_catalog/?|/v2/.+/tags/list/?|/v2/.+/referrers/[^/]+/?|/v2/.+/blobs/uploads/[^/]*/?|/v2/.+/_trust/tuf/.+"
    r"|/v2/token/?|/v2/auth/?"
)


class Kind(StrEnum):
    MANIFEST = "manifest"
    BLOB = "blob"
    OTHER = "other"


@dataclass(frozen=True)
class Pull:
    """What a request asks of a registry. ``name``: a tag or a digest.

    Repository and name are empty for other things.
    """

    kind: Kind
    repository: str = ""
    name: str = ""


@dataclass(frozen=True)
class Place:
    """A registry behind a gate, as Dockwarden knows it, and how its pulls are judged."""

    host: str
    environment: str = ""
    strict: bool = False


def parse(method: str, uri: str) -> Pull:
    """What a request with this method and URI asks for.

    Raises UsageError(reason="bad_pull") for one that cannot be told for certain.
    """
    if method in _PASSING_METHODS:
        return Pull(Kind.OTHER)
    if method not in _PULLING_METHODS:
        raise _bad(f"the method {clean_text(method, 20)!r} is unknown")
    path = _ESCAPE.sub(lambda match: _ESCAPES[match[0].lower()], uri.partition("?")[0])
    if (
        len(uri) > _URI_LENGTH
        or not path.startswith("/")
        or not _PATH.fullmatch(path)
        or {".", ".."} & set(path.split("/"))
    ):
        raise _bad("its path can be read in two ways")
    if not path.lower().startswith("/v2/") and path.lower() != "/v2":
        return Pull(Kind.OTHER)
    if (found := _MANIFEST.fullmatch(path)) is not None:
        return Pull(Kind.MANIFEST, found["repository"], found["name"])
    if (found := _BLOB.fullmatch(path)) is not None and found["name"] != "uploads":
        if method == "HEAD":  # how a push finds out what it need not send; it transfers nothing
            return Pull(Kind.OTHER)
        return Pull(Kind.BLOB, found["repository"], found["name"])
    if _READS.fullmatch(path):
        return Pull(Kind.OTHER)
    raise _bad("its path is none of the registry API")


def _bad(message: str) -> UsageError:
    return UsageError(f"Dockwarden does not let this request through: {message}", reason="bad_pull")


def registry_of(session: Connection, actor: Actor, named: str) -> str:
    """The configured registry that a gate stands before: by its name or an alias, else the only one there is.

    The host that a client sent is not asked: a client may send any, and would have its tag resolved elsewhere.
    Raises UsageError(reason="bad_pull").
    """
    known = [each for each in registries.list_(session) if actor.projects is None or each.project in actor.projects]
    if named:
        found = [each.host for each in known if named == each.host or named in each.aliases]
        if not found:
            raise _bad(f"{clean_text(named, 100)} is not a configured registry; add it under Registries")
        return found[0]
    if len(known) != 1:
        raise _bad("the gate's address does not name the registry; add ?registry=HOST to it, see docs/pull-gate.md")
    return known[0].host


def decide(pull: Pull, place: Place, door: doors.Door, actor: Actor, *, ends: float) -> doors.Judged | None:
    """Judge a pull before ``ends`` of the monotonic clock. None: it is not judged, and passes.

    Raises UsageError(reason="bad_pull") for a name that no registry can have.
    """
    if pull.kind is Kind.OTHER or (pull.kind is Kind.BLOB and not place.strict):
        return None
    separator = "@" if ":" in pull.name else ":"
    try:
        reference = Reference.parse(f"{place.host}/{pull.repository}{separator}{pull.name}")
    except (UsageError, ImageError) as error:
        raise _bad(f"{error}") from error
    if pull.kind is Kind.BLOB:
        return _blob(reference, place, door, actor)
    if reference.digest is not None and (known := _known(reference, reference.digest, place, door, actor)) is not None:
        return doors.let_through(known, door, reference.digest)
    return doors.judge(str(reference), None, place.environment, door, actor, ends=ends)


def _known(reference: Reference, digest: Digest, place: Place, door: doors.Door, actor: Actor) -> doors.Judged | None:
    """What is known of a manifest without a scan: its own decision, that of an index that holds it, or that it is no
    image.

    None: a scan must tell.
    """
    question = gate.Question(reference, place.environment, actor.projects)
    own = doors.decided(question, digest, None, door, ask_again=True)
    if own is not None:
        return doors.Judged(str(reference), "", own, digest=digest)
    with door.database.read() as session:
        if pulls.is_artifact(session, digest):
            return doors.Judged(str(reference), "", None, digest=digest, artifact=True)
        indexes = pulls.indexes_of(session, digest, reference.name)
    found = [each for index in indexes if (each := _in_index(question, Digest(index), digest, door)) is not None]
    if not found:
        return None
    worst = max(found, key=lambda each: ("allow", "warn", "deny").index(each["verdict"]))
    return doors.let_through(doors.Judged(str(reference), "", worst, digest=digest), door, *indexes)


def _in_index(question: gate.Question, index: Digest, manifest: Digest, door: doors.Door) -> gate.Document | None:
    """The decision about one manifest of an index. None: there is none in force."""
    text = doors.in_force(question, index, door, ask_again=True)
    if text is None:
        return None
    document: gate.Document = orjson.loads(text)
    verdicts = dict(document["images"])
    verdict = verdicts.get(manifest, document["verdict"])
    if document["verdict"] == "deny" and "deny" not in verdicts.values():
        verdict = "deny"  # for what the whole index lacks, such as evidence that is recent enough
    return doors.summary(document) | {"verdict": verdict}


def _blob(reference: Reference, place: Place, door: doors.Door, actor: Actor) -> doors.Judged:
    """A blob is let through where an image that has it is allowed under this very name, or only artifacts have it."""
    assert reference.digest is not None
    with door.database.read() as session:
        images = pulls.images_with(session, reference.digest, reference.name)
        artifact = not images and pulls.is_artifact_blob(session, reference.digest)
    if artifact:
        return doors.Judged(str(reference), "", None, digest=reference.digest, artifact=True)
    for subject, manifest in images:
        at = replace(reference, digest=Digest(manifest))
        question = gate.Question(at, place.environment, actor.projects)
        if subject == manifest:
            document = doors.decided(question, Digest(manifest), None, door, ask_again=False)
        else:
            document = _in_index(question, Digest(subject), Digest(manifest), door)
        judged = doors.Judged(str(reference), "", document, digest=reference.digest)
        judged = doors.let_through(judged, door, subject, manifest)
        if judged.allowed:
            return judged
    problem = "no image of this repository that is allowed has this blob"
    return doors.Judged(str(reference), "", None, problem, digest=reference.digest)


def call(pull: Pull, place: Place, judged: doors.Judged | None, message: str, *, client: str) -> Call | None:
    """What is recorded of a pull. None for what is not judged or not there, and for a blob that is let through."""
    if judged is None or judged.missing or (pull.kind is Kind.BLOB and judged.allowed):
        return None
    separator = "@" if ":" in pull.name else ":"
    image = {
        "image": clean_text(judged.image, 300),
        "container": "",
        "digest": str((judged.document or {}).get("digest") or ""),
        "verdict": "artifact" if judged.artifact else judged.verdict,
    }
    outcome = "denied" if not judged.allowed else "warned" if judged.verdict == "warn" else "allowed"
    name = clean_text(f"{pull.repository}{separator}{pull.name}", 253)
    user = clean_text(client, 253)
    kind, environment = str(pull.kind), place.environment
    return Call("registry", user, "pull", kind, place.host, name, "enforce", environment, outcome, (image,), message)
