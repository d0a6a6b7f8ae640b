"""passwd as the C library and container runtimes read it, checked against the C library of this machine where that
is glibc.
"""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.checks._passwd import accounts
from scanner.model.finding import Failed, Outcome, Passed
from tests.scanner.checks.factory import PASSWD, layer, subject

USERS = ("duplicate-ids", "empty-passwords", "extra-root-accounts", "login-shells")


def examine(check: str, lines: bytes, shadow: bytes = b"") -> Outcome:
    contents = {"etc/passwd": PASSWD + lines} | ({"etc/shadow": shadow} if shadow else {})
    return catalog.image_checks()[check].examine(subject(layer(contents=contents)))


@pytest.mark.parametrize("check", USERS)
@pytest.mark.parametrize("line", [b"+::::::\n", b"+@group::::::\n", b"-bad::::::\n", b"+\n", b"+nisuser::0:0:::\n"])
def test_a_line_for_NIS_is_no_account(check: str, line: bytes) -> None:
    assert isinstance(examine(check, line, b"root:*:19000:0:99999:7:::\n+::::::::\n"), Passed)


@pytest.mark.parametrize("check", ["empty-passwords", "login-shells", "duplicate-ids"])
@pytest.mark.parametrize("line", [b"broken\n", b"short::5\n", b"text::abc:5::/:/bin/sh\n", b"hex::0x5:5::/:/bin/sh\n"])
def test_a_line_that_no_C_library_takes_is_no_account(check: str, line: bytes) -> None:
    assert isinstance(examine(check, line), Passed)


def test_runtimes_take_such_a_line_for_root() -> None:
    for line in (
        b"broken\n",
        b"text:x:abc:5::/:/bin/sh\n",
        b"empty:x::5::/:/bin/sh\n",
        b"wraps:x:4294967296:5::/:/bin/sh\n",
    ):
        assert isinstance(examine("extra-root-accounts", line), Failed), line


@pytest.mark.parametrize("uid", [1 << 31, (1 << 31) - 1, (1 << 32) - 2])
def test_a_large_uid_is_a_user(uid: int) -> None:
    line = f"big:x:{uid}:{uid}::/:/bin/sh\n".encode()
    for check in USERS:
        assert isinstance(examine(check, line), Passed), check
    image = subject(layer(contents={"etc/passwd": PASSWD + line}), user="big")
    assert isinstance(catalog.image_checks()["root-user"].examine(image), Passed)


def test_long_and_empty_fields_are_shown_in_short() -> None:
    for name in (b"n" * 100_000, b""):
        outcome = examine("empty-passwords", name + b"::7:7::/:/bin/sh\n")
        assert isinstance(outcome, Failed)
        assert len(outcome.evidence[0].message) < 200
    assert "(no name)" in outcome.evidence[0].message


def test_what_is_known_is_what_the_C_library_returns() -> None:
    # glibc 2.36: fgetpwent(3)
    lines = [
        b"root:x:0:0::/:/bin/sh",
        b"short4:x:0:0",
        b"short:x:0",
        b"plus:x:+5:5::/:/bin/sh",
        b"zeros:x:010:5::/:/bin/sh",
        b"tail:x:5abc:5::/:/bin/sh",
        b"over:x:42949672960000:5::/:/bin/sh",
    ]
    found = accounts(subject(layer(contents={"etc/passwd": b"\n".join(lines)})).rootfs) or ()  # type: ignore[arg-type]
    # "over": musl wraps it.
    assert [account.name for account in found if account.is_known] == [
        "root",
        "short4",
        "plus",
        "zeros",
        "over",
    ]
