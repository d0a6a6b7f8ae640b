"""SARIF: what code hosts need of it, and that a run that could not look is no successful one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from scanner import catalog
from scanner.model.scan import ScanReport
from scanner.model.vex import Exemption
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import default_policy
from scanner.reports.base import ReportSubject
from scanner.reports.sarif import SarifReport
from tests.reports_factory import NOW, report, simple, vulnerability
from tests.scanner.reports.subjects import decided, every, hostile, ordinary

SUBJECTS = every()


def run_of(found: ScanReport, **more: Any) -> dict[str, Any]:
    document = json.loads(SarifReport().render(ReportSubject(found, **more)))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    return dict(run)


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_results_point_at_rules_and_at_places(found: ScanReport) -> None:
    run = run_of(found)
    rules = run["tool"]["driver"]["rules"]
    assert len({r["id"] for r in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        place = result["locations"][0]["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        assert uri
        assert uri.isascii()
        assert not uri.startswith("/")
        assert place["region"]["startLine"] == 1
    marks = [r["partialFingerprints"]["dockwarden/v1"] for r in run["results"]]
    assert len(set(marks)) == len(marks)


def test_what_is_in_it() -> None:
    run = run_of(ordinary())
    first = next(r for r in run["tool"]["driver"]["rules"] if r["id"] == "CVE-2026-1")
    assert first["properties"]["security-severity"] == "9.8"
    unknown = next(r for r in run["tool"]["driver"]["rules"] if r["id"] == "CVE-2026-3")
    assert unknown["properties"]["security-severity"] == "9.5", "nobody said that it is less"
    check = next(r for r in run["results"] if r["ruleId"] == "root-user")
    assert (check["level"], check["message"]["text"]) == ("error", "user is root")


@pytest.mark.parametrize("name", ["ordinary", "hostile", "no engine", "no image"])
def test_what_is_not_known_makes_the_run_no_success(name: str) -> None:
    (invocation,) = run_of(SUBJECTS[name])["invocations"]
    assert invocation["executionSuccessful"] is False
    assert all("unknown" in n["message"]["text"] for n in invocation["toolExecutionNotifications"])
    assert run_of(simple())["invocations"][0]["executionSuccessful"] is True


def test_a_path_from_an_image_is_no_address() -> None:
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run_of(hostile())["results"]]
    assert all(
        not unquote(uri).startswith(("http", "/", "file:")) and "<" not in uri and " " not in uri for uri in uris
    )


def test_what_somebody_accepted_is_suppressed_with_the_reason() -> None:
    found = report(*simple(vulnerability()).images)
    waiver = Exemption(
        "e1",
        "ann",
        "because",
        NOW + timedelta(days=7),
        ("registry.example.com/shop/**",),
        subject="CVE-2026-1",
        approved_by="bob",
    )
    decision = evaluate(found, default_policy(catalog.known_names()), Context(NOW, exemptions=(waiver,)))
    (result,) = run_of(found, decision=decision)["results"]
    assert "accepted by bob" in result["suppressions"][0]["justification"]
    assert "suppressions" not in run_of(found, decision=decided(found))["results"][0]
