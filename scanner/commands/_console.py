"""What every group of commands needs: exit codes, messages on stderr, reading and writing the files that a person names.

A user's mistake is one line and a hint, never a traceback.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from scanner.config import Settings
from scanner.errors import Fault, ScannerError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")
FILE = click.Path(path_type=Path, dir_okay=False)
pass_settings: Callable[[Any], Any] = click.make_pass_decorator(Settings)


class Exit(IntEnum):
    """What scripts compare. There is no option that turns a 3 into a 0."""

    OK = 0
    DENIED = 1
    USAGE = 2
    UNDECIDED = 3
    PENDING = 4


def exit_of(error: ScannerError) -> Exit:
    """A caller's mistake is 2; everything else means that nothing could be decided."""
    return Exit.USAGE if error.fault is Fault.CALLER else Exit.UNDECIDED


def complain(message: str, hint: str = "") -> None:
    """One error line, and what to do about it, on stderr."""
    from scanner.model.untrusted import clean_text

    click.echo(f"dockwarden: {clean_text(message, 2000)}", err=True)
    if hint:
        click.echo(f"  hint: {clean_text(hint, 500)}", err=True)


def tell(message: str) -> None:
    click.echo(message, err=True)


def write(text: str, output: Path | None) -> None:
    """To the file, atomically, or to stdout. A pipe or a device such as /dev/null is written to, never replaced."""
    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
        return
    whole = text if text.endswith("\n") else text + "\n"
    try:
        if output.exists() and not output.is_file():
            output.write_text(whole, "utf-8")
            return
        with replacing(output) as out:
            out.write(whole.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error


@contextmanager
def replacing(output: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``output`` once it is whole; nothing happens where the block fails.

    Two commands may write the same file at once: each has a partial file of its own, and the last one wins.
    """
    partial_file = output.with_name(f".{output.name[:200]}.{secrets.token_hex(8)}.partial")
    try:
        with partial_file.open("xb") as out:
            yield out
        partial_file.replace(output)
    finally:
        partial_file.unlink(missing_ok=True)


def read(file: Path, what: str, limit: int = 4 << 20) -> str:
    """A text file that a person named. Raises UsageError naming it."""
    try:
        if file.stat().st_size > limit:
            raise UsageError(f"{what} {file} is larger than {limit >> 20} MiB")
        return file.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {what} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {file} is not UTF-8 text (byte {error.start})") from error


def choose(plugins: Mapping[str, T], name: str, what: str) -> T:
    """The plug-in called ``name``. Raises UsageError listing what there is."""
    if name not in plugins:
        raise UsageError(f"there is no {what} {name!r}", hint="choose one of: " + ", ".join(plugins))
    return plugins[name]


@contextmanager
def administration(settings: Settings) -> Iterator[Connection]:
    """A transaction on a database that is at head (brought there, where everything is embedded)."""
    from scanner.store.session import Database

    database = Database.of(settings)
    if settings.embedded:
        database.upgrade()
    database.check_head()
    with database.session() as session:
        yield session
