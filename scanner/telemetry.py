"""Traces by OpenTelemetry, off by default: one trace from a request over the queue to the worker and the engine.

The SDK is imported only if an endpoint is set. While it is off, a span costs a comparison.

An attribute is a bounded text, number or flag, and this code chooses its name. Nothing of a request's path, headers,
query or body, and no text of an exception is recorded: each may hold a secret. The context of callers is not taken
over, because any client can send one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scanner import __version__
from scanner.config import Settings
from scanner.errors import ScannerError, UsageError

Value = str | int | float | bool
# Characters of an attribute.
_LONGEST = 200
_STANDARD = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# W3C Trace Context: version 00, trace id, span id, flags.
_CONTEXT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_tracer: Any = None
_provider: Any = None


def is_wanted(settings: Settings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an endpoint is set, by our setting or by a standard variable."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(settings.otlp_endpoint or any(environ.get(name) for name in _STANDARD))


def configure(settings: Settings, service: str) -> None:
    """Start the export of a process, if an endpoint is set. Call it at the start of a process, after a fork.

    ``service``: ``web`` or ``worker``. Raises UsageError if the packages are not installed.
    """
    global _provider, _tracer
    if _tracer is not None or not is_wanted(settings):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UsageError(
            "traces need OpenTelemetry, which is not installed",
            reason="telemetry_missing",
            hint="pip install 'dockwarden[otel]'",
        ) from None
    endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces" if settings.otlp_endpoint else None
    resource = Resource.create({"service.name": f"dockwarden-{service}", "service.version": __version__})
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = _provider.get_tracer("dockwarden", __version__)


def shut_down() -> None:
    """Export what is left, and stop. Returns after a few seconds even if the collector does not answer."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.force_flush(3000)
        provider.shutdown()


def current() -> str:
    """The context of the current span, for another process (``traceparent``). Empty: there is none."""
    if _tracer is None:
        return ""
    from opentelemetry import trace

    found = trace.get_current_span().get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags):02x}" if found.is_valid else ""


class Span:
    """A span that may be given attributes while it runs. Without a tracer it does nothing."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner

    def note(self, **attributes: Value) -> None:
        """Add attributes. ``__`` in a name stands for a dot: ``http__route`` is ``http.route``."""
        if self._inner is not None:
            for name, value in attributes.items():
                self._inner.set_attribute(name.replace("__", "."), _bounded_value(value))

    def fail(self, reason: str) -> None:
        """Mark the span as failed, by a slug: a message may hold a secret."""
        if self._inner is not None:
            from opentelemetry.trace import StatusCode

            self._inner.set_attribute("error.type", _bounded_value(reason))
            self._inner.set_status(StatusCode.ERROR)

    def end(self) -> None:
        if self._inner is not None:
            self._inner.end()


_NOTHING = Span()


def _bounded_value(value: Value) -> Value:
    return value[:_LONGEST] if isinstance(value, str) else value


def begin(name: str, *, server: bool = False, parent: str = "", **attributes: Value) -> Span:
    """Begin a span that does not become the current one. Call `Span.end`. See `span`."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace import SpanKind

    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    made = Span(_tracer.start_span(name, context=_context(parent), kind=kind))
    made.note(**attributes)
    return made


@contextmanager
def span(name: str, *, server: bool = False, parent: str = "", **attributes: Value) -> Iterator[Span]:
    """A span around a piece of work. ``parent``: a context of `current` from another process or thread.

    An exception marks it as failed, with the slug of the reason or the name of its type.
    """
    if _tracer is None:
        yield _NOTHING
        return
    from opentelemetry import trace

    made = begin(name, server=server, parent=parent, **attributes)
    with trace.use_span(made._inner, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield made
        except BaseException as error:
            made.fail(error.reason if isinstance(error, ScannerError) else type(error).__name__)
            raise


def _context(parent: str) -> Any:
    """The context of a parent; the current one if it is empty or not ours."""
    if not _CONTEXT.fullmatch(parent):
        return None
    from opentelemetry import trace

    _, trace_id, span_id, flags = parent.split("-")
    remote = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(trace.NonRecordingSpan(remote))
