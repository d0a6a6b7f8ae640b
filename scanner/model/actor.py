"""Who acts: a person in a web session, an API token, the command line, or this service itself.

A use case in ``scanner.services`` takes an actor, checks what it may do, and writes its name into the audit log. The
web builds one from each request; the command line and the workers have the two constants below.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanner.errors import NotFoundError, RefusedError
from scanner.model.access import SCOPES


@dataclass(frozen=True)
class Person:
    """Somebody who answers for what they do. ``id`` is the same for all of a person's tokens and sessions."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Actor:
    """``id`` is stable and unique among users and tokens together; ``name`` is what the audit log shows.

    ``kind`` is ``user``, ``token``, ``command line`` or ``service``. ``projects`` None: every project. ``user_id``
    and ``user_name`` name the person behind it: empty for the command line and for a token without an owner.
    ``address`` is where the request came from; empty: this machine.
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
        """Who answers for it: the same for all of a person's sessions and tokens."""
        return Person(self.user_id or self.id, self.user_name or self.name)

    def require_every_project(self) -> None:
        """Raises RefusedError for an actor confined to projects: users, registries and shared policies belong to all
        of them.
        """
        if self.projects is not None:
            raise RefusedError("you are confined to projects", reason="not_allowed")

    def require_project(self, project: str, what: str = "project") -> None:
        """Raises NotFoundError for a project that this actor does not see: it must not learn that it exists."""
        if not self.sees(project):
            raise NotFoundError(f"there is no such {what}")


COMMAND_LINE = Actor("command line", "command line", "command line", frozenset(SCOPES), None)
SERVICE = Actor("dockwarden", "dockwarden", "service", frozenset(SCOPES), None)
