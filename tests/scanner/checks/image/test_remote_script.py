from __future__ import annotations

import pytest

from scanner.checks.image.remote_script import RemoteScript
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from tests.scanner.checks.factory import built_by, without_history


def examine(script: str) -> Outcome:
    return RemoteScript().examine(built_by(f"RUN /bin/sh -c {script} # buildkit"))


@pytest.mark.parametrize(
    "script",
    [
        "curl -fsSL https://example.com/i.sh | sh",
        "wget -qO- https://example.com/i.sh | sudo -E bash -s -- --yes",
        "set -e; curl https://example.com/i.py | python3 -",
        "curl https://example.com/i.sh | tee /tmp/x | /bin/bash",
        "bash <(curl -s https://example.com/i.sh)",
        'sh -c "$(curl -fsSL https://example.com/i.sh)"',
        'eval "$(wget -O - https://example.com/i.sh)"',
        ". <(curl https://example.com/i.sh)",
        'bash <<< "$(curl https://example.com/i.sh)"',
        "curl -o /tmp/i.sh https://example.com/i.sh && sh /tmp/i.sh",
        "curl -fsSLo i.sh https://example.com/i.sh\nchmod +x i.sh\n./i.sh",
        "curl https://example.com/i.sh > i.sh; bash i.sh",
        "wget https://example.com/a/i.sh?x=1 && bash i.sh",
        "curl -sSLO https://example.com/i.py && python3 i.py",
    ],
)
def test_code_from_the_network(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Failed)
    assert "https://example.com/" in outcome.evidence[0].message


@pytest.mark.parametrize(
    "script",
    [
        "curl -fsSL https://example.com/key.asc | gpg --dearmor -o /x",
        "curl https://example.com/x.tar.gz | tar xz",
        "curl https://example.com/x.json | python3 -c 'import json'",
        "curl https://example.com/x.json | python3 -m json.tool",
        "curl https://example.com/x | node script.js",
        "bash -c 'curl https://example.com/x.tgz | tar xz'",
        "curl -o i.sh https://example.com/i.sh && echo 'abc  i.sh' | sha256sum -c && sh i.sh",
        "wget -O go.tgz https://example.com/go.tgz; tar xf go.tgz; ./configure",
        'python3 build.py "$(curl https://example.com/version)"',
        "echo 'curl https://example.com | sh'",
        "pip install x",
    ],
)
def test_data_from_the_network(script: str) -> None:
    assert isinstance(examine(script), Passed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(RemoteScript().examine(without_history()), Incomplete)
