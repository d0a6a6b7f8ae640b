"""File capabilities, which show in no mode bit."""

from __future__ import annotations

import struct

import pytest

from scanner.checks.image.file_capabilities import FileCapabilities, decode
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from tests.scanner.checks.factory import entry, layer, subject, unreadable


def attribute(*bits: int, revision: int = 2) -> bytes:
    given = sum(1 << bit for bit in bits)
    words = struct.pack("<IIII", given & 0xFFFFFFFF, 0, given >> 32, 0)
    return struct.pack("<I", revision << 24 | 1) + words + (b"\0\0\0\0" if revision == 3 else b"")


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (attribute(10), ("net_bind_service",)),
        (attribute(13, 12), ("net_admin", "net_raw")),
        (attribute(40, revision=3), ("checkpoint_restore",)),
        (attribute(63), ("63",)),
        (attribute(), None),
        (b"", None),
        (b"\1\0\0\2", None),
        (attribute(10)[:-1], None),
        (b"\xff" * 20, None),
    ],
)
def test_decoding(raw: bytes, names: tuple[str, ...] | None) -> None:
    assert decode(raw) == names


@pytest.mark.parametrize(
    ("raw", "severity"),
    [(attribute(10), Severity.LOW), (attribute(21), Severity.HIGH), (attribute(24), None), (b"broken", Severity.HIGH)],
)
def test_a_capable_program(raw: bytes, severity: Severity | None) -> None:
    """Dockle and docker-bench look at setuid bits only: a program with cap_sys_admin passes there."""
    outcome = FileCapabilities().examine(subject(layer(entry("usr/bin/tool", mode=0o755, capability=raw))))
    assert isinstance(outcome, Failed)
    assert outcome.severity is severity
    assert outcome.evidence[0].path == "usr/bin/tool"
    assert outcome.remedy == "RUN setcap -r /usr/bin/tool"


def test_a_setuid_program_is_another_check() -> None:
    assert isinstance(FileCapabilities().examine(subject(layer(entry("bin/su", mode=0o4755)))), Passed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(FileCapabilities().examine(unreadable()), Incomplete)
