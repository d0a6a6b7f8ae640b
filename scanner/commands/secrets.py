"""``dockwarden secrets``: the key that stored secrets are under, and how to change it while everything runs."""

from __future__ import annotations

import click

from scanner.commands._console import Exit, administration, complain, database_at_head, pass_settings, tell
from scanner.config import PREVIOUS_KEY, Settings, keys_of, new_secret_key, secret_key
from scanner.model.actor import COMMAND_LINE
from scanner.services import secrets as use_cases
from scanner.store import secrets as store_secrets


@click.group()
def secrets() -> None:
    """The key of stored secrets: new-key, rotate, forget.

    Registry credentials and webhook secrets are encrypted under the secret key; tokens and sessions are hashed with
    it. To change it: 'new-key' (or set DOCKWARDEN_SECRET_KEY and DOCKWARDEN_SECRET_KEY_PREVIOUS), restart every
    process, 'rotate', and 'forget' once the tokens in use have been used again.
    """


@secrets.command("new-key")
@pass_settings
def new_key(settings: Settings) -> None:
    """Make a new key under home. The former one is still read."""
    new_secret_key(settings)
    tell("there is a new key. Restart every process of the server, then: dockwarden secrets rotate")


@secrets.command("rotate")
@pass_settings
def rotate(settings: Settings) -> None:
    """Move every stored secret to the key. Can be broken off and begun again."""
    key, moved = secret_key(settings), 0
    database = database_at_head(settings)
    while True:
        with database.session() as session:
            some = use_cases.rotate_some(session, COMMAND_LINE, key, moved)
        moved += some
        if not some:
            break
    tell(f"{moved} secrets were moved to the key; every one is under it now")
    if len(keys_of(key)) > 1:
        tell("a token moves when it is used; when those in use have been: dockwarden secrets forget")


@secrets.command("forget")
@pass_settings
def forget(settings: Settings) -> Exit:
    """Forget the former key. Tokens that were not used since the change are dead then."""
    with administration(settings) as session:
        left = store_secrets.under_another(session, secret_key(settings))
        if left:
            complain(f"{left} secrets are still under the former key", hint="dockwarden secrets rotate")
            return Exit.USAGE
        if settings.secret_key_previous:
            complain(
                "the former key is set by DOCKWARDEN_SECRET_KEY_PREVIOUS", hint="unset it, and restart every process"
            )
            return Exit.USAGE
        (settings.home / PREVIOUS_KEY).unlink(missing_ok=True)
        use_cases.forget(session, COMMAND_LINE)
    tell("the former key is forgotten; restart every process of the server")
    return Exit.OK


@secrets.command("status")
@pass_settings
def status(settings: Settings) -> None:
    """How many secrets are under which key."""
    key = secret_key(settings)
    with administration(settings) as session:
        left = store_secrets.under_another(session, key)
    former = "there is a former key" if len(keys_of(key)) > 1 else "there is no former key"
    tell(f"{left} secrets are not under the key; {former}")
