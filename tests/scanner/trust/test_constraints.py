"""Name constraints: what an authority may certify, by each kind of name. Compared with OpenSSL where it is at hand."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from subprocess import run

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from scanner.trust._constraints import violation
from tests.scanner.trust.certificates import AUTHORITY, certify, ec_key, pem, usage
from tests.scanner.trust.trees import NOW

ACME = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ACME")]))
OTHER = x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a")

# name in the leaf, permitted, excluded, whether it is allowed
CASES: dict[str, tuple[x509.GeneralName, list[x509.GeneralName], list[x509.GeneralName], bool]] = {
    "dns": (x509.DNSName("a.example.com"), [x509.DNSName("example.com")], [], True),
    "dns itself": (x509.DNSName("example.com"), [x509.DNSName("example.com")], [], True),
    "dns, only its end is the same": (x509.DNSName("badexample.com"), [x509.DNSName("example.com")], [], False),
    "dns excluded": (x509.DNSName("a.example.com"), [], [x509.DNSName("example.com")], False),
    "dns permitted and excluded": (
        x509.DNSName("a.example.com"),
        [x509.DNSName("example.com")],
        [x509.DNSName("a.example.com")],
        False,
    ),
    "mail of the host": (x509.RFC822Name("a@example.com"), [x509.RFC822Name("example.com")], [], True),
    "mail of a host below": (x509.RFC822Name("a@b.example.com"), [x509.RFC822Name("example.com")], [], False),
    "mail of the domain": (x509.RFC822Name("a@b.example.com"), [x509.RFC822Name(".example.com")], [], True),
    "one mailbox": (x509.RFC822Name("a@example.com"), [x509.RFC822Name("a@example.com")], [], True),
    "another mailbox": (x509.RFC822Name("A@example.com"), [x509.RFC822Name("a@example.com")], [], False),
    "uri": (
        x509.UniformResourceIdentifier("https://example.com/x"),
        [x509.UniformResourceIdentifier("example.com")],
        [],
        True,
    ),
    "uri below": (
        x509.UniformResourceIdentifier("https://a.example.com/x"),
        [x509.UniformResourceIdentifier(".example.com")],
        [],
        True,
    ),
    "uri with an address": (
        x509.UniformResourceIdentifier("https://10.0.0.1/x"),
        [x509.UniformResourceIdentifier("example.com")],
        [],
        False,
    ),
    "uri that hides its host": (
        x509.UniformResourceIdentifier("https://example.com@evil.example/"),
        [x509.UniformResourceIdentifier("example.com")],
        [],
        False,
    ),
    "address": (x509.IPAddress(ip_address("10.1.2.3")), [x509.IPAddress(ip_network("10.0.0.0/8"))], [], True),
    "address outside": (x509.IPAddress(ip_address("11.1.2.3")), [x509.IPAddress(ip_network("10.0.0.0/8"))], [], False),
    "address of the other family": (
        x509.IPAddress(ip_address("::1")),
        [x509.IPAddress(ip_network("0.0.0.0/0"))],
        [],
        False,
    ),
    "subject": (x509.DNSName("a.example.com"), [ACME], [], True),
    "subject of another": (
        x509.DNSName("a.example.com"),
        [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "X")]))],
        [],
        False,
    ),
    "a kind of name that is not constrained": (
        x509.DNSName("a.example.com"),
        [x509.RFC822Name("example.org")],
        [],
        True,
    ),
    "a kind of name that nobody can compare": (OTHER, [OTHER], [], False),
}
UNLIKE_OPENSSL = {"a kind of name that nobody can compare"}


def chain(name: str, *, critical: bool = True) -> list[x509.Certificate]:
    given, permitted, excluded, _ = CASES[name]
    root = certify({"CN": "root"}, ec_key("root"), AUTHORITY)
    limits = x509.NameConstraints(permitted or None, excluded or None)
    between = certify({"CN": "between"}, ec_key("between"), [*AUTHORITY, (limits, critical)], (root, ec_key("root")))
    san = (x509.SubjectAlternativeName([given]), False)
    leaf = certify(
        {"O": "acme", "CN": "l"}, ec_key("l"), [usage(digital_signature=True), san], (between, ec_key("between"))
    )
    return [leaf, between, root]


@pytest.mark.parametrize("name", CASES)
def test_an_authority_certifies_only_what_it_may(name: str) -> None:
    assert (violation(chain(name)) == "") is CASES[name][3]
    assert (violation(chain(name, critical=False)) == "") is CASES[name][3], "it binds whether it is critical or not"


@pytest.mark.parametrize("name", sorted(CASES.keys() - UNLIKE_OPENSSL))
def test_openssl_says_the_same(name: str, tmp_path: Path) -> None:
    for file, certificate in zip(("leaf", "between", "root"), chain(name), strict=True):
        (tmp_path / file).write_text(pem(certificate))
    command = [
        "openssl",
        "verify",
        "-attime",
        str(int(NOW.timestamp())),
        "-CAfile",
        "root",
        "-untrusted",
        "between",
        "leaf",
    ]
    done = run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is CASES[name][3], done.stderr
