"""Builds a Trivy database (schema 2) from a list of advisories, for samples, tests, and a site's own advisories."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from scanner.advisories import bolt
from scanner.model.finding import Severity

_SEVERITIES = {"unknown": 0, "none": 0, "low": 1, "medium": 2, "high": 3, "critical": 4}
_SOURCES = {
    "alpine": ("alpine", "Alpine Secdb", "https://secdb.alpinelinux.org/"),
    "debian": ("debian", "Debian Security Tracker", "https://salsa.debian.org/security-tracker-team/security-tracker"),
    "ubuntu": ("ubuntu", "Ubuntu CVE Tracker", "https://git.launchpad.net/ubuntu-cve-tracker"),
    "pip::GitHub Security Advisory Pip": (
        "ghsa",
        "GitHub Security Advisory Pip",
        "https://github.com/advisories?query=ecosystem%3Apip",
    ),
    "npm::GitHub Security Advisory Npm": (
        "ghsa",
        "GitHub Security Advisory Npm",
        "https://github.com/advisories?query=ecosystem%3Anpm",
    ),
}
# Trivy, pkg/types/status.go
_WILL_NOT_FIX, _AFFECTED = 5, 2


@dataclass(frozen=True)
class Advisory:
    """One advisory.

    ``bucket``: Trivy's name of the source: "debian 12", "alpine 3.20", "pip::GitHub Security Advisory Pip".

    Operating systems use ``fixed`` (empty: no fix yet). Languages use ``vulnerable`` ranges; ``fixed`` is the
    patched version. ``cvss``: base score and vector, version 3.
    """

    id: str
    bucket: str
    package: str
    severity: Severity
    title: str = ""
    fixed: str = ""
    vulnerable: tuple[str, ...] = ()
    description: str = ""
    cvss: tuple[float, str] | None = None
    will_not_fix: bool = False  # the distribution decided so


def build(advisories: Iterable[Advisory], destination: Path, *, updated_at: datetime | None = None) -> Path:
    """Write ``db/`` and an empty ``java-db/`` below ``destination``. Returns ``destination``."""
    tree: dict[bytes, dict[bytes, bytes | dict[bytes, bytes]]] = {b"vulnerability": {}, b"data-source": {}}
    for advisory in advisories:
        bucket = tree.setdefault(advisory.bucket.encode(), {})
        package = bucket.setdefault(advisory.package.encode(), {})
        assert isinstance(package, dict)
        package[advisory.id.encode()] = orjson.dumps(_entry(advisory))
        tree[b"vulnerability"][advisory.id.encode()] = orjson.dumps(_detail(advisory))
        source = _SOURCES.get(advisory.bucket) or _SOURCES.get(advisory.bucket.partition(" ")[0])
        if source:
            document = dict(zip(("ID", "Name", "URL"), source, strict=True))
            tree[b"data-source"][advisory.bucket.encode()] = orjson.dumps(document)
    (destination / "db").mkdir(parents=True, exist_ok=True)
    bolt.write(tree, destination / "db" / "trivy.db")
    write_metadata(destination / "db", 2, updated_at or datetime.now(UTC))
    empty_java_database(destination / "java-db")
    return destination


def _entry(advisory: Advisory) -> dict[str, object]:
    if advisory.vulnerable:
        return {
            "PatchedVersions": [advisory.fixed] if advisory.fixed else [],
            "VulnerableVersions": list(advisory.vulnerable),
        }
    if advisory.fixed:
        return {"FixedVersion": advisory.fixed}
    status = _WILL_NOT_FIX if advisory.will_not_fix else _AFFECTED
    return {"Status": status, "Severity": _SEVERITIES[advisory.severity]}


def _detail(advisory: Advisory) -> dict[str, object]:
    detail: dict[str, object] = {
        "Title": advisory.title,
        "Description": advisory.description or advisory.title,
        "Severity": str(advisory.severity).upper(),
        "References": [f"https://nvd.nist.gov/vuln/detail/{advisory.id}"],
    }
    if advisory.cvss:
        detail["CVSS"] = {"nvd": {"V3Score": advisory.cvss[0], "V3Vector": advisory.cvss[1]}}
    return detail


def write_metadata(directory: Path, version: int, updated_at: datetime) -> None:
    """Write ``metadata.json`` beside a database: version, build time, time of the next update, time of the download."""
    document = {
        "Version": version,
        "UpdatedAt": updated_at.isoformat(),
        "NextUpdate": (updated_at + timedelta(hours=24)).isoformat(),
        "DownloadedAt": datetime.now(UTC).isoformat(),
    }
    (directory / "metadata.json").write_bytes(orjson.dumps(document))


def empty_java_database(directory: Path) -> None:
    """Create a valid, empty Java index: without one, a single .jar makes Trivy refuse the whole image."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "trivy-java.db"
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(
            "CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT);"
            "CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT, "
            "foreign key (artifact_id) references artifacts(id));"
            "CREATE UNIQUE INDEX artifacts_idx ON artifacts(artifact_id, group_id);"
            "CREATE INDEX indices_artifact_idx ON indices(artifact_id);"
            "CREATE UNIQUE INDEX indices_sha1_idx ON indices(sha1);"
        )
    write_metadata(directory, 1, datetime.now(UTC))
