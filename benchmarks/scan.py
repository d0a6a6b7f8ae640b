"""``dockwarden scan`` with every check against bare ``trivy image --scanners vuln`` on the same gzip OCI layout,
cold and warm.

CPU seconds of whole processes, interleaved in one run; what is printed is the ratio (below 1: cheaper than Trivy
alone). Goals: cold at most 0.9, warm at most 1.2.   python benchmarks/scan.py [OCI_LAYOUT]     without one, a layout
with 60 MB of files is made
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scanner.advisories import database
from scanner.config import Settings
from scanner.demo import samples

ROUNDS = 5
BIN = Path(sys.executable).parent


def cpu(command: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of a whole process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode not in (0, 1, 3):
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_layout(directory: Path) -> Path:
    """A Debian sample with many files of text-like bytes in two more layers."""
    words = [
        hashlib.sha256(str(n).encode()).hexdigest()[: random.Random(n).randint(3, 12)].encode() for n in range(5000)
    ]
    random.seed(1)
    steps = list(samples.SAMPLES[1].steps)
    for number in range(2):
        files = {f"srv/data{number}/f{n}.txt": b" ".join(random.choices(words, k=1500)) for n in range(2500)}
        steps.append(samples.Step(f"COPY data{number} /srv/data{number} # buildkit", files))
    samples.build_layout(samples.Sample("bench/app:1", "", tuple(steps), samples.SAMPLES[1].config), directory)
    return directory


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        layout = Path(sys.argv[1]) if len(sys.argv) > 1 else make_layout(base / "layout")
        generation = database.import_file(
            Settings(home=base / "advisories-home"), samples.build_advisories(base / "advisories")
        ).directory
        environment = {"DOCKWARDEN_ADVISORIES": str(generation)}
        figures: dict[str, list[float]] = {"trivy cold": [], "ours cold": [], "trivy warm": [], "ours warm": []}
        for round_ in range(ROUNDS + 1):
            for state in ("cold", "warm"):
                trivy_cache, home = base / "trivy-cache", base / "home"
                if state == "cold":
                    shutil.rmtree(trivy_cache, ignore_errors=True)
                    shutil.rmtree(home, ignore_errors=True)
                    trivy_cache.mkdir()
                    for part in ("db", "java-db"):
                        (trivy_cache / part).symlink_to(generation / part)
                trivy = [
                    str(BIN / "trivy"),
                    "image",
                    "--input",
                    str(layout),
                    "--scanners",
                    "vuln",
                    "--format",
                    "json",
                    "--list-all-pkgs",
                    "--cache-dir",
                    str(trivy_cache),
                    "--skip-db-update",
                    "--skip-java-db-update",
                    "--offline-scan",
                    "--quiet",
                ]
                ours = [str(BIN / "dockwarden"), "scan", f"oci:{layout}", "--format", "json"]
                measured = cpu(trivy, {}), cpu(ours, {**environment, "DOCKWARDEN_HOME": str(home)})
                if round_:  # the first round warms the disk and the byte code
                    figures[f"trivy {state}"].append(measured[0])
                    figures[f"ours {state}"].append(measured[1])
        size = sum(
            len(gzip.decompress(b.read_bytes())) if b.read_bytes()[:2] == b"\x1f\x8b" else 0
            for b in (layout / "blobs/sha256").iterdir()
        )
        print(f"{size / 1e6:.0f} MB uncompressed, median of {ROUNDS}, CPU seconds of whole processes")
        for state in ("cold", "warm"):
            trivy_cpu, ours_cpu = (
                statistics.median(figures[f"trivy {state}"]),
                statistics.median(figures[f"ours {state}"]),
            )
            print(f"{state}: dockwarden scan {ours_cpu:.2f} / trivy image {trivy_cpu:.2f} = {ours_cpu / trivy_cpu:.2f}")


if __name__ == "__main__":
    main()
