"""What every report format promises, whichever it is."""

from __future__ import annotations

import unicodedata

import pytest

from scanner import catalog
from scanner.model.scan import ScanReport
from scanner.reports.base import ReportFormat, ReportSubject
from tests.scanner.reports.subjects import decided, every

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
