"""The processes of a server: web, worker and, with a broker, beat.

They form one tree: a child that dies is restarted, and none outlives the parent. SIGHUP renews the tree without
refusing a connection: a new web process accepts on the same socket, and the former one finishes its requests and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING

from scanner import queue, telemetry
from scanner.config import NOTIFY, PREFIX, Limits, Secret, Settings, load, secret_key
from scanner.errors import ScannerError
from scanner.services import tokens
from scanner.store.session import Database
from scanner.worker.listening import listen, url_of

if TYPE_CHECKING:
    from scanner.worker.worker import Worker

# For a child to end; to count as started; and the longest pause before it is started again.
_STOP_SECONDS, _SETTLED_SECONDS, _MAX_PAUSE = 12.0, 20.0, 15.0
_READY_SECONDS = 60.0  # if a new web process is not ready by then, it is killed and the former one stays


def supervise(
    settings: Settings,
    *,
    web_only: bool = False,
    tell: Callable[[str], None] = lambda message: print(message, file=sys.stderr, flush=True),
) -> None:
    """Run the server until SIGTERM or SIGINT.

    An embedded database is upgraded; another one must be at head. Raises UsageError, before anything is changed, if the
    address cannot be listened on.
    """
    with listen(settings) as listening:
        database = Database.of(settings)
        if settings.embedded:
            database.upgrade()
        else:
            database.check_head()
        first = bootstrap(database, secret_key(settings))
        if first is not None:
            tell(f"first run: sign in with this administrator's token, which is not shown again: {first.reveal()}")
        roles = ["web"] if web_only else ["web", "worker", *(["beat"] if settings.broker_url else [])]
        tell(f"listening on {url_of(listening, 'https' if settings.tls_certificate else 'http')}")
        _Tree(settings, roles, listening).run()


def bootstrap(database: Database, key: Secret) -> Secret | None:
    """Create the administrator's token on the first run only. Returns its text, which is not stored."""
    with database.session() as session:
        return tokens.bootstrap(session, key)


@dataclass
class _Child:
    """A child process. ``ready``: the pipe to which a new web process writes when it is ready; None: already read."""

    role: str
    process: subprocess.Popen[bytes]
    started: float  # monotonic clock: a child that ends at once is started again more slowly
    pause: float = 0.5  # seconds before the next start
    ready: int | None = None


