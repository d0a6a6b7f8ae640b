"""Cases of policies: what a case says of a check is what the rule hears, whatever the rule's parameters are."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.policy import fixtures
from scanner.policy.rules import parse_policy

POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: p}
rules:
  - {id: size, check: image-size, parameters: {max_megabytes: 100}, action: deny}
  - {id: setuid, check: setuid-files, parameters: {allow: ["*"]}, action: deny}
"""


@pytest.mark.parametrize("check", ["image-size", "setuid-files"])
@pytest.mark.parametrize(("said", "verdict"), [("failed", "deny"), ("passed", "allow"), ("incomplete", "deny")])
def test_a_case_is_taken_at_its_word(check: str, said: str, verdict: str) -> None:
    text = f"[{{name: c, checks: {{{check}: {said}}}, expect: {{verdict: {verdict}}}}}]"
    policy = parse_policy(POLICY, known=catalog.known())
    (result,) = fixtures.run(policy, fixtures.parse(text, Path("cases.yaml")))
    assert result.passed, result.message
