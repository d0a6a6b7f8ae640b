"""The command line ``dockwarden``: the group of commands. Results go to stdout or ``-o``, messages to stderr.

Exit codes are part of the interface (``Exit``). An error is one line with a hint; ``--debug`` shows its traceback.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import click

from scanner import __version__, commands
from scanner.commands._console import (
    FILE,
    Exit,
    abandon_stdout,
    complain,
    exit_of,
    os_error,
    pass_settings,
    private_state,
    tell,
)
from scanner.config import Settings, load
from scanner.errors import ScannerError

_FIRST = ("scan", "gate", "serve", "demo")

# Names that other tools, or our pages, have for a command. They are suggested, not accepted: one name for each command.
_OTHER_NAMES = {
    "apply": ("import", "edit"),
    "cancel": ("disable", "revoke", "end"),
    "create": ("add",),
    "delete": ("remove", "revoke"),
    "dry-run": ("simulate",),
    "image": ("scan",),
    "lint": ("check",),
    "login": ("token",),
    "ls": ("list",),
    "new": ("create", "add"),
    "password": ("credentials",),
    "rm": ("remove", "revoke"),
    "rotate": ("credentials",),
    "search": ("query",),
    "server": ("serve",),
    "set": ("edit",),
    "show": ("list", "inspect", "status"),
    "start": ("serve",),
    "update": ("edit", "upgrade"),
    "validate": ("check",),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Translates every error a user may see into one line, a hint and an exit code."""
    # Closed by the caller (">&-"): the text is lost, but the exit code still shows the verdict.
    for name in (
        "stdout",
        "stderr",
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    arguments = list(sys.argv[1:] if argv is None else argv)
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:ends]  # accepted anywhere, because people append it to the command that failed
    arguments = [word for place, word in enumerate(arguments) if word != "--debug" or place > ends]
    code = _run(arguments, debug)
    try:
        sys.stdout.flush()
    except OSError:
        abandon_stdout()
        code = code or Exit.UNDECIDED
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        with private_state():
            return int(cli.main(args=arguments, prog_name="dockwarden", standalone_mode=False) or Exit.OK)
    except click.exceptions.NoArgsIsHelpError as error:  # a group without a command: its message is the whole help
        tell(error.format_message())
        return Exit.USAGE
    except click.exceptions.NoSuchCommand as error:
        tell(error.ctx.get_usage() if error.ctx else "")
        complain(f"there is no command {error.command_name!r}", _nearest(error))
        return Exit.USAGE
    except click.UsageError as error:
        tell(error.ctx.get_usage() if error.ctx else "")
        complain(error.format_message(), f"{error.ctx.command_path if error.ctx else 'dockwarden'} --help")
        return Exit.USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        complain("stopped")
        return 130
    except BrokenPipeError:  # the reader of our output is gone: do not exit 0 for a verdict that was not shown
        abandon_stdout()
        return Exit.UNDECIDED
    except ScannerError as error:
        return _refuse(error, error, debug)
    except OSError as error:
        abandon_stdout()
        return _refuse(os_error(error), error, debug)
    except MemoryError as error:
        return _refuse(ScannerError("not enough memory", hint="see the limits in docs/settings.md"), error, debug)
    # The outermost boundary. Without it, Python would exit with 1, which means "denied by a violation".
    except Exception as error:  # noqa: BLE001
        text = str(error).strip().partition("\n")[0][:300]
        message = f"internal error: {type(error).__name__}{': ' + text if text else ''}"
        hint = "run the command again with --debug, and report what it prints"
        return _refuse(ScannerError(message, hint=hint), error, debug)


def _nearest(error: click.exceptions.NoSuchCommand) -> str:
    """The hint for a command that does not exist: the commands with a name or a meaning like it."""
    path, group = ("dockwarden", cli) if error.ctx is None else (error.ctx.command_path, error.ctx.command)
    names = group.list_commands(error.ctx) if isinstance(group, click.Group) and error.ctx else []
    typed = error.command_name.lower()
    # People who know other scanners write the image where the command belongs. No command has these characters.
    if group is cli and any(character in typed for character in ":/@"):
        return f"to scan an image: {path} scan {error.command_name}"
    near = [name for name in _OTHER_NAMES.get(typed, ()) if name in names] or get_close_matches(typed, names)
    return " or ".join(f"{path} {name}" for name in near) or f"{path} --help"


def _refuse(shown: ScannerError, error: BaseException, debug: bool) -> Exit:
    if debug:
        tell("".join(traceback.format_exception(error)).rstrip())
    complain(str(shown), shown.hint)
    return exit_of(shown)


class Table(click.Group):
    """The commands of this module and of ``scanner.commands``. A module is imported only when its command is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        names = {*super().list_commands(context), *self._modules()}
        return [name for name in _FIRST if name in names] + sorted(names - set(_FIRST))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """See ``click.Group.get_command``."""
        own = super().get_command(context, name)
        if own is None and name in self._modules():
            module = name.replace("-", "_")
            found = getattr(importlib.import_module(f"scanner.commands.{module}"), module)
            assert isinstance(found, click.Command)
            return found
        return own

    @staticmethod
    def _modules() -> list[str]:
        return [info.name.replace("_", "-") for info in pkgutil.iter_modules(commands.__path__) if info.name[0] != "_"]


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dockwarden")
@click.option(
    "--config", type=FILE, envvar="DOCKWARDEN_CONFIG", help="TOML file with settings (environment variables win)."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error. May be anywhere on the command line.")
@click.pass_context
def cli(context: click.Context, config: Path | None, debug: bool) -> None:
    """Scan container images, check how they are built and run, verify signatures, and decide by policy.

    Exit codes: 0 allow or warn; 1 denied by a violation; 2 wrong usage or bad input; 3 could not be decided;
    4 the scan has not finished.
    """
    if config is not None:
        os.environ["DOCKWARDEN_CONFIG"] = str(config.absolute())  # for child processes
    context.obj = load(file=config)
    if not gc.isenabled():  # see scanner.__main__: what has been loaded is never searched
        gc.freeze()
        gc.enable()


# scanner.demo imports scanner.commands, so the command cannot be defined there (import rules).
@cli.command()
@click.option("--keep", is_flag=True, envvar="KEEP", help="Keep the server running at the end.")
@pass_settings
def demo(settings: Settings, keep: bool) -> Exit:
    """Build sample images, start a server, scan them, print the decisions and what to try next."""
    from scanner.demo.run import run as demonstration

    return Exit.OK if demonstration(settings, keep=keep, tell=tell) else Exit.UNDECIDED


if __name__ == "__main__":
    main()
