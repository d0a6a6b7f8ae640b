"""Probes the TLS of a server with hand-written ClientHellos (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2, RFC
6101).

Our own OpenSSL refuses old versions and weak ciphers, so a server that accepts them would look safe. A hello is sent,
the unencrypted part of the answer is read, and the connection is closed: no session, no secret is involved.
"""

from __future__ import annotations

import os
import ssl
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import islice
from socket import socket

from asn1crypto import core, parser
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import SignatureAlgorithmOID

from scanner.errors import ScannerError
from scanner.model.finding import Incomplete
from scanner.model.posture import CertificateFact, Protocol, ProtocolFact, TlsFacts, TrustFact
from scanner.model.untrusted import clean_text
from scanner.outbound import speak_old

Connect = Callable[[], socket]
"""A new connection to the vetted address. Raises OSError or ScannerError."""

# Bytes of a handshake: a long chain has some ten thousand.
_MAX_ANSWER = 128 << 10
_MAX_CHAIN = 12  # certificates; a longer chain is not followed
_ANSWER_SECONDS = 5.0
_EDWARDS = {SignatureAlgorithmOID.ED25519: "ed25519", SignatureAlgorithmOID.ED448: "ed448"}
# Subject alternative names that are compared, and chains that are tried.
_MAX_NAMES, _MAX_PATHS = 1000, 256
_DNS_NAME, _IP_ADDRESS = 2, 7  # tags of GeneralName
# Exceptions of the libraries for malformed certificates.
_UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion)
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: expiry is a check of its own

_WIRE = {
    Protocol.SSL_3: 0x0300,
    Protocol.TLS_1_0: 0x0301,
    Protocol.TLS_1_1: 0x0302,
    Protocol.TLS_1_2: 0x0303,
    Protocol.TLS_1_3: 0x0304,
}

# IANA TLS cipher suites that servers of any age know, secure ones first.
_MODERN = (
    0xC02B,
    0xC02F,
    0xC02C,
    0xC030,
    0xCCA9,
    0xCCA8,
    0x009E,
    0x009F,
    0xCCAA,
    0xC023,
    0xC027,
    0xC009,
    0xC013,
    0xC00A,
    0xC014,
    0x0033,
    0x0039,
    0x0067,
    0x006B,
    0x009C,
    0x009D,
    0x003C,
    0x003D,
    0x002F,
    0x0035,
    0x0041,
    0x0084,
)
_TLS13 = (0x1301, 0x1302, 0x1303)  # RFC 8446, B.4
WEAK = {
    "NULL (no encryption)": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010, 0xC001, 0xC00B),
    "anonymous (no authentication)": (
        0x0018,
        0x001B,
        0x0034,
        0x003A,
        0x006C,
        0x006D,
        0x00A6,
        0x00A7,
        0xC015,
        0xC016,
        0xC017,
        0xC018,
        0xC019,
    ),
    "export (40 bits)": (0x0003, 0x0006, 0x0008, 0x000B, 0x000E, 0x0011, 0x0014, 0x0017, 0x0019),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011, 0xC002, 0xC00C),
    "single DES": (0x0009, 0x000C, 0x000F, 0x0012, 0x0015, 0x001A),
    "64-bit blocks (3DES, IDEA)": (0x000A, 0x0016, 0x0013, 0xC008, 0xC012, 0xC003, 0xC00D, 0x0007),
}
_EVERY = _MODERN + tuple(suite for suites in WEAK.values() for suite in suites)
# RFC 8446, 4.2.3: what common clients offer.
_SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807, 0x0203, 0x0201)
_GROUPS = (0x001D, 0x0017, 0x0018, 0x0019)  # RFC 8446, 4.2.7: X25519 and the NIST curves
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # HelloRetryRequest


@dataclass(frozen=True)
class Hello:
    """The server's choice.

    ``stapled``: an OCSP response was sent (visible below TLS 1.3 only). ``ended``: the flight was read to its end, so a
    missing OCSP response is certain.
    """

    protocol: Protocol
    cipher: int
    stapled: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Refusal:
    """No handshake: an alert, or a closed connection."""

    alert: int | None


@dataclass(frozen=True)
class NotTls:
    """The answer is not TLS."""

    beginning: bytes


Answer = Hello | Refusal | NotTls


