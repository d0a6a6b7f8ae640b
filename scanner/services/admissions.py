"""Admission of Kubernetes objects: each container's image and how it is run, judged together by the gate.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

Closed by default: what cannot be read, is not known yet, or fails on our side is denied. A namespace's mode says what a
denial does: ``enforce`` refuses, ``warn`` tells the caller, ``audit`` leaves a mark in the API server's audit log.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Protocol

import orjson

from scanner import catalog
from scanner.config import Settings
from scanner.errors import NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.reference import Digest, Reference
from scanner.model.scan import ScanState
from scanner.model.untrusted import clean_text
from scanner.model.workload import Workload
from scanner.services import gate, projects
from scanner.services import scans as scan_use_cases
from scanner.store import gate as store_gate
from scanner.store import scans
from scanner.store.session import Database

MESSAGE_LENGTH = 1000
_WARNING_LENGTH = 250  # the API server cuts longer ones
_REASONS = 3
_MAX_CONTAINERS = 100
_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{0,253}")
_ENVIRONMENT = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})?")
_JUDGED_OPERATIONS = frozenset({"CREATE", "UPDATE"})
_OTHER_OPERATIONS = frozenset({"DELETE", "CONNECT"})  # these start no container
_HARMLESS_SUBRESOURCES = frozenset({"scale", "status"})  # they carry no other pod than the one that is there
_RESOLVED_SECONDS = 10.0
_REMEMBERED_TEXT = 64 << 10
_TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")


class Mode(StrEnum):
    """What a denial does in a namespace."""

    ENFORCE = "enforce"
    WARN = "warn"
    AUDIT = "audit"


class Outcome(StrEnum):
    """What became of a review. ``watched``: let in while it is being scanned, as the settings say."""

    ALLOWED = "allowed"
    WARNED = "warned"
    DENIED = "denied"
    AUDITED = "audited"
    WATCHED = "watched"


@dataclass(frozen=True)
class Review:
    """The request of an AdmissionReview, as far as it concerns us."""

    uid: str
    operation: str
    kind: str
    subresource: str
    namespace: str
    name: str
    user: str
    dry_run: bool
    object: Mapping[str, Any] | None
    old_object: Mapping[str, Any] | None


@dataclass(frozen=True)
class Judged:
    """One container: its decision (see `_summary`), or why there is none. ``pending``: a scan is under way."""

    workload: Workload
    document: gate.Document | None
    problem: str = ""
    pending: bool = False

    @property
    def verdict(self) -> str:
        return str(self.document["verdict"]) if self.document else "unknown"


@dataclass(frozen=True)
class Answer:
    """The response to a review, and what the page Enforcement shows of it."""

    review: Review
    mode: Mode
    environment: str
    outcome: Outcome
    message: str = ""
    warnings: tuple[str, ...] = ()
    images: tuple[Mapping[str, str], ...] = ()

    @property
    def allowed(self) -> bool:
        return self.outcome is not Outcome.DENIED

    def response(self) -> dict[str, Any]:
        """The AdmissionReview that the API server expects."""
        response: dict[str, Any] = {"uid": self.review.uid, "allowed": self.allowed}
        if not self.allowed:
            response["status"] = {"code": 403, "reason": "Forbidden", "message": self.message}
        if self.warnings:
            response["warnings"] = list(self.warnings)
        if self.images or self.message:
            marks = {"outcome": str(self.outcome), "mode": str(self.mode)}
            if self.message:
                marks["reason"] = self.message
            response["auditAnnotations"] = marks
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


# Reading a review


def parse_review(document: Any) -> Review:
    """The request of an AdmissionReview. Raises UsageError(reason="bad_review") for anything else."""
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise _bad("the body is no AdmissionReview")
    if document.get("apiVersion") != "admission.k8s.io/v1":
        raise _bad("its apiVersion is not admission.k8s.io/v1")
    request = document.get("request")
    if not isinstance(request, dict):
        raise _bad("it has no request")
    kind, user = _mapping(request, "kind"), _mapping(request, "userInfo")
    operation, dry_run = request.get("operation"), request.get("dryRun", False)
    if not isinstance(operation, str) or operation not in _JUDGED_OPERATIONS | _OTHER_OPERATIONS:
        raise _bad("its operation is unknown")
    if dry_run not in (True, False, None):
        raise _bad("dryRun is neither true nor false")
    found = Review(
        uid_of(document),
        operation,
        _text(kind, "kind"),
        _text(request, "subResource"),
        _text(request, "namespace"),
        _text(request, "name"),
        clean_text(str(user.get("username") or ""), 253),
        bool(dry_run),
        _object(request, "object"),
        _object(request, "oldObject"),
    )
    if not found.uid:
        raise _bad("it has no uid")
    if not found.kind:
        raise _bad("it has no kind")
    if operation in _JUDGED_OPERATIONS and found.object is None:
        raise _bad("it has no object")
    if found.object is not None and found.object.get("kind", found.kind) != found.kind:
        raise _bad("its object is of another kind than it says")
    return found


def uid_of(document: Any) -> str:
    """The uid that an answer must repeat, also of a review that is otherwise broken. Empty where there is none."""
    request = document.get("request") if isinstance(document, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    return uid if isinstance(uid, str) and len(uid) <= 128 and _NAME.fullmatch(uid) else ""


def refused(document: Any, message: str) -> dict[str, Any]:
    """The denial of a review that could not be judged at all."""
    review = Review(uid_of(document), "", "", "", "", "", "", False, None, None)
    return Answer(review, Mode.ENFORCE, "", Outcome.DENIED, message[:MESSAGE_LENGTH]).response()


def failed(document: Any, review: Review | None, settings: Settings, asked: str, message: str) -> dict[str, Any]:
    """The answer where judging failed on our side: a denial, and where the mode enforces nothing a warning."""
    try:
        mode = mode_of(settings, review.namespace, asked) if review else Mode.ENFORCE
    except UsageError:
        mode = Mode.ENFORCE
    if review is None or mode is Mode.ENFORCE:
        return refused(document, message)
    notes = (clean_text(message, _WARNING_LENGTH),) if mode is Mode.WARN else ()
    outcome = Outcome.WARNED if mode is Mode.WARN else Outcome.AUDITED
    return Answer(review, mode, "", outcome, message[:MESSAGE_LENGTH], notes).response()


def _bad(message: str) -> UsageError:
    return UsageError(f"Dockwarden cannot read this review: {message}", reason="bad_review")


def _mapping(request: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(f"{name} is not an object")
    return value


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise _bad(f"{name} is not a name")
    return text


def _object(request: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = request.get(name)
    if value is not None and not isinstance(value, dict):
        raise _bad(f"{name} is not an object")
    return value


# Which rules hold where


def chosen(given: Sequence[str], namespace: str) -> str | None:
    """The value of the first ``pattern=value`` whose pattern matches the namespace; None: there is none."""
    for item in given:
        pattern, _, value = item.partition("=")
        if fnmatchcase(namespace, pattern.strip()):
            return value.strip()
    return None


def mode_of(settings: Settings, namespace: str, asked: str) -> Mode:
    """The namespace's mode: by the settings, else by the webhook's address, else ``enforce``. Raises UsageError."""
    value = chosen(settings.admission_modes, namespace) or asked or Mode.ENFORCE
    if value not in set(Mode):
        raise _bad(f"there is no mode {clean_text(value, 64)!r}; the modes are {', '.join(Mode)}")
    return Mode(value)


def environment_of(settings: Settings, namespace: str, asked: str) -> str:
    """The namespace's environment: by the settings, else as the webhook's address says. Raises UsageError."""
    found = chosen(settings.admission_environments, namespace)
    value = asked if found is None else found
    if not _ENVIRONMENT.fullmatch(value):
        raise _bad("the environment is not a name of lower-case letters, digits, '.', '_' and '-'")
    return value


def containers_of(review: Review) -> tuple[Workload, ...]:
    """The containers that the object would start: all of a pod template that changes, of a pod those that are new.

    An update that changes nothing about them (a finalizer is removed, a Deployment is scaled) starts nothing: pods that
    controllers make are reviewed themselves. Raises UsageError for an object that cannot be read.
    """
    if review.object is None or review.operation not in _JUDGED_OPERATIONS:
        return ()
    if review.subresource in _HARMLESS_SUBRESOURCES:
        return ()
    found = _workloads(review.object, review)
    if len(found) > _MAX_CONTAINERS:
        raise _bad(f"it has more than {_MAX_CONTAINERS} containers")
    if review.operation != "UPDATE" or review.old_object is None:
        return found
    before = [workload.facts() for workload in _workloads(review.old_object, review)]
    changed = tuple(workload for workload in found if workload.facts() not in before)
    return changed if review.kind == "Pod" or not changed else found


def _workloads(value: Mapping[str, Any], review: Review) -> tuple[Workload, ...]:
    """Read by the source of manifests. Pods of one controller give the same workloads, whatever their names are."""
    metadata = dict(value["metadata"]) if isinstance(value.get("metadata"), dict) else {}
    if metadata.get("generateName"):
        metadata.pop("name", None)
    kept = ("name", "generateName", "labels", "annotations")
    document = {name: member for name, member in value.items() if name != "status"}
    document |= {"apiVersion": "v1", "kind": review.kind}
    document["metadata"] = {name: metadata[name] for name in kept if name in metadata}
    document["metadata"]["namespace"] = review.namespace or None
    if review.kind == "Pod":
        document["spec"] = _without_token_names(document.get("spec"))
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise _bad("a number in it is too large") from error
    # What is remembered must not be large: whoever may create objects chooses how large they are.
    return _read(text) if len(text) <= _REMEMBERED_TEXT else _read.__wrapped__(text)


def _without_token_names(spec: Any) -> Any:
    """The API server mounts a service account's token as a volume with a name of its own in each pod."""
    if not isinstance(spec, dict):
        return spec
    shown = {name: member for name, member in spec.items() if name != "nodeName"}
    for member in ("volumes", "containers", "initContainers", "ephemeralContainers"):
        if isinstance(shown.get(member), list):
            shown[member] = [_renamed(each) if member == "volumes" else _with_mounts(each) for each in shown[member]]
    return shown


