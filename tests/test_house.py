"""The house's own rules: what every plug-in promises, whichever it is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
        discover("scanner.checks.image", Stranger).load()


@pytest.mark.parametrize("scheme", catalog.schemes().values(), ids=lambda scheme: scheme.id)
def test_a_signature_scheme_says_what_it_is_and_trusts_no_secret(scheme: TrustScheme) -> None:
    assert scheme.title
    assert (ROOT / "tests/scanner/trust" / f"test_{scheme.id.replace('-', '_')}.py").is_file()
    for given in (b"", b"{", b"\xff", b"[]", b"{}", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(UsageError):
            scheme.parse_trust(given, "document")


# One file each; ``tests/plugins`` mirrors the tree. The kind, and its file.
NEW = {
    "a check of images": "scanner/checks/image/sample_image_check.py",
    "a check of registries": "scanner/checks/registry/sample_registry_check.py",
    "a check of workloads": "scanner/checks/workload/sample_workload_check.py",
    "an engine": "scanner/engines/sample_engine.py",
    "a webhook format": "web/webhooks/sample_webhook.py",
    "a report format": "scanner/reports/sample_report.py",
    "a trust scheme": "scanner/trust/sample_scheme.py",
    "a notification channel": "scanner/notify/sample_channel.py",
    "a workload source": "scanner/workloads/sample_source.py",
    "a list of a registry": "scanner/registry/listings/sample_listing.py",
}
# The rules that a new plug-in meets without an edit elsewhere: these of the house's own tests.
RULES = (
    "tests/test_house.py",
    "tests/test_words.py",
    "tests/test_documentation.py",
    "tests/scanner/checks/test_catalogue.py",
    "tests/scanner/checks/workload/test_containers.py",
    "tests/scanner/reports/test_every_format.py",
    "tests/scanner/commands/test_trust.py::test_help_lists_the_schemes_that_there_are",
    "tests/scanner/commands/test_trust.py::test_the_schemes_and_their_page_agree",
    "tests/scanner/notify/test_channels.py::test_a_channel_says_what_it_is",
    "tests/scanner/notify/test_channels.py::test_every_channel_over_http_is_tried",
    "tests/scanner/registry/listings/test_listings.py::test_a_list_says_what_it_is",
    "tests/scanner/registry/listings/test_listings.py::test_an_api_is_on_a_host_that_an_administrator_or_the_manual_names",
    "tests/web/webhooks/test_documentation.py",
    "tests/web/webhooks/test_formats.py::test_every_format_has_a_sender",
)
OFFERED = """
from click.testing import CliRunner

from scanner import catalog, plugins
from scanner.cli import cli
from web.webhooks import formats

known = catalog.known_names()
assert {"sample-image-check", "sample-registry-check", "sample-workload-check"} <= set(known.checks)
assert catalog.engine_choices() == ("clair", "sample-engine", "trivy", "both"), catalog.engine_choices()
assert catalog.chosen_engines("both") == ("trivy", "clair")  # a third engine does not change it
assert catalog.chosen_engines("sample-engine") == ("sample-engine",)
assert "sample-engine" in known.engines and "sample-scheme" in known.schemes
assert "sample-channel" in catalog.channels()
assert "sample-listing" in catalog.listings()
assert "sample-webhook" in formats() and "sample-webhook" in plugins.ids("web.webhooks")


def shown(*command):
    return " ".join(CliRunner().invoke(cli, [*command, "--help"], terminal_width=2000).output.split())


