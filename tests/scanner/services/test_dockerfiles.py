"""A Dockerfile is judged by the checks that need no files, each finding at its line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from scanner import catalog
from scanner.model.decision import Verdict
from scanner.model.finding import Failed
from scanner.model.workload_audit import WorkloadReport
from scanner.policy.rules import Policy, default_policy, parse_policy
from scanner.services.dockerfiles import is_target, judge, read_target

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = """\
FROM debian:12-slim@sha256:{digest}
RUN apt-get update && apt-get install -y --no-install-recommends nginx && rm -rf /var/lib/apt/lists/*
HEALTHCHECK CMD ["/bin/check"]
USER 10001:10001
ENTRYPOINT ["/app"]
""".format(digest="1" * 64)


def judged(text: str, policy: Policy | None = None) -> WorkloadReport:
    (found,) = read_target("dockerfile:-", lambda: text.encode())
    return judge(found, policy or default_policy(catalog.known_names()), NOW)


def failed(report: WorkloadReport) -> dict[str, int | None]:
    """The line of the first evidence of each failed check."""
    return {
        result.check: result.outcome.evidence[0].line for result in report.checks if isinstance(result.outcome, Failed)
    }


def test_a_good_one_is_allowed() -> None:
    assert judged(GOOD).verdict is Verdict.ALLOW


def test_each_finding_has_its_line() -> None:
    report = judged("FROM debian\nENV PASSWORD=hunter2\nRUN curl https://example.com/i | bash\nEXPOSE 22\n")
    found = failed(report)
    expected = {"root-user": 1, "unpinned-base": 1, "embedded-secrets": 2, "remote-script": 3, "exposed-ssh": 4}
    assert {name: found.get(name) for name in expected} == expected
    assert report.verdict is Verdict.DENY
    assert "hunter2" not in repr(report)


def test_a_rule_with_parameters_has_its_line_too() -> None:
    text = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: ports}
rules: [{id: ports, check: risky-ports, parameters: {allow: ["9229"]}, action: deny}]
"""
    policy = parse_policy(text, known=catalog.known_names())
    (reason,) = judged("FROM x\nEXPOSE 9229 2375\n", policy).reasons
    assert (reason.evidence[0].path, reason.evidence[0].line) == ("standard input", 2)


def test_a_history_that_is_not_understood_is_unknown() -> None:
    report = judged(GOOD.replace("USER", "RUN <<EOF\n#!/usr/bin/python3\nx\nEOF\nUSER"))
    kinds = {result.check: result.outcome.kind for result in report.checks}
    assert kinds["remote-script"] == "incomplete"


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.prod", "web.dockerfile", "Containerfile"])
def test_a_dockerfile_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    assert not is_target(str(tmp_path / name)), "it is not there"
    (tmp_path / name).write_text(GOOD)
    assert is_target(str(tmp_path / name))


@pytest.mark.parametrize("name", ["compose.yaml", "Dockerfiles.md", "kubernetes:Dockerfile"])
def test_what_is_none(name: str) -> None:
    assert not is_target(name)
