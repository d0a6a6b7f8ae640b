"""``dockwarden db``: the database of this installation."""

from __future__ import annotations

import click

from scanner.commands._console import pass_settings, tell
from scanner.config import Settings


@click.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@pass_settings
def db_upgrade(settings: Settings) -> None:
    """Bring the schema to this version's."""
    from scanner.store.session import Database

    tell(f"the database is at {Database.of(settings).upgrade()}")


@db.command("check")
@pass_settings
def db_check(settings: Settings) -> None:
    """Say whether the schema is this version's. Exit 3 if it is not."""
    from scanner.store.session import Database

    Database.of(settings).check_head()
    tell("the database is at head")
