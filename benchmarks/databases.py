"""Where a benchmark keeps its data: the option ``--database``.

``postgresql`` starts a throw-away PostgreSQL server, as the tests do: it does not sync to the disk, and ends with the
benchmark. A URL is used as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import uuid

from scanner.errors import ScannerError, UsageError
from scanner.store.session import Database

POSTGRESQL = "postgresql"
_HELP = (
    "'postgresql' starts a throw-away PostgreSQL server; or the URL of an empty database, such as "
    "postgresql+psycopg://USER@HOST/NAME or sqlite:////tmp/new.db; otherwise SQLite in a temporary directory"
)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--database``. Its value is the URL of a database that answers, or empty."""
    parser.add_argument("--database", default="", type=url, metavar="URL", help=_HELP)


def url(text: str) -> str:
    """Return the URL that an argument means. Raises ArgumentTypeError with what to do."""
    if not text:
        return text
    try:
        if text == POSTGRESQL:
            return throw_away()
        database = Database(text)
        with database.session():
            pass
        database.engine.dispose()
    except ScannerError as error:
        raise argparse.ArgumentTypeError(": ".join(filter(None, (str(error), error.hint)))) from error
    return text


def throw_away() -> str:
    """Return the URL of a new database on a PostgreSQL server that ends with this process.

    Raises UsageError if PostgreSQL is not installed or does not start.
    """
    from tests import databases

    if databases.binaries() is None:
        raise UsageError("PostgreSQL is not installed", hint=databases.INSTALL)
    try:
        return databases.cluster().create(f"benchmark-{uuid.uuid4().hex}")
    except (subprocess.SubprocessError, OSError) as error:
        raise UsageError(f"PostgreSQL does not start: {error}", hint="see pg_ctl's message in its log") from error
