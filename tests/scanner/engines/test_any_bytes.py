"""Whatever bytes an engine's report has, reading it ends with a value or with an error of ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from scanner.config import Limits
from scanner.engines import clair, trivy
from scanner.errors import EngineError, ScannerError
from scanner.model.finding import Component, Severity
from scanner.model.image import Image
from tests.reports_factory import image_report
from tests.scanner.engines.test_clair import IMAGE as CLAIR_IMAGE

DATA = Path(__file__).parents[2] / "data"
IMAGE = image_report([]).image
TRIVY = json.loads((DATA / "hostile" / "reports" / "E00_ok.json").read_text())
CLAIR = json.loads((DATA / "clair" / "vulnerability_report.json").read_text())
READERS = {"trivy": (trivy.read_report, IMAGE, TRIVY), "clair": (clair.read_report, CLAIR_IMAGE, CLAIR)}
QUICK = examples(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
)
values = st.recursive(
    scalars | st.sampled_from(["", " ", "CVE-2026-1", "HIGH", "critical ", "1", "null", "=", "fixed=1", "\u202e"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document at which another value can be put."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(found for key, value in items for found in places(value, (*path, key)))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(document[path[0]], path[1:], value)
    return copy


def reads(reader: Callable[[bytes, Image], Any], data: bytes, image: Image) -> None:
    with contextlib.suppress(ScannerError):
        reader(data, image)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.binary(max_size=200))
def test_any_bytes(name: str, data: bytes) -> None:
    reader, image, _ = READERS[name]
    reads(reader, data, image)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.data())
def test_any_value_at_any_place_of_a_real_report(name: str, data: st.DataObject) -> None:
    reader, image, document = READERS[name]
    path = data.draw(st.sampled_from(places(document)))
    made = json.dumps(changed(document, path, data.draw(values))).encode()
    reads(reader, made, image)


@pytest.mark.parametrize(
    "severity", [None, "critical ", "Critical", "Important", "NONE", "none", "", 9, True, ["HIGH"], {}]
)
@pytest.mark.parametrize("name", READERS)
def test_a_severity_that_the_engine_never_writes_is_unknown(name: str, severity: object) -> None:
    reader, image, document = READERS[name]
    if name == "clair" and severity == "Critical":
        severity = "CRITICAL"
    member = "Severity" if name == "trivy" else "normalized_severity"
    made = document
    for path in places(document):
        if path and path[-1] == member:
            made = changed(made, path, severity)
    assert made != document
    found = reader(json.dumps(made).encode(), image).vulnerabilities
    assert {item.severity for item in found} == {Severity.UNKNOWN}


@pytest.mark.parametrize("name", READERS)
def test_a_severity_that_is_absent_is_unknown(name: str) -> None:
    reader, image, document = READERS[name]
    text = json.dumps(document).replace('"Severity"', '"Other"').replace('"normalized_severity"', '"other"')
    assert {item.severity for item in reader(text.encode(), image).vulnerabilities} == {Severity.UNKNOWN}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("limits", [Limits(packages=1), Limits(report_findings=1)])
def test_a_report_that_lists_too_much_is_refused(name: str, limits: Limits) -> None:
    reader, image, document = READERS[name]
    if name == "trivy":
        results = [
            {
                "Type": "debian",
                "Packages": [{"Name": "x"}] * 2,
                "Vulnerabilities": [{"VulnerabilityID": "C", "PkgName": "x"}] * 2,
            }
        ]
        document = {"SchemaVersion": 2, "Metadata": {}, "Results": results}
    with pytest.raises(EngineError) as caught:
        reader(json.dumps(document).encode(), image, limits)
    assert caught.value.reason == "limit_exceeded"


@QUICK
@given(
    purl=st.text(max_size=40) | st.text("pkg:/@?#%npmipymaven.", max_size=30).map(lambda text: f"pkg:{text}"),
    version=st.text(max_size=6),
)
def test_any_package_url_of_an_sbom(purl: str, version: str) -> None:
    found = trivy.TrivyEngine().package_of(Component(purl, "x", version, "npm"))
    assert found is None or found.version == version


@pytest.mark.parametrize("score", ["9.8", 98, -1, True, [9.8]])
def test_a_score_that_is_none_is_not_left_out(score: object) -> None:
    item = {"VulnerabilityID": "CVE-1", "PkgName": "x", "CVSS": {"nvd": {"V3Score": score}}}
    made = {"SchemaVersion": 2, "Metadata": {}, "Results": [{"Vulnerabilities": [item]}]}
    with pytest.raises(EngineError) as caught:
        trivy.read_report(json.dumps(made).encode(), IMAGE)
    assert caught.value.reason == "scanner_output_invalid"


def test_a_name_of_spaces_and_a_distribution_that_is_none() -> None:
    """Each raised an error that nobody caught."""
    for path, value in ((("packages", "2", "name"), " "), (("environments", "2", 0, "distribution_id"), [])):
        with pytest.raises(EngineError) as caught:
            clair.read_report(json.dumps(changed(CLAIR, path, value)).encode(), CLAIR_IMAGE)
        assert caught.value.reason == "scanner_output_invalid"
