"""Admission control for Kubernetes: the gate decides about each container's image and configuration together.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

Deny by default: an unreadable object, an image without a decision and an internal error are all denied. The mode of a
namespace sets the effect of a denial: ``enforce`` refuses the request, ``warn`` allows it with a warning, ``audit``
allows it with an annotation in the API server's audit log.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from scanner import catalog
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model import glob
from scanner.model.actor import Actor
from scanner.model.untrusted import clean_text
from scanner.model.workload import Workload
from scanner.services import doors
from scanner.services.door_calls import Call

_WARNING_LENGTH = 250  # the API server truncates longer warnings
# Each container costs a decision within the API server's timeout (30 s at most), and a request is free for every user
# who may create objects. Pods of real clusters have fewer than twenty.
_MAX_CONTAINERS = 100
# Each container's facts have those of its pod. Beyond, a review would take longer than the API server waits, and a
# webhook with failurePolicy Ignore would then admit the object.
_MAX_VOLUMES = 500
_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{0,253}")
ENVIRONMENT = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})?")
# DELETE and CONNECT start no container.
_JUDGED_OPERATIONS = frozenset({"CREATE", "UPDATE"})
_OTHER_OPERATIONS = frozenset({"DELETE", "CONNECT"})  # start no container
_HARMLESS_SUBRESOURCES = frozenset({"scale", "status"})  # change no pod template
_REMEMBERED_TEXT = 64 << 10
_TOKENS = "kube-api-access"  # the token volume, without the random end of its name
# The volume that the API server adds for the service account's token.
_TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")


class Mode(StrEnum):
    """The effect of a denial in a namespace."""

    ENFORCE = "enforce"
    WARN = "warn"
    AUDIT = "audit"


class Outcome(StrEnum):
    """The result of a review. ``watched``: allowed while its image is being scanned (``admission_unknown=allow``)."""

    ALLOWED = "allowed"
    WARNED = "warned"
    DENIED = "denied"
    AUDITED = "audited"
    WATCHED = "watched"


@dataclass(frozen=True)
class Review:
    """The members of an AdmissionReview's request that a decision needs."""

    uid: str
    operation: str
    kind: str
    subresource: str  # such as ``ephemeralcontainers``; empty: the object itself
    namespace: str
    name: str
    user: str
    dry_run: bool  # nothing is recorded and no scan is queued: the API server asks for no side effects
    object: Mapping[str, Any] | None  # None: a DELETE
    old_object: Mapping[str, Any] | None
    api_version: str = "v1"  # that of a custom resource; all of Kubernetes' own have "v1" here


@dataclass(frozen=True)
class Answer:
    """The response to a review, with the data for the page Enforcement."""

    review: Review
    mode: Mode  # whether a denial is enforced, or only recorded
    environment: str
    outcome: Outcome
    message: str = ""
    warnings: tuple[str, ...] = ()  # shown by kubectl
    images: tuple[Mapping[str, str], ...] = ()

    @property
    def allowed(self) -> bool:
        return self.outcome is not Outcome.DENIED

    def response(self) -> dict[str, Any]:
        """Return the response as an AdmissionReview document."""
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

    def call(self) -> Call | None:
        """Return the record of this answer. None for objects without containers and for dry runs: no side effects."""
        review = self.review
        if review.dry_run or not self.images:
            return None
        return Call(
            "kubernetes",
            review.user,
            review.operation,
            review.kind,
            review.namespace,
            review.name,
            str(self.mode),
            self.environment,
            str(self.outcome),
            self.images,
            self.message,
        )


# Parsing a review


def parse_review(document: Any) -> Review:
    """Return the request of an AdmissionReview. Raises UsageError(reason="bad_review") for anything else."""
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise _invalid("the body is not an AdmissionReview")
    if document.get("apiVersion") != "admission.k8s.io/v1":
        raise _invalid("apiVersion is not admission.k8s.io/v1")
    request = document.get("request")
    if not isinstance(request, dict):
        raise _invalid("request is missing")
    kind, user = _mapping(request, "kind"), _mapping(request, "userInfo")
    operation, dry_run = request.get("operation"), request.get("dryRun", False)
    if not isinstance(operation, str) or operation not in _JUDGED_OPERATIONS | _OTHER_OPERATIONS:
        raise _invalid("operation is unknown")
    if dry_run not in (True, False, None):
        raise _invalid("dryRun is neither true nor false")
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
        _api_version(kind),
    )
    if not found.uid:
        raise _invalid("uid is missing")
    if not found.kind:
        raise _invalid("kind is missing")
    if operation in _JUDGED_OPERATIONS and found.object is None:
        raise _invalid("object is missing")
    if found.object is not None and found.object.get("kind", found.kind) != found.kind:
        raise _invalid("kind differs between request and object")
    # API servers before 1.22 send a kind of its own, without the pod's settings.
    if found.subresource == "ephemeralcontainers" and found.kind != "Pod":
        raise _invalid("an ephemeral container without its pod cannot be judged")
    return found