def _with_mounts(container: Any) -> Any:
    if isinstance(container, dict) and isinstance(container.get("volumeMounts"), list):
        return container | {"volumeMounts": [_renamed(each) for each in container["volumeMounts"]]}
    return container


def _renamed(volume: Any) -> Any:
    name = volume.get("name") if isinstance(volume, dict) else None
    return volume | {"name": "kube-api-access"} if isinstance(name, str) and _TOKEN_VOLUME.fullmatch(name) else volume


@lru_cache(maxsize=512)
def _read(text: str) -> tuple[Workload, ...]:
    try:
        return catalog.workload_sources()["kubernetes"].parse(text, "the object")
    except UsageError as error:
        raise _bad(str(error)) from error


# Judging


class Waiter(Protocol):
    """Waits for a scan; see ``web.waiting.waited``."""

    def __call__(self, scan_id: str, seconds: float, projects: frozenset[str] | None) -> scans.ScanView: ...


@dataclass
class Memory:
    """One process's memory of decisions about workloads, and of the digest that a tag had a moment ago.

    A decision is kept under the very document of the verdict in force, which changes whenever a policy, an exemption or
    evidence does; so nothing here has to be forgotten in time.
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
class Door:
    """What judging needs of the process that answers. ``ask`` is the gate's single query for a digest."""

    database: Database
    settings: Settings
    memory: Memory
    ask: Callable[[str, str, str], store_gate.Asked | None]
    enqueue: Callable[[str], object]
    wait: Waiter


