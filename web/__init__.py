"""The web: API, webhooks, adapters and pages. ``create_app(settings)`` builds the app; importing opens nothing."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from celery import Celery
from flask import Blueprint
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from scanner import __version__, catalog, config, queue, telemetry
from scanner.config import Settings
from scanner.store.gate import Gate
from scanner.store.intake import Intake
from scanner.store.session import Database
from web import api, auth, errors, health, logs, oidc, security, tracing, webhooks
from web.api.base import Problem
from web.pages.base import error_page
from web.resources import Resources
from web.sender_keys import SenderKeys


class App(OpenAPI):
    """Skips Flask's check whether each function is a coroutine: none of ours is, and it runs several times per
    request.
    """

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """See `Flask.ensure_sync`."""
        return func


_DESCRIPTION = """Container image scanning and hardening: evidence and decisions.

**Sign in** with `Authorization: Bearer dw_…` (`dockwarden token create NAME`). `x-permission` of an operation is the
scope that a token needs.

**Errors** are problem documents (`application/problem+json`, RFC 9457): `reason` is a stable slug for programs,
`detail` and `hint` are for people, `errors` names each wrong member by a JSON pointer.

**Lists** are sorted as their summary says and come in pages: repeat the request with `cursor` set to `next_cursor`
until that is null. Unknown query parameters are refused.

**Repeat** a POST safely with the same `Idempotency-Key`. Where an answer has an `ETag`, send it as `If-Match` with a
change, so that changes by others are not overwritten."""


def create_app(
    settings: Settings | None = None, database: Database | None = None, celery: Celery | None = None
) -> OpenAPI:
    """Build the WSGI application.

    Without arguments (as a server's factory) settings come from the environment and logging is configured. Nothing is
    opened before the first request. ``serve`` refuses a database that is not at head.
    """
    if settings is None:
        settings = config.load()
        logs.configure(settings)
        telemetry.configure(settings, "web")
    catalog.load()  # an invalid plug-in ends the server now, not a request later
    app = App(
        "web",
        info=Info(
            title="Dockwarden",
            version=__version__,
            description=_DESCRIPTION,
        ),
        security_schemes=_SECURITY_SCHEMES,
        validation_error_model=Problem,
        validation_error_callback=errors.invalid,
        doc_ui=False,
    )
    database = database or Database.of(settings)
    key = config.secret_key(settings)
    resources = Resources(
        settings,
        database,
        celery or queue.make_app(settings),
        key,
        Gate(database),
        Intake(database, key),
        SenderKeys.of(settings),
        oidc.make(settings),
    )
    app.extensions["dockwarden"] = resources
    security.install(app, settings)
    tracing.install(app, settings)
    logs.install(app, health.install(app, resources))
    errors.install(app)
    auth.install(app)
    api.install(app)
    app.register_blueprint(health.bp)
    app.register_blueprint(webhooks.bp)
    _register_discovered(app, "web.adapters")
    _register_discovered(app, "web.pages")
    app.extensions["error_page"] = error_page
    return app


_SECURITY_SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token. Its scopes are the `x-permission` of operations.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-dockwarden",
        "description": "A web session, with X-CSRFToken on changes.",
    },
}


def _register_discovered(app: OpenAPI, package: str) -> None:
    """Register the blueprint ``bp`` and the menu entry of every module in a package, so that a new page is one file."""
    navigation = app.extensions.setdefault("navigation", [])
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        found = getattr(module, "bp", None)
        if isinstance(found, Blueprint):
            app.register_blueprint(found)
        if (item := getattr(module, "NAVIGATION", None)) is not None:
            navigation.append(item)
    navigation.sort()
