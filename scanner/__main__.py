"""The entry point of ``dockwarden``, also ``python -m scanner``. ``--version`` alone needs no command-line library."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import NoReturn

from scanner import __version__


def main() -> NoReturn:
    """Run the command line of this process."""
    if sys.argv[1:] == ["--version"] and sys.stdout is not None:
        # A closed pipe or a full disk is left to the command line, which has an exit code for it.
        with contextlib.suppress(OSError):
            sys.stdout.write(f"dockwarden, version {__version__}\n")
            sys.stdout.flush()
            sys.exit(0)
    import signal  # not for --version, which is to take no longer than the interpreter

    # While the command line is loaded, Ctrl-C ends the process at once; Python would print the traceback of an import.
    # Not where it is ignored (nohup, jobs in the background).
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python would search for cycles after each 700 new objects, and those of modules stay. ``cli`` enables it again.
    gc.disable()
    from scanner.cli import main as command_line

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command_line()
    finally:
        # The interpreter would search all modules and evidence for cycles before it ends, a tenth of a short command.
        gc.freeze()


if __name__ == "__main__":
    main()
