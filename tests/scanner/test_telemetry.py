"""Traces: off they cost nothing; on, a span holds what this code chose and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pytest_httpserver import HTTPServer

from scanner import telemetry
from scanner.config import Settings
from scanner.errors import RemoteError, UsageError


def spans_of(server: HTTPServer) -> list[Span]:
    """The spans that a collector received, in the order of their end."""
    found = []
    for request, _ in server.log:
        assert request.path == "/v1/traces"
        document = ExportTraceServiceRequest.FromString(request.data)
        found += [s for r in document.resource_spans for scope in r.scope_spans for s in scope.spans]
    return found


def attributes(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}


@pytest.fixture
def collector(httpserver: HTTPServer) -> Iterator[HTTPServer]:
    httpserver.expect_request("/v1/traces", "POST").respond_with_data(b"", content_type="application/x-protobuf")
    telemetry.configure(Settings(otlp_endpoint=httpserver.url_for("")), "test")
    yield httpserver
    telemetry.shut_down()


def test_off_it_imports_nothing_and_does_nothing() -> None:
    code = (
        "import sys, scanner.worker.worker, web\n"
        "from scanner import telemetry\n"
        "from scanner.config import Settings\n"
        "telemetry.configure(Settings(), 'web')\n"
        "with telemetry.span('x', parent='y', a=1) as span: span.note(b=2); span.fail('z')\n"
        "assert telemetry.current() == ''\n"
        "telemetry.shut_down()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={})
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_the_standard_variables_turn_it_on(environ: dict[str, str], wanted: bool) -> None:
    assert telemetry.is_wanted(Settings(), environ) is wanted


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(UsageError) as refused:
        telemetry.configure(Settings(otlp_endpoint="http://127.0.0.1:1"), "web")
    assert "dockwarden[otel]" in refused.value.hint


def test_a_span_continues_the_trace_of_another_process(collector: HTTPServer) -> None:
    with telemetry.span("request", server=True):
        carried = telemetry.current()
    with telemetry.span("scan", parent=carried, scan_id="1"):
        telemetry.begin("stage fetch").end()
    telemetry.shut_down()
    request, stage, scan = spans_of(collector)
    assert {request.trace_id} == {scan.trace_id, stage.trace_id}
    assert (scan.parent_span_id, stage.parent_span_id) == (request.span_id, scan.span_id)
    assert attributes(scan) == {"scan_id": "1"}


@pytest.mark.parametrize("parent", ["", "x", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-zz", "'; drop"])
def test_a_context_that_is_none_begins_a_trace(collector: HTTPServer, parent: str) -> None:
    with telemetry.span("scan", parent=parent):
        pass
    telemetry.shut_down()
    (scan,) = spans_of(collector)
    assert scan.trace_id != bytes(16)
    assert scan.parent_span_id == b""


def test_an_exception_is_a_slug_and_never_its_text(collector: HTTPServer) -> None:
    for error in (RemoteError("hunter2", reason="registry_timeout"), ValueError("hunter2")):
        with pytest.raises(type(error)), telemetry.span("scan"):
            raise error
    telemetry.shut_down()
    assert [attributes(span)["error.type"] for span in spans_of(collector)] == ["registry_timeout", "ValueError"]
    assert all(span.status.code == 2 and not span.events for span in spans_of(collector))
    assert all(b"hunter2" not in request.data for request, _ in collector.log)


def test_a_long_text_is_cut(collector: HTTPServer) -> None:
    with telemetry.span("scan", engine="x" * 5000):
        pass
    telemetry.shut_down()
    assert attributes(spans_of(collector)[0])["engine"] == "x" * 200


def test_a_collector_that_does_not_answer_stops_nothing() -> None:
    telemetry.configure(Settings(otlp_endpoint="http://127.0.0.1:1"), "test")
    with telemetry.span("scan"):
        pass
    telemetry.shut_down()
    assert telemetry.current() == ""
