from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from scanner.checks.image.outdated_base import OutdatedBase
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from tests.scanner.checks.factory import subject

BUILT = datetime(2026, 6, 1, tzinfo=UTC)
THEN, NOW = Digest.of(b"then"), Digest.of(b"now")
CURRENT = BaseImage("layers", "registry.example.com/debian:12", THEN, 1, 1, BUILT - timedelta(days=10), newest=THEN)


def examine(base: BaseImage | None, **parameters: object) -> Outcome:
    return OutdatedBase().examine(replace(subject(created=BUILT), base=base, parameters=parameters))


def test_current() -> None:
    assert isinstance(examine(CURRENT), Passed)
    assert isinstance(examine(CURRENT, max_days=5), Failed)


def test_replaced() -> None:
    outcome = examine(replace(CURRENT, newest=NOW))
    assert isinstance(outcome, Failed)
    assert (
        outcome.evidence[0].message
        == f"registry.example.com/debian:12 is now {NOW.short}; the image was built on {THEN.short}"
    )
    assert isinstance(examine(replace(CURRENT, newest=NOW), max_days=5000), Failed)


def test_old_already() -> None:
    outcome = examine(replace(CURRENT, created=BUILT - timedelta(days=200)))
    assert isinstance(outcome, Failed)
    assert "200 days old" in outcome.evidence[0].message
    assert isinstance(examine(replace(CURRENT, created=datetime(1970, 1, 1, tzinfo=UTC))), Passed)


def test_not_known() -> None:
    for base in (
        None,
        replace(CURRENT, newest=None),
        BaseImage("labels", "debian:12", THEN),
        replace(CURRENT, note="odd"),
    ):
        assert isinstance(examine(base), Incomplete)
