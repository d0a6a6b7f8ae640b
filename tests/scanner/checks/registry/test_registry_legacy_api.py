"""The V1 protocol."""

from __future__ import annotations

from scanner.checks.registry.registry_legacy_api import LegacyApi
from scanner.model.finding import Passed
from scanner.model.posture import SoftwareFact
from tests.scanner.checks.registries import UNKNOWN, examine, messages


def test_silent_answering_and_unknown() -> None:
    assert isinstance(examine(LegacyApi()), Passed)
    assert messages(examine(LegacyApi(), software=SoftwareFact(legacy_api=True))) == ["GET /v1/_ping answers 200"]
    assert examine(LegacyApi(), software=SoftwareFact(legacy_api=UNKNOWN)) == UNKNOWN
