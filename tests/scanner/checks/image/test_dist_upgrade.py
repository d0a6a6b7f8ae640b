from __future__ import annotations

import pytest

from scanner.checks.image.dist_upgrade import DistUpgrade
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, without_history


@pytest.mark.parametrize(
    "script",
    [
        "apt-get update; apt-get -y dist-upgrade",
        "apt full-upgrade -y",
        "zypper dup",
        "dnf distro-sync -y",
        "sh -c 'apt-get dist-upgrade'",
    ],
)
def test_upgrades(script: str) -> None:
    outcome = DistUpgrade().examine(built_by(f"RUN /bin/sh -c {script} # buildkit"))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


@pytest.mark.parametrize("script", ["apt-get update && apt-get upgrade -y", "echo dist-upgrade", "apk upgrade"])
def test_does_not(script: str) -> None:
    assert isinstance(DistUpgrade().examine(built_by(f"RUN /bin/sh -c {script} # buildkit")), Passed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(DistUpgrade().examine(without_history()), Incomplete)
