"""Nothing an engine's program does outlives the scan, fills the disk, or sees what is ours."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.config import Limits
from scanner.engines._process import ProcessEnd, network_flags, run

LIMITS = replace(Limits(), report=1 << 20, engine_file_size=4 << 20)


def python(
    code: str, directory: Path, *, deadline: float = 10, environment: dict[str, str] | None = None
) -> ProcessEnd:
    command = [sys.executable, "-I", "-c", code]
    return run(
        command,
        environment=environment or {"PATH": "/usr/bin:/bin"},
        directory=directory,
        limits=LIMITS,
        deadline=deadline,
    )


def test_output_code_and_error(tmp_path: Path) -> None:
    done = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)
    assert (done.code, done.output, done.stderr) == (3, b"out\n", "err\n")


def test_the_caller_is_told_while_it_runs(tmp_path: Path) -> None:
    code = "import os, time\nwhile not os.path.exists('told'): time.sleep(0.01)"
    done = run(
        [sys.executable, "-I", "-c", code],
        environment={"PATH": "/usr/bin:/bin"},
        directory=tmp_path,
        limits=LIMITS,
        deadline=60,
        running=(tmp_path / "told").touch,
    )
    assert (done.code, done.timed_out) == (0, False)


def test_it_is_killed_if_the_caller_cannot_go_on(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def fail() -> None:
        ends = time.monotonic() + 60
        while not pid_file.exists() and time.monotonic() < ends:
            time.sleep(0.01)
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        run(
            [
                sys.executable,
                "-I",
                "-c",
                "import os, time; open('p', 'w').write(str(os.getpid())); os.rename('p', 'pid'); time.sleep(600)",
            ],
            environment={"PATH": "/usr/bin:/bin"},
            directory=tmp_path,
            limits=LIMITS,
            deadline=60,
            running=fail,
        )
    assert not _alive(int(pid_file.read_text()))


def test_past_the_deadline_it_is_killed_even_if_it_ignores_signals(tmp_path: Path) -> None:
    code = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (15, 2, 1)]; time.sleep(60)"
    done = python(code, tmp_path, deadline=0.5)
    assert done.timed_out
    assert done.code == -9


def test_its_children_die_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    python(
        f"import os, time; p = os.fork(); open({str(pid_file)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(60)",
        tmp_path,
        deadline=0.8,
    )
    pids = [int(pid) for pid in pid_file.read_text().split()]
    assert len(pids) == 2
    for _ in range(50):
        if not any(_alive(pid) for pid in pids):
            break
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


@pytest.mark.skipif(
    not network_flags(), reason="platform: a child keeps its network here; run as root or allow user namespaces"
)
def test_a_daemon_that_left_its_session_dies_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  "
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\n  time.sleep(60)\n "
        "os._exit(0)\ntime.sleep(0.7)"
    )
    assert python(code, tmp_path).code == 0
    assert not _alive(int(pid_file.read_text()))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_without_end_is_cut(tmp_path: Path) -> None:
    done = python("import sys\nwhile True: sys.stdout.write('x' * 65536)", tmp_path)
    assert done.overflowed or done.code != 0
    assert done.output == b"" or len(done.output) <= LIMITS.report


def test_a_file_larger_than_allowed_cannot_be_written(tmp_path: Path) -> None:
    done = python("f = open('big', 'wb')\nwhile True: f.write(b'x' * 65536)", tmp_path)
    assert done.code != 0
    assert (tmp_path / "big").stat().st_size <= LIMITS.engine_file_size


def test_it_sees_none_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKWARDEN_SECRET_KEY", "not for others")
    done = python("import os; print(sorted(os.environ))", tmp_path)
    assert (
        done.output.decode().strip() == str(["HOME", "LC_CTYPE", "PATH", "TMPDIR"]) or b"DOCKWARDEN" not in done.output
    )


@pytest.mark.skipif(
    not network_flags(), reason="platform: a child keeps its network here; run as root or allow user namespaces"
)
def test_it_has_no_network(tmp_path: Path) -> None:
    done = python(
        "import socket; print([n for _, n in socket.if_nameindex()])\nsocket.create_connection(('127.0.0.1', 9), 2)",
        tmp_path,
    )
    assert done.code != 0
    assert b"eth0" not in done.output
    assert done.isolation == "no-network,rlimits"


def test_being_cancelled(tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        environment={},
        directory=tmp_path,
        limits=LIMITS,
        deadline=30,
        cancelled=lambda: True,
    )
    assert done.cancelled
    assert done.seconds < 10
