"""What a re-match of a fleet costs, per 1,000 images, against re-scanning them with the trivy command line, warm.

    python -m benchmarks.rematch [--images 400] [--database URL]

The fleet is generated, its sharing assumed: 40 bases of Debian packages, one application of Python packages for
every eight images. Some of its images are built as OCI layouts and scanned with ``trivy image`` in the same run,
warm, their layers in its cache. CPU seconds of this process and its children, interleaved. Three cases: new
advisories that concern nobody; those of a usual day, which concern a few packages; one of a package that every image
of four bases has. Goal: at most 5 % of warm rescans; renewing evidence that did change costs what it costs.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import databases
from scanner.advisories import database as advisories
from scanner.advisories import trivydb
from scanner.advisories.trivydb import Advisory
from scanner.config import Secret, Settings
from scanner.demo import samples
from scanner.model.finding import Component, Severity
from scanner.queue import make_app
from scanner.store import jobs
from scanner.store.session import Database
from scanner.worker import maintenance
from scanner.worker.worker import Worker
from tests import fleet

BASES, BASE_PACKAGES, APP_PACKAGES, POOL = 40, 180, 70, 3000
SCANNED, ROUNDS = 6, 3
PIP = "pip::GitHub Security Advisory Pip"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Fleet:
    """Every image's packages, and the advisories that concern them."""

    images: list[list[Component]]
    advisories: list[Advisory]
    rare: list[Component]  # applications' packages, each in a few images
    common: Component  # in four bases


def make(images: int, seed: int = 7) -> Fleet:
    dice = random.Random(seed)
    python = [fleet.python(f"module{n}", f"{1 + n % 5}.0") for n in range(POOL)]
    common = fleet.debian("libeverywhere", "1.0-1")
    bases = [
        [
            *(fleet.debian(f"lib{n}", f"{dice.randint(1, 3)}.0-1") for n in dice.sample(range(400), BASE_PACKAGES)),
            *([common] if number < 4 else []),
        ]
        for number in range(BASES)
    ]
    apps = [dice.sample(python, APP_PACKAGES) for _ in range(max(1, images // 8))]
    made = [[*dice.choice(bases), *dice.choice(apps)] for _ in range(images)]
    kinds = [Severity.LOW, Severity.MEDIUM, Severity.HIGH]
    known = [
        Advisory(f"CVE-2024-{n:03}{k:02}", "debian 12", f"lib{n}", dice.choice(kinds), "made up " * 20)
        for n in range(400)
        for k in range(2)
    ]
    known += [
        Advisory(
            f"CVE-2025-{n:05}", PIP, f"module{n}", Severity.MEDIUM, "made up " * 20, fixed="9.0", vulnerable=("<9.0",)
        )
        for n in range(POOL)
    ]
    return Fleet(made, known, [c for app in apps for c in app], common)


def publish(settings: Settings, base: Path, found: Sequence[Advisory], age: float) -> None:
    trivydb.build((*samples.ADVISORIES, *found), base, updated_at=datetime.now(UTC) - timedelta(hours=age))
    advisories.import_file(settings, base)


def cpu() -> float:
    """Of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def rematch(settings: Settings, database: Database) -> tuple[float, str]:
    worker, before = Worker(settings, database, make_app(settings)), cpu()
    while worker.keep_up_once(maintenance.Upkeep(settings, database)):
        pass
    used = cpu() - before
    with database.read() as session:
        return used, jobs.list_jobs(session, [jobs.REMATCH], limit=1)[0].message


def layout(components: Sequence[Component], directory: Path) -> Path:
    """An image with exactly these packages."""
    debian = {c.name: c.version for c in components if c.type == "debian"}
    files = {
        f"app/{c.name}-{c.version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {c.name}\nVersion: "
        f"{c.version}\n".encode()
        for c in components
        if c.type == "python-pkg"
    }
    steps = (samples.debian(debian), samples.Step("COPY app /app", files))
    samples.build_layout(samples.Sample("bench/x:1", "", steps, samples.SAMPLES[1].config), directory)
    return directory


def scan(image: Path, cache: Path) -> float:
    """``trivy image`` on the layout."""
    command = [
        str(BIN / "trivy"),
        "image",
        "--input",
        str(image),
        "--scanners",
        "vuln",
        "--format",
        "json",
        "--list-all-pkgs",
        "--cache-dir",
        str(cache),
        "--skip-db-update",
        "--skip-java-db-update",
        "--offline-scan",
        "--quiet",
    ]
    before = cpu()
    done = subprocess.run(command, check=True, capture_output=True)
    used = cpu() - before
    packages = sum(len(result.get("Packages", ())) for result in json.loads(done.stdout)["Results"])
    assert packages >= BASE_PACKAGES + APP_PACKAGES, packages
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    databases.add_option(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        settings = Settings(home=base / "home", rematch_per_second=0, secret_key=Secret("k" * 40))
        database = Database(asked.database or f"sqlite:///{base / 'fleet.db'}")
        database.upgrade()
        made = make(asked.images)
        publish(settings, base / "0", made.advisories, 4)
        distinct = {c.purl: c for image in made.images for c in image}
        answers = fleet.look_up(settings, list(distinct.values()), base / "look-up")
        findings = 0
        for number, image in enumerate(made.images):
            found = fleet.evidence(f"shop/app{number}", image, answers, settings)
            findings += len(found.images[0].engines[0].vulnerabilities)
            fleet.record(database, found)
        publish(settings, base / "first", made.advisories, 3.5)
        rematch(settings, database)  # what was scanned since the last re-match is asked for the first time
        print(
            f"{asked.images} images, {len(distinct)} package versions, {findings / asked.images:.0f} findings "
            f"an image, {database.engine.dialect.name}"
        )

        cache = base / "trivy-cache"
        cache.mkdir()
        for part in ("db", "java-db"):
            (cache / part).symlink_to(settings.advisories_dir.absolute() / "current" / part)
        layouts = [layout(image, base / f"image{n}") for n, image in enumerate(made.images[:SCANNED])]
        for place in layouts:
            scan(place, cache)  # into the cache
        rare = [
            Advisory(f"CVE-2026-{n:05}", PIP, c.name, Severity.HIGH, "news", fixed="9", vulnerable=("<9",))
            for n, c in enumerate(made.rare[:3])
        ]
        everywhere = Advisory("CVE-2026-99999", "debian 12", made.common.name, Severity.HIGH, "news", fixed="1.0-2")
        nobody = [
            Advisory(f"CVE-2026-8{n:04}", "debian 12", f"unheard-of-{n}", Severity.HIGH, "news", fixed="9")
            for n in range(300)
        ]
        cases = {
            "concerns nobody": [*made.advisories, *nobody],
            "a usual day (three packages)": [*made.advisories, *nobody, *rare],
            "a package of four bases": [*made.advisories, *nobody, *rare, everywhere],
        }
        for number, (case, known) in enumerate(cases.items(), 1):
            publish(settings, base / str(number), known, 4 - number)
            warm = [statistics.median(scan(place, cache) for place in layouts) for _ in range(ROUNDS)]
            used, said = rematch(settings, database)
            warm.append(statistics.median(scan(place, cache) for place in layouts))
            each = statistics.median(warm)
            print(f"{case}: {said}")
            print(
                f"  per 1,000 images {used / asked.images * 1000:.1f} CPU s / {each * 1000:.0f} with trivy "
                f"image, warm ({each:.3f} each)"
                f" = {used / asked.images / each * 100:.1f} %"
            )


if __name__ == "__main__":
    main()