def client_hello(protocol: Protocol, suites: Sequence[int], server_name: str) -> bytes:
    """Build one ClientHello record that offers exactly this version and these suites."""
    wire = _WIRE[protocol]
    legacy = min(wire, 0x0303)
    extensions = b""
    if protocol is not Protocol.SSL_3:
        extensions = b"".join(_extension(number, body) for number, body in _extensions(protocol, server_name))
        extensions = struct.pack(">H", len(extensions)) + extensions
    ciphers = b"".join(struct.pack(">H", suite) for suite in (*suites, 0x00FF))  # 00FF: RFC 5746, no renegotiation
    # TLS 1.3 middlebox compatibility (RFC 8446, appendix D.4): without a session id some proxies drop the hello.
    session = os.urandom(32) if protocol is Protocol.TLS_1_3 else b""
    body = struct.pack(">H", legacy) + os.urandom(32) + bytes([len(session)]) + session
    body += struct.pack(">H", len(ciphers)) + ciphers + b"\x01\x00" + extensions
    handshake = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack(">BHH", 22, min(wire, 0x0301), len(handshake)) + handshake


def _extensions(protocol: Protocol, server_name: str) -> Iterator[tuple[int, bytes]]:
    if server_name and not _is_address(server_name):  # RFC 6066 section 3: no addresses
        name = server_name.encode("idna")
        yield 0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name
    yield 10, _vector(struct.pack(f">{len(_GROUPS)}H", *_GROUPS))
    yield 11, b"\x01\x00"
    if protocol.rank >= Protocol.TLS_1_2.rank:
        yield 13, _vector(struct.pack(f">{len(_SIGNATURES)}H", *_SIGNATURES))
    yield 5, b"\x01\x00\x00\x00\x00"  # status_request: OCSP
    if protocol is Protocol.TLS_1_3:
        yield 43, b"\x02\x03\x04"
        share = struct.pack(">HH", 0x001D, 32) + os.urandom(32)  # any 32 bytes are a valid x25519 key
        yield 51, _vector(share)


def _extension(number: int, body: bytes) -> bytes:
    return struct.pack(">HH", number, len(body)) + body


def _vector(body: bytes) -> bytes:
    return struct.pack(">H", len(body)) + body


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def ask(connect: Connect, protocol: Protocol, suites: Sequence[int], server_name: str) -> Answer:
    """Send a hello and read the answer. Raises OSError if there is no connection or no answer in time."""
    with connect() as connection:
        ends = time.monotonic() + min(_ANSWER_SECONDS, connection.gettimeout() or _ANSWER_SECONDS)

        def receive(size: int) -> bytes:
            # one limit for the whole answer, even if it arrives byte by byte
            connection.settimeout(max(0.01, ends - time.monotonic()))
            return connection.recv(size)

        connection.sendall(client_hello(protocol, suites, server_name))
        return read_answer(receive)


def read_answer(receive: Callable[[int], bytes]) -> Answer:
    """Read the unencrypted part of the server's first flight, bounded. Raises OSError (timeout) as ``receive`` does."""
    buffer, handshake = bytearray(), bytearray()
    hello: Hello | None = None
    total = 0
    while total < _MAX_ANSWER:
        try:
            chunk = receive(4096)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return hello or (NotTls(bytes(buffer[:64])) if buffer else Refusal(None))
        total += len(chunk)
        buffer += chunk
        while len(buffer) >= 5:
            kind, length = buffer[0], int.from_bytes(buffer[3:5], "big")
            if kind not in (20, 21, 22, 23) or buffer[1] != 3:
                return hello or NotTls(bytes(buffer[:64]))
            if len(buffer) < 5 + length:
                break
            record = bytes(buffer[5 : 5 + length])
            del buffer[: 5 + length]
            if kind == 21:
                return hello or Refusal(record[1] if len(record) > 1 else None)
            if kind != 22:
                return hello or NotTls(record[:64])
            handshake += record
            hello, over = _take(handshake, hello)
            if over and hello:
                return hello
    return hello or NotTls(bytes(buffer[:64]))


def _take(handshake: bytearray, hello: Hello | None) -> tuple[Hello | None, bool]:
    """Remove complete messages from ``handshake``: ServerHello (2), CertificateStatus (22), ServerHelloDone (14).

    Returns the hello, if known, and whether the rest of the flight is irrelevant.
    """
    while len(handshake) >= 4:
        kind, length = handshake[0], int.from_bytes(handshake[1:4], "big")
        if len(handshake) < 4 + length:
            return hello, False
        body = bytes(handshake[4 : 4 + length])
        del handshake[: 4 + length]
        if kind == 2 and hello is None:
            hello = _server_hello(body)
            if hello is None or hello.protocol is Protocol.TLS_1_3:
                return hello, True
        elif kind == 22 and hello:
            hello = Hello(hello.protocol, hello.cipher, stapled=True)
        elif kind == 14 and hello:
            return Hello(hello.protocol, hello.cipher, hello.stapled, ended=True), True
    return hello, False


