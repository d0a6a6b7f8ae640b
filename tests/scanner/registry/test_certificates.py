"""Certificates as servers send them: which of them a client needs, and what any bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.model.finding import Incomplete
from scanner.registry.tls import chain_facts
from tests.scanner.trust.certificates import AUTHORITY, certify, der, ec_key, pem
from tests.scanner.trust.trees import NOW

DAY = timedelta(days=1)
BIT_STRING = Path(__file__).parents[2] / "data" / "certificate_bitstring_subject.der"
HOST = [(x509.SubjectAlternativeName([x509.DNSName("registry.example")]), False)]


def authority(
    name: str, by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None, *, over: bool = False
) -> x509.Certificate:
    since, until = (NOW - 900 * DAY, NOW - DAY) if over else (NOW - DAY, NOW + 900 * DAY)
    return certify({"CN": name}, ec_key(name), AUTHORITY, by, since=since, until=until)


ROOT, OLD_ROOT = authority("root"), authority("old root", over=True)
CROSSED = authority("root", (OLD_ROOT, ec_key("old root")), over=True)  # the root, as the old root vouched for it
CA = authority("ca", (ROOT, ec_key("root")))
CA_OVER = authority("ca", (ROOT, ec_key("root")), over=True)
LEAF = certify({"CN": "l"}, ec_key("l"), HOST, (CA, ec_key("ca")))
STRANGER = authority("stranger", over=True)

# what is sent, what is trusted, and which positions of what was sent are needed
PATHS: dict[str, tuple[Sequence[x509.Certificate], Sequence[x509.Certificate], set[int]]] = {
    "as it should be": ([LEAF, CA], [ROOT], {0, 1}),
    "with the root": ([LEAF, CA, ROOT], [ROOT], {0, 1}),
    "with a cross-signature that is over": ([LEAF, CA, CROSSED], [ROOT], {0, 1}),
    "with both roots": ([LEAF, CA, CROSSED, OLD_ROOT], [ROOT, OLD_ROOT], {0, 1}),
    "with a stranger": ([LEAF, CA, STRANGER], [ROOT], {0, 1}),
    "in another order": ([LEAF, STRANGER, CA], [ROOT], {0, 2}),
    "an intermediate that is over beside its successor": ([LEAF, CA_OVER, CA], [ROOT], {0, 2}),
    "an intermediate that is over": ([LEAF, CA_OVER], [ROOT], {0, 1}),
    "only the cross-signature is trusted": ([LEAF, CA, CROSSED], [OLD_ROOT], {0, 1, 2}),
    "nobody is trusted": ([LEAF, CA, CROSSED], [], {0, 1, 2}),
    "nobody is trusted, and the root is sent": ([LEAF, CA, CROSSED, ROOT], [], {0, 1, 3}),
    "alone": ([LEAF], [], {0}),
    "nothing": ([], [ROOT], set()),
}


@pytest.mark.parametrize("name", PATHS)
def test_what_a_client_needs(name: str) -> None:
    sent, anchors, needed = PATHS[name]
    facts = chain_facts([der(c) for c in sent], [der(a) for a in anchors], NOW)
    assert isinstance(facts, tuple)
    assert {index for index, fact in enumerate(facts) if fact.needed} == needed


@pytest.mark.parametrize("name", [n for n, (sent, anchors, _) in PATHS.items() if sent and anchors])
def test_openssl_accepts_exactly_the_paths_that_are_valid(name: str, tmp_path: Path) -> None:
    """Each certificate that is needed is valid just when OpenSSL finds a way to a trusted CA."""
    sent, anchors, needed = PATHS[name]
    for file, certificates in (("leaf", sent[:1]), ("others", sent[1:]), ("trusted", anchors)):
        (tmp_path / file).write_text("".join(map(pem, certificates)))
    untrusted = ["-untrusted", "others"] if sent[1:] else []
    command = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-CAfile", "trusted", *untrusted, "leaf"]
    accepted = run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    valid = all(sent[index].not_valid_after_utc >= NOW for index in needed)
    assert accepted is valid


def test_many_sent_certificates_do_not_take_long() -> None:
    """Twelve certificates of one name and key, each of which could have issued each other."""
    same = [certify({"CN": "ca"}, ec_key("ca"), AUTHORITY, until=NOW + n * DAY) for n in range(1, 12)]
    assert isinstance(chain_facts([der(LEAF), *map(der, same)], [], NOW), tuple)


def san(*names: bytes) -> bytes:
    """A leaf whose SAN holds these names in DER: kinds that the library cannot read."""
    listed = b"".join(names)
    value = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30" + bytes([len(listed)]) + listed)
    return der(certify({"CN": "l"}, ec_key("l"), [(value, False)]))


X400, EDI, DNS = b"\xa3\x00", bytes.fromhex("a505a1030c0178"), b"\x82\x10registry.example"
SHORT_ADDRESS = b"\x87\x03\x7f\x00\x01"


def test_names_of_other_kinds_do_not_hide_the_names() -> None:
    """X.400 and EDI names: the library reads no extension of such a certificate."""
    facts = chain_facts([san(X400, EDI, DNS)], [], NOW)
    assert isinstance(facts, tuple)
    assert facts[0].names == ("registry.example",)


def test_an_address_of_another_length_is_no_certificate() -> None:
    assert isinstance(chain_facts([san(DNS, SHORT_ADDRESS)], [], NOW), Incomplete)


def test_a_dns_name_that_is_an_address_is_no_address() -> None:
    made = certify(
        {"CN": "x"},
        ec_key("a"),
        [(x509.SubjectAlternativeName([x509.DNSName("127.0.0.1"), x509.DNSName("a.example")]), False)],
    )
    (fact,) = chain_facts([der(made)], [], NOW)  # type: ignore[misc]
    assert fact.names == ("DNS:127.0.0.1", "a.example")


def test_a_certificate_for_many_hosts_is_for_each_of_them() -> None:
    """Content delivery networks have certificates with hundreds of names."""
    names = [x509.DNSName(f"r{number}.example") for number in range(300)]
    (fact,) = chain_facts(
        [der(certify({"CN": "x"}, ec_key("a"), [(x509.SubjectAlternativeName(names), False)]))], [], NOW
    )  # type: ignore[misc]
    assert fact.names[-1] == "r299.example"


def test_a_subject_that_is_no_text_cannot_be_read() -> None:
    """A BIT STRING, at which the library raises TypeError: OpenSSL and Go do not read it either."""
    found = chain_facts([der(LEAF), BIT_STRING.read_bytes()], [BIT_STRING.read_bytes()], NOW)
    assert isinstance(found, Incomplete)
    assert found.reason == "bad_certificate"


QUICK = settings(max_examples=200, deadline=None)


@QUICK
@given(st.integers(0, len(der(LEAF)) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_any_bytes_are_facts_or_incomplete(place: int, put: bytes, cut: int) -> None:
    data = bytearray(der(LEAF))
    data[place : place + cut] = put
    for sent in ([bytes(data)], [der(LEAF), bytes(data)], [put], [san(), bytes(data)]):
        found = chain_facts(sent, [bytes(data), der(ROOT)], NOW)
        assert isinstance(found, Incomplete) or len(found) == len(sent)


def test_every_byte_of_a_certificate() -> None:
    good = der(LEAF)
    for place in range(len(good)):
        for change in (1, 0x80):
            broken = good[:place] + bytes([good[place] ^ change]) + good[place + 1 :]
            found = chain_facts([broken], [], NOW)
            assert isinstance(found, Incomplete) or len(found) == 1


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (rsa.generate_private_key(65537, 1024), ("RSA", 1024)),
        (ec_key("l"), ("EC", 256)),
        (dsa.generate_private_key(1024), ("DSA", 1024)),
        (ed25519.Ed25519PrivateKey.generate(), ("Ed25519", 256)),
        (ed448.Ed448PrivateKey.generate(), ("Ed448", 456)),
    ],
    ids=["RSA", "EC", "DSA", "Ed25519", "Ed448"],
)
def test_every_kind_of_key_is_told_with_its_size(key: Any, told: tuple[str, int]) -> None:
    (fact,) = chain_facts([der(certify({"CN": "l"}, key, HOST, (CA, ec_key("ca"))))], [], NOW)  # type: ignore[misc]
    assert (fact.key, fact.key_bits) == told


@pytest.mark.parametrize(
    ("key", "name"), [(ed25519.Ed25519PrivateKey.generate(), "ed25519"), (ed448.Ed448PrivateKey.generate(), "ed448")]
)
def test_a_signature_that_has_no_hash_of_its_own_is_told_by_its_name(key: Any, name: str) -> None:
    builder = x509.CertificateBuilder(CA.subject, CA.subject, key.public_key(), 8, NOW - DAY, NOW + DAY)
    (fact,) = chain_facts([der(builder.sign(key, None))], [], NOW)  # type: ignore[misc]
    assert (fact.signature_hash, fact.self_signed) == (name, True)


def test_an_extension_that_stands_twice_makes_it_unreadable() -> None:
    """Readers take different ones: Go refuses the certificate."""
    wire = der(certify({"CN": "l"}, ec_key("l"), HOST))
    parsed = asn1.Certificate.load(wire)
    extensions = parsed["tbs_certificate"]["extensions"]
    extensions.append(extensions[0])
    assert isinstance(chain_facts([parsed.dump(force=True)], [], NOW), Incomplete)
