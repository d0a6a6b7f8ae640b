"""The page of one registry: what is wrong first, with evidence and remedy; what is not known is said."""

from __future__ import annotations

from dataclasses import replace

from scanner.model.finding import CheckResult, Evidence, Failed, Severity
from scanner.store import registries, registry_checks
from scanner.store.session import Database
from tests.web.api.test_registry_checks import FOUND
from tests.web.conftest import Api


def test_unknown_then_waiting_then_known(api: Api, registry: registries.RegistryView, database: Database) -> None:
    path = f"/registries/{registry.id}"
    with api.client as browser:
        headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/html"}

        def text(address: str) -> str:
            return browser.get(address, headers=headers).get_data(as_text=True)

        assert "Not checked yet" in text(path)
        assert "Unknown" in text("/registries")
        with database.session() as session:
            registry_checks.request(session, registry.id, "ann")
        assert "Queued" in text(path)
        hostile = CheckResult("registry-digest", Failed((Evidence("<script>alert(1)</script>"),)), Severity.CRITICAL)
        with database.session() as session:
            held = registry_checks.claim(session)
            assert held is not None
            registry_checks.finish(session, held, replace(FOUND, results=(*FOUND.results, hostile)))
        shown = text(path)
        assert "it speaks TLS 1.0" in shown
        assert "ssl_protocols TLSv1.2" in shown
        assert (
            shown.index("Digests are not enforced")
            < shown.index("Outdated TLS version, or no TLS")
            < shown.index("Version with known vulnerabilities")
        )
        assert "<script>alert(1)" not in shown
        assert "2 failed" in text("/registries")
        with database.session() as session:
            registry_checks.request(session, registry.id, "ann")
            held = registry_checks.claim(session)
            assert held is not None
            registry_checks.fail(session, held, "registry_unreachable", "cannot reach it")
        shown = text(path)
        assert "cannot reach it" in shown
        assert "The results below are from an earlier check" in shown


def test_a_registry_that_is_not_there(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "text/html"}
    assert api.client.get("/registries/nosuch", headers=headers).status_code == 404
