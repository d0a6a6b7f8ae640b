"""Each row of the catalogue finds what it is for, leaves alone what only looks like it, and shows none of it.

The examples are made here, from the rows, so that no file contains anything that looks like a token.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.secrets import KINDS, TRIVY, example_of, find, plant
from scanner.checks._secret_catalogue import IDENTIFIERS, SHAPES
from scanner.checks._secret_search import Select, by_expressions, by_re2
from scanner.checks._secret_shapes import Shape, entropy
from scanner.checks._secrets import SecretScanner, title, without_secrets
from scanner.checks.image.embedded_secrets import EmbeddedSecrets
from scanner.model.finding import Failed, Severity
from tests.scanner.checks.factory import entry, layer, subject

NAMES = [f"{number}-{shape.rule}" for number, shape in enumerate(SHAPES)]


def made(shape: Shape, seed: int = 7) -> bytes:
    return example_of(shape, random.Random(f"{shape.rule} {seed}"))


def near_miss(shape: Shape, found: bytes) -> bytes:
    """The same text with nothing but the literal that makes the kind known."""
    match = next(shape.matches(found))
    start, end = shape.span(match)
    anchor = next((anchor for anchor in shape.anchors if anchor in found[start:end]), b"")
    at = found.find(anchor, start) if anchor else end
    return found[:start] + b"!" * (at - start) + anchor + b"!" * (end - at - len(anchor)) + found[end:]


@pytest.fixture(scope="module")
def selections() -> list[Select]:
    """Both ways to select files; one where Hyperscan is not installed."""
    return [select for select in (by_re2, by_expressions()) if select is not None]


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_a_row(shape: Shape, selections: list[Select]) -> None:
    found = made(shape)
    missed = near_miss(shape, found)
    rules = []
    for select in selections:
        scanner = SecretScanner(select)
        matches = scanner.search("srv/data", found)
        rules.append([match.rule for match in matches])
        start, end = shape.span(next(shape.matches(found)))
        assert found[start:end].decode("latin-1") not in str(matches)
        assert shape.rule not in [match.rule for match in scanner.search("srv/data", missed)]
    assert rules[0] == rules[-1]
    assert shape.rule in rules[0]


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_a_value_is_taken_out_of_a_text(shape: Shape) -> None:
    text = made(shape, seed=8).decode("latin-1")
    start, end = shape.span(next(shape.matches(text.encode("latin-1"))))
    assert text[start:end] not in without_secrets(text)


def test_one_rule_has_one_title() -> None:
    titles: dict[str, set[str]] = {}
    for shape in SHAPES:
        titles.setdefault(shape.rule, set()).add(shape.title)
        assert title(shape.rule)
    several = {rule: found for rule, found in titles.items() if len(found) > 1}
    assert not several


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.identifier], ids=lambda shape: shape.rule)
def test_an_identifier_is_less_severe(shape: Shape) -> None:
    found = [m for m in SecretScanner(by_re2).search("srv/x", made(shape)) if m.rule == shape.rule]
    outcome = EmbeddedSecrets().examine(subject(layer(entry("srv/x"), matches=found)))
    assert isinstance(outcome, Failed)
    assert outcome.severity is Severity.LOW
    assert shape.title in IDENTIFIERS


@pytest.mark.parametrize(
    "text",
    [
        b'linear_commit = "0123456789abcdef0123456789abcdef"',
        b"heroku_key = 00000000-0000-0000-0000-000000000000",
        b"twitter.py,sha256=0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        b'"discord_client_secret": "${DISCORD_CLIENT_SECRET_FROM_VAULT}"',
        b"mailgun_key = your-mailgun-key-goes-here-please",
        b"zendesk_key = EXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE12345",
        b"_ZN3MaghpX_ghs_lotsofmoreletters1234567890abcdefghi",
    ],
)
def test_what_only_looks_like_a_secret(text: bytes, selections: list[Select]) -> None:
    for select in selections:
        assert SecretScanner(select).search("srv/x", text + b"\n") == []


@pytest.mark.parametrize("before", [b"\\n", b"token%3D", b"\\u003d", b'"', b"=", b"\x00"])
def test_what_may_stand_before_a_token(before: bytes) -> None:
    text = before + b"ghp_" + b"a1B2" * 9
    assert [m.rule for m in SecretScanner().search("srv/x", text)] == ["github-token"]


def test_entropy() -> None:
    assert entropy(b"aaaa") == 0
    assert entropy(b"abcd") == 2


def test_trivy_finds_no_kind_that_we_miss(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One run of the bundled Trivy over the planted files of the benchmark."""
    planted = plant(seed=3)
    ours, theirs = find(planted, tmp_path_factory.mktemp("planted"))
    missed = sorted(path for path in theirs if path not in ours)
    assert not missed
    kinds = Counter(planted[path].kind for path in ours)
    assert [kind for kind in KINDS if not kinds[kind]] == []
    assert len({planted[path].kind for path in theirs} & set(TRIVY)) > len(TRIVY) * 0.9
