"""Cases of policies: what a case says of a check is what the rule hears, whatever the rule's parameters are."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.policy import fixtures
from scanner.policy.rules import parse_policy
from scanner.services.workloads import CaseWorkloads

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
    policy = parse_policy(POLICY, known=catalog.known_names())
    (result,) = fixtures.run(policy, fixtures.parse(text, Path("cases.yaml"), ENGINES), CaseWorkloads(Path()))
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("engine", "verdict"), [("", "deny"), ("engine: clair,", "allow"), ("engine: [trivy, clair],", "deny")]
)
def test_a_case_names_the_engines_that_scanned(engine: str, verdict: str) -> None:
    """A rule of one engine is unknown where that engine did not scan."""
    rule = "{id: c, vulnerability: {severity: critical, engines: clair}, action: deny}"
    policy = parse_policy(POLICY.partition("rules:")[0] + f"rules: [{rule}]\n", known=catalog.known_names())
    found = "vulnerabilities: [{id: CVE-1}]," if "[" in engine else ""
    text = f"[{{name: c, {engine} {found} expect: {{verdict: {verdict}}}}}]"
    (result,) = fixtures.run(policy, fixtures.parse(text, Path("cases.yaml"), ENGINES), CaseWorkloads(Path()))
    assert result.passed, result.message


@pytest.mark.parametrize("engine", ["third", "[trivy, none]"])
def test_an_engine_that_is_none_is_refused_with_its_case(engine: str) -> None:
    text = f"[{{name: c, engine: {engine}, expect: {{verdict: allow}}}}]"
    with pytest.raises(UsageError, match=r"case 0\.engine: there is no engine"):
        fixtures.parse(text, Path("cases.yaml"), ENGINES)


POD = """apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  containers:
    - {name: app, image: "registry.example.com/shop/web:1", securityContext: {privileged: %s}}
"""
OF_WORKLOADS = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: p}
rules:
  - {id: privileged, check: privileged-container, action: deny}
  - {id: not-root, check: root-user, action: deny}
  - {id: shop-only, when: 'workload.namespace != "shop"', action: warn}
"""


def run(tmp_path: Path, cases: str) -> list[fixtures.Result]:
    file = tmp_path / "cases.yaml"
    policy = parse_policy(OF_WORKLOADS, known=catalog.known_names())
    return fixtures.run(policy, fixtures.parse(cases, file, ENGINES), CaseWorkloads(tmp_path))


def test_a_case_with_a_workload_is_examined_and_decided_as_audit_does(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(POD % "false")
    cases = f"""
- name: as YAML
  workload: {{apiVersion: v1, kind: Pod, metadata: {{name: w}},
    spec: {{containers: [{{name: a, image: a/b:1, securityContext: {{privileged: true}}}}]}}}}
  expect: {{verdict: deny, undecided: false, rules: [privileged, shop-only]}}
- name: as text
  workload: |
    {(POD % "true").replace(chr(10), chr(10) + "    ")}
  expect: {{verdict: deny, rules: [privileged]}}
- name: in a file
  workload_file: good.yaml
  expect: {{verdict: allow}}
- name: what the case says counts
  workload_file: good.yaml
  checks: {{privileged-container: failed}}
  expect: {{verdict: deny, rules: [privileged]}}
- name: with its image
  image: registry.example.com/shop/web:1
  workload_file: good.yaml
  checks: {{root-user: failed}}
  expect: {{verdict: deny, rules: [not-root]}}
"""
    assert [(each.name, each.message) for each in run(tmp_path, cases) if not each.passed] == []


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("workload_file: none.yaml", "none.yaml: No such file"),
        ("workload: 'a: {{ b }}'", "an unrendered template"),
        ("workload: {services: {}}, workload_file: x.yaml", "not both"),
        ("image: registry.example.com/other:1, workload_file: good.yaml", "no container in the workload runs"),
    ],
)
def test_a_workload_that_cannot_be_read_names_its_case(tmp_path: Path, case: str, told: str) -> None:
    (tmp_path / "good.yaml").write_text(POD % "false")
    with pytest.raises(UsageError, match=told) as caught:
        run(tmp_path, f"[{{name: the case, {case}, expect: {{verdict: allow}}}}]")
    assert "the case" in str(caught.value)