def _server_hello(body: bytes) -> Hello | None:
    """Parse a ServerHello (RFC 8446 section 4.1.3; version in supported_versions, 4.2.1). None if it is malformed."""
    if len(body) < 38:
        return None
    version, random, skip = int.from_bytes(body[:2], "big"), body[2:34], body[34]
    rest = body[35 + skip :]
    if len(rest) < 3:
        return None
    cipher, extensions = int.from_bytes(rest[:2], "big"), rest[5:]
    while len(extensions) >= 4:
        number, length = struct.unpack(">HH", extensions[:4])
        if number == 43 and length == 2:
            version = int.from_bytes(extensions[4:6], "big")
        extensions = extensions[4 + length :]
    if random == _RETRY:
        version = 0x0304
    known = {wire: protocol for protocol, wire in _WIRE.items()}
    return Hello(known[version], cipher) if version in known else None


def probe(connect: Connect, server_name: str, contexts: TrustContexts) -> TlsFacts | Incomplete | None:
    """Collect the facts about a port's TLS. None: it has no TLS. Incomplete: nothing could be determined."""
    versions = tuple(ProtocolFact(protocol, accepts(connect, protocol, server_name)) for protocol in Protocol)
    spoken = [fact.protocol for fact in versions if fact.accepted is True]
    unknown = [fact.accepted for fact in versions if isinstance(fact.accepted, Incomplete)]
    if not spoken:
        # A server that refuses every version with an alert does have TLS, so "no TLS" would be a guess.
        return unknown[0] if unknown else None if _silent(connect, server_name) else TlsFacts(versions)
    trust, chain = contexts.trust(connect, server_name), contexts.chain(connect, server_name)
    return TlsFacts(
        versions, weak_ciphers(connect, spoken, server_name), chain, trust, stapled(connect, spoken, server_name)
    )


def accepts(connect: Connect, protocol: Protocol, server_name: str) -> bool | Incomplete:
    """True if the server accepts this version when no other is offered."""
    suites = _TLS13 if protocol is Protocol.TLS_1_3 else _EVERY
    try:
        answer = ask(connect, protocol, suites, server_name)
    except (OSError, ScannerError) as error:
        return Incomplete("no_answer", f"no answer to a {protocol} hello: {clean_text(str(error), 200)}")
    return isinstance(answer, Hello) and answer.protocol is protocol


def _silent(connect: Connect, server_name: str) -> bool:
    """True if the port has no TLS at all: not even an alert."""
    try:
        answer = ask(connect, Protocol.TLS_1_2, _EVERY, server_name)
    except (OSError, ScannerError):
        return True
    return not isinstance(answer, Refusal) or answer.alert is None


def weak_ciphers(connect: Connect, spoken: Sequence[Protocol], server_name: str) -> tuple[str, ...] | Incomplete:
    """The classes of weak suites that the server accepts if nothing else is offered. TLS 1.3 has none."""
    old = [protocol for protocol in spoken if protocol is not Protocol.TLS_1_3]
    found: set[str] = set()
    # Servers choose export suites below TLS 1.2 only, so the oldest version is probed beside the newest.
    for protocol in dict.fromkeys((old[-1], old[0])) if old else ():
        left = dict(WEAK)
        while left:
            offered = tuple(suite for suites in left.values() for suite in suites)
            try:
                answer = ask(connect, protocol, offered, server_name)
            except (OSError, ScannerError) as error:
                return Incomplete("no_answer", f"no answer about weak ciphers: {clean_text(str(error), 200)}")
            chosen = answer.cipher if isinstance(answer, Hello) else None
            name = next((name for name, suites in left.items() if chosen in suites), None)
            if name is None:
                break
            found.add(name)
            del left[name]
    return tuple(name for name in WEAK if name in found)


def stapled(connect: Connect, spoken: Sequence[Protocol], server_name: str) -> bool | Incomplete:
    """True if an OCSP response comes with the certificate (RFC 6066 section 8)."""
    if Protocol.TLS_1_2 not in spoken:
        return Incomplete("encrypted", "a stapled response is visible in TLS 1.2 only, later it is encrypted")
    # Two hellos: servers such as nginx fetch the response only after the first request for it.
    for _ in range(2):
        try:
            answer = ask(connect, Protocol.TLS_1_2, _MODERN, server_name)
        except (OSError, ScannerError) as error:
            return Incomplete("no_answer", f"no answer about stapling: {clean_text(str(error), 200)}")
        if isinstance(answer, Hello) and answer.stapled:
            return True
    if isinstance(answer, Hello) and answer.ended:
        return False
    return Incomplete("no_answer", "the handshake could not be read to its end")


