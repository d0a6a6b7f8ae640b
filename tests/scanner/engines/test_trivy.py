"""Trivy's answer is believed only as far as it deserves: real runs on samples, and answers that a broken or hostile
one could give.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scanner.advisories import database
from scanner.config import Limits, Settings
from scanner.engines._process import ProcessEnd
from scanner.engines.base import EngineJob
from scanner.engines.trivy import Reader, TrivyEngine, _report_of, find_trivy
from scanner.errors import AdvisoriesUnavailable, EngineError
from scanner.model.finding import AdvisoryStatus, EngineReport, Severity
from scanner.model.image import Image
from scanner.model.scan import ScanRequest
from scanner.scanning.pipeline import local_services, run
from tests.reports_factory import image_report

REPORTS = Path(__file__).parents[2] / "data" / "hostile" / "reports"
IMAGE: Image = image_report([]).image


def ended(name: str, code: int = 0) -> ProcessEnd:
    return ProcessEnd(code, (REPORTS / name).read_bytes(), "", 1.0)


HOLDINGS = database.Holdings(frozenset(("debian 12", "alpine 3.10", "npm::GitHub Security Advisory Npm")))


def read(document: Any, holdings: database.Holdings = HOLDINGS) -> EngineReport:
    return Reader(document, IMAGE).report("0.76.0", IMAGE.config.digest, AdvisoryStatus("trivy-db"), "", holdings)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("E01_empty.json", 0, "scanner_output_invalid"),
        ("E02_truncated.json", 0, "scanner_output_invalid"),
        ("E16_deep.json", 0, "scanner_output_invalid"),
        ("E19_ok_exit2.json", 2, "scanner_failed"),
        ("E20_ok_sigkill.json", -9, "scanner_oom"),
    ],
)
def test_an_answer_that_is_not_believed(name: str, code: int, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        _report_of(ended(name, code), Limits())
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "name", ["E00_ok.json", "E10_nul.json", "E11_surrogate.json", "E13_severity.json", "E23_markdown.json"]
)
def test_odd_text_is_cleaned_and_kept(name: str) -> None:
    found = read(_report_of(ended(name), Limits()))
    assert found.vulnerabilities
    shown = repr(found.vulnerabilities)
    assert "\\x00" not in shown
    assert not any(0xD800 <= ord(c) <= 0xDFFF for c in shown)


def test_a_severity_of_another_spelling_is_unknown_which_counts_as_critical() -> None:
    found = read(_report_of(ended("E13_severity.json"), Limits()))
    assert {v.severity for v in found.vulnerabilities} <= {
        Severity.UNKNOWN,
        Severity.CRITICAL,
        Severity.HIGH,
        Severity.MEDIUM,
        Severity.LOW,
    }
    assert all(v.severity.rank >= Severity.LOW.rank for v in found.vulnerabilities)


def test_no_os_and_no_package_is_not_clean() -> None:
    found = read(_report_of(ended("E05_no_os.json"), Limits()))
    assert {gap.reason for gap in found.incomplete} & {"unsupported_os", "nothing_to_scan"}


BASE: dict[str, Any] = {"SchemaVersion": 2, "Metadata": {"OS": {"Family": "debian", "Name": "12"}}, "Results": []}


@pytest.mark.parametrize(
    "change",
    [
        {"Metadata": {"ImageID": "sha256:" + "0" * 64}},
        {"Metadata": {"DiffIDs": ["sha256:" + "0" * 64]}},
        {"Metadata": []},
        {"Results": {}},
        {"Results": [[]]},
        {"Results": [{"Vulnerabilities": [{"PkgName": "x"}]}]},
        {"Results": [{"Packages": "x"}]},
    ],
)
def test_what_does_not_fit_the_schema_or_the_image_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EngineError) as caught:
        read({**BASE, **change})
    assert caught.value.reason == "scanner_output_invalid"


@pytest.mark.parametrize("version", [1, 3, None, "2"])
def test_a_schema_that_we_do_not_know(version: object) -> None:
    with pytest.raises(EngineError, match="schema"):
        _report_of(ProcessEnd(0, json.dumps({"SchemaVersion": version}).encode(), "", 1.0), Limits())


def test_links_are_http_or_nothing() -> None:
    item = {
        "VulnerabilityID": "CVE-1",
        "PkgName": "x",
        "InstalledVersion": "1",
        "PrimaryURL": "javascript:alert(1)",
        "References": ["data:x", "https://ok.example"],
    }
    found = read({**BASE, "Results": [{"Vulnerabilities": [item]}]}).vulnerabilities[0]
    assert (found.url, found.references) == ("", ("https://ok.example",))


def test_an_end_of_life_system_is_not_clean() -> None:
    metadata = {"OS": {"Family": "alpine", "Name": "3.10", "EOSL": True}}
    packages = [{"Name": "x", "Version": "1"}]
    found = read({**BASE, "Metadata": metadata, "Results": [{"Type": "alpine", "Packages": packages}]})
    assert [gap.reason for gap in found.incomplete] == ["unsupported_os"]


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("FATAL cache may be in use by another process: timeout", "scanner_failed"),
        ("FATAL failed to initialize vulnerability DB: x", "engine_db_unavailable"),
        ("panic: runtime error", "scanner_crashed"),
        ("fatal error: out of memory", "scanner_oom"),
        ("something else", "scanner_failed"),
    ],
)
def test_why_it_failed(stderr: str, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        _report_of(ProcessEnd(1, b"{}", stderr, 1.0), Limits())
    assert caught.value.reason == reason


def test_a_real_run_says_which_binary_and_which_advisories(settings: Settings, sample_layouts: Path) -> None:
    with local_services(settings) as services:
        report = run(ScanRequest(f"oci:{sample_layouts / 'shop/vulnerable'}"), services, lambda progress: None)
    found = report.images[0].engines[0]
    assert found.version == "0.76.0"
    assert found.binary is not None
    assert found.advisories.digest == database.status(settings).digest
    assert "rlimits" in found.isolation
    assert {v.id for v in found.vulnerabilities} == {
        "CVE-2026-90001",
        "CVE-2026-90002",
        "CVE-2026-90003",
        "CVE-2026-90004",
    }
    assert {v.layer for v in found.vulnerabilities} == {report.images[0].image.layers[0].diff_id}
    assert not list(settings.work_dir.iterdir()), "the work directory is gone"


def test_a_second_scan_of_the_same_layers_reads_nothing(settings: Settings, sample_layouts: Path) -> None:
    target = ScanRequest(f"oci:{sample_layouts / 'shop/good'}")
    with local_services(settings) as services:
        first = run(target, services, lambda progress: None)
        for layer in first.images[0].image.layers:
            blob = sample_layouts / "shop/good" / "blobs" / "sha256" / layer.digest.hex
            blob.rename(blob.with_suffix(".away"))
        try:
            second = run(target, services, lambda progress: None)
        finally:
            for layer in first.images[0].image.layers:
                blob = sample_layouts / "shop/good" / "blobs" / "sha256" / layer.digest.hex
                blob.with_suffix(".away").rename(blob)
    assert replace(second, started_at=first.started_at, finished_at=first.finished_at) == first


def test_no_trivy_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        find_trivy(Settings(trivy=tmp_path / "nothing"))
    assert caught.value.reason == "engine_missing"
    assert "pip install" in caught.value.hint


def test_no_advisories_is_said_before_anything_runs(tmp_path: Path) -> None:
    job = EngineJob(IMAGE, tmp_path, tmp_path, tmp_path / "cache", Settings(home=tmp_path), 10)
    with pytest.raises(AdvisoriesUnavailable):
        TrivyEngine().scan(job)
