"""The actor of an operation: a user in a web session, an API token, the command line, or this service itself.

A use case in ``scanner.services`` takes an actor, checks its permissions, and writes its name into the audit log. The
web builds an actor from each request; the command line and the workers use the two constants below.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanner.errors import NotFoundError, RefusedError
from scanner.model.access import SCOPES


@dataclass(frozen=True)
class Person:
    """The person responsible for an action. ``id`` is the same for all tokens and sessions of a person."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor.

    ``id``: stable, and unique among users and tokens. ``name``: shown in the audit log. ``kind``: ``user``, ``token``,
    ``command line`` or ``service``. ``projects`` None: all projects. ``user_id``, ``user_name``: the person behind the
    actor; empty for the command line and for a token without an owner. ``address``: the client's IP address; empty:
    this machine.
    """

    id: str
    name: str
    kind: str
    permissions: frozenset[str]
    projects: frozenset[str] | None
    token_id: str = ""
    user_id: str = ""
    user_name: str = ""
    address: str = ""

    def may(self, permission: str) -> bool:
        return permission in self.permissions

    def sees(self, project: str) -> bool:
        return self.projects is None or project in self.projects

    @property
    def person(self) -> Person:
        """The responsible person: the same for all of their sessions and tokens, so nobody can approve their own
        request.
        """
        return Person(self.user_id or self.id, self.user_name or self.name)

    def require_every_project(self) -> None:
        """Raise RefusedError for an actor confined to projects.

        Users, registries and shared policies belong to all projects.
        """
        if self.projects is not None:
            raise RefusedError("this needs access to all projects", reason="not_allowed")

    def require_project(self, project: str, what: str = "project") -> None:
        """Raise NotFoundError for a project that this actor does not see, because it must not learn that it exists."""
        if not self.sees(project):
            raise NotFoundError(f"there is no such {what}")


# Who has a shell on the server can read its database: nothing is refused to it.
COMMAND_LINE = Actor("command line", "command line", "command line", frozenset(SCOPES), None)
# Workers, for what nobody requested.
SERVICE = Actor("dockwarden", "dockwarden", "service", frozenset(SCOPES), None)