def decide(
    review: Review, door: Door, actor: Actor, *, mode: str = "", environment: str = "", seconds: float
) -> Answer:
    """Judge a review within ``seconds``. Raises UsageError(reason="bad_review") for one that cannot be read."""
    chosen_mode = mode_of(door.settings, review.namespace, mode)
    where = environment_of(door.settings, review.namespace, environment)
    if review.namespace and any(fnmatchcase(review.namespace, each) for each in door.settings.admission_exempt):
        return Answer(review, chosen_mode, where, Outcome.ALLOWED)
    ends = time.monotonic() + seconds
    judged = [_judge(each, where, door, actor, review.dry_run, ends) for each in containers_of(review)]
    return _answer(review, chosen_mode, where, judged, door.settings)


def _judge(workload: Workload, environment: str, door: Door, actor: Actor, dry_run: bool, ends: float) -> Judged:
    try:
        reference = Reference.parse(workload.image)
    except UsageError as error:
        return Judged(workload, None, f"its image is no reference: {error}")
    question = gate.Question(reference, environment, actor.projects)
    key = f"{reference}\0{','.join(sorted(actor.projects)) if actor.projects is not None else '*'}".encode()
    digest = reference.digest or door.memory.get(key)
    if digest is not None:
        document = _decided(question, digest, workload, door, ask_again=bool(reference.digest))
        if document is not None:
            return Judged(workload, document)
    if dry_run:  # it must have no side effects: https://kubernetes.io/docs/reference/access-authn-authz/ (dryRun)
        return Judged(workload, None, "it is not known yet, and a dry run starts no scan", pending=True)
    try:
        scan = _scanned(question, door, actor, max(0.0, ends - time.monotonic()))
    except NotFoundError:
        return Judged(workload, None, "its project is not one that the webhook's token sees")
    if not scan.state.terminal:
        return Judged(workload, None, "it is being scanned: ask again in 30 s", pending=True)
    document = None
    if scan.state is ScanState.DONE and scan.digest:
        digest = Digest(scan.digest)
        door.memory.put(key, digest, time.time() + _RESOLVED_SECONDS)
        document = _decided(question, digest, workload, door, ask_again=False)
    if document is None:
        with door.database.session() as session:
            store_gate.note_told(session, scan.id)
    return Judged(workload, document or _summary(gate.undecided(scan, environment)))