@dataclass(frozen=True)
class TrustContexts:
    """Two TLS contexts: ``verifying`` knows the trusted CAs, ``any`` accepts every certificate.

    Both accept versions as old as OpenSSL supports. ``own_ca``: the CAs were configured, not the system's.
    """

    verifying: ssl.SSLContext
    any: ssl.SSLContext
    own_ca: bool

    @classmethod
    def of(cls, verifying: ssl.SSLContext, lenient: ssl.SSLContext, *, own_ca: bool) -> TrustContexts:
        verifying.check_hostname = False  # the name is a check of its own
        verifying.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        return cls(speak_old(verifying), lenient, own_ca)

    def trust(self, connect: Connect, server_name: str) -> TrustFact | Incomplete:
        """Whether the chain leads to a trusted CA."""
        try:
            with connect() as raw, self.verifying.wrap_socket(raw, server_hostname=server_name):
                return TrustFact(True, own_ca=self.own_ca)
        except ssl.SSLCertVerificationError as error:
            return TrustFact(False, clean_text(error.verify_message, 200), self.own_ca)
        except (OSError, ValueError, ScannerError) as error:
            return Incomplete("no_handshake", f"no handshake with OpenSSL: {clean_text(str(error), 200)}")

    def chain(self, connect: Connect, server_name: str) -> tuple[CertificateFact, ...] | Incomplete:
        """The certificates as sent, the server's own first."""
        try:
            with connect() as raw, self.any.wrap_socket(raw, server_hostname=server_name) as shaken:
                encoded = _sent_chain(shaken)
        except (OSError, ValueError, ScannerError) as error:
            return Incomplete("no_handshake", f"no handshake with OpenSSL: {clean_text(str(error), 200)}")
        return chain_facts(encoded[:_MAX_CHAIN], self.verifying.get_ca_certs(binary_form=True), datetime.now(UTC))


def _sent_chain(shaken: ssl.SSLSocket) -> list[bytes]:
    """The chain as sent. Public since Python 3.13; before that, the underlying object has the same method."""
    method = getattr(shaken, "get_unverified_chain", None) or shaken._sslobj.get_unverified_chain  # type: ignore[attr-defined]
    found = [item if isinstance(item, bytes) else item.public_bytes(2) for item in method() or ()]  # 2: ENCODING_DER
    return found or [own for own in (shaken.getpeercert(binary_form=True),) if own]


def chain_facts(
    sent: Sequence[bytes], anchors: Iterable[bytes], now: datetime
) -> tuple[CertificateFact, ...] | Incomplete:
    """Yield tag and content of each name (RFC 5280 section 4.2.1.6). Names of other types are skipped unparsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of malformed serial numbers and names
            certificates = [x509.load_der_x509_certificate(der) for der in sent]
            needed = path_to_trust(certificates, _anchors(certificates, anchors), now)
            facts = [certificate_fact(certificate) for certificate in certificates]
    except _UNREADABLE as error:
        return Incomplete("bad_certificate", f"a certificate cannot be read: {clean_text(str(error), 200)}")
    return tuple(replace(fact, needed=index in needed) for index, fact in enumerate(facts))


def _anchors(certificates: Sequence[x509.Certificate], trusted: Iterable[bytes]) -> list[x509.Certificate]:
    """The trusted CAs that the chain names."""
    named = {name for certificate in certificates for name in (certificate.issuer, certificate.subject)}
    found = []
    for der in trusted:
        try:
            anchor = x509.load_der_x509_certificate(der)
            if anchor.subject in named:
                found.append(anchor)
        except _UNREADABLE:
            continue  # an unreadable CA of the system cannot be an anchor
    return found


def path_to_trust(
    sent: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> frozenset[int]:
    """Positions of the certificates that a client needs to get from the server's own (the first) to a trusted CA.

    Servers also send certificates that are not needed: an old cross-signature, or a root. Their expiry is not a
    failure. Of several paths the trusted one is chosen, then the valid one, then the one that lasts longest; without a
    trusted CA, the longest one.
    """

    def rank(path: tuple[int, ...]) -> tuple[bool, bool, datetime]:
        certificates = [sent[index] for index in path]
        top = [a for a in anchors if a == certificates[-1] or _signed_by(certificates[-1], a)]
        valid = all(_valid(c, now) for c in certificates) and (not top or any(_valid(a, now) for a in top))
        return bool(top), valid, min(c.not_valid_after_utc for c in certificates)

    if not sent:
        return frozenset()
    best = max(islice(_paths(sent, anchors, (0,)), _MAX_PATHS), key=rank)
    return frozenset(best)


def _paths(
    sent: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], path: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Paths from the first certificate: to each one that is or was issued by a trusted CA, to a root, and to the
    last one sent.
    """
    last = sent[path[-1]]
    above = [i for i, other in enumerate(sent) if i not in path and _signed_by(last, other)]
    if not above or _signed_by(last, last) or any(anchor == last or _signed_by(last, anchor) for anchor in anchors):
        yield path
    for index in above:
        yield from _paths(sent, anchors, (*path, index))


