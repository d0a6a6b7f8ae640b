"""When nobody can pull any more."""

from __future__ import annotations

from datetime import timedelta

from scanner.checks.registry.registry_certificate_expiry import CertificateExpiry
from scanner.model.finding import Failed, NotApplicable, Passed, Severity
from tests.scanner.checks.registries import NOW, certificate, chain, examine, messages, tls


def test_days_left_are_told_even_where_they_are_enough() -> None:
    outcome = examine(CertificateExpiry())
    assert isinstance(outcome, Passed)
    assert outcome.tolerated[0].message == "CN=registry.example.com expires on 2027-01-24, in 60 days"


def test_soon_expired_and_not_yet() -> None:
    soon = examine(CertificateExpiry(), tls=chain(not_after=NOW + timedelta(days=3)))
    assert isinstance(soon, Failed)
    assert (soon.severity, messages(soon)) == (
        Severity.MEDIUM,
        ["CN=registry.example.com expires on 2026-11-28, in 3 days"],
    )
    over = examine(CertificateExpiry(), tls=chain(not_after=NOW - timedelta(days=3)))
    assert isinstance(over, Failed)
    assert (over.severity, messages(over)) == (None, ["CN=registry.example.com expired on 2026-11-22, 3 days ago"])
    early = examine(CertificateExpiry(), tls=chain(not_before=NOW + timedelta(days=3)))
    assert messages(early) == ["CN=registry.example.com is not valid before 2026-11-28"]


def test_an_intermediate_that_expires_first() -> None:
    both = (certificate(), certificate(subject="CN=CA", not_after=NOW - timedelta(seconds=1)))
    assert messages(examine(CertificateExpiry(), tls=tls(chain=both))) == ["CN=CA expired on 2026-11-25, 1 days ago"]


def test_a_policy_may_ask_for_more_days() -> None:
    check = CertificateExpiry()
    assert isinstance(examine(check, {"min_days": 90}), Failed)
    kept = examine(check)
    assert isinstance(check.judge(kept, None, {"min_days": 90}), Failed)  # type: ignore[arg-type]
    assert isinstance(check.judge(examine(check, {"min_days": 90}), None, {"min_days": 1}), Passed)  # type: ignore[arg-type]


def test_without_tls_there_is_no_certificate() -> None:
    assert isinstance(examine(CertificateExpiry(), tls=None), NotApplicable)


def test_an_expired_certificate_that_no_client_needs_is_no_failure() -> None:
    crossed = certificate(subject="CN=Root", issuer="CN=Old root", not_after=NOW - timedelta(days=900), needed=False)
    assert isinstance(examine(CertificateExpiry(), tls=tls(chain=(certificate(), crossed))), Passed)
    own = certificate(not_after=NOW - timedelta(days=1), needed=False)
    assert isinstance(examine(CertificateExpiry(), tls=tls(chain=(own,))), Failed), "the server's own counts always"
