"""Manifests: what a cluster needs, and nothing that would leave a namespace unasked."""

from __future__ import annotations

import base64
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from scanner.cli import cli
from scanner.config import Secret
from scanner.errors import UsageError
from scanner.services.admission_manifests import Cluster, manifests
from scanner.workloads.kubernetes import KubernetesManifests

TOKEN = Secret("dw_abc_def")
OUTSIDE = Cluster(token=TOKEN, url="https://dockwarden.example.com", ca=b"PEM", environments=("production",))


def documents(cluster: Cluster) -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(manifests(cluster))}


def test_tags_are_pinned_on_request() -> None:
    kinds = [each["kind"] for each in yaml.safe_load_all(manifests(Cluster(token=Secret("dw_t"), url="https://d")))]
    assert kinds == ["ValidatingWebhookConfiguration"]
    found = manifests(Cluster(token=Secret("dw_t"), url="https://d", environments=("production",), pin_tags=True))
    _, pinning = yaml.safe_load_all(found)
    assert pinning["kind"] == "MutatingWebhookConfiguration"
    paths = [each["clientConfig"]["url"] for each in pinning["webhooks"]]
    assert paths == ["https://d/adapters/kubernetes/pin/dw_t", "https://d/adapters/kubernetes/pin/dw_t/production"]
    assert {rule["resources"][0] for each in pinning["webhooks"] for rule in each["rules"]} == {"pods"}


def test_a_server_outside_needs_the_webhook_alone() -> None:
    found = documents(OUTSIDE)
    assert list(found) == ["ValidatingWebhookConfiguration"]
    webhooks = {each["name"]: each for each in found["ValidatingWebhookConfiguration"]["webhooks"]}
    assert len(webhooks) == 6
    client = webhooks["warn.production.admission.dockwarden"]["clientConfig"]
    assert client["url"] == ("https://dockwarden.example.com/adapters/kubernetes/admit/dw_abc_def/warn/production")
    assert base64.b64decode(client["caBundle"]) == b"PEM"
    for each in webhooks.values():
        assert (each["failurePolicy"], each["timeoutSeconds"], each["sideEffects"]) == ("Fail", 5, "NoneOnDryRun")
        assert {"pods", "pods/ephemeralcontainers"} <= set(each["rules"][0]["resources"])
        assert each["matchConditions"]


def selects(webhook: dict[str, Any], labels: dict[str, str]) -> bool:
    """As the API server evaluates matchExpressions: NotIn also selects what has no such label."""
    return all(
        (labels.get(each["key"]) in each["values"]) is (each["operator"] == "In")
        for each in webhook["namespaceSelector"]["matchExpressions"]
    )


@pytest.mark.parametrize("mode", ["", "enforce", "warn", "audit", "misspelt"])
@pytest.mark.parametrize("environment", ["", "production", "unknown"])
@pytest.mark.parametrize("name", ["shop", "kube-system", "dockwarden"])
def test_each_namespace_is_asked_about_once_or_is_exempt(name: str, environment: str, mode: str) -> None:
    cluster = Cluster(token=TOKEN, url="https://h", environments=("production", "staging"), exempt=("kube-system",))
    labels = {"kubernetes.io/metadata.name": name}
    labels |= {"dockwarden/mode": mode} if mode else {}
    labels |= {"dockwarden/environment": environment} if environment else {}
    webhooks = documents(cluster)["ValidatingWebhookConfiguration"]["webhooks"]
    chosen = [each["name"] for each in webhooks if selects(each, labels)]
    if name != "shop":
        assert chosen == []
    else:
        expected = mode if mode in ("warn", "audit") else "enforce"
        where = "production" if environment == "production" else "any"
        assert chosen == [f"{expected}.{where}.admission.dockwarden"]


def test_a_server_inside_is_run_as_it_would_have_others_run() -> None:
    found = documents(Cluster(token=TOKEN, issuer="ca", image="dockwarden:1"))
    assert list(found) == [
        "Namespace",
        "ServiceAccount",
        "Certificate",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "ValidatingWebhookConfiguration",
    ]
    webhook = found["ValidatingWebhookConfiguration"]
    assert webhook["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": "dockwarden/dockwarden-tls"}
    assert webhook["webhooks"][0]["clientConfig"]["service"]["port"] == 443
    (workload,) = KubernetesManifests().parse(yaml.safe_dump(found["Deployment"]))
    assert (workload.read_only_root, workload.run_as_non_root, workload.cap_drop) == (True, True, ("ALL",))
    assert workload.memory


def test_a_given_certificate_becomes_a_secret_and_the_webhooks_authority() -> None:
    found = documents(Cluster(token=TOKEN, certificate=b"CRT", key=b"KEY", settings_secret="settings"))
    assert base64.b64decode(found["Secret"]["data"]["tls.key"]) == b"KEY"
    client = found["ValidatingWebhookConfiguration"]["webhooks"][0]["clientConfig"]
    assert base64.b64decode(client["caBundle"]) == b"CRT"
    assert found["Deployment"]["spec"]["replicas"] == 2
    assert "PersistentVolumeClaim" not in found


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(token=TOKEN, url="http://dockwarden.example.com"),
        Cluster(url="https://dockwarden.example.com"),
        Cluster(token=TOKEN),
        Cluster(token=TOKEN, certificate=b"CRT"),
    ],
)
def test_what_would_not_work_is_refused(cluster: Cluster) -> None:
    with pytest.raises(UsageError) as refused:
        manifests(cluster)
    assert refused.value.hint or "together" in str(refused.value)


def test_the_command_prints_manifests_and_says_what_is_left_out(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("dw_abc_def\n")
    command = ["admission", "kubernetes", "--manifests", "--url", "https://h", "--token-file", str(token)]
    done = CliRunner().invoke(cli, [*command, "--failure-policy", "Ignore"])
    assert done.exit_code == 0
    assert "/admit/dw_abc_def/enforce" in done.stdout
    assert "every container is admitted" in done.stderr
    done = CliRunner(env={"DOCKWARDEN_TOKEN": ""}).invoke(
        cli, ["admission", "kubernetes", "--manifests", "--cert-manager", "ca"]
    )
    assert done.exit_code == 0
    assert "the webhook is left out" in done.stderr


def test_a_client_certificate_replaces_the_token() -> None:
    outside = documents(Cluster(url="https://h:8443", client_names=("api-server",)))
    for each in outside["ValidatingWebhookConfiguration"]["webhooks"]:
        assert each["clientConfig"]["url"].startswith("https://h:8443/adapters/kubernetes/admit/certificate/")
    inside = documents(Cluster(issuer="ca", client_names=("a", "b"), client_ca=b"PEM"))
    assert inside["ConfigMap"]["data"] == {"ca.crt": "PEM"}
    (container,) = inside["Deployment"]["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert variables["DOCKWARDEN_ADMISSION_CLIENT_NAMES"] == "a,b"
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert str(PurePosixPath(variables["DOCKWARDEN_ADMISSION_CLIENT_CA"]).parent) in mounted
    assert "ValidatingWebhookConfiguration" in inside
    with pytest.raises(UsageError):
        documents(Cluster(issuer="ca", client_names=("a",)))
