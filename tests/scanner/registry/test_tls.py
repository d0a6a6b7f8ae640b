"""ClientHellos by hand, and answers that are cut off, oversized or nonsense: read as what they are, never beyond a
bound.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.model.finding import Incomplete
from scanner.model.posture import Protocol
from scanner.registry.tls import (
    WEAK,
    Hello,
    NotTls,
    Refusal,
    accepts,
    client_hello,
    read_answer,
    stapled,
    weak_ciphers,
)


def feed(data: bytes, size: int = 4096) -> Callable[[int], bytes]:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return lambda most: parts.pop(0) if parts else b""


def record(kind: int, body: bytes) -> bytes:
    return struct.pack(">BHH", kind, 0x0303, len(body)) + body


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def server_hello(
    version: int = 0x0303, cipher: int = 0xC02F, extensions: bytes = b"", random: bytes = bytes(32)
) -> bytes:
    tail = struct.pack(">H", len(extensions)) + extensions if extensions else b""
    return message(2, struct.pack(">H", version) + random + b"\x00" + struct.pack(">H", cipher) + b"\x00" + tail)


DONE = message(14, b"")
TLS13 = struct.pack(">HHH", 43, 2, 0x0304)


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("name", ["registry.example.com", "127.0.0.1", "::1", "bücher.example"])
def test_a_hello_is_as_long_as_it_says(protocol: Protocol, name: str) -> None:
    hello = client_hello(protocol, (0xC02F,), name)
    assert hello[0] == 22
    assert int.from_bytes(hello[3:5], "big") == len(hello) - 5
    assert int.from_bytes(hello[6:9], "big") == len(hello) - 9
    assert (b"registry.example.com" in hello) is (name[0] == "r" and protocol is not Protocol.SSL_3)
    assert b"127.0.0.1" not in hello, "no address in server_name (RFC 6066 section 3)"


def test_what_servers_answer() -> None:
    assert read_answer(feed(record(22, server_hello() + DONE))) == Hello(Protocol.TLS_1_2, 0xC02F, ended=True)
    assert read_answer(feed(record(22, server_hello(extensions=TLS13)))) == Hello(Protocol.TLS_1_3, 0xC02F)
    assert read_answer(feed(record(22, server_hello(0x0300) + DONE))) == Hello(Protocol.SSL_3, 0xC02F, ended=True)
    assert read_answer(feed(record(22, server_hello(0x0301)))) == Hello(Protocol.TLS_1_0, 0xC02F)
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    assert read_answer(feed(record(22, server_hello(random=retry)))) == Hello(Protocol.TLS_1_3, 0xC02F)
    stapled = record(22, server_hello()) + record(22, message(22, b"\x01\x00\x00\x01x")) + record(22, DONE)
    assert read_answer(feed(stapled)) == Hello(Protocol.TLS_1_2, 0xC02F, stapled=True, ended=True)
    assert read_answer(feed(stapled, 1)) == read_answer(feed(stapled)), "however it is cut"
    assert read_answer(feed(record(21, b"\x02\x28"))) == Refusal(40)
    assert read_answer(feed(b"")) == Refusal(None)


def test_what_is_no_tls() -> None:
    for answer in (
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16",
        b"\x16\x02\x00\x00\x01x",
        record(23, b"data"),
    ):
        assert isinstance(read_answer(feed(answer)), NotTls), answer
    assert isinstance(read_answer(feed(record(22, server_hello(0x7F12)))), NotTls | Refusal)


def test_a_connection_that_is_reset_is_a_refusal() -> None:
    def reset(size: int) -> bytes:
        raise ConnectionResetError

    assert read_answer(reset) == Refusal(None)


def test_an_answer_without_end_is_left() -> None:
    asked = 0

    def endless(size: int) -> bytes:
        nonlocal asked
        asked += size
        return record(22, message(11, b"x" * 4000))[:size]

    assert not isinstance(read_answer(endless), Hello)
    assert asked <= 1 << 18


@given(st.binary(max_size=400))
def test_nonsense_is_never_a_handshake_that_was_agreed_to(data: bytes) -> None:
    assert read_answer(feed(data)) is not None
    read_answer(feed(record(22, data)))
    read_answer(feed(record(22, message(2, data))))


@given(st.integers(0, 200))
def test_a_hello_that_is_cut_off(length: int) -> None:
    whole = record(22, server_hello() + DONE)
    answer = read_answer(feed(whole[:length]))
    assert isinstance(answer, Hello) is (length >= len(whole))


def oldest(spoken: Protocol) -> Callable[[], socket.socket]:
    """A server that agrees to one version, whatever is offered; and to 3DES, where that is offered."""

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        wire = {Protocol.SSL_3: 0x0300, Protocol.TLS_1_2: 0x0303}[spoken]

        def serve() -> None:
            with theirs:
                offered = theirs.recv(4096)
                cipher = 0x000A if b"\x00\x0a" in offered[43:] else 0xC02F
                theirs.sendall(record(22, server_hello(wire, cipher) + DONE))

        threading.Thread(target=serve, daemon=True).start()
        ours.settimeout(5)
        return ours

    return connect


def test_versions_that_no_openssl_speaks_any_more() -> None:
    connect = oldest(Protocol.SSL_3)
    found = {protocol: accepts(connect, protocol, "registry.example.com") for protocol in Protocol}
    assert found == {protocol: protocol is Protocol.SSL_3 for protocol in Protocol}
    assert weak_ciphers(connect, [Protocol.SSL_3], "registry.example.com") == ("64-bit blocks (3DES, IDEA)",)
    assert weak_ciphers(connect, [Protocol.TLS_1_3], "registry.example.com") == ()


def test_a_server_that_answers_nothing_is_not_one_that_refuses() -> None:
    def silent() -> socket.socket:
        raise TimeoutError("timed out")

    assert isinstance(accepts(silent, Protocol.TLS_1_2, "r.example.com"), Incomplete)
    assert isinstance(weak_ciphers(silent, [Protocol.TLS_1_2], "r.example.com"), Incomplete)
    assert isinstance(stapled(silent, [Protocol.TLS_1_2], "r.example.com"), Incomplete)
    assert isinstance(stapled(silent, [Protocol.TLS_1_3], "r.example.com"), Incomplete)


def always(*messages: bytes) -> Callable[[], socket.socket]:
    """A server that answers every hello with these bytes."""
    kept: list[socket.socket] = []

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.sendall(b"".join(messages))
        theirs.shutdown(socket.SHUT_WR)
        kept.append(theirs)  # closed, it would not take our hello
        return ours

    return connect


STAPLE = message(22, b"\x01\x00\x00\x01x")


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ((server_hello(), STAPLE, DONE), True),
        ((server_hello(), DONE), False),
        ((server_hello(),), None),
    ],
    ids=["stapled", "not stapled", "cut off"],
)
def test_whether_an_answer_is_stapled(messages: tuple[bytes, ...], found: bool | None) -> None:
    answer = stapled(always(record(22, b"".join(messages))), [Protocol.TLS_1_2], "r.example.com")
    assert answer is found if found is not None else isinstance(answer, Incomplete)


@pytest.mark.parametrize(
    "hello", [message(2, bytes(37)), message(2, struct.pack(">H", 0x0303) + bytes(32) + b"\x20" + bytes(3))]
)
def test_a_hello_that_ends_too_early_is_no_hello(hello: bytes) -> None:
    assert not isinstance(read_answer(feed(record(22, hello))), Hello)


def test_a_server_of_every_weak_suite_is_asked_until_none_is_left() -> None:
    """Each class is taken away once it was chosen, so the questions end."""
    servers = [always(record(22, server_hello(cipher=suites[0]) + DONE)) for suites in WEAK.values()]
    asked = iter(servers)
    assert weak_ciphers(lambda: next(asked)(), [Protocol.TLS_1_2], "r.example.com") == tuple(WEAK)
