"""CycloneDX 1.6, by its official schema, and what a reader of such an SBOM finds in it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema_rs
import pytest

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.cyclonedx import CycloneDxReport
from tests.scanner.reports.subjects import every, hostile, index, ordinary, two_engines

SUBJECTS = every()


@cache
def validator() -> Any:
    directory = Path(cyclonedx.schema.__file__).parent / "_res"
    load = {
        name: json.loads((directory / f"{name}.SNAPSHOT.schema.json").read_text())
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry = jsonschema_rs.Registry(
        [(f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", load[name]) for name in ("spdx", "jsf-0.82")]
    )
    return jsonschema_rs.Draft7Validator(load["bom-1.6"], registry=registry, validate_formats=True)


def render(found: ScanReport) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CycloneDxReport().render(ReportSubject(found)))
    return document


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_it_is_valid(found: ScanReport) -> None:
    assert [f"{list(e.instance_path)}: {e.message[:200]}" for e in validator().iter_errors(render(found))] == []


def test_the_schema_refuses_what_is_wrong() -> None:
    assert not validator().is_valid({**render(ordinary()), "components": [{"type": "no such type", "name": "x"}]})


def test_references_are_unique_and_lead_somewhere() -> None:
    for found in SUBJECTS.values():
        document = render(found)
        refs = [document["metadata"]["component"]["bom-ref"]]
        for component in document["components"]:
            refs += [component["bom-ref"], *(inner["bom-ref"] for inner in component.get("components", ()))]
        assert len(refs) == len(set(refs))
        used = [a["ref"] for v in document["vulnerabilities"] for a in v["affects"]]
        used += [ref for c in document["compositions"] for ref in c["assemblies"]]
        assert set(used) <= set(refs)


def test_what_is_in_it() -> None:
    document = render(ordinary())
    assert document["metadata"]["component"]["purl"].startswith("pkg:oci/app@sha256:")
    flask = next(c for c in document["components"] if c["name"] == "flask")
    assert flask["purl"] == "pkg:pypi/flask@3.0"
    assert flask["licenses"] == [{"license": {"id": "MIT"}}, {"license": {"name": "See LICENCE"}}]
    assert flask["evidence"]["occurrences"] == [{"location": "srv/app"}]
    assert {"name": "dockwarden:layer-index", "value": "0"} in flask["properties"]
    first, refused, watched = document["vulnerabilities"]
    assert first["cwes"] == [79]
    assert [r.get("method") for r in first["ratings"]] == [None, "CVSSv31", "CVSSv2", "other"]
    assert first["recommendation"] == "upgrade openssl to 2.0"
    assert refused["analysis"] == {"state": "exploitable", "response": ["will_not_fix"]}
    assert watched["analysis"] == {"state": "in_triage"}


def test_what_is_not_known_is_never_called_complete() -> None:
    assert [c["aggregate"] for c in render(hostile())["compositions"]] == ["incomplete"]
    assert [c["aggregate"] for c in render(ordinary())["compositions"]] == ["unknown"]


def test_an_index_holds_its_images() -> None:
    document = render(index())
    assert [c["type"] for c in document["components"]] == ["container", "container"]
    (only,) = document["vulnerabilities"]
    assert len(only["affects"]) == 2


def test_engines_that_differ_are_told_apart() -> None:
    first = render(two_engines())["vulnerabilities"][0]
    assert {
        "name": "dockwarden:disputed",
        "value": "trivy reports critical, fixed in 2.0; clair reports low, fixed in 2.0",
    } in first["properties"]
