"""``dockwarden checks``: the catalogue of checks."""

from __future__ import annotations

import click

from scanner.commands._console import write


@click.command()
@click.option(
    "--format", "format_", default="table", type=click.Choice(["table", "json", "markdown"]), show_default=True
)
def checks(format_: str) -> None:
    """List every check: what it looks at and what it cannot see."""
    from scanner import catalog
    from scanner.checks import _catalogue

    write(_catalogue.render(format_, catalog.checks()).rstrip(), None)
