"""Simulation of a policy: which images it would newly deny or allow, and by which rule.

Decides about the stored evidence twice, with the current and with the proposed policy. One call is limited in images
and time; the next call continues at the cursor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.model.decision import Decision, Verdict
from scanner.policy.rules import Policy
from scanner.services import decisions
from scanner.store import images, listings, policies

MOST = 500
_SECONDS = 10.0
_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Flip:
    """An image in an environment with its verdicts before and after.

    ``rules`` and ``reasons`` are those of the worse of both decisions.
    """

    image: str
    digest: str
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Simulation:
    """The result of a simulation. ``next_cursor``: not None if more images exist than were ``examined``."""

    newly_denied: tuple[Flip, ...]
    newly_released: tuple[Flip, ...]
    unchanged: int
    examined: int
    next_cursor: str | None = None

    @property
    def truncated(self) -> bool:
        return self.next_cursor is not None


def simulate(
    session: Connection, new: Policy, projects: frozenset[str] | None, limit: int, *, cursor: str | None = None
) -> Simulation:
    """Return what changes if ``new`` replaces the policy of the same name. The newest scans come first. Read-only."""
    active = decisions.in_force(session, catalog.known())
    owner = next((view.project for view in policies.list_(session) if view.name == new.name), "")
    after = [*(one for one in active if one.policy.name != new.name), decisions.InForce(new, 0, owner)]
    ends, examined = time.monotonic() + _SECONDS, 0
    compared: list[Flip] = []
    while examined < min(limit, MOST):
        page = listings.list_(session, projects, cursor=cursor, limit=min(_BETWEEN_LOOKS, min(limit, MOST) - examined))
        for item in page.items:
            compared += _compare(session, item, active, after, new)
        examined, cursor = examined + len(page.items), page.next_cursor
        if cursor is None or time.monotonic() > ends:
            break
    denied = tuple(f for f in compared if f.after is Verdict.DENY and f.before is not Verdict.DENY)
    released = tuple(f for f in compared if f.before is Verdict.DENY and f.after is not Verdict.DENY)
    return Simulation(denied, released, len(compared) - len(denied) - len(released), examined, cursor)


def _compare(
    session: Connection,
    item: listings.ListedImage,
    before: Sequence[decisions.InForce],
    after: Sequence[decisions.InForce],
    new: Policy,
) -> Iterator[Flip]:
    """Yield the verdicts before and after for each environment of the policy."""
    found = images.evidence(session, item.report_id)
    known, remedies = catalog.known(), catalog.remedies()
    for environment in new.environments or ("",):
        old = decisions.decide(session, found, before, known, remedies, environment).decision
        now = decisions.decide(session, found, after, known, remedies, environment).decision
        rules, reasons = _why(old if old.verdict.rank > now.verdict.rank else now)
        yield Flip(item.name, item.digest, item.project, environment, old.verdict, now.verdict, rules, reasons)


def _why(decision: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    own = [reason for reason in decision.reasons if reason.action is decision.verdict]
    return tuple(sorted({reason.rule for reason in own})), tuple(reason.message for reason in own[:3])
