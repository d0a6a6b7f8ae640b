"""Registry posture over the API: asked for, told with evidence and remedies, and nobody else's business."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, Severity
from scanner.model.posture import Posture
from scanner.store import registries, registry_checks
from scanner.store.session import Database
from tests.web.conftest import Api

FOUND = Posture(
    "registry.example.com",
    datetime(2026, 11, 25, 12, tzinfo=UTC),
    (
        CheckResult("registry-tls-version", Failed((Evidence("it speaks TLS 1.0"),)), Severity.HIGH),
        CheckResult("registry-version", Incomplete("version_not_told", "it does not say"), Severity.LOW),
        CheckResult("registry-of-tomorrow", Incomplete("x"), Severity.LOW),
    ),
    "team/app",
)


def test_an_examination_is_asked_for_once_and_told_when_it_ended(
    api: Api, registry: registries.RegistryView, database: Database
) -> None:
    path = f"/registries/{registry.id}/check"
    nothing = api("GET", path).get_json()
    assert (nothing["checked_at"], nothing["checks"], nothing["examinations"]) == (None, [], [])
    asked = api("POST", path)
    assert (asked.status_code, asked.headers["Location"]) == (202, f"/api/v1{path}")
    assert asked.get_json()["state"] == "queued"
    assert api("POST", path).get_json()["id"] == asked.get_json()["id"]
    with database.session() as session:
        held = registry_checks.claim(session)
        assert held is not None
        registry_checks.finish(session, held, FOUND)
    told = api("GET", path).get_json()
    assert (told["host"], told["repository"], told["checked_at"]) == (
        "registry.example.com",
        "team/app",
        "2026-11-25T12:00:00Z",
    )
    first = told["checks"][0]
    assert (first["check"], first["title"], first["severity"]) == (
        "registry-tls-version",
        "Outdated TLS version, or no TLS",
        "high",
    )
    assert first["outcome"]["evidence"][0]["message"] == "it speaks TLS 1.0"
    assert first["remedy"].startswith("allow TLS 1.2")
    assert told["checks"][2]["title"] == "registry-of-tomorrow"
    (examination,) = told["examinations"]
    assert (examination["state"], examination["failed"], examination["incomplete"]) == ("done", 1, 2)


def test_one_that_failed_says_why(api: Api, registry: registries.RegistryView, database: Database) -> None:
    api("POST", f"/registries/{registry.id}/check")
    with database.session() as session:
        held = registry_checks.claim(session)
        assert held is not None
        registry_checks.fail(session, held, "registry_unreachable", "cannot reach it")
    (examination,) = api("GET", f"/registries/{registry.id}/check").get_json()["examinations"]
    assert (examination["state"], examination["reason"]) == ("failed", "registry_unreachable")


def test_who_may_not(call: object, api: Api, registry: registries.RegistryView) -> None:
    assert callable(call)
    assert call("read")("POST", f"/registries/{registry.id}/check").status_code == 403
    stranger = call("manage", projects=("other",))
    assert stranger("GET", f"/registries/{registry.id}/check").status_code == 404
    assert stranger("POST", f"/registries/{registry.id}/check").status_code == 404
    page = stranger.client.post(
        f"/registries/{registry.id}/check", headers={"Authorization": f"Bearer {stranger.token}"}
    )
    assert page.status_code == 404
    assert call("manage", projects=("default",))("POST", f"/registries/{registry.id}/check").status_code == 202
    for method in ("GET", "POST"):
        assert api(method, f"/registries/{uuid.uuid4()}/check").status_code == 404
