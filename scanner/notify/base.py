"""The contract of a notification channel: how a message reaches people or another system.

A format is one module. `Outside` is its only way out: every address is checked, and every answer is bounded in size
and time. A format raises `DeliveryError` when a message was not accepted; the caller decides when to try again.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import RefusedError, RemoteError, ScannerError, UsageError
from scanner.model.notification import Level, Message
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.outbound import (
    HttpClient,
    certificate_hint,
    http_client,
    resolve,
    split_address,
    tls_context,
    tls_error,
)

SECONDS = 15.0  # one delivery, from the connection to the answer
ANSWER_BYTES = 16 << 10  # of an answer that is read; what follows is not
SHOWN = 50  # occurrences in a message for people
_TEXT = 1000  # characters of an answer that are kept
# What the receiver will refuse again however often it is asked. Everything else may pass: an expired token is renewed,
# a deleted hook is made again.
# 410: Standard Webhooks asks senders to stop. https://www.standardwebhooks.com
_FINAL = frozenset({400, 410, 413, 415, 422})
_END_SECONDS = 2.0  # for the server to end a connection on which it confirms nothing
_MAX_RETRY_AFTER = 6 * 3600.0  # a receiver may not silence a channel for longer
MARKS: Mapping[Level, str] = {
    Level.CRITICAL: "critical",
    Level.ERROR: "error",
    Level.WARNING: "warning",
    Level.INFO: "info",
}


class DeliveryError(RemoteError):
    """The receiver did not accept a message. ``answer`` is what it answered, cleaned; empty: nothing."""

    default_reason = "not_delivered"

    def __init__(self, message: str, *, answer: str = "", **more: Any) -> None:
        super().__init__(message, **more)
        self.answer = answer


@dataclass(frozen=True)
class Receipt:
    """The receiver accepted a message. ``status``: its code, such as ``200`` or ``250``."""

    status: str
    text: str = ""


@dataclass(frozen=True)
class Field:
    """A field of a channel's settings.

    ``secret`` values are stored encrypted and are never shown again. ``choices``: the values it may have; the first is
    the default. ``pattern`` is matched from the first to the last character.
    """

    name: str  # the key in the settings
    label: str  # for users
    required: bool = False
    secret: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    pattern: str = ""
    example: str = ""
    hint: str = ""
    lines: bool = False  # may have several lines, such as a certificate
    longest: int = 1000  # characters


URL = r"https?://[^\s@\\]+"
CA = Field("ca_pem", "CA certificate (PEM) of a private CA", lines=True, longest=64 << 10, hint="empty: public CAs")


@dataclass(frozen=True)
class Answer:
    """What a receiver answered, as far as it was read."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return clean_text(self.body.decode("utf-8", "replace"), _TEXT)

    def document(self) -> Any:
        """The body as JSON. Raises DeliveryError."""
        return load_untrusted_json(self.body, limit=ANSWER_BYTES, error=DeliveryError, reason="bad_answer")