def _api_version(kind: Mapping[str, Any]) -> str:
    """Return the API version that tells how a custom resource is read; ``v1`` for Kubernetes' own."""
    group, version = _text(kind, "group"), _text(kind, "version")
    # A Job of another group, such as Volcano's, has no pod template where Kubernetes' Job has it.
    return f"{group}/{version}" if "." in group and not group.endswith("k8s.io") else "v1"


def uid_of(document: Any) -> str:
    """Return the uid that the response must repeat, also for a malformed review. Empty if there is none."""
    request = document.get("request") if isinstance(document, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    return uid if isinstance(uid, str) and len(uid) <= 128 and _NAME.fullmatch(uid) else ""


def refusal(document: Any, message: str) -> dict[str, Any]:
    """Return the denial of a review that could not be evaluated."""
    review = Review(uid_of(document), "", "", "", "", "", "", False, None, None)
    return Answer(review, Mode.ENFORCE, "", Outcome.DENIED, message[: doors.MESSAGE_LENGTH]).response()


def failed(document: Any, review: Review | None, settings: Settings, asked: str, message: str) -> dict[str, Any]:
    """Return the response to an internal error: a denial in mode ``enforce``, otherwise a warning or annotation.

    ``asked`` is the mode in the webhook's path.
    """
    try:
        mode = mode_of(settings, review.namespace, asked) if review else Mode.ENFORCE
    except UsageError:
        mode = Mode.ENFORCE
    if review is None or mode is Mode.ENFORCE:
        return refusal(document, message)
    notes = (clean_text(message, _WARNING_LENGTH),) if mode is Mode.WARN else ()
    outcome = Outcome.WARNED if mode is Mode.WARN else Outcome.AUDITED
    return Answer(review, mode, "", outcome, message[: doors.MESSAGE_LENGTH], notes).response()


def _invalid(message: str) -> UsageError:
    return UsageError(f"Dockwarden cannot read this review: {message}", reason="bad_review")


def _mapping(request: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = request.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(f"{name} is not an object")
    return value


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise _invalid(f"{name} is not a name")
    return text


def _object(request: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = request.get(name)
    if value is not None and not isinstance(value, dict):
        raise _invalid(f"{name} is not an object")
    return value


# Mode and environment of a namespace


def first_match(given: Sequence[str], namespace: str) -> str | None:
    """Return the value of the first ``pattern=value`` whose pattern matches the namespace, or None."""
    for item in given:
        pattern, _, value = item.partition("=")
        if glob.matches_text(pattern.strip(), namespace):
            return value.strip()
    return None


def mode_of(settings: Settings, namespace: str, asked: str) -> Mode:
    """Return the namespace's mode: from the settings, the webhook's path (``asked``), or ``enforce``.

    Raises UsageError.
    """
    value = first_match(settings.admission_modes, namespace) or asked or Mode.ENFORCE
    if value not in set(Mode):
        raise _invalid(f"there is no mode {clean_text(value, 64)!r}; the modes are {', '.join(Mode)}")
    return Mode(value)


def environment_of(settings: Settings, namespace: str, asked: str) -> str:
    """Return the namespace's environment: from the settings or the webhook's path (``asked``). Raises UsageError."""
    found = first_match(settings.admission_environments, namespace)
    value = asked if found is None else found
    if not ENVIRONMENT.fullmatch(value):
        raise _invalid("an environment consists of lower-case letters, digits, '.', '_' and '-'")
    return value


def containers_of(review: Review) -> tuple[Workload, ...]:
    """Return the containers that the object would start.

    For a changed pod template these are all containers, for an updated pod the new ones. An update that changes no
    container (a finalizer is removed, a Deployment is scaled) returns none: the pods that a controller creates are
    reviewed themselves. Raises UsageError for an object that cannot be parsed.
    """
    if review.object is None or review.operation not in _JUDGED_OPERATIONS:
        return ()
    if review.subresource in _HARMLESS_SUBRESOURCES:
        return ()
    found = _workloads(review.object, review)
    if len(found) > _MAX_CONTAINERS:
        raise _invalid(f"the object has more than {_MAX_CONTAINERS} containers")
    if any(len(each.pod.volumes) > _MAX_VOLUMES for each in found if each.pod):
        raise _invalid(f"the object has more than {_MAX_VOLUMES} volumes")
    if review.operation != "UPDATE" or review.old_object is None:
        return found
    before = [workload.facts() for workload in _workloads(review.old_object, review)]
    changed = tuple(workload for workload in found if workload.facts() not in before)
    return changed if review.kind == "Pod" or not changed else found


def _workloads(value: Mapping[str, Any], review: Review) -> tuple[Workload, ...]:
    """Parse the object. Generated names are removed, so that all pods of one controller give equal workloads."""
    metadata = dict(value["metadata"]) if isinstance(value.get("metadata"), dict) else {}
    if metadata.get("generateName"):
        metadata.pop("name", None)
    kept = ("name", "generateName", "labels", "annotations")
    document = {name: member for name, member in value.items() if name != "status"}
    document |= {"apiVersion": review.api_version, "kind": review.kind}
    document["metadata"] = {name: metadata[name] for name in kept if name in metadata}
    document["metadata"]["namespace"] = review.namespace or None
    if review.kind == "Pod":
        document["spec"] = _without_token_names(document.get("spec"))
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise _invalid("a number in the object is too large") from error
    # Large objects are not cached: users who can create objects could otherwise fill the memory.
    return _read_workloads(text) if len(text) <= _REMEMBERED_TEXT else _read_workloads.__wrapped__(text)


def _without_token_names(spec: Any) -> Any:
    """Replace the name of the token volume, which the API server generates for each pod."""
    if not isinstance(spec, dict):
        return spec
    shown = {name: member for name, member in spec.items() if name != "nodeName"}
    name = _token_volume(shown.get("volumes"))
    if not name:
        return shown
    for member in ("volumes", "containers", "initContainers", "ephemeralContainers"):
        if isinstance(shown.get(member), list):
            rename = _with_name if member == "volumes" else _with_mounts
            shown[member] = [rename(each, name) for each in shown[member]]
    return shown


def _token_volume(volumes: Any) -> str:
    """The name of the pod's token volume; empty without one.

    Only a single projected volume is one: people can give any volume such a name, and of two with one name a mount
    would be taken for that of the other.
    """
    found = [each for each in volumes if isinstance(each, dict)] if isinstance(volumes, list) else []
    names: dict[str, Any] = {each["name"]: each for each in found if isinstance(each.get("name"), str)}
    named = [name for name in names if _TOKEN_VOLUME.fullmatch(name)]
    if len(named) != 1 or _TOKENS in names or names[named[0]].keys() != {"name", "projected"}:
        return ""
    return named[0]


def _with_mounts(container: Any, name: str) -> Any:
    if isinstance(container, dict) and isinstance(container.get("volumeMounts"), list):
        return container | {"volumeMounts": [_with_name(each, name) for each in container["volumeMounts"]]}
    return container


def _with_name(volume: Any, name: str) -> Any:
    return volume | {"name": _TOKENS} if isinstance(volume, dict) and volume.get("name") == name else volume


@lru_cache(maxsize=512)
def _read_workloads(text: str) -> tuple[Workload, ...]:
    try:
        found = catalog.workload_sources()["kubernetes"].parse(text, "the object")
    except UsageError as error:
        raise _invalid(str(error)) from error
    # What a custom resource runs in a way that is not read is judged when its controller creates the pods.
    return tuple(workload for workload in found if not workload.unread)


# Decisions


def decide(
    review: Review, door: doors.DoorServices, actor: Actor, *, mode: str = "", environment: str = "", seconds: float
) -> Answer:
    """Decide about a review within ``seconds``. Raises UsageError(reason="bad_review") if it cannot be parsed."""
    chosen_mode = mode_of(door.settings, review.namespace, mode)
    where = environment_of(door.settings, review.namespace, environment)
    if review.namespace and any(glob.matches_text(each, review.namespace) for each in door.settings.admission_exempt):
        return Answer(review, chosen_mode, where, Outcome.ALLOWED)
    ends = time.monotonic() + seconds
    judged = [
        doors.DoorResult(unpulled, each.container, None, _NEVER_PULLED)
        if (unpulled := _never_pulled(each))
        else doors.decide(each.image, each, where, door, actor, dry_run=review.dry_run, ends=ends)
        for each in containers_of(review)
    ]
    return _answer(review, chosen_mode, where, judged, door.settings)


# What the registry has under the tag does not matter then, and nobody knows what the node has.
_NEVER_PULLED = "the pull policy Never takes what the node has under this tag: name the digest"


def _never_pulled(workload: Workload) -> str:
    """Return an image that the node takes by its tag and does not pull: the container's own, or that of a volume."""
    used = [(workload.image, workload.image_pull_policy)]
    used += [(volume.image, volume.pull_policy) for volume in workload.pod.volumes] if workload.pod else []
    return next((image for image, policy in used if image and policy == "Never" and "@" not in image), "")


# Pinning

_PINNED_MEMBERS = ("initContainers", "containers")


def pins(
    review: Review, door: doors.DoorServices, actor: Actor, *, environment: str = "", seconds: float
) -> list[dict[str, str]]:
    """A JSON patch (RFC 6902) that gives each tag in a new Pod the digest that was judged.

    It denies nothing: what is not allowed, or not known yet, keeps its tag, and the validating webhook denies it.
    """
    spec = review.object.get("spec") if review.object else None
    if review.kind != "Pod" or review.operation != "CREATE" or review.subresource or not isinstance(spec, dict):
        return []
    if any(glob.matches_text(each, review.namespace) for each in door.settings.admission_exempt):
        return []
    where, ends = environment_of(door.settings, review.namespace, environment), time.monotonic() + seconds
    found = []
    for path, image in _tags_of(spec):
        judged = doors.decide(image, None, where, door, actor, dry_run=review.dry_run, ends=ends)
        if judged.digest and judged.verdict in ("allow", "warn"):
            found.append({"op": "replace", "path": path, "value": f"{image}@{judged.digest}"})
    return found


def _tags_of(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each image by tag in a Pod, also those whose files it mounts, with its place (RFC 6901)."""
    for member in (*_PINNED_MEMBERS, "volumes"):
        listed = spec.get(member)
        for number, item in enumerate(listed[:_MAX_CONTAINERS] if isinstance(listed, list) else ()):
            image, place = (item.get("image"), "image") if isinstance(item, dict) else (None, "")
            if member == "volumes":
                image, place = (image.get("reference"), "image/reference") if isinstance(image, dict) else (None, "")
            if isinstance(image, str) and image and "@" not in image:
                yield f"/spec/{member}/{number}/{place}", image


def pinning_review(review: Review, patch: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The AdmissionReview that carries the patch."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": True}
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(list(patch))).decode()}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


# Answering


def _answer(
    review: Review, mode: Mode, environment: str, judged: Sequence[doors.DoorResult], settings: Settings
) -> Answer:
    images = tuple(
        {
            "image": clean_text(each.image, 300),
            "container": clean_text(each.container, 100),
            "digest": str((each.document or {}).get("digest") or ""),
            "verdict": each.verdict,
        }
        for each in judged
    )
    refusing = [each for each in judged if each.verdict not in ("allow", "warn")]
    if refusing and all(each.pending for each in refusing) and settings.admission_unknown == "allow":
        notes = tuple(_warning_text(each, "allowed while the image is being scanned") for each in refusing)
        return Answer(review, mode, environment, Outcome.WATCHED, notes[0], notes, images)
    if refusing:
        message = doors.denial_message(refusing, settings.public_url)
        if mode is Mode.ENFORCE:
            return Answer(review, mode, environment, Outcome.DENIED, message, (), images)
        if mode is Mode.WARN:
            notes = tuple(_warning_text(each, f"would be denied: {each.first}") for each in refusing)
            return Answer(review, mode, environment, Outcome.WARNED, message, notes, images)
        return Answer(review, mode, environment, Outcome.AUDITED, message, (), images)
    warned = [each for each in judged if each.verdict == "warn"]
    if warned and mode is not Mode.AUDIT:
        notes = tuple(_warning_text(each, each.first) for each in warned)
        return Answer(review, mode, environment, Outcome.WARNED, notes[0], notes, images)
    return Answer(review, mode, environment, Outcome.ALLOWED, "", (), images)


def _warning_text(judged: doors.DoorResult, text: str) -> str:
    name = clean_text(judged.image, 120)
    return clean_text(f"Dockwarden: {name} ({judged.container}): {text}", _WARNING_LENGTH)
