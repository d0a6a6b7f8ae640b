"""Runs an engine's program so that it cannot outlive the scan, fill the disk, or read our data.

The child gets its own session and network namespace (no network, if the kernel permits it), resource limits and a clean
environment, and is killed if we die. At the deadline the whole process group is killed; a program's own timeout is not
a limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scanner.config import Limits

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000  # linux/sched.h
# Between two looks at a child; short, because small images take less than a second.
_POLL_SECONDS = 0.02
_STDERR_KEPT = 64 << 10  # bytes from its end, where the reason of a failure is
# Rounds of killing what a child left behind: processes may fork while they are killed.
_SWEEPS = 50
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProcessEnd:
    """How a child process ended.

    ``timed_out`` and ``overflowed`` (too much output) mean that we killed it. ``output``: its stdout. ``isolation``:
    what confined it, such as ``no-network,rlimits``.
    """

    code: int  # negative: the signal that ended it
    output: bytes
    stderr: str  # the end of it, within a limit
    seconds: float
    timed_out: bool = False
    overflowed: bool = False
    cancelled: bool = False  # we killed it, because nobody waits for it any more
    isolation: str = ""


@lru_cache(maxsize=1)
def network_flags() -> int:
    """Flags for ``unshare`` that remove the network; 0 if the kernel does not permit it.

    Tried once, in a child process.
    """
    # Without root a network namespace needs a user namespace, which some hosts forbid. Then the program keeps the
    # network, and the report says so (`isolation`).
    for flags in (_CLONE_NEWNET, _CLONE_NEWNET | _CLONE_NEWUSER):
        child = os.fork()
        if child == 0:
            os._exit(0 if _LIBC.unshare(flags) == 0 else 1)
        if os.waitpid(child, 0)[1] == 0:
            return flags
    return 0


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    limits: Limits,
    deadline: float,
    cancelled: Callable[[], bool] = lambda: False,
    running: Callable[[], object] = lambda: None,
) -> ProcessEnd:
    """Run a command to its end, or for ``deadline`` seconds. ``directory``: its working and temporary directory.

    ``running`` is called once the command runs. Output goes to a file in the directory, of which up to
    ``limits.report`` bytes are read; more is ``overflowed``.
    """
    flags = network_flags()
    started = time.monotonic()
    output, errors = directory / ".stdout", directory / ".stderr"
    with output.open("wb") as out, errors.open("wb") as err:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            # A file, not a pipe: a child that writes faster than we read, or never ends a line, cannot block or fill
            # our memory.
            stderr=err,
            cwd=directory,
            env={**environment, "TMPDIR": str(directory), "HOME": str(directory)},
            start_new_session=True,
            close_fds=True,
            preexec_fn=lambda: _confine(flags, limits, os.getppid()),
        )
        namespace = _network_of(child.pid)
        try:
            running()
            reason = _watch(child, started + deadline, output, limits, cancelled)
        finally:
            # Also after a normal end: a program that forked may still run, and would write into the next scan's
            # directory. Also if a caller's function raises: no thread can be started, the database is away.
            _kill(child, namespace)
    # A report that was cut is not a report: a part of it could be valid JSON with the findings missing.
    data = output.read_bytes()[: limits.report] if reason != "overflowed" else b""
    with errors.open("rb") as file:
        text = file.read(_STDERR_KEPT).decode("utf-8", "replace")
    return ProcessEnd(
        code=child.returncode,
        output=data,
        stderr=text,
        seconds=time.monotonic() - started,
        timed_out=reason == "timed_out",
        overflowed=reason == "overflowed",
        cancelled=reason == "cancelled",
        isolation="no-network,rlimits" if flags else "rlimits",
    )


def _watch(
    child: subprocess.Popen[bytes], ends: float, output: Path, limits: Limits, cancelled: Callable[[], bool]
) -> str:
    """Wait for the child. Returns the reason to kill it; empty if it ended by itself."""
    with _ending_of(child) as ended:
        while not ended(_POLL_SECONDS):
            if time.monotonic() > ends:
                return "timed_out"
            if output.stat().st_size > limits.report:
                return "overflowed"
            if cancelled():
                return "cancelled"
    return "overflowed" if output.stat().st_size > limits.report else ""


@contextlib.contextmanager
def _ending_of(child: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """Yield what waits some seconds for the child and returns whether it has ended.

    The kernel wakes us at the end. ``Popen.wait`` with a timeout instead sleeps, for up to 50 ms after the end.
    """
    try:
        descriptor = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # not Linux; an old kernel, or a filter of system calls

        def wait(seconds: float) -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
            return child.returncode is not None

        yield wait
        return
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        yield lambda seconds: bool(waiting.poll(seconds * 1000)) and child.wait() is not None
    finally:
        os.close(descriptor)


def _network_of(pid: int | str) -> str:
    """The network namespace of a process. Empty if the process is gone, or shares ours."""
    try:
        found = os.readlink(f"/proc/{pid}/ns/net")
        return "" if found == os.readlink("/proc/self/ns/net") else found
    except OSError:
        return ""


def _kill(child: subprocess.Popen[bytes], namespace: str) -> None:
    """Kill the whole process group, even if its leader is gone, and processes that left the group.

    The latter are found by their network namespace, which nobody else shares.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for _ in range(_SWEEPS if namespace else 0):
        left = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _network_of(pid) == namespace]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _confine(flags: int, limits: Limits, parent: int) -> None:
    """Runs in the child before it executes the engine."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent died before prctl took effect: nobody would kill this process.
    if os.getppid() != parent:
        os._exit(127)
    if flags:
        _LIBC.unshare(flags)
    # A setuid program that the engine might start gains nothing (prctl(2), PR_SET_NO_NEW_PRIVS).
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Reports and extracted files can contain secrets of the image. Other users of the host must not read them.
    os.umask(0o077)
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 1024),
        (resource.RLIMIT_FSIZE, limits.engine_file_size),
        # Go reserves address space that it never uses. GOMEMLIMIT limits the memory; this limit only stops a runaway.
        (resource.RLIMIT_AS, 4 * limits.engine_memory),
    ):
        soft, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
        del soft
