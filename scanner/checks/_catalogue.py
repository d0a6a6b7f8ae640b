"""The catalogue of checks as table, JSON and Markdown: scope, limits, remedies and mapping to benchmarks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from scanner.checks import _peers
from scanner.checks.base import Check, RegistryCheck, WorkloadCheck

_BUILD = "a build that violates this rule fails, so no image can violate it"
_EXEC = "an action on a running container; neither documents nor the engine's API record it"
_NOT_TOLD = "not part of docker info and daemon.json; audit the host (docker-bench-security, sections 1 and 3)"
_PLATFORM = "a choice of platform or procedure that is not visible in an image"

# Benchmarks to which checks are mapped. Each item has at least one check, or the reason why it cannot be checked.
CIS = {f"4.{number}": "" for number in range(1, 13)} | {
    "4.5": "a setting of the client; a policy's `signature` rules require that this image is signed",
    "4.12": "signatures are not part of an image's content; a policy's `signature` rules verify them "
    "(Notary, cosign, Notation)",
}
CIS_RUN = (
    {f"5.{number}": "" for number in range(1, 33)}
    | {"5.23": _EXEC, "5.24": _EXEC}
    | {f"2.{number}": "" for number in range(1, 19)}
    | {"2.11": _NOT_TOLD}
    | {"6.1": "", "6.2": ""}
    | {f"7.{number}": "" for number in range(1, 10)}
    | {"7.2": _NOT_TOLD, "7.6": _NOT_TOLD, "7.8": _NOT_TOLD, "7.9": _NOT_TOLD}
)
PSS = dict.fromkeys(
    (
        "windowsHostProcess",
        "hostNamespaces",
        "privileged",
        "capabilities_baseline",
        "hostPathVolumes",
        "hostPorts",
        "hostProbesAndHostLifecycle",
        "appArmorProfile",
        "seLinuxOptions",
        "procMount",
        "seccompProfile_baseline",
        "sysctls",
        "restrictedVolumes",
        "allowPrivilegeEscalation",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile_restricted",
        "capabilities_restricted",
        "procMount_restricted",
    ),
    "",
)
KSV = {item: rule.reason for item, rule in _peers.KSV.items()}
DOCKLE = (
    {f"CIS-DI-{number:04}": "" for number in range(1, 12)}
    | {f"DKL-DI-{number:04}": "" for number in range(1, 7)}
    | {f"DKL-LI-{number:04}": "" for number in range(1, 4)}
    | {"CIS-DI-0005": "Dockle reads a variable of the scanning host, not the image; use a policy's `signature` rules"}
)
TRIVY = {f"DS-{number:04}": "" for number in range(1, 32) if number not in (3, 18, 28)} | {
    "DS-0006": "stages are not part of an image; files from COPY --from are checked like all files",
    "DS-0007": "the config contains only the last ENTRYPOINT, which is checked",
    "DS-0011": _BUILD,
    "DS-0012": "names of stages are not part of an image",
    "DS-0013": "a matter of style: `cd` has no effect beyond its RUN",
    "DS-0014": "both tools are fine; remote-script and unverified-packages check what they download",
    "DS-0016": "the config contains only the last CMD, which is checked",
    "DS-0021": _BUILD + " (apt waits for an answer)",
    "DS-0023": "the config contains only the last HEALTHCHECK, which is checked",
}
ARTICLE = {
    "Image Management: Keep Images Small": "",
    "Image Management: Layer Caching Matters": "",
    "Image Management: Tag Immutably": "",
    "Networking: Service Discovery": _PLATFORM,
    "Networking: Overlay Networks": "",
    "Networking: Host Networking": "",
    "Storage: Volumes for Persistent Data": "",
    "Storage: Volume Drivers": _PLATFORM,
    "Storage: Database Considerations": _PLATFORM,
    "Logging and Monitoring: Centralized Logging": "",
    "Logging and Monitoring: Metrics Collection": _PLATFORM,
    "Logging and Monitoring: Health Checks": "",
    "Security": "",
    "Security: Run as Non-Root": "",
    "Security: Read-Only Filesystems": "",
    "Security: Image Scanning": "",
    "Security: Registry Security": "",
    "Orchestration: The Orchestration Landscape": _PLATFORM,
    "Orchestration: Choosing an Orchestrator": _PLATFORM,
    "Deployment Strategies: Blue-Green Deployments": _PLATFORM,
    "Deployment Strategies: Rolling Updates": "",
    "Deployment Strategies: Canary Releases": _PLATFORM,
    "Lessons Learned: Start simple": "",
    "Lessons Learned: Invest in observability": _PLATFORM,
    "Lessons Learned: Treat images as artifacts": "",
    "Lessons Learned: Plan for failure": "",
    "Lessons Learned: Security isn't optional": "",
}


def render(format_: str, checks: Mapping[str, Check]) -> str:
    """Return the catalogue as ``table``, ``json`` or ``markdown``."""
    return {"table": table, "json": as_json, "markdown": markdown}[format_](checks.values())


def table(checks: Iterable[Check]) -> str:
    """Return the catalogue as text for terminals."""
    lines = []
    for check in checks:
        answers = ", ".join((*(f"CIS {item}" for item in check.cis), *check.dockle, *check.trivy)) or ", ".join(
            check.article
        )
        lines.append(f"{check.id:<28} {check.severity:<9} {check.title}  ({answers})")
        lines.extend(textwrap.wrap(f"looks at {check.looks_at}", 96, initial_indent="    ", subsequent_indent="    "))
        lines.extend(
            textwrap.wrap(f"cannot see {check.cannot_see}", 96, initial_indent="    ", subsequent_indent="    ")
        )
        lines.append(f"    remedy: {check.remedy}")
    return "\n".join(lines)


def document(check: Check) -> dict[str, Any]:
    """Return a check as JSON values."""
    names = (
        "id",
        "title",
        "severity",
        "looks_at",
        "cannot_see",
        "remedy",
        "cis",
        "dockle",
        "trivy",
        "article",
        "pss",
        "tags",
    )
    described = {name: getattr(check, name) for name in names}
    return {**described, "benchmarks": check.benchmarks, "parameters": dict(check.parameters)}


def as_json(checks: Iterable[Check]) -> str:
    return orjson.dumps([document(check) for check in checks], option=orjson.OPT_INDENT_2).decode()


def markdown(checks: Iterable[Check]) -> str:
    """Return the content of ``docs/checks.md``."""
    found = list(checks)
    images = [check for check in found if not isinstance(check, RegistryCheck | WorkloadCheck)]
    workloads = [check for check in found if isinstance(check, WorkloadCheck)]
    lines = ["# Checks", "", "Generated by `dockwarden checks --format markdown`; do not edit.", "", *_INTRODUCTION]
    lines += ["## Images", "", "| check | severity | answers to | looks at | cannot see |", "|---|---|---|---|---|"]
    lines += [_row(_check_link(c), str(c.severity), _answers(c), c.looks_at, c.cannot_see) for c in images]
    lines += [
        "",
        "## Workloads",
        "",
        "Configuration of containers and container engines: [workloads](workloads.md).",
        "",
    ]
    lines += ["| check | severity | answers to | looks at | cannot see |", "|---|---|---|---|---|"]
    lines += [_row(_check_link(c), str(c.severity), _answers(c), c.looks_at, c.cannot_see) for c in workloads]
    lines += ["", "## Registries", "", "How to read the results: [registries](registries.md).", ""]
    lines += ["| check | severity | looks at | cannot see |", "|---|---|---|---|"]
    lines += [
        _row(_check_link(c), str(c.severity), c.looks_at, c.cannot_see) for c in found if isinstance(c, RegistryCheck)
    ]
    lines += [
        "",
        "## Remedies and parameters",
        "",
        "| check | remedy | parameters, with their defaults | tags |",
        "|---|---|---|---|",
    ]
    lines += [_row(f"`{c.id}`", f"`{c.remedy}`", _parameters(c), ", ".join(c.tags) or "none") for c in found]
    lines += _benchmark_table("CIS Docker Benchmark 1.6, section 4", CIS, {c.id: c.cis for c in found})
    lines += _benchmark_table("CIS Docker Benchmark 1.6, sections 2, 5, 6 and 7", CIS_RUN, {c.id: c.cis for c in found})
    lines += _benchmark_table("Pod Security Standards", PSS, {c.id: c.pss for c in workloads})
    lines += _trivy_comparison({c.id: c.trivy for c in workloads})
    lines += _benchmark_table("kubesec", _peers.KUBESEC, {c.id: c.kubesec for c in workloads})
    lines += _remedies(workloads)
    lines += _benchmark_table("Dockle", DOCKLE, {c.id: c.dockle for c in found})
    lines += _benchmark_table("Trivy's Dockerfile rules", TRIVY, {c.id: c.trivy for c in found})
    lines += _benchmark_table(
        "Docker in Production: the lessons, by section", ARTICLE, {c.id: c.article for c in found}
    )
    return "\n".join(lines) + "\n"


_INTRODUCTION = [
    "What each check examines, and what it cannot detect. The outcome is passed, failed with evidence (layer, path,",
    "instruction), not applicable, or *incomplete*: what could not be examined is unknown, and unknown never passes. A",
    "removed history, PowerShell or an unreadable layer make the checks incomplete that depend on them.",
    "",
    "A policy selects checks by id (`check: root-user`), by tag (`tag: build`) or by benchmark",
    "(`benchmark: cis-docker-1.6/4.1`, `benchmark: dockle/CIS-DI-0007`, `benchmark: trivy/DS-0017`). "
    "Parameters are set in",
    "the rule: see [policies](policies.md). Base images and the layers that cause a finding: [bases](bases.md).",
    "",
]


def _remedies(workloads: Iterable[WorkloadCheck]) -> list[str]:
    """Return the table of remedies in the syntax of each workload source."""
    lines = ["", "## Remedies for workloads, by source", "", "| check | source | remedy |", "|---|---|---|"]
    lines += [_row(f"`{c.id}`", source, f"`{text}`") for c in workloads for source, text in sorted(c.remedies.items())]
    return lines


def _benchmark_table(title: str, items: Mapping[str, str], answers: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return a table of a benchmark's items with the mapped checks, or the reason why there is none."""
    lines = ["", f"## {title}", "", "| item | check, or why there is none |", "|---|---|"]
    for item, reason in items.items():
        ours = ", ".join(f"`{identifier}`" for identifier, named in answers.items() if item in named)
        lines.append(_row(item, ours or reason))
    return lines


