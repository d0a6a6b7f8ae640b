"""``dockwarden policy``: start a policy, validate it, test it on fixtures, simulate it on a server's evidence."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from scanner.commands._console import FILE, Exit, pass_settings, read, read_policy, server_options, tell, write
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model.plurals import number_of


@click.group()
def policy() -> None:
    """Policies: init, check, test, simulate."""


@policy.command("init")
@click.argument("name", required=False, metavar="[NAME]")
@click.option("-o", "--output", type=FILE, help="Write to a new file instead of stdout.")
def policy_init(name: str | None, output: Path | None) -> None:
    """Print the policy NAME to start from. Without NAME, list them.

    Change it, then: dockwarden policy check FILE
    """
    from scanner import catalog
    from scanner.policy.starting_points import starting_points

    found = {each.name: each for each in starting_points(catalog.known_names())}
    # A policy that was edited must not be lost by a repeated command, nor by one that lacks the name.
    if output is not None and output.exists():
        raise UsageError(f"{output} exists already", hint="choose another file")
    if name is None:
        write("\n".join(f"{each.name:12} {each.description}" for each in found.values()), output)
        return
    if name not in found:
        raise UsageError(f"there is no starting point {name[:100]!r}", hint="choose one of: " + ", ".join(found))
    write(found[name].text, output)
    if output is not None:
        tell(f"{output}: change it, then: dockwarden policy check {output}")


@policy.command("check")
@click.argument("file", type=FILE)
def policy_check(file: Path) -> None:
    """Validate FILE. Problems are listed with line and column."""
    checked = read_policy(file)
    tell(f"{file}: ok: policy {checked.name!r}, {number_of(len(checked.rules), 'rule')}")


@policy.command("simulate")
@click.argument("file", type=FILE)
@server_options("read")
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Decide as of the end of this day (UTC), one of the last 90, with what was stored then. Images only.",
)
@click.option(
    "--most",
    type=click.IntRange(1),
    help="Only look at this many of the most recently scanned images, and of the worst workloads.",
)
@click.option(
    "--wait",
    default=3600,
    show_default=True,
    type=click.IntRange(0),
    help="Seconds to wait. The server continues after that.",
)
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@pass_settings
def policy_simulate(
    settings: Settings,
    file: Path,
    server: str | None,
    token: str | None,
    as_of: datetime | None,
    most: int | None,
    wait: int,
    format_: str,
    ca_file: Path | None,
) -> Exit:
    """Show what FILE would change on a server.

    Lists the images and running workloads that would newly be denied or released, by which rule and project. The
    server examines everything that the policy applies to. Changes nothing and scans nothing.

    Exits with 1 if an image or a workload would newly be denied, with 4 if the wait ended
    before everything was examined.
    """
    from scanner.commands import _client, _dry_runs

    if as_of and most:
        raise UsageError("--most and --as-of cannot be combined", hint="leave out --most or --as-of")
    client = _client.of(settings, server, token, ca_file)
    name, text = read_policy(file).name, read(file, "the policy")
    if most:
        found = _dry_runs.page_by_page(client, name, text, most, tell)
    else:
        found = _dry_runs.run_to_end(client, name, text, as_of.date() if as_of else None, wait, tell)
    if not found["complete"] and not most:
        tell(f"PENDING  the dry run has not finished; the server continues with it: {found['id']}")
        return Exit.PENDING
    running = found["workloads"]
    write(json.dumps(found, indent=2) if format_ == "json" else _dry_runs.describe(found), None)
    # Newly allowed images are printed and do not fail: a pipeline guards against a policy that stops the deployments
    # of others.
    return Exit.DENIED if found["newly_denied"] or running["newly_denied"] else Exit.OK


@policy.command("test")
@click.argument("file", type=FILE)
@click.argument("cases", type=FILE)
def policy_test(file: Path, cases: Path) -> Exit:
    """Test FILE on the fixtures in CASES. Exits with 1 if a verdict differs from the expected one.

    A case states facts about an image, or has a workload (a manifest, a Compose file), which is examined.
    """
    from scanner import catalog
    from scanner.policy import fixtures
    from scanner.services.workloads import CaseWorkloads

    found = fixtures.parse(read(cases, "the cases"), cases, catalog.engines())
    results = fixtures.run(read_policy(file), found, CaseWorkloads(cases.parent))
    lines = []
    for result in results:
        line = f"{'ok  ' if result.passed else 'FAIL'} {result.name}"
        lines.append(f"{line}: {result.message}" if result.message else line)
    write("\n".join(lines), None)
    return Exit.OK if all(result.passed for result in results) else Exit.DENIED
