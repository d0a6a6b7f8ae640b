"""SPDX 2.3, by its official schema, and what a reader of such an SBOM finds in it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.spdx import SpdxReport
from tests.scanner.reports.subjects import every, hostile, index, ordinary

SUBJECTS = every()
SCHEMA = Path(__file__).parents[2] / "data" / "schemas" / "spdx-2.3.schema.json"


@cache
def validator() -> Any:
    return jsonschema_rs.Draft7Validator(json.loads(SCHEMA.read_text()), validate_formats=True)


def render(found: ScanReport) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SpdxReport().render(ReportSubject(found)))
    return document


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_it_is_valid(found: ScanReport) -> None:
    document = render(found)
    assert [f"{list(e.instance_path)}: {e.message[:200]}" for e in validator().iter_errors(document)] == []
    ids = [p["SPDXID"] for p in document["packages"]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", i) for i in ids)
    ends = {e for r in document["relationships"] for e in (r["spdxElementId"], r["relatedSpdxElement"])}
    assert ends <= {"SPDXRef-DOCUMENT", "NOASSERTION", *ids}


def test_the_schema_refuses_what_is_wrong() -> None:
    assert not validator().is_valid({**render(ordinary()), "packages": [{"name": "x"}]})


def test_what_is_in_it() -> None:
    document = render(ordinary())
    image = document["packages"][0]
    assert (image["primaryPackagePurpose"], image["checksums"][0]["algorithm"]) == ("CONTAINER", "SHA256")
    packages = {p["name"]: p for p in document["packages"][1:]}
    assert packages["libc6"]["licenseDeclared"] == "GPL-2.0-only"
    assert packages["libc6"]["sourceInfo"] == "built from glibc 2.36"
    (extracted,) = document["hasExtractedLicensingInfos"]
    assert packages["flask"]["licenseDeclared"] == f"MIT AND {extracted['licenseId']}"
    assert extracted["extractedText"] == "See LICENCE"
    assert packages["flask"]["externalRefs"][0]["referenceLocator"] == "pkg:pypi/flask@3.0"
    assert "path /srv/app" in packages["flask"]["sourceInfo"]
    assert packages["openssl"]["licenseDeclared"] == "NOASSERTION"


def test_what_is_not_known_is_an_annotation_of_the_image() -> None:
    comments = [a["comment"] for a in render(hostile())["packages"][0]["annotations"]]
    assert len(comments) == 2
    assert all(comment.startswith("unknown: ") for comment in comments)
    assert render(ordinary())["packages"][0]["annotations"] == []


def test_every_image_of_an_index_is_described() -> None:
    described = [r for r in render(index())["relationships"] if r["relationshipType"] == "DESCRIBES"]
    assert len(described) == 2
