"""Policies: who may write one, what a text must be to be written, and putting one in or out of force.

Each change lets every decision be made anew and is in the audit log, in the transaction that the caller opened.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.errors import UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.policy.rules import Policy, parse_policy
from scanner.services import projects, trust_roots
from scanner.store import audit, gate, policies


def parse(session: Connection, text: str, name: str = "") -> Policy:
    """A document as it could be written now: signers are those that the trust roots know.

    Raises PolicyError with every problem's line and column; UsageError when it is not named ``name``.
    """
    parsed = parse_policy(text, name, known=trust_roots.known_to_authors(session))
    if name and parsed.name != name:
        raise UsageError(f"the document is named {parsed.name!r}, the address {name!r}", reason="invalid")
    return parsed


def to_edit(session: Connection, actor: Actor, name: str, project: str = "") -> policies.PolicyView | None:
    """The newest version, for an actor who is about to write the next one; None: there is no such policy yet.

    ``project`` owns a new policy; empty: it judges every project's images. Raises RefusedError and NotFoundError.
    """
    current = next((policy for policy in policies.list_(session) if policy.name == name), None)
    owner = current.project if current else projects.named(session, actor, project) if project else ""
    _require_author(actor, owner)
    return current


def write(
    session: Connection, actor: Actor, name: str, text: str, *, if_version: int | None, project: str = ""
) -> policies.PolicyView:
    """Record a new version, in force at once; none when the text is that of the version in force.

    ``if_version``: the version that the actor edited, 0 for a new policy, None for any. Raises as `parse` and
    `to_edit`, and ConflictError(reason="edited_meanwhile").
    """
    parse(session, text, name)
    current = to_edit(session, actor, name, project)
    owner = current.project if current else project
    written = policies.put(session, name, text, actor.name, if_version=if_version, project=owner)
    if current is None or written.version != current.version:
        gate.invalidate(session)
        before = {"version": current.version, "digest": current.digest} if current else None
        detail = {"version": written.version, "digest": written.digest, "project": owner, "before": before}
        audit.record(session, actor, Action.POLICY_WRITE, written.name, detail=detail)
    return written


def set_enabled(session: Connection, actor: Actor, name: str, enabled: bool) -> policies.PolicyView:
    """Put a policy in force, or out of it. Raises NotFoundError, also for another project's, and RefusedError."""
    before = policies.get(session, name, projects=actor.projects)
    _require_author(actor, before.project)
    policies.enable(session, name, enabled)
    gate.invalidate(session)
    action = Action.POLICY_ENABLE if enabled else Action.POLICY_DISABLE
    audit.record(session, actor, action, name, detail={"enabled": enabled, "before": {"enabled": before.enabled}})
    return policies.get(session, name)


def _require_author(actor: Actor, project: str) -> None:
    """A project's policy is its own people's to change; one that judges every project needs an actor who sees them
    all.
    """
    if project:
        actor.require_project(project, "policy")
    else:
        actor.require_every_project()
