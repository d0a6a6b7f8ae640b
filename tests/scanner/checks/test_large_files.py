"""Files above 1 MiB are searched in windows: a secret is found wherever it lies, once, with its line."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest

from scanner.checks import _secrets
from scanner.checks._secret_search import by_re2
from scanner.checks._secrets import MAX_FILE, SecretScanner
from scanner.checks.image.embedded_secrets import EmbeddedSecrets
from scanner.model.filesystem import NOT_SEARCHED, LayerFacts
from scanner.model.finding import Failed, Incomplete
from scanner.registry import layers
from scanner.registry.layers import ContentWants
from tests.scanner.checks.factory import entry, layer, subject
from tests.scanner.registry.archives import archive, file
from tests.scanner.registry.test_layers import read

GITHUB = b"ghp_" + b"a1B2" * 9
_LINES = [base64.b64encode(bytes(range(n, n + 48))) for n in range(24)]
PEM = b"-----BEGIN " + b"RSA PRIVATE KEY-----\n" + b"\n".join(_LINES) + b"\n-----END RSA PRIVATE KEY-----\n"
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "escaped": lambda data: data.replace(b"\n", b"\\n"),
    "base64": base64.b64encode,
    "wrapped base64": base64.encodebytes,
    "UTF-16": lambda data: data.decode().encode("utf-16-le"),
    "hexadecimal": lambda data: data.hex().encode(),
}
STEP = _secrets._WINDOW - _secrets._OVERLAP


def found(data: bytes, *, path: str = "srv/data", piece: int = 1 << 17) -> list[tuple[str, int]]:
    large = SecretScanner().large(path, len(data))
    assert large is not None
    for start in range(0, len(data), piece):
        large.feed(memoryview(data)[start : start + piece])
    return [(match.rule, match.line) for match in large.matches()]


def filled(secret: bytes, at: int, size: int = 3 << 20, line: bytes = b"an ordinary line of a log\n") -> bytes:
    filling = line * (size // len(line) + 1)
    return filling[:at] + b"\n" + secret + b"\n" + filling[at:size]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("border", [STEP, STEP + _secrets._LEAD, _secrets._WINDOW, 2 * STEP, STEP + _secrets._WINDOW])
def test_a_key_across_a_border_is_found_once(form: str, border: int) -> None:
    secret = FORMS[form](PEM)
    for before in (1, 20, 100, len(secret) // 2, len(secret)):
        data = filled(secret, border - before)
        line = data.count(b"\n", 0, data.index(secret)) + 1
        assert found(data) == [("private-key", line)], before


@pytest.mark.parametrize("before", [0, 1, 10, 39, 40, 41, 64, 65])
def test_a_token_across_a_border(before: int) -> None:
    for border in (STEP, STEP + _secrets._LEAD, _secrets._WINDOW):
        data = filled(GITHUB, border - before)
        assert found(data) == [("github-token", data.count(b"\n", 0, data.index(GITHUB)) + 1)]


def test_what_begins_within_a_word_does_so_at_a_border_too() -> None:
    for at in range(STEP - 4, STEP + 3):
        data = b"\n" + b"." * at + b"x" + GITHUB + b"." * (3 << 20)
        assert found(data) == []


@pytest.mark.parametrize("piece", [1000, 1 << 20, 5 << 20])
def test_the_pieces_make_no_difference(piece: int) -> None:
    generator = random.Random(1)
    data = bytearray(generator.randbytes(3 << 20))
    for at in (5000, 1 << 20, (2 << 20) + 77, len(data) - 100):
        data[at : at + len(GITHUB) + 2] = b"\n" + GITHUB + b"\n"
    assert len(found(bytes(data), piece=piece)) == 4


def test_a_line_of_base64_longer_than_a_window() -> None:
    text = base64.b64encode(b"nothing to see here. " * 60_000 + PEM + b"and nothing here. " * 60_000)
    assert [rule for rule, _ in found(text)] == ["private-key"]


def test_both_engines_agree_on_a_large_file() -> None:
    data = filled(PEM, 2 << 20)
    large = SecretScanner(by_re2).large("srv/data", len(data))
    assert large is not None
    large.feed(memoryview(data))
    assert [match.rule for match in large.matches()] == [rule for rule, _ in found(data)] == ["private-key"]


def test_settings_of_a_large_configuration_file() -> None:
    data = filled(b"DB_PASSWORD=hunter2-really", 2 << 20, line=b"NAME=value\n")
    assert found(data, path="srv/.env") == [("credential", data.count(b"\n", 0, data.index(b"DB_PASS")) + 1)]


def test_a_program_has_no_lines() -> None:
    data = b"\x7fELF" + filled(GITHUB, 2 << 20)
    assert found(data) == [("github-token", 1)]


def test_many_matches_end_the_search() -> None:
    assert len(found((GITHUB + b"\n") * 60_000)) == 20


def test_small_ignored_and_searched_files_are_not_large_ones() -> None:
    scanner = SecretScanner()
    assert scanner.large("srv/data", MAX_FILE) is None
    assert scanner.large("usr/share/doc/data", MAX_FILE + 1) is None
    assert not scanner.wants("srv/data", MAX_FILE + 1)


def _read(*parts: bytes) -> LayerFacts:
    return read(archive(*parts), wants=ContentWants((), SecretScanner()))


def test_a_large_file_of_a_layer() -> None:
    facts = _read(file("srv/a", filled(GITHUB, 2_500_000)), file("srv/b", b"x " + GITHUB))
    assert [match.path for match in facts.matches] == ["srv/a", "srv/b"]
    outcome = EmbeddedSecrets().examine(subject(layer(entry("srv/a"), matches=facts.matches)))
    assert isinstance(outcome, Failed)


def test_a_large_file_that_is_kept_is_searched_as_well() -> None:
    facts = _read(file("etc/passwd", filled(GITHUB, 2_500_000)))
    assert "etc/passwd" in facts.contents
    assert [match.rule for match in facts.matches] == ["github-token"]


def test_what_is_not_searched_is_not_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MAX_SEARCHED", 5 << 20)
    facts = _read(file("srv/a", bytes(3 << 20)), file("srv/b", bytes(3 << 20)), file("srv/c", GITHUB))
    assert [(oddity.reason, oddity.path) for oddity in facts.oddities] == [(NOT_SEARCHED, "srv/b")]
    clean = layer(entry("srv/b"), oddities=facts.oddities)
    outcome = EmbeddedSecrets().examine(subject(clean))
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == NOT_SEARCHED
    assert "/srv/b" in outcome.detail
    failed = EmbeddedSecrets().examine(subject(layer(entry("srv/b"), matches=facts.matches, oddities=facts.oddities)))
    assert isinstance(failed, Failed)
