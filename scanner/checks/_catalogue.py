"""The catalogue of checks, rendered: what each looks at, what it cannot see, and whose rule it answers to."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from scanner.checks.base import Check, RegistryCheck

_BUILD = "a build that breaks this rule fails, so no image can show it"
_RUN = (
    "how a container is run, not how its image is built: a workload is judged with `--workload` and `dockwarden audit`"
)
_PLATFORM = "a choice of platform or procedure; an image shows nothing of it"

# Whose rules we answer to. An item has checks that name it, or stands here with the reason why a machine cannot check it in an image.
CIS = {f"4.{number}": "" for number in range(1, 13)} | {
    "4.5": "a setting of the client that pulls; a policy's `signature` rules ask whether this very image is signed",
    "4.12": "signatures are no property of an image's content: a policy's `signature` rules verify them (Notary, cosign, Notation)",
}
DOCKLE = (
    {f"CIS-DI-{number:04}": "" for number in range(1, 12)}
    | {f"DKL-DI-{number:04}": "" for number in range(1, 7)}
    | {f"DKL-LI-{number:04}": "" for number in range(1, 4)}
    | {
        "CIS-DI-0005": "Dockle reads a variable of the scanning host, which says nothing of the image; a policy's `signature` rules do"
    }
)
TRIVY = {f"DS-{number:04}": "" for number in range(1, 32) if number not in (3, 18, 28)} | {
    "DS-0006": "stages are not in an image: what COPY --from took is judged as the files that it brought",
    "DS-0007": "only the last ENTRYPOINT is in the config, and that one is judged",
    "DS-0011": _BUILD,
    "DS-0012": "names of stages are not in an image",
    "DS-0013": "a style of writing: `cd` ends with its RUN and leaves nothing",
    "DS-0014": "either tool is fine; what they load is judged by remote-script and unverified-packages",
    "DS-0016": "only the last CMD is in the config, and that one is judged",
    "DS-0021": _BUILD + " (apt asks, and nobody answers)",
    "DS-0023": "only the last HEALTHCHECK is in the config, and that one is judged",
}
ARTICLE = {
    "Image Management: Keep Images Small": "",
    "Image Management: Layer Caching Matters": "",
    "Image Management: Tag Immutably": "",
    "Networking: Service Discovery": _PLATFORM,
    "Networking: Overlay Networks": _RUN,
    "Networking: Host Networking": _RUN,
    "Storage: Volumes for Persistent Data": _RUN,
    "Storage: Volume Drivers": _PLATFORM,
    "Storage: Database Considerations": _PLATFORM,
    "Logging and Monitoring: Centralized Logging": "",
    "Logging and Monitoring: Metrics Collection": _RUN,
    "Logging and Monitoring: Health Checks": "",
    "Security": "",
    "Security: Run as Non-Root": "",
    "Security: Read-Only Filesystems": "",
    "Security: Image Scanning": "",
    "Security: Registry Security": "",
    "Orchestration: The Orchestration Landscape": _PLATFORM,
    "Orchestration: Choosing an Orchestrator": _PLATFORM,
    "Deployment Strategies: Blue-Green Deployments": _PLATFORM,
    "Deployment Strategies: Rolling Updates": _RUN,
    "Deployment Strategies: Canary Releases": _PLATFORM,
    "Lessons Learned: Start simple": "",
    "Lessons Learned: Invest in observability": _PLATFORM,
    "Lessons Learned: Treat images as artifacts": "",
    "Lessons Learned: Plan for failure": _RUN,
    "Lessons Learned: Security isn't optional": "",
}


def render(format_: str, checks: Mapping[str, Check]) -> str:
    """The catalogue as ``table``, ``json`` or ``markdown``."""
    return {"table": table, "json": as_json, "markdown": markdown}[format_](checks.values())


def table(checks: Iterable[Check]) -> str:
    """For a terminal."""
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
    """One check as JSON values."""
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
    """``docs/checks.md``."""
    found = list(checks)
    images = [check for check in found if not isinstance(check, RegistryCheck)]
    lines = ["# Checks", "", "Made by `dockwarden checks --format markdown`; do not edit.", "", *_INTRODUCTION]
    lines += ["## Images", "", "| check | severity | answers to | looks at | cannot see |", "|---|---|---|---|---|"]
    lines += [_row(_named(c), str(c.severity), _answers(c), c.looks_at, c.cannot_see) for c in images]
    lines += ["", "## Registries", "", "How to read them: [registries](registries.md).", ""]
    lines += ["| check | severity | looks at | cannot see |", "|---|---|---|---|"]
    lines += [_row(_named(c), str(c.severity), c.looks_at, c.cannot_see) for c in found if isinstance(c, RegistryCheck)]
    lines += [
        "",
        "## Remedies and parameters",
        "",
        "| check | remedy | parameters, with their defaults | tags |",
        "|---|---|---|---|",
    ]
    lines += [_row(f"`{c.id}`", f"`{c.remedy}`", _parameters(c), ", ".join(c.tags) or "none") for c in found]
    lines += _mapped("CIS Docker Benchmark 1.6, section 4", CIS, {c.id: c.cis for c in found})
    lines += _mapped("Dockle", DOCKLE, {c.id: c.dockle for c in found})
    lines += _mapped("Trivy's Dockerfile rules", TRIVY, {c.id: c.trivy for c in found})
    lines += _mapped("Docker in Production: the lessons, by section", ARTICLE, {c.id: c.article for c in found})
    return "\n".join(lines) + "\n"


_INTRODUCTION = [
    "What is examined, what it rests on, and what it cannot see. An outcome is passed, failed with evidence (layer, path, instruction),",
    "not applicable, or *incomplete*: what could not be examined is unknown, and unknown is never a pass. A history that was taken out,",
    "PowerShell, or a layer that cannot be read all make incomplete what rests on them.",
    "",
    "A policy selects checks by name (`check: root-user`), by tag (`tag: build`) or by what they answer to: `benchmark: cis-docker-1.6/4.1`,",
    "`benchmark: dockle/CIS-DI-0007`, `benchmark: trivy/DS-0017`. A parameter is given in the rule: see [policies](policies.md). What an",
    "image was built on, and whose a finding is: [bases](bases.md).",
    "",
]


def _mapped(title: str, items: Mapping[str, str], answers: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Every item of somebody's catalogue with our checks, or with the reason why there is none."""
    lines = ["", f"## {title}", "", "| item | our check, or why there is none |", "|---|---|"]
    for item, reason in items.items():
        ours = ", ".join(f"`{identifier}`" for identifier, named in answers.items() if item in named)
        lines.append(_row(item, ours or reason))
    return lines


def _answers(check: Check) -> str:
    return ", ".join((*(f"CIS {item}" for item in check.cis), *check.dockle, *check.trivy, *check.article))


def _parameters(check: Check) -> str:
    shown = (f"`{name}: {orjson.dumps(default, default=list).decode()}`" for name, default in check.parameters.items())
    return ", ".join(shown) or "none"


def _named(check: Check) -> str:
    return f"`{check.id}`: {check.title}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
