"""Receivers of notifications: real servers on the loopback, and servers that misbehave."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from scanner.model.notification import Event, EventKind, Level, Message, Occurrence, title_of

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = "shop/<img src=x>&*_`[a](http://evil.example)@channel|\r\nBcc: x@evil.example\x1b[31m"


def event(item: str = "registry.example.com/shop/cart:1", **more: Any) -> Event:
    values: dict[str, Any] = {
        "kind": EventKind.VULNERABILITY_NEW,
        "subject": "CVE-2026-0001",
        "headline": "CVE-2026-0001 (critical) in openssl",
        "item": item,
        "project": "shop",
        "level": Level.CRITICAL,
        "data": {"vulnerability": "CVE-2026-0001", "severity": "critical", "exploited": False},
    }
    return Event(**(values | more))


def message(*events: Event, identifier: str = "msg_1", count: int = 0, **more: Any) -> Message:
    events = events or (event(),)
    first = events[0]
    values: dict[str, Any] = {
        "id": identifier,
        "kind": first.kind.value,
        "group": f"{first.kind}|{first.project}|{first.group or first.subject}",
        "title": title_of(events, count or len(events)),
        "level": first.level,
        "resolved": first.resolved,
        "occurrences": tuple(
            Occurrence(f"{identifier}-{n}", each, AT, f"https://dockwarden.example/images/{n}")
            for n, each in enumerate(events)
        ),
        "count": count or len(events),
        "at": AT,
        "project": first.project,
        "url": "https://dockwarden.example/vulnerabilities/CVE-2026-0001",
    }
    return Message(**(values | more))


@contextmanager
def listener(serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that gives each connection to ``serve`` in a thread. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def one(connection: socket.socket) -> None:
            try:
                with context.wrap_socket(connection, server_side=True) if context else connection as own:
                    serve(own)
            except OSError:
                pass  # the client ended it, or did not trust us

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()


def until_end(connection: socket.socket) -> bytes:
    """Everything that the client sends."""
    found = b""
    while data := connection.recv(65536):
        found += data
    return found
