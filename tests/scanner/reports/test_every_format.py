"""What every report format promises, whichever it is."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from xml.etree import ElementTree as xml

import pytest

from scanner import catalog
from scanner.model.decision import Verdict
from scanner.model.finding import Incomplete
from scanner.model.scan import ScanReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import default_policy
from scanner.reports.base import RefusedScan, ReportFormat, ReportSubject
from tests.reports_factory import NOW, simple, vulnerability
from tests.scanner.reports.subjects import HOSTILE, decided, every

FORMATS = catalog.reports()
SUBJECTS = every()


def test_the_formats_that_users_are_promised() -> None:
    assert {
        "table",
        "json",
        "sarif",
        "junit",
        "gitlab",
        "cyclonedx",
        "spdx",
        "openvex",
        "csv",
        "html",
    } <= FORMATS.keys()


def test_media_types_tell_formats_apart() -> None:
    assert len({f.media_type for f in FORMATS.values()}) == len(FORMATS)


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda f: f.id)
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
def test_it_renders_whatever_an_image_holds(form: ReportFormat, found: ScanReport, judged: bool) -> None:
    text = form.render(ReportSubject(found, decided(found) if judged else None))
    assert text.strip()
    assert text == form.render(ReportSubject(found, decided(found) if judged else None)), (
        "the same evidence, the same text"
    )
    odd = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\r\ufeff"}
    assert not odd, f"control characters from an image: {odd!r}"


NAME_PACKAGES = {
    *("table", "sarif", "junit", "gitlab", "cyclonedx", "openvex", "csv", "html", "markdown", "github"),
}


@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
def test_every_format_names_one_version_for_a_package(judged: bool) -> None:
    """The one that has the fix of all its findings: 3.0.2 alone would lack the first, which line 3 has since 3.0.9."""
    items = [vulnerability(f"CVE-2026-{n}", severity=severity) for n, severity in enumerate(("low", "critical"), 1)]
    fixes = (("2.3.5", "3.0.9"), ("3.0.2",))
    found = simple(
        *(replace(v, installed_version="2.3.1", fixed_versions=fix) for v, fix in zip(items, fixes, strict=True))
    )
    silent = {"json", "spdx"} | (set() if judged else {"markdown", "github"})  # evidence as it is; no advice
    for name in FORMATS.keys() - silent:
        text = FORMATS[name].render(ReportSubject(found, decided(found) if judged else None))
        if "openssl" not in text:  # a new format that only gives the verdict
            assert name not in NAME_PACKAGES
            continue
        assert "3.0.9" in text, name
        assert "2.3.5" not in text, name
        assert "3.0.2" not in text, name


def outcomes(subject: ReportSubject) -> dict[str, bool]:
    """Whether each format that has a word for it calls the report a success."""
    (invocation,) = json.loads(FORMATS["sarif"].render(subject))["runs"][0]["invocations"]
    junit = xml.fromstring(FORMATS["junit"].render(subject))
    return {
        "sarif": invocation["executionSuccessful"],
        "gitlab": json.loads(FORMATS["gitlab"].render(subject))["scan"]["status"] == "success",
        "junit": int(junit.attrib["errors"]) == 0,
    }


@pytest.mark.parametrize("judged", [True, False], ids=["decided", "evidence only"])
@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_formats_agree_on_what_is_a_success(found: ScanReport, judged: bool) -> None:
    decision = decided(found) if judged else None
    said = outcomes(ReportSubject(found, decision))
    assert len(set(said.values())) == 1, said
    if decision is not None and decision.undecided:
        assert not said["sarif"], "what could not be decided is no success"


def test_a_gap_that_the_policy_lets_pass_is_told_and_fails_no_report() -> None:
    found = simple(checks={"setuid-files": Incomplete("malformed_image", "a layer could not be read")})
    lax = replace(default_policy(catalog.known_names()), incomplete=Verdict.WARN)
    decision = evaluate(found, lax, Context(NOW, remedies=catalog.remedies()))
    subject = ReportSubject(found, decision)
    assert outcomes(subject) == {"sarif": True, "gitlab": True, "junit": True}
    assert "a layer could not be read" in FORMATS["sarif"].render(subject)
    assert "a layer could not be read" in FORMATS["gitlab"].render(subject)
    assert not any(outcomes(ReportSubject(found)).values())


REFUSED = RefusedScan(f"archive:{HOSTILE}", "malformed_image", f"not an image {HOSTILE}", "look at it", NOW, "0.1.0")


def test_a_refused_image_is_a_failure_in_every_format_that_can_say_so() -> None:
    (run,) = json.loads(FORMATS["sarif"].render_refused(REFUSED))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["descriptor"]["id"] == "malformed_image"
    assert json.loads(FORMATS["gitlab"].render_refused(REFUSED))["scan"]["status"] == "failure"
    assert xml.fromstring(FORMATS["junit"].render_refused(REFUSED)).attrib["errors"] == "1"
    assert "could not be decided" in FORMATS["markdown"].render_refused(REFUSED)
    assert FORMATS["github"].render_refused(REFUSED).startswith("::error ")
    document = json.loads(FORMATS["json"].render_refused(REFUSED))
    assert (document["verdict"], document["undecided"], document["report"]) == ("deny", True, None)
    assert document["error"]["reason"] == "malformed_image"


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda f: f.id)
def test_a_refused_image_cannot_write_to_the_terminal(form: ReportFormat) -> None:
    text = form.render_refused(REFUSED)
    odd = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\r\ufeff"}
    assert not odd


def test_a_summary_never_calls_an_unexamined_image_free_of_vulnerabilities() -> None:
    found = simple()
    (image,) = found.images
    unfinished = replace(image.engines[0], vulnerabilities=(), incomplete=(Incomplete("engine_failed", "killed"),))
    for engines in ((), (unfinished,)):
        text = FORMATS["markdown"].render(ReportSubject(replace(found, images=(replace(image, engines=engines),))))
        assert "none found" not in text
        assert "unknown" in text