assert "sample-engine" in shown("scan") and "sample-report" in shown("scan")
assert "sample-report" in shown("audit") and "sample-source:FILE" in shown("audit")
assert "sample-source:FILE" in shown("inventory", "push")
assert "sample-scheme" in shown("trust", "verify")
assert "sample-webhook" in shown("webhook", "create"), shown("webhook", "create")
refused = CliRunner().invoke(cli, ["scan", "oci:nowhere", "--engine", "fourth"], standalone_mode=False)
assert "sample-engine" in getattr(refused.exception, "hint", ""), (refused.output, refused.exception)
"""


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with a new plug-in of each kind, each with its test, and the lists in ``docs`` made anew."""
    copy = tmp_path_factory.mktemp("enlarged")
    without = shutil.ignore_patterns("__pycache__")  # with the pictures: the README leads to them
    for name in ("scanner", "web", "tests", "docs", "examples", "migrations", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=without)
    for name in ("README.md", "compose.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for file in NEW.values():
        shutil.copy(ROOT / "tests/plugins" / file, copy / file)
        test = copy / _mirrored(Path(file))
        test.write_text(f"import {file.removesuffix('.py').replace('/', '.')}\n\n\ndef test_it() -> None:\n    pass\n")
    assert _run(copy, "-m", "tests.documentation") == ""
    return copy


def _run(directory: Path, *arguments: str) -> str:
    """What a Python program says on its way to a failure; empty: it did not fail."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )
    return (done.stdout + done.stderr)[-6000:] if done.returncode else ""


@pytest.mark.parametrize("kind", NEW)
def test_there_is_a_sample_of_each_kind_of_plugin(kind: str) -> None:
    assert (ROOT / "tests/plugins" / NEW[kind]).is_file()


def test_a_new_plugin_is_offered_everywhere(enlarged: Path) -> None:
    assert _run(enlarged, "-c", OFFERED) == ""


def test_a_new_plugin_keeps_the_import_contracts(enlarged: Path) -> None:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    assert _run(enlarged, "-c", program) == ""


def test_a_new_plugin_costs_one_file(enlarged: Path) -> None:
    """None of the house's rules asks for an edit of another file."""
    names = [f"tests/test_house.py::{name}" for name in globals() if name.startswith("test_") and "new_plugin" in name]
    without = [f"--deselect={name}" for name in names]
    assert _run(enlarged, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *without, *RULES) == ""


# Where a module without a mirrored test is tested. ``tests/scanner/policy/test_rules.py`` mirrors
# ``scanner/policy/rules.py``, which needs no line.
TESTED_IN = {
    "web/kept_forms.py": "tests/web/pages/test_base.py",
    "web/pages/receipt_rows.py": "tests/web/api/test_receipts.py",
    "web/api/reconciliation.py": "tests/web/pages/test_reconciliation.py",
    "scanner/advisories/bolt.py": "tests/scanner/advisories/test_database.py",
    "scanner/advisories/sources.py": "tests/scanner/advisories/test_mirror.py",
    "scanner/advisories/trivydb.py": "tests/scanner/advisories/test_mirror.py",
    "scanner/catalog.py": "tests/test_house.py",
    "scanner/checks/_access.py": "tests/scanner/checks/registry/test_registry_anonymous_pull.py",
    "scanner/checks/_databases.py": "tests/scanner/checks/test_passwd.py",
    "scanner/checks/_distribution.py": "tests/scanner/checks/image/test_setuid_files.py",
    "scanner/checks/_encodings.py": "tests/scanner/checks/image/test_embedded_secrets.py",
    "scanner/checks/_key_stores.py": "tests/scanner/checks/image/test_embedded_secrets.py",
    "scanner/checks/_fetched.py": "tests/scanner/checks/image/test_remote_script.py",
    "scanner/checks/_host_paths.py": "tests/scanner/checks/workload/test_containers.py",
    "scanner/checks/_package_managers.py": "tests/scanner/checks/test_history.py",
    "scanner/checks/_pod_security.py": "tests/scanner/checks/workload/test_containers.py",
    "scanner/checks/_ports.py": "tests/scanner/checks/workload/test_containers.py",
    "scanner/checks/_remedy.py": "tests/scanner/checks/test_hints.py",
    "scanner/checks/_secret_shapes.py": "tests/scanner/checks/image/test_embedded_secrets.py",
    "scanner/checks/_secrets.py": "tests/scanner/checks/image/test_embedded_secrets.py",
    "scanner/checks/_shells.py": "tests/scanner/checks/test_history.py",
    "scanner/model/secret_variables.py": "tests/scanner/checks/test_history.py",
    "scanner/checks/_workloads.py": "tests/scanner/checks/workload/test_containers.py",
    "scanner/checks/_writes.py": "tests/scanner/checks/test_history.py",
    "scanner/checks/base.py": "tests/test_house.py",
    "scanner/__main__.py": "tests/scanner/commands/test_imports.py",
    "scanner/cli.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/_client.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/_engine_gate.py": "tests/scanner/commands/test_docker_authz.py",
    "scanner/commands/_engine_requests.py": "tests/scanner/commands/test_docker_authz.py",
    "scanner/commands/admission.py": "tests/scanner/services/test_admission_manifests.py",
    "scanner/commands/advisories.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/audit_log.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/beat.py": "tests/test_compose.py",
    "scanner/commands/checks.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/policy.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/project.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/registry.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/scan.py": "tests/scanner/commands/test_cli.py",
    "scanner/commands/secrets.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/serve.py": "tests/scanner/commands/test_errors_are_no_verdicts.py",
    "scanner/commands/token.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/user.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/webhook.py": "tests/scanner/commands/test_accounts.py",
    "scanner/commands/worker.py": "tests/test_compose.py",
    "scanner/config.py": "tests/scanner/commands/test_cli.py",
    "scanner/demo/run.py": "tests/test_end_to_end.py",
    "scanner/demo/samples.py": "tests/test_end_to_end.py",
    "scanner/engines/_answers.py": "tests/scanner/engines/test_any_bytes.py",
    "scanner/engines/_clair_client.py": "tests/scanner/engines/test_clair.py",
    "scanner/engines/_clair_updaters.py": "tests/scanner/engines/test_clair.py",
    "scanner/engines/_layer_server.py": "tests/scanner/engines/test_clair.py",
    "scanner/engines/base.py": "tests/test_house.py",
    "scanner/errors.py": "tests/scanner/commands/test_cli.py",
    "scanner/model/access.py": "tests/web/test_permissions.py",
    "scanner/model/actor.py": "tests/web/test_permissions.py",
    "scanner/model/audit.py": "tests/scanner/store/test_audit.py",
    "scanner/model/filesystem.py": "tests/scanner/registry/test_rootfs.py",
    "scanner/model/finding.py": "tests/scanner/policy/test_evaluate.py",
    "scanner/model/image.py": "tests/scanner/registry/test_manifest.py",
    "scanner/model/matching.py": "tests/scanner/engines/test_trivy_look_up.py",
    "scanner/model/notification.py": "tests/scanner/notify/test_channels.py",
    "scanner/model/posture.py": "tests/scanner/scanning/test_posture.py",
    "scanner/model/pull_proof.py": "tests/web/adapters/test_registry.py",
    "scanner/model/scan.py": "tests/scanner/store/test_scans.py",
    "scanner/model/vex.py": "tests/scanner/policy/test_openvex.py",
    "scanner/model/workload.py": "tests/scanner/checks/workload/test_containers.py",
    "scanner/model/workload_audit.py": "tests/scanner/commands/test_audit.py",
    "scanner/notify/_markdown.py": "tests/scanner/notify/test_channels.py",
    "scanner/notify/base.py": "tests/scanner/notify/test_channels.py",
    "scanner/plugins.py": "tests/test_house.py",
    "scanner/policy/context.py": "tests/scanner/policy/test_evaluate.py",
    "scanner/policy/document.py": "tests/scanner/policy/test_rules.py",
    "scanner/policy/expressions.py": "tests/scanner/policy/test_rules.py",
    "scanner/policy/match.py": "tests/scanner/policy/test_rules.py",
    "scanner/policy/remedies.py": "tests/scanner/policy/test_evaluate.py",
    "scanner/registry/auth.py": "tests/scanner/registry/test_client.py",
    "scanner/registry/decompress.py": "tests/scanner/registry/test_layers.py",
    "scanner/registry/listings/dockerhub.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/ecr.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/gar.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/ghcr.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/gitlab.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/harbor.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/quay.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/listings/base.py": "tests/scanner/registry/listings/test_listings.py",
    "scanner/registry/packages.py": "tests/scanner/registry/test_rootfs.py",
    "scanner/registry/places.py": "tests/scanner/registry/test_sources.py",
    "scanner/reports/_decision_text.py": "tests/scanner/reports/test_every_format.py",
    "scanner/reports/_sbom.py": "tests/scanner/reports/test_cyclonedx.py",
    "scanner/reports/base.py": "tests/scanner/reports/test_every_format.py",
    "scanner/reports/github.py": "tests/scanner/reports/test_every_format.py",
    "scanner/reports/json.py": "tests/scanner/reports/test_every_format.py",
    "scanner/reports/markdown.py": "tests/scanner/reports/test_every_format.py",
    "scanner/reports/table.py": "tests/scanner/reports/test_table_base.py",
    "scanner/scanning/attached_sboms.py": "tests/scanner/registry/test_attached.py",
    "scanner/scanning/slots.py": "tests/chaos/test_workers.py",
    "scanner/services/_fields.py": "tests/scanner/services/test_rules.py",
    "scanner/commands/break_glass.py": "tests/web/api/test_break_glass.py",
    "scanner/store/receipts.py": "tests/web/api/test_receipts.py",
    "web/pages/receipts.py": "tests/web/api/test_receipts.py",
    "scanner/services/break_glass.py": "tests/web/api/test_break_glass.py",
    "scanner/store/break_glass.py": "tests/web/api/test_break_glass.py",
    "scanner/services/audit_anchors.py": "tests/scanner/store/test_audit.py",
    "scanner/services/door_calls.py": "tests/web/adapters/test_kubernetes.py",
    "scanner/services/engine_calls.py": "tests/web/adapters/test_docker.py",
    "scanner/services/exemptions.py": "tests/scanner/services/test_rules.py",
    "scanner/services/gate.py": "tests/web/api/test_gate.py",
    "scanner/services/gate_reports.py": "tests/web/api/test_gate.py",
    "scanner/store/harbor.py": "tests/web/adapters/test_harbor.py",
    "scanner/services/jobs.py": "tests/scanner/store/test_scans.py",
    "scanner/services/policies.py": "tests/scanner/services/test_rules.py",
    "scanner/services/projects.py": "tests/scanner/services/test_rules.py",
    "scanner/services/pulls.py": "tests/web/adapters/test_registry.py",
    "scanner/services/revocations.py": "tests/scanner/worker/test_revocation.py",
    "scanner/services/sessions.py": "tests/scanner/services/test_rules.py",
    "scanner/store/direct.py": "tests/scanner/store/test_gate.py",
    "scanner/store/dry_runs.py": "tests/scanner/services/test_dry_runs.py",
    "scanner/services/simulation.py": "tests/web/pages/test_policies.py",
    "scanner/services/tokens.py": "tests/scanner/services/test_rules.py",
    "scanner/services/workload_documents.py": "tests/scanner/store/test_inventory.py",
    "scanner/store/alerts.py": "tests/scanner/services/test_notification_delivery.py",
    "scanner/store/image_events.py": "tests/scanner/services/test_notification_delivery.py",
    "scanner/store/leases.py": "tests/scanner/store/test_jobs.py",
    "scanner/store/matches.py": "tests/scanner/store/test_refresh.py",
    "scanner/store/notifications.py": "tests/scanner/services/test_notification_delivery.py",
    "scanner/store/open_groups.py": "tests/scanner/services/test_notification_delivery.py",
    "scanner/store/outbox.py": "tests/scanner/services/test_notification_delivery.py",
    "scanner/store/pulls.py": "tests/web/adapters/test_registry.py",
    "scanner/store/registries.py": "tests/web/api/test_administration.py",
    "scanner/store/revocations.py": "tests/scanner/worker/test_revocation.py",
    "scanner/store/schema.py": "tests/test_migrations.py",
    "scanner/trust/_cosign/authorities.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/document.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/forms.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/identity.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/instance.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/keyless.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/payload.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/transparency.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_cosign/verification.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_found.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_kms/aws.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_kms/azure.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_kms/base.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_kms/google.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_kms/services.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_kms/vault.py": "tests/scanner/trust/test_kms.py",
    "scanner/trust/_notation/chain.py": "tests/scanner/trust/test_notation.py",
    "scanner/trust/_notation/envelope.py": "tests/scanner/trust/test_notation.py",
    "scanner/trust/_notation/policy.py": "tests/scanner/trust/test_notation.py",
    "scanner/trust/_notation/verification.py": "tests/scanner/trust/test_notation.py",
    "scanner/trust/_path.py": "tests/scanner/trust/test_hostile_input.py",
    "scanner/trust/_pki.py": "tests/scanner/trust/test_notation.py",
    "scanner/trust/_state.py": "tests/scanner/trust/test_cosign.py",
    "scanner/trust/_tuf/anchors.py": "tests/scanner/trust/test_tuf.py",
    "scanner/trust/_tuf/documents.py": "tests/scanner/trust/test_tuf.py",
    "scanner/trust/_tuf/repository.py": "tests/scanner/trust/test_tuf.py",
    "scanner/trust/base.py": "tests/test_house.py",
    "scanner/worker/listening.py": "tests/scanner/worker/test_supervisor.py",
    "scanner/workloads/_compose_interpolation.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/_compose_model.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/_compose_services.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/_docker_inspect.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/_docker_options.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/_quantities.py": "tests/scanner/workloads/test_sources.py",
    "scanner/workloads/base.py": "tests/scanner/workloads/test_sources.py",
    "web/__init__.py": "tests/web/test_closed.py",
    "web/api/__init__.py": "tests/web/test_closed.py",
    "web/api/_members.py": "tests/web/test_surroundings.py",
    "web/api/account.py": "tests/web/test_permissions.py",
    "web/api/audit_log.py": "tests/web/api/test_administration.py",
    "web/api/base.py": "tests/web/api/test_administration.py",
    "web/api/events.py": "tests/web/pages/test_events.py",
    "web/api/notifications.py": "tests/web/pages/test_notifications.py",
    "web/api/policies.py": "tests/web/api/test_administration.py",
    "web/api/projects.py": "tests/web/test_permissions.py",
    "web/api/registries.py": "tests/web/api/test_administration.py",
    "web/api/tags.py": "tests/web/test_permissions.py",
    "web/api/tokens.py": "tests/web/api/test_administration.py",
    "web/api/users.py": "tests/web/test_permissions.py",
    "web/api/webhooks.py": "tests/web/api/test_administration.py",
    "web/doors.py": "tests/web/adapters/test_registry.py",
    "web/errors.py": "tests/web/test_surroundings.py",
    "web/health.py": "tests/web/test_surroundings.py",
    "web/logs.py": "tests/web/test_surroundings.py",
    "web/pages/advisories.py": "tests/web/pages/test_pages.py",
    "web/pages/export.py": "tests/web/pages/test_images.py",
    "web/pages/views.py": "tests/web/pages/test_images.py",
    "web/pages/forms.py": "tests/web/pages/test_settings.py",
    "web/pages/once.py": "tests/web/test_auth.py",
    "web/pages/scans.py": "tests/web/pages/test_pages.py",
    "web/pages/sign_in.py": "tests/web/test_auth.py",
    "web/pages/sign_in_oidc.py": "tests/web/test_oidc.py",
    "web/places.py": "tests/web/test_permissions.py",
    "web/resources.py": "tests/web/test_permissions.py",
    "web/security.py": "tests/web/test_auth.py",
    "web/sender_keys.py": "tests/web/webhooks/test_formats.py",
    "web/waiting.py": "tests/web/test_capacity.py",
    "web/webhooks/__init__.py": "tests/web/webhooks/test_documentation.py",
    "web/webhooks/_notifications.py": "tests/web/webhooks/test_formats.py",
    "web/webhooks/base.py": "tests/web/webhooks/test_receive.py",
}

# The plug-ins of a room that one file of cases covers: every plug-in is a case there, by its name.
FAMILIES = {
    "scanner/checks/workload": "tests/scanner/checks/workload/test_containers.py",
    "scanner/notify": "tests/scanner/notify/test_channels.py",
    "scanner/workloads": "tests/scanner/workloads/test_sources.py",
    "web/webhooks": "tests/web/webhooks/senders.py",
}


def _mirrored(module: Path) -> Path:
    """The path of the test that mirrors a module; a package's own code is tested beside the package."""
    own = module.parent if module.name == "__init__.py" else module
    return Path("tests") / own.parent / f"test_{own.stem.lstrip('_')}.py"


def _says_something(module: Path) -> bool:
    """A package's ``__init__`` that only names what is in it needs no test."""
    return module.name != "__init__.py" or any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse((ROOT / module).read_text()).body
    )


