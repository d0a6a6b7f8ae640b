"""What one running app holds: settings, the database, the queue.

One frozen value, made by ``create_app``, never a global.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from celery import Celery
from flask import current_app

from scanner.config import Secret, Settings
from scanner.services import projects
from scanner.store.gate import Gate
from scanner.store.intake import Intake
from scanner.store.session import Database
from web.oidc import Provider
from web.sender_keys import SenderKeys
from web.throttle import DOOR_SCANS, SCANS, Throttle

GATE_WAITERS = 8  # of the 16 threads that answer the gate: the other half keeps answering while callers wait for scans


@dataclass(frozen=True)
class Resources:
    settings: Settings
    database: Database
    celery: Celery
    secret_key: Secret
    gate: Gate  # answers current decisions with one query
    intake: Intake  # records deliveries in groups
    sender_keys: SenderKeys
    provider: Provider | None = None  # None: no identity provider is configured
    throttle: Throttle = field(default_factory=Throttle)
    # how many requests may wait for a scan at once
    waiters: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(GATE_WAITERS))


def resources() -> Resources:
    """Return the resources of the current app."""
    found: Resources = current_app.extensions["dockwarden"]
    return found


def take_scan(project: str) -> None:
    """Count a requested scan against its project. Raises RefusedError(reason="rate_limited")."""
    if resources().settings.rate_limits:
        resources().throttle.take("scans", project, SCANS)


def take_new_scan(source: str, client: str) -> None:
    """Count a scan that a question about an unknown image begins. Raises RefusedError(reason="rate_limited").

    ``source``: the gate or a door. ``client``: who asks there; a door's client may be forged. Without a limit, a client
    that asks for tags that do not exist would fill the queue, and no new image would be scanned.
    """
    if resources().settings.rate_limits:
        throttle = resources().throttle
        # First: a bucket for each forged client would push those of failed sign-ins out of memory.
        throttle.check("door-scans-all", source, DOOR_SCANS, "too many requests")
        throttle.take("door-scans", f"{source}|{client[:253]}", SCANS)
        throttle.take("door-scans-all", source, DOOR_SCANS)


def engine_for(project: str) -> str:
    """The engine of a project's scans that name none: the project's choice, else the server's."""
    with resources().database.read() as session:
        return projects.engine_for(session, project, resources().settings.engine)
