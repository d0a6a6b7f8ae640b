"""Ports of debuggers and remote control; numbers that are no ports."""

from __future__ import annotations

import pytest

from scanner.checks.image.risky_ports import RiskyPorts
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize(
    ("port", "word"),
    [
        ("2375/tcp", "Docker API"),
        ("9220-9240/tcp", "Node.js inspector"),
        ("1-65535/tcp", "exposes 65535 ports"),
        ("70000/tcp", "is not a valid port"),
        ("0", "is not a valid port"),
        ("http", "is not a valid port"),
        ("9000-8000", "is not a valid port"),
    ],
)
def test_what_is_against_a_port(port: str, word: str) -> None:
    """Trivy (DS-0004, DS-0008) reads a Dockerfile's numbers one by one: a range around a debugger's port passes
    there.
    """
    outcome = RiskyPorts().examine(subject(exposed_ports=(port,), history=["COPY a /", f"EXPOSE {port}"]))
    assert isinstance(outcome, Failed)
    assert word in outcome.evidence[0].message
    assert outcome.evidence[0].history_index == 1


@pytest.mark.parametrize("port", ["80/tcp", "8080", "5432/tcp", "8000-8010/udp"])
def test_what_services_listen_on(port: str) -> None:
    assert isinstance(RiskyPorts().examine(subject(exposed_ports=(port,))), Passed)
