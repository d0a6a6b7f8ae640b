"""Shared by all commands: exit codes, messages on stderr, reading and writing files that the user names.

An error is one line and a hint, never a traceback. Only a denial by a violation exits with 1, so that scripts can
tell a verdict from an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from scanner.config import Settings
from scanner.errors import Fault, ScannerError, UsageError
from scanner.files import read_whole

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from scanner.model.decision import Decision
    from scanner.policy.rules import Policy
    from scanner.store.session import Database

T = TypeVar("T")
FILE = click.Path(path_type=Path, dir_okay=False)
pass_settings: Callable[[Any], Any] = click.make_pass_decorator(Settings)


class Exit(IntEnum):
    """Exit codes, a stable interface for scripts. No option turns a 3 (undecided) into a 0."""

    OK = 0
    DENIED = 1
    USAGE = 2
    UNDECIDED = 3
    PENDING = 4


# The user can fix these: name another path or change its permissions.
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
# Nothing else than space is missing: the message says so.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


# A file that the user names (report, export) gets the usual mode of their umask; our own state is for its owner only.
_users_umask: ContextVar[int] = ContextVar("_users_umask", default=0o022)


@contextmanager
def private_state() -> Iterator[None]:
    """Set the umask so that new files and directories of this process and its children are readable by their owner
    only.
    """
    # Before anything is created: SQLite makes its -wal and -shm files itself, with the process's umask.
    former = os.umask(0o077)
    token = _users_umask.set(former)
    try:
        yield
    finally:
        _users_umask.reset(token)
        os.umask(former)


def exit_of(error: ScannerError) -> Exit:
    """Return 2 for the caller's mistake and 3 for everything else, because nothing could be decided."""
    return Exit.USAGE if error.fault is Fault.CALLER else Exit.UNDECIDED


def exit_of_decision(decision: Decision) -> Exit:
    """Return the exit code of a decision made in this process."""
    from scanner.model.decision import Verdict

    if decision.verdict is not Verdict.DENY:
        return Exit.OK
    return Exit.UNDECIDED if decision.undecided else Exit.DENIED