@dataclass
class Target:
    """A configured channel: where a message goes, and with which secrets."""

    settings: Settings
    values: Mapping[str, str]  # the settings that are not secret
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    _shared: HttpClient | None = field(default=None, init=False, repr=False)
    _shares: bool = field(default=False, init=False, repr=False)

    def value(self, name: str, default: str = "") -> str:
        return self.values.get(name) or default

    def secret(self, name: str) -> Secret:
        return self.secrets.get(name, Secret(""))

    @cached_property
    def context(self) -> ssl.SSLContext:
        """TLS that trusts the channel's own CA too."""
        context = tls_context(self.settings.ca_file)
        if pem := self.value("ca_pem"):
            try:
                context.load_verify_locations(cadata=pem)
            except (ssl.SSLError, ValueError):
                raise DeliveryError("the CA certificate cannot be read", reason="bad_ca", retryable=False) from None
        return context

    def request(
        self,
        method: str,
        url: str,
        *,
        body: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Iterable[int] = (),
    ) -> Answer:
        """Send a request. Returns an answer with a status of 2xx, or one in ``accept``. Raises DeliveryError.

        A status decides, not the body: a receiver that said 200 and then sends an endless body has accepted.
        """
        send = partial(
            self._send, method, url, {"headers": headers, "json": body, "content": content}, frozenset(accept)
        )
        with self._named_errors():
            if self._shared is not None:
                # Some receivers close a connection between two messages without saying so.
                with suppress(httpx.NetworkError, httpx.RemoteProtocolError):
                    return send(self._shared)
                self._close_shared()
            client = http_client(self.settings, context=self.context)
            if self._shares:
                self._shared = client
                return send(client)
            with client:
                return send(client)

    def _send(
        self, method: str, url: str, parts: Mapping[str, Any], accept: frozenset[int], client: HttpClient
    ) -> Answer:
        with client.open(method, url, seconds=SECONDS, read_seconds=SECONDS, **parts) as opened:
            answer = Answer(opened.status, _first_bytes(opened.chunks(1 << 30)))
            retry_after = _seconds(opened.headers.get("Retry-After", ""))
        if 200 <= answer.status < 300 or answer.status in accept:
            return answer
        raise _refused_error(answer, retry_after)

    def post(self, url: str, *, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON. See `request`."""
        return self.request("POST", url, body=body, headers=headers)

    @contextmanager
    def shared_connections(self) -> Iterator[None]:
        """Within the block, requests share connections: a burst of messages needs one TLS handshake, not one each.

        For one thread. If a shared connection breaks, the message is sent again on a new one.
        """
        self._shares = True
        try:
            yield
        finally:
            self._shares = False
            self._close_shared()

    def _close_shared(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    @contextmanager
    def connection(self, host: str, port: int, *, tls: bool) -> Iterator[socket.socket]:
        """A connection to a checked address. It is cut when the time of a delivery is over. Raises DeliveryError."""
        with self._named_errors():
            plain = self._connect(host, port)
            # A socket's time-out bounds each read; a receiver that sends a byte now and then would never time out.
            # It holds a descriptor of its own, because TLS takes over that of the connection.
            watched = plain.dup()
            watch = threading.Timer(SECONDS, _close_connection, [watched])
            watch.daemon = True
            watch.start()
            try:
                if tls:
                    with self.context.wrap_socket(plain, server_hostname=host) as secured:
                        yield secured
                else:
                    yield plain
            finally:
                watch.cancel()
                watched.close()
                plain.close()

    def _connect(self, host: str, port: int) -> socket.socket:
        last: OSError | None = None
        # Connect to the checked address. A second look-up of the name could give another one (DNS rebinding).
        for address in resolve(host, port, self.settings)[:6]:
            try:
                return socket.create_connection((address, port), SECONDS / 3)
            except OSError as error:
                last = error
        raise DeliveryError(f"cannot connect to {host}:{port}", reason="receiver_unreachable") from last

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Errors without the text of libraries: it may hold an address, and the address of a hook is a secret."""
        try:
            yield
        except DeliveryError:
            raise
        except RefusedError as error:
            raise DeliveryError(str(error), reason=error.reason, hint=error.hint, retryable=False) from None
        except RemoteError as error:
            raise DeliveryError(str(error), reason=error.reason, hint=error.hint) from None
        except ssl.SSLCertVerificationError as error:
            hint = certificate_hint(error, "set the CA certificate")
            raise DeliveryError(f"TLS: {error.verify_message}", reason="tls", hint=hint) from None
        except (httpx.TimeoutException, TimeoutError):
            raise DeliveryError("the receiver does not answer in time", reason="receiver_slow") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if "certificate required" in str(error).replace("_", " ").lower():
                hint = "let the receiver accept connections without one, or send through a local relay"
                raise DeliveryError("the receiver requires a client certificate", reason="tls", hint=hint) from None
            if "certificate" in str(error):
                hint, refused = "set the CA certificate of the channel", tls_error(error)
                if isinstance(refused, ssl.SSLCertVerificationError):
                    hint = certificate_hint(refused, hint)
                raise DeliveryError("the certificate is not trusted", reason="tls", hint=hint) from None
            raise DeliveryError("the receiver cannot be reached", reason="receiver_unreachable") from None


def send_all(connection: socket.socket, data: bytes) -> None:
    """Send data by a protocol that confirms nothing, end our side, and read what the server still says.

    Bytes that nobody has read turn our close into a reset, and the server loses what it has not read yet: the session
    tickets of TLS 1.3 are enough. A server that refuses us after the handshake (TLS 1.3: no client certificate) says
    so only now. Raises OSError if the connection has failed, so that the message is sent again.
    """
    broken: OSError | None = None
    try:
        connection.sendall(data)
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            # Sends close_notify (RFC 5425, 4.4; OpenSSL calls its absence an error) and does not wait for the server's,
            # which many do not send: that is the EOF.
            with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
                connection.unwrap()
        # Not SSLSocket.shutdown: it ends TLS in both directions, and an alert would be read as data.
        socket.socket.shutdown(connection, socket.SHUT_WR)
    except OSError as error:
        if _is_alert(error):
            raise
        broken = error  # why is in what the server has sent before, if anywhere
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_WR)
    if getattr(broken, "reason", "") == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
        broken = None  # the server may say what it wants
    try:
        _read_until_end(connection)
    except OSError as error:
        if _is_alert(error) or broken is None:
            raise
    if broken is not None:
        raise broken


