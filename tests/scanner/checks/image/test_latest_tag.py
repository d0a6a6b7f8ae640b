"""The tag by which the image was asked for."""

from __future__ import annotations

from scanner.checks.image.latest_tag import LatestTag
from scanner.model.finding import Failed, NotApplicable, Passed
from tests.scanner.checks.factory import subject


def test_latest_said_or_implied() -> None:
    assert isinstance(LatestTag().examine(subject(reference="registry.example.com/a:latest")), Failed)
    assert isinstance(LatestTag().examine(subject(reference="registry.example.com/a")), Failed)


def test_a_version_or_a_digest_passes() -> None:
    assert isinstance(LatestTag().examine(subject(reference="registry.example.com/a:1.0")), Passed)
    assert isinstance(LatestTag().examine(subject(reference="registry.example.com/a@sha256:" + "a" * 64)), Passed)


def test_an_archive_has_no_tag() -> None:
    assert isinstance(LatestTag().examine(subject(reference=None)), NotApplicable)
