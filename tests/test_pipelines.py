"""The pipelines in ``examples/ci``: the shell of each gate step runs as in its CI system, against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import pytest
import yaml

from scanner.services.workloads import read_target
from tests.servers import Dockwarden, Registry

ROOT = Path(__file__).parents[1]
CI = ROOT / "examples" / "ci"
PLACEHOLDER = re.compile(r"\$\{\{.*?\}\}|<<.*?>>|\$\(.*?\)")


def loaded(path: str) -> Any:
    return yaml.safe_load((CI / path).read_text())


def github() -> str:
    return next(step["run"] for step in loaded("github-action/action.yml")["runs"]["steps"] if "gate" in step["name"])


def gitlab() -> str:
    return "\n".join(loaded("gitlab/dockwarden.gitlab-ci.yml")[".dockwarden-gate"]["script"])


def jenkins() -> str:
    found = re.search(r"sh '''(.*?)'''", (CI / "jenkins/vars/dockwardenGate.groovy").read_text(), re.DOTALL)
    assert found
    return found[1].replace("\\\n", "\n").replace("\n                      --report", " --report")


def azure() -> str:
    steps = loaded("azure/dockwarden-gate.yml")["steps"]
    return next(step["bash"] for step in steps if "gate" in step.get("displayName", ""))


def circleci() -> str:
    steps = loaded("circleci/dockwarden.yml")["commands"]["dockwarden-gate"]["steps"]
    return next(
        step["run"]["command"] for step in steps if "gate" in str(step.get("run", "")) and "environment" in step["run"]
    )


def job(path: str) -> str:
    (container,) = loaded(path)["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    return container["args"][0]


STEPS: dict[str, Callable[[], str]] = {
    "github-action": github,
    "gitlab": gitlab,
    "jenkins": jenkins,
    "tekton": lambda: loaded("tekton/task.yaml")["spec"]["steps"][0]["script"],
    "azure": azure,
    "circleci": circleci,
    "argocd": lambda: job("argocd/presync.yaml"),
    "flux": lambda: job("flux/gate.yaml"),
}


def github_reports(place: Path) -> None:
    assert json.loads((place / "dockwarden.sarif").read_text())["runs"][0]["results"]
    assert "deny" in (place / "step-summary.md").read_text()


def gitlab_reports(place: Path) -> None:
    assert json.loads((place / "gl-container-scanning-report.json").read_text())["vulnerabilities"]
    assert int(xml.parse(place / "dockwarden.xml").getroot().attrib["failures"])


def tekton_result(place: Path) -> None:
    assert "deny" in (place / "summary").read_text()


REPORTS = {"github-action": github_reports, "gitlab": gitlab_reports, "tekton": tekton_result}


@pytest.fixture(scope="module")
def images(server: Dockwarden, plain_registry: Registry, sample_layouts: Path) -> dict[str, str]:
    """An image that the gate allows and one that it denies."""
    server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})
    names = {}
    for name, tag in (("good", "1.4.2"), ("vulnerable", "1.4.1")):
        plain_registry.push(f"oci:{sample_layouts / 'shop' / name}:{tag}", f"pipelines/{name}:{tag}")
        names[name] = f"{plain_registry.host}/pipelines/{name}:{tag}"
    return names


def run(script: str, image: str, server: Dockwarden, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place),
        "IMAGE": image,
        "IMAGES": image,
        "ENVIRONMENT": "production",
        "WAIT": "120",
        "SUMMARY": str(place / "summary"),
        "GITHUB_STEP_SUMMARY": str(place / "step-summary.md"),
        "DOCKWARDEN_SERVER": server.url,
        "DOCKWARDEN_TOKEN": server.token,
        "DOCKWARDEN_HOME": str(place / "home"),
    }
    command = ["bash", "-e", "-o", "pipefail", "-c", script]  # as GitHub, GitLab, Azure and CircleCI start it
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("system", STEPS)
def test_a_pipeline_goes_on_with_an_allowed_image_and_stops_at_a_denied_one(
    system: str, server: Dockwarden, images: dict[str, str], tmp_path: Path
) -> None:
    script = STEPS[system]()
    assert PLACEHOLDER.search(script.replace("$(results", "")) is None, "text of a pipeline is never put into a script"
    allowed = run(script, images["good"], server, tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    denied = run(script, images["vulnerable"], server, tmp_path)
    assert denied.returncode == 1, denied.stderr
    assert "DENY" in denied.stdout
    assert server.token not in denied.stdout + denied.stderr
    if check := REPORTS.get(system):
        check(tmp_path)


@pytest.mark.parametrize("system", ["github-action", "argocd"])
def test_an_unreachable_server_stops_the_pipeline(system: str, server: Dockwarden, tmp_path: Path) -> None:
    assert run(STEPS[system](), "a/b:1", Dockwarden("http://127.0.0.1:9", server.token), tmp_path).returncode == 3


def test_what_gets_the_token_is_installed_from_a_place_that_its_user_names() -> None:
    """Anyone can register a free name on a public package index, and would be given the token of every user."""
    installs = [path for path in CI.rglob("*") if path.is_file() and "pip" in path.read_text()]
    assert {path.parent.name for path in installs} == {"github-action", "azure", "circleci"}
    for path in installs:
        commands = re.findall(r"install --quiet (.*)", path.read_text())
        assert commands == ['"$PACKAGE"'], path


def test_the_jobs_that_ask_the_gate_are_workloads_themselves() -> None:
    for name in ("argocd/presync.yaml", "flux/gate.yaml"):
        assert [w.container for w in read_target(str(CI / name), lambda: b"")] == ["gate"]


def test_the_hooks_of_pre_commit(tmp_path: Path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [hook["id"] for hook in hooks] == ["dockwarden-compose", "dockwarden-kubernetes", "dockwarden-dockerfile"]
    bad = tmp_path / "compose.yaml"
    bad.write_text("services: {a: {image: 'x:1', privileged: true}}\n")
    good = ROOT / "compose.yaml"
    hook = hooks[0]
    assert re.search(hook["files"], str(good)) and re.search(hook["files"], "deploy/docker-compose.prod.yml")
    words = hook["entry"].split()
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DOCKWARDEN_HOME": str(tmp_path)}
    codes = [
        subprocess.run([*words, str(f)], env=environment, capture_output=True, timeout=120, check=False).returncode
        for f in (good, bad)
    ]
    assert codes == [0, 1]
    assert all(re.search(hooks[2]["files"], name) for name in ("Dockerfile", "web/Dockerfile.prod", "a.dockerfile"))
    assert not re.search(hooks[2]["files"], "docs/Dockerfiles.md")
