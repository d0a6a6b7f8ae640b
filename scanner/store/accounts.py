"""Accounts: users with argon2id passwords, API tokens kept as hashes, web sessions that can be revoked."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.store.schema import token, user, web_session
from scanner.store.session import alone, moment

ROLES = ("viewer", "developer", "security", "admin")
SESSION_IDLE, SESSION_LIFE = timedelta(minutes=30), timedelta(hours=12)
_PASSWORD_MIN, _PASSWORD_MAX = 12, 1000
_FIRST_RUN = 0x0D0C4A0D1A


@dataclass(frozen=True)
class UserView:
    id: str
    name: str
    role: str
    disabled: bool
    created_at: datetime


@dataclass(frozen=True)
class TokenView:
    """A token without its secret. ``projects`` empty: all. ``owner_role`` empty: it has no owner, its scopes are all there is."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    projects: tuple[str, ...]
    owner_id: str | None
    owner_role: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class WebSession:
    """``stale``: its idle time should be begun anew (``touch_session``)."""

    user: UserView | None
    token: TokenView | None
    stale: bool = False


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    return PasswordHasher()


def create_user(session: Connection, name: str, password: str, role: str) -> UserView:
    """Raises UsageError for a role that there is not or a password too short, ConflictError for a name in use."""
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r}", hint="one of " + ", ".join(ROLES))
    if not _PASSWORD_MIN <= len(password) <= _PASSWORD_MAX:
        raise UsageError(f"a password has {_PASSWORD_MIN} to {_PASSWORD_MAX} characters", reason="bad_password")
    if not name.strip() or len(name) > 200:
        raise UsageError("a user's name has 1 to 200 characters")
    if session.execute(sa.select(user.c.id).where(user.c.name == name)).scalar():
        raise ConflictError(f"there is a user {name!r} already")
    identifier = str(uuid.uuid4())
    values = {"id": identifier, "name": name, "role": role, "disabled": False, "created_at": moment(session)}
    session.execute(user.insert().values(**values, password_hash=_hasher().hash(password)))
    return _user(session, identifier)


def verify_password(session: Connection, name: str, password: str) -> UserView | None:
    """The user, if this is the password. Takes as long for a name that there is not, so that nobody can tell."""
    row = session.execute(
        sa.select(user.c.id, user.c.password_hash, user.c.disabled).where(user.c.name == name)
    ).first()
    try:
        _hasher().verify(row.password_hash if row else _nobody(), password[:_PASSWORD_MAX])
    except (VerificationError, InvalidHashError):
        return None
    return _user(session, row.id) if row and not row.disabled else None


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher().hash(secrets.token_hex(16))


def list_users(session: Connection) -> tuple[UserView, ...]:
    rows = session.execute(
        sa.select(user.c.id, user.c.name, user.c.role, user.c.disabled, user.c.created_at).order_by(user.c.name)
    )
    return tuple(UserView(*row) for row in rows)


def set_disabled(session: Connection, user_id: str, disabled: bool) -> UserView:
    """Disable (which ends the user's sessions and tokens) or enable. Raises NotFoundError."""
    if session.execute(user.update().where(user.c.id == user_id).values(disabled=disabled)).rowcount != 1:
        raise NotFoundError("there is no such user")
    if disabled:
        end_all(session, user_id)
    return _user(session, user_id)


def _user(session: Connection, user_id: str) -> UserView:
    row = session.execute(
        sa.select(user.c.id, user.c.name, user.c.role, user.c.disabled, user.c.created_at).where(user.c.id == user_id)
    ).first()
    if row is None:
        raise NotFoundError("there is no such user")
    return UserView(*row)


# Tokens


