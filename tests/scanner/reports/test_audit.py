"""Reports of audits, in what they have in common."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from scanner import catalog
from scanner.model.workload_audit import AuditReport
from scanner.policy.rules import default_policy
from scanner.reports.base import AuditSubject
from scanner.services import workloads
from tests.scanner.reports.test_shapes import OFFICIAL


def audited(text: str, file: str) -> AuditSubject:
    """A Compose file, decided by the default policy."""
    now, policy = datetime(2026, 5, 1, tzinfo=UTC), default_policy(catalog.known_names())
    reports = tuple(
        workloads.decide(each, workloads.check(each, None), policy, now)
        for each in catalog.workload_sources()["compose"].parse(text, file)
    )
    return AuditSubject(AuditReport((file,), reports, "default", now, "1"), {}, {}, show_all=True)


def test_a_comment_says_how_many_findings_it_leaves_out() -> None:
    variables = ", ".join(f"A{number}_PASSWORD: hunter2x" for number in range(120))
    text = f"services: {{web: {{image: a, environment: {{{variables}}}}}}}"
    lines = catalog.reports()["markdown"].render_audit(audited(text, "f")).splitlines()
    total = next(int(line.split()[-2]) for line in lines if "<summary>" in line)
    assert total > 120
    assert f"… and {total - 100} findings more: the formats json and sarif list all of them." in lines


def test_sarif_of_an_audit_is_valid_and_says_what_is_unknown_where() -> None:
    subject = audited("services:\n  web:\n    image: a\n    privileged: true\n", "/srv/my app/100%.yaml")
    document = json.loads(catalog.reports()["sarif"].render_audit(subject))
    assert list(OFFICIAL.iter_errors(document)) == []
    (run,) = document["runs"]
    for found in run["results"]:
        assert run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "srv/my%20app/100%25.yaml"
    (privileged,) = (each for each in run["results"] if each["ruleId"] == "privileged-container")
    assert (privileged["level"], privileged["locations"][0]["physicalLocation"]["region"]["startLine"]) == ("error", 4)
    notified = {each["descriptor"]["id"]: each for each in run["invocations"][0]["toolExecutionNotifications"]}
    unknown = notified["runs-as-root"]
    assert unknown["message"]["text"] == (
        "web: runs-as-root: unknown: runs as the user of its image, which was not examined"
    )
    assert unknown["locations"][0]["physicalLocation"]["region"] == {"startLine": 2}
    assert (
        "::error file=/srv/my app/100%25.yaml,line=2,title=Unknown::web: runs-as-root: unknown: runs as the user"
        in (catalog.reports()["github"].render_audit(subject))
    )


def test_a_table_fits_its_terminal() -> None:
    subject = audited("services:\n  web:\n    image: a\n    privileged: true\n", "compose.yaml")
    for width in (40, 80, 120):
        text = catalog.reports()["table"].render_audit(replace(subject, width=width))
        # A remedy is copied, so it stays in one line.
        own = [line for line in text.splitlines() if not line.lstrip().startswith("→") and " (" in line]
        assert max(map(len, own)) <= width
