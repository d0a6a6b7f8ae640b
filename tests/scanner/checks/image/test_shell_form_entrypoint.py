"""A shell as process 1."""

from __future__ import annotations

import pytest

from scanner.checks.image.shell_form_entrypoint import ShellFormEntrypoint
from scanner.model.finding import Failed, NotApplicable, Passed
from tests.scanner.checks.factory import subject

SHELL = ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"entrypoint": (*SHELL, "node server.js --port 80")}, 'ENTRYPOINT ["node", "server.js", "--port", "80"]'),
        ({"cmd": (*SHELL, "python -m app")}, 'CMD ["python", "-m", "app"]'),
        ({"entrypoint": ("/bin/bash", "-o", "pipefail", "-ec", "migrate && serve")}, ""),
        ({"entrypoint": (*SHELL, "exec migrate && serve $PORT")}, ""),
    ],
)
def test_a_shell_that_stays(config: dict[str, tuple[str, ...]], remedy: str) -> None:
    outcome = ShellFormEntrypoint().examine(subject(**config))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == remedy


@pytest.mark.parametrize(
    "config",
    [
        {"entrypoint": ("/app/run",), "cmd": (*SHELL, "x y")},
        {"entrypoint": ("tini", "--", "sh", "-c", "x")},
        {"cmd": ("bash",)},
        {"cmd": ("sh", "/entrypoint.sh")},
        {"cmd": (*SHELL, "migrate && exec serve $PORT;")},
    ],
)
def test_no_shell_or_one_that_gives_way(config: dict[str, tuple[str, ...]]) -> None:
    assert isinstance(ShellFormEntrypoint().examine(subject(**config)), Passed)


def test_an_image_that_starts_nothing() -> None:
    assert isinstance(ShellFormEntrypoint().examine(subject()), NotApplicable)
