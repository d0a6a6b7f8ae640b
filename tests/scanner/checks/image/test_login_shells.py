"""System accounts with a login shell."""

from __future__ import annotations

import pytest

from scanner.checks.image.login_shells import LoginShells
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable


def image(line: bytes, shadow: bytes = b"db:x:1::::::\n") -> object:
    files = {"etc/passwd": b"root:x:0:0::/root:/bin/sh\n" + line, "etc/shadow": shadow}
    return subject(layer(entry("bin/sh", mode=0o755), entry("bin/sync", mode=0o755), contents=files))


@pytest.mark.parametrize("line", [b"db:x:70:70::/var/lib/db:/bin/sh\n", b"db:x:999:999::/var/lib/db:\n"])
def test_a_daemon_with_a_shell(line: bytes) -> None:
    outcome = LoginShells().examine(image(line))  # type: ignore[arg-type]
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].name, outcome.evidence[0].line) == ("db", 2)
    assert outcome.remedy == "RUN usermod --shell /usr/sbin/nologin db"


@pytest.mark.parametrize(
    ("line", "shadow"),
    [
        (b"db:x:70:70::/:/usr/sbin/nologin\n", b""),
        (b"sync:x:4:65534::/bin:/bin/sync\n", b""),
        (b"app:x:1000:1000::/home/app:/bin/sh\n", b""),  # a person's or the application's own
        (b"db:x:70:70::/:/bin/bash\n", b""),  # which the image does not have
        (b"db:x:70:70::/:/bin/sh\n", b"db:!:1::::::\n"),
    ],
)
def test_who_cannot_or_may(line: bytes, shadow: bytes) -> None:
    assert isinstance(LoginShells().examine(image(line, shadow or b"root:*:1::::::\n")), Passed)  # type: ignore[arg-type]


def test_an_image_without_accounts() -> None:
    assert isinstance(LoginShells().examine(subject(layer(entry("app")))), NotApplicable)


def test_a_shadow_that_could_not_be_read() -> None:
    link = entry("etc/shadow", kind=FileType.SYMLINK, link="/usr/shadow")
    assert isinstance(LoginShells().examine(subject(layer(link, entry("usr/shadow")))), Incomplete)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(LoginShells().examine(unreadable()), Incomplete)
