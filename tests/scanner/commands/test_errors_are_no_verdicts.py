"""An error of ours, of the disk or of the terminal is one line with an exit code of its own: 1 says "denied" and
nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.config import Settings
from tests.test_end_to_end import dockwarden

DENIED = "shop/vulnerable"


def shell(settings: Settings, line: str) -> subprocess.CompletedProcess[str]:
    """``line`` as a person types it, where ``dw`` is the command line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOCKWARDEN_")}
    variables = {**clean, "DOCKWARDEN_HOME": str(settings.home)}
    script = f'set -o pipefail\ndw() {{ "{sys.executable}" -m scanner.cli "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=120, env=variables, check=False
    )


@pytest.mark.parametrize("command", ["scan oci:{layout}", "scan oci:{layout} --format json", "checks", "user list"])
def test_a_full_disk_under_standard_output(settings: Settings, sample_layouts: Path, command: str) -> None:
    line = command.format(layout=sample_layouts / DENIED)
    made = shell(settings, "dw user add ada < /dev/null") if command == "user list" else None
    done = shell(settings, f"dw {line} > /dev/full")
    if made is None:
        assert done.returncode == 3, done.stderr
        assert "No space left on device" in done.stderr
    assert done.returncode != 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_full_disk_under_the_log_changes_no_verdict(settings: Settings, sample_layouts: Path) -> None:
    assert shell(settings, f"dw scan oci:{sample_layouts / DENIED} 2> /dev/full").returncode == 1
    assert shell(settings, f"dw scan oci:{sample_layouts / 'shop/good'} 2> /dev/full").returncode == 0


@pytest.mark.parametrize("rest", ["| head -1", "| true", ">&-", "2>&-", "> /dev/null"])
def test_a_reader_that_leaves_early_changes_no_verdict(settings: Settings, sample_layouts: Path, rest: str) -> None:
    """``scan | head`` once exited with 0 for an image that is denied."""
    done = shell(settings, f"dw scan oci:{sample_layouts / DENIED} {rest}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("output", "code"),
    [("/dev/full", 3), ("/nowhere/report", 2), ("/proc/report", 2), ("{tmp}", 2), ("{tmp}/file/report", 2), ("", 2)],
)
@pytest.mark.parametrize("form", ["table", "json", "sarif"])
def test_a_report_for_a_bad_place(
    settings: Settings, sample_layouts: Path, tmp_path: Path, output: str, code: int, form: str
) -> None:
    (tmp_path / "file").touch()
    target = f"oci:{sample_layouts / DENIED}"
    done = dockwarden(settings, "scan", target, "--format", form, "-o", output.format(tmp=tmp_path))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "hint: " in done.stderr
    if code == 2:
        assert "examine" not in done.stderr, "the place is refused before the work, not after it"


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/home"])
@pytest.mark.parametrize(
    "command",
    [
        ["scan", "oci:{layout}"],
        ["user", "list"],
        ["token", "list"],
        ["db", "upgrade"],
        ["db", "check"],
        ["audit-log", "verify"],
        ["serve", "--port", "1"],
    ],
    ids=" ".join,
)
def test_a_home_that_cannot_be_used(sample_layouts: Path, home: str, command: list[str]) -> None:
    words = [word.format(layout=sample_layouts / DENIED) for word in command]
    done = dockwarden(Settings(home=Path(home)), *words)
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.count("dockwarden: ") == 1
    assert home in done.stderr
    assert "DOCKWARDEN_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_file_that_is_none(settings: Settings) -> None:
    settings.home.mkdir(exist_ok=True)
    (settings.home / "dockwarden.db").write_text("this is no database\n" * 500)
    done = dockwarden(settings, "user", "list")
    assert (done.returncode, "is not an SQLite database" in done.stderr) == (3, True), done.stderr


BROKEN = "import sys; from scanner import cli; cli.load = lambda file: {}['a secret slot']; cli.main(sys.argv[1:])"


@pytest.mark.parametrize("place", ["first", "last", "nowhere"])
def test_an_unexpected_exception(settings: Settings, place: str) -> None:
    """Python exits with 1 for a traceback.

    A gate that reads exit codes would take that for a denial, or a bug for a verdict.
    """
    words = {"first": ["--debug", "checks"], "last": ["checks", "--debug"], "nowhere": ["checks"]}[place]
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert ("Traceback" in done.stderr) is (place != "nowhere")
    assert "dockwarden: internal error: KeyError" in done.stderr
    assert "--debug" in done.stderr


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [("nothing", 2, "malformed_archive"), ("registry.invalid/a:1", 3, "unknown_host"), ("hostile", 3, "")],
)
def test_a_refused_image_is_a_report_too(
    settings: Settings, tmp_path: Path, content: str, code: int, reason: str
) -> None:
    file = tmp_path / "image.tar"
    file.write_text("this is no archive\n" * 100)
    hostile = Path(__file__).parents[2] / "data/hostile/images/D08_config_digest_mismatch.oci.tar"
    target = {"nothing": f"archive:{file}", "hostile": f"archive:{hostile}"}.get(content, content)
    done = dockwarden(settings, "scan", target, "--format", "json")
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "deny"
    if document["report"] is None:
        assert document["undecided"] is True
        assert document["error"]["message"] in done.stderr
        assert document["error"]["reason"] == (reason or document["error"]["reason"])
    sarif = json.loads(dockwarden(settings, "scan", target, "--format", "sarif").stdout)
    assert sarif["runs"][0]["invocations"][0]["executionSuccessful"] is False


@pytest.mark.parametrize(
    "image", ["app@", "app:", "@sha256:" + "0" * 64, "a b", "", "https://registry.example.com/app"]
)
def test_what_is_not_an_image_reference(settings: Settings, image: str) -> None:
    done = dockwarden(settings, "gate", image, "--server", "http://127.0.0.1:9")
    assert (done.returncode, "not an image reference" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "gate a/b:1 --server 'http://[::1'",
        "gate a/b:1 --server http://x:99999",
        "registry check x:99999",
        "scan x:99999/a:1",
        "scan archive:/dev/zero",
        "scan archive:{pipe}",
        "scan a/b:1 --ca-file /dev/zero",
        "policy check /dev/zero",
        "audit compose:/tmp",
        "audit kubernetes:- < /dev/zero",
        "advisories import /dev/null",
        "admission kubernetes --manifests --url 'https://[::1'",
    ],
)
def test_an_address_or_a_file_that_cannot_be_used_is_wrong_usage(settings: Settings, tmp_path: Path, line: str) -> None:
    """Such a file was once read without end, and such an address was an internal error."""
    os.mkfifo(tmp_path / "pipe")
    done = shell(settings, "dw " + line.format(pipe=tmp_path / "pipe"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("dockwarden: ") == 1
    assert "Traceback" not in done.stderr