def _is_alert(error: OSError) -> bool:
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _read_until_end(connection: socket.socket) -> None:
    ends = time.monotonic() + _END_SECONDS
    while (left := ends - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(65536):
                return
        except TimeoutError:
            return  # most log servers keep the connection open and say nothing


def _close_connection(connection: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def _first_bytes(chunks: Iterator[bytes]) -> bytes:
    """The first bytes of a body. One that breaks off or drips was enough to know the status."""
    found, ends = b"", time.monotonic() + SECONDS / 3
    try:
        for chunk in chunks:
            found += chunk
            if len(found) >= ANSWER_BYTES or time.monotonic() > ends:
                break
    except (httpx.HTTPError, ScannerError):
        pass
    return found[:ANSWER_BYTES]


def _seconds(text: str) -> float | None:
    """The seconds of a ``Retry-After`` header, which has a number of them or a date (RFC 9110, 10.2.3)."""
    text = text.strip()[:100]
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), _MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - time.time()), _MAX_RETRY_AFTER)


def _refused_error(answer: Answer, retry_after: float | None) -> DeliveryError:
    # A redirect would take the message and its token to a host that was never checked.
    if 300 <= answer.status < 400:
        return DeliveryError(
            f"the receiver answered {answer.status}: redirects are not followed",
            reason="redirect",
            hint="set the address that it redirects to",
            answer=answer.text,
            retryable=False,
        )
    return DeliveryError(
        f"the receiver answered {answer.status}",
        reason="receiver_refused",
        answer=answer.text,
        retry_after=retry_after,
        retryable=answer.status not in _FINAL,
    )


class ChannelFormat(ABC):
    """A notification channel.

    ``id`` is stored with each configured channel. ``purpose`` is a short description in Markdown, listed in
    ``docs/notifications.md``. ``setup`` says where to find the values of the fields. ``per_person``: people may
    subscribe with an address of their own, which is in ``Message.recipient``.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    purpose: ClassVar[str]
    setup: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    per_person: ClassVar[bool] = False

    @abstractmethod
    def deliver(self, message: Message, target: Target) -> Receipt:
        """Send a message. Raises DeliveryError when it was not accepted. May be called again for the same message."""

    def check(self, values: Mapping[str, str]) -> None:
        """Check values together, secrets included, after each was checked by its field. Raises UsageError with the
        field's name.
        """

    def check_recipient(self, recipient: str, values: Mapping[str, str]) -> None:
        """Check a person's own address. Raises UsageError with the field ``recipient``."""
        raise invalid("recipient", f"{self.title} has no addresses of people")

    def hosts(self, values: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
        """The hosts that the values name: they are checked before a channel is stored."""
        found = []
        for one in self.fields:
            parts = split_address(values.get(one.name, "")) if one.pattern == URL else None
            if parts is not None:
                assert parts.hostname is not None
                found.append((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)))
        return tuple(found)


def invalid(name: str, message: str, hint: str = "") -> UsageError:
    """An error about one field."""
    return UsageError(message, reason="invalid", hint=hint, field=name)


def address(text: str, name: str, port: int) -> tuple[str, int]:
    """``host`` or ``host:port``. Raises UsageError naming the field."""
    try:
        parts = urlsplit(f"//{text}")
        host, given = parts.hostname, parts.port
    except ValueError:
        host, given = None, None
    plain = host and not (parts.path or parts.query or parts.fragment or parts.username is not None)
    if not plain or re.search(r"\s", text) or not host:
        raise invalid(name, f"{text[:100]!r} is not an address", "write host:port")
    return host, given or port


def redacted(text: str, secrets: Iterable[Secret]) -> str:
    """The text without these secrets: a receiver may answer with what it was sent."""
    for secret in secrets:
        value = secret.reveal()
        # A shorter value occurs in ordinary text, where replacing it would show what it is.
        if len(value) >= 4:
            text = text.replace(value, "***")
    return text


def shown_lines(message: Message) -> tuple[tuple[str, str], ...]:
    """Lines for people with the address of each, at most `SHOWN`."""
    return tuple(
        (clean_text(line, 400), occurrence.url)
        for line, occurrence in zip(message.lines[:SHOWN], message.occurrences[:SHOWN], strict=True)
    )


def left_out(message: Message) -> int:
    """How many occurrences `shown_lines` leaves out."""
    return message.count - min(len(message.occurrences), SHOWN)


def as_document(message: Message) -> dict[str, Any]:
    """The message for programs. See docs/notifications.md."""
    return {
        "id": message.id,
        "kind": message.kind,
        "group": message.group,
        "title": message.title,
        "level": message.level.value,
        "resolved": message.resolved,
        "count": message.count,
        "project": message.project,
        "url": message.url,
        "events": [
            {
                "id": one.id,
                "kind": one.event.kind.value,
                "subject": one.event.subject,
                "project": one.event.project,
                "headline": one.event.headline,
                "item": one.event.item,
                "level": one.event.level.value,
                "resolved": one.event.resolved,
                "at": one.at.isoformat(),
                "url": one.url,
                "data": dict(one.event.data),
            }
            for one in message.occurrences
        ],
    }


def format_table(formats: Iterable[ChannelFormat]) -> str:
    """Return the table of channels for ``docs/notifications.md``."""
    rows = (f"| `{form.id}` | {form.title} | {form.purpose} | {form.setup} |" for form in formats)
    return "\n".join(("| id | channel | for | set-up |", "|---|---|---|---|", *rows))
