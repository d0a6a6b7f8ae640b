"""Users (argon2id passwords or an identity provider), API tokens (stored as HMACs) and web sessions."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.engine import Connection

from scanner.config import Secret, keys_of
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.model.access import ROLES, reach
from scanner.store.schema import project, project_member, token, user, web_session
from scanner.store.session import moment, take_lock

# OWASP, Session Management: idle and absolute timeout of an administrative application.
SESSION_IDLE, SESSION_LIFE = timedelta(minutes=30), timedelta(hours=12)
# Characters (NIST SP 800-63B: length, no composition rules), and different ones among them.
_PASSWORD_MIN, _PASSWORD_MAX, _PASSWORD_VARIETY = 12, 1000, 5
# zxcvbn rates the first 72 characters from 0 to 4; 3 means more than 10^8 guesses.
_PASSWORD_JUDGED, _PASSWORD_SCORE = 72, 3
_MOST_BOUND = 500  # bound parameters in one query
# Advisory locks of PostgreSQL are numbers. Each module uses its own.
_FIRST_RUN = 0x0D0C4A0D1D


@dataclass(frozen=True)
class UserView:
    """A user without the password hash.

    ``projects`` are the memberships; `reach` is what the user can see. ``issuer`` empty: a local user with a password.
    """

    id: str
    name: str
    role: str  # one of ``scanner.model.access.ROLES``
    disabled: bool  # cannot sign in, and the user's tokens are refused
    created_at: datetime
    issuer: str = ""
    signed_in_at: datetime | None = None  # None: never
    projects: tuple[str, ...] = ()

    @property
    def reach(self) -> frozenset[str] | None:
        """Return the projects that the user can see; None: all."""
        return reach((), role=self.role, member_of=self.projects, owned=True)


@dataclass(frozen=True)
class TokenView:
    """A token without its secret.

    ``projects`` empty: all. ``owner_role`` empty: the token has no owner, so only its scopes limit it.
    ``member_of``: the owner's projects.
    """

    id: str
    name: str
    prefix: str  # the visible beginning, to find a leaked token without its secret
    scopes: tuple[str, ...]
    projects: tuple[str, ...]
    owner_id: str | None  # None: it has no owner
    owner_role: str
    created_at: datetime
    expires_at: datetime | None  # None: never
    last_used_at: datetime | None  # None: never used
    revoked_at: datetime | None  # None: valid
    member_of: tuple[str, ...] = ()
    owner_name: str = ""

    @property
    def reach(self) -> frozenset[str] | None:
        """Return the projects that the token can see, at most those of its owner; None: all."""
        return reach(self.projects, role=self.owner_role, member_of=self.member_of, owned=self.owner_id is not None)


@dataclass(frozen=True)
class WebSession:
    """The user or token of a session. ``stale``: the caller should renew its idle time (``touch_session``)."""

    user: UserView | None
    token: TokenView | None
    stale: bool = False


@dataclass(frozen=True)
class OpenSession:
    """A web session for the list of a user's sessions. ``id`` is the stored hash, with which nobody can sign in."""

    id: str
    created_at: datetime
    seen_at: datetime  # the last request; written once a minute at most
    expires_at: datetime
    address: str  # IP address at the sign-in
    agent: str  # the browser's User-Agent header: untrusted text, for display only


@dataclass(frozen=True)
class Identity:
    """A user of an identity provider.

    ``subject`` identifies the user at ``issuer``; ``name`` may change or be reused.
    """

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    return PasswordHasher()


def create_user(session: Connection, name: str, password: str, role: str) -> UserView:
    """Create a local user.

    Raises UsageError for an unknown role or a weak password, ConflictError for a name in use.
    """
    _check_role(role)
    if not name.strip() or len(name) > 200:
        raise UsageError("a user's name has 1 to 200 characters")
    check_password(password, name)
    if session.execute(sa.select(user.c.id).where(user.c.name == name)).scalar():
        raise ConflictError(f"a user {name!r} exists already")
    return _insert_user(session, name, role, password_hash=_hasher().hash(password))


