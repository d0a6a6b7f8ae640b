"""Held up against Trivy: the installed binary and our checks judge the same manifests, and every difference is told."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from scanner import catalog
from scanner.checks._peers import KSV
from scanner.config import Settings
from scanner.engines.trivy import find_trivy
from scanner.services import workloads
from tests.scanner.checks.workload import peers


@dataclass(frozen=True)
class Compared:
    """By manifest: rules that Trivy reports, checks that fail here. ``titles``: of every rule that Trivy has."""

    theirs: dict[str, set[str]]
    ours: dict[str, set[str]]
    titles: dict[str, str]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    directory = tmp_path_factory.mktemp("manifests")
    ours: dict[str, set[str]] = {}
    source = catalog.workload_sources()["kubernetes"]
    for name, manifest in peers.manifests():
        text = peers.text(manifest)
        (directory / f"{name}.yaml").write_text(text)
        results = [result for each in source.parse(text, name) for result in workloads.check(each, None)]
        ours[name] = {result.check for result in results if result.outcome.kind == "failed"}
    for name, manifest in peers.OTHERS.items():
        (directory / f"{name}.yaml").write_text(peers.text(manifest))
    theirs, titles = _trivy(directory)
    return Compared({name: theirs[name] for name in ours}, ours, titles)


def _trivy(directory: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    options = ("--skip-check-update", "--include-non-failures", "--include-deprecated-checks", "--format", "json")
    command = [
        str(find_trivy(Settings())),
        "config",
        "--quiet",
        "--cache-dir",
        str(directory / ".cache"),
        *options,
        str(directory),
    ]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory)}
    done = subprocess.run(command, capture_output=True, check=True, timeout=300, env=environment)
    failed: dict[str, set[str]] = {}
    titles: dict[str, str] = {}
    for result in json.loads(done.stdout)["Results"]:
        found = [each for each in result.get("Misconfigurations", ()) if each["ID"].startswith("KSV-")]
        failed[Path(result["Target"]).stem] = {each["ID"] for each in found if each["Status"] == "FAIL"}
        titles |= {each["ID"]: each["Title"] for each in found}
    return failed, titles


def test_every_rule_that_the_binary_has_is_in_the_table(compared: Compared) -> None:
    assert compared.titles == {item: rule.title for item, rule in KSV.items()}


@pytest.mark.parametrize("item", KSV)
def test_every_difference_is_told(item: str, compared: Compared) -> None:
    answering = defaultdict[str, set[str]](set)
    for check in catalog.workload_checks().values():
        for named in check.trivy:
            answering[named].add(check.id)
    theirs = {name for name, rules in compared.theirs.items() if item in rules}
    ours = {name for name, failed in compared.ours.items() if failed & answering[item]}
    assert bool(theirs - ours) == bool(KSV[item].theirs), f"only Trivy reports {sorted(theirs - ours)}"
    assert bool(ours - theirs) == bool(KSV[item].ours), f"only Dockwarden reports {sorted(ours - theirs)}"
    if answering[item]:
        assert theirs or ours, "no manifest breaks the rule"