class _Tree:
    """Child processes by role. A child that ends is restarted, after a pause that grows while it keeps ending early."""

    def __init__(self, settings: Settings, roles: Sequence[str], listening: socket.socket) -> None:
        self._settings, self._roles, self._listening = settings, roles, listening
        self._stopping, self._renewing = threading.Event(), threading.Event()
        self._arriving: _Child | None = None
        self._leaving: list[_Child] = []
        # Nothing is written to this pipe. Children notice our death by its end, even after SIGKILL.
        self._watched, self._alive = os.pipe()

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        signal.signal(signal.SIGHUP, lambda *_: self._renewing.set())
        children = {role: self._start(role) for role in self._roles}
        try:
            while not self._stopping.wait(0.3):
                for role, child in children.items():
                    if child.process.poll() is not None and not self._stopping.is_set():
                        children[role] = self._restart(child)
                self._renew(children)
        finally:
            started = [*children.values(), *self._leaving, *([self._arriving] if self._arriving else [])]
            self._end([child.process for child in started])

    def _renew(self, children: dict[str, _Child]) -> None:
        """One step of a renewal: start a new web process.

        When it is ready, let the former one finish, and restart the others.
        """
        if self._renewing.is_set() and self._arriving is None:
            self._renewing.clear()
            self._arriving = self._start("web")
        if self._arriving is not None and self._has_arrived(self._arriving):
            former, children["web"], self._arriving = children["web"], self._arriving, None
            former.process.terminate()
            former.started = time.monotonic()  # from now on: the time of SIGTERM
            if former.ready is not None:
                os.close(former.ready)
            self._leaving.append(former)
            for role, child in children.items():
                if role != "web":
                    child.process.terminate()  # it hands its work back, and ``run`` restarts it
        for child in list(self._leaving):
            if child.process.poll() is not None or time.monotonic() - child.started > _STOP_SECONDS:
                _kill_group(child.process)
                child.process.wait()
                self._leaving.remove(child)

    def _has_arrived(self, child: _Child) -> bool:
        """True if a new web process is ready. One that ended or takes too long is killed."""
        assert child.ready is not None
        if select.select([child.ready], [], [], 0)[0]:
            answers = os.read(child.ready, 1) != b""
        elif time.monotonic() - child.started < _READY_SECONDS:
            return False
        else:
            answers = False
        os.close(child.ready)
        child.ready = None
        if not answers:
            logging.getLogger(__name__).error("the new web process did not become ready; the former one stays")
            _kill_group(child.process)
            child.process.wait()
            self._arriving = None
        return answers

    def _start(self, role: str, pause: float = 0.5) -> _Child:
        command = [sys.executable, "-m", "scanner.worker.supervisor", role, str(self._watched)]
        passed, ready_read, ready_write = [self._watched], None, None
        if role == "web":
            ready_read, ready_write = os.pipe()
            passed += [self._listening.fileno(), ready_write]
            command += [str(self._listening.fileno()), str(ready_write)]
        given = environment_of(self._settings)
        # Values that the child reads from the settings file itself are left out: an environment is visible in the
        # process list.
        own = {PREFIX + item.name.upper(): getattr(load(), item.name) for item in fields(Settings)}
        known = {name for name, value in own.items() if isinstance(value, Secret) and value.reveal() == given.get(name)}
        environment = {**os.environ, **{name: value for name, value in given.items() if name not in known}}
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=passed
        )
        if ready_write is not None:
            os.close(ready_write)
        return _Child(role, process, time.monotonic(), pause, ready_read)

    def _restart(self, child: _Child) -> _Child:
        _kill_group(child.process)  # processes that it left behind
        if child.ready is not None:
            os.close(child.ready)
        lived = time.monotonic() - child.started
        pause = 0.5 if lived > _SETTLED_SECONDS else min(child.pause * 2, _MAX_PAUSE)
        logging.getLogger(__name__).warning("%s ended (%s), restarting it", child.role, child.process.returncode)
        self._stopping.wait(pause)
        return self._start(child.role, pause)

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        # New connections are refused from now on, instead of waiting for an answer that never comes.
        self._listening.close()
        for process in processes:
            process.terminate()
        ends = time.monotonic() + _STOP_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, ends - time.monotonic()))
            _kill_group(process)
            process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill everything that a child left behind. It led its own session, so the group belongs to it alone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for a child process."""
    default, found = Settings(), {}
    for item in fields(Settings):
        value = getattr(settings, item.name)
        if item.name == "limits":
            for limit in fields(Limits):
                found[f"{PREFIX}LIMIT_{limit.name.upper()}"] = str(getattr(value, limit.name))
        elif value is not None and value != getattr(default, item.name):
            text = (
                value.reveal()
                if isinstance(value, Secret)
                else ",".join(value)
                if isinstance(value, tuple)
                else str(value)
            )
            found[PREFIX + item.name.upper()] = text
    found[PREFIX + "HOME"] = str(settings.home.absolute())
    return found


def run_web(settings: Settings, listening: socket.socket, ready: int) -> None:
    """Run the web process on the supervisor's socket.

    ``web`` is imported by name, because ``scanner`` must not import it.
    """

    def tell_ready() -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, so this process ends soon
            os.write(ready, b"1")
        os.close(ready)

    importlib.import_module("web.server").run(settings, listening, tell_ready)


def run_worker(settings: Settings) -> None:
    """Run a worker: slots, sweeper, and Celery for wake-ups if there is a broker."""
    from scanner.worker.worker import Worker

    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database.of(settings)
    database.check_head()
    telemetry.configure(settings, "worker")
    attend(Worker(settings, database, queue.make_app(settings)))


def attend(worker: Worker) -> None:
    """Run a worker until SIGTERM or SIGINT, with wake-ups by the broker if there is one."""
    from scanner.worker.worker import register

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    if worker.settings.broker_url and set(worker.settings.lanes) - {NOTIFY}:
        register(worker.celery, worker)
        listener = threading.Thread(target=_listen, args=(worker.celery, worker.settings), name="celery", daemon=True)
        listener.start()
    worker.run()
    telemetry.shut_down()


def _listen(app: object, settings: Settings) -> None:
    """Run Celery's worker, which only receives wake-ups.

    If it fails, it is restarted; meanwhile the slots poll the database.
    """
    from celery import Celery

    assert isinstance(app, Celery)
    while True:
        try:
            app.Worker(
                pool="threads",
                concurrency=1,
                queues=[lane for lane in settings.lanes if lane != NOTIFY],  # nobody nudges that one
                loglevel="WARNING",
                without_gossip=True,
                without_mingle=True,
            ).start()
        # Broker libraries raise anything, and no scan depends on this thread.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            logging.getLogger(__name__).warning("the queue's listener ended: %s", type(error).__name__)
        time.sleep(5)


def run_beat(settings: Settings) -> None:
    """Run the scheduler. It wakes every lane once a minute, in case all wake-ups of a burst were lost."""
    app = queue.make_app(settings)
    app.conf.beat_schedule = {
        f"nudge-{lane}": {
            "task": queue.KICK,
            "schedule": timedelta(seconds=60),
            "args": ("",),
            "options": {"queue": lane},
        }
        for lane in ("gate", "push", "background")
    }
    # Sources have their own schedules with jitter; this only makes a worker check them.
    app.conf.beat_schedule["keep-up"] = {
        "task": queue.KEEP_UP,
        "schedule": timedelta(seconds=60),
        "options": {"queue": "background"},
    }
    app.conf.beat_schedule_filename = str(settings.home / "beat-schedule")
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    app.Beat(loglevel="WARNING").run()


def _main(role: str, watched: str, *passed: str) -> None:
    """The main function of a child of ``supervise``. It ends with its parent, also if that is killed."""
    threading.Thread(target=_end_with_parent, args=(int(watched),), name="parent", daemon=True).start()
    settings = load()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format=f"%(asctime)s {role} %(levelname)s %(message)s"
    )
    # At INFO httpx logs every URL, and the target of a registry's redirect can contain a signature.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # At INFO Alembic logs which database it knows, each time that the schema's version is read.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    if role == "web":
        listening, ready = (int(descriptor) for descriptor in passed)
        run_web(settings, socket.socket(fileno=listening), ready)
    else:
        {"worker": run_worker, "beat": run_beat}[role](settings)


def _end_with_parent(watched: int) -> None:
    """Wait for the end of the parent's pipe, then end as on SIGTERM; if that takes too long, kill the whole group.

    A pipe instead of PR_SET_PDEATHSIG, which has no effect if it is set after the parent's death.
    """
    os.read(watched, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except ScannerError as failure:
        print(f"dockwarden: {failure}", file=sys.stderr)
        sys.exit(3)