def _insert_user(session: Connection, name: str, role: str, **more: object) -> UserView:
    identifier = str(uuid.uuid4())
    values = {"id": identifier, "name": name, "role": role, "disabled": False, "created_at": moment(session), **more}
    session.execute(user.insert().values(**values))
    return get_user(session, identifier)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r}", hint="one of " + ", ".join(ROLES))


def check_password(password: str, name: str) -> None:
    """Raise UsageError(reason="bad_password") for a password that is too short or easy to guess (NIST SP 800-63B).

    There are no rules about kinds of characters, which lead to predictable passwords.
    """
    if not _PASSWORD_MIN <= len(password) <= _PASSWORD_MAX:
        raise UsageError(f"a password has {_PASSWORD_MIN} to {_PASSWORD_MAX} characters", reason="bad_password")
    # The user's own name is the first guess of every attacker, and zxcvbn looks only at the first 72 characters.
    if len(set(password)) < _PASSWORD_VARIETY or (len(name) > 3 and name.casefold() in password.casefold()):
        raise _easily_guessed()
    from zxcvbn import zxcvbn  # imported here: it loads word lists for 0.1 s

    # zxcvbn also recognises a common password with additions. Its time grows with the square of the length.
    if zxcvbn(password[:_PASSWORD_JUDGED], user_inputs=[name, "dockwarden"])["score"] < _PASSWORD_SCORE:
        raise _easily_guessed()


def _easily_guessed() -> UsageError:
    return UsageError(
        "this password is easy to guess",
        reason="bad_password",
        hint="use several unrelated words, without your name; do not add digits to a common password",
    )


def verify_password(session: Connection, name: str, password: str) -> UserView | None:
    """Return the user if the password is correct, or None.

    An unknown name is verified against a random hash: equal response times do not reveal which users exist.
    """
    row = session.execute(
        sa.select(user.c.id, user.c.password_hash, user.c.disabled).where(user.c.name == name)
    ).first()
    try:
        # Cut before it is hashed: argon2 reads all of it, and a sign-in form accepts any length.
        _hasher().verify((row and row.password_hash) or _nobody(), password[:_PASSWORD_MAX])
    except (VerificationError, InvalidHashError):
        return None
    return get_user(session, row.id) if row and row.password_hash and not row.disabled else None


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher().hash(secrets.token_hex(16))


def list_users(session: Connection) -> tuple[UserView, ...]:
    return _users(session, sa.true())


def get_user(session: Connection, user_id: str) -> UserView:
    """Return the user. Raises NotFoundError."""
    found = _users(session, user.c.id == user_id)
    if not found:
        raise NotFoundError("there is no such user")
    return found[0]


def find_user(session: Connection, name: str) -> UserView | None:
    """Return a user by name, or None."""
    found = _users(session, user.c.name == name)
    return found[0] if found else None


def _users(session: Connection, where: sa.ColumnElement[bool]) -> tuple[UserView, ...]:
    columns = (
        user.c.id,
        user.c.name,
        user.c.role,
        user.c.disabled,
        user.c.created_at,
        user.c.issuer,
        user.c.signed_in_at,
    )
    rows = session.execute(sa.select(*columns).where(where).order_by(user.c.name)).all()
    members = _memberships(session, [row.id for row in rows])
    return tuple(UserView(*row, projects=members.get(row.id, ())) for row in rows)


def _memberships(session: Connection, user_ids: Sequence[str | None]) -> dict[str, tuple[str, ...]]:
    """Return the projects of each user."""
    wanted = {identifier for identifier in user_ids if identifier}
    if not wanted:
        return {}
    query = sa.select(project_member.c.user_id, project_member.c.project).order_by(project_member.c.project)
    # Both databases limit the parameters of one query. Above that, reading the whole table is simpler than several
    # queries, and an installation has few members.
    if len(wanted) < _MOST_BOUND:
        query = query.where(project_member.c.user_id.in_(wanted))
    found: dict[str, list[str]] = defaultdict(list)
    for row in session.execute(query):
        found[row.user_id].append(row.project)
    return {identifier: tuple(names) for identifier, names in found.items()}