def os_error(error: OSError) -> ScannerError:
    """Translate an OSError into an error of ours: which file, why, and what to do."""
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) and error.filename else ""
    why = error.strerror or str(error) or type(error).__name__
    if error.errno in _FULL:
        # Not the caller's mistake: the same command works once there is space.
        return disk_full(f"{why}{where}")
    if error.errno in _PLACE:
        hint = (
            "make the path readable and writable, or set DOCKWARDEN_HOME (for temporary files: TMPDIR) to one that is"
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
    """An error for a report or a command's state that was not written completely."""
    hint = "free disk space there, or set DOCKWARDEN_HOME (for temporary files: TMPDIR) to a directory with free space"
    return ScannerError(message, reason="disk_full", hint=hint)


def complain(message: str, hint: str = "") -> None:
    """Write one error line and its hint to stderr."""
    from scanner.model.untrusted import clean_text

    tell(f"dockwarden: {clean_text(message, 2000)}")
    if hint:
        tell(f"  hint: {clean_text(hint, 500)}")


def tell(message: str) -> None:
    """Write a message to stderr. A failed write is ignored: a full log must not change a verdict."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def abandon_stdout() -> None:
    """Point stdout at the null device, so that the interpreter's last flush does not change the exit code."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str, output: Path | None) -> None:
    """Write text to a file, atomically, or to stdout. A pipe or a device such as /dev/null is written to, not replaced.

    A reader may close the pipe early (``| head``); the verdict still decides the exit code. Raises UsageError if the
    path cannot be written to, ScannerError(reason="disk_full") if the disk is full.
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
        # Replacing /dev/stdout or a named pipe by a regular file would break the reader.
        if output.exists() and not output.is_file():
            output.write_text(whole, "utf-8")
            return
        with replacing(output) as out:
            out.write(whole.encode("utf-8"))
    except OSError as error:
        raise cannot_write(str(output), error) from error


def check_output(output: Path | None) -> None:
    """Check before the work starts that a report can be written to this path. Raises UsageError."""
    if output is None:
        return
    if output.is_dir():
        raise cannot_write(str(output), IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    try:
        if output.exists() and not output.is_file():  # a device or a pipe: opening it could wait for its reader
            return
        # Try it: permission bits do not tell for root or on a read-only file system.
        trial = output.with_name(f".{output.name[:200]}.{os.urandom(8).hex()}.partial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise cannot_write(str(output), error) from error


def cannot_write(what: str, error: OSError) -> ScannerError:
    """An error for a failed write of ``what``: exit code 3 for a full disk, 2 for a path that the user can change."""
    message = f"cannot write {what}: {error.strerror or error}"
    if error.errno in _FULL:
        return ScannerError(message, reason="disk_full", hint="free disk space there, or write to another path")
    return UsageError(message, reason="cannot_write", hint="name a file in a directory that exists and is writable")


@contextmanager
def replacing(output: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``output`` when the block ends; nothing changes if the block fails.

    Each writer has its own temporary file, so that two commands may write the same ``output``; the last one wins.
    """
    partial_file = output.with_name(f".{output.name[:200]}.{os.urandom(8).hex()}.partial")
    try:
        # "x": fail rather than follow a link that an attacker planted in a shared directory.
        with partial_file.open("xb") as out:
            # The process's umask is 0077 (private_state), but a report belongs to the user: apply their own umask.
            os.fchmod(out.fileno(), 0o666 & ~_users_umask.get())
            yield out
        partial_file.replace(output)
    finally:
        partial_file.unlink(missing_ok=True)


def read(file: Path, what: str, limit: int = 4 << 20) -> str:
    """Read a text file that the user named. Raises UsageError with its name."""
    try:
        return read_whole(file, limit, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {file} is not UTF-8 text (byte {error.start})") from error


def rfc3339(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime:
    """A point in time as RFC 3339. Default: now."""
    if value is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("not an RFC 3339 time, such as 2026-11-23T07:00:00Z") from None
    if found.tzinfo is None:
        raise click.BadParameter("the time zone is missing: end the time with Z or +01:00")
    return found


def wait_option(what: str) -> Callable[[Any], Any]:
    """The option ``--wait SECONDS``: how long to wait for ``what``."""
    return click.option(
        "--wait",
        type=click.IntRange(0),
        default=600,
        show_default=True,
        metavar="SECONDS",
        help=f"Time to wait for {what}.",
    )


def prompt_secret(label: str, *, twice: bool = False) -> str:
    """Ask for a password. Raises UsageError without a terminal, where getpass would wait for input and show it."""
    if not sys.stdin.isatty():
        hint = "set DOCKWARDEN_PASSWORD, or run the command in a terminal"
        raise UsageError("no password was given, and there is no terminal to ask for it", hint=hint)
    return str(click.prompt(label, hide_input=True, err=True, confirmation_prompt=twice))


WIDTH = 100  # columns of a report that no terminal shows
_WIDEST = 120  # longer lines are hard to read


def terminal_width(output: Path | None) -> int:
    """Return the columns of a report: of the terminal that shows it, or that ``COLUMNS`` names."""
    if output is None and (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        import shutil  # its archives take a while to import

        return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, 40), _WIDEST)
    return WIDTH


def read_stdin(limit: int = 64 << 20) -> bytes:
    """Read standard input to its end. Raises UsageError for more than ``limit`` bytes (``< /dev/zero``)."""
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"standard input is larger than {limit >> 20} MiB")
    return data


def choose(plugins: Mapping[str, T], name: str, what: str) -> T:
    """Return the plug-in ``name``. Raises UsageError with the list of existing ones."""
    if name not in plugins:
        raise UsageError(f"there is no {what} {name!r}", hint="choose one of: " + ", ".join(plugins))
    return plugins[name]


class ListedOption(click.Option):
    """An option whose help lists entries of the catalogue. The catalogue is read only when the help is shown, to keep
    the start fast.
    """

    def __init__(self, *arguments: Any, listed: Callable[[], Iterable[str]], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._listed = listed

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """See ``click.Option.get_help_record``."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  One of: {', '.join(self._listed())}.")


REPORT_FILES: Callable[[Any], Any] = click.option(
    "--report",
    "report_files",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Also write a report in this format to this file. May be repeated.",
)


def parse_report_files(values: Iterable[str]) -> tuple[tuple[str, Path], ...]:
    """Parse the values of ``--report``. Raises UsageError for an unknown format or a path that cannot be written to."""
    from scanner import catalog

    parsed: list[tuple[str, Path]] = []
    for value in values:
        name, separator, file = value.partition("=")
        if not separator or not file:
            raise UsageError(f"--report {value!r} has no file", hint="write --report FORMAT=FILE")
        choose(catalog.reports(), name, "report format")
        if Path(file) in (path for _, path in parsed):
            raise UsageError(f"--report names the file {file} twice", hint="name another file for each format")
        check_output(Path(file))
        parsed.append((name, Path(file)))
    return tuple(parsed)


class TargetsCommand(click.Command):
    """A command whose help lists what its TARGET can be: the targets of every source of workloads."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See ``click.Command.format_help_text``."""
        from scanner import catalog
        from scanner.workloads.base import targets_of

        super().format_help_text(ctx, formatter)
        with formatter.section("TARGET is one of"):
            targets = targets_of(catalog.workload_sources().values())
            formatter.write_dl([(name, text.replace("`", "")) for name, text in targets])


def server_options(scope: str) -> Callable[[Any], Any]:
    """Add the options of a server's client: ``--server``, ``--token`` (with ``scope``), ``--ca-file``."""

    def decorate(command: Any) -> Any:
        for option in (
            click.option(
                "--ca-file",
                type=FILE,
                help="CA certificates (PEM) to trust for the server. Default: DOCKWARDEN_CA_FILE.",
            ),
            click.option(
                "--token", envvar="DOCKWARDEN_TOKEN", help=f"API token with scope {scope} (better: DOCKWARDEN_TOKEN)."
            ),
            click.option(
                "--server",
                envvar="DOCKWARDEN_SERVER",
                metavar="URL",
                help="URL of the Dockwarden server. Default: DOCKWARDEN_SERVER.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def read_policy(file: Path | None = None) -> Policy:
    """Load a policy file and check it against the catalogue. Without a file: the built-in default policy."""
    from scanner import catalog
    from scanner.policy.rules import default_policy, parse_policy

    if file is None:
        return default_policy(catalog.known_names())
    return parse_policy(read(file, "the policy"), name=str(file), known=catalog.known_names())


def database_at_head(settings: Settings) -> Database:
    """Open the database of this installation, at the newest schema. An embedded database is upgraded first.

    Commands that write must open it here: ``Database.of`` adds the key that chains the entries of the audit log.
    """
    from scanner.store.session import Database

    # `serve` upgrades an embedded database as well; a shared one is upgraded by an operator, with `db upgrade`.
    database = Database.of(settings)
    if settings.embedded:
        database.upgrade()
    database.check_head()
    return database


@contextmanager
def administration(settings: Settings) -> Iterator[Connection]:
    """Begin a transaction on ``database_at_head``."""
    with database_at_head(settings).session() as session:
        yield session
