"""Each policy to start from says in one text what it is for, and denies what it says."""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.model.decision import Verdict
from scanner.policy.rules import parse_policy
from scanner.policy.starting_points import NAMES, starting_points

DENYING = {
    "baseline": {"known-exploited", "fixable-criticals", "no-secrets"},
    "production": {
        "known-exploited",
        "fixable-criticals",
        "fixable-highs",
        "not-root",
        "no-secrets",
        "dangerous-workload",
    },
    "pci-cis": {"pci-6.3.3-patches", "known-exploited", "cis-4-user", "cis-4-secrets", "cis-5-danger"},
    "signed-only": {"signed"},
}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_says_what_it_is_for(name: str) -> None:
    found = {each.name: each for each in starting_points(catalog.known_names())}[name]
    parsed = parse_policy(found.text, name, known=catalog.known_names())
    assert parsed.name == name
    assert 40 < len(found.description) < 200
    assert {rule.id for rule in parsed.rules if rule.action is Verdict.DENY} == DENYING[name]
    assert parsed.incomplete is Verdict.DENY, "unknown is never clean"
