"""Logging of the web process: one structured line for each event, control characters escaped, no secrets.

A request is logged with the *rule* it matched, not its path, because the path of a webhook can contain its token.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from functools import partial
from typing import Any

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram

from scanner.config import Settings
from web.security import admission, after_answer, arrival_time, request_id

_SECRET_WORDS = ("token", "secret", "password", "authorization", "cookie", "credential")


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of members that are named like a secret."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS) and not key.endswith("_id"):
            event[key] = "***"
    return event


def configure(settings: Settings) -> None:
    """Configure logging of this process: JSON lines, or readable ones. Called at process start, never on import."""
    without_locals = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals hold passwords
    tracebacks = (
        structlog.processors.ExceptionRenderer(without_locals)
        if settings.log_json
        else structlog.processors.format_exc_info
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
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


def install(app: Flask, registry: CollectorRegistry) -> None:
    """Count and time each request. Changes and refusals are logged at ``info``, everything else at ``debug``."""
    log = logging.getLogger("web.request")
    seconds = Histogram(
        "dockwarden_request_seconds", "Requests by route and status.", ("rule", "method", "status"), registry=registry
    )
    children: dict[tuple[str, str, int], Histogram] = {}

    @app.after_request
    def finish(response: Response) -> Response:
        header_check = admission()
        if header_check and header_check.allowed is not None:
            return response  # it is counted when its body has arrived
        rule, method, status = request.url_rule.rule if request.url_rule else "", request.method, response.status_code
        child = children.get((rule, method, status))
        if child is None:
            child = children[rule, method, status] = seconds.labels(rule, method, status)
        level = logging.INFO if status >= 400 or method not in ("GET", "HEAD") else logging.DEBUG
        if request.endpoint in ("gate.ask", "kubernetes.admit") and status < 400:
            level = logging.DEBUG  # POST requests that change nothing and must be fast
        members: dict[str, Any] = {}
        if log.isEnabledFor(level):
            principal = g.get("principal")
            members = {
                "method": method,
                "rule": rule,
                "status": status,
                "request_id": request_id(),
                "principal": principal.name if principal else "",
                "address": request.remote_addr or "",
            }
        after_answer(partial(_record, child, arrival_time(), log, level, members))
        return response


def _record(seconds: Histogram, began: float, log: logging.Logger, level: int, members: dict[str, Any]) -> None:
    took = time.perf_counter() - began
    seconds.observe(took)
    if members:
        log.log(level, "request", extra=members | {"milliseconds": round(took * 1000, 1)})
