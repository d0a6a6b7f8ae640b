"""``dockwarden query``: ask a server which images have a package, and where they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from scanner.commands._console import FILE, Exit, pass_settings, server_options, write
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text
from scanner.model.version_ranges import VersionRange


@click.command(epilog="Exit codes: 0 answered; 2 wrong usage; 3 the server does not answer.")
@click.argument("package", metavar="NAME[@RANGE]")
@server_options("read")
@click.option("--exact", is_flag=True, help="NAME must match as a whole, not as a part.")
@click.option("--running", is_flag=True, help="Only images that run, by the inventory.")
@click.option("--most", default=1000, show_default=True, type=click.IntRange(1, 100_000), help="Rows to print.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("-o", "--output", type=FILE, help="Write to a file instead of stdout.")
@pass_settings
def query(
    settings: Settings,
    package: str,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    exact: bool,
    running: bool,
    most: int,
    format_: str,
    output: Path | None,
) -> Exit:
    """List the images that have a package.

    \b
    dockwarden query log4j                      every version; NAME is a part of the package's name
    dockwarden query 'log4j-core@<2.17.1'       versions below 2.17.1
    dockwarden query 'xz@>=5.6.0,<5.6.2'        a range
    dockwarden query pkg:npm/lodash             a package URL

    Versions are compared by the rules of the package's ecosystem.
    """
    from scanner.commands import _client

    parameters = _parameters(package) | {"exact": str(exact).lower(), "running": str(running).lower()}
    client = _client.of(settings, server, token, ca_file)
    rows: list[Mapping[str, Any]] = []
    page: Mapping[str, Any] = {}
    for page in client.pages("/api/v1/components", parameters, most):
        rows += _client.objects(page.get("items"))
    found = {
        "items": rows,
        "more": bool(page.get("next_cursor")),
        "truncated": page.get("truncated") is not False,
        "incomplete_images": page.get("incomplete_images"),
    }
    write(json.dumps(found, indent=2) if format_ == "json" else _table(package, found), output)
    return Exit.OK


def _parameters(package: str) -> dict[str, str]:
    """Split NAME@RANGE. A purl keeps its own version; the @ of an npm scope belongs to the name."""
    if package.startswith("pkg:"):
        return {"purl": package}
    # From the second character on: `@angular/core@<12` begins with the @ of its scope.
    name, separator, versions = package[1:].partition("@")
    name = package[:1] + name
    if not name.strip() or (separator and not versions.strip()) or "@" in versions:
        raise UsageError(f"not a package: {package!r}", hint="write NAME, or NAME@RANGE, for example 'log4j@<2.17.1'")
    VersionRange.parse(versions)
    return {"name": name, "version": versions}


def _table(package: str, found: Mapping[str, Any]) -> str:
    def shown(row: Mapping[str, Any], member: str) -> str:
        return clean_text(str(row.get(member) or ""), 200)

    lines, last = [], ""
    for row in found["items"]:
        head = f"{shown(row, 'name')} {shown(row, 'version')}  {shown(row, 'purl')}".rstrip()
        if head != last:
            unsure = "" if row.get("comparable") is not False else "  (version cannot be compared with the range)"
            lines.append(head + unsure)
            last = head
        name = shown(row, "repository") + (f":{shown(row, 'tag')}" if row.get("tag") else "") or shown(row, "digest")
        environments = row.get("environments")
        where = ", ".join(clean_text(str(e), 64) for e in environments) if isinstance(environments, list) else ""
        verdict = "undecided" if row.get("undecided") is not False else shown(row, "verdict")
        lines.append(f"  {name}  {verdict}" + (f"  runs in {where}" if where else ""))
    images = len({str(row.get("digest")) for row in found["items"]})
    if found["items"]:
        lines.append(
            f"{images} image{'' if images == 1 else 's'}" + (", and more (raise --most)" if found["more"] else "")
        )
    elif not found["truncated"]:  # otherwise the image may be among those that were not looked at
        lines.append(f"No scanned image has a package like {package!r}.")
    if found["truncated"]:
        lines.append("Too many package versions match, so images may be missing. Type more of the name to see all.")
    if unknown := found["incomplete_images"]:
        lines.append(f"{number_of(unknown, 'image')} could not be examined completely and may have it too.")
    return "\n".join(lines)
