"""A stapled answer, where there is one to staple."""

from __future__ import annotations

from scanner.checks.registry.registry_ocsp_stapling import OcspStapling
from scanner.model.finding import Failed, NotApplicable, Passed, Severity
from tests.scanner.checks.registries import UNKNOWN, certificate, chain, examine, tls


def test_stapled_or_not() -> None:
    assert isinstance(examine(OcspStapling()), Passed)
    outcome = examine(OcspStapling(), tls=tls(stapled=False))
    assert isinstance(outcome, Failed)
    assert outcome.severity is None


def test_a_certificate_that_demands_it() -> None:
    outcome = examine(OcspStapling(), tls=tls(stapled=False, chain=(certificate(must_staple=True),)))
    assert isinstance(outcome, Failed)
    assert outcome.severity is Severity.HIGH


def test_who_names_no_responder_has_nothing_to_staple() -> None:
    assert isinstance(examine(OcspStapling(), tls=chain(ocsp=False)), NotApplicable)
    assert isinstance(examine(OcspStapling(), tls=None), NotApplicable)


def test_what_could_not_be_seen() -> None:
    assert examine(OcspStapling(), tls=tls(stapled=UNKNOWN)) == UNKNOWN