def set_disabled(session: Connection, user_id: str, disabled: bool) -> UserView:
    """Disable or enable a user. Disabling ends the user's sessions; tokens check it at use. Raises NotFoundError."""
    _change_user(session, user_id, disabled=disabled)
    if disabled:
        end_all(session, user_id)
    return get_user(session, user_id)


def set_role(session: Connection, user_id: str, role: str) -> UserView:
    """Change a role and end the user's sessions, which have the old permissions. Raises NotFoundError, UsageError."""
    _check_role(role)
    _change_user(session, user_id, role=role)
    end_all(session, user_id)
    return get_user(session, user_id)


def set_password(session: Connection, user_id: str, password: str) -> UserView:
    """Change a local user's password and end all sessions.

    Raises NotFoundError, UsageError, ConflictError.
    """
    found = get_user(session, user_id)
    if found.issuer:
        raise ConflictError(f"{found.name!r} signs in at {found.issuer} and has no password here", reason="no_password")
    check_password(password, found.name)
    _change_user(session, user_id, password_hash=_hasher().hash(password))
    end_all(session, user_id)
    return found


def _change_user(session: Connection, user_id: str, **values: object) -> None:
    if session.execute(user.update().where(user.c.id == user_id).values(**values)).rowcount != 1:
        raise NotFoundError("there is no such user")


def signed_in(session: Connection, user_id: str) -> None:
    """Record the time of a sign-in."""
    _change_user(session, user_id, signed_in_at=moment(session))


def from_provider(session: Connection, who: Identity, role: str) -> UserView:
    """Return the user of an identity, created at the first sign-in.

    Role and group memberships are replaced by those of this sign-in. An identity never matches a local user of the same
    name, which would let the provider's users take over accounts: the provider's host is added to the name.
    """
    _check_role(role)
    known = find_identity(session, who)
    if known is None:
        name = _free_name(session, who)
        known = _insert_user(session, name, role, password_hash="", issuer=who.issuer, subject=who.subject)
    elif known.role != role:
        set_role(session, known.id, role)
    _join_by_group(session, known.id, who.groups)
    return get_user(session, known.id)


def find_identity(session: Connection, who: Identity) -> UserView | None:
    """Return the user of an identity that has signed in before, or None."""
    found = _users(session, sa.and_(user.c.issuer == who.issuer, user.c.subject == who.subject))
    return found[0] if found else None


def _free_name(session: Connection, who: Identity) -> str:
    plain = who.name.strip()[:150] or who.subject[:150]
    host = who.issuer.partition("://")[2].partition("/")[0][:40]
    for name in (plain, f"{plain}@{host}", f"{plain}@{host}~{hashlib.sha256(who.subject.encode()).hexdigest()[:8]}"):
        if find_user(session, name) is None:
            return name
    raise ConflictError("too many users have this name")


def _join_by_group(session: Connection, user_id: str, groups: frozenset[str]) -> None:
    """Replace the memberships that come from groups. Those that an administrator added are kept."""
    mine = project_member.c.user_id == user_id
    # Delete first, then add what the provider says now. A user who left a group loses its project with this sign-in.
    session.execute(project_member.delete().where(mine, project_member.c.source == "oidc"))
    local = set(session.execute(sa.select(project_member.c.project).where(mine)).scalars())
    for row in session.execute(sa.select(project.c.name, project.c.groups)).all():
        if row.name not in local and groups & set(row.groups):
            values = {"user_id": user_id, "project": row.name, "source": "oidc", "added_at": moment(session)}
            session.execute(project_member.insert().values(**values))


# Tokens


