"""Names and addresses, by RFC 9525."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from subprocess import run

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from scanner.checks.registry.registry_certificate_name import CertificateName
from scanner.model.finding import Failed, NotApplicable, Passed
from scanner.registry.tls import certificate_fact
from tests.scanner.checks.registries import chain, examine, messages
from tests.scanner.trust.certificates import certify, ec_key, pem


@pytest.mark.parametrize(
    ("host", "names", "fits"),
    [
        ("registry.example.com", ("registry.example.com",), True),
        ("registry.example.com:5000", ("Registry.Example.COM",), True),
        ("registry.example.com", ("registry.example.com.",), False),
        ("registry.example.com", ("*.example.com.",), False),
        ("registry_1.example.com", ("*.example.com",), True),
        ("registry.example.com", ("*",), False),
        ("registry.example.com", ("registry..com", ".example.com", "*.*.com", ""), False),
        ("registry.example.com", ("*.example.com",), True),
        ("example.com", ("*.example.com",), False),
        ("a.b.example.com", ("*.example.com",), False),
        ("registry.example.com", ("r*.example.com",), False),
        ("example.com", ("*.com",), False),
        ("registry.example.com", ("example.com", "other.example.com"), False),
        ("registry.example.com", (), False),
        ("127.0.0.1:5000", ("127.0.0.1",), True),
        ("127.0.0.1", ("127.0.0.2",), False),
        ("[::1]:5000", ("0:0:0:0:0:0:0:1",), True),
        ("127.0.0.1", ("*.0.0.1",), False),
        ("127.0.0.1", ("DNS:127.0.0.1",), False),
        ("127.0.0.1", ("::ffff:127.0.0.1",), True),
        ("[::1]:5000", ("DNS:::1",), False),
        ("docker.io", ("*.docker.io",), True),
        # As Go's x509.Certificate.VerifyHostname, but that an address with a dot behind it fits nothing.
        ("registry.example.com.", ("registry.example.com.",), True),
        ("registry.example.com.", ("registry.example.com",), True),
        ("registry.example.com..", ("registry.example.com.",), False),
        ("127.0.0.1.", ("127.0.0.1",), False),
        ("127.0.0.1.", ("DNS:127.0.0.1",), False),
        (".", (".",), False),
    ],
)
def test_names(host: str, names: tuple[str, ...], fits: bool) -> None:
    outcome = examine(CertificateName(), host=host, tls=chain(names=names))
    assert isinstance(outcome, Passed if fits else Failed)


def test_the_names_it_has_are_said() -> None:
    outcome = examine(CertificateName(), tls=chain(names=tuple(f"{n}.example.org" for n in range(7))))
    assert messages(outcome) == [
        "the certificate is for 0.example.org, 1.example.org, 2.example.org, 3.example.org, 4.example.org and 2 more,"
        " not for registry.example.com"
    ]
    assert messages(examine(CertificateName(), tls=chain(names=()))) == ["the certificate contains no names"]


def test_without_tls_there_is_no_certificate() -> None:
    assert isinstance(examine(CertificateName(), tls=None), NotApplicable)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("registry.example.com", [x509.DNSName("registry.example.com")]),
        ("registry.example.com", [x509.DNSName("REGISTRY.example.com")]),
        ("registry.example.com", [x509.DNSName("*.example.com")]),
        ("a.b.example.com", [x509.DNSName("*.example.com")]),
        ("registry.example.com", [x509.UniformResourceIdentifier("https://registry.example.com")]),
        ("registry.example.com", [x509.RFC822Name("registry@registry.example.com")]),
        (
            "registry.example.com",
            [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.example.com")]))],
        ),
        ("127.0.0.1", [x509.IPAddress(ip_address("127.0.0.1"))]),
        ("127.0.0.1", [x509.DNSName("127.0.0.1")]),
        ("127.0.0.1", [x509.DNSName("127.0.0.1"), x509.IPAddress(ip_address("127.0.0.2"))]),
        ("10.0.0.1", [x509.IPAddress(ip_address("127.0.0.1"))]),
    ],
)
def test_openssl_says_the_same(host: str, names: list[x509.GeneralName], tmp_path: Path) -> None:
    made = certify({"CN": "x"}, ec_key("a"), [(x509.SubjectAlternativeName(names), False)])
    outcome = examine(CertificateName(), host=host, tls=chain(names=certificate_fact(made).names))
    (tmp_path / "leaf.pem").write_text(pem(made))
    kind = "-checkip" if host[0].isdigit() else "-checkhost"
    said = run(
        ["openssl", "x509", "-in", "leaf.pem", "-noout", kind, host],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert isinstance(outcome, Passed) is ("does match" in said.stdout), said.stdout
