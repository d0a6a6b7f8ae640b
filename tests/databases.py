"""Real databases for tests: a PostgreSQL cluster of our own and SQLite files, migrated once and copied for every
test.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psycopg
import pytest

from scanner.store.session import Database

BACKENDS = ("sqlite", "postgresql")
INSTALL = "apt-get install postgresql, or put pg_ctl on PATH"
_TEMPLATE = "migrated"


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server on a unix socket of its own.

    It runs as ``postgres`` when we are root: the server refuses root.
    """

    binaries: Path
    home: Path

    def control(self, *arguments: str) -> None:
        owner = "postgres" if os.getuid() == 0 else None
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.home / "data"), "-w", *arguments]
        # Not into a pipe: the server that pg_ctl leaves behind would hold it open for ever.
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            user=owner,
            group=owner,
        )

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.home} -c fsync=off -c max_connections=200"
        self.control("-o", options, "-l", str(self.home / "log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        self.control("-m", mode, "stop")

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://{self._role}@/{name}?host={self.home}"

    def create(self, name: str, template: str = "template1") -> str:
        """A new database, and its URL."""
        with psycopg.connect(host=str(self.home), user=self._role, dbname="postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    @property
    def _role(self) -> str:
        return "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


def make_cluster() -> Cluster:
    """Start a new server; it ends with this process. Skips where PostgreSQL is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip(f"PostgreSQL is not installed: {INSTALL}")
    home = Path(tempfile.mkdtemp(prefix="dockwarden-pg-"))
    cluster = Cluster(programs, home)
    if os.getuid() == 0:
        shutil.chown(home, "postgres", "postgres")
    cluster.control("initdb", "-o", "--auth=trust --no-sync --encoding=UTF8 --locale=C")
    cluster.start()
    atexit.register(_end, cluster)
    return cluster


def binaries() -> Path | None:
    """Return the directory of PostgreSQL's programs, if it is installed."""
    found = shutil.which("pg_ctl")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return places[0] if places else None


def _end(cluster: Cluster) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):  # a test had stopped it already
        cluster.stop()
    shutil.rmtree(cluster.home, ignore_errors=True)


@lru_cache(maxsize=1)
def cluster() -> Cluster:
    """The one that tests share. Tests that stop a server make their own."""
    return make_cluster()


def empty_url(backend: str, directory: Path) -> str:
    """A database without a schema."""
    if backend == "sqlite":
        return f"sqlite:///{directory / (uuid.uuid4().hex + '.db')}"
    return cluster().create("t" + uuid.uuid4().hex)


def migrated_url(backend: str, directory: Path) -> str:
    """A database at head, copied from one that was migrated once."""
    if backend == "postgresql":
        _migrated_template(cluster())
        return cluster().create("t" + uuid.uuid4().hex, _TEMPLATE)
    file = directory / (uuid.uuid4().hex + ".db")
    shutil.copy(_migrated_file(), file)
    return f"sqlite:///{file}"


@lru_cache(maxsize=1)
def _migrated_file() -> Path:
    home = Path(tempfile.mkdtemp(prefix="dockwarden-sqlite-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    database = Database(f"sqlite:///{home / 'head.db'}")
    database.upgrade()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
    database.engine.dispose()
    return home / "head.db"


@lru_cache(maxsize=1)
def _migrated_template(server: Cluster) -> None:
    database = Database(server.create(_TEMPLATE))
    database.upgrade()
    database.engine.dispose()
