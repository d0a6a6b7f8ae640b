"""Exemptions that stop holding when the facts they were approved of change, and the names they may give an image."""

from __future__ import annotations

from typing import Any

import pytest

from scanner.model.scan import ScanReport
from scanner.policy.exempted import lapse_reason, lapses
from tests.reports_factory import report, simple, vulnerability
from tests.scanner.policy.test_evaluate import exemption


@pytest.mark.parametrize(
    ("conditions", "facts", "reason"),
    [
        ({"while_unexploited": True}, {"known_exploited": True}, "CVE-2026-1 is exploited"),
        ({"while_unexploited": True}, {"known_exploited": False}, ""),
        ({"while_unfixed": True}, {"fixed": "2.0"}, "there is a fix for CVE-2026-1 in openssl: 2.0"),
        ({"while_unfixed": True}, {"fixed": None}, ""),
        ({}, {"fixed": "2.0", "known_exploited": True}, ""),
    ],
    ids=["exploited", "not exploited", "fixed", "not fixed", "without a condition"],
)
def test_an_exemption_lapses_when_its_condition_does(
    conditions: dict[str, Any], facts: dict[str, Any], reason: str
) -> None:
    made, item = exemption(**conditions), vulnerability(**facts)
    assert lapse_reason(made, item) == reason
    assert list(lapses(simple(item), [made])) == ([(made, reason)] if reason else [])


def test_an_exemption_of_no_vulnerability_does_not_lapse() -> None:
    assert lapse_reason(exemption(while_unfixed=True), None) == ""


@pytest.mark.parametrize(
    "more", [{"images": ("other/**",)}, {"subject": "CVE-2026-2"}, {"purl": "pkg:deb/debian/other@1"}]
)
def test_a_vulnerability_that_an_exemption_does_not_cover_ends_nothing(more: dict[str, Any]) -> None:
    made = exemption(while_unfixed=True, **more)
    assert list(lapses(simple(vulnerability(fixed="2.0")), [made])) == []


def test_an_exemption_for_a_digest_lapses_too() -> None:
    found: ScanReport = simple(vulnerability(fixed="2.0"))
    made = exemption(while_unfixed=True, images=(str(found.images[0].image.digest),))
    assert [which for which, _ in lapses(found, [made])] == [made]
    assert list(lapses(report(), [made])) == []
