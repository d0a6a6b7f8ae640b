"""``dockwarden gate``: ask a server whether an image may be shipped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner import __version__
from scanner.commands._console import (
    FILE,
    REPORT_FILES,
    Exit,
    ListedOption,
    check_output,
    choose,
    parse_report_files,
    pass_settings,
    read,
    server_options,
    tell,
    wait_option,
    write,
)
from scanner.config import Settings
from scanner.errors import RemoteError
from scanner.model.reference import Reference

if TYPE_CHECKING:
    from scanner.commands._client import Answer

_OWN_FORMATS = ("table", "json")  # the answer itself; the server renders all others


def _formats() -> Iterable[str]:
    from scanner import catalog

    return dict.fromkeys((*_OWN_FORMATS, *catalog.reports()))


@click.command()
@click.argument("image")
@server_options("gate")
@wait_option("a pending scan")
@click.option(
    "--workload",
    "workload_file",
    type=FILE,
    help="Workload that runs the image (any TARGET of 'audit'), included in the verdict.",
)
@click.option("--environment", default="", help="Environment in which the image will run; selects policies.")
@click.option(
    "--format", "format_", cls=ListedOption, listed=_formats, default="table", show_default=True, help="Output format."
)
@click.option("-o", "--output", type=FILE, help="Write to a file instead of stdout.")
@REPORT_FILES
@click.option("--all", "show_all", is_flag=True, help="Show all reasons and changes instead of the first ones.")
@pass_settings
def gate(
    settings: Settings,
    image: str,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    wait: int,
    workload_file: Path | None,
    environment: str,
    format_: str,
    output: Path | None,
    report_files: tuple[str, ...],
    show_all: bool,
) -> Exit:
    """Ask a server whether IMAGE may be shipped.

    IMAGE: host/repo:tag or host/repo@sha256:…
    """
    from scanner.commands import _client

    choose(dict.fromkeys(_formats()), format_, "output format")
    check_output(output)
    files = parse_report_files(report_files)
    rendered = dict.fromkeys(name for name, _ in files)
    if format_ not in _OWN_FORMATS:
        rendered[format_] = None

    Reference.parse(image)  # report a malformed name before contacting the server
    workload = read(workload_file, "the workload") if workload_file else None
    client = _client.of(settings, server, token, ca_file)
    answer = client.gate(
        image, environment=environment, workload=workload, wait=wait, progress=tell, reports=tuple(rendered)
    )
    reports = _reports(answer, image, rendered)
    if format_ == "json":
        # The reports were asked for as files. In the JSON they would be megabytes of text within text.
        document = {name: value for name, value in answer.document.items() if name != "reports"}
        text = json.dumps(document, indent=2)
    else:
        text = reports[format_] if format_ in reports else _client.describe(answer, show_all=show_all)
    write(text, output)
    for name, file in files:
        write(reports[name], file)
    if answer.pending:
        return Exit.PENDING
    return Exit.OK if answer.verdict in ("allow", "warn") else Exit.UNDECIDED if answer.undecided else Exit.DENIED


def _reports(answer: Answer, image: str, formats: Iterable[str]) -> Mapping[str, str]:
    """The text of each format. A question that is still pending is a report too: nothing is known, so nothing passes.

    Raises RemoteError if the server left one out.
    """
    from scanner import catalog
    from scanner.reports.base import RefusedScan

    if answer.pending:
        message, hint = "the scan has not finished", "try again, or with a longer --wait"
        refused = RefusedScan(image, "pending", message, hint, datetime.now(UTC), __version__)
        return {name: catalog.reports()[name].render_refused(refused) for name in formats}
    texts = answer.document.get("reports")
    found = texts if isinstance(texts, dict) else {}
    if missing := [name for name in formats if not isinstance(found.get(name), str)]:
        raise RemoteError(
            f"the server's answer has no report in the format {missing[0]}",
            reason="server_error",
            hint="upgrade the server to this version",
        )
    return {name: found[name] for name in formats}
