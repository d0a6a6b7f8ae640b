"""User accounts: create, roles, passwords, sign-out.

An actor cannot manage a user who has more permissions than the actor. Otherwise an actor could set that user's
password, sign in and gain the permissions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError, RefusedError
from scanner.model.access import ROLES
from scanner.model.actor import SERVICE, Actor
from scanner.model.audit import Action
from scanner.services import _fields as fields
from scanner.store import accounts, audit, projects

USER_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._@-]*[A-Za-z0-9])?$"
USER_NAME_LENGTH = 64


def create_user(
    session: Connection, actor: Actor, name: str, password: str, role: str, member_of: Sequence[str] = ()
) -> accounts.UserView:
    """Create a user who signs in with a password. Raises UsageError naming the field, ConflictError, RefusedError."""
    actor.require_every_project()
    hint = "use letters and digits, with . _ @ - between them"
    fields.check_pattern("name", name, USER_NAME, USER_NAME_LENGTH, hint)
    _require_grantable(actor, role)
    user = accounts.create_user(session, name, password, role)
    for project in member_of:
        projects.add_member(session, project, user.id)
    detail: dict[str, object] = {"role": user.role, **({"projects": list(member_of)} if member_of else {})}
    _record(session, actor, Action.USER_CREATE, user, detail)
    return accounts.get_user(session, user.id)


def set_disabled(session: Connection, actor: Actor, user_id: str, disabled: bool) -> accounts.UserView:
    """Disable or enable a user. Disabling ends the user's sessions and tokens at once.

    Raises NotFoundError, ConflictError, RefusedError.
    """
    actor.require_every_project()
    # The last administrator could otherwise lock everybody out, themselves included, with one click.
    if disabled and actor.user_id == user_id:
        raise ConflictError("you cannot disable yourself", reason="own_account")
    before = _manageable(session, actor, user_id)
    user = accounts.set_disabled(session, user_id, disabled)
    action = Action.USER_DISABLE if disabled else Action.USER_ENABLE
    _record(session, actor, action, user, {"before": before.disabled, "after": user.disabled})
    return user


def set_role(session: Connection, actor: Actor, user_id: str, role: str) -> accounts.UserView:
    """Change a user's role and end all their sessions. Raises as `set_disabled`."""
    actor.require_every_project()
    _require_grantable(actor, role)
    if actor.user_id == user_id:
        raise ConflictError("you cannot change your own role", reason="own_account")
    before = _manageable(session, actor, user_id)
    user = accounts.set_role(session, user_id, role)
    _record(session, actor, Action.USER_ROLE, user, {"before": before.role, "after": user.role})
    return user


def set_password(session: Connection, actor: Actor, user_id: str, password: str) -> None:
    """Change a user's password and end all their sessions.

    Raises as `set_disabled`, UsageError(reason="bad_password").
    """
    actor.require_every_project()
    user = _manageable(session, actor, user_id)
    accounts.set_password(session, user.id, password)
    _record(session, actor, Action.USER_PASSWORD, user, {})


def sign_out(session: Connection, actor: Actor, user_id: str) -> int:
    """End all web sessions of a user. Returns their number. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    user = accounts.get_user(session, user_id)
    # No check of the target's role here, unlike the other functions: signing a user out gains the actor no
    # permission, and in an incident any manager of users must be able to end the sessions of a stolen account.
    ended = accounts.end_all(session, user.id)
    _record(session, actor, Action.USER_SIGN_OUT, user, {"ended": ended})
    return ended


def user_by_name(session: Connection, name: str) -> accounts.UserView:
    """Return a user by name. Raises NotFoundError."""
    found = accounts.find_user(session, name)
    if found is None:
        raise NotFoundError(f"there is no user {name!r}", hint="list the users: dockwarden user list", field="user")
    return found


def from_provider(session: Connection, who: accounts.Identity, role: str, address: str) -> accounts.UserView:
    """Return the user that an identity provider identified. Creates the account or updates its role if needed.

    Role and projects follow the user's groups at this sign-in. The audit log records both changes with the service as
    actor and ``address`` as its address: the user cannot grant a role.
    Raises RefusedError(reason="oidc_refused") for an account that is disabled.
    """
    # Read before the store changes the row: afterwards it is not known whether the role is new.
    before = accounts.find_identity(session, who)
    user = accounts.from_provider(session, who, role)
    if user.disabled:
        raise RefusedError("this account is disabled", reason="oidc_refused", hint="ask an administrator")
    actor = replace(SERVICE, address=address)
    if before is None:
        _record(session, actor, Action.USER_CREATE, user, {"role": user.role, "issuer": user.issuer})
    elif before.role != user.role:
        _record(session, actor, Action.USER_ROLE, user, {"before": before.role, "after": user.role})
    return user


# The actor's own account


def end_session(session: Connection, actor: Actor, session_id: str) -> None:
    """End one session of the actor. Raises NotFoundError."""
    accounts.end_session_of(session, actor.user_id, session_id)
    audit.record(session, actor, Action.SESSION_END, actor.user_id)


def end_own_sessions(session: Connection, actor: Actor) -> int:
    """End all sessions of the actor. Returns their number. Raises RefusedError for a token without an owner."""
    _require_person(actor)
    ended = accounts.end_all(session, actor.user_id)
    audit.record(session, actor, Action.SESSION_END_ALL, actor.user_id, detail={"ended": ended})
    return ended


def require_own_password(actor: Actor) -> None:
    """Raise RefusedError unless the actor is a person in a web session. A stolen token cannot change a password."""
    _require_person(actor)
    if actor.kind != "user":
        raise RefusedError("this needs a web session", reason="needs_person", hint="sign in with your password")


def change_own_password(session: Connection, actor: Actor, current: str, new: str) -> None:
    """Change the actor's password and end all their sessions. The caller has applied the rate limit.

    Raises RefusedError for a wrong current password, UsageError(reason="bad_password") for a new one that is too weak.
    """
    require_own_password(actor)
    if accounts.verify_password(session, actor.name, current) is None:
        # A session alone is not enough: an unlocked browser or a stolen cookie must not become a permanent takeover.
        raise RefusedError("the current password is wrong", reason="not_allowed", field="current")
    accounts.set_password(session, actor.user_id, new)
    audit.record(session, actor, Action.USER_PASSWORD, actor.user_id, detail={"name": actor.name})


def _require_person(actor: Actor) -> None:
    if not actor.user_id:
        raise RefusedError("this needs a user", reason="needs_person", hint="sign in as a user")


def _manageable(session: Connection, actor: Actor, user_id: str) -> accounts.UserView:
    user = accounts.get_user(session, user_id)
    _require_grantable(actor, user.role)
    return user


def _require_grantable(actor: Actor, role: str) -> None:
    if role not in ROLES:
        raise fields.invalid("role", f"there is no role {role[:64]!r}", "one of " + ", ".join(ROLES))
    if not ROLES[role] <= actor.permissions:
        raise RefusedError(
            f"you cannot grant the role {role!r}: it has permissions that you do not have",
            reason="not_allowed",
            field="role",
        )


def _record(
    session: Connection, actor: Actor, action: Action, user: accounts.UserView, detail: Mapping[str, object]
) -> None:
    audit.record(session, actor, action, user.id, detail={"name": user.name, **detail})
