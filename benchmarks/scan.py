"""``dockwarden scan`` with every check against Trivy on the same gzip OCI layouts, and how fast programs start.

    python -m benchmarks.scan [--rounds 3] [--image base|python|node] [--layout DIRECTORY] [--advisories DIRECTORY]

The images are those of ``benchmarks.images``. Two peers run in turn with us: ``trivy --scanners vuln``, which does a
part of our work, and Trivy with ``vuln,secret,misconfig`` and its checks of the image's configuration, which does most
of it. Medians of user plus system seconds of whole processes, of their wall clock and of their peak memory; only ratios
of one run mean anything, and on a busy machine the wall clock means little.

Three states: ``first``, the first scan of a new installation, which also compiles the patterns of secrets and reads
policy and checks; ``cold``, an image of which an installation that has scanned another image knows nothing; ``warm``,
the same image again.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import scanner
from benchmarks.images import BuiltImage, images
from scanner.advisories import database
from scanner.config import Settings
from scanner.demo import samples

BIN = Path(sys.executable).parent
OURS, BARE, SAME = "dockwarden scan", "trivy (vuln)", "trivy (same work)"
# image, state, peer, what is measured: the largest ratio of ours to the peer's
GOALS = {
    **{(image, "cold", BARE, what): 1.0 for image in ("python", "node") for what in ("cpu", "wall")},
    **{(image, "cold", SAME, "cpu"): 0.2 for image in ("python", "node")},
    **{(image, "warm", BARE, "cpu"): 1.2 for image in ("base", "python", "node")},
    **{(image, "cold", BARE, "rss"): 1.2 for image in ("base", "python", "node")},
    ("start", "dockwarden --version", "trivy --version", "cpu"): 0.7,
    ("start", "imports of scan", "trivy --version", "cpu"): 1.5,
}
# An installed program has its modules compiled. Without this variable, the first round compiles those of a checkout.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_UNITS = {"cpu": "CPU s", "wall": "wall s", "rss": "peak MB"}


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    cpu: float
    wall: float
    rss: float


@dataclass(frozen=True)
class Row:
    """One line of the table: our figure, the peer's, and the largest ratio that is wanted (None: none is set)."""

    image: str
    state: str
    peer: str
    what: str
    ours: float
    theirs: float

    @property
    def goal(self) -> float | None:
        return GOALS.get((self.image.partition(" ")[0], self.state, self.peer, self.what))

    def __str__(self) -> str:
        ratio, goal = self.ours / self.theirs, self.goal
        met = "" if goal is None else f"at most {goal:g}: {'met' if ratio <= goal else 'MISSED'}"
        return (
            f"| {self.image} | {self.state} | {_UNITS[self.what]} | {self.ours:.2f} | {self.theirs:.2f} | {self.peer} "
            f"| {ratio:.2f} | {met} |"
        )


