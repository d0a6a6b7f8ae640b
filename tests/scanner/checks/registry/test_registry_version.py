"""Versions that are told, and their holes."""

from __future__ import annotations

from scanner.checks.registry.registry_version import RegistryVersion
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from scanner.model.posture import SoftwareFact
from tests.scanner.checks.registries import examine, messages


def test_a_hole_and_its_fix() -> None:
    outcome = examine(RegistryVersion(), software=SoftwareFact("Nexus", "3.68.0"))
    assert isinstance(outcome, Failed)
    assert (outcome.severity, len(messages(outcome))) == (Severity.HIGH, 1)
    assert "CVE-2024-4956" in messages(outcome)[0]
    assert isinstance(examine(RegistryVersion(), software=SoftwareFact("Nexus", "3.68.1")), Passed)
    assert len(messages(examine(RegistryVersion(), software=SoftwareFact("Nexus", "3.9")))) == 2


def test_what_is_not_told_or_not_listed_is_not_known() -> None:
    assert isinstance(examine(RegistryVersion(), software=SoftwareFact()), Incomplete)
    assert isinstance(examine(RegistryVersion(), software=SoftwareFact("Artifactory", "7.1")), Incomplete)