def _valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if ``issuer`` signed the certificate. If the signature cannot be verified (MD5, tiny keys), names decide."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return True
    return True


def certificate_fact(certificate: x509.Certificate) -> CertificateFact:
    """The facts of a certificate that checks need. Raises one of ``_UNREADABLE`` if it is malformed."""
    kind, bits = _key(certificate)
    extensions = _extension_contents(certificate)
    return CertificateFact(
        subject=clean_text(certificate.subject.rfc4514_string(), 300),
        issuer=clean_text(certificate.issuer.rfc4514_string(), 300),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=kind,
        key_bits=bits,
        signature_hash=_signature_hash(certificate),
        self_signed=_signed_by(certificate, certificate),
        names=_names(extensions.get("subject_alt_name")),
        ocsp=_names_responder(extensions.get("authority_information_access")),
        must_staple=_must_staple(extensions.get("1.3.6.1.5.5.7.1.24")),
    )


def _extension_contents(certificate: x509.Certificate) -> dict[str, bytes]:
    """The content of each extension, by its name in asn1crypto. Raises ValueError if one occurs twice.

    ``cryptography`` parses all extensions or none: a single unknown kind of name, such as an X.400 address, would make
    the others unreadable.
    """
    parsed = asn1.Certificate.load(certificate.public_bytes(Encoding.DER))
    found: dict[str, bytes] = {}
    for item in parsed["tbs_certificate"]["extensions"]:
        name = str(item["extn_id"].native)
        if name in found:
            raise ValueError(f"the extension {name} occurs twice")
        found[name] = item["extn_value"].contents
    return found


def _signature_hash(certificate: x509.Certificate) -> str:
    if certificate.signature_algorithm_oid in _EDWARDS:
        return _EDWARDS[certificate.signature_algorithm_oid]
    try:
        found = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ""
    return found.name if found else ""


def _key(certificate: x509.Certificate) -> tuple[str, int]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA", key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "EC", key.curve.key_size
    if isinstance(key, dsa.DSAPublicKey):
        return "DSA", key.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519", 256
    if isinstance(key, ed448.Ed448PublicKey):
        return "Ed448", 456
    return type(key).__name__, 0


def _names(extension: bytes | None) -> tuple[str, ...]:
    """The host names and addresses of a certificate (RFC 9525: neither the common name nor other kinds of SAN count).

    A DNS name that looks like an address does not count (RFC 9525 section 6.5): it is reported as ``DNS:127.0.0.1``,
    which matches nothing. Raises ValueError for an address that is neither IPv4 nor IPv6, for which Go refuses the
    certificate.
    """
    found: list[str] = []
    for tag, content in _general_names(extension or b""):
        if tag == _DNS_NAME:
            text = content.decode("ascii")
            found.append(f"DNS:{text}" if _is_address(text.rstrip(".").strip("[]")) else text)
        elif tag == _IP_ADDRESS:
            found.append(str(ip_address(content)))
    return tuple(clean_text(name, 253) for name in found[:_MAX_NAMES])


def _general_names(extension: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each name (RFC 5280 section 4.2.1.6). Names of other kinds are not parsed."""
    rest = parser.parse(extension, strict=True)[4] if extension else b""
    while rest:
        length = parser.peek(rest)
        _, _, tag, _, content, _ = parser.parse(rest[:length], strict=True)
        yield tag, content
        rest = rest[length:]


def _names_responder(extension: bytes | None) -> bool:
    listed = asn1.AuthorityInfoAccessSyntax.load(extension, strict=True) if extension else ()
    return any(item["access_method"].native == "ocsp" for item in listed)


def _must_staple(extension: bytes | None) -> bool:
    """RFC 7633: the extension is a list of TLS extension numbers; 5 is status_request."""
    return bool(extension) and 5 in core.SequenceOf.load(extension, strict=True, spec=core.Integer).native
