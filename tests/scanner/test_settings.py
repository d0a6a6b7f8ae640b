"""Settings: each is documented with its default, and what is wrong is refused with what to write instead."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from scanner.config import Retention, Settings, load
from scanner.errors import UsageError
from scanner.worker.supervisor import environment_of

DOCUMENTED = dict(
    re.findall(
        r"^\| `DOCKWARDEN_(\w+)` \| `?([^|`]*?)`? \|",
        (Path(__file__).parents[2] / "docs/settings.md").read_text(),
        re.M,
    )
)


@pytest.mark.parametrize("name", [item.name for item in fields(Settings) if item.name != "limits"])
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = getattr(Settings(), name)
    text = (
        ", ".join(default)
        if isinstance(default, tuple)
        else default.reveal()
        if hasattr(default, "reveal")
        else default
    )
    assert DOCUMENTED[name.upper()] == ("none" if text in ("", None) else str(text))


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("90d", timedelta(days=90)),
        ("36h", timedelta(hours=36)),
        ("4w", timedelta(weeks=4)),
        (" 1D ", timedelta(days=1)),
        ("30m", timedelta(minutes=30)),
        ("0", None),
        ("never", None),
    ],
)
def test_a_retention_is_a_period_or_never(text: str, period: timedelta | None) -> None:
    assert load({"DOCKWARDEN_RETENTION_SCANS": text}).retention_scans.period == period
    assert Retention.parse(str(Retention.parse(text))) == Retention.parse(text)


@pytest.mark.parametrize("text", ["90", "-1d", "0d", "d", "1y", "9999999w", "1.5d", "٣d", ""])
def test_a_retention_that_is_none_is_refused(text: str) -> None:
    """A number without a unit must not be guessed: 90 days of evidence are not 90 hours."""
    with pytest.raises(UsageError) as refused:
        load({"DOCKWARDEN_RETENTION_SCANS": text})
    assert "DOCKWARDEN_RETENTION_SCANS" in str(refused.value)
    assert "90d" in refused.value.hint


def test_the_processes_of_a_server_are_given_the_same_retention() -> None:
    given = load({"DOCKWARDEN_RETENTION_EVIDENCE": "36h", "DOCKWARDEN_RETENTION_JOBS": "never"})
    read = load(environment_of(given))
    assert (read.retention_evidence, read.retention_jobs) == (given.retention_evidence, given.retention_jobs)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("limit_packages", '"x"', "a whole number"),
        ("engine_secrets", '"perhaps"', "true or false"),
        ("insecure_registries", "5", "a list of texts"),
    ],
)
def test_a_wrong_value_names_what_is_expected_without_types_of_python(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"{name} = {text}\n")
    with pytest.raises(UsageError) as refused:
        load({}, file)
    assert refused.value.hint == f"expected {expected}"
