"""One trace from a request to the engine, and no secret in what is exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from scanner import queue, telemetry
from scanner.advisories import database as advisories
from scanner.config import Secret, Settings
from scanner.model.access import SCOPES
from scanner.model.scan import ScanState
from scanner.store import accounts, registries, scans
from scanner.store.session import Database
from scanner.worker.server_scan import ServerServices
from scanner.worker.worker import Worker
from tests.scanner.test_telemetry import attributes, spans_of
from tests.servers import Registry
from tests.web.conftest import KEY, Api
from web import create_app

PASSWORD = "a-planted-registry-password"


@pytest.fixture
def traced(settings: Settings, sample_layouts: Path, httpserver: HTTPServer) -> Iterator[Settings]:
    advisories.import_file(settings, sample_layouts / "advisories")
    httpserver.expect_request("/v1/traces", "POST").respond_with_data(b"", content_type="application/x-protobuf")
    made = replace(settings, otlp_endpoint=httpserver.url_for(""))
    telemetry.configure(made, "test")
    yield made
    telemetry.shut_down()


def test_a_request_and_its_scan_are_one_trace(
    traced: Settings, database: Database, plain_registry: Registry, sample_layouts: Path, httpserver: HTTPServer
) -> None:
    plain_registry.push(f"oci:{sample_layouts / 'shop/vulnerable'}:1.4.1", "traced/app:1")
    with database.session() as session:
        registries.add(session, plain_registry.host, KEY, insecure=True, username="u", password=Secret(PASSWORD))
        token = accounts.create_token(session, "test", SCOPES, KEY)[1].reveal()
    app = create_app(traced, database, queue.make_app(traced))
    api = Api(app.test_client(), token)
    asked = api("POST", f"/scans?note={PASSWORD}", {"image": f"{plain_registry.host}/traced/app:1"})
    assert asked.status_code == 202, asked.text
    api("POST", f"/webhooks/gitlab/{PASSWORD}", {})
    worker = Worker(traced, database, queue.make_app(traced))
    assert worker.work_once(("gate", "push", "background"), ServerServices.make(traced, database, "0", KEY))
    with database.read() as session:
        assert scans.list_scans(session, None).items[0].state is ScanState.DONE
    telemetry.shut_down()
    spans = spans_of(httpserver)
    by_name = {span.name: span for span in spans}
    request, scan, engine = (by_name[name] for name in ("POST /api/v1/scans", "scan", "engine trivy"))
    assert request.trace_id == scan.trace_id == engine.trace_id
    assert (scan.parent_span_id, engine.parent_span_id) == (request.span_id, scan.span_id)
    assert attributes(request)["http.response.status_code"] == 202
    stages = [span.name for span in spans if span.name.startswith("stage ") and span.parent_span_id == scan.span_id]
    assert stages[:2] == ["stage resolve", "stage verify"]
    assert {"stage fetch", "stage scan", "stage evaluate"} <= set(stages)
    exported = b"".join(request.data for request, _ in httpserver.log)
    for secret in (token, PASSWORD, KEY.reveal(), "note="):
        assert secret.encode() not in exported
