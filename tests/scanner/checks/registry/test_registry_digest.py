"""Other bytes than those asked for."""

from __future__ import annotations

from scanner.checks.registry.registry_digest import DigestEnforced
from scanner.model.finding import Passed
from scanner.model.posture import DigestFact
from tests.scanner.checks.registries import UNKNOWN, examine, messages


def test_enforced_not_enforced_and_not_known() -> None:
    assert isinstance(examine(DigestEnforced()), Passed)
    assert messages(examine(DigestEnforced(), digest=DigestFact("it serves 3 bytes"))) == ["it serves 3 bytes"]
    assert examine(DigestEnforced(), digest=UNKNOWN) == UNKNOWN
