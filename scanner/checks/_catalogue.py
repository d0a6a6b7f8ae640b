"""The catalogue of checks, rendered: what each looks at, what it cannot see, and whose rule it answers to."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from scanner.checks.base import Check, RegistryCheck

# What a machine cannot judge from an image, and why: an item without a check of ours stands here.
CIS_NOT_CHECKED = {
    "4.2": "trusted bases: which bases are trusted is a site's own list; write it as a policy's match",
    "4.4": "scanned and rebuilt: this service itself; see the advisories' age in every decision",
    "4.5": "content trust is a setting of the client that pulls; the gate's decision takes its place",
    "4.9": "COPY instead of ADD: not checked yet",
    "4.12": "signed artefacts: a policy's signature rules",
}


def render(format_: str, checks: Mapping[str, Check]) -> str:
    """The catalogue as ``table``, ``json`` or ``markdown``."""
    return {"table": table, "json": as_json, "markdown": markdown}[format_](checks.values())


def table(checks: Iterable[Check]) -> str:
    """For a terminal."""
    lines = []
    for check in checks:
        rules = ", ".join((*(f"CIS {item}" for item in check.cis), *check.dockle))
        lines.append(f"{check.id:<28} {check.severity:<9} {check.title}  ({rules or ', '.join(check.article)})")
        lines.extend(textwrap.wrap(f"looks at {check.looks_at}", 96, initial_indent="    ", subsequent_indent="    "))
        lines.extend(
            textwrap.wrap(f"cannot see {check.cannot_see}", 96, initial_indent="    ", subsequent_indent="    ")
        )
        lines.append(f"    remedy: {check.remedy}")
    return "\n".join(lines)


def document(check: Check) -> dict[str, Any]:
    """One check as JSON values."""
    names = ("id", "title", "severity", "looks_at", "cannot_see", "remedy", "cis", "dockle", "article", "pss", "tags")
    return {**{name: getattr(check, name) for name in names}, "parameters": dict(check.parameters)}


def as_json(checks: Iterable[Check]) -> str:
    return orjson.dumps([document(check) for check in checks], option=orjson.OPT_INDENT_2).decode()


def markdown(checks: Iterable[Check]) -> str:
    """``docs/checks.md``."""
    found = list(checks)
    lines = ["# Checks", "", "Made by `dockwarden checks --format markdown`; do not edit.", ""]
    lines += ["| check | severity | CIS Docker 1.6 | Dockle | looks at | cannot see |", "|---|---|---|---|---|---|"]
    for check in (check for check in found if not isinstance(check, RegistryCheck)):
        rules = (", ".join(check.cis) or "none", ", ".join(check.dockle) or "none")
        lines.append(_row(_named(check), str(check.severity), *rules, check.looks_at, check.cannot_see))
    lines += ["", "## Registries", "", "How to read them: [registries](registries.md).", ""]
    lines += ["| check | severity | looks at | cannot see |", "|---|---|---|---|"]
    for check in (check for check in found if isinstance(check, RegistryCheck)):
        lines.append(_row(_named(check), str(check.severity), check.looks_at, check.cannot_see))
    lines += ["", "## Remedies", ""]
    lines += [f"- `{check.id}`: `{check.remedy}`" for check in found]
    lines += ["", "## CIS Docker Benchmark, section 4", "", "| item | our check, or why there is none |", "|---|---|"]
    for number in range(1, 13):
        item = f"4.{number}"
        ours = ", ".join(f"`{check.id}`" for check in found if item in check.cis)
        lines.append(f"| {item} | {ours or CIS_NOT_CHECKED[item]} |")
    return "\n".join(lines) + "\n"


def _named(check: Check) -> str:
    return f"`{check.id}`: {check.title}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
