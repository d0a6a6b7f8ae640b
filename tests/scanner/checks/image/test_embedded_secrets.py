"""Secrets by name and content, wherever they lie; and no cry where there is none."""

from __future__ import annotations

import pytest

from scanner.checks._secrets import SecretScanner
from scanner.checks.image.embedded_secrets import EmbeddedSecrets
from scanner.model.filesystem import ContentMatch
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable

AWS = "AKIA" + "QWERTYUIOPASDFGH"
GITHUB = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    "path", ["root/.aws/credentials", "home/app/.ssh/id_rsa", "app/.env", "app/store.jks", "root/.docker/config.json"]
)
def test_a_file_named_as_credentials(path: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(layer(entry(path)))), Failed)


def test_one_that_a_later_layer_deletes_is_still_there() -> None:
    outcome = EmbeddedSecrets().examine(
        subject(layer(entry("root/.aws/credentials")), layer(whiteouts=["root/.aws/credentials"]))
    )
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 0
    assert "layer 1 hides it" in outcome.evidence[0].message


@pytest.mark.parametrize(
    ("name", "value"),
    [("DB_PASSWORD", "hunter2-really"), ("API_KEY", "9f8e7d6c5b4a"), ("ANYTHING", AWS), ("X", GITHUB)],
)
def test_a_variable(name: str, value: str) -> None:
    outcome = EmbeddedSecrets().examine(subject(env=((name, value),)))
    assert isinstance(outcome, Failed)
    assert value not in str(outcome), "the value itself is never shown"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin"),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
        ("PASSWORD_FILE", "/run/secrets/x"),
        ("DB_PASSWORD", ""),
        ("TOKEN", "changeme"),
        ("SECRET_KEY", "${SECRET}"),
    ],
)
def test_a_variable_that_holds_none(name: str, value: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(env=((name, value),))), Passed)


def test_the_history() -> None:
    outcome = EmbeddedSecrets().examine(subject(history=["RUN DB_PASSWORD=hunter2-really ./install # buildkit"]))
    assert isinstance(outcome, Failed)
    assert "hunter2" not in str(outcome)


def test_content_found_while_reading() -> None:
    match = ContentMatch("github-token", "srv/notes.txt", 3, "ghp_… (40 characters)")
    outcome = EmbeddedSecrets().examine(subject(layer(entry("srv/notes.txt"), matches=[match])))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].line == 3


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/x/examples/id_rsa",
        "usr/lib/python3/dist-packages/x/tests/id_rsa",
        "etc/ssl/certs/ca-certificates.crt",
    ],
)
def test_no_cry_where_there_is_none(path: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(layer(entry(path)))), Passed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(EmbeddedSecrets().examine(unreadable()), Incomplete)


KEY = b"-----BEGIN " + b"RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyz0123\n"


@pytest.mark.parametrize(
    ("data", "rule"),
    [(f"k={AWS}\n".encode(), "aws-access-key"), (GITHUB.encode(), "github-token"), (KEY, "private-key")],
)
def test_the_scanner_finds_and_redacts(data: bytes, rule: str) -> None:
    found = SecretScanner().search("srv/x", b"\n\n" + data)
    assert [(m.rule, m.line) for m in found] == [(rule, 3)]
    assert found[0].redacted.encode() not in data


@pytest.mark.parametrize(
    "data",
    [
        b"AKIAIOSFODNN7EXAMPLE",
        b"-----BEGIN PUBLIC KEY-----\nMIIB",
        b"-----BEGIN " + b"PRIVATE KEY-----\n...\n",
        b"ghp_short",
        b"sk_live_",
    ],
)
def test_the_scanner_leaves_examples_alone(data: bytes) -> None:
    assert SecretScanner().search("srv/x", data) == []
