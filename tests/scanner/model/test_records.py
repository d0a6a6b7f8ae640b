"""Evidence is the same JSON whether Pydantic wrote it or not, and what was read back is what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from scanner import catalog
from scanner.model.finding import (
    CVSS,
    CheckResult,
    Coverage,
    Evidence,
    Failed,
    Incomplete,
    NotApplicable,
    Passed,
    Severity,
)
from scanner.model.records import reader, to_json
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport, report_adapter, report_json
from scanner.policy.rules import Policy, default_policy
from tests.scanner.reports import subjects


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types at every depth: a str equals a Digest or a Severity."""
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(_same(getattr(one, item.name), getattr(other, item.name)) for item in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


_REPORTS = subjects.every()


@pytest.mark.parametrize("name", _REPORTS)
def test_the_bytes_are_those_of_pydantic(name: str) -> None:
    report = _REPORTS[name]
    assert report_json(report) == report_adapter().dump_json(report)
    assert _same(reader(ScanReport)(to_json(report)), report)


def test_times_numbers_and_text_have_one_form() -> None:
    base = next(report for report in _REPORTS.values() if report.images and report.images[0].engines)
    (image, *_) = base.images
    engine = replace(
        image.engines[0],
        coverage=Coverage("debian", "12", None, 3, ("a\x7f\u2028\U0001f600",), date(2028, 6, 30)),
        vulnerabilities=tuple(
            replace(v, cvss=(CVSS("3.1", "v", score),), epss=1e-7, published=at)
            for v in image.engines[0].vulnerabilities
            for score in (0.0, 9.8)
            for at in (
                datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
                datetime(987, 1, 1),
                datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            )
        ),
    )
    outcomes = (
        Passed((Evidence("counted", amount=3),)),
        Failed((Evidence("half", amount=0.5),)),
        NotApplicable("no"),
        Incomplete("gap", "why"),
    )
    checks = tuple(CheckResult(f"check-{number}", outcome) for number, outcome in enumerate(outcomes))
    report = replace(base, images=(replace(image, engines=(engine,), checks=checks),))
    assert to_json(report) == report_adapter().dump_json(report)
    assert _same(reader(ScanReport)(to_json(report)), report)


def test_a_number_beyond_64_bits_is_written_by_pydantic() -> None:
    base = next(iter(_REPORTS.values()))
    report = replace(base, subject=replace(base.subject, size=1 << 70))
    with pytest.raises(TypeError):
        to_json(report)
    assert report_json(report) == report_adapter().dump_json(report)


def test_a_policy_is_read_back() -> None:
    # A copy: the built-in policy is shared, and remembers what its evaluation needs once a test has evaluated it.
    policy = replace(default_policy(catalog.known_names()))
    assert _same(reader(Policy)(to_json(policy)), policy)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"images": 3}', b"\xff"])
def test_what_is_not_a_report_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        reader(ScanReport)(data)


@dataclass(frozen=True)
class Stated:
    """Annotations of every form that evidence uses, and some that need an evaluation."""

    name: str
    count: int | None
    digest: Digest
    other: Digest | None
    tags: tuple[str, ...]
    digests: tuple[Digest, ...] | None
    pairs: tuple[tuple[str, Digest], ...]
    severity: Severity
    seen: datetime | None
    by_name: Mapping[str, Digest]
    exact: tuple[str, int]


@pytest.mark.parametrize("absent", [False, True])
def test_each_form_of_annotation_is_read_as_its_type(absent: bool) -> None:
    digest = Digest.of(b"x")
    value = Stated(
        "a",
        None if absent else 1,
        digest,
        None if absent else digest,
        () if absent else ("x", "y"),
        None if absent else (digest,),
        (("a", digest),),
        Severity.HIGH,
        None if absent else datetime(2026, 1, 2, tzinfo=UTC),
        {"a": digest},
        ("a", 1),
    )
    found = reader(Stated)(to_json(value))
    assert found == value
    assert type(found.digest) is type(found.pairs[0][1]) is type(found.by_name["a"]) is Digest
    assert absent or type(found.digests[0]) is Digest  # type: ignore[index]
    assert found.severity is Severity.HIGH
