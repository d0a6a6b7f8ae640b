"""Reports of audits, in what they have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from scanner import catalog
from scanner.model.workload_audit import AuditReport
from scanner.policy.rules import default_policy
from scanner.reports.base import AuditSubject
from scanner.services import workloads


def test_a_comment_says_how_many_findings_it_leaves_out() -> None:
    variables = ", ".join(f"A{number}_PASSWORD: hunter2x" for number in range(120))
    text = f"services: {{web: {{image: a, environment: {{{variables}}}}}}}"
    (workload,) = catalog.workload_sources()["compose"].parse(text, "f")
    now = datetime(2026, 5, 1, tzinfo=UTC)
    report = workloads.decide(workload, workloads.check(workload, None), default_policy(catalog.known_names()), now)
    audit = AuditSubject(AuditReport(("f",), (report,), "default", now, "1"), {}, {}, show_all=True)
    lines = catalog.reports()["markdown"].render_audit(audit).splitlines()
    total = next(int(line.split()[-2]) for line in lines if "<summary>" in line)
    assert total > 120
    assert f"… and {total - 100} findings more: the formats json and sarif list all of them." in lines