def _scanned(question: gate.Question, door: Door, actor: Actor, seconds: float) -> scans.ScanView:
    with door.database.read() as session:
        project = scan_use_cases.project_of(session, actor, None, question.reference)
        engine = projects.engine_for(session, project, door.settings.engine)
    ticket, view = door.database.uncrossed(lambda s: question.scan(s, project, engine, actor.name, "admission"))
    if ticket.created:
        door.enqueue(ticket.scan_id)
    return view if view.state.terminal else door.wait(view.id, seconds, actor.projects)


def _decided(
    question: gate.Question, digest: Digest, workload: Workload, door: Door, *, ask_again: bool
) -> gate.Document | None:
    """The decision about the image and how it is run. None: there is no decision in force about this digest."""
    asked = door.ask(digest, question.reference.name, question.environment)
    if asked is not None and asked.row is not None and asked.current:
        text = asked.row.document
    else:
        found = door.database.uncrossed(lambda session: question.recorded(session, digest, ask_again=ask_again))
        if found is None:
            return None
        text = orjson.dumps(found).decode()
    key = _key(text, workload, question.environment)
    known: gate.Document | None = door.memory.get(key)
    if known is not None:
        return known
    document: gate.Document = orjson.loads(text)
    with door.database.read() as session:
        made = question.with_workloads(session, document, [workload])
    if made is None:
        return _summary(document)
    decided = _summary(orjson.loads(made.document))
    until = made.decision.valid_until
    door.memory.put(key, decided, until.timestamp() if until else None)
    return decided


def _summary(document: gate.Document) -> gate.Document:
    """What an answer needs of a decision, which may have hundreds of reasons with evidence: this is remembered."""
    counted = [each for each in document["reasons"] if each["kind"] != "satisfied"]
    denying = [each for each in counted if each["action"] == "deny"]
    return {
        "verdict": document["verdict"],
        "digest": document["digest"],
        "policy": document["policy"],
        "reasons": [clean_text(each["message"], 300) for each in (denying or counted)[:_REASONS]],
        "count": len(denying or counted),
        "changes": document["changes"][:1],
    }


