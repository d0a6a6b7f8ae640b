"""A real Clair v4 for tests: its own database in the tests' PostgreSQL, updaters off, vulnerabilities from a file
that a test writes.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scanner.config import Secret, Settings
from tests.databases import cluster
from tests.servers import end, free_port, listening, spawn, wait_for

ROOT = Path(__file__).parents[1]
DEBIAN_12 = {
    "did": "debian",
    "name": "Debian GNU/Linux",
    "version": "12 (bookworm)",
    "version_code_name": "bookworm",
    "version_id": "12",
    "pretty_name": "Debian GNU/Linux 12 (bookworm)",
}
CVSS_ENRICHER = "clair.cvss"


def advisory(name: str, package: str, severity: str, fixed: str = "", **more: Any) -> dict[str, Any]:
    """A vulnerability of a Debian source package as Clair's own updater writes it (claircore's ``Vulnerability``)."""
    return {
        "id": "",
        "updater": "debian/updater",
        "name": name,
        "description": f"{package}: made up",
        "issued": "2026-11-01T00:00:00Z",
        "links": f"https://security-tracker.debian.org/tracker/{name}",
        "severity": severity.lower(),
        "normalized_severity": severity,
        "package": {"id": "", "name": package, "version": "", "kind": "source", "normalized_version": "", "cpe": ""},
        "distribution": {"id": "", "arch": "", "cpe": "", **DEBIAN_12},
        "fixed_in_version": fixed,
        **more,
    }


def cvss(name: str, score: float, vector: str) -> dict[str, Any]:
    """An enrichment as Clair's CVSS enricher keeps it: NVD's API 2.0."""
    metric = {
        "source": "nvd@nist.gov",
        "type": "Primary",
        "cvssData": {"version": "3.1", "vectorString": vector, "baseScore": score},
    }
    return {"Tags": [name], "Enrichment": {"id": name, "cvssMetricV31": [metric]}}


@dataclass
class Clair:
    """A running Clair (``combo`` mode). ``webhook`` is where its notifier reports."""

    directory: Path
    webhook: str = ""
    port: int = 0
    key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode(), repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def settings(self, **more: Any) -> Settings:
        return Settings(clair_url=self.url, clair_psk=Secret(self.key), **more)

    def start(self) -> Clair:
        self._programs = built()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, health = self.port or free_port(), free_port()
        name = "clair" + uuid.uuid4().hex
        url = cluster().create(name)
        connection = f"host={cluster().home} user={url.partition('//')[2].partition('@')[0]} dbname={name}"
        mapping = self.directory / "mapping.json"
        mapping.write_text('{"data": {}}')
        database = {"connstring": connection, "migrations": True}
        webhook = {
            "target": self.webhook,
            "callback": f"{self.url}/notifier/api/v1/notification/",
        }
        configuration = {
            "http_listen_addr": f"127.0.0.1:{self.port}",
            "introspection_addr": f"127.0.0.1:{health}",
            "log_level": "debug",
            "indexer": {
                **database,
                "airgap": True,
                "layer_scan_concurrency": 2,
                "scanner": {
                    "repo": {"rhel-repository-scanner": {"repo2cpe_mapping_file": str(mapping)}},
                    "package": {"rhel_containerscanner": {"name2repos_mapping_file": str(mapping)}},
                },
            },
            "matcher": {**database, "disable_updaters": True, "period": "1h"},
            "notifier": {
                **database,
                "poll_interval": "1m",
                "delivery_interval": "1m",
                **({"webhook": webhook} if self.webhook else {}),
            },
            "auth": {"psk": {"key": self.key, "iss": ["dockwarden"]}},
        }
        (self.directory / "config.json").write_text(json.dumps(configuration))
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "TMPDIR": str(self.directory)}
        command = [str(self._programs / "clair"), "-conf", str(self.directory / "config.json"), "-mode", "combo"]
        self._process = spawn(command, self.directory / "log", environment)
        wait_for(lambda: listening(self.port), "clair", self.directory / "log", 60)
        return self

    def stop(self) -> None:
        end(self._process)

    def load(self, vulnerabilities: Iterable[Mapping[str, Any]], enrichments: Sequence[Mapping[str, Any]] = ()) -> None:
        """Import a file as an air-gapped site does, with ``clairctl import-updaters``: it replaces what the updater
        said before.
        """
        file = self.directory / "updates.json"
        lines = [*_entries("debian/updater", "vulnerability", "Vuln", list(vulnerabilities))]
        lines += _entries(CVSS_ENRICHER, "enrichment", "Enrichment", list(enrichments))
        file.write_text("\n".join(map(json.dumps, lines)) + "\n")
        command = [str(self._programs / "clairctl"), "--config", str(self.directory / "config.json"), "import-updaters"]
        done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def _entries(updater: str, kind: str, member: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """claircore's ``jsonblob``: a line for each vulnerability, those of one update with one ``Ref``."""
    head = {
        "Updater": updater,
        "Fingerprint": uuid.uuid4().hex,
        "Date": "2026-11-01T00:00:00Z",
        "Ref": str(uuid.uuid4()),
        "Kind": kind,
    }
    return [{**head, member: dict(item)} for item in items]


def built() -> Path:
    """Where ``make test`` has built Clair. Skips with how to get it; where Go is not installed that is no fault."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pinned = next(
        line.partition("=")[2].strip()
        for line in (ROOT / ".ci" / "build-clair").read_text().splitlines()
        if line.startswith("version=")
    )
    found = cache / "dockwarden" / f"clair-{pinned}"
    if not (found / "clair").exists() or not (found / "clairctl").exists():
        pytest.skip("platform: no Clair was built; install Go 1.24 or newer and run .ci/build-clair")
    return found
