"""Ports below 1024."""

from __future__ import annotations

import pytest

from scanner.checks.image.privileged_ports import PrivilegedPorts
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize("port", ["80/tcp", "443", "53/udp", "1000-2000/tcp"])
def test_a_low_port_and_the_line_that_exposes_it(port: str) -> None:
    made = subject(exposed_ports=(port, "8080/tcp"), history=["COPY a /", f"EXPOSE {port}"])
    outcome = PrivilegedPorts().examine(made)
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.history_index, evidence.instruction) == (1, f"EXPOSE {port}")


@pytest.mark.parametrize("port", ["1024", "8080/tcp", "x", "", "0"])
def test_a_high_port_or_none(port: str) -> None:
    assert isinstance(PrivilegedPorts().examine(subject(exposed_ports=(port,))), Passed)


def test_the_allow_list_takes_numbers() -> None:
    made = subject(exposed_ports=("80/tcp",))
    check = PrivilegedPorts()
    assert isinstance(check.judge(check.examine(made), made.image, {"allow": ("80", "443")}), Passed)
