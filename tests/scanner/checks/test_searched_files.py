"""Which files are searched for secrets, by their path."""

from __future__ import annotations

import re

import pytest

from scanner.checks import _secrets
from scanner.checks._secrets import is_ignored


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/openssl/key.pem",
        "usr/lib/python3.11/test/keycert.pem",
        "proc/1/environ",
        "srv/node_modules/tls/test/key.pem",
        "srv/node_modules/tls/test/fixtures/deep/key.pem",
        "usr/lib/python3/site-packages/tests/key.pem",
        "vendor/aws/config.example.json",
        "vendor/credentials_examples.json",
    ],
)
def test_documentation_and_tests_of_dependencies_are_ignored(path: str) -> None:
    assert is_ignored(path)


@pytest.mark.parametrize(
    "path",
    [
        "key.pem",
        "usr/share/doc",
        "home/usr/share/doc/key.pem",
        "srv/tests/key.pem",
        "tests/node_modules/tls/key.pem",
        "srv/node_modules/tls/key.pem",
        "srv/node_modules/tls/tests",
        "srv/config.example.json",
        "vendor/config.example.json/key.pem",
        "vendor/example.json",
    ],
)
def test_everything_else_is_searched(path: str) -> None:
    assert not is_ignored(path)


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (".env", True),
        ("srv/app/.env", True),
        ("srv/app/production.env", True),
        (".git/config", True),
        ("srv/app/.git/config", True),
        ("git/config", False),
        ("etc/shadow", True),
        ("mnt/backup/etc/master.passwd", True),
        ("shadow", False),
        ("srv/etc/shadow/readme", False),
        ("srv/environment", False),
    ],
)
def test_configurations_are_known_by_the_end_of_their_path(path: str, is_one: bool) -> None:
    assert _secrets._is_configuration(path) is is_one
    assert (_secrets._CONFIGURATIONS.search(path) is not None) is is_one


def test_no_name_of_a_configuration_has_three_parts() -> None:
    """Only the last two parts of a path are looked at."""
    names = _secrets._CONFIGURATIONS.pattern.replace("[^/]", "").removeprefix("(?:^|/)")
    assert all(name.count("/") <= 1 for name in re.split(r"\|", names))
