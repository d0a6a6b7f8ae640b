"""An SSH server, by port or by program."""

from __future__ import annotations

import pytest

from scanner.checks.image.exposed_ssh import ExposedSsh
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize("port", ["22/tcp", "22", "20-30/tcp"])
def test_the_port(port: str) -> None:
    assert isinstance(ExposedSsh().examine(subject(exposed_ports=(port,))), Failed)


def test_the_program() -> None:
    outcome = ExposedSsh().examine(subject(layer(entry("usr/sbin/sshd", mode=0o755))))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].path == "usr/sbin/sshd"


@pytest.mark.parametrize("port", ["8080/tcp", "2222", "220/tcp", "x/tcp"])
def test_other_ports_pass(port: str) -> None:
    assert isinstance(ExposedSsh().examine(subject(exposed_ports=(port,))), Passed)


def test_without_files_only_a_port_is_known() -> None:
    assert isinstance(ExposedSsh().examine(unreadable()), Incomplete)
    assert isinstance(ExposedSsh().examine(unreadable(exposed_ports=("22/tcp",))), Failed)
