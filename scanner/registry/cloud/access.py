"""The temporary credentials of a cloud registry, obtained when they are used and kept in memory while they are valid.

They are in no file, database, queue message or log. Each process has its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scanner.config import Settings
from scanner.model.cloud_registry import ACR, ECR, GAR
from scanner.registry.auth import Credentials
from scanner.registry.cloud import aws, azure, google
from scanner.registry.cloud.base import CloudAccess, Surroundings, Token

_CLIENTS: dict[str, Callable[[CloudAccess, Surroundings], Token]] = {
    ECR: aws.token,
    GAR: google.token,
    ACR: azure.token,
}
_MARGIN = 300.0  # seconds before its end after which a token is not used any more; a fifth of the life of a short one
_YOUNG = 60.0  # a token that the registry refuses at this age is not renewed: the registry refuses the identity
_MAX_CACHED = 1000


@dataclass(frozen=True)
class _CachedCredentials:
    credentials: Credentials = field(repr=False)
    since: float  # monotonic clock
    until: float  # monotonic clock


class Tokens:
    """The valid tokens of this process, by access. A changed secret is another access."""

    def __init__(self) -> None:
        self._kept: dict[CloudAccess, _CachedCredentials] = {}
        self._lock = threading.Lock()

    def get(self, access: CloudAccess, obtain: Callable[[], Token]) -> Credentials:
        """Return kept credentials, or those that ``obtain`` returns."""
        with self._lock:
            kept = self._kept.get(access)
        if kept is not None and time.monotonic() < kept.until:
            return kept.credentials
        # Not under the lock: a cloud that is slow delays its own registries only. Two threads may both ask.
        started = time.monotonic()
        token = obtain()
        until = started + token.seconds - min(_MARGIN, token.seconds / 5)
        with self._lock:
            now = time.monotonic()
            valid = {one: kept for one, kept in self._kept.items() if kept.until > now}
            self._kept = dict(list(valid.items())[-_MAX_CACHED + 1 :])
            self._kept[access] = _CachedCredentials(token.credentials, started, until)
        return token.credentials

    def drop(self, access: CloudAccess) -> bool:
        """Forget refused credentials. Returns False if they are new, so that asking again would change nothing."""
        with self._lock:
            kept = self._kept.get(access)
            if kept is None or time.monotonic() < kept.since + _YOUNG:
                return False
            del self._kept[access]
            return True


TOKENS = Tokens()


@dataclass(frozen=True)
class CloudCredentials:
    """The credentials of one registry; see `scanner.registry.auth.Temporary`."""

    access: CloudAccess
    settings: Settings = field(repr=False)
    tokens: Tokens = field(default=TOKENS, repr=False)

    def current(self) -> Credentials:
        """Return credentials that are valid now. Raises RemoteError, UsageError."""
        around = Surroundings(self.settings)
        return self.tokens.get(self.access, lambda: _CLIENTS[self.access.kind](self.access, around))

    def refused(self) -> bool:
        return self.tokens.drop(self.access)
