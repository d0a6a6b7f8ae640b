"""JUnit: red when and only when the image is denied, and well-formed whatever an image holds."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as xml

import pytest

from scanner.model.decision import Verdict
from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.junit import JunitReport
from tests.reports_factory import simple, vulnerability
from tests.scanner.reports.subjects import decided, every, ordinary

SUBJECTS = every()


def parse(found: ScanReport, *, judged: bool) -> xml.Element:
    return xml.fromstring(JunitReport().render(ReportSubject(found, decided(found) if judged else None)))


@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_the_counts_are_those_of_its_tests(found: ScanReport, judged: bool) -> None:
    root = parse(found, judged=judged)
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase")) > 0
    for kind, element in (("failures", "failure"), ("errors", "error")):
        assert int(root.attrib[kind]) == len(root.findall(f".//{element}"))
    for suite in root:
        for kind, element in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[kind]) == len(suite.findall(f".//{element}"))


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_it_is_red_when_and_only_when_the_image_is_denied(found: ScanReport) -> None:
    root = parse(found, judged=True)
    red = int(root.attrib["failures"]) + int(root.attrib["errors"]) > 0
    assert red is (decided(found).verdict is Verdict.DENY)


def test_a_violation_fails_and_not_knowing_is_an_error() -> None:
    denied = parse(simple(vulnerability()), judged=True)
    assert (denied.attrib["failures"], denied.attrib["errors"]) == ("1", "0")
    undecided = parse(simple(updated_at=None), judged=True)
    assert undecided.attrib["failures"] == "0"
    assert int(undecided.attrib["errors"]) > 0


def test_without_a_decision_every_check_and_package_is_a_test() -> None:
    root = parse(ordinary(), judged=False)
    outcomes = {case.attrib["name"]: [child.tag for child in case] for case in root.iter("testcase")}
    assert outcomes["root-user"] == ["failure"]
    assert outcomes["healthcheck"] == []
    assert outcomes["latest-tag"] == ["skipped"]
    assert outcomes["setuid-files"] == ["error"]
    assert outcomes["openssl 1.0"] == ["failure"]
    assert outcomes["trivy scanned everything"] == []


def test_a_character_that_xml_cannot_hold_is_replaced() -> None:
    found = replace(simple(vulnerability(package="a\ufffeb\ufdd0")), reference="x\uffff")
    assert "a\ufffdb" in JunitReport().render(ReportSubject(found))
    parse(found, judged=False)
