"""The house's own rules: what every plug-in promises, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.checks.base import Check, ConfigCheck, ImageCheck, RegistryCheck
from scanner.errors import UsageError
from scanner.model.finding import Incomplete, Passed, Severity
from scanner.plugins import PluginError, discover
from scanner.trust.base import TrustScheme
from tests.scanner.checks import registries
from tests.scanner.checks.factory import broken_subjects

ROOT = Path(__file__).parents[1]
IMAGE_CHECKS = list(catalog.image_checks().values())
REGISTRY_CHECKS = list(catalog.registry_checks().values())


@pytest.mark.parametrize("check", IMAGE_CHECKS + REGISTRY_CHECKS, ids=lambda check: check.id)
def test_a_check_says_what_it_is(check: Check) -> None:
    for text in (check.title, check.remedy, check.looks_at, check.cannot_see, type(check).__doc__):
        assert text
        assert text.strip()
    assert check.severity in Severity
    assert check.cis or check.dockle or check.article, "a check answers to somebody's rule"


@pytest.mark.parametrize("check", IMAGE_CHECKS + REGISTRY_CHECKS, ids=lambda check: check.id)
def test_a_check_has_its_test(check: Check) -> None:
    room = "registry" if isinstance(check, RegistryCheck) else "image"
    assert (ROOT / "tests/scanner/checks" / room / f"test_{check.id.replace('-', '_')}.py").is_file()


@pytest.mark.parametrize("check", [c for c in IMAGE_CHECKS if not isinstance(c, ConfigCheck)], ids=lambda c: c.id)
@pytest.mark.parametrize("name", list(broken_subjects()))
def test_what_cannot_be_read_never_passes(check: ImageCheck, name: str) -> None:
    outcome = check.examine(broken_subjects()[name])
    assert not isinstance(outcome, Passed)
    assert not isinstance(outcome, Incomplete) or outcome.reason


@pytest.mark.parametrize("check", REGISTRY_CHECKS, ids=lambda check: check.id)
@pytest.mark.parametrize("name", list(registries.broken()))
def test_what_could_not_be_probed_never_passes(check: RegistryCheck, name: str) -> None:
    outcome = check.examine(registries.broken()[name])
    assert isinstance(outcome, Incomplete)
    assert outcome.reason


@pytest.mark.parametrize("check", IMAGE_CHECKS + REGISTRY_CHECKS, ids=lambda check: check.id)
def test_a_parameter_has_a_type_that_a_policy_can_give(check: Check) -> None:
    for default in check.parameters.values():
        assert isinstance(default, tuple | bool | int | float | str)


def test_a_plugin_that_is_not_one_is_noticed() -> None:
    class Stranger:
        pass

    with pytest.raises(PluginError, match="exactly one Stranger"):
        discover("scanner.checks.image", Stranger)


@pytest.mark.parametrize("scheme", catalog.schemes().values(), ids=lambda scheme: scheme.id)
def test_a_signature_scheme_says_what_it_is_and_trusts_no_secret(scheme: TrustScheme) -> None:
    assert scheme.title
    assert (ROOT / "tests/scanner/trust" / f"test_{scheme.id.replace('-', '_')}.py").is_file()
    for given in (b"", b"{", b"\xff", b"[]", b"{}", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(UsageError):
            scheme.parse_trust(given, "document")
