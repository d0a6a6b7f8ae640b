"""The pull gate: a proxy in front of a registry asks about each request, and the gate decides.

OCI distribution-spec 1.1, https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull

Decisions are needed for pulls of manifests only (with ``strict`` also of blobs), because nothing runs without its
manifest. Pushes, lists and token requests pass. A path that proxy and registry might parse differently is refused.
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

_URI_LENGTH = 8192  # nginx sends no longer request line by default (large_client_header_buffers)
# Pushes and deletions are the registry's business: the gate decides about pulls.
_PASSING_METHODS = frozenset({"PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_PULLING_METHODS = frozenset({"GET", "HEAD"})
# Characters that all proxies and registries parse in the same way. Escapes of '/', '.' and '\\' are normalised by some
# and not by others, so that a proxy would ask about another path than the registry serves. They are not in _ESCAPES,
# which has those that clients write.
# No comma: of a header that comes twice, servers make one text with a comma. No semicolon: Java's servers (Artifactory,
# Nexus) cut a segment at it, so that `/v2;a/` is `/v2/` there, and `..;` is `..`.
_PATH = re.compile(r"(?:/[A-Za-z0-9._~:@+=!$&'()*-]+)*/?", re.ASCII)
_SECOND_URI = re.compile(r",\s*/")  # the header came twice, and the first path has a query
_ESCAPES = {"%3a": ":", "%40": "@", "%2b": "+", "%7e": "~"}
# The only escapes that clients write in such paths; any other is refused.
_ESCAPE = re.compile("|".join(_ESCAPES), re.IGNORECASE)
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<name>[^/]+)/?")
_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<name>[^/]+)/?")
# The registry API below another path (Artifactory, Nexus, a proxy with a prefix), and the first version of it.
_ELSEWHERE = re.compile(r"(?:/[^/]+)*/(?:v2/.*/(?:manifests|blobs)|v1/images)/.*", re.IGNORECASE)
# Other reads of the registry API, which transfer nothing that runs. Unknown paths below /v2/ are refused: they might
# serve manifests.
_READS = re.compile(
    r"/v2/?|/v2/_catalog/?|/v2/.+/tags/list/?|/v2/.+/referrers/[^/]+/?|/v2/.+/blobs/uploads/[^/]*/?"
    r"|/v2/.+/_trust/tuf/.+|/v2/token/?|/v2/auth/?"
)


class Kind(StrEnum):
    MANIFEST = "manifest"
    BLOB = "blob"
    OTHER = "other"


@dataclass(frozen=True)
class Pull:
    """The purpose of a request. ``name``: a tag or a digest. Repository and name are empty for `Kind.OTHER`."""

    kind: Kind
    repository: str = ""
    name: str = ""


@dataclass(frozen=True)
class GatedRegistry:
    """A registry behind a pull gate. ``environment``: selects policies. ``strict``: blobs need a decision, too."""

    host: str
    environment: str = ""
    strict: bool = False


def parse(method: str, uri: str) -> Pull:
    """Return the purpose of a request. Raises UsageError(reason="bad_pull") if it is ambiguous or unknown."""
    if method in _PASSING_METHODS:
        return Pull(Kind.OTHER)
    if method not in _PULLING_METHODS:
        raise _invalid(f"the method {clean_text(method, 20)!r} is unknown")
    # One pass over the few escapes that clients write. Any other `%` is refused below, so that `%252f` cannot become
    # a slash.
    path = _ESCAPE.sub(lambda match: _ESCAPES[match[0].lower()], uri.partition("?")[0])
    if (
        len(uri) > _URI_LENGTH
        or not path.startswith("/")
        or _SECOND_URI.search(uri)
        or not _PATH.fullmatch(path)
        or {".", ".."} & set(path.split("/"))
    ):
        raise _invalid("its path is ambiguous: proxy and registry may parse it differently")
    # In any case of letters: a registry behind a case-insensitive proxy would serve `/V2/` too. It then has to match
    # the patterns below, which it does not, so it is refused.
    if not path.lower().startswith("/v2/") and path.lower() != "/v2":
        if _ELSEWHERE.fullmatch(path):
            raise _invalid("the registry API is not at the root of this host; see docs/pull-gate.md")
        return Pull(Kind.OTHER)
    if (found := _MANIFEST.fullmatch(path)) is not None:
        return Pull(Kind.MANIFEST, found["repository"], found["name"])
    if (found := _BLOB.fullmatch(path)) is not None and found["name"] != "uploads":
        if method == "HEAD":  # pushes test which blobs exist; no content is sent
            return Pull(Kind.OTHER)
        return Pull(Kind.BLOB, found["repository"], found["name"])
    if _READS.fullmatch(path):
        return Pull(Kind.OTHER)
    raise _invalid("its path is not part of the registry API")


def _invalid(message: str) -> UsageError:
    return UsageError(f"Dockwarden denies this request: {message}", reason="bad_pull")


def registry_of(session: Connection, actor: Actor, named: str) -> str:
    """Return the host of the configured registry behind a gate: by name or alias, or the only one if ``named`` is
    empty.

    The request's Host header is not used. A client could send another host, where its tag is a harmless image.
    Raises UsageError(reason="bad_pull").
    """
    known = [
        each for each in registries.list_registries(session) if actor.projects is None or each.project in actor.projects
    ]
    if named:
        found = [each.host for each in known if named == each.host or named in each.aliases]
        if not found:
            raise _invalid(f"{clean_text(named, 100)} is not a configured registry; add it under Registries")
        return found[0]
    if len(known) != 1:
        raise _invalid("the gate's address does not name the registry; add ?registry=HOST to it, see docs/pull-gate.md")
    return known[0].host


def decide(
    pull: Pull, place: GatedRegistry, door: doors.DoorServices, actor: Actor, *, ends: float
) -> doors.DoorResult | None:
    """Decide about a pull before ``ends`` on the monotonic clock. None: it needs no decision and passes.

    Raises UsageError(reason="bad_pull") for an invalid name.
    """
    if pull.kind is Kind.OTHER or (pull.kind is Kind.BLOB and not place.strict):
        return None
    separator = "@" if ":" in pull.name else ":"
    try:
        reference = Reference.parse(f"{place.host}/{pull.repository}{separator}{pull.name}")
    except (UsageError, ImageError) as error:
        raise _invalid(f"{error}") from error
    if pull.kind is Kind.BLOB:
        return _blob(reference, place, door, actor)
    if (
        reference.digest is not None
        and (known := _known_verdict(reference, reference.digest, place, door, actor)) is not None
    ):
        return doors.let_through(known, door, reference.digest)
    return doors.decide(str(reference), None, place.environment, door, actor, ends=ends)


def _known_verdict(
    reference: Reference, digest: Digest, place: GatedRegistry, door: doors.DoorServices, actor: Actor
) -> doors.DoorResult | None:
    """Return what is known about a manifest without a scan. None: a scan is needed.

    This is its own decision, the worst decision of the indexes that contain it, or that it is an artifact.
    """
    question = gate.GateRequest(reference, place.environment, actor.projects)
    own = doors.cached_decision(question, digest, None, door, ask_again=True)
    if own is not None:
        return doors.DoorResult(str(reference), "", own, digest=digest)
    with door.database.read() as session:
        if pulls.is_artifact(session, digest):
            return doors.DoorResult(str(reference), "", None, digest=digest, artifact=True)
        indexes = pulls.indexes_of(session, digest, reference.name)
    found = [each for index in indexes if (each := _in_index(question, Digest(index), digest, door)) is not None]
    if not found:
        return None
    # A platform's manifest can be in several indexes (tags) of the repository. The worst decision counts, because the
    # client could have come by any of them.
    worst = max(found, key=lambda each: ("allow", "warn", "deny").index(each["verdict"]))
    return doors.let_through(doors.DoorResult(str(reference), "", worst, digest=digest), door, *indexes)


def _in_index(
    question: gate.GateRequest, index: Digest, manifest: Digest, door: doors.DoorServices
) -> gate.Document | None:
    """Return the decision about one manifest of an index. None: there is no current one."""
    text = doors.current_decision(question, index, door, ask_again=True)
    if text is None:
        return None
    document: gate.Document = orjson.loads(text)
    verdicts = dict(document["images"])
    verdict = verdicts.get(manifest, document["verdict"])
    if document["verdict"] == "deny" and "deny" not in verdicts.values():
        verdict = "deny"  # denied for the index as a whole, for example because its evidence is too old
    return doors.summary(document) | {"verdict": verdict}


def _blob(reference: Reference, place: GatedRegistry, door: doors.DoorServices, actor: Actor) -> doors.DoorResult:
    """Allow a blob if an image of this repository that contains it is allowed, or if only artifacts contain it."""
    assert reference.digest is not None
    with door.database.read() as session:
        images = pulls.images_with(session, reference.digest, reference.name)
        artifact = not images and pulls.is_artifact_blob(session, reference.digest)
    if artifact:
        return doors.DoorResult(str(reference), "", None, digest=reference.digest, artifact=True)
    for subject, manifest in images:
        at = replace(reference, digest=Digest(manifest))
        question = gate.GateRequest(at, place.environment, actor.projects)
        if subject == manifest:
            document = doors.cached_decision(question, Digest(manifest), None, door, ask_again=False)
        else:
            document = _in_index(question, Digest(subject), Digest(manifest), door)
        judged = doors.DoorResult(str(reference), "", document, digest=reference.digest)
        judged = doors.let_through(judged, door, subject, manifest)
        if judged.allowed:
            return judged
    problem = "no allowed image of this repository contains this blob"
    return doors.DoorResult(str(reference), "", None, problem, digest=reference.digest)


def call(
    pull: Pull, place: GatedRegistry, judged: doors.DoorResult | None, message: str, *, client: str
) -> Call | None:
    """Return the record of a pull. None without a decision, for missing manifests, and for allowed blobs (too many)."""
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
