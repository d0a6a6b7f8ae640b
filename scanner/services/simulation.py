"""Simulation of a policy: which images and running workloads it would newly deny or allow, and by which rule.

Decides about the stored evidence twice, with the current and with the proposed policy. One call is limited in images
and time; the next call continues at the cursor. ``services.dry_runs`` examines everything, as a job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.model.decision import Decision, Verdict
from scanner.model.scan import ScanReport
from scanner.policy.match import applies
from scanner.policy.rules import Policy, default_policy
from scanner.services import decisions
from scanner.services import inventory as use_cases
from scanner.store import exemptions, images, inventory, listings, policies
from scanner.store.page import Page
from scanner.store.session import moment

MOST = 500
_SECONDS = 10.0  # an answer takes no longer; the next page goes on from there
_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Flip:
    """An image in an environment with its verdicts before and after.

    ``rules`` and ``reasons`` are those of the worse of both decisions.
    """

    image: str
    digest: str  # the image's; ``image`` is its name
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: tuple[str, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkloadFlip:
    """A running workload, its verdict before and after: the worst of how it is run and of the images that it runs and
    mounts.
    """

    name: str
    uid: str  # the public id
    image: str
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    image_scanned: bool = True  # False: an image that it runs or mounts has no evidence, so that it was not examined


F = TypeVar("F", Flip, WorkloadFlip)
Row = TypeVar("Row")


@dataclass(frozen=True)
class Simulation(Generic[F]):
    """The result of a simulation. ``next_cursor``: not None if there is more than what was ``examined``."""

    newly_denied: tuple[F, ...]
    newly_released: tuple[F, ...]
    unchanged: int
    examined: int
    next_cursor: str | None = None

    @property
    def truncated(self) -> bool:
        return self.next_cursor is not None


def simulate(
    session: Connection,
    new: Policy,
    projects: frozenset[str] | None,
    limit: int,
    *,
    cursor: str | None = None,
    seconds: float = _SECONDS,
) -> Simulation[Flip]:
    """Return what changes if ``new`` replaces the policy of the same name. The newest scans come first. Read-only."""
    trial = Trial(session, new)
    return _simulate(
        lambda at, most: listings.list_images(session, projects, cursor=at, limit=most),
        trial.compare_listed,
        limit,
        cursor,
        seconds,
    )


def simulate_workloads(
    session: Connection,
    new: Policy,
    projects: frozenset[str] | None,
    limit: int,
    *,
    cursor: str | None = None,
    seconds: float = _SECONDS,
) -> Simulation[WorkloadFlip]:
    """Return what would change for running workloads if ``new`` replaced the policy with its name. Only reads.

    The worst workloads come first. Checks are not run again, and an image that was never scanned does not count.
    """
    trial = Trial(session, new)
    return _simulate(
        lambda at, most: inventory.list_workloads(session, projects, cursor=at, limit=most),
        lambda row: [trial.compare_workload(inventory.get(session, row.uid, projects), projects)],
        limit,
        cursor,
        seconds,
    )


def _simulate(
    page_of: Callable[[str | None, int], Page[Row]],
    compare: Callable[[Row], Iterable[F]],
    limit: int,
    cursor: str | None,
    seconds: float,
) -> Simulation[F]:
    """Compare page by page, until ``limit``, the end of the list, or the time that one answer may take."""
    ends, examined = time.monotonic() + seconds, 0
    compared: list[F] = []
    while examined < min(limit, MOST):
        page = page_of(cursor, min(_BETWEEN_LOOKS, min(limit, MOST) - examined))
        for item in page.items:
            compared += compare(item)
        examined, cursor = examined + len(page.items), page.next_cursor
        # The time is looked at between pages only: the first page is always finished, so each call makes progress.
        if cursor is None or time.monotonic() > ends:
            break
    denied = tuple(f for f in compared if f.after is Verdict.DENY and f.before is not Verdict.DENY)
    released = tuple(f for f in compared if f.before is Verdict.DENY and f.after is not Verdict.DENY)
    return Simulation(denied, released, len(compared) - len(denied) - len(released), examined, cursor)


class Trial:
    """Decides with the enabled policies, and with one of them replaced.

    ``at``: a past moment, with the policies of that time. See ``decisions.decide``.
    """

    def __init__(self, session: Connection, new: Policy, at: datetime | None = None) -> None:
        self._session, self._new, self._at = session, new, at
        self._known, self._remedies = catalog.known_names(), catalog.remedies()
        before = decisions.enabled_policies(session, self._known, at)
        self._former = next((each.policy for each in before if each.policy.name == new.name), None)
        owner = next((view.project for view in policies.list_policies(session) if view.name == new.name), "")
        others = [each for each in before if each.policy.name != new.name]
        after = [*others, decisions.EnabledPolicy(new, 0, owner)]
        fallback, now = default_policy(self._known), at or moment(session)
        self._around = [decisions.Surroundings(each, fallback, now, self._remedies) for each in (before, after)]
        self._environments = self._concerned_environments([each.policy for each in after])
        self._accepted = cache(lambda project: exemptions.exemptions_in_effect(session, project, at))
        # Hundreds of containers run one image. Its decision is made once for each environment and side.
        self._of_image = cache(self._decide_image)

    def _concerned_environments(self, active: Sequence[Policy]) -> tuple[str, ...]:
        """The environments in which a verdict may change."""
        sides = [each for each in (self._new, self._former) if each is not None]
        names = {name for each in sides for name in each.environments}
        if all(each.environments for each in sides):
            return tuple(sorted(names))
        # It applies to every environment, so also to those that other policies name, and to a request without one.
        return tuple(sorted({"", *names, *(name for each in active for name in each.environments)}))

    def environments(self, repository: str) -> tuple[str, ...]:
        """Return the environments in which the policy, or the version that it replaces, applies to a repository."""
        return tuple(each for each in self._environments if self.concerns(repository, each))

    def concerns(self, repository: str, environment: str) -> bool:
        """Return whether the policy, or the version that it replaces, applies."""
        sides = [each for each in (self._new, self._former) if each is not None]
        return any(applies(each, repository, environment) for each in sides)

    def compare_image(
        self, report_id: str, name: str, digest: str, project: str, environments: Sequence[str]
    ) -> Iterator[Flip]:
        """Yield the verdicts before and after for each environment. Raises NotFoundError: the evidence is gone."""
        found = images.evidence(self._session, report_id)
        for environment in environments:
            old, now = (self._decide(found, environment, side) for side in (0, 1))
            rules, reasons = _reason_texts(old if old.verdict.rank > now.verdict.rank else now)
            yield Flip(name, digest, project, environment, old.verdict, now.verdict, rules, reasons)

    def compare_listed(self, item: listings.ListedImage) -> Iterator[Flip]:
        """Yield the verdicts about a listed image, also where the policy does not apply: those are unchanged."""
        concerned = self.environments(item.repository) or self._new.environments or ("",)
        return self.compare_image(item.report_id, item.name, item.digest, item.project, concerned)

    def compare_workload(self, found: inventory.WorkloadDetail, projects: frozenset[str] | None = None) -> WorkloadFlip:
        """Return the verdicts about a running workload: the worst of how it is run and of its images.

        ``projects``: whose findings may be quoted. A mounted image can belong to another project than the workload. It
        counts for the verdict, as in the inventory, but the reasons quote its findings.
        """
        row, one = found.row, use_cases.examined_row(found)
        # A command can be a file of a mounted image, so that image runs as much as the container's own.
        used = {(row.repository, row.digest): row.project} if row.image else {}
        used |= {(each.repository, each.digest): each.project for each in row.mounted}
        states = inventory.image_states(self._session, row.environment, [each for each in used if each[1]])
        quoted = {each for each, project in used.items() if projects is None or project in projects}
        sides: list[list[Decision]] = []
        verdicts: list[Verdict] = []
        for side, around in enumerate(self._around):
            own = decisions.decide_workload(one, around, row.environment, self._accepted(row.project))
            of_images = {each: self._of_image(state.report_id, row.environment, side) for each, state in states.items()}
            everything = [own, *of_images.values()]
            verdicts.append(max((each.verdict for each in everything), key=_rank))
            sides.append([own, *(made for each, made in of_images.items() if each in quoted)])
        old, now = verdicts
        rules, reasons = _why_all(sides[0] if old.rank > now.rank else sides[1], max(old, now, key=_rank))
        scanned = all(each in states for each in used)
        return WorkloadFlip(
            row.name, row.uid, row.image, row.project, row.environment, old, now, rules, reasons, scanned
        )

    def _decide_image(self, report_id: str, environment: str, side: int) -> Decision:
        return self._decide(images.evidence(self._session, report_id), environment, side)

    def _decide(self, found: ScanReport, environment: str, side: int) -> Decision:
        active, known, remedies = self._around[side].active, self._known, self._remedies
        return decisions.decide(self._session, found, active, known, remedies, environment, at=self._at).decision


def _rank(verdict: Verdict) -> int:
    return verdict.rank


def _why_all(made: Sequence[Decision], worst: Verdict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the rules and reasons of the decisions with the worst verdict. Empty: those may not be quoted."""
    found = [_reason_texts(each) for each in made if each.verdict is worst]
    rules = sorted({rule for rules, _ in found for rule in rules})
    return tuple(rules), tuple(reason for _, reasons in found for reason in reasons)[:3]


def _reason_texts(decision: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    own = [reason for reason in decision.reasons if reason.action is decision.verdict]
    return tuple(sorted({reason.rule for reason in own})), tuple(reason.message for reason in own[:3])
