"""All benchmarks, one after the other, in one table.

    python -m benchmarks.run [-o bench.md] [--only scan --only gate]

What each prints is one row a line, so goals and ratios stand beside each other; the machine and its load come first. A
benchmark that cannot run here (no nginx, no PostgreSQL, no package index) has its reason in its row. Those whose goal
is for both databases run on SQLite, and again on a throw-away PostgreSQL server.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import databases
from scanner.errors import UsageError

# With options that finish within minutes; each module's own defaults are larger.
BENCHMARKS = {
    "scan": ("--rounds", "3"),
    "layers": ("--rounds", "3"),
    "checks": ("--rounds", "3"),
    "secrets": ("--rounds", "1"),
    "gate": ("--rounds", "3"),
    "admission": ("--rounds", "3"),
    "docker_authz": (),
    "pull_gate": ("--rounds", "5"),
    "inventory": (),
    "rematch": (),
    "pages": ("--images", "2000"),
    "retention": ("--months", "3", "--scans", "100"),
    "webhooks": ("--rounds", "3", "--lost", "2000"),
    "notifications": (),
}
ON_BOTH = ("webhooks", "notifications")
_SECONDS = 3600


def machine() -> str:
    """Describe where the figures come from."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{os.cpu_count()} x {cpu}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, load {os.getloadavg()[0]:.1f}"
    )


def runs(names: Collection[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield what is run: the name of its rows, the benchmark and its options."""
    for name, options in BENCHMARKS.items():
        if name in names:
            yield name, name, options
            if name in ON_BOTH:
                yield f"{name}, PostgreSQL", name, (*options, "--database", databases.POSTGRESQL)


def rows(label: str, name: str, options: tuple[str, ...]) -> Iterator[str]:
    """Run a benchmark and yield a row for each line that it prints."""
    started = time.monotonic()
    try:
        # Here, because a benchmark that is killed for its time could not end its server.
        options = tuple(databases.throw_away() if one == databases.POSTGRESQL else one for one in options)
    except UsageError as error:
        yield f"| {label} | not run: {error}: {error.hint} |"
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield f"| {label} | not finished after {_SECONDS} s |"
        return
    for line in done.stdout.splitlines():
        text = line.strip().strip("|").replace("|", "·").strip()
        if text and set(text) - set("-· "):
            yield f"| {label} | {text} |"
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].replace("|", "·")
        yield f"| {label} | failed ({done.returncode}): {reason} |"
    yield f"| {label} | {time.monotonic() - started:.0f} s in all |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run all benchmarks and write one table.")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench.md"))
    parser.add_argument("--only", action="append", choices=tuple(BENCHMARKS))
    asked = parser.parse_args()
    with asked.output.open("w") as out:
        out.write(f"{machine()}\n\n| benchmark | figures |\n| --- | --- |\n")
        for label, name, options in runs(asked.only or BENCHMARKS):
            for row in rows(label, name, options):
                print(row, flush=True)
                out.write(row + "\n")
                out.flush()


if __name__ == "__main__":
    main()
