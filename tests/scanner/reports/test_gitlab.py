"""GitLab's report: the members its schema requires, and that not knowing is a failure there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.gitlab import GitLabReport
from tests.reports_factory import NOW, simple, vulnerability
from tests.scanner.reports.subjects import every, ordinary, two_engines

SUBJECTS = every()


def render(found: ScanReport) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(GitLabReport().render(ReportSubject(found)))
    return document


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_the_members_that_the_schema_requires(found: ScanReport) -> None:
    document = render(found)
    scan = document["scan"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", scan["start_time"])
    assert scan["type"] == "container_scanning"
    ids = [v["id"] for v in document["vulnerabilities"]]
    assert len(ids) == len(set(ids))
    for item in document["vulnerabilities"]:
        assert item["severity"] in ("Info", "Unknown", "Low", "Medium", "High", "Critical")
        assert 1 <= len(item["identifiers"]) <= 20
        assert all(i["type"] and i["name"] and i["value"] for i in item["identifiers"])
        location = item["location"]
        assert location["image"]
        assert location["operating_system"]
        assert location["dependency"]["package"]["name"]
        assert len(item["name"]) <= 255


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("index", "success"),
        ("ordinary", "failure"),
        ("hostile", "failure"),
        ("no engine", "failure"),
        ("no image", "failure"),
    ],
)
def test_not_knowing_is_a_failure(name: str, status: str) -> None:
    assert render(SUBJECTS[name])["scan"]["status"] == status
    assert render(simple())["vulnerabilities"] == []


def test_what_is_in_it() -> None:
    first = render(ordinary())["vulnerabilities"][0]
    assert first["identifiers"][0] == {
        "type": "cve",
        "name": "CVE-2026-1",
        "value": "CVE-2026-1",
        "url": "https://nvd.nist.gov/vuln/detail/CVE-2026-1",
    }
    assert first["solution"] == "Upgrade openssl to 2.0"
    assert first["location"]["operating_system"] == "debian 12"
    assert "clair reports low" in render(two_engines())["vulnerabilities"][0]["description"]


def test_the_same_finding_has_the_same_id_in_the_next_scan() -> None:
    """GitLab recognises a finding by its id: what another scan says about it must not change the id, what it is
    must.
    """
    (before,) = render(simple(vulnerability()))["vulnerabilities"]
    later = replace(simple(vulnerability(severity="low", title="rated anew", fixed=None)), reference="shop/app:2.0")
    (after,) = render(replace(later, started_at=NOW + timedelta(days=9)))["vulnerabilities"]
    assert before["severity"] != after["severity"]
    assert before["id"] == after["id"]
    other = {
        render(simple(vulnerability(**change)))["vulnerabilities"][0]["id"]
        for change in ({"name": "CVE-2026-2"}, {"package": "bash"}, {"path": "srv/app"})
    }
    assert len(other | {before["id"]}) == 4
