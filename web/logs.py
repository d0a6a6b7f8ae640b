"""Logs of the web process: one structured line per event, control characters escaped, secrets never.

A request's line names the *rule* it matched, not its path: the path of a webhook may hold its token.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

import structlog
from flask import Flask, Response, g, request

from scanner.config import Settings

_SECRET_WORDS = ("token", "secret", "password", "authorization", "cookie", "credential")


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A member whose name says that it is a secret is not written, whoever logged it."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith("_id"):
            event[key] = "***"
    return event


def configure(settings: Settings) -> None:
    """Set up logging of this process: JSON lines, or plain ones for a person. Called where a process starts, never on import."""
    without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals hold passwords
    tracebacks = (
        structlog.processors.ExceptionRenderer(without_locals)
        if settings.log_json
        else structlog.processors.format_exc_info
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
        tracebacks,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)


def install(app: Flask) -> None:
    """Log each request: at ``info`` what changed something or was refused, at ``debug`` the rest."""
    log = logging.getLogger("web.request")

    def start() -> None:
        g.started = time.perf_counter()

    def finish(response: Response) -> Response:
        level = logging.INFO if response.status_code >= 400 or request.method not in ("GET", "HEAD") else logging.DEBUG
        if request.endpoint == "gate.ask" and response.status_code < 400:
            level = logging.DEBUG  # the one POST that only reads, and the one that must be fast
        if log.isEnabledFor(level):
            principal = g.get("principal")
            structlog.get_logger("web.request").log(
                level,
                "request",
                method=request.method,
                rule=request.url_rule.rule if request.url_rule else "",
                status=response.status_code,
                milliseconds=round((time.perf_counter() - g.get("started", time.perf_counter())) * 1000, 1),
                request_id=g.get("request_id", ""),
                principal=principal.name if principal else "",
                address=request.remote_addr or "",
            )
        return response

    app.before_request(start)
    app.after_request(finish)
