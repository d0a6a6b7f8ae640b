"""What a command imports: libraries that take as long to load as a scan takes are loaded where they are used."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from scanner import __version__
from scanner.advisories import database
from scanner.config import Settings
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

# What examines an image, and the models of what a scan of a directory has none of.
KNOWN_RESULT_NEEDS_NOT = {
    "msgpack",
    "pydantic",
    "re2",
    "ruamel",
    "scanner.advisories.bolt",
    "scanner.checks.base",
    "scanner.engines._process",
    "scanner.model.posture",
    "scanner.model.workload",
    "scanner.registry.layers",
    "scanner.scanning.system",
    "scanner.trust.base",
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


def test_a_scan_of_a_known_image_imports_no_check(tmp_path: Path) -> None:
    samples.build_layout(samples.SAMPLES[1], tmp_path / "image")
    home = tmp_path / "home"
    database.import_file(Settings(home=home), samples.build_advisories(tmp_path / "advisories"))
    command = ("scan", f"oci:{tmp_path}/image", "--format", "json")
    assert "scanner.checks.base" in imported(home, *command)
    again = imported(home, *command)
    assert "scanner.policy.evaluate" in again
    assert again & (HEAVY | KNOWN_RESULT_NEEDS_NOT) == set()


def test_the_version_imports_no_scanner(tmp_path: Path) -> None:
    found = imported(tmp_path, "--version")
    assert found & (HEAVY | {"pydantic", "orjson", "ruamel", "scanner.catalog", "scanner.scanning"}) == set()


def test_the_version_alone_needs_no_command_line() -> None:
    shown = subprocess.run([sys.executable, "-X", "importtime", "-m", "scanner", "--version"], capture_output=True)
    assert shown.returncode == 0
    assert shown.stdout == f"dockwarden, version {__version__}\n".encode()
    assert b"click" not in shown.stderr


def test_a_version_that_nobody_could_read_is_no_success() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "scanner", "--version"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


def test_a_command_searches_for_cycles_after_its_start(tmp_path: Path) -> None:
    """A server that never did would grow."""
    program = (
        "import gc, sys\n"
        "from scanner import __main__, cli\n"
        "@cli.cli.command()\n"
        "def probe():\n"
        "    print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
        "sys.argv = ['dockwarden', 'probe']\n"
        "__main__.main()\n"
    )
    env = {"PATH": "/usr/bin:/bin", "DOCKWARDEN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout == "True True\n"
    assert done.returncode == 0


def test_ctrl_c_while_the_command_line_is_loaded_shows_no_traceback(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from scanner import __main__\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'scanner.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.argv = ['dockwarden', 'checks']\n"
        "__main__.main()\n"
    )
    env = {"PATH": "/usr/bin:/bin", "DOCKWARDEN_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
