"""Shared code of all doors: decisions about one container or image within a time limit, and their cache.

A door is an enforcement point, where containers start or images are pulled: Kubernetes admission, a Docker engine, a
proxy in front of a registry. All use the gate, so that no copy of a policy exists elsewhere.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import orjson
from sqlalchemy.engine import Connection

from scanner.config import Settings
from scanner.errors import NotFoundError, RefusedError, UsageError
from scanner.model.actor import Actor
from scanner.model.decision import Change
from scanner.model.reference import Digest, Reference
from scanner.model.scan import ScanState
from scanner.model.untrusted import clean_text
from scanner.model.workload import Workload
from scanner.services import break_glass, gate, projects
from scanner.services import scans as scan_use_cases
from scanner.store import break_glass as stored_break_glass
from scanner.store import gate as store_gate
from scanner.store import scans
from scanner.store.session import Database

MESSAGE_LENGTH = 1000  # characters: API servers and engines show it on one line
# A person in front of kubectl reads three lines; the page has all.
REASONS = 3
# Each is decided while the API server waits.
_MAX_MOUNTED_IMAGES = 20
TOO_MANY_SCANS = "too many images that are not known were asked for"
BEING_SCANNED = "the image is being scanned: try again in 30 s"
# A rollout requests one tag many times within seconds. Longer, and a moved tag would keep its old decision.
_RESOLVED_SECONDS = 10.0


@dataclass(frozen=True)
class DoorResult:
    """One container or image (``container`` empty) with its decision (see `summary`), or the problem that prevents one.

    ``pending``: scan in progress. ``artifact``: a signature, an SBOM or similar, which cannot be run.
    ``missing``: the registry has no such manifest.
    """

    image: str
    container: str
    document: gate.Document | None  # None: there is no decision; ``problem`` says why
    problem: str = ""
    pending: bool = False
    digest: str = ""
    artifact: bool = False
    missing: bool = False

    @property
    def verdict(self) -> str:
        return str(self.document["verdict"]) if self.document else "unknown"

    @property
    def allowed(self) -> bool:
        # An unknown verdict is not in the list: what could not be decided does not start.
        return self.artifact or self.verdict in ("allow", "warn")

    @property
    def first(self) -> str:
        """The first reason, or the problem if there is no decision."""
        return next(iter(self.document["reasons"]), "") if self.document is not None else self.problem


class Waiter(Protocol):
    """Waits up to ``seconds`` for a scan to end. See ``web.waiting.wait_for_end``."""

    def __call__(self, scan_id: str, seconds: float, projects: frozenset[str] | None) -> scans.ScanView: ...


@dataclass
class DecisionCache:
    """A cache of workload decisions and of recently resolved tags, one per process.

    The key of a decision contains the image's current decision document. That document changes with every policy,
    exemption and evidence, so cached entries need no invalidation.
    """

    size: int = 1024
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[bytes, tuple[Any, float | None]] = field(default_factory=OrderedDict)

    def get(self, key: bytes) -> Any:
        with self._lock:
            value, until = self._kept.get(key, (None, None))
            return value if until is None or time.time() < until else None

    def put(self, key: bytes, value: Any, until: float | None) -> None:
        with self._lock:
            self._kept[key] = (value, until)
            self._kept.move_to_end(key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)


@dataclass(frozen=True)
class DoorServices:
    """The services of the web process that a decision needs. ``ask`` is the gate's single query for a digest.

    ``source``: recorded with the scans that are requested. ``count_scan``: called for each new one, in its transaction;
    raises RefusedError(reason="rate_limited") when there are too many.
    """

    database: Database
    settings: Settings
    memory: DecisionCache
    ask: Callable[[str, str, str], store_gate.GateLookup | None]
    enqueue: Callable[[str], object]
    wait: Waiter
    source: str = "admission"  # of the scans that are requested here
    count_scan: Callable[[], None] = lambda: None
    # Digests of which ``ask`` told, in its one query, that nobody breaks glass for them: no second query is needed.
    unbroken: set[str] = field(default_factory=set)


def decide(
    image: str,
    workload: Workload | None,
    environment: str,
    door: DoorServices,
    actor: Actor,
    *,
    dry_run: bool = False,
    ends: float,
) -> DoorResult:
    """Judge an image, and with ``workload`` how it is run, before ``ends`` of the monotonic clock.

    What is not known yet is scanned, and waited for; a dry run starts no scan. The images whose files the workload
    mounts are judged as well; a denied one is the result.
    """
    found = _judge(image, workload, environment, door, actor, dry_run=dry_run, ends=ends)
    found = let_through(found, door, image.partition("@")[2] or found.digest)
    mounted = workload.mounted_images if workload else ()
    # A denied image needs no look at what it mounts: the answer cannot become better.
    if workload is None or not mounted or found.verdict not in ("allow", "warn"):
        return found
    if len(mounted) > _MAX_MOUNTED_IMAGES:
        problem = f"it mounts the files of more than {_MAX_MOUNTED_IMAGES} images"
        return DoorResult(image, workload.container, None, problem)
    # `ends` is one deadline for all of them. A pod that mounts many unknown images gets an answer in time, which says
    # that they are being scanned.
    for each in mounted:
        other = decide(each.image, None, environment, door, actor, dry_run=dry_run, ends=ends)
        if other.verdict not in ("allow", "warn"):
            return replace(other, container=workload.container)
    return found


def let_through(judged: DoorResult, door: DoorServices, *digests: str) -> DoorResult:
    """As it is where a person lets one of these digests through in an emergency; see `break_glass`."""
    unsure = [digest for digest in digests if digest and digest not in door.unbroken]
    # Only a denial is worth a query. Almost all calls are allowed ones, and they must stay cheap.
    if judged.verdict in ("allow", "warn") or judged.artifact or not unsure:
        return judged
    with door.database.read() as session:
        glass = stored_break_glass.in_force(session, unsure)
    if glass is None:
        return judged
    document = judged.document or {"digest": judged.digest or glass.digest, "policy": "", "reasons": [], "changes": []}
    reasons = [break_glass.override_text(glass), *document["reasons"]]
    changed = {"verdict": "warn", "reasons": reasons, "count": len(reasons), "valid_until": glass.until.isoformat()}
    return replace(judged, document=document | changed, problem="", pending=False, missing=False)


def _judge(
    image: str,
    workload: Workload | None,
    environment: str,
    door: DoorServices,
    actor: Actor,
    *,
    dry_run: bool = False,
    ends: float,
) -> DoorResult:
    """Decide about an image, with ``workload`` also about its settings, before ``ends`` on the monotonic clock.

    An unknown image is scanned, and the scan is awaited. A dry run starts no scan.
    """
    container = workload.container if workload else ""
    try:
        reference = Reference.parse(image)
    except UsageError as error:
        return DoorResult(image, container, None, f"not an image reference: {error}")
    question = gate.GateRequest(reference, environment, actor.projects)
    # The projects are part of the key. Without them, a token of one project would learn from the cache which digest a
    # tag of another project's repository has.
    key = f"{reference}\0{','.join(sorted(actor.projects)) if actor.projects is not None else '*'}".encode()
    # A tag is resolved by the scan in a worker, never here: the web process connects to no registry.
    digest = reference.digest or door.memory.get(key)
    if digest is not None:
        document = cached_decision(question, digest, workload, door, ask_again=bool(reference.digest))
        if document is not None:
            return DoorResult(image, container, document, digest=digest)
    if dry_run:  # must have no side effects (Kubernetes, "Side effects" of admission webhooks)
        return DoorResult(
            image, container, None, "the image has not been scanned, and a dry run starts no scan", pending=True
        )
    try:
        scan = _wait_for_scan(question, door, actor, max(0.0, ends - time.monotonic()))
    except NotFoundError:
        return DoorResult(image, container, None, "the token has no access to the image's project")
    except RefusedError as error:
        # Not pending: nothing is being scanned, so there is nothing that `admission_unknown` could let in meanwhile.
        return DoorResult(image, container, None, f"{TOO_MANY_SCANS}: {error.hint or 'try again later'}")
    if not scan.state.terminal:
        return DoorResult(image, container, None, BEING_SCANNED, pending=True)
    document = None
    artifact = scan.state is ScanState.DONE and scan.reason == scans.NOT_AN_IMAGE
    if scan.state is ScanState.DONE and scan.digest:
        digest = Digest(scan.digest)
        door.memory.put(key, digest, time.time() + _RESOLVED_SECONDS)
        document = None if artifact else cached_decision(question, digest, workload, door, ask_again=False)
    if document is None and not artifact:
        # A failed scan answers one question. The next one starts a new scan, instead of repeating a failure that may
        # be over.
        with door.database.session() as session:
            store_gate.note_failure_reported(session, scan.id)
    document = document or summary(gate.undecided(scan, environment))
    missing = scan.state is ScanState.FAILED and scan.reason == NotFoundError.default_reason
    return DoorResult(image, container, document, digest=digest or "", artifact=artifact, missing=missing)


def _wait_for_scan(question: gate.GateRequest, door: DoorServices, actor: Actor, seconds: float) -> scans.ScanView:
    with door.database.read() as session:
        project = scan_use_cases.project_of(session, actor, None, question.reference)
        engine = projects.engine_for(session, project, door.settings.engine)

    def request(session: Connection) -> tuple[scans.Ticket, scans.ScanView]:
        ticket, view = question.scan(session, project, engine, actor.name, door.source)
        if ticket.created:
            door.count_scan()  # here, so that a refusal takes the scan back
        return ticket, view

    ticket, view = door.database.uncrossed(request)
    # After the commit. A worker that is faster than this transaction would find no scan under the id.
    if ticket.created:
        door.enqueue(ticket.scan_id)
    return view if view.state.terminal else door.wait(view.id, seconds, actor.projects)


def cached_decision(
    question: gate.GateRequest, digest: Digest, workload: Workload | None, door: DoorServices, *, ask_again: bool
) -> gate.Document | None:
    """Return the summary of the decision about image and workload. None: no valid decision exists for this digest."""
    text = current_decision(question, digest, door, ask_again=ask_again)
    if text is None:
        return None
    key = _key(text, workload, question.environment)
    known: gate.Document | None = door.memory.get(key)
    if known is not None:
        return known
    document: gate.Document = orjson.loads(text)
    made = None
    if workload is not None:
        with door.database.read() as session:
            made = question.with_workloads(session, document, [workload])
    if made is None:
        return summary(document)
    answer = summary(orjson.loads(made.document))
    until = made.decision.valid_until
    door.memory.put(key, answer, until.timestamp() if until else None)
    return answer


def current_decision(question: gate.GateRequest, digest: Digest, door: DoorServices, *, ask_again: bool) -> str | None:
    """Return the current decision about a digest as JSON. See `gate.GateRequest.recorded`."""
    asked = door.ask(digest, question.reference.name, question.environment)
    if asked is not None and not asked.broken_glass:
        door.unbroken.add(digest)
    # The path of nearly every call: one query, no transaction that writes. Everything below takes SQLite's write
    # lock.
    if asked is not None and asked.row is not None and asked.current:
        return asked.row.document
    found = door.database.uncrossed(lambda session: question.recorded(session, digest, ask_again=ask_again))
    return None if found is None else orjson.dumps(found).decode()


def summary(document: gate.Document) -> gate.Document:
    """Reduce a decision to what an answer needs, for caching: decisions can have hundreds of reasons with evidence."""
    counted = [each for each in document["reasons"] if each["kind"] != "satisfied"]
    # People who are refused need the reasons of the refusal. Warnings beside them would only hide it, because three
    # are shown.
    denying = [each for each in counted if each["action"] == "deny"]
    return {
        "verdict": document["verdict"],
        "digest": document["digest"],
        "policy": document["policy"],
        "reasons": [clean_text(each["message"], 300) for each in (denying or counted)[:REASONS]],
        "count": len(denying or counted),
        "changes": document["changes"][:1],
        "valid_until": document["valid_until"],
    }


def _key(verdict: str, workload: Workload | None, environment: str) -> bytes:
    parts = (verdict.encode(), _facts(workload) if workload else b"", environment.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=24).digest()


@lru_cache(maxsize=2048)  # equal workloads are the same object (cache of `_read`), so the hash is computed once
def _facts(workload: Workload) -> bytes:
    return workload.facts_json()


def denial_message(refusing: Sequence[DoorResult], public_url: str) -> str:
    """Return the denial for people: image, first three reasons, fix, link. At most `MESSAGE_LENGTH` characters."""
    first, *others = refusing
    within = f" (container {clean_text(first.container, 63)})" if first.container else ""
    lines = [f"{clean_text(first.image, 200)}{within}: {first.problem or 'denied'}"]
    tail = []
    if first.document is not None:
        policy, count = first.document["policy"], first.document["count"]
        lines[0] += f" by policy {clean_text(policy, 64)}" if policy else ""
        lines += [f"{n}. {clean_text(each, 180)}" for n, each in enumerate(first.document["reasons"], 1)]
        if count > REASONS:
            lines.append(f"and {count - REASONS} more.")
        if fix := _fix(first.document):
            tail.append(f"Fix: {fix}")
        if public_url and first.document["digest"]:
            tail.append(f"See {public_url.rstrip('/')}/images/{first.document['digest']}")
    if others:
        names = ", ".join(clean_text(each.container, 63) for each in others)
        tail.append(f"Also denied: {names}"[:120])
    end = "\n".join(tail)
    start = "\n".join(lines)
    # The end (fix and link) is kept and the reasons are cut: the fix is what the reader can act on.
    room = MESSAGE_LENGTH - len(end) - 1
    return f"{start if len(start) <= room else start[: room - 1] + '…'}\n{end}".strip()


def _fix(document: gate.Document) -> str:
    changes = document.get("changes") or []
    steps = [Change(each["action"], each["target"], each["detail"]).text for each in changes[:1]]
    return clean_text(steps[0], 160) if steps else ""