def hash_token(text: str, key: Secret) -> str:
    """What is stored of a token or a session: useless without the key."""
    return hmac.new(key.reveal().encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def create_token(
    session: Connection,
    name: str,
    scopes: Sequence[str],
    key: Secret,
    *,
    projects: Iterable[str] = (),
    expires_at: datetime | None = None,
    owner_id: str | None = None,
) -> tuple[TokenView, Secret]:
    """A new token and its text, which is shown once and kept nowhere. Scopes have been checked by the caller."""
    prefix = secrets.token_hex(4)
    text = Secret(f"dw_{prefix}_{secrets.token_urlsafe(32)}")
    token_id = str(uuid.uuid4())
    session.execute(
        token.insert().values(
            id=token_id, name=name[:200], prefix=prefix, hash=hash_token(text.reveal(), key), scopes=list(scopes), projects=list(projects),
            owner_id=owner_id, created_at=moment(session), expires_at=expires_at,
        )
    )  # fmt: skip
    return _one_token(session, token.c.id == token_id), text


def find_token(session: Connection, text: str, key: Secret) -> TokenView | None:
    """The living token with this text: not expired, not revoked, its owner not disabled. Only reads."""
    now = moment(session)
    found = _tokens(session, token.c.hash == hash_token(text, key))
    return found[0] if found and _alive(session, found[0], now) else None


def _alive(session: Connection, found: TokenView, now: datetime) -> bool:
    if found.revoked_at or (found.expires_at and found.expires_at <= now):
        return False
    return not (found.owner_id and _user(session, found.owner_id).disabled)


def touch_token(session: Connection, token_id: str) -> None:
    """Note that a token was used. Callers do it at most once a minute, so that asking stays a read."""
    session.execute(token.update().where(token.c.id == token_id).values(last_used_at=moment(session)))


def list_tokens(session: Connection) -> tuple[TokenView, ...]:
    return _tokens(session, sa.true())


def get_token(session: Connection, token_id: str) -> TokenView:
    """Raises NotFoundError."""
    return _one_token(session, token.c.id == token_id)


def revoke_token(session: Connection, token_id: str) -> TokenView:
    """Effective at once, also for web sessions that were opened with it. Raises NotFoundError."""
    revoked = (
        token.update().where(token.c.id == token_id, token.c.revoked_at.is_(None)).values(revoked_at=moment(session))
    )
    session.execute(revoked)
    session.execute(web_session.delete().where(web_session.c.token_id == token_id))
    return _one_token(session, token.c.id == token_id)


def _tokens(session: Connection, where: sa.ColumnElement[bool]) -> tuple[TokenView, ...]:
    columns = (
        token.c.id, token.c.name, token.c.prefix, token.c.scopes, token.c.projects, token.c.owner_id, user.c.role, token.c.created_at,
        token.c.expires_at, token.c.last_used_at, token.c.revoked_at,
    )  # fmt: skip
    rows = session.execute(
        sa.select(*columns)
        .outerjoin(user, user.c.id == token.c.owner_id)
        .where(where)
        .order_by(token.c.created_at.desc())
    )
    return tuple(
        TokenView(
            r.id,
            r.name,
            r.prefix,
            tuple(r.scopes),
            tuple(r.projects),
            r.owner_id,
            r.role or "",
            r.created_at,
            r.expires_at,
            r.last_used_at,
            r.revoked_at,
        )
        for r in rows
    )


def _one_token(session: Connection, where: sa.ColumnElement[bool]) -> TokenView:
    found = _tokens(session, where)
    if not found:
        raise NotFoundError("there is no such token")
    return found[0]


# Web sessions


def begin_session(
    session: Connection, key: Secret, *, user_id: str | None = None, token_id: str | None = None
) -> Secret:
    """Open a web session and return its id, which only the cookie keeps."""
    text, now = secrets.token_urlsafe(32), moment(session)
    session.execute(
        web_session.insert().values(
            id_hash=hash_token(text, key),
            user_id=user_id,
            token_id=token_id,
            created_at=now,
            seen_at=now,
            expires_at=now + SESSION_LIFE,
        )
    )
    return Secret(text)


def find_session(session: Connection, text: str, key: Secret) -> WebSession | None:
    """Who a session belongs to, if it lives: not idle for 30 minutes, not older than 12 hours, its user or token not revoked."""
    now, id_hash = moment(session), hash_token(text, key)
    row = session.execute(sa.select(*web_session.c).where(web_session.c.id_hash == id_hash)).first()
    if row is None or row.expires_at <= now or row.seen_at + SESSION_IDLE <= now:
        return None
    stale = now - row.seen_at > timedelta(minutes=1)
    if row.user_id:
        found = _user(session, row.user_id)
        return None if found.disabled else WebSession(found, None, stale)
    tokens = _tokens(session, token.c.id == row.token_id)
    return WebSession(None, tokens[0], stale) if tokens and _alive(session, tokens[0], now) else None


def touch_session(session: Connection, text: str, key: Secret) -> None:
    """Begin a session's idle time anew. Callers do it at most once a minute."""
    id_hash = hash_token(text, key)
    session.execute(web_session.update().where(web_session.c.id_hash == id_hash).values(seen_at=moment(session)))


def end_session(session: Connection, text: str, key: Secret) -> None:
    session.execute(web_session.delete().where(web_session.c.id_hash == hash_token(text, key)))


def end_all(session: Connection, user_id: str) -> None:
    """Sign a user out everywhere."""
    session.execute(web_session.delete().where(web_session.c.user_id == user_id))


def is_empty(session: Connection) -> bool:
    """Whether nobody can sign in yet: the first run. Servers that start together find it out one after the other, to the end of their
    transactions: each would make an administrator's token otherwise."""
    alone(session, _FIRST_RUN)
    users = session.execute(sa.select(sa.func.count()).select_from(user)).scalar_one()
    tokens = session.execute(sa.select(sa.func.count()).select_from(token)).scalar_one()
    return not users and not tokens


def bootstrap(session: Connection, key: Secret) -> Secret | None:
    """The first run's admin token, made only while nobody can sign in. ``serve`` prints it, once; it is kept nowhere."""
    if not is_empty(session):
        return None
    scopes = ("read", "scan", "gate", "triage", "policy", "manage", "audit")
    expires = moment(session) + timedelta(days=365)
    return create_token(session, "bootstrap", scopes, key, expires_at=expires)[1]
