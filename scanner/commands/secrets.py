"""``dockwarden secrets``: rotate the key that encrypts stored secrets, without downtime."""

from __future__ import annotations

import click

from scanner.commands._console import Exit, administration, complain, database_at_head, pass_settings, tell
from scanner.config import PREVIOUS_KEY, Settings, keys_of, new_secret_key, secret_key
from scanner.model.actor import COMMAND_LINE
from scanner.model.plurals import number_of
from scanner.services import secrets as use_cases
from scanner.store import secrets as store_secrets


@click.group()
def secrets() -> None:
    """The key of stored secrets: status, new-key, rotate, forget.

    The secret key encrypts registry credentials and webhook secrets, and hashes tokens and sessions. To change it: run
    'new-key' (or set DOCKWARDEN_SECRET_KEY and DOCKWARDEN_SECRET_KEY_PREVIOUS), restart every process, run 'rotate',
    and run 'forget' when all tokens in use have been used again.
    """


@secrets.command("new-key")
@pass_settings
def new_key(settings: Settings) -> None:
    """Create a new key under DOCKWARDEN_HOME. The previous key still decrypts."""
    new_secret_key(settings)
    tell("a new key was created. Restart every process of the server, then run: dockwarden secrets rotate")


@secrets.command("rotate")
@pass_settings
def rotate(settings: Settings) -> None:
    """Encrypt every stored secret with the current key. Safe to interrupt and run again."""
    key, moved = secret_key(settings), 0
    database = database_at_head(settings)
    while True:
        with database.session() as session:
            some = use_cases.rotate_some(session, COMMAND_LINE, key, moved)
        moved += some
        if not some:
            break
    tell(f"{number_of(moved, 'secret')} encrypted again; all secrets use the current key now")
    if len(keys_of(key)) > 1:
        tell("a token is hashed again on use; when all tokens in use have been used, run: dockwarden secrets forget")


@secrets.command("forget")
@pass_settings
def forget(settings: Settings) -> Exit:
    """Delete the previous key. Tokens that were not used since the change become invalid."""
    # `forget` comes last: deleting the previous key while a secret still uses it would make that secret unreadable.
    with administration(settings) as session:
        left = store_secrets.under_another(session, secret_key(settings))
        if left:
            complain(
                f"{number_of(left, 'secret')} still encrypted with the previous key", hint="dockwarden secrets rotate"
            )
            return Exit.USAGE
        if settings.secret_key_previous:
            complain(
                "the previous key is set by DOCKWARDEN_SECRET_KEY_PREVIOUS", hint="unset it, and restart every process"
            )
            return Exit.USAGE
        if not (settings.home / PREVIOUS_KEY).exists():
            tell("there is no previous key: nothing was deleted")
            return Exit.OK
        (settings.home / PREVIOUS_KEY).unlink()
        use_cases.forget(session, COMMAND_LINE)
    tell("the previous key is deleted; restart every process of the server")
    return Exit.OK


@secrets.command("status")
@pass_settings
def status(settings: Settings) -> None:
    """Show how many secrets use which key."""
    key = secret_key(settings)
    with administration(settings) as session:
        left = store_secrets.under_another(session, key)
    former = "there is a previous key" if len(keys_of(key)) > 1 else "there is no previous key"
    many = f"{left} secrets use" if left != 1 else "1 secret uses"
    tell(f"{many} another key than the current one; {former}")