def hash_token(text: str, key: Secret) -> str:
    """Return the HMAC that is stored for a token or session. A leaked database is useless without the key."""
    return hmac.new(key.reveal().encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def hashes(text: str, key: Secret) -> tuple[str, ...]:
    """Return the hashes under which it may be stored: with the current and the previous key (rotation)."""
    return tuple(hash_token(text, one) for one in keys_of(key))


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
    """Create a token and return it with its text, which is not stored. The caller has checked the scopes."""
    prefix = secrets.token_hex(4)
    text = Secret(f"dw_{prefix}_{secrets.token_urlsafe(32)}")
    token_id = str(uuid.uuid4())
    session.execute(
        token.insert().values(
            id=token_id,
            name=name[:200],
            prefix=prefix,
            hash=hash_token(text.reveal(), key),
            scopes=list(scopes),
            projects=list(projects),
            owner_id=owner_id,
            created_at=moment(session),
            expires_at=expires_at,
        )
    )
    return _one_token(session, token.c.id == token_id), text


def find_token(session: Connection, text: str, key: Secret) -> TokenView | None:
    """Return the token with this text unless it is expired, revoked or its owner is disabled. Read-only."""
    now = moment(session)
    found = _tokens(session, token.c.hash.in_(hashes(text, key)))
    return found[0] if found and _alive(session, found[0], now) else None


def _alive(session: Connection, found: TokenView, now: datetime) -> bool:
    if found.revoked_at or (found.expires_at and found.expires_at <= now):
        return False
    # Asked at each use, not when the user is disabled: no list of tokens has to be revoked at that moment, and
    # enabling the user again restores them.
    return not (found.owner_id and get_user(session, found.owner_id).disabled)


def touch_token(session: Connection, token_id: str, hash_: str = "") -> None:
    """Record the use of a token. Call it at most once a minute, so that most requests write nothing.

    ``hash_``: the hash with the new key during a key rotation; empty: unchanged.
    """
    values = {"last_used_at": moment(session), **({"hash": hash_} if hash_ else {})}
    session.execute(token.update().where(token.c.id == token_id).values(**values))


def list_tokens(session: Connection) -> tuple[TokenView, ...]:
    return _tokens(session, sa.true())


def get_token(session: Connection, token_id: str) -> TokenView:
    """Return the token. Raises NotFoundError."""
    return _one_token(session, token.c.id == token_id)


def revoke_token(session: Connection, token_id: str) -> TokenView:
    """Revoke a token and end the web sessions that were opened with it. Raises NotFoundError."""
    # Only an active one, so that the time of the first revocation is kept.
    revoked = (
        token.update().where(token.c.id == token_id, token.c.revoked_at.is_(None)).values(revoked_at=moment(session))
    )
    session.execute(revoked)
    session.execute(web_session.delete().where(web_session.c.token_id == token_id))
    return _one_token(session, token.c.id == token_id)


def _tokens(session: Connection, where: sa.ColumnElement[bool]) -> tuple[TokenView, ...]:
    columns = (
        token.c.id,
        token.c.name,
        token.c.prefix,
        token.c.scopes,
        token.c.projects,
        token.c.owner_id,
        user.c.role,
        token.c.created_at,
        token.c.expires_at,
        token.c.last_used_at,
        token.c.revoked_at,
        user.c.name.label("owner_name"),
    )
    rows = session.execute(
        sa.select(*columns)
        .outerjoin(user, user.c.id == token.c.owner_id)
        .where(where)
        .order_by(token.c.created_at.desc())
    ).all()
    members = _memberships(session, [r.owner_id for r in rows])
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
            members.get(r.owner_id or "", ()),
            r.owner_name or "",
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
    session: Connection,
    key: Secret,
    *,
    user_id: str | None = None,
    token_id: str | None = None,
    address: str = "",
    agent: str = "",
) -> Secret:
    """Create a web session and return its cookie value. Only its HMAC is stored."""
    text, now = secrets.token_urlsafe(32), moment(session)
    session.execute(
        web_session.insert().values(
            id_hash=hash_token(text, key),
            user_id=user_id,
            token_id=token_id,
            created_at=now,
            seen_at=now,
            expires_at=now + SESSION_LIFE,
            address=address[:64],
            agent=agent[:200],
        )
    )
    return Secret(text)


