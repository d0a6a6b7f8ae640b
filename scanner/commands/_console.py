"""What every group of commands needs: exit codes, messages on stderr, reading and writing the files that a person
names.

An error is one line and a hint, never a traceback, and its exit code is never that of a verdict: only a denial exits
with 1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from scanner.config import Settings
from scanner.errors import Fault, ScannerError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from scanner.model.decision import Decision
    from scanner.policy.rules import Policy
    from scanner.store.session import Database

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


# The caller can mend these by naming another place or by changing its permissions.
_PLACE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


# What a person names (a report, an export) has the mode that they are used to; state has its owner's alone.
_users_umask: ContextVar[int] = ContextVar("_users_umask", default=0o022)


@contextmanager
def private_state() -> Iterator[None]:
    """Within, files and directories that this process or its children make are for their owner alone."""
    former = os.umask(0o077)
    token = _users_umask.set(former)
    try:
        yield
    finally:
        _users_umask.reset(token)
        os.umask(former)


def exit_of(error: ScannerError) -> Exit:
    """A caller's mistake is 2; everything else means that nothing could be decided."""
    return Exit.USAGE if error.fault is Fault.CALLER else Exit.UNDECIDED


def exit_of_decision(decision: Decision) -> Exit:
    """The exit code of a decision made here."""
    from scanner.model.decision import Verdict

    if decision.verdict is not Verdict.DENY:
        return Exit.OK
    return Exit.UNDECIDED if decision.undecided else Exit.DENIED


def os_error(error: OSError) -> ScannerError:
    """What the operating system refused, as an error of ours: which file, why, and what to do."""
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) and error.filename else ""
    why = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        return disk_full(f"{why}{where}")
    if error.errno in _PLACE:
        hint = (
            "make the place readable and writable, or set DOCKWARDEN_HOME (for temporary files: TMPDIR) to one that is"
        )
        return UsageError(f"{why}{where}", reason="cannot_use_file", hint=hint)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ScannerError(
            f"{why}{where}", reason="too_many_files", hint="raise the limit of open files: ulimit -n 4096"
        )
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"{why}{where}", reason="address_in_use", hint="choose another --port or DOCKWARDEN_PORT")
    return ScannerError(f"{why}{where}", reason="system_error", hint="run the command again with --debug for details")


def disk_full(message: str) -> ScannerError:
    """A report or the state of a command that could not be written to its end."""
    hint = "free some space there, or set DOCKWARDEN_HOME (for temporary files: TMPDIR) to a place that has some"
    return ScannerError(message, reason="disk_full", hint=hint)


def complain(message: str, hint: str = "") -> None:
    """One error line, and what to do about it, on stderr."""
    from scanner.model.untrusted import clean_text

    tell(f"dockwarden: {clean_text(message, 2000)}")
    if hint:
        tell(f"  hint: {clean_text(hint, 500)}")


def tell(message: str) -> None:
    """A message on stderr. One that cannot be written is lost: a log that is full must not change a verdict."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def abandon_stdout() -> None:
    """Point stdout at the null device, so that the interpreter's last flush does not change the exit code."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str, output: Path | None) -> None:
    """To the file, atomically, or to stdout. A pipe or a device such as /dev/null is written to, never replaced.

    A reader that closes the pipe early (``| head``) has what it wants: the verdict still counts. Raises UsageError
    for a place that cannot be written to, ScannerError(reason="disk_full") for one that has no room.
    """
    whole = text if text.endswith("\n") else text + "\n"
    if output is None:
        try:
            click.echo(whole, nl=False)
        except BrokenPipeError:
            abandon_stdout()
        except OSError as error:
            abandon_stdout()
            raise cannot_write("the report to standard output", error) from error
        return
    try:
        if output.exists() and not output.is_file():
            output.write_text(whole, "utf-8")
            return
        with replacing(output) as out:
            out.write(whole.encode("utf-8"))
    except OSError as error:
        raise cannot_write(str(output), error) from error


def check_output(output: Path | None) -> None:
    """Refuse a place that cannot hold a report before the work is done, not after. Raises UsageError."""
    if output is None:
        return
    if output.is_dir():
        raise cannot_write(str(output), IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    try:
        if output.exists() and not output.is_file():  # a device or a pipe: opening it could wait for its reader
            return
        # Permissions alone say little: to root, or on a file system that is read-only.
        trial = output.with_name(f".{output.name[:200]}.{secrets.token_hex(8)}.partial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise cannot_write(str(output), error) from error


def cannot_write(what: str, error: OSError) -> ScannerError:
    """Why ``what`` could not be written: 3 where there is no room, 2 where the caller can name another place."""
    message = f"cannot write {what}: {error.strerror or error}"
    if error.errno in _FULL:
        return ScannerError(message, reason="disk_full", hint="free some space there, or write to another place")
    return UsageError(message, reason="cannot_write", hint="name a file in a directory that exists and is writable")


@contextmanager
def replacing(output: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``output`` once it is whole; nothing happens where the block fails.

    Two commands may write the same file at once: each has a partial file of its own, and the last one wins.
    """
    partial_file = output.with_name(f".{output.name[:200]}.{secrets.token_hex(8)}.partial")
    try:
        with partial_file.open("xb") as out:
            os.fchmod(out.fileno(), 0o666 & ~_users_umask.get())
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


class ListedOption(click.Option):
    """An option whose help lists what the catalogue holds. The catalogue is read when the help is shown, not before."""

    def __init__(self, *arguments: Any, listed: Callable[[], Iterable[str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._listed = listed

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """See ``click.Option.get_help_record``."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  One of: {', '.join(self._listed())}.")


def server_options(scope: str) -> Callable[[Any], Any]:
    """The options of a command that asks a server: ``--server``, ``--token`` (which needs ``scope``), ``--ca-file``."""

    def decorate(command: Any) -> Any:
        for option in (
            click.option(
                "--ca-file", type=FILE, help="CA certificates (PEM) to trust for the server; else DOCKWARDEN_CA_FILE."
            ),
            click.option(
                "--token", envvar="DOCKWARDEN_TOKEN", help=f"API token with scope '{scope}' (better: DOCKWARDEN_TOKEN)."
            ),
            click.option(
                "--server",
                envvar="DOCKWARDEN_SERVER",
                metavar="URL",
                help="The Dockwarden server; else DOCKWARDEN_SERVER.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def read_policy(file: Path | None) -> Policy:
    """The policy of a file, checked against the catalogue; the built-in default without one."""
    from scanner import catalog
    from scanner.policy.rules import default_policy, parse_policy

    if file is None:
        return default_policy(catalog.known())
    return parse_policy(read(file, "the policy"), name=str(file), known=catalog.known())


def database_at_head(settings: Settings) -> Database:
    """The database of this installation, at head (brought there, where everything is embedded).

    Every command that writes opens it here: entries of the audit log are chained with a key that ``Database.of`` adds.
    """
    from scanner.store.session import Database

    database = Database.of(settings)
    if settings.embedded:
        database.upgrade()
    database.check_head()
    return database


@contextmanager
def administration(settings: Settings) -> Iterator[Connection]:
    """A transaction on ``database_at_head``."""
    with database_at_head(settings).session() as session:
        yield session
