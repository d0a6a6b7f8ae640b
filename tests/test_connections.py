"""Every outgoing connection goes through the guard (``scanner.outbound``): nothing else in the code opens one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARD = Path("scanner/outbound.py")

# Calls that open connections, by what is called.
OPENING = {
    "httpx.Client", "httpx.AsyncClient", "httpx.HTTPTransport", "httpx.AsyncHTTPTransport", "httpx.get", "httpx.post", "httpx.put", "httpx.patch",
    "httpx.delete", "httpx.head", "httpx.options", "httpx.request", "httpx.stream", "httpcore.ConnectionPool", "httpcore.SyncBackend",
    "socket.create_connection", "ssl.get_server_certificate", "asyncio.open_connection", "http.client.HTTPConnection", "http.client.HTTPSConnection",
}  # fmt: skip
TYPES = {"httpx.Client", "httpx.AsyncClient"}
# Libraries whose only use is to open connections of their own.
LIBRARIES = {
    "requests",
    "urllib3",
    "urllib.request",
    "http.client",
    "aiohttp",
    "ftplib",
    "telnetlib",
    "xmlrpc.client",
    "pycurl",
    "smtplib",
}
# Who may, and why that is no way out. (file, what): reason
ALLOWED: dict[tuple[str, str], str] = {}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for room in ("scanner", "web"):
        for file in sorted((ROOT / room).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text())


def openings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What opens a connection, and in which line."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                if alias.name in LIBRARIES:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in LIBRARIES:
                yield node.module, node.lineno
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in LIBRARIES:
                    yield f"{node.module}.{alias.name}", node.lineno
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            what = _dotted(node, names)
            # A client may stand in an annotation; it must not be made.
            if what in OPENING and (what not in TYPES or id(node) in called):
                yield what, node.lineno
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("connect", "connect_ex")
        ):
            owner = node.func.value
            if isinstance(owner, ast.Call) and _dotted(owner.func, names) == "socket.socket":
                yield "socket.socket.connect", node.lineno


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value, names)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def test_no_module_opens_a_connection_beside_the_guard() -> None:
    found = [
        f"{file}:{line}: {what}"
        for file, tree in modules()
        for what, line in openings(tree)
        if file != GUARD and (str(file), what) not in ALLOWED
    ]
    assert not found, "open connections with scanner.outbound.http_client or connector:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx\nhttpx.get('http://x')",
        "import httpx\nhttpx.Client()",
        "from httpx import post\npost('http://x')",
        "import socket\nsocket.create_connection(('x', 1))",
        "import socket as s\ns.create_connection(('x', 1))",
        "import socket\nsocket.socket().connect(('x', 1))",
        "import requests",
        "from urllib import request",
        "from urllib.request import urlopen",
        "import urllib.request",
        "import smtplib",
    ],
)
def test_this_test_sees(source: str) -> None:
    assert list(openings(ast.parse(source)))


def test_what_is_allowed_is_there() -> None:
    """An exception that nobody needs any more would let the next one through."""
    there = {(str(file), what) for file, tree in modules() for what, _ in openings(tree)}
    assert set(ALLOWED) <= there
