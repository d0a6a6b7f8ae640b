"""Syslog: RFC 5424 messages over TLS, framed as in RFC 5425. One message for each event."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC
from urllib.parse import urlsplit

from scanner.model.notification import Level, Message, Occurrence
from scanner.model.untrusted import clean_text
from scanner.notify.base import CA, ChannelFormat, Field, Receipt, Target, address, send_all

_SEVERITIES = {Level.CRITICAL: 2, Level.ERROR: 3, Level.WARNING: 4, Level.INFO: 6}  # RFC 5424, 6.2.1
_FACILITIES = {"local0": 16, "local1": 17, "local4": 20, "local7": 23, "auth": 4, "user": 1}
_PORT = 6514  # RFC 5425, 4.1


class Syslog(ChannelFormat):
    """See `ChannelFormat`."""

    id = "syslog"
    title = "Syslog"
    purpose = "a log server or SIEM: RFC 5424 over TLS"
    setup = "The server must accept TLS (RFC 5425); its usual port is 6514."
    fields = (
        Field("address", "Address", required=True, example="logs.example.com:6514"),
        Field("facility", "Facility", choices=tuple(_FACILITIES)),
        CA,
    )

    def check(self, values: Mapping[str, str]) -> None:
        """See `ChannelFormat.check`."""
        address(values["address"], "address", _PORT)

    def hosts(self, values: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
        """See `ChannelFormat.hosts`."""
        return (address(values["address"], "address", _PORT),)

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        host, port = address(target.value("address"), "address", _PORT)
        facility = _FACILITIES[target.value("facility", "local0")]
        name = urlsplit(target.settings.public_url).hostname or socket.gethostname()
        lines = [line(one, facility, name) for one in message.occurrences]
        with target.connection(host, port, tls=True) as connection:
            # RFC 5425, 4.3: the length in octets, a space, the message.
            send_all(connection, b"".join(b"%d %s" % (len(text), text) for text in lines))
        return Receipt("sent", f"{len(lines)} messages sent; syslog does not confirm them")


def line(one: Occurrence, facility: int, host: str) -> bytes:
    """One message. RFC 5424, 6."""
    event = one.event
    severity = _SEVERITIES[Level.INFO if event.resolved else event.level]
    pairs = {
        "id": one.id,
        "kind": event.kind.value,
        "project": event.project,
        "subject": event.subject,
        "resolved": str(event.resolved).lower(),
        "url": one.url,
    }
    # 32473 is the enterprise number for documentation (RFC 5612): we have none of our own.
    data = "".join(f' {name}="{_value(value)}"' for name, value in pairs.items() if value)
    text = f"{event.headline}: {event.item}" if event.item else event.headline
    moment = one.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = f"<{facility * 8 + severity}>1 {moment} {_name(host, 255)} dockwarden - {_name(event.kind, 32)}"
    return f"{head} [dockwarden@32473{data}] \N{ZERO WIDTH NO-BREAK SPACE}{clean_text(text, 2000)}".encode()


def _name(text: str, longest: int) -> str:
    """PRINTUSASCII, or the nil value."""
    return re.sub(r"[^\x21-\x7e]", "", text)[:longest] or "-"


def _value(text: str) -> str:
    """RFC 5424, 6.3.3: a quote, a backslash and a closing bracket are escaped."""
    return re.sub(r'(["\\\]])', r"\\\1", clean_text(text, 500))
