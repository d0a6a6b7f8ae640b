from __future__ import annotations

import pytest

from scanner.checks.image.sudo import Sudo
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, entry, layer, subject, unreadable, without_history


@pytest.mark.parametrize(
    "script", ["sudo apt-get update", "a; sudo -u b c", "echo x | sudo tee /y", "sudo", "sh -c 'doas ls'"]
)
def test_in_the_build(script: str) -> None:
    outcome = Sudo().examine(built_by(f"RUN /bin/sh -c {script} # buildkit"))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


def test_in_the_image() -> None:
    assert isinstance(Sudo().examine(subject(layer(entry("usr/bin/sudo", mode=0o4755)), history=())), Failed)


@pytest.mark.parametrize("script", ["apt-get install -y sudo-ldap-not", "echo sudo", "ls /etc/sudoers.d"])
def test_not_at_all(script: str) -> None:
    assert isinstance(Sudo().examine(built_by(f"RUN /bin/sh -c {script}")), Passed)


def test_what_cannot_be_told_is_not_known() -> None:
    assert isinstance(Sudo().examine(without_history()), Incomplete)
    assert isinstance(Sudo().examine(unreadable()), Incomplete)
