"""OpenVEX: only what evidence can say, in the shape that the specification requires, and readable by our own reader
of it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.openvex import OpenVexReport
from tests.scanner.reports.subjects import every, index, ordinary

SUBJECTS = every()


def render(found: ScanReport) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(OpenVexReport().render(ReportSubject(found)))
    return document


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_the_members_that_the_specification_requires(found: ScanReport) -> None:
    document = render(found)
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert document["@id"].startswith("urn:uuid:")
    assert document["author"]
    assert document["timestamp"]
    for statement in document["statements"]:
        assert statement["vulnerability"]["name"]
        assert statement["status"] in ("affected", "under_investigation")
        assert (statement["status"] == "affected") is bool(statement.get("action_statement"))
        assert all(p["@id"].startswith("pkg:oci/") and p["subcomponents"] for p in statement["products"])


def test_what_is_in_it() -> None:
    first, refused, watched = render(ordinary())["statements"]
    assert first["action_statement"] == "upgrade openssl to 2.0"
    assert first["products"][0]["subcomponents"] == [{"@id": "pkg:deb/debian/openssl@1.0"}]
    assert refused["action_statement"] == "no fix is known yet"
    assert watched["status"] == "under_investigation"


def test_every_image_of_an_index_is_a_product() -> None:
    (statement,) = render(index())["statements"]
    assert len(statement["products"]) == 2
