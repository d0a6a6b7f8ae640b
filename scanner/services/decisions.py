"""Decisions from stored evidence, policies, exemptions, VEX statements and revocations.

Workers decide when evidence is new, the web process when a stored decision is outdated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy.engine import Connection

from scanner.model.actor import SERVICE
from scanner.model.audit import Action
from scanner.model.decision import Decision
from scanner.model.finding import CheckResult
from scanner.model.matching import RUNGS
from scanner.model.notification import EventKind, Level
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport
from scanner.model.vex import Exemption
from scanner.model.workload import Workload
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate, evaluate_workload, evidence_digest, worst
from scanner.policy.exempted import lapses
from scanner.policy.match import select
from scanner.policy.rules import KnownNames, Policy, default_policy, parse_policy
from scanner.reports.json import decision_text
from scanner.services.exemptions import event_of
from scanner.services.workloads import examine
from scanner.store import (
    audit,
    exemptions,
    gate,
    images,
    matches,
    outbox,
    policies,
    projects,
    registry_checks,
    revocations,
    scans,
    tags,
    vex,
)
from scanner.store.session import Database, moment


@dataclass(frozen=True)
class EnabledPolicy:
    """An enabled policy. ``project`` empty: it applies to every project."""

    policy: Policy
    version: int
    project: str = ""


def enabled_policies(session: Connection, known: KnownNames, at: datetime | None = None) -> list[EnabledPolicy]:
    """Return every enabled policy with its version; ``at``: those of a past moment.

    Raises PolicyError for a policy that this installation cannot parse. To skip it would silently allow what it denies.
    """
    return [
        EnabledPolicy(parse_policy(view.text, view.name, known=known), view.version, view.project)
        for view in (policies.list_policies(session) if at is None else policies.enabled_at(session, at))
        if at is not None or view.enabled
    ]


def decide_all(
    session: Connection,
    found: ScanReport,
    known: KnownNames,
    remedies: Mapping[str, str],
    environments: Sequence[str] = (),
    *,
    recorded: bool = True,
) -> list[images.DecisionRecord]:
    """Return a decision for each environment that a policy names, and one without environment.

    ``environments`` are additional ones. ``recorded`` is False for evidence that is not stored yet.
    """
    gate.begin_decision(session)
    _note_lapses(session, found)
    active = enabled_policies(session, known)
    # An environment that no policy names gets the decision without one, so it needs no decision of its own. This
    # keeps the number of stored decisions small however many environments clients invent.
    names = {"", *environments, *(name for one in active for name in one.policy.environments)}
    return [decide(session, found, active, known, remedies, name, recorded=recorded) for name in sorted(names)]


def refresh(database: Database, known: KnownNames, remedies: Mapping[str, str], *, seconds: float) -> int:
    """Renew outdated decisions for up to ``seconds``, so that lists show the gate's current answer.

    Returns their number.

    A decision is outdated if its validity has ended or a policy or exemption has changed. The gate does not depend
    on this: it renews a decision when it is asked.
    """
    ends, done = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        with database.read() as session:
            stale = images.stale(session, limit=1)
            if not stale:
                return done
            found = images.evidence(session, stale[0].report_id)
        made = database.uncrossed(
            partial(_renewed_decisions, old=stale[0], found=found, known=known, remedies=remedies)
        )
        done += bool(made)
        if any(one.decision.valid_until and one.decision.valid_until <= one.decision.decided_at for one in made):
            return done  # outdated again at once: continuing would decide about the same image until the time is over
    return done


def _renewed_decisions(
    session: Connection, old: images.Stale, found: ScanReport, known: KnownNames, remedies: Mapping[str, str]
) -> list[images.DecisionRecord]:
    """Return the decisions that replace an outdated one; none if another process has replaced it."""
    # Several workers refresh at once. Only the one that claims the row decides, and the claim is undone with the
    # transaction if that worker dies.
    if not images.claim_stale(session, old):
        return []
    made = decide_all(session, found, known, remedies, [old.environment])
    images.redecide(session, old.report_id, found, made, old.project)
    return made


def _note_lapses(session: Connection, found: ScanReport) -> None:
    """End the exemptions whose condition (until fixed, until exploited) the evidence meets, and record it.

    `evaluate` ignores them anyway. This makes their end visible to users.
    """
    owner = projects.owner(session, found.repository)
    for exemption, why in lapses(found, exemptions.exemptions_in_effect(session, owner)):
        if exemptions.lapse(session, exemption.id, why):
            audit.record(session, SERVICE, Action.EXEMPTION_LAPSE, exemption.id, detail={"project": owner, "why": why})
            ended = exemptions.get(session, exemption.id)
            told = event_of(ended, EventKind.EXEMPTION_LAPSED, f"An exemption lapsed: {why}", Level.WARNING, why=why)
            outbox.add(session, [told])


def epss_thresholds(active: Sequence[EnabledPolicy]) -> tuple[float, ...]:
    """Return the EPSS thresholds that matter: the default ones and those of enabled policies, ascending."""
    named = {r.vulnerability.epss for one in active for r in one.policy.rules if r.vulnerability}
    return tuple(sorted({*RUNGS, *(score for score in named if score is not None)}))


def decide(
    session: Connection,
    found: ScanReport,
    active: Sequence[EnabledPolicy],
    known: KnownNames,
    remedies: Mapping[str, str],
    environment: str,
    workloads: Sequence[Workload] = (),
    *,
    recorded: bool = True,
    at: datetime | None = None,
) -> images.DecisionRecord:
    """Return the worst decision of the policies that apply to this image and environment.

    ``at``: a past moment, for which exemptions, VEX statements, revocations and posture count as they were stored then.
    """
    owner = projects.owner(session, found.repository)
    # The project is that of the repository now. The policy of another project must not decide, also if that project
    # scanned the image first.
    concerned = [one for one in active if one.project in ("", owner)]
    versions = {one.policy.name: one.version for one in concerned}
    chosen = select([one.policy for one in concerned], found.repository, environment, default_policy(known))
    accepted = exemptions.exemptions_in_effect(session, owner, at)
    stated = vex.applicable(session, owner, _vulnerabilities(found), at)
    first_seen = (
        images.first_seen_times(session, found.repository, found)
        if any(rule.grace for p in chosen for rule in p.rules)
        else None
    )
    known_posture = registry_checks.of_host(session, found.repository.partition("/")[0], at)
    revoked = revocations.active(session, at)
    # Evidence that is not stored yet cannot have been confirmed by a re-match; asking would only cost a query.
    asked = recorded and matches.has_run(session)
    ages = any(policy.evidence_max_age for policy in chosen)
    immutable = found.tag and any(policy.immutable_tags for policy in chosen)
    named = tags.first(session, found.repository, found.tag) if immutable else None
    # Hashing a large report takes longer than the rest of the decision, so it is done only if needed.
    report_id = evidence_digest(found).hex if asked or ages else ""
    # At a past moment too: evidence that a later re-match confirmed was right then.
    confirmed = matches.confirmations(session, report_id) if asked else ()
    examined_at = scans.examined_at(session, report_id) if ages else None
    made = [
        evaluate(
            found,
            policy,
            Context(
                at or moment(session),
                version=versions.get(policy.name, 0),
                environment=environment,
                exemptions=accepted,
                vex=stated,
                first_seen=first_seen,
                workloads=tuple(workloads),
                workload_results=examine(workloads, found),
                remedies=remedies,
                posture=known_posture,
                revoked=revoked,
                confirmed=confirmed,
                examined_at=examined_at,
                first_named=(Digest(named.digest), named.seen_at) if named else None,
            ),
        )
        for policy in chosen
    ]
    # Several policies can apply to one image. The strictest one counts, so that adding a policy never allows more.
    decision = worst(made)
    return images.DecisionRecord(decision, decision_text(decision, found))


@dataclass(frozen=True)
class ExaminedWorkload:
    """A workload with the results of its checks, ``evidence`` the JSON that they are kept as."""

    workload: Workload
    results: Sequence[CheckResult]
    evidence: bytes
    repository: str
    project: str


@dataclass(frozen=True)
class Surroundings:
    """What decisions about many workloads share."""

    active: Sequence[EnabledPolicy]
    fallback: Policy  # the built-in policy, for images that no policy matches
    now: datetime
    remedies: Mapping[str, str]  # by check id


def decide_workload(
    one: ExaminedWorkload, around: Surroundings, environment: str, accepted: tuple[Exemption, ...]
) -> Decision:
    """Return the worst decision about a workload of the policies enabled for its image and environment."""
    concerned = [each for each in around.active if each.project in ("", one.project)]
    versions = {each.policy.name: each.version for each in concerned}
    chosen = select([each.policy for each in concerned], one.repository, environment, around.fallback)
    made = [
        evaluate_workload(
            one.workload,
            one.results,
            policy,
            Context(
                around.now,
                version=versions.get(policy.name, 0),
                environment=environment,
                exemptions=accepted,
                remedies=around.remedies,
            ),
            one.evidence,
        )
        for policy in chosen
    ]
    return worst(made)


def _vulnerabilities(found: ScanReport) -> set[str]:
    """Return the ids and aliases of all vulnerabilities in the report."""
    own = (v for image in found.images for engine in image.engines for v in engine.vulnerabilities)
    return {name for v in own for name in (v.id, *v.aliases)}
