from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.wasted_bytes import WastedBytes
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable

MB = 1_000_000


def test_deleted_by_a_later_layer() -> None:
    image = subject(layer(entry("tmp/big", size=30 * MB), entry("tmp/small", size=MB)), layer(whiteouts=["tmp"]))
    outcome = WastedBytes().examine(image)
    assert isinstance(outcome, Failed)
    assert (
        outcome.evidence[0].message == "layer 1 deletes 31.0 MB in 2 files of layer 0, the largest /tmp/big (30.0 MB)"
    )
    assert (outcome.evidence[0].layer_index, outcome.evidence[0].amount) == (1, 31 * MB)


def test_copied_to_change_the_owner() -> None:
    image = subject(
        layer(entry("app/a", size=20 * MB, mtime=5)), layer(entry("app/a", size=20 * MB, mtime=5, uid=1000))
    )
    outcome = WastedBytes().examine(image)
    assert isinstance(outcome, Failed)
    assert "change owner or mode" in outcome.evidence[0].message


def test_each_layer_for_itself() -> None:
    image = subject(
        layer(entry("a", size=20 * MB), entry("b", size=20 * MB)),
        layer(entry("a", size=1), whiteouts=["b"]),
        layer(entry("c", size=30 * MB)),
        layer(whiteouts=["c"]),
    )
    outcome = WastedBytes().examine(image)
    assert isinstance(outcome, Failed)
    assert [(e.layer_index, e.amount) for e in outcome.evidence] == [(1, 40 * MB), (3, 30 * MB)]
    assert "overwrites or deletes" in outcome.evidence[0].message


def test_a_little_is_nothing() -> None:
    image = subject(layer(entry("a", size=MB), entry("same", size=90 * MB)), layer(entry("a", size=MB)))
    assert isinstance(WastedBytes().examine(image), Passed)
    assert isinstance(WastedBytes().examine(replace(image, parameters={"max_megabytes": 0.5})), Failed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(WastedBytes().examine(unreadable()), Incomplete)
