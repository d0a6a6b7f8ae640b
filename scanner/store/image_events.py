"""What the recording of evidence and decisions tells: events for the outbox."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.decision import Decision, Verdict
from scanner.model.finding import Severity, Vulnerability
from scanner.model.notification import Event, EventKind, Level
from scanner.model.scan import ScanReport
from scanner.store import inventory
from scanner.store.schema import finding, image, vulnerability

_MAX_LISTED = 50  # of one image's new vulnerabilities, the worst first
_REASONS = 5


def verdict_event(found: ScanReport, decision: Decision, project: str) -> Event:
    """A verdict that is the first, or another than before."""
    denied = decision.verdict is Verdict.DENY
    reasons = [reason for reason in decision.reasons if reason.action is decision.verdict]
    rule = reasons[0].rule if reasons else ""
    where = f" in {decision.environment}" if decision.environment else ""
    headline = {Verdict.ALLOW: "Allowed", Verdict.WARN: "Allowed with warnings", Verdict.DENY: "Denied"}
    by = f" by rule {rule} of policy {decision.policy}" if denied and rule else ""
    return Event(
        EventKind.IMAGE_DENIED if denied else EventKind.IMAGE_DECIDED,
        f"{found.repository or found.digest} {decision.environment}".strip(),
        f"{'Undecided (denied)' if decision.undecided else headline[decision.verdict]}{where}{by}",
        project,
        group=denied_group(decision.policy, rule) if denied else f"{decision.verdict} {decision.environment}",
        item=_name(found),
        level=Level.ERROR if denied else Level.INFO,
        path=f"/images/{found.digest}",
        data={
            **_of_image(found),
            "verdict": decision.verdict.value,
            "undecided": decision.undecided,
            "environment": decision.environment,
            "policy": decision.policy,
            "rule": rule,
            "reasons": [reason.message[:300] for reason in reasons[:_REASONS]],
        },
    )


def denied_group(policy: str, rule: str) -> str:
    """Images that are denied by one rule are one group."""
    return f"{policy} {rule}"


def new_vulnerabilities(
    session: Connection, found: ScanReport, project: str, new: Iterable[Vulnerability]
) -> list[Event]:
    """Critical or exploited vulnerabilities that an image has now and had not before."""
    worst: dict[str, Vulnerability] = {}
    for one in sorted(filter(is_urgent, new), key=lambda v: (not v.known_exploited, -v.severity.rank, v.id)):
        worst.setdefault(one.id, one)
    if not worst:
        return []
    running = _is_running(session, found)
    return [_new_vulnerability(found, project, one, running) for one in list(worst.values())[:_MAX_LISTED]]


def _new_vulnerability(found: ScanReport, project: str, one: Vulnerability, running: bool) -> Event:
    exploited = ", known to be exploited" if one.known_exploited else ""
    return Event(
        EventKind.VULNERABILITY_NEW,
        one.id,
        f"{one.id} ({one.severity}{exploited})",
        project,
        item=f"{_name(found)} ({one.package} {one.installed_version})",
        # A vulnerability in an image that runs is urgent however it is rated.
        level=Level.CRITICAL if one.known_exploited or running else Level.ERROR,
        path=f"/vulnerabilities/{quote(one.id, safe='')}",
        data={
            **_of_image(found),
            "vulnerability": one.id,
            "severity": one.severity.value,
            "exploited": bool(one.known_exploited),
            "running": running,
            "package": one.package,
            "installed_version": one.installed_version,
            "fixed_versions": list(one.fixed_versions[:5]),
            "fixable": one.fixable,
        },
    )


def is_urgent(one: Vulnerability) -> bool:
    return one.severity is Severity.CRITICAL or bool(one.known_exploited)


def become_urgent(former: Sequence[Vulnerability], now: Sequence[Vulnerability]) -> list[Vulnerability]:
    """Those that were not there, or were there and neither critical nor exploited; and those exploited since."""
    before = {(v.purl, v.id): (is_urgent(v), bool(v.known_exploited)) for v in former}
    return [v for v in now if is_urgent(v) and _is_new(before.get((v.purl, v.id)), v)]


def _is_new(before: tuple[bool, bool] | None, now: Vulnerability) -> bool:
    return before is None or not before[0] or (bool(now.known_exploited) and not before[1])


def known_before(session: Connection, digests: Collection[str]) -> Mapping[str, frozenset[str]] | None:
    """The vulnerabilities that stored evidence of these images has, by image; None: none of them is stored."""
    stored = session.execute(sa.select(image.c.id, image.c.digest).where(image.c.digest.in_(list(digests)))).all()
    if not stored:
        return None
    query = (
        sa.select(finding.c.image_id, vulnerability.c.name)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .where(finding.c.image_id.in_([row.id for row in stored]))
    )
    names: dict[int, set[str]] = {}
    for row in session.execute(query):
        names.setdefault(row.image_id, set()).add(row.name)
    return {row.digest: frozenset(names.get(row.id, ())) for row in stored}


def tag_moved(repository: str, tag: str, digest: str, former: str, project: str) -> Event:
    """A tag names another image than before."""
    return Event(
        EventKind.TAG_MOVED,
        f"{repository}:{tag}",
        "A tag names another image than before",
        project,
        item=f"{repository}:{tag}",
        level=Level.INFO,
        path=f"/images/{digest}",
        data={"repository": repository, "tag": tag, "digest": digest, "former_digest": former},
    )


def _is_running(session: Connection, found: ScanReport) -> bool:
    digests = {str(found.digest), *(str(item.image.digest) for item in found.images)}
    return bool(session.execute(sa.select(inventory.runs(*sorted(digests)))).scalar_one())


def _name(found: ScanReport) -> str:
    if not found.repository:
        return str(found.digest)
    return f"{found.repository}:{found.tag}" if found.tag else f"{found.repository}@{found.digest}"


def _of_image(found: ScanReport) -> dict[str, Any]:
    return {"repository": found.repository, "tag": found.tag, "digest": str(found.digest)}
