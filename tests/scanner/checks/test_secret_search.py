"""Both ways to select files find the same secrets, and what is kept on disk is not believed blindly."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.checks import _secret_search
from scanner.checks._secret_catalogue import SHAPES
from scanner.checks._secret_search import by_expressions, by_re2
from scanner.checks._secrets import SecretScanner
from scanner.sealed import SealedFiles

hyperscan = pytest.importorskip("hyperscan", reason="hyperscan has no wheel for this processor")

KEY = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"MIIEpAIBAAKCAQEA" * 4 + b"\n-----END RSA PRIVATE KEY-----\n"
SECRETS = (
    KEY,
    KEY.replace(b"\n", b"\\n"),
    b"aws_secret_access_key = " + b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYzQrstuvwxy",
    b"AKIAQ2W3E4R5T6Y7U2I3",
    b"ghp_" + b"a1B2" * 9,
    b"hooks.slack.com/services/T0123ABCD/B0123ABCD/" + b"abCD" * 6,
    b'{"kty":"RSA","n":"x","d":"' + b"abcdEFGH" * 6 + b'"}',
    b"AccountKey=" + b"ab3/" * 21 + b"xy==",
    b"kind: Secret\napiVersion: v1\ndata:\n  password: " + base64.b64encode(b"correct horse battery"),
    b"kind: Secret\napiVersion: v1\ndata:\n  %s-password: " % (b"x" * 240) + base64.b64encode(b"correct horse battery"),
    b"SG." + b"a" * 22 + b"." + b"b" * 43,
)
PIECES = st.one_of(
    st.sampled_from(SECRETS),
    st.sampled_from(SECRETS).map(base64.b64encode),
    st.sampled_from(SECRETS).map(lambda data: data.decode().encode("utf-16-le")),
    st.sampled_from(SECRETS).map(lambda data: data.hex().encode()),
    st.sampled_from([anchor for shape in SHAPES for anchor in shape.anchors]),
    st.sampled_from((b"\n", b" ", b"A", b"_", b"=", b'"', b"\\", b"%", b"\x0b", b"\x00", b"\xff")),
    st.binary(max_size=12),
)


@pytest.fixture(scope="module")
def scanners() -> tuple[SecretScanner, SecretScanner]:
    select = by_expressions()
    assert select is not None
    return SecretScanner(by_re2), SecretScanner(select)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=6))
def test_both_find_the_same(scanners: tuple[SecretScanner, SecretScanner], pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    by_re2_, by_hyperscan = (scanner.search("srv/app/data", data) for scanner in scanners)
    assert by_re2_ == by_hyperscan


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_both_find_each(scanners: tuple[SecretScanner, SecretScanner], secret: bytes) -> None:
    for scanner in scanners:
        assert scanner.search("srv/app/data", b"x\n" + secret + b"\n")


def test_without_hyperscan_literals_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hyperscan", None)
    assert by_expressions() is None


def test_compiled_expressions_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SealedFiles(tmp_path / "patterns", 1 << 24)
    assert by_expressions(kept) is not None
    monkeypatch.setattr(_secret_search, "_compiled_database", None)  # a second process does not compile
    select = by_expressions(kept)
    assert select is not None
    assert select(KEY).shapes == [SHAPES[0]]
    assert not any(select(b"nothing to see here"))


def test_a_database_that_cannot_be_loaded_is_compiled_again(tmp_path: Path) -> None:
    class Broken(SealedFiles):
        def get(self, name: str) -> bytes | None:
            return b"a database of another processor"

    select = by_expressions(Broken(tmp_path / "patterns", 1 << 24))
    assert select is not None
    assert select(KEY).shapes == [SHAPES[0]]
