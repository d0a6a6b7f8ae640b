"""Authentication to registries: which credentials are used, and who may receive them (RFC 7235; distribution token
specification).

The realm of a bearer challenge is chosen by the registry. Credentials are sent to it only if it is the registry's own
host or a host known to belong to it. Otherwise any registry could collect passwords (CVE-2020-15157).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult

import httpx

from scanner.config import Secret, Settings
from scanner.errors import RemoteError, UsageError
from scanner.files import read_whole
from scanner.model.reference import DOCKER_HUB
from scanner.model.untrusted import load_untrusted_json
from scanner.outbound import Answer, AnswerTooLarge, HttpClient, OpenAnswer, split_address
from scanner.patterns import lazy

# The name becomes that of a program, docker-credential-<name>: no path, no options.
_HELPER = lazy(r"[A-Za-z0-9._-]{1,64}")
_HELPER_SECONDS = 15  # a credential helper may ask a keychain or a cloud
# Bytes of ~/.docker/config.json
_MAX_CONFIG = 1 << 20
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
# Token services that belong to a registry although their host name differs.
_REALMS = {DOCKER_HUB: "auth.docker.io", "registry-1.docker.io": "auth.docker.io", "registry.gitlab.com": "gitlab.com"}
_PARAMETER = lazy(r'([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,\s*|$)')
# RFC 9110, section 11.6.1: several challenges may be in one header.
_SCHEME = lazy(r"([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or an identity token (OAuth2 refresh token), or a registry token.

    A registry token is a bearer token that a token service has issued for the registry: it is sent as it is, to the
    registry only, and cannot be renewed.
    """

    username: str
    password: Secret
    identity_token: Secret = Secret("")
    registry_token: Secret = Secret("")


class Temporary(Protocol):
    """Credentials that are obtained when they are needed, and end."""

    def current(self) -> Credentials:
        """Return credentials that are valid now. Raises ScannerError."""

    def refused(self) -> bool:
        """The registry refused the current ones. Returns True if `current` would obtain new ones."""


