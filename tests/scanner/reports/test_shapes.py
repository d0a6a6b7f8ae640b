"""SARIF, GitLab and JUnit by the rules of their published schemas, whatever an image holds."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import jsonschema_rs
import pytest
import xmlschema

from scanner import catalog
from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject, gaps
from tests.reports_factory import simple, vulnerability
from tests.scanner.reports.shapes import GITLAB, SARIF
from tests.scanner.reports.subjects import HOSTILE, decided, every, ordinary
from tests.scanner.reports.test_every_format import REFUSED

FORMATS = catalog.reports()
SUBJECTS = {
    **every(),
    "odd addresses": simple(
        vulnerability(
            url="javascript:alert(1)", references=("javascript:alert(1)", "", "https://example.com/a", HOSTILE)
        )
    ),
    "nothing said": replace(simple(vulnerability(name="", package="", title="")), reference="", repository=""),
}
SCHEMAS = {"gitlab": GITLAB, "sarif": SARIF}
_DATA = Path(__file__).parents[2] / "data" / "schemas"
_OASIS = json.loads((_DATA / "sarif-2.1.0-rtm.5.json").read_text())
# A pattern of the schema is no valid expression: it has a bracket too many. Our reports have no such member.
for _part in ("run", "toolComponent"):
    del _OASIS["definitions"][_part]["properties"]["language"]["pattern"]
OFFICIAL = jsonschema_rs.validator_for(_OASIS)
JUNIT = xmlschema.XMLSchema(_DATA / "junit-10.xsd")  # of Jenkins' xUnit plug-in


def junit_problems(report: str | xml.Element) -> list[str]:
    root = xml.fromstring(report) if isinstance(report, str) else report
    return [f"{error.path}: {error.reason}" for error in JUNIT.iter_errors(root)]


def problems(form: str, document: Any) -> list[str]:
    validator = jsonschema_rs.validator_for(SCHEMAS[form], validate_formats=True)
    return [f"{error.instance_path}: {error.message[:200]}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("form", SCHEMAS)
@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_json_formats(form: str, found: ScanReport, judged: bool) -> None:
    text = FORMATS[form].render(ReportSubject(found, decided(found) if judged else None))
    assert problems(form, json.loads(text)) == []
    if form == "sarif":
        assert [error.message[:200] for error in OFFICIAL.iter_errors(json.loads(text))] == []


@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_one_rule_says_whether_a_report_is_a_success(found: ScanReport, judged: bool) -> None:
    subject = ReportSubject(found, decided(found) if judged else None)
    fails = any(gap.fails for gap in gaps(subject))
    sarif = json.loads(FORMATS["sarif"].render(subject))["runs"][0]["invocations"]
    gitlab = json.loads(FORMATS["gitlab"].render(subject))["scan"]["status"]
    junit = sum(int(suite.get("errors", "0")) for suite in xml.fromstring(FORMATS["junit"].render(subject)))
    assert [each["executionSuccessful"] for each in sarif] == [not fails]
    assert (gitlab == "failure") is fails
    assert (junit > 0) is fails


@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_junit(found: ScanReport, judged: bool) -> None:
    text = FORMATS["junit"].render(ReportSubject(found, decided(found) if judged else None))
    assert junit_problems(text) == []


def test_a_refused_image() -> None:
    for form in SCHEMAS:
        assert problems(form, json.loads(FORMATS[form].render_refused(REFUSED))) == []
    assert junit_problems(FORMATS["junit"].render_refused(REFUSED)) == []


@pytest.mark.parametrize(
    ("form", "path", "value"),
    [
        ("gitlab", ["scan", "status"], "partial"),
        ("gitlab", ["scan", "start_time"], "2026-11-24T12:00:00Z"),
        ("gitlab", ["vulnerabilities", 0, "identifiers"], []),
        ("gitlab", ["vulnerabilities", 0, "links"], [{"url": "javascript:alert(1)"}]),
        ("sarif", ["version"], "2.2"),
        ("sarif", ["runs", 0, "invocations", 0, "executionSuccessful"], "yes"),
        ("sarif", ["runs", 0, "results", 0, "level"], "fatal"),
        ("sarif", ["runs", 0, "results", 0, "unheard"], 1),
    ],
)
def test_the_rules_can_be_broken(form: str, path: list[Any], value: object) -> None:
    document = json.loads(FORMATS[form].render(ReportSubject(ordinary())))
    broken = copy.deepcopy(document)
    place = broken
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert problems(form, document) == []
    assert problems(form, broken)
    assert form != "sarif" or not OFFICIAL.is_valid(broken)


def test_the_rules_of_junit_can_be_broken() -> None:
    root = xml.fromstring(FORMATS["junit"].render(ReportSubject(ordinary())))
    root.set("skipped", "0")
    del root[0].attrib["tests"]
    xml.SubElement(root[0][0], "testsuite")
    assert len(junit_problems(root)) >= 3
