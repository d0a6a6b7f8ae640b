from __future__ import annotations

import pytest

from scanner.checks.image.lone_update import LoneUpdate
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from tests.scanner.checks.factory import built_by, without_history


def examine(*lines: str) -> Outcome:
    return LoneUpdate().examine(built_by(*lines))


@pytest.mark.parametrize(
    "line",
    [
        "RUN /bin/sh -c apt-get update # buildkit",
        "/bin/sh -c apt-get -qq -o Acquire::Retries=3 update",
        # Dockle splits at && only: it sees one word list here, with an install in it.
        "RUN /bin/sh -c apt-get install -y a; apt-get update # buildkit",
        "RUN /bin/sh -c set -e\napt-get update\npip install x # buildkit",
        "RUN /bin/sh -c bash -c 'apk update' # buildkit",
        "RUN /bin/sh -c zypper refresh",
        "RUN /bin/sh -c dnf makecache && echo install",
    ],
)
def test_alone(line: str) -> None:
    outcome = examine(line, "RUN /bin/sh -c apt-get install -y curl")
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].history_index == 1
    assert outcome.evidence[0].layer_index == 1


@pytest.mark.parametrize(
    "line",
    [
        "RUN /bin/sh -c apt-get update && apt-get install -y curl # buildkit",
        # And here it sees an update without an install: the chain is made of semicolons and new lines.
        "RUN /bin/sh -c set -eux; apt-get update; apt-get install -y curl; rm -rf /x # buildkit",
        "RUN /bin/sh -c apt-get update\napt-get install -y curl # buildkit",
        "RUN /bin/sh -c apt-get update && if a; then apt install -y b; fi",
        "RUN /bin/sh -c apt-get update && xargs apt-get install -y < list",
        "RUN /bin/sh -c apk update && apk add curl",
        "RUN /bin/sh -c yum update -y",
        "RUN /bin/sh -c echo apt-get update",
        "RUN /bin/sh -c # apt-get update\nls",
    ],
)
def test_together(line: str) -> None:
    assert isinstance(examine(line), Passed)


def test_a_script_may_install() -> None:
    outcome = examine("RUN /bin/sh -c apt-get update && ./install-packages.sh")
    assert isinstance(outcome, Incomplete)
    assert "./install-packages.sh" in outcome.detail


def test_without_history_it_is_not_known() -> None:
    assert isinstance(LoneUpdate().examine(without_history()), Incomplete)
    assert isinstance(examine("RUN powershell -Command choco"), Incomplete)
