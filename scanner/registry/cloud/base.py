"""What the clients of the clouds share: the access that an administrator configured, bounded requests, tokens.

No message here holds a part of an answer except an error code, because an answer can repeat a secret.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import RemoteError, UsageError
from scanner.files import read_whole
from scanner.model.untrusted import load_untrusted_json
from scanner.outbound import Address, Answer, AnswerTooLarge, HttpClient, http_client, split_address
from scanner.patterns import lazy
from scanner.registry.auth import Credentials

_MAX_ANSWER = 64 << 10
# For a cloud's API, and for the metadata service, which is on this machine or absent.
_SECONDS, _MACHINE_SECONDS = 20.0, 5.0
_MAX_TOKEN_FILE = 32 << 10
_LONGEST_LIFE = 12 * 3600.0  # seconds: a cloud's answer may not make us keep a token for ever
_CODE = lazy(r"AADSTS[0-9]{4,8}|[A-Za-z][A-Za-z0-9_.]{1,60}")
# The addresses at which the clouds serve a machine's own identity: instances (IPv4; IPv6 of EC2 and Compute Engine),
# containers of ECS, pods of EKS.
MACHINE_ADDRESSES = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"),
    )
)


@dataclass(frozen=True)
class CloudAccess:
    """How an administrator configured the credentials of one registry.

    ``machine_role``: the identity that the cloud gives to this machine, instead of a stored secret. Only then is an
    address of `MACHINE_ADDRESSES` contacted. ``role_arn``, ``external_id``: the role in AWS that these credentials
    assume.
    """

    kind: str  # ecr, gar or acr
    host: str
    username: str = ""
    password: Secret = Secret("")
    tenant: str = ""  # of Azure; empty for the others
    machine_role: bool = False
    ca_file: Path | None = None
    role_arn: str = ""
    external_id: str = ""


@dataclass(frozen=True)
class Token:
    """Credentials for the registry that are valid for ``seconds``."""

    credentials: Credentials = field(repr=False)
    seconds: float


@dataclass(frozen=True)
class Surroundings:
    """The machine that we run on. Tests replace its parts."""

    settings: Settings
    # of the process, which tells where the machine's identity is
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    # link-local ones of metadata services, allowed for these requests only
    machine_addresses: frozenset[Address] = MACHINE_ADDRESSES

    def cloud(self, url: str, ca_file: Path | None = None) -> HttpClient:
        """A client for one cloud service only. Its address is checked as that of any other host."""
        return http_client(self.settings, allowed=_only(url), ca_file=ca_file or self.settings.ca_file)

    def machine(self, url: str, *, extra: Iterable[Address] = ()) -> HttpClient:
        """A client for the service that gives this machine its identity; it connects to no other address."""
        return http_client(
            self.settings,
            allowed=_only(url),
            only=self.machine_addresses | frozenset(extra),
            timeout=httpx.Timeout(_MACHINE_SECONDS, connect=2.0),
        )

    def secret_file(self, variable: str) -> Secret:
        """The content of the file that a variable of our environment names; empty if the variable is not set."""
        path = self.environment.get(variable)
        if not path:
            return Secret("")
        data = read_whole(Path(path), _MAX_TOKEN_FILE, f"the file of {variable}:")
        return Secret(data.decode("ascii", "replace").strip())


def _only(url: str) -> Any:
    parts = urlsplit(url)
    here = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    return lambda host, port: (host.strip("[]"), port) == here


def ask(http: HttpClient, who: str, method: str, url: str, **more: Any) -> Answer:
    """Send a request. Raises RemoteError if there is no answer, or if it is too large."""
    try:
        return http.ask(method, url, limit=_MAX_ANSWER, seconds=_SECONDS, **more)
    except AnswerTooLarge as error:
        raise RemoteError(f"{who}: {error}", retryable=False) from None
    except httpx.HTTPError as error:
        # Neither the message nor the cause: for an invalid header they quote its value, a secret.
        raise RemoteError(
            f"{who} did not answer ({type(error).__name__})", reason="registry_timeout", hint="check network and DNS"
        ) from None


def document(answer: Answer, who: str, what: str, hint: str) -> Mapping[str, Any]:
    """Return the JSON object of a successful answer.

    ``what``: the credentials that were sent. Raises RemoteError(reason="registry_auth_refused") with the error code
    that the service gave.
    """
    require_success(answer, who, what, hint)
    found = load_untrusted_json(answer.body, limit=_MAX_ANSWER, error=RemoteError)
    if not isinstance(found, dict):
        raise RemoteError(f"the answer of {who} is not a JSON object", retryable=False)
    return found


def require_success(answer: Answer, who: str, what: str, hint: str) -> None:
    """Raises RemoteError unless the status is 200. A redirect is not followed: it would lead our secrets elsewhere."""
    if answer.status == httpx.codes.OK:
        return
    code = error_code(answer)
    if answer.status == 429 or answer.status >= 500 or code in ("Throttling", "ThrottlingException"):
        raise RemoteError(f"{who} answered {answer.status}{f' ({code})' if code else ''}")
    raise RemoteError(
        f"{who} refused {what}: {code or f'status {answer.status}'}",
        reason="registry_auth_refused",
        hint=hint,
        retryable=False,
    )


def error_code(answer: Answer) -> str:
    """The code of an error in the formats of the clouds. Messages are not quoted: they can repeat what was sent."""
    try:
        found = load_untrusted_json(answer.body, limit=_MAX_ANSWER, error=RemoteError)
    except RemoteError:
        found = re.search(rb"<Code>([A-Za-z0-9_.]{1,60})</Code>", answer.body[:4096])
        return found[1].decode() if found else ""
    if not isinstance(found, dict):
        return ""
    described = found.get("error_description")
    number = re.search(r"\bAADSTS[0-9]{4,8}\b", described[:4096]) if isinstance(described, str) else None
    error = found.get("error")
    errors = found.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    # Google's APIs have the code in "status", Azure's in "code" or, more exactly, in "innererror".
    nested = error if isinstance(error, dict) else {}
    inner = nested.get("innererror")
    codes = (inner.get("code") if isinstance(inner, dict) else None, nested.get("status"), nested.get("code"))
    for value in (number and number[0], found.get("__type"), error, first.get("code"), *codes):
        if isinstance(value, str) and _CODE.fullmatch(value.rpartition("#")[2]):
            return value.rpartition("#")[2]
    return ""


def secret_of(found: Mapping[str, Any], name: str, who: str) -> Secret:
    """Return a member that is a token: printable ASCII without spaces, since it becomes part of a header or form."""
    value = found.get(name)
    if not isinstance(value, str) or not is_token(value):
        raise RemoteError(f"the answer of {who} has no usable {name}", retryable=False)
    return Secret(value)


def is_token(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def lifetime(value: object, who: str, now: float | None = None) -> float:
    """Return the seconds until a token ends, at most 12 hours. Raises RemoteError if it has ended.

    ``value``: seconds, also as a string (Azure); with ``now`` a moment: Unix time or an ISO time with a zone.
    """
    seconds: float | None = None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and now is not None and len(value) < 64:
        try:
            moment = datetime.fromisoformat(value)
            seconds = moment.timestamp() if moment.tzinfo else None
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None:
        raise RemoteError(f"the answer of {who} does not say when its token ends", retryable=False)
    left = seconds - (now or 0.0)
    if not left > 0:
        raise RemoteError(f"the token of {who} has already ended", hint="check the clock of this machine")
    return min(left, _LONGEST_LIFE)


def no_identity(kind: str, searched: str) -> RemoteError:
    """Retryable: the service that gives a pod its identity may start after the pod."""
    return RemoteError(
        f"this machine has no identity of {kind}",
        reason="registry_auth_refused",
        hint=f"searched: {searched}; or store credentials for this registry",
        field="machine_role",
    )


def own_addresses(url: str, variable: str) -> frozenset[Address]:
    """The loopback and link-local addresses in a URL of our environment: an agent of the cloud on this machine.

    Raises UsageError for what is no URL.
    """
    parts = split_address(url)
    if parts is None:
        raise UsageError(f"{variable} is not an http or https address", reason="invalid", field="machine_role")
    host = parts.hostname or ""
    if host == "localhost":
        return frozenset((ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset()
    return frozenset((address,)) if address.is_loopback or address.is_link_local else frozenset()
