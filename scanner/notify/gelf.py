"""Graylog: GELF 1.1 over HTTP, TLS or TCP. https://go2docs.graylog.org/current/getting_in_log_data/gelf.html"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from scanner.model.notification import Level, Message, Occurrence
from scanner.notify.base import CA, ChannelFormat, Field, Receipt, Target, address, invalid, send_all

_LEVELS = {Level.CRITICAL: 2, Level.ERROR: 3, Level.WARNING: 4, Level.INFO: 6}
_ADDRESS = r"(https?|tls|tcp)://[^\s@\\]+"
_PORT = 12201  # Graylog's default for GELF


class Gelf(ChannelFormat):
    """See `ChannelFormat`."""

    id = "gelf"
    title = "Graylog (GELF)"
    purpose = "Graylog and other servers that read GELF: one record for each event"
    setup = "Graylog: System → Inputs → GELF HTTP or GELF TCP with TLS. `https://…/gelf`, `tls://host:12201`."
    fields = (
        Field("address", "Address", required=True, pattern=_ADDRESS, example="https://graylog.example.com:12201/gelf"),
        CA,
    )

    def check(self, values: Mapping[str, str]) -> None:
        """See `ChannelFormat.check`."""
        self.hosts(values)

    def hosts(self, values: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
        """See `ChannelFormat.hosts`."""
        scheme, rest = values["address"].split("://", 1)
        if scheme in ("tls", "tcp"):
            return (address(rest, "address", _PORT),)
        try:
            parts = urlsplit(values["address"])
            port = parts.port
        except ValueError:
            raise invalid("address", "this is not an address") from None
        return ((parts.hostname or "", port or (443 if scheme == "https" else 80)),)

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        where = target.value("address")
        scheme, rest = where.split("://", 1)
        host = urlsplit(target.settings.public_url).hostname or socket.gethostname()
        records = [json.dumps(record(one, host)).encode() for one in message.occurrences]
        if scheme in ("http", "https"):
            for body in records:
                answer = target.request("POST", where, content=body, headers={"Content-Type": "application/json"})
            return Receipt(str(answer.status), answer.text)
        name, port = address(rest, "address", _PORT)
        with target.connection(name, port, tls=scheme == "tls") as connection:
            send_all(connection, b"".join(body + b"\0" for body in records))  # TCP: records end with a NUL
        return Receipt("sent", f"{len(records)} records sent; GELF over TCP does not confirm them")


def record(one: Occurrence, host: str) -> dict[str, object]:
    """One record. Additional fields begin with an underscore; ``_id`` is reserved."""
    event = one.event
    extra = {name: value for name, value in event.data.items() if isinstance(value, str | int | float | bool)}
    fields = {"event_id": one.id, "kind": event.kind.value, "project": event.project, "subject": event.subject}
    fields |= {"resolved": str(event.resolved).lower(), "url": one.url}
    return {
        "version": "1.1",
        "host": host,
        "short_message": f"{event.headline}: {event.item}" if event.item else event.headline,
        "timestamp": one.at.timestamp(),
        "level": _LEVELS[Level.INFO if event.resolved else event.level],
        **{f"_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}": _plain(value) for name, value in {**extra, **fields}.items()},
    }


def _plain(value: object) -> object:
    """GELF knows strings and numbers only."""
    return str(value).lower() if isinstance(value, bool) else value
