"""What a command imports: libraries that take as long to load as a scan takes are loaded where they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scanner.demo import samples

PROGRAM = """
import sys
from scanner import cli
try:
    cli.main({arguments!r})
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""
# HTTP, terminals, certificates, YAML of workloads, CEL, the engine that was not chosen, the database.
HEAVY = {
    "httpx",
    "rich",
    "cryptography",
    "asn1crypto",
    "yaml",
    "cel_expr_python",
    "joserfc",
    "packageurl",
    "zstandard",
    "sqlalchemy",
    "celery",
    "flask",
    "docker",
    "sigstore",
    "univers",
    "jinja2",
    "requests",
    "scanner.engines.clair",
    "scanner.notify.base",
    "scanner.registry.client",
    "scanner.trust.cosign",
    "scanner.services",
    "scanner.workloads.base",
    "scanner.reports.sarif",
    "scanner.reports.table",
}


def imported(home: Path, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={"PATH": "/usr/bin:/bin", "DOCKWARDEN_HOME": str(home)},
    )
    return set(done.stderr.splitlines()[-1].split())


def test_a_scan_of_a_directory_imports_what_it_uses(tmp_path: Path) -> None:
    samples.build_layout(samples.SAMPLES[0], tmp_path / "image")
    found = imported(tmp_path / "home", "scan", f"oci:{tmp_path}/image", "--format", "json")
    assert "scanner.policy.evaluate" in found, "the scan was done"
    assert found & (HEAVY | {"pydantic"}) == {"pydantic"}, "the built-in policy is parsed once an installation"
    again = imported(tmp_path / "home", "scan", f"oci:{tmp_path}/image", "--format", "json")
    assert "scanner.policy.evaluate" in again
    assert again & (HEAVY | {"pydantic", "ruamel"}) == set()


def test_the_version_imports_no_scanner(tmp_path: Path) -> None:
    found = imported(tmp_path, "--version")
    assert found & (HEAVY | {"pydantic", "orjson", "ruamel", "scanner.catalog", "scanner.scanning"}) == set()
