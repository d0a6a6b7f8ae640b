"""Every outgoing connection goes through the guard (``scanner.outbound``): nothing else in the code opens one, and
nothing reads an answer past the guard's bounds on size, time and rate.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.outbound import HttpClient

ROOT = Path(__file__).parents[1]
GUARD = Path("scanner/outbound.py")

# Calls that open connections, by what is called.
OPENING = {
    "httpx.Client",
    "httpx.AsyncClient",
    "httpx.HTTPTransport",
    "httpx.AsyncHTTPTransport",
    "httpx.get",
    "httpx.post",
    "httpx.put",
    "httpx.patch",
    "httpx.delete",
    "httpx.head",
    "httpx.options",
    "httpx.request",
    "httpx.stream",
    "httpcore.ConnectionPool",
    "httpcore.SyncBackend",
    "socket.create_connection",
    "ssl.get_server_certificate",
    "asyncio.open_connection",
    "http.client.HTTPConnection",
    "http.client.HTTPSConnection",
}
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
ALLOWED: dict[tuple[str, str], str] = {
    (
        "scanner/notify/base.py",
        "socket.create_connection",
    ): "syslog and SMTP speak no HTTP; the address was resolved by the guard",
    ("scanner/notify/email.py", "smtplib"): "speaks over a connection that scanner.notify.base opened",
}


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


# Ways to send a request or to read an answer that httpx offers. The guard's client has ``open`` and ``ask`` instead,
# whose answers are bounded.
SENDING = {"get", "post", "put", "patch", "delete", "head", "options", "request", "send", "stream"}
READING = {"iter_raw", "iter_bytes", "iter_text", "iter_lines", "aiter_bytes", "aiter_raw"}
# What other modules may take from httpx: kinds of error, names of status codes, values.
HARMLESS = {
    "httpx.HTTPError",
    "httpx.TimeoutException",
    "httpx.ConnectError",
    "httpx.NetworkError",
    "httpx.RemoteProtocolError",
    "httpx.InvalidURL",
    "httpx.codes",
    "httpx.Headers",
    "httpx.BasicAuth",
    "httpx.Timeout",
}


def unbounded(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What could send a request or read an answer without bounds, and in which line."""
    clients, names = {"HttpClient", "http_client"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "httpx":
            if f"httpx.{node.attr}" not in HARMLESS:
                yield f"httpx.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("httpx", "httpcore"):
            yield f"from {node.module}", node.lineno
        elif isinstance(node, ast.Import) and any(alias.name == "httpcore" or alias.asname for alias in node.names):
            yield from (("import", node.lineno) for alias in node.names if alias.name in ("httpx", "httpcore"))
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.withitem | ast.arg):
            names |= set(_holders(node, clients))
        elif isinstance(node, ast.Attribute) and node.attr in READING:
            yield node.attr, node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDING:
            owner = node.func.value
            if (isinstance(owner, ast.Attribute) and owner.attr in names) or (
                isinstance(owner, ast.Name) and owner.id in names
            ):
                yield f"{ast.unparse(owner)}.{node.func.attr}", node.lineno


def _holders(node: ast.Assign | ast.AnnAssign | ast.withitem | ast.arg, clients: set[str]) -> Iterator[str]:
    """Names and attributes that hold a client of the guard."""
    if isinstance(node, ast.arg):
        if node.annotation is not None and ast.unparse(node.annotation) in clients:
            yield node.arg
        return
    made = node.context_expr if isinstance(node, ast.withitem) else node.value
    noted = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) in clients
    if not noted and not (isinstance(made, ast.Call) and ast.unparse(made.func).rpartition(".")[2] in clients):
        return
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.optional_vars if isinstance(node, ast.withitem) else node.target]
    )
    for target in targets:
        if isinstance(target, ast.Attribute):
            yield target.attr
        elif isinstance(target, ast.Name):
            yield target.id


def test_every_answer_is_read_within_bounds() -> None:
    found = [f"{file}:{line}: {what}" for file, tree in modules() if file != GUARD for what, line in unbounded(tree)]
    assert not found, "read answers with HttpClient.ask or HttpClient.open:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx\ndef f(http: httpx.Client): ...",
        "import httpx\ndef f(answer: httpx.Response): ...",
        "from httpx import Client",
        "import httpx as h",
        "import httpcore",
        "def f(http: HttpClient):\n    return http.get('http://x')",
        "self._http = http_client(settings)\nself._http.post('http://x')",
        "with http_client(settings) as client:\n    client.stream('GET', 'http://x')",
        "for chunk in response.iter_bytes(): ...",
        "data = response.iter_raw(5)",
    ],
)
def test_this_test_sees_what_is_unbounded(source: str) -> None:
    assert list(unbounded(ast.parse(source)))


def test_the_guards_client_can_do_nothing_else() -> None:
    assert {name for name in vars(HttpClient) if not name.startswith("_")} == {"ask", "open", "close"}
