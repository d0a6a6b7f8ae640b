"""Who may do what: the permissions there are, and the roles that hold them.

A permission is also the scope of an API token and the ``x-permission`` of an operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

SCOPES = ("read", "scan", "gate", "propose", "triage", "policy", "manage", "audit", "inventory", "admission", "pull")
ROLES: Mapping[str, frozenset[str]] = {
    "viewer": frozenset({"read"}),
    "developer": frozenset({"read", "scan", "gate", "propose"}),
    "security": frozenset({"read", "scan", "gate", "propose", "triage", "policy", "audit"}),
    "admin": frozenset(SCOPES),
}
CONFINED = frozenset({"viewer", "developer"})  # these see the projects they are members of, and nothing else


def reach(
    projects: Iterable[str], *, role: str = "", member_of: Collection[str] = (), owned: bool = False
) -> frozenset[str] | None:
    """The projects that a token may see, or a user (``owned``, without ``projects``); None: every one.

    A token reaches no further than its owner still does. Membership of nothing is no project at all, never all of them.
    """
    own = frozenset(projects) or None
    if not owned or role not in CONFINED:
        return own
    members = frozenset(member_of)
    return members if own is None else own & members
