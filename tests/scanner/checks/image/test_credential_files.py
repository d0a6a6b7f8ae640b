"""Key stores and the like, by name because they are binary."""

from __future__ import annotations

import pytest

from scanner.checks.image.credential_files import CredentialFiles
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize(
    "path", ["app/store.jks", "app/a.p12", "root/me.kdbx", "srv/x.PCAP", "etc/krb5.keytab", "a.bek"]
)
def test_a_file_of_keys(path: str) -> None:
    outcome = CredentialFiles().examine(subject(layer(entry(path))))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].path, outcome.evidence[0].layer_index) == (path, 0)


def test_one_that_a_later_layer_deletes() -> None:
    outcome = CredentialFiles().examine(subject(layer(entry("a.jks")), layer(whiteouts=["a.jks"])))
    assert isinstance(outcome, Failed)
    assert "layer 1 deletes it" in outcome.evidence[0].message


@pytest.mark.parametrize(
    "path",
    [
        "usr/lib/jvm/java-17/lib/security/cacerts.jks",
        "etc/ssl/certs/java/x.jks",
        "app/truststore.p12",
        "app/.env",
        "usr/lib/python3/dist-packages/x/tests/a.p12",
        "app/node_modules/x/test/a.pfx",
    ],
)
def test_trusted_certificates_texts_and_other_peoples_tests(path: str) -> None:
    """Dockle (CIS-DI-0010) fails on every .jks, with or without a key in it, and on every .env, whatever stands
    there.
    """
    assert isinstance(CredentialFiles().examine(subject(layer(entry(path)))), Passed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(CredentialFiles().examine(unreadable()), Incomplete)
