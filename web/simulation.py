"""Trying a policy on what is known: which images would newly be blocked or released. Evidence is not gathered again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from scanner import catalog, decisions
from scanner.model.decision import Verdict
from scanner.policy.rules import Policy
from scanner.store import images

MOST = 500


@dataclass(frozen=True)
class Flip:
    """An image in an environment, its verdict before and after, and the rules that decide afterwards."""

    image: str
    digest: str
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Simulation:
    """``truncated``: there are more images than were ``examined``; those scanned last were."""

    newly_denied: tuple[Flip, ...]
    newly_released: tuple[Flip, ...]
    unchanged: int
    examined: int
    truncated: bool


def simulate(session: Connection, new: Policy, projects: frozenset[str] | None, limit: int) -> Simulation:
    """What would change if ``new`` were in force in place of the policy of its name, on the images scanned last."""
    active = decisions.in_force(session, catalog.known())
    after = [*((policy, version) for policy, version in active if policy.name != new.name), (new, 0)]
    page = images.list_(session, projects, limit=min(limit, MOST))
    compared = [flip for item in page.items for flip in _compare(session, item, active, after, new, projects)]
    denied = tuple(f for f in compared if f.after is Verdict.DENY and f.before is not Verdict.DENY)
    released = tuple(f for f in compared if f.before is Verdict.DENY and f.after is not Verdict.DENY)
    unchanged = len(compared) - len(denied) - len(released)
    return Simulation(denied, released, unchanged, len(page.items), page.next_cursor is not None)


def _compare(
    session: Connection,
    item: images.ListedImage,
    before: Sequence[tuple[Policy, int]],
    after: Sequence[tuple[Policy, int]],
    new: Policy,
    projects: frozenset[str] | None,
) -> Iterator[Flip]:
    """The verdict before and after, for each environment that the policy concerns."""
    _, found = images.newest_report(session, item.digest, projects)
    known, remedies = catalog.known(), catalog.remedies()
    for environment in new.environments or ("",):
        old = decisions.decide(session, found, before, known, remedies, environment).decision
        now = decisions.decide(session, found, after, known, remedies, environment).decision
        rules = tuple(sorted({reason.rule for reason in now.reasons if reason.action is now.verdict}))
        yield Flip(item.name, item.digest, item.project, environment, old.verdict, now.verdict, rules)
