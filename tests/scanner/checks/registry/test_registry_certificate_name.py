"""Names and addresses, by RFC 9525."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_certificate_name import CertificateName
from scanner.model.finding import Failed, NotApplicable, Passed
from tests.scanner.checks.registries import chain, examine, messages


@pytest.mark.parametrize(
    ("host", "names", "fits"),
    [
        ("registry.example.com", ("registry.example.com",), True),
        ("registry.example.com:5000", ("Registry.Example.COM.",), True),
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
        ("docker.io", ("*.docker.io",), True),
    ],
)
def test_names(host: str, names: tuple[str, ...], fits: bool) -> None:
    outcome = examine(CertificateName(), host=host, tls=chain(names=names))
    assert isinstance(outcome, Passed if fits else Failed)


def test_the_names_it_has_are_said() -> None:
    outcome = examine(CertificateName(), tls=chain(names=tuple(f"{n}.example.org" for n in range(7))))
    assert messages(outcome) == [
        "the certificate names 0.example.org, 1.example.org, 2.example.org, 3.example.org, 4.example.org and 2 more,"
        " not registry.example.com"
    ]
    assert messages(examine(CertificateName(), tls=chain(names=()))) == [
        "the certificate names no host, not registry.example.com"
    ]


def test_without_tls_there_is_no_certificate() -> None:
    assert isinstance(examine(CertificateName(), tls=None), NotApplicable)