def _trivy_comparison(answers: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Trivy's rules about Kubernetes with our checks, and what only one of the two reports."""
    lines = ["", "## Trivy's Kubernetes rules", ""]
    lines += [
        "A test gives the same manifests to `trivy config` and to Dockwarden. Where both have a rule, both report the "
        "same manifests,",
        "but for what the last two columns say.",
        "",
        "| item | our check, or why there is none | only Trivy reports | only Dockwarden reports |",
        "|---|---|---|---|",
    ]
    for item, rule in _peers.KSV.items():
        ours = ", ".join(f"`{identifier}`" for identifier, named in answers.items() if item in named)
        title = f"{item}: {rule.title}"
        lines.append(_row(title, ours or rule.reason, rule.theirs or "nothing", rule.ours or "nothing"))
    return lines


def _answers(check: Check) -> str:
    standards = (
        *(f"CIS {item}" for item in check.cis),
        *check.dockle,
        *check.trivy,
        *(f"PSS {item}" for item in check.pss),
    )
    others: tuple[str, ...] = ()
    if isinstance(check, WorkloadCheck):
        others = (*(f"kubesec {item}" for item in check.kubesec), *(f"NSA/CISA: {item}" for item in check.nsa))
    return ", ".join((*standards, *others, *check.article)) or "none"


def _parameters(check: Check) -> str:
    shown = (f"`{name}: {orjson.dumps(default, default=list).decode()}`" for name, default in check.parameters.items())
    return ", ".join(shown) or "none"


def _check_link(check: Check) -> str:
    return f"`{check.id}`: {check.title}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
