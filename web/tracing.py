"""A span for each request, if traces are on. Its name is the matched route, because a path can hold a token."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Flask, Response, g, request

from scanner import telemetry
from scanner.config import Settings


def install(app: Flask, settings: Settings) -> None:
    """Attach to an app. While traces are off, nothing is attached."""
    if not telemetry.is_wanted(settings):
        return

    @app.before_request
    def begin() -> None:
        rule = request.url_rule.rule if request.url_rule else "unmatched"
        g.trace_stack = ExitStack()
        g.trace_span = g.trace_stack.enter_context(telemetry.span(f"{request.method} {rule}", server=True))
        g.trace_span.note(http__request__method=request.method, http__route=rule)

    @app.after_request
    def answered(response: Response) -> Response:
        found: telemetry.Span | None = g.get("trace_span")
        if found is not None:
            found.note(http__response__status_code=response.status_code)
            if response.status_code >= 500:
                found.fail(str(response.status_code))
        return response

    @app.teardown_request
    def end(error: BaseException | None) -> None:
        stack: ExitStack | None = g.pop("trace_stack", None)
        if stack is not None:
            stack.close()
