"""The installation's secret key: made once, kept private, the same for every process."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanner.config import Secret, Settings, secret_key
from scanner.errors import UsageError


def test_it_is_made_once_and_private(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "var")
    first = secret_key(settings)
    assert len(first.reveal()) >= 48 and secret_key(settings) == first
    assert stat.S_IMODE((tmp_path / "var/secret_key").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "var").iterdir()] == ["secret_key"]


def test_those_who_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: secret_key(Settings(home=tmp_path)).reveal(), range(32)))
    assert len(keys) == 1


def test_the_setting_wins(tmp_path: Path) -> None:
    assert secret_key(Settings(home=tmp_path, secret_key=Secret("k" * 32))).reveal() == "k" * 32
    assert not list(tmp_path.iterdir())


def test_a_short_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        secret_key(Settings(home=tmp_path, secret_key=Secret("short")))
    assert "short" not in str(caught.value).replace("characters", "") and caught.value.hint
