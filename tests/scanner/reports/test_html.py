"""The page that stands by itself: nothing in it runs, nothing in it is loaded, whatever an image holds."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from scanner.model.scan import ScanReport
from scanner.reports.base import ReportSubject
from scanner.reports.html import HtmlReport
from tests.scanner.reports.subjects import decided, every, ordinary, two_engines

SUBJECTS = every()
VOID = {"meta"}


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(found: ScanReport) -> tuple[str, Reader]:
    text = HtmlReport().render(ReportSubject(found, decided(found)))
    reader = Reader()
    reader.feed(text)
    return text, reader


@pytest.mark.parametrize("found", SUBJECTS.values(), ids=list(SUBJECTS))
def test_nothing_runs_and_nothing_is_loaded(found: ScanReport) -> None:
    _, reader = read(found)
    assert not reader.open, "every element is closed"
    for tag, attributes in reader.tags:
        assert tag not in ("script", "img", "link", "iframe", "object", "form", "a", "svg")
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "href", "style")}
    policy = next(a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_what_is_in_it() -> None:
    text, _ = read(ordinary())
    for part in ("DENY", "CVE-2026-1", "openssl", "will not fix", "user is root", "a layer could not be read"):
        assert part in text


def test_engines_that_differ_are_told_apart() -> None:
    assert "trivy reports critical, fixed in 2.0; clair reports low" in read(two_engines())[0]


def test_no_image_is_not_clean() -> None:
    assert "unknown, not clean" in read(SUBJECTS["no image"])[0]