def _without_a_mirror() -> list[Path]:
    found = [file.relative_to(ROOT) for room in ("scanner", "web") for file in sorted((ROOT / room).rglob("*.py"))]
    return [module for module in found if _says_something(module) and not (ROOT / _mirrored(module)).is_file()]


def _is_plugin_of_a_family(module: Path) -> bool:
    return str(module.parent) in FAMILIES and not module.name.startswith("_") and module.name != "base.py"


def test_every_module_says_where_it_is_tested() -> None:
    modules = [module for module in _without_a_mirror() if not _is_plugin_of_a_family(module)]
    lost = [str(module) for module in modules if str(module) not in TESTED_IN]
    assert lost == [], "give it a mirrored test, or a line in TESTED_IN"


def test_every_plugin_of_a_family_is_a_case_of_its_test() -> None:
    for module in filter(_is_plugin_of_a_family, _without_a_mirror()):
        cases = (ROOT / FAMILIES[str(module.parent)]).read_text()
        assert re.search(rf"\b{module.stem.replace('_', '[_-]')}\b", cases), f"{module} is no case of its test"


def test_the_table_of_tests_is_of_modules_and_tests_that_there_are() -> None:
    stale = sorted(set(TESTED_IN) - set(map(str, _without_a_mirror())))
    assert stale == [], "the module is gone, or has its mirrored test now: the line goes"
    missing = [test for test in sorted(set(TESTED_IN.values())) if "\ndef test_" not in (ROOT / test).read_text()]
    assert missing == []


