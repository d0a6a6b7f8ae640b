"""What is shipped: one wheel with everything in it, a lock without addresses, no package registry named anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import scanner

ROOT = Path(__file__).parents[1]
# Spelt so that this file does not name them either.
HOSTS = re.compile(
    "|".join(
        ("py" + "pi\\.org", "python" + "hosted", "registry\\.npm" + "js", "deb\\.deb" + "ian", "proxy\\.gol" + "ang")
    )
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    target = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "build", "--wheel", "--quiet", "--out-dir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return set(zipfile.ZipFile(next(target.glob("*.whl"))).namelist())


@pytest.mark.parametrize(
    "name",
    [
        "scanner/cli.py",
        "scanner/policy/default.yaml",
        "web/__init__.py",
        "web/templates/base.html",
        "web/static/app.css",
        "scanner/policy/starting_points/signed-only.yaml",
        "web/static/editor.js",
        "web/static/vendor/codemirror.min.js",
        "web/static/vendor/htmx.min.js",
        "migrations/env.py",
        "migrations/versions/0001_the_first_schema.py",
    ],
)
def test_the_wheel_holds(wheel: set[str], name: str) -> None:
    assert name in wheel


def test_the_wheel_holds_no_tests(wheel: set[str]) -> None:
    assert not [name for name in wheel if name.startswith(("tests/", "var/", "benchmarks/"))]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-runtime.lock"])
def test_a_lock_names_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") > 100


def test_an_image_of_ours_holds_what_was_tested_and_nothing_for_developers() -> None:
    tested, shipped = (
        set(re.findall(r"^([a-z0-9][^ \\\n]*)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-runtime.lock")
    )
    assert shipped < tested
    assert not [pin for pin in shipped if pin.startswith(("pytest", "playwright", "mypy", "hypothesis", "uv=="))]
    assert "requirements-runtime.lock" in (ROOT / "Dockerfile").read_text()


def test_no_file_names_a_package_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    named = []
    for name in filter(None, tracked):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 2 << 20 and HOSTS.search(path.read_text("utf-8", "replace")):
            named.append(name)
    assert named == []


def test_the_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", scanner.__version__)
    assert f"dockwarden:{scanner.__version__}" in (ROOT / "compose.yaml").read_text()
