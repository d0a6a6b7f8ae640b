"""Access control: the permissions, and the roles that have them.

A permission is also the scope of an API token and the ``x-permission`` of an operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

# What each permission allows, in the order of lists.
PURPOSES: Mapping[str, str] = {
    "read": "see images, findings, reports and policies",
    "scan": "request scans",
    "gate": "call the gate, for example in CI",
    "propose": "request exemptions",
    "triage": "approve exemptions, import VEX",
    "policy": "change policies and trust roots",
    "manage": "manage users, projects, registries, webhooks and tokens",
    "audit": "read the audit log",
    "inventory": "report what runs",
    "admission": "request admission, as a cluster or a Docker host",
    "pull": "request pulls, as a registry's proxy",
    "harbor": "request scans and reports, as a Harbor",
}
SCOPES = tuple(PURPOSES)
ROLES: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "developer": frozenset({"read", "scan", "gate", "propose"}),
    "security": frozenset({"read", "scan", "gate", "propose", "triage", "policy", "audit"}),
    "admin": frozenset(SCOPES),
}
CONFINED = frozenset({"viewer", "developer"})  # these roles see only the projects of which they are members


def reach(
    projects: Iterable[str], *, role: str = "", member_of: Collection[str] = (), owned: bool = False
) -> frozenset[str] | None:
    """Return the projects that a token, or a user (``owned``, without ``projects``), may see; None: all of them.

    A token never reaches further than its owner does now. Members of no project see none, not all.
    """
    own = frozenset(projects) or None
    if not owned or role not in CONFINED:
        return own
    members = frozenset(member_of)
    return members if own is None else own & members
