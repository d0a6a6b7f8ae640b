"""The Docker engine's door: what an engine was asked to do, judged by the gate.

``dockwarden docker-authz`` reads the engine's requests on its host and asks here with the image's references and the
workload without values of its variables.
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
    """What an engine was asked to do. ``images``: the references of one image, the first that is allowed counts."""

    host: str
    user: str
    operation: str
    name: str
    environment: str
    images: tuple[str, ...]
    workload: Workload | None


def parse(document: Any) -> EngineCall:
    """Raises UsageError(reason="bad_call") for what is no question of a plugin."""
    if not isinstance(document, dict) or document.keys() - {*_TEXTS, "images", "workload"}:
        raise _bad("the body is not a question of dockwarden docker-authz")
    texts = {name: document.get(name, "") for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > _TEXTS[name]:
            raise _bad(f"{name} is not a text of {_TEXTS[name]} characters at most")
    if not ENVIRONMENT.fullmatch(texts["environment"]):
        raise _bad("environment is not a name of lower-case letters, digits, '.', '_' and '-'")
    images = document.get("images")
    if not isinstance(images, list) or not 1 <= len(images) <= _MOST_IMAGES:
        raise _bad(f"images are not 1 to {_MOST_IMAGES} references")
    if not all(isinstance(image, str) and len(image) <= 1024 for image in images):
        raise _bad("an image is not a reference")
    cleaned = {name: clean_text(text, _TEXTS[name]) for name, text in texts.items()}
    return EngineCall(**cleaned, images=tuple(images), workload=_workload(document.get("workload")))


def _workload(value: Any) -> Workload | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad("workload is not an object")
    return workload_documents.workload(json.dumps(workload_documents.stripped(value)).encode())


def _bad(message: str) -> UsageError:
    return UsageError(message, reason="bad_call")


def decide(call: EngineCall, door: doors.Door, actor: Actor, *, ends: float) -> doors.Judged:
    """Judge before ``ends`` of the monotonic clock: the first of the image's references that is allowed, else the
    first.
    """
    found: list[doors.Judged] = []
    for image in call.images:
        workload = replace(call.workload, image=image) if call.workload else None
        found.append(doors.judge(image, workload, call.environment, door, actor, ends=ends))
        if found[-1].verdict in ("allow", "warn"):
            return found[-1]
    return found[0]


def answer(call: EngineCall, judged: doors.Judged, public_url: str) -> Mapping[str, Any]:
    """What the plugin is told. ``valid_until`` null: time alone does not change it. One that is pending is not kept."""
    allowed = judged.verdict in ("allow", "warn")
    document = judged.document or {}
    return {
        "allowed": allowed,
        "verdict": judged.verdict,
        "pending": judged.pending,
        "image": clean_text(judged.image, 300),
        "digest": document.get("digest"),
        "message": "" if allowed else doors.told([judged], public_url),
        "valid_until": document.get("valid_until"),
    }


def recorded(call: EngineCall, judged: doors.Judged, public_url: str) -> Call:
    """What is recorded of it."""
    told = answer(call, judged, public_url)
    image = {"image": told["image"], "container": "", "digest": str(told["digest"] or ""), "verdict": judged.verdict}
    images: Sequence[Mapping[str, str]] = (image,)
    outcome = "denied" if not told["allowed"] else "warned" if judged.verdict == "warn" else "allowed"
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
        told["message"],
    )
