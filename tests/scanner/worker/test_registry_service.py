"""A server's registries: examined by a worker when asked, before first use, and again when that is long ago;
policies mind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import queue
from scanner.config import Secret, Settings
from scanner.model.finding import Failed, NotApplicable
from scanner.model.scan import Lane, ScanRequest
from scanner.outbound import tls_context
from scanner.store import gate, listings, policies, registries, registry_checks, scans
from scanner.store.schema import registry_check
from scanner.store.session import Database
from scanner.worker import server_scan
from scanner.worker.worker import Worker
from tests.databases import BACKENDS, migrated_url
from tests.servers import Authority, Registry

KEY = Secret("a secret key for tests, long enough")
POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: registry}
posture: {max_age: 7d}
rules:
  - {id: tls, check: registry-tls-version, action: deny}
"""


@pytest.fixture(params=BACKENDS)
def server(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[server_scan.ServerServices]:
    database = Database(migrated_url(request.param, tmp_path))
    yield server_scan.ServerServices.make(settings, database, "0", KEY)
    database.engine.dispose()


@pytest.fixture
def push(plain_registry: Registry, sample_layouts: Path) -> Callable[[str], str]:
    """Push the good sample under a name; returns its reference."""

    def work(name: str) -> str:
        plain_registry.push(f"oci:{sample_layouts / 'shop' / 'good'}:1.4.2", name)
        return f"{plain_registry.host}/{name}"

    return work


def add(server: server_scan.ServerServices, host: str, **more: object) -> str:
    with server.database.session() as session:
        return registries.add(session, host, KEY, **more).id  # type: ignore[arg-type]


def scan(server: server_scan.ServerServices, target: str) -> scans.ScanView:
    with server.database.session() as session:
        ticket = scans.request(session, ScanRequest(target, lane=Lane.PUSH, force=True))
        held = scans.claim(session, "w", ["push"], 60)
    assert held is not None
    server_scan.run_claim(held, server, lambda progress: None)
    with server.database.read() as session:
        return scans.get(session, ticket.scan_id)


def outcome(server: server_scan.ServerServices, registry_id: str, check: str) -> object:
    with server.database.read() as session:
        found = registry_checks.latest(session, registry_id)
    assert found is not None
    return next(result.outcome for result in found.results if result.check == check)


def test_a_worker_examines_what_was_asked_for(
    server: server_scan.ServerServices, registry: Registry, authority: Authority
) -> None:
    registry_id = add(
        server, registry.host, ca_pem=authority.file.read_text(), username="ci", password=Secret("correct horse")
    )
    worker = Worker(server.services.settings, server.database, queue.make_app(server.services.settings))
    assert worker.check_once(("background",), server) is False, "nobody asked"
    with server.database.session() as session:
        registry_checks.request(session, registry_id, "ann")
    assert worker.check_once(("gate",), server) is False, "this slot is kept for those who wait"
    assert worker.check_once(("background",), server) is True
    with server.database.read() as session:
        (view,) = registry_checks.history(session, registry_id)
    assert (view.state, view.failed, view.reason) == ("done", 0, ""), view
    text = str(view) + str(outcome(server, registry_id, "registry-digest"))
    assert "correct horse" not in text


def test_one_that_is_not_there_is_written_down(server: server_scan.ServerServices) -> None:
    registry_id = add(server, "127.0.0.1:1")
    with server.database.session() as session:
        registry_checks.schedule(session, 24)
    assert server_scan.check_registry(server) is True
    with server.database.read() as session:
        (view,) = registry_checks.history(session, registry_id)
        assert registry_checks.latest(session, registry_id) is None
    assert (view.state, view.reason, view.requested_by) == ("failed", "registry_unreachable", "schedule")


def test_before_first_use_and_as_evidence_of_the_decision(
    server: server_scan.ServerServices, plain_registry: Registry, push: Callable[[str], str]
) -> None:
    registry_id = add(server, plain_registry.host, insecure=True)
    with server.database.session() as session:
        policies.put(session, "registry", POLICY, "ann")
    target = push("posture/app:1")
    done = scan(server, target)
    with server.database.read() as session:
        (view,) = registry_checks.history(session, registry_id)
        _, found = listings.newest_report(session, str(done.digest), None)
        row = gate.current_decision(session, str(done.digest), "", f"{plain_registry.host}/posture/app", None)
    assert (view.state, view.requested_by) == ("done", "scan")
    assert found.posture_at is not None
    assert isinstance(next(r.outcome for r in found.posture if r.check == "registry-tls-version"), Failed)
    assert row is not None
    assert '"verdict":"deny"' in row.document
    assert "the registry does not use TLS" in row.document
    scan(server, push("posture/app:2"))
    with server.database.session() as session:
        assert len(registry_checks.history(session, registry_id)) == 1, "it is remembered"
        year = found.posture_at.year
        aged = sa.func.replace(registry_check.c.document, f"{year}-", f"{year - 1}-")
        session.execute(registry_check.update().values(document=aged))
    scan(server, push("posture/app:3"))
    with server.database.read() as session:
        assert len(registry_checks.history(session, registry_id)) == 2, "and examined again when that is long ago"


def test_an_archive_has_no_registry(settings: Settings, sample_layouts: Path) -> None:
    from scanner.scanning import pipeline

    with pipeline.local_services(settings) as services:
        request = ScanRequest(f"oci:{sample_layouts / 'shop' / 'good'}", lane=Lane.GATE)
        found = pipeline.run(request, services, lambda progress: None)
    assert found.posture_at is None
    assert all(isinstance(result.outcome, NotApplicable) for result in found.posture)


def test_a_ca_file_is_never_half_written(server: server_scan.ServerServices, authority: Authority) -> None:
    """Other slots load it at every moment: a file that is written anew for each scan is empty for some of them."""
    host, key, settings = "registry.example.com", server.key, server.services.settings
    add(server, host, ca_pem=authority.file.read_text() * 50)
    over = threading.Event()

    def load() -> int:
        loaded = 0
        while not over.is_set():
            access, _ = server_scan.registry_access(settings, server.database, key, host)
            tls_context(access.ca_file)
            loaded += 1
        return loaded

    with ThreadPoolExecutor(4) as pool:
        slots = [pool.submit(load) for _ in range(4)]
        over.wait(2)
        over.set()
        assert min(slot.result() for slot in slots) > 1
    assert len(list((settings.home / "ca").iterdir())) == 1


def test_a_ca_that_changes_is_another_file(server: server_scan.ServerServices, authority: Authority) -> None:
    host, key, settings = "registry.example.com", server.key, server.services.settings
    registry_id = add(server, host, ca_pem=authority.file.read_text())
    before, _ = server_scan.registry_access(settings, server.database, key, host)
    kept = before.ca_file.read_bytes() if before.ca_file else b""
    with server.database.session() as session:
        registries.update(session, registry_id, key, ca_pem=authority.file.read_text() + "\n")
    after, _ = server_scan.registry_access(settings, server.database, key, host)
    assert after.ca_file != before.ca_file
    assert before.ca_file is not None
    assert before.ca_file.read_bytes() == kept, "a scan that runs keeps what it began with"
