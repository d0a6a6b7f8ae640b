"""A store as a large site has it: thousands of images over some tens of bases, some hundred findings each.

    python -m benchmarks.fleet sqlite:////tmp/fleet.db --images 10000

Bases and applications are shared as images share them: every image is one base (40 there are) and one application
(300). The rows are those that recording scans would have left, written in bulk; evidence is stored once for each
pair of base and application.
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import orjson
import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from benchmarks import databases
from scanner.model.finding import AdvisoryStatus, Component, Coverage, EngineReport, Severity, Vulnerability
from scanner.model.image import Image, ImageConfig, Layer, PathSize
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.scan import ImageReport, ScanReport
from scanner.store import schema
from scanner.store.session import Database

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "registry.example.com"
PROJECTS = ("default", "shop", "payments", "data")
_BASES, _APPS, _BASE_FINDINGS, _APP_FINDINGS = 40, 300, 180, 280
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CHUNK = 20_000
_HARM = "CVE-2026-1234 (critical) in openssl 1.2, fixed in 9.9"

# Number of files, the largest paths and the bytes that a later layer replaces, of the base and of the application.
_CONTENTS = (
    (
        5210,
        (
            PathSize("usr", 104_000_000, 4800, True),
            PathSize("usr/lib", 71_000_000, 2600, True),
            PathSize("usr/lib/x86_64-linux-gnu", 52_000_000, 900, True),
            PathSize("usr/share", 21_000_000, 1900, True),
            PathSize("var", 9_000_000, 310, True),
            PathSize("var/cache", 6_500_000, 120, True),
            PathSize("usr/lib/x86_64-linux-gnu/libcrypto.so.3", 4_700_000),
            PathSize("etc", 1_200_000, 90, True),
        ),
        6_500_000,
    ),
    (
        8034,
        (
            PathSize("app", 118_000_000, 8030, True),
            PathSize("app/vendor", 97_000_000, 7800, True),
            PathSize("app/vendor/model.bin", 61_000_000),
            PathSize("app/main.py", 400_000),
        ),
        0,
    ),
)


@dataclass(frozen=True)
class Fleet:
    """What was generated, for a benchmark to ask for."""

    images: int
    findings: int
    digest: str  # of some image
    other: str  # another of the same repository
    vulnerability: str  # of many images


def fill(database: Database, images: int, seed: int = 7) -> Fleet:
    """Fill an empty database. The same numbers give the same fleet."""
    dice = random.Random(seed)
    sets = [_findings(f"base{n}", _BASE_FINDINGS, dice) for n in range(_BASES)]
    sets += [_findings(f"app{n}", _APP_FINDINGS, dice) for n in range(_APPS)]
    with database.session() as session:
        ids = _shared(session, sets)
        # Ten images in turn are of one repository: the same base, and one of two states of its application.
        kinds = [
            (dice.randrange(_BASES), dice.randrange(_APPS), dice.randrange(_APPS)) for _ in range(images // 10 + 1)
        ]
        pairs = [(kinds[n // 10][0], _BASES + kinds[n // 10][1 + (n % 10 > 6)]) for n in range(images)]
        reports = {pair: _report(session, sets, pair) for pair in sorted(set(pairs))}
        _images(session, pairs, reports, sets, ids, dice)
        _write(session, schema.trend, _days(images))
        session.execute(sa.text("ANALYZE"))
    found = describe(database)
    assert found is not None
    return found


def describe(database: Database) -> Fleet | None:
    """What a filled database holds; None for an empty one."""
    with database.read() as session:
        images = session.execute(sa.select(sa.func.count()).select_from(schema.image)).scalar_one()
        if not images:
            return None
        findings = session.execute(sa.select(sa.func.count()).select_from(schema.finding)).scalar_one()
        first = sa.select(schema.finding.c.vulnerability_id).where(schema.finding.c.image_id == 1).limit(1)
        name = sa.select(schema.vulnerability.c.name).where(schema.vulnerability.c.id == first.scalar_subquery())
        return Fleet(images, findings, _digest(0), _digest(1), session.execute(name).scalar_one())


def _findings(name: str, count: int, dice: random.Random) -> list[Vulnerability]:
    severities = dice.choices(list(Severity)[1:], weights=(30, 42, 20, 6, 2), k=count)
    found = []
    for number, severity in enumerate(severities):
        package = f"{name}-lib{number // 3}"
        found.append(
            Vulnerability(
                f"CVE-20{dice.randrange(15, 27)}-{dice.randrange(1000, 99999)}",
                f"pkg:deb/debian/{package}@1.{number // 3}",
                package,
                f"1.{number // 3}",
                ("9.9",) if dice.random() < 0.5 else (),
                severity,
                title=f"A flaw of {package} when it reads input",
                description="An attacker who can reach it makes it misbehave. " * 8,
                url="https://example.com/advisory",
                engines=("trivy",),
                published=NOW - timedelta(days=dice.randrange(1, 900)),
            )
        )
    return found


@dataclass(frozen=True)
class _Ids:
    components: Mapping[str, int]
    vulnerabilities: Mapping[str, int]


def _shared(session: Connection, sets: Iterable[list[Vulnerability]]) -> _Ids:
    every = [v for found in sets for v in found]
    components = {v.purl: v for v in every}
    _write(
        session,
        schema.component,
        (
            {"purl": p, "name": v.package, "version": v.installed_version, "type": "debian"}
            for p, v in components.items()
        ),
    )
    names = {v.id: v for v in every}
    document = {"references": [], "cvss": [], "cwes": [], "aliases": []}
    _write(
        session,
        schema.vulnerability,
        (
            {
                "name": n,
                "severity": v.severity,
                "title": v.title,
                "description": v.description,
                "url": v.url,
                "document": document,
                "published": v.published.timestamp() if v.published else 0.0,
            }
            for n, v in names.items()
        ),
    )
    return _Ids(
        {row.purl: row.id for row in session.execute(sa.select(schema.component.c.purl, schema.component.c.id))},
        {
            row.name: row.id
            for row in session.execute(sa.select(schema.vulnerability.c.name, schema.vulnerability.c.id))
        },
    )


def _digest(number: int) -> Digest:
    return Digest.of(f"image {number}".encode())


def _repository(number: int) -> str:
    return f"{HOST}/{_project(number)}/service-{number // 10:04}"


def _project(number: int) -> str:
    return PROJECTS[number // 10 % len(PROJECTS)]


def _report(session: Connection, sets: list[list[Vulnerability]], pair: tuple[int, int]) -> str:
    digest = Digest.of(repr(pair).encode())
    layers = tuple(
        Layer(
            i,
            Digest.of(f"blob {part}".encode()),
            Digest.of(f"layer {part}".encode()),
            _LAYER,
            40_000_000,
            120_000_000,
            instruction,
            *_CONTENTS[i],
        )
        for i, (part, instruction) in enumerate(
            zip(pair, ("ADD rootfs.tar /", "RUN pip install -r requirements.txt"), strict=True)
        )
    )
    config = ImageConfig(
        digest,
        Platform("linux", "amd64"),
        tuple(layer.diff_id for layer in layers),
        created=NOW,
        user="10001",
        entrypoint=("/usr/bin/python3", "-m", "service"),
        cmd=("--port", "8080"),
        working_dir="/app",
    )
    found = tuple(replace(v, layer=layers[i].diff_id) for i, part in enumerate(pair) for v in sets[part])
    components = tuple(
        {v.purl: Component(v.purl, v.package, v.installed_version, "debian", layer=v.layer) for v in found}.values()
    )
    status = AdvisoryStatus("trivy-db", "2", NOW, NOW, None, Digest.of(b"advisories"))
    answer = EngineReport(
        "trivy", "0.76.0", None, status, Coverage("debian", "12", True, len(components)), components, found
    )
    manifest = Descriptor(_MANIFEST, digest, 700)
    report = ScanReport(
        f"{HOST}/x:1",
        f"{HOST}/x",
        "1",
        manifest,
        (ImageReport(Image(manifest, config, layers), (answer,)),),
        NOW,
        NOW,
        "0.1.0",
    )
    row = {
        "id": digest.hex,
        "digest": digest,
        "repository": f"{HOST}/x",
        "tag": "1",
        "engine": "trivy",
        "engine_version": "0.76.0",
        "advisories": status.id,
        "platform": "linux/amd64",
        "complete": True,
        "created_at": NOW,
        "body": zlib.compress(_REPORTS.dump_json(report), 1),
    }
    session.execute(schema.report.insert().values(**row))
    return digest.hex


_REPORTS = TypeAdapter(ScanReport)


def _images(
    session: Connection,
    pairs: list[tuple[int, int]],
    reports: Mapping[tuple[int, int], str],
    sets: list[list[Vulnerability]],
    ids: _Ids,
    dice: random.Random,
) -> None:
    """Rows of every image."""
    links = [
        sorted({(ids.components[v.purl], ids.vulnerabilities[v.id]): bool(v.fixed_versions) for v in found}.items())
        for found in sets
    ]
    verdicts = dice.choices(
        (("allow", False), ("warn", False), ("deny", False), ("deny", True)), (50, 25, 20, 5), k=len(pairs)
    )
    moments = [NOW - timedelta(seconds=dice.randrange(86400 * 30)) for _ in pairs]
    made = [_Made(n, pair, reports[pair], *verdicts[n], moments[n]) for n, pair in enumerate(pairs)]
    _write(session, schema.image, (one.image() for one in made))
    _write(session, schema.image_stack, (one.stack() for one in made))
    _write(session, schema.listing, (one.listing(sets) for one in made))
    _write(session, schema.decision, (one.decision() for one in made))
    _write(session, schema.verdict, (row for one in made for row in one.verdicts()))
    _write(session, schema.scan, (one.scan() for one in made))
    rows = (
        {
            "image_id": one.number + 1,
            "component_id": c,
            "vulnerability_id": v,
            "fixable": fixable,
            "fixed": "9.9" * fixable,
        }
        for one in made
        for (c, v), fixable in dict((*links[one.pair[0]], *links[one.pair[1]])).items()
    )
    _write(session, schema.finding, rows)
    fresh = (
        {
            "repository": _repository(n),
            "component_id": c,
            "vulnerability_id": v,
            "at": NOW - timedelta(hours=dice.randrange(2000)),
        }
        for n in range(0, len(pairs), 10)
        for (c, v), _ in links[pairs[n][1]]
    )
    _write(session, schema.first_seen, fresh)


@dataclass(frozen=True)
class _Made:
    number: int
    pair: tuple[int, int]
    report_id: str
    verdict: str
    undecided: bool
    at: datetime

    @property
    def key(self) -> dict[str, Any]:
        return {"digest": _digest(self.number), "repository": _repository(self.number)}

    @property
    def project(self) -> str:
        return _project(self.number)

    def image(self) -> dict[str, Any]:
        return {
            "id": self.number + 1,
            "digest": _digest(self.number),
            "config_digest": _digest(-self.number - 1),
            "platform": "linux/amd64",
            "size": 80_000_000,
            "created_at": self.at,
            "first_seen": self.at,
        }

    def stack(self) -> dict[str, Any]:
        key = {"subject": _digest(self.number), "digest": _digest(self.number)}
        return {**key, "chain": repr(self.pair), "layers": 2, "history": 2, "created_at": self.at}

    def listing(self, sets: list[list[Vulnerability]]) -> dict[str, Any]:
        found = [v for part in self.pair for v in sets[part]]
        counts = {s.value: sum(v.severity is s for v in found) for s in list(Severity)[1:]}
        return {
            **self.key,
            **counts,
            "project": self.project,
            "tag": f"1.{self.number % 10}",
            "report_id": self.report_id,
            "verdict": self.verdict,
            "undecided": self.undecided,
            "base": f"docker.io/library/base{self.pair[0]}:12",
            "fixable": sum(v.fixable for v in found),
            "failed_checks": self.number % 7,
            "incomplete": int(self.undecided),
            "size": 80_000_000,
            "scanned_at": self.at,
            "scanned_epoch": self.at.timestamp(),
        }

    @property
    def document(self) -> str:
        action = {"allow": "", "warn": "warn", "deny": "deny"}[self.verdict]
        kind, message = (
            ("incomplete", "trivy: the engine found no package to look up") if self.undecided else ("violation", _HARM)
        )
        reason = {
            "rule": "fixable-criticals",
            "kind": kind,
            "action": action,
            "message": message,
            "subject": "CVE-2026-1234",
            "evidence": [],
            "remedy": "upgrade openssl to 9.9",
            "count": 1,
            "exemption": "",
            "slug": "",
        }
        change = {"action": "upgrade", "target": "openssl", "detail": "to 9.9", "resolves": ["CVE-2026-1234"]}
        decided = {
            "verdict": self.verdict,
            "undecided": self.undecided,
            "reasons": [reason] if action else [],
            "changes": [change] if action else [],
            "policy": "default",
            "policy_version": 0,
            "decided_at": self.at.isoformat(),
        }
        return orjson.dumps(decided).decode()

    def decision(self) -> dict[str, Any]:
        return {
            **self.key,
            "id": self.number + 1,
            "policy": "default",
            "policy_version": 0,
            "environment": "",
            "verdict": self.verdict,
            "undecided": self.undecided,
            "evidence": self.report_id,
            "decided_at": self.at,
            "document": self.document,
        }

    def verdicts(self) -> Iterator[dict[str, Any]]:
        for environment in ("", "production"):
            yield {
                **self.key,
                "environment": environment,
                "project": self.project,
                "decision_id": self.number + 1,
                "report_id": self.report_id,
                "document": self.document,
            }

    def scan(self) -> dict[str, Any]:
        return {
            "id": f"{self.number:08x}-0000-4000-8000-000000000000",
            "target": f"{_repository(self.number)}:1.{self.number % 10}",
            "engine": "trivy",
            "lane": "push",
            "force": False,
            "project": self.project,
            "requested_by": "",
            "source": "webhook:distribution",
            "state": "done",
            "stage": "",
            "reason": "",
            "message": "",
            "digest": _digest(self.number),
            "fence": 1,
            "worker": "w",
            "attempt": 1,
            "lost": 0,
            "next_at": self.at.timestamp(),
            "created_epoch": self.at.timestamp(),
            "created_at": self.at,
            "finished_at": self.at,
            "report_id": self.report_id,
        }


def _days(images: int) -> Iterator[dict[str, Any]]:
    for back in range(90):
        for project in PROJECTS:
            denied = images // 16 + (back * images) // 3200
            share = images // len(PROJECTS)
            yield {
                "project": project,
                "day": (NOW - timedelta(days=back)).date(),
                "noted_at": NOW - timedelta(days=back),
                "allow": share - 2 * denied,
                "warn": denied,
                "deny": denied,
                "undecided": denied // 20,
                "critical": denied * 12 + (back % 7) * 40,
                "high": denied * 40 + (back % 5) * 90,
                "medium": denied * 90,
                "low": denied * 60,
                "unknown": denied,
                "fixable": denied * 80,
            }


def _write(session: Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    left = iter(rows)
    while chunk := list(islice(left, _CHUNK)):
        session.execute(table.insert(), chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill an empty database with a generated fleet.")
    parser.add_argument("url", type=databases.url, help="SQLAlchemy URL, e.g. sqlite:////tmp/fleet.db")
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    database = Database(options.url)
    database.upgrade()
    made = fill(database, options.images)
    print(f"{made.images:,} images, {made.findings:,} findings; one of them is {made.digest}")


if __name__ == "__main__":
    main()