NAMED_BY_PEOPLE = ("scanner/commands", "scanner/workloads", "scanner/services", "scanner/notify", "scanner/config.py")
OWN_FILES = {"scanner/services/audit_anchors.py"}  # opened to look at its end


def _unbounded_reads(tree: ast.AST) -> Iterator[int]:
    """The lines that read a whole file, or open one for reading."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in (
            "os",
            "webbrowser",
            "http",
            "client",
        ):
            continue
        modes = [str(value.value) for value in node.args if isinstance(value, ast.Constant)]
        if name in ("read_text", "read_bytes") or (
            name == "open" and not any(set(mode) & set("wxa+") for mode in modes)
        ):
            yield node.lineno


def test_files_that_people_name_are_read_within_bounds() -> None:
    """``/dev/zero`` filled the memory, and a pipe without a writer was waited for. ``scanner.files`` reads."""
    files = [
        file for place in NAMED_BY_PEOPLE for file in ([ROOT / place] if "." in place else (ROOT / place).rglob("*.py"))
    ]
    found = [
        f"{name}:{line}"
        for file in files
        if (name := str(file.relative_to(ROOT))) not in OWN_FILES
        for line in _unbounded_reads(ast.parse(file.read_text()))
    ]
    assert found == []
    assert list(_unbounded_reads(ast.parse("Path(x).read_text()\nopen(x)\nx.open('rb')\ny.open('wb')"))) == [1, 2, 3]
