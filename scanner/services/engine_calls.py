"""The Docker engine's door: decides about requests to an engine with the gate.

The authorization plugin ``dockwarden docker-authz`` parses requests on the engine's host. It sends the image's
references and the workload without the values of variables, which may be secrets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scanner.errors import UsageError
from scanner.model.actor import Actor
from scanner.model.untrusted import clean_text
from scanner.model.workload import Workload
from scanner.services import doors, workload_documents
from scanner.services.admissions import ENVIRONMENT
from scanner.services.door_calls import Call

_TEXTS = {"host": 253, "user": 253, "operation": 64, "name": 253, "environment": 63}
_MOST_IMAGES = 5


@dataclass(frozen=True)
class EngineCall:
    """A request to an engine. ``images``: references of one image. It is allowed if one of them is.

    ``workload`` None: the request starts no container (a pull, for example).
    """

    host: str  # name of the engine's machine, as its plugin states it
    user: str
    operation: str  # such as "container create"
    name: str
    environment: str
    images: tuple[str, ...]
    workload: Workload | None


def parse(document: Any) -> EngineCall:
    """Parse the plugin's JSON body. Raises UsageError(reason="bad_call")."""
    # An unknown member is refused. A newer plugin may send a member that restricts the answer, and ignoring it would
    # allow too much.
    if not isinstance(document, dict) or document.keys() - {*_TEXTS, "images", "workload"}:
        raise _invalid("the body is not a request of dockwarden docker-authz")
    texts = {name: document.get(name, "") for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > _TEXTS[name]:
            raise _invalid(f"{name} is not a string of at most {_TEXTS[name]} characters")
    if not ENVIRONMENT.fullmatch(texts["environment"]):
        raise _invalid("an environment consists of lower-case letters, digits, '.', '_' and '-'")
    images = document.get("images")
    if not isinstance(images, list) or not 1 <= len(images) <= _MOST_IMAGES:
        raise _invalid(f"images is not a list of 1 to {_MOST_IMAGES} references")
    if not all(isinstance(image, str) and len(image) <= 1024 for image in images):
        raise _invalid("an image is not a string of at most 1024 characters")
    # These texts reach logs, the page Enforcement and messages of webhooks. They come from the engine's clients.
    cleaned = {name: clean_text(text, _TEXTS[name]) for name, text in texts.items()}
    return EngineCall(**cleaned, images=tuple(images), workload=_workload(document.get("workload")))


def _workload(value: Any) -> Workload | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _invalid("workload is not an object")
    return workload_documents.workload(json.dumps(workload_documents.without_values(value)).encode())


def _invalid(message: str) -> UsageError:
    return UsageError(message, reason="bad_call")


def decide(call: EngineCall, door: doors.DoorServices, actor: Actor, *, ends: float) -> doors.DoorResult:
    """Return the first result that allows the image, or that of the first reference.

    ``ends``: on the monotonic clock."""
    found: list[doors.DoorResult] = []
    for image in call.images:
        # The engine knows one image under several references (a tag and its digests). The workload is judged with
        # each, because a policy can depend on the repository.
        workload = replace(call.workload, image=image) if call.workload else None
        found.append(doors.decide(image, workload, call.environment, door, actor, ends=ends))
        if found[-1].verdict in ("allow", "warn"):
            return found[-1]
    return found[0]


def answer(call: EngineCall, judged: doors.DoorResult, public_url: str) -> Mapping[str, Any]:
    """Return the answer for the plugin, which caches it until ``valid_until`` (null: no end) unless it is pending."""
    allowed = judged.verdict in ("allow", "warn")
    document = judged.document or {}
    return {
        "allowed": allowed,
        "verdict": judged.verdict,
        "pending": judged.pending,
        "image": clean_text(judged.image, 300),
        "digest": document.get("digest"),
        "message": "" if allowed else doors.denial_message([judged], public_url),
        "valid_until": document.get("valid_until"),
    }


def call_record(call: EngineCall, judged: doors.DoorResult, public_url: str) -> Call:
    """Return the record of a call."""
    answered = answer(call, judged, public_url)
    image = {
        "image": answered["image"],
        "container": "",
        "digest": str(answered["digest"] or ""),
        "verdict": judged.verdict,
    }
    images: Sequence[Mapping[str, str]] = (image,)
    outcome = "denied" if not answered["allowed"] else "warned" if judged.verdict == "warn" else "allowed"
    kind, _, operation = call.operation.partition(" ")
    return Call(
        "docker",
        call.user,
        operation[:16],
        kind,
        call.host,
        call.name,
        "enforce",
        call.environment,
        outcome,
        tuple(images),
        answered["message"],
    )