def has_session_from(session: Connection, name: str, address: str) -> bool:
    """Return whether the user (in any case) has a session from this address. Such users pass the sign-in rate limit."""
    query = sa.select(web_session.c.id_hash).join(user, user.c.id == web_session.c.user_id)
    # In any case of letters, because the rate limit counts names so. An attacker who varies the case must not leave
    # its owner locked out.
    mine = sa.func.lower(user.c.name) == name.lower(), web_session.c.address == address[:64]
    return session.execute(query.where(*mine).limit(1)).first() is not None


def find_session(session: Connection, text: str, key: Secret) -> WebSession | None:
    """Return the session unless it is idle for 30 minutes, older than 12 hours, or its user or token is disabled."""
    now = moment(session)
    row = session.execute(sa.select(*web_session.c).where(web_session.c.id_hash.in_(hashes(text, key)))).first()
    # Checked when it is read. Expired rows are deleted by retention later; a late pruning must not prolong a session.
    if row is None or row.expires_at <= now or row.seen_at + SESSION_IDLE <= now:
        return None
    stale = now - row.seen_at > timedelta(minutes=1)
    if row.user_id:
        found = get_user(session, row.user_id)
        return None if found.disabled else WebSession(found, None, stale)
    tokens = _tokens(session, token.c.id == row.token_id)
    return WebSession(None, tokens[0], stale) if tokens and _alive(session, tokens[0], now) else None


def touch_session(session: Connection, text: str, key: Secret) -> None:
    """Renew a session's idle time. Call it at most once a minute."""
    own = web_session.c.id_hash.in_(hashes(text, key))
    session.execute(web_session.update().where(own).values(seen_at=moment(session)))


def end_session(session: Connection, text: str, key: Secret) -> None:
    session.execute(web_session.delete().where(web_session.c.id_hash.in_(hashes(text, key))))


def end_all(session: Connection, user_id: str, *, but: str = "") -> int:
    """End all sessions of a user except ``but`` (an id). Returns their number."""
    mine = sa.and_(web_session.c.user_id == user_id, web_session.c.id_hash != but)
    return session.execute(web_session.delete().where(mine)).rowcount


def open_sessions(session: Connection, user_id: str) -> tuple[OpenSession, ...]:
    """Return a user's active web sessions, the newest first."""
    now = moment(session)
    columns = ("id_hash", "created_at", "seen_at", "expires_at", "address", "agent")
    living = (
        web_session.c.user_id == user_id,
        web_session.c.expires_at > now,
        web_session.c.seen_at > now - SESSION_IDLE,
    )
    query = sa.select(*(web_session.c[name] for name in columns)).where(*living)
    return tuple(OpenSession(*row) for row in session.execute(query.order_by(web_session.c.created_at.desc())))


def end_session_of(session: Connection, user_id: str, session_id: str) -> None:
    """End one session of a user by its id. Raises NotFoundError."""
    mine = sa.and_(web_session.c.user_id == user_id, web_session.c.id_hash == session_id)
    if session.execute(web_session.delete().where(mine)).rowcount != 1:
        raise NotFoundError("there is no such session")


def is_empty(session: Connection) -> bool:
    """Return whether there are no users and no tokens: the first run.

    Holds a lock until the end of the transaction. Servers that start at the same time would otherwise each create an
    administrator's token.
    """
    take_lock(session, _FIRST_RUN)
    users = session.execute(sa.select(sa.func.count()).select_from(user)).scalar_one()
    tokens = session.execute(sa.select(sa.func.count()).select_from(token)).scalar_one()
    return not users and not tokens
