"""Cases of policies: what a case says of a check is what the rule hears, whatever the rule's parameters are."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.policy import fixtures
from scanner.policy.rules import parse_policy

ENGINES = ("clair", "trivy")
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
    (result,) = fixtures.run(policy, fixtures.parse(text, Path("cases.yaml"), ENGINES))
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("engine", "verdict"), [("", "deny"), ("engine: clair,", "allow"), ("engine: [trivy, clair],", "deny")]
)
def test_a_case_names_the_engines_that_scanned(engine: str, verdict: str) -> None:
    """A rule of one engine is unknown where that engine did not scan."""
    rule = "{id: c, vulnerability: {severity: critical, engines: clair}, action: deny}"
    policy = parse_policy(POLICY.partition("rules:")[0] + f"rules: [{rule}]\n", known=catalog.known())
    found = "vulnerabilities: [{id: CVE-1}]," if "[" in engine else ""
    text = f"[{{name: c, {engine} {found} expect: {{verdict: {verdict}}}}}]"
    (result,) = fixtures.run(policy, fixtures.parse(text, Path("cases.yaml"), ENGINES))
    assert result.passed, result.message


@pytest.mark.parametrize("engine", ["third", "[trivy, none]"])
def test_an_engine_that_is_none_is_refused_with_its_case(engine: str) -> None:
    text = f"[{{name: c, engine: {engine}, expect: {{verdict: allow}}}}]"
    with pytest.raises(UsageError, match=r"case 0\.engine: there is no engine"):
        fixtures.parse(text, Path("cases.yaml"), ENGINES)