def _key(verdict: str, workload: Workload, environment: str) -> bytes:
    parts = (verdict.encode(), _facts(workload), environment.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=24).digest()


@lru_cache(maxsize=2048)  # the same workload comes again and again, from the memory of `_read`
def _facts(workload: Workload) -> bytes:
    return orjson.dumps(workload.facts())


# Answering


def _answer(review: Review, mode: Mode, environment: str, judged: Sequence[Judged], settings: Settings) -> Answer:
    images = tuple(
        {
            "image": clean_text(each.workload.image, 300),
            "container": clean_text(each.workload.container, 100),
            "digest": str((each.document or {}).get("digest") or ""),
            "verdict": each.verdict,
        }
        for each in judged
    )
    refusing = [each for each in judged if each.verdict not in ("allow", "warn")]
    if refusing and all(each.pending for each in refusing) and settings.admission_unknown == "allow":
        notes = tuple(_warning(each, "is not scanned yet; it is let in and being scanned") for each in refusing)
        return Answer(review, mode, environment, Outcome.WATCHED, notes[0], notes, images)
    if refusing:
        message = told(refusing, settings.public_url)
        if mode is Mode.ENFORCE:
            return Answer(review, mode, environment, Outcome.DENIED, message, (), images)
        if mode is Mode.WARN:
            notes = tuple(_warning(each, f"would be denied: {_first(each)}") for each in refusing)
            return Answer(review, mode, environment, Outcome.WARNED, message, notes, images)
        return Answer(review, mode, environment, Outcome.AUDITED, message, (), images)
    warned = [each for each in judged if each.verdict == "warn"]
    if warned and mode is not Mode.AUDIT:
        notes = tuple(_warning(each, _first(each)) for each in warned)
        return Answer(review, mode, environment, Outcome.WARNED, notes[0], notes, images)
    return Answer(review, mode, environment, Outcome.ALLOWED, "", (), images)


def told(refusing: Sequence[Judged], public_url: str) -> str:
    """Why, for a person: the image, the first three reasons, what to do, where to read on. At most 1,000 characters."""
    first, *others = refusing
    name = clean_text(first.workload.container, 63)
    lines = [f"{clean_text(first.workload.image, 200)} (container {name}): {first.problem or 'denied'}"]
    tail = []
    if first.document is not None:
        policy, count = first.document["policy"], first.document["count"]
        lines[0] += f" by policy {clean_text(policy, 64)}" if policy else ""
        lines += [f"{n}. {clean_text(each, 180)}" for n, each in enumerate(first.document["reasons"], 1)]
        if count > _REASONS:
            lines.append(f"and {count - _REASONS} more.")
        if fix := _fix(first.document):
            tail.append(f"Fix: {fix}")
        if public_url and first.document["digest"]:
            tail.append(f"See {public_url.rstrip('/')}/images/{first.document['digest']}")
    if others:
        names = ", ".join(clean_text(each.workload.container, 63) for each in others)
        tail.append(f"Also denied: {names}"[:120])
    end = "\n".join(tail)
    start = "\n".join(lines)
    room = MESSAGE_LENGTH - len(end) - 1
    return f"{start if len(start) <= room else start[: room - 1] + '…'}\n{end}".strip()


def _fix(document: gate.Document) -> str:
    changes = document.get("changes") or []
    steps = [f"{each['action']} {each['target']} {each['detail']}" for each in changes[:1]]
    return clean_text(steps[0], 160) if steps else ""


def _first(judged: Judged) -> str:
    if judged.document is None:
        return judged.problem
    return next(iter(judged.document["reasons"]), "")


def _warning(judged: Judged, text: str) -> str:
    name = clean_text(judged.workload.image, 120)
    return clean_text(f"Dockwarden: {name} ({judged.workload.container}): {text}", _WARNING_LENGTH)