@dataclass(frozen=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header. Scheme and parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Parse every challenge of the header (RFC 7235 section 4.1). Malformed ones are left out and not answered."""
    found: list[Challenge] = []
    rest = header[:8192].strip()
    while rest:
        scheme = _SCHEME.match(rest)
        if scheme is None:
            break
        rest = rest[scheme.end() :]
        parameters: dict[str, str] = {}
        while match := _PARAMETER.match(rest):
            parameters.setdefault(
                match[1].lower(), re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            )
            rest = rest[match.end() :]
        rest = rest.lstrip(", ")
        found.append(Challenge(scheme[1].lower(), parameters))
    return found


class CredentialStore:
    """Credentials by registry host: the given ones, then the service's own file, then the user's docker config.

    Temporary ones are obtained at each use, so that a scan of hours outlives a token of one hour. Config files are read
    on demand. A credential helper is run without a shell, with a limit on time and output.
    """

    def __init__(
        self, settings: Settings, given: Mapping[str, Credentials | Temporary] | None = None, *, personal: bool = True
    ) -> None:
        self._given = dict(given or {})
        self._files = [settings.registry_credentials] if settings.registry_credentials else []
        if personal:
            # A service must not use the credentials of the account that happens to run it, so ``personal`` is off on
            # servers.
            home = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
            self._files.append(settings.docker_config or home / "config.json")

    def find(self, host: str) -> Credentials | None:
        """Return credentials for this registry host, or None.

        Raises UsageError if a config file cannot be read, ScannerError if temporary credentials cannot be obtained.
        """
        if (given := self._given.get(host)) is not None:
            return given if isinstance(given, Credentials) else given.current()
        for file in self._files:
            found = self._from_file(file, host)
            if found is not None:
                return found
        return None

    def temporary(self, host: str) -> Temporary | None:
        """Return where this host's temporary credentials come from. None: it has none."""
        given = self._given.get(host)
        return None if isinstance(given, Credentials) else given

    def registry_token(self, host: str) -> Secret:
        """Return the registry token that was given for this host; empty: none. Reads no file and runs no helper."""
        given = self._given.get(host)
        return given.registry_token if isinstance(given, Credentials) else Secret("")

    def refused(self, host: str) -> bool:
        """The registry refused the credentials. Returns True if `find` would obtain new ones."""
        given = self._given.get(host)
        return given is not None and not isinstance(given, Credentials) and given.refused()

    def _from_file(self, file: Path, host: str) -> Credentials | None:
        try:
            if not file.exists():
                return None
            data = read_whole(file, _MAX_CONFIG, "the docker config")
            document = load_untrusted_json(data, limit=_MAX_CONFIG, error=UsageError)
        except OSError as error:  # a directory above it may not be entered
            raise UsageError(f"cannot read the docker config {file}: {error.strerror}") from error
        except UsageError as error:
            raise UsageError(f"cannot read the docker config {file}: {error}") from error
        if not isinstance(document, dict):
            raise UsageError(f"the docker config {file} is not a JSON object")
        keys = (
            _HUB_KEYS
            if host == DOCKER_HUB
            else (
                host,
                f"https://{host}",
                f"http://{host}",
                f"https://{host}/",
                f"https://{host}/v2/",
                f"https://{host}/v1/",
            )
        )
        helpers = _mapping(document, "credHelpers")
        for key in keys:
            if key in helpers:
                return _ask_helper(str(helpers[key]), key)
        auths = _mapping(document, "auths")
        for key in keys:
            entry = auths.get(key)
            if isinstance(entry, dict) and (credentials := _from_entry(entry, file, key)):
                return credentials
        store = document.get("credsStore")
        if isinstance(store, str) and store:
            return next(filter(None, (_ask_helper(store, key) for key in keys[:2])), None)
        return None


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _from_entry(entry: Mapping[str, Any], file: Path, key: str) -> Credentials | None:
    token = Secret(str(entry.get("identitytoken") or ""))
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise UsageError(
                f"{file}: auths.{key}.auth is not base64 of name:password", hint=f"docker login {key}"
            ) from None
        if not colon:
            raise UsageError(f"{file}: auths.{key}.auth has no colon", hint=f"docker login {key}")
        return Credentials(username, Secret(password.rstrip("\0")), token)
    if entry.get("username"):
        return Credentials(str(entry["username"]), Secret(str(entry.get("password") or "")), token)
    return Credentials("", Secret(""), token) if token else None


def _ask_helper(name: str, server: str) -> Credentials | None:
    """Run ``docker-credential-NAME get`` (docker/docker-credential-helpers).

    None if it has no entry for this server.
    """
    # The name comes from a config file and becomes a command: no path separators, no options.
    if not _HELPER.fullmatch(name):
        raise UsageError(f"not a credential helper name: {name[:100]!r}")
    command = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [command, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise UsageError(
            f"the docker config names {command}, which is not on PATH", hint="install it, or remove it from the config"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{command} did not answer within {_HELPER_SECONDS} s") from None
    if done.returncode:
        return None
    try:
        answer = json.loads(done.stdout[:_MAX_CONFIG])
        username, secret = str(answer["Username"]), Secret(str(answer["Secret"]))
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{command} did not answer in the format of credential helpers") from None
    # The helper protocol marks an identity token by this user name.
    return Credentials("", Secret(""), secret) if username == "<token>" else Credentials(username, secret)


_TOKEN_SECONDS = 20.0


class Authenticator:
    """Answers the challenges of one registry, and keeps its tokens for 80 % of their lifetime.

    ``token_service``: a host that an administrator trusts with the registry's credentials (a GitLab, for its registry).
    """

    def __init__(
        self,
        host: str,
        store: CredentialStore,
        http: HttpClient,
        limit: int,
        *,
        insecure: bool,
        token_service: str = "",
    ) -> None:
        self._host, self._store, self._http, self._limit, self._insecure = host, store, http, limit, insecure
        self._token_service = token_service
        self._tokens: dict[str, tuple[Secret, float]] = {}
        self._basic = False
        self.used_credentials = False

    def header(self, scope: str) -> str | None:
        """The ``Authorization`` header for a request of this scope, or None as long as none is known."""
        if given := self._store.registry_token(self._host):
            self.used_credentials = True
            return f"Bearer {given.reveal()}"
        if self._basic and (credentials := self._store.find(self._host)):
            return _basic(credentials)
        token, ends = self._tokens.get(scope, (None, 0.0))
        return f"Bearer {token.reveal()}" if token is not None and time.monotonic() < ends else None

    def answer(self, response: OpenAnswer, scope: str) -> bool:
        """Process a 401. Returns True if a new request would send a different ``Authorization`` header."""
        if self._store.registry_token(self._host):
            return False  # the registry refused it, and no other would be sent
        challenges = [c for header in response.headers.get_list("WWW-Authenticate") for c in parse_challenges(header)]
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                before = self.header(scope)
                self._fetch_token(challenge.parameters, scope)
                return self.header(scope) != before
        if any(challenge.scheme == "basic" for challenge in challenges):
            if self._basic:
                return self._store.refused(self._host)
            self._basic = self.used_credentials = self._store.find(self._host) is not None
            return self._basic
        return False

    def _fetch_token(self, parameters: Mapping[str, str], scope: str) -> None:
        realm = parameters["realm"]
        parts = split_address(realm)
        if parts is None or parts.username or (parts.scheme == "http" and not self._insecure):
            raise RemoteError(
                f"{self._host} names an unacceptable token service: {realm[:200]!r}",
                reason="registry_auth_refused",
                hint="the realm must be an https URL",
                retryable=False,
            )
        credentials = self._store.find(self._host) if self._is_own_realm(parts) else None
        query = {
            "scope": parameters.get("scope") or scope,
            **({"service": parameters["service"]} if parameters.get("service") else {}),
        }
        self.used_credentials = credentials is not None
        try:
            if credentials and credentials.identity_token:
                form = {
                    **query,
                    "grant_type": "refresh_token",
                    "refresh_token": credentials.identity_token.reveal(),
                    "client_id": "dockwarden",
                }
                answer = self._http.ask("POST", realm, form=form, limit=self._limit, seconds=_TOKEN_SECONDS)
            else:
                headers = {"Authorization": _basic(credentials)} if credentials else {}
                answer = self._http.ask(
                    "GET", realm, params=query, headers=headers, limit=self._limit, seconds=_TOKEN_SECONDS
                )
        except AnswerTooLarge as error:
            raise RemoteError(f"the token service of {self._host}: {error}", retryable=False) from error
        except httpx.HTTPError as error:
            raise RemoteError(
                f"cannot get a token for {self._host}: {error or type(error).__name__}", reason="registry_timeout"
            ) from error
        if answer.status in (401, 403):
            # Not an error here: the request is repeated without a token, and its answer is the registry's decision.
            self._store.refused(self._host)
            return
        self._keep(answer, scope)

    def _keep(self, answer: Answer, scope: str) -> None:
        if answer.status != httpx.codes.OK:
            raise RemoteError(
                f"the token service of {self._host} answered {answer.status}",
                retryable=answer.status >= 500 or answer.status == 429,
            )
        document = load_untrusted_json(answer.body, limit=self._limit, error=RemoteError)
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RemoteError(f"the token service of {self._host} returned no token")
        life = document.get("expires_in")
        # Without ``expires_in`` a token lives 60 s (distribution token specification).
        seconds = life if isinstance(life, int) and 0 < life < 86400 else 60
        self._tokens[scope] = (Secret(token), time.monotonic() + seconds * 0.8)

    def _is_own_realm(self, realm: SplitResult) -> bool:
        """True if the token service belongs to the registry: the same host (any port), a known pair, or configured."""
        realm_host = realm.hostname or ""
        if self._token_service and realm.netloc.lower() == self._token_service:
            return True
        return (
            realm_host == self._host.rpartition(":")[0]
            or realm_host == self._host
            or _REALMS.get(self._host) == realm_host
        )


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.password.reveal()}".encode()).decode()
