"""Lines as the well-known language, server and database images are built with: read wholly, and nothing said against
them.

One script a line in ``tests/data/history/usual.txt``; hosts were replaced.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.checks._history import history
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import built_by

SCRIPTS = (Path(__file__).parents[2] / "data/history/usual.txt").read_text("utf-8").splitlines()
CHECKS = (
    "lone-update",
    "remote-script",
    "dist-upgrade",
    "sudo",
    "recommended-packages",
    "unverified-packages",
    "cache-order",
    "add-from-url",
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script[:30])
@pytest.mark.parametrize("form", ["/bin/sh -c {}", "RUN |2 A=b C=d e /bin/sh -c {} # buildkit"])
def test_no_false_alarm(script: str, form: str) -> None:
    image = built_by(form.format(script))
    assert history(image).gaps == ()
    assert history(image).instructions[1].commands
    for name in CHECKS:
        outcome = catalog.image_checks()[name].examine(image)
        assert isinstance(outcome, Passed), (name, outcome.evidence if isinstance(outcome, Failed) else outcome)
