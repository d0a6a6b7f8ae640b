"""Policies: validate, write, enable and disable.

Each change invalidates all decisions and writes an audit entry, in the caller's transaction.
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
    """Parse a policy. Signers must exist in the trust roots.

    Raises PolicyError with line and column of every problem, UsageError if the document's name is not ``name``.
    """
    parsed = parse_policy(text, name, known=trust_roots.known_to_authors(session))
    if name and parsed.name != name:
        raise UsageError(
            f"the policy's name in the document is {parsed.name!r}, but {name!r} is to be written", reason="invalid"
        )
    return parsed


def to_edit(session: Connection, actor: Actor, name: str, project: str = "") -> policies.PolicyView | None:
    """Return the newest version if the actor may edit the policy. None: the policy is new.

    ``project`` owns a new policy; empty: it applies to every project. Raises RefusedError, NotFoundError.
    """
    current = next((policy for policy in policies.list_policies(session) if policy.name == name), None)
    # First what a new policy takes: another project's policy must look like one that does not exist.
    if not project and not (current and actor.sees(current.project)):
        actor.require_every_project()
    owner = current.project if current else projects.visible_name(session, actor, project) if project else ""
    _require_author(actor, owner)
    return current


def write(
    session: Connection, actor: Actor, name: str, text: str, *, if_version: int | None, project: str = ""
) -> policies.PolicyView:
    """Write a new version, effective at once. An unchanged text creates no version.

    ``if_version``: the version that the actor edited, 0 for a new policy, None for any. Raises as `parse` and
    `to_edit`, and ConflictError(reason="edited_meanwhile").
    """
    parse(session, text, name)
    current = to_edit(session, actor, name, project)
    owner = current.project if current else project
    written = policies.put(session, name, text, actor.name, if_version=if_version, project=owner)
    # An unchanged text invalidates nothing: a pipeline that writes its policies at each commit must not cause a
    # decision about every image each time.
    if current is None or written.version != current.version:
        gate.invalidate(session)
        before = {"version": current.version, "digest": current.digest} if current else None
        detail = {"version": written.version, "digest": written.digest, "project": owner, "before": before}
        audit.record(session, actor, Action.POLICY_WRITE, written.name, detail=detail)
    return written


def set_enabled(session: Connection, actor: Actor, name: str, enabled: bool) -> policies.PolicyView:
    """Enable or disable a policy. Raises RefusedError, NotFoundError (also for another project's policy)."""
    before = policies.get(session, name, projects=actor.projects)
    _require_author(actor, before.project)
    policies.enable(session, name, enabled)
    gate.invalidate(session)
    action = Action.POLICY_ENABLE if enabled else Action.POLICY_DISABLE
    audit.record(session, actor, action, name, detail={"enabled": enabled, "before": {"enabled": before.enabled}})
    return policies.get(session, name)


def _require_author(actor: Actor, project: str) -> None:
    """Raise RefusedError unless the actor may edit policies of the project, or of every project if it is empty."""
    if project:
        actor.require_project(project, "policy")
    else:
        actor.require_every_project()
