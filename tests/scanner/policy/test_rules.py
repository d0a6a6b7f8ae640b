"""A policy is refused with line and column; nothing unknown is overlooked."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.glob import matches
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.match import select
from scanner.policy.rules import PolicyError, default_policy, parse_policy
from tests.reports_factory import simple, vulnerability

KNOWN = catalog.known_names()
HEAD = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: test}\n"
GOOD = HEAD + "rules:\n  - id: a\n    check: root-user\n    action: deny\n"


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, known=KNOWN)
    return [(p.line, p.column, p.message) for p in caught.value.problems]


def test_a_good_policy() -> None:
    policy = parse_policy(GOOD, known=KNOWN)
    assert (policy.name, policy.checks, policy.images) == ("test", {"a": ("root-user",)}, ("**",))


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (
            GOOD.replace("check: root-user", "check: rot-user"),
            6,
            5,
            "there is no check 'rot-user'; did you mean 'root-user'?",
        ),
        (GOOD.replace("check:", "chek:"), 6, 5, "unknown field; did you mean 'check'?"),
        (GOOD.replace("rules:", "tags: {imutable: [v1]}\nrules:"), 4, 8, "unknown field; did you mean 'immutable'?"),
        (GOOD.replace("rules:", "ruls:"), 4, 1, "unknown field; did you mean 'rules'?"),
        (GOOD.replace("action: deny", "action: forbid"), 7, 5, "must be 'deny' or 'warn'"),
        (HEAD + "rules: []\n", 4, 1, "needs at least one entry"),
        (GOOD + "  - id: a\n    check: healthcheck\n    action: warn\n", 8, 5, "'a' is used twice"),
        (GOOD.replace("    check: root-user\n", "    when: 'image.size >'\n"), 6, 5, ""),
        (GOOD.replace("    check: root-user\n", "    when: 'image.size + 1'\n"), 6, 5, "not true or false"),
        (GOOD.replace("    check: root-user\n", "    vulnerability: {}\n"), 6, 5, "needs at least one of severity"),
        (GOOD.replace("    check: root-user\n", ""), 5, 5, "needs exactly one of"),
        (
            GOOD.replace("    check: root-user\n", "    vulnerability: {fixable: true}\n    grace: 3 days\n"),
            7,
            5,
            "not a duration",
        ),
        (GOOD.replace("action: deny", "action: deny\n    grace: 3d"), 5, 5, "grace needs a vulnerability selector"),
        (GOOD.replace("name: test", "name: 2026-11-27"), 3, 12, "string"),
        ("rules: {a: b}\n", 1, 1, "must be a list"),
        (GOOD.replace("    check: root-user\n", "    signature: {scheme: [pgp]}\n"), 6, 17, "there is no scheme 'pgp'"),
        (GOOD.replace("    check: root-user\n", "    benchmark: cis-docker-1.6/9.9\n"), 6, 5, "there is no benchmark"),
        ("a: [1\n", 2, 1, ""),
        (GOOD.replace("metadata: {name: test}", "metadata: &m {name: test}"), 3, 11, "anchors"),
        (GOOD + "kind: Policy\n", 8, 1, "duplicate"),
        (GOOD + "---\n" + GOOD, 8, 1, "a second document"),
        (GOOD.replace("rules:", "evidence: {max_age: 999999d}\nrules:"), 4, 12, "too long"),
        (GOOD.replace("rules:", "advisories: {max_age: 99999w}\nrules:"), 4, 14, "too long"),
        (GOOD.replace("rules:", "advisories: {max_age: ４h}\nrules:"), 4, 14, "not a duration"),
        (GOOD.replace("check: root-user", "vulnerability: {cvss: true}"), 6, 21, "not true or false"),
        (GOOD.replace("check: root-user", "vulnerability: {epss: false}"), 6, 21, "not true or false"),
        (GOOD.replace("check: root-user", "signature: {scheme: [cosign], require: true}"), 6, 35, ""),
    ],
)
def test_what_is_refused_and_where(text: str, line: int, column: int, message: str) -> None:
    found = problems(text)
    assert any((at, col) == (line, column) and message in said for at, col, said in found), found


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}]\n" for p, c in itertools.pairwise("abcdefghijklmnopqrstuvw")
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x: don't\n", "y: don't\n"),
        ('x: 5" wide\n', 'y: 5" wide\n'),
        ("x: |\n  it's\n", "y: |\n  it's\n"),
        ("# it's\n", "# it's\n"),
    ],
)
@pytest.mark.parametrize("text", [LAUGHS, "a: &a [*a, *a]\n", "a: !!binary aGk=\n", "a: ! x\n"])
def test_aliases_are_found_whatever_stands_around_them(before: str, after: str, text: str) -> None:
    """An apostrophe in a word is no string: a search of the text for strings would skip what follows."""
    ((line, column, message),) = problems(before + text + after + GOOD)
    assert (line, column) == (before.count("\n") + 1, 4)
    assert "aliases and tags are not allowed" in message


def test_the_longest_ages_can_be_used() -> None:
    for age in ("52000w", "99999d", "999999h"):
        text = GOOD.replace("rules:", f"evidence: {{max_age: {age}}}\nadvisories: {{max_age: {age}}}\nrules:")
        made = evaluate(simple(vulnerability("CVE-1")), parse_policy(text, known=KNOWN), Context(datetime.now(UTC)))
        assert made.verdict is not None


def test_one_mistake_is_told_once() -> None:
    assert len(problems(GOOD.replace("check:", "chek:"))) == 1


def test_several_problems_are_told_at_once() -> None:
    assert len(problems(GOOD.replace("check:", "chek:").replace("kind: Policy", "kind: Polizei"))) >= 2


@pytest.mark.parametrize("text", ["", "[]", "just text", "\x00", "{" * 5000, "a: " + "[" * 3000, "x" * 300_000])
def test_what_is_no_policy_at_all(text: str) -> None:
    problems(text)


def test_a_policy_nested_deeper_than_any_policy_needs_is_refused() -> None:
    with pytest.raises(UsageError, match="nested too deep") as refused:
        parse_policy(GOOD + "match: " + "[" * 30 + "]" * 30 + "\n", known=KNOWN)
    assert refused.value.reason == "invalid_policy"


def test_checks_by_tag_and_benchmark() -> None:
    text = GOOD.replace(
        "    check: root-user\n", "    benchmark: [cis-docker-1.6/4.1, dockle/CIS-DI-0006]\n    tag: naming\n"
    )
    assert parse_policy(text, known=KNOWN).checks["a"] == ("healthcheck", "latest-tag", "root-user", "runs-as-root")


def test_json_is_yaml() -> None:
    text = (
        '{"apiVersion": "dockwarden/v1", "kind": "Policy", "metadata": {"name": "j"}, "rules": [{"id": '
        '"a", "check": "root-user", "action": "deny"}]}'
    )
    assert parse_policy(text, known=KNOWN).name == "j"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("**", "", True),
        ("registry.example.com/shop/**", "registry.example.com/shop/a/b", True),
        ("registry.example.com/shop/*", "registry.example.com/shop/a/b", False),
        ("registry.example.com/*/app", "registry.example.com/shop/app", True),
        ("**/app", "app", True),
        ("registry.example.com/shop", "registryXexample.com/shop", False),
    ],
)
def test_globs(pattern: str, name: str, fits: bool) -> None:
    assert matches([pattern], name) is fits


def test_the_default_decides_where_no_other_matches() -> None:
    default = default_policy(KNOWN)
    own = parse_policy(
        GOOD.replace("rules:", "match: {images: ['a/**'], environments: [production]}\nrules:"), known=KNOWN
    )
    assert select([own], "a/b", "production", default) == [own]
    assert select([own], "a/b", "", default) == [default]
    assert select([own], "c/d", "production", default) == [default]


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[3] / "examples" / "policies").glob("*.yaml")), ids=lambda file: file.name
)
def test_the_examples_are_good(file: Path) -> None:
    policy = parse_policy(file.read_text(), file.name, known=KNOWN)
    assert policy.rules
    assert all(rule.id in file.read_text() for rule in policy.rules)


def with_parameters(text: str, selector: str = "check: setuid-files") -> str:
    return HEAD + f"rules:\n  - id: a\n    {selector}\n    parameters: {text}\n    action: deny\n"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (with_parameters("{alow: [x]}"), 18, "no parameter 'alow'; did you mean 'allow'?"),
        (with_parameters("{budget: 1}"), 18, "no parameter 'budget' (they have allow, distribution)"),
        (with_parameters("{allow: 3}"), 18, "must be a string or a list of strings"),
        (with_parameters("{allow: [1]}"), 18, "must be a string or a list of strings"),
        (with_parameters("{max_megabytes: big}", "check: image-size"), 18, "must be a non-negative number"),
        (with_parameters("{max_megabytes: -1}", "check: image-size"), 18, "must be a non-negative number"),
        (with_parameters("{max_megabytes: true}", "check: image-size"), 18, "must be a non-negative number"),
        (with_parameters("{distribution: maybe}"), 18, "must be true or false"),
        (with_parameters("{minimum: [1]}", "check: registry-tls-version"), 18, "must be a string"),
        (with_parameters("{allow: [x]}", "check: root-user"), 18, "no parameter 'allow'"),
    ],
)
def test_a_parameter_that_would_do_nothing_is_refused(text: str, column: int, message: str) -> None:
    found = problems(text)
    assert found[0][:2] == (7, column)
    assert message in found[0][2]


def test_parameters_go_with_checks_only() -> None:
    found = problems(with_parameters("{allow: [x]}", "when: 'image.size > 1'"))
    assert "parameters need check" in found[0][2]


@pytest.mark.parametrize("text", ["{allow: /usr/bin/su}", "{allow: [/usr/bin/su]}", "{allow: []}"])
def test_parameters_are_bound_to_the_checks_that_have_them(text: str) -> None:
    policy = parse_policy(with_parameters(text, "check: [setuid-files, root-user]"), known=KNOWN)
    assert list(policy.judges["a"]) == ["setuid-files"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        (
            "match: {images: ['" + "*a" * 33 + "']}\nrules: [{id: x, action: deny, vulnerability: {severity: high}}]",
            "match.images",
        ),
        ("rules: [{id: x, action: deny, vulnerability: {packages: ['" + "*a" * 33 + "']}}]", "packages"),
        (
            "rules: [{id: x, action: deny, check: setuid-files, parameters: {allow: ['" + "*a" * 33 + "']}}]",
            "parameters.allow",
        ),
        ("rules: [{id: x, action: deny, vulnerability: {packages: ['" + "a" * 501 + "']}}]", "packages"),
    ],
)
def test_a_pattern_without_bounds_is_refused_where_it_stands(fields: str, where: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(
            f"apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {{name: x}}\n{fields}\n", known=catalog.known_names()
        )
    assert where in str(refused.value)
    assert "at most" in str(refused.value)
