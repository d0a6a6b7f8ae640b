"""Deciding with the store's memory: which policies are in force, what was accepted, since when something is known. Used by workers when
evidence is new and by the web when time has passed over a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.engine import Connection

from scanner.model.finding import CheckResult
from scanner.model.scan import ScanReport
from scanner.policy.evaluate import Context, evaluate, worst
from scanner.policy.match import select
from scanner.policy.rules import Known, Policy, default_policy, parse_policy
from scanner.reports.json import decision_text
from scanner.store import images, policies
from scanner.store.session import moment


def in_force(session: Connection, known: Known) -> list[tuple[Policy, int]]:
    """Every enabled policy with its version. One that this installation cannot read raises: it must not silently be left out."""
    return [
        (parse_policy(view.text, view.name, known=known), view.version)
        for view in policies.list_(session)
        if view.enabled
    ]


def decide_all(
    session: Connection, found: ScanReport, known: Known, remedies: Mapping[str, str], environments: Sequence[str] = ()
) -> list[images.Made]:
    """A decision for each environment that a policy names, and one for no environment."""
    active = in_force(session, known)
    names = {"", *environments, *(name for policy, _ in active for name in policy.environments)}
    return [decide(session, found, active, known, remedies, name) for name in sorted(names)]


def decide(
    session: Connection,
    found: ScanReport,
    active: Sequence[tuple[Policy, int]],
    known: Known,
    remedies: Mapping[str, str],
    environment: str,
    workload_results: Sequence[CheckResult] = (),
) -> images.Made:
    """The worst decision of the policies in force for this image and environment."""
    versions = {policy.name: version for policy, version in active}
    chosen = select([policy for policy, _ in active], found.repository, environment, default_policy(known))
    first_seen = (
        images.seen(session, found.repository, found) if any(rule.grace for p in chosen for rule in p.rules) else None
    )
    made = [
        evaluate(
            found,
            policy,
            Context(
                moment(session),
                version=versions.get(policy.name, 0),
                environment=environment,
                first_seen=first_seen,
                workload_results=tuple(workload_results),
                remedies=remedies,
            ),
        )
        for policy in chosen
    ]
    decision = worst(made)
    return images.Made(decision, decision_text(decision, found))
