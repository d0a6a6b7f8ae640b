"""Variables that switch protection off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.weakened_environment import WeakenedEnvironment
from scanner.model.finding import Failed, Passed, Severity
from scanner.model.reference import Platform
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
        ("PYTHONHTTPSVERIFY", "0"),
        ("GIT_SSL_NO_VERIFY", "true"),
        ("npm_config_strict_ssl", "false"),
        ("CURL_CA_BUNDLE", ""),
        ("PIP_INDEX_URL", "http://packages.example.com/simple"),
        ("GOSUMDB", "off"),
        ("FLASK_DEBUG", "1"),
        ("NODE_OPTIONS", "--max-old-space-size=100 --inspect=0.0.0.0:9229"),
        ("POSTGRES_HOST_AUTH_METHOD", "trust"),
        ("PATH", "/usr/bin:.:/bin"),
        ("PATH", "/usr/bin::/bin"),
        ("PATH", "/tmp/bin:/bin"),
        ("LD_PRELOAD", "/tmp/x.so"),
    ],
)
def test_a_variable_that_weakens(name: str, value: str) -> None:
    made = subject(env=((name, value),), history=["COPY a /", f"ENV {name}={value}"])
    outcome = WeakenedEnvironment().examine(made)
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.name, evidence.history_index, evidence.pointer) == (name, 1, "/config/Env")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NODE_TLS_REJECT_UNAUTHORIZED", "1"),
        ("PIP_INDEX_URL", "https://packages.example.com/simple"),
        ("GOSUMDB", "sum.golang.org"),
        ("GIT_SSL_NO_VERIFY", ""),
        ("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt"),
        ("NODE_ENV", "production"),
        ("PATH", "/usr/local/bin:/usr/bin"),
        ("PYTHONPATH", ""),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
    ],
)
def test_a_variable_that_does_not(name: str, value: str) -> None:
    assert isinstance(WeakenedEnvironment().examine(subject(env=((name, value),))), Passed)


def test_what_is_less_severe() -> None:
    outcome = WeakenedEnvironment().examine(subject(env=(("DOCKER_CONTENT_TRUST", "0"),)))
    assert isinstance(outcome, Failed)
    assert outcome.severity is Severity.LOW


def test_search_paths_of_windows_are_absolute_in_another_way() -> None:
    made = subject(env=(("PATH", "C:\\Windows\\system32;C:\\app"), ("NODE_TLS_REJECT_UNAUTHORIZED", "0")))
    config = replace(made.image.config, platform=Platform("windows", "amd64"))
    outcome = WeakenedEnvironment().examine(replace(made, image=replace(made.image, config=config)))
    assert isinstance(outcome, Failed)
    assert [each.name for each in outcome.evidence] == ["NODE_TLS_REJECT_UNAUTHORIZED"]


def test_a_directory_whose_name_begins_like_that_of_a_writable_one() -> None:
    assert WeakenedEnvironment().examine(subject(env=(("PATH", "/tmpl/bin:/bin"),))) == Passed()
