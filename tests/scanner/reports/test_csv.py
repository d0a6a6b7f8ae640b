"""CSV: every line whole, nothing a spreadsheet would evaluate, and what is not known in it like everything else."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.csv import CsvReport, _cell
from tests.scanner.reports.subjects import every, ordinary, two_engines

SUBJECTS = every()


def rows(found: ScanReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(CsvReport().render(ReportSubject(found)), newline="")))


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_every_line_has_every_column_and_no_formula(found: ScanReport) -> None:
    for row in rows(found):
        assert None not in row
        assert None not in row.values()
        assert not any(value.lstrip().startswith(("=", "+", "-", "@", "|", "%")) for value in row.values())


@given(st.text(max_size=30))
def test_no_text_becomes_a_formula(text: str) -> None:
    cell = _cell(text)
    assert not cell.lstrip(' "\t\r\n').startswith(("=", "+", "-", "@", "|", "%"))


def test_what_is_in_it() -> None:
    found = rows(ordinary())
    assert [(r["kind"], r["id"]) for r in found if r["kind"] != "vulnerability"] == [
        ("check", "root-user"),
        ("not known", "setuid-files"),
    ]
    first = next(r for r in found if r["id"] == "CVE-2026-1")
    assert (first["severity"], first["fixed in"], first["layer"], first["engines"]) == ("critical", "2.0", "0", "trivy")
    assert [r["status"] for r in found if r["package"] == "bash"] == ["will_not_fix", "under_investigation"]


def test_engines_that_differ_are_told_apart() -> None:
    assert rows(two_engines())[0]["text"].startswith("trivy reports critical")


@pytest.mark.parametrize("name", ["no engine", "no image"])
def test_an_image_nobody_looked_at_is_not_an_empty_table(name: str) -> None:
    assert "not known" in {r["kind"] for r in rows(SUBJECTS[name])}
