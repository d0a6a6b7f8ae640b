"""One corrected Dockerfile fragment: lines that can be pasted, in order, and nothing of the image's that could be
more than a line.
"""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.checks._hints import fragment
from scanner.checks.base import ImageSubject
from scanner.model.finding import CheckResult, Evidence, Failed
from scanner.model.scan import ImageReport
from tests.scanner.checks.factory import PASSWD, built_by, entry, layer, subject

CHECKS = catalog.checks()


def examined(made: ImageSubject, *names: str) -> ImageReport:
    """The report of these checks, or of all."""
    chosen = [check for name, check in catalog.image_checks().items() if not names or name in names]
    return ImageReport(made.image, (), tuple(CheckResult(c.id, c.examine(made), c.severity) for c in chosen))


def test_everything_in_the_order_of_a_dockerfile() -> None:
    made = subject(
        layer(
            entry("usr/bin/su", mode=0o4755),
            entry("srv/data", mode=0o666),
            contents={
                "etc/passwd": PASSWD,
                "etc/shadow": b"root::0::::::\n",
                "etc/nginx/nginx.conf": b"pid /run/n.pid;",
            },
        ),
        history=["RUN /bin/sh -c apt-get update && apt-get install -y nginx # buildkit"],
        cmd=("/bin/sh", "-c", "nginx -g x"),
        exposed_ports=("8080/tcp",),
        stop_signal="SIGKILL",
    )
    lines = fragment(examined(made), CHECKS).splitlines()
    instructions = [line for line in lines if line[:1].isupper() or line.startswith(" &&")]
    assert instructions == [
        "RUN apt-get update && apt-get install --no-install-recommends -y nginx && apt-get clean && rm -rf "
        "/var/lib/apt/lists/*",
        "RUN passwd -l root \\",
        " && chmod a-s /usr/bin/su \\",
        " && chmod -R o-w /srv/data",
        "STOPSIGNAL SIGTERM",
        "HEALTHCHECK --interval=30s --timeout=3s CMD curl --fail --silent --max-time 2 "
        "http://localhost:8080/ || exit 1",
        "USER 10001:10001",
        'CMD ["nginx", "-g", "x"]',
    ]
    assert "#   tmpfs: [/run, /var/cache/nginx, /var/log/nginx]" in lines


def test_a_user_that_is_not_root_is_put_back() -> None:
    made = subject(layer(entry("usr/bin/su", mode=0o4755)), user="10001:10001")
    text = fragment(examined(made, "setuid-files"), CHECKS)
    assert "USER root\nRUN chmod a-s /usr/bin/su\nUSER 10001:10001\n" in text


def test_what_no_line_can_mend_is_named() -> None:
    made = subject(env=(("DB_PASSWORD", "hunter2-really"),))
    text = fragment(examined(made, "embedded-secrets"), CHECKS)
    assert "# - embedded-secrets: " in text
    assert "hunter2" not in text


def test_nothing_failed() -> None:
    assert fragment(ImageReport(subject().image), CHECKS) == ""


@pytest.mark.parametrize("path", ["x\nRUN curl evil", "x\rUSER root", "x\u2028y", "a'; reboot; '", "$(reboot)"])
def test_a_hostile_name_stays_a_name(path: str) -> None:
    made = subject(layer(entry(path, mode=0o4777), entry("usr/bin/su", mode=0o4755)), user="7\nRUN evil")
    for line in fragment(examined(made), CHECKS).splitlines():
        assert line == "" or line.startswith(("#", "RUN chmod ", "RUN find / ", " && chmod ", "USER ", "HEALTHCHECK "))
        assert "evil" not in line or line.startswith("#")


def test_a_remedy_with_a_line_end_is_no_line() -> None:
    failed = Failed((Evidence("x"),), remedy="USER 1\nRUN evil")
    text = fragment(ImageReport(subject().image, (), (CheckResult("root-user", failed),)), CHECKS)
    assert not [line for line in text.splitlines() if line and not line.startswith("#")]


def test_an_example_is_no_line_to_paste() -> None:
    text = fragment(examined(subject(), "healthcheck"), CHECKS)
    assert "# - healthcheck: HEALTHCHECK " in text
    assert not [line for line in text.splitlines() if line.startswith("HEALTHCHECK")]


def hints(*lines: str) -> list[str]:
    text = fragment(examined(built_by(*lines), "lone-update", "recommended-packages"), CHECKS)
    return [line for line in text.splitlines() if line.startswith(("RUN", "# remove"))]


CLEAN = "apt-get clean && rm -rf /var/lib/apt/lists/*"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["RUN /bin/sh -c apt-get update", "RUN /bin/sh -c apt-get install -y a"],
            [
                "# remove: RUN apt-get update",
                f"RUN apt-get update && apt-get install --no-install-recommends -y a && {CLEAN}",
            ],
        ),
        (
            [
                "RUN /bin/sh -c apt-get update && apt-get install -y a;",
                "RUN /bin/sh -c apt-get install -y --no-install-recommends b",
            ],
            [
                f"RUN apt-get update && apt-get install --no-install-recommends -y a && {CLEAN}",
                f"RUN apt-get update && apt-get install -y --no-install-recommends b && {CLEAN}",
            ],
        ),
        (
            ["RUN /bin/sh -c apk update", "RUN /bin/sh -c apk add a"],
            ["# remove: RUN apk update", "RUN apk add --no-cache a"],
        ),
    ],
)
def test_package_lists_are_there_until_packages_are_installed(lines: list[str], expected: list[str]) -> None:
    assert hints(*lines) == expected