HEAD = """\
| image | state | unit | ours | peer's | peer | ratio | goal |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def run(command: Sequence[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end. Exits if it failed: a failed scan is fast."""
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        child = subprocess.Popen(command, env=_ENVIRONMENT | environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in (0, 1, 3):
            errors.seek(0)
            sys.exit(f"{command}: {errors.read().decode()}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def trivy(layout: Path, cache: Path, scanners: str) -> list[str]:
    more = ["--image-config-scanners", "misconfig,secret"] if "misconfig" in scanners else []
    return [
        *(str(BIN / "trivy"), "image", "--input", str(layout), "--scanners", scanners, *more),
        *("--format", "json", "--list-all-pkgs", "--cache-dir", str(cache), "--skip-db-update"),
        *("--skip-java-db-update", "--skip-check-update", "--offline-scan", "--quiet"),
    ]


def scans(image: BuiltImage, generation: Path, rounds: int, work: Path) -> Iterator[Row]:
    """Yield the rows of an image. Each round: all cold, then all warm; the first only warms the disk."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    new, home, caches = work / "new", work / "home", {BARE: work / "trivy", SAME: work / "trivy-same"}
    used = _used_installation(work, generation)

    def ours(layout: Path, home: Path) -> Cost:
        return run(
            [str(BIN / "dockwarden"), "scan", f"oci:{layout}", "--format", "json"],
            {"DOCKWARDEN_ADVISORIES": str(generation), "DOCKWARDEN_HOME": str(home)},
        )

    for round_ in range(rounds + 1):
        for state in ("cold", "warm"):
            found: dict[tuple[str, str], Cost] = {}
            if state == "cold":
                for path in (new, home, *caches.values()):
                    shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(used, home, symlinks=True)
                for cache in caches.values():
                    cache.mkdir(parents=True)
                    for part in ("db", "java-db"):
                        (cache / part).symlink_to(generation / part)
                found["first", OURS] = ours(image.layout, new)
            found[state, OURS] = ours(image.layout, home)
            found[state, BARE] = run(trivy(image.layout, caches[BARE], "vuln"), {})
            found[state, SAME] = run(trivy(image.layout, caches[SAME], "vuln,secret,misconfig"), {})
            if round_:
                for key, cost in found.items():
                    costs.setdefault(key, []).append(cost)
    costs["first", BARE], costs["first", SAME] = costs["cold", BARE], costs["cold", SAME]
    for state in ("first", "cold", "warm"):
        for peer in (BARE, SAME):
            for what in _UNITS:
                ours, theirs = (
                    statistics.median(getattr(cost, what) for cost in costs[state, name]) for name in (OURS, peer)
                )
                yield Row(image.name, state, peer, what, ours, theirs)


def _used_installation(work: Path, generation: Path) -> Path:
    """Return the state directory of an installation that has scanned one small image."""
    home = work / "used"
    if not home.is_dir():
        samples.build_layout(samples.SAMPLES[0], work / "small")
        environment = {"DOCKWARDEN_ADVISORIES": str(generation), "DOCKWARDEN_HOME": str(home)}
        run([str(BIN / "dockwarden"), "scan", f"oci:{work / 'small'}", "--format", "json"], environment)
    return home


def starts(rounds: int) -> Iterator[Row]:
    """Yield the rows of programs that only start."""
    commands = {
        "trivy --version": [str(BIN / "trivy"), "--version", "--cache-dir", "/nonexistent"],
        "dockwarden --version": [str(BIN / "dockwarden"), "--version"],
        "imports of scan": [str(BIN / "dockwarden"), "scan", "oci:/nonexistent/layout"],
    }
    cost: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as home:
        for round_ in range(3 * rounds + 1):
            for name, command in commands.items():
                spent = subprocess_cpu(command, {"DOCKWARDEN_HOME": home})
                if round_:
                    cost[name].append(spent)
    median = {name: statistics.median(values) for name, values in cost.items()}
    for name in ("dockwarden --version", "imports of scan"):
        yield Row("start", name, "trivy --version", "cpu", median[name], median["trivy --version"])


def subprocess_cpu(command: Sequence[str], environment: dict[str, str]) -> float:
    """CPU seconds of a command that may fail."""
    child = subprocess.Popen(
        command, env=_ENVIRONMENT | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare dockwarden scan with Trivy.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", action="append", choices=("base", "python", "node", "none"))
    parser.add_argument("--layout", type=Path, help="an OCI layout of your own")
    parser.add_argument("--advisories", type=Path, help="an advisory database; default: the samples'")
    asked = parser.parse_args()
    # As in an installed package: otherwise a changed module would be compiled by every run.
    compileall.compile_dir(Path(scanner.__file__).parent, quiet=1)
    print(HEAD, flush=True)
    for row in starts(asked.rounds):
        print(row, flush=True)
    if asked.layout:
        chosen: Sequence[BuiltImage] = [BuiltImage(asked.layout.name, asked.layout, 0)]
    else:
        chosen = [i for i in images() if not asked.image or i.name.partition(" ")[0] in asked.image]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = asked.advisories or samples.build_advisories(work / "advisories")
        generation = database.import_file(Settings(home=work / "advisories-home"), source).directory
        for image in chosen:
            for row in scans(image, generation, asked.rounds, work):
                print(row, flush=True)
    print(f"\nmedian of {asked.rounds}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
