"""The table says what an image was built on, and whose a finding is."""

from __future__ import annotations

from dataclasses import replace

from scanner.model.finding import CheckResult, Evidence, Failed
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from scanner.reports.base import ReportSubject
from scanner.reports.table import TableReport
from tests.scanner.store import factories as make


def render(base: BaseImage | None) -> str:
    package = make.package(1)
    found = make.report(packages=[package])
    flaws = (
        make.vulnerability(1, package, layer=found.images[0].image.layers[0].diff_id),
        make.vulnerability(2, package),
    )
    checks = (CheckResult("setuid-files", Failed((Evidence("/bin/su is setuid", layer_index=0, path="bin/su"),))),)
    engine = replace(found.images[0].engines[0], vulnerabilities=flaws)
    item = replace(found.images[0], engines=(engine,), checks=checks, base=base)
    return TableReport().render(ReportSubject(replace(found, images=(item,))))


def test_a_known_base() -> None:
    then = Digest.of(b"then")
    text = render(BaseImage("layers", "debian:12", then, 1, newest=Digest.of(b"now")))
    assert "base: debian:12 (1 of 1 layers, proven by its layers)" in text
    assert f"outdated: its tag now points to {Digest.of(b'now').short}" in text
    assert "vulnerabilities: 1 from the base, 0 added by the image, 1 unknown" in text
    assert "/bin/su is setuid [base, layer 0]" in text


def test_one_that_is_only_declared() -> None:
    text = render(BaseImage("annotations", "debian:12", note="its layers are others"))
    assert "base: debian:12 (its layers are unknown, declared in annotations)" in text
    assert "? its layers are others" in text
    assert "from the base" not in text


def test_none_that_is_known() -> None:
    assert "base: unknown" in render(None)
