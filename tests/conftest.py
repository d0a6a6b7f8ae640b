"""Fixtures that every room may use. A server is started once a run, and only when a test asks for it.

In CI nothing may be skipped for want of a part that can be installed: such a skip fails the run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest

from scanner.advisories import database
from scanner.config import Settings
from scanner.demo import samples
from tests.clair import Clair
from tests.docker_engines import docker_engine
from tests.servers import (
    Authority,
    Dockwarden,
    Registry,
    end,
    free_port,
    listening,
    need,
    real_clock,
    shifted_clock,
    spawn,
    wait_for,
)

# A loaded machine pauses a process for longer than any example takes: Hypothesis would call that flaky.
hypothesis.settings.register_profile("dockwarden", deadline=None)
hypothesis.settings.load_profile("dockwarden")

ARTEFACTS = Path(__file__).parent / "artefacts"
BROWSER = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_configure() -> None:
    """A shell starts what it runs in the background with these signals ignored, which every program that a test starts
    would inherit: a server would outlive SIGQUIT, and Ctrl-C would do nothing.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if "platform:" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where every part can be installed: {reason}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith(("DOCKWARDEN_", "DOCKER_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def sample_layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples as OCI layouts, each under its repository's name, and their advisories under ``advisories``."""
    base = tmp_path_factory.mktemp("samples")
    for sample in samples.SAMPLES:
        samples.build_layout(sample, base / sample.repository)
    samples.build_advisories(base / "advisories")
    return base


@pytest.fixture
def settings(tmp_path: Path, sample_layouts: Path) -> Settings:
    """Settings of a fresh home with the samples' advisories in force."""
    made = Settings(home=tmp_path / "home")
    database.import_file(made, sample_layouts / "advisories")
    return made


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """A registry with TLS of the tests' own CA and a password."""
    made = Registry(tmp_path_factory.mktemp("registry"), authority, "ci", "correct horse").start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def plain_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that speaks plain HTTP and lets everyone in."""
    made = Registry(tmp_path_factory.mktemp("plain-registry")).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, sample_layouts: Path) -> Iterator[Dockwarden]:
    """``dockwarden serve`` on the embedded default."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    database.import_file(Settings(home=home), sample_layouts / "advisories")
    log = home / "log"
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "DOCKWARDEN_HOME": str(home),
        "DOCKWARDEN_PORT": str(port),
        "HOME": str(home),
        "DOCKWARDEN_RATE_LIMITS": "false",
        **shifted_clock(),
    }
    process = spawn([sys.executable, "-m", "scanner.cli", "serve"], log, environment)
    wait_for(lambda: listening(port) and _ready(port), "dockwarden serve", log, 60)
    match = re.search(r"not shown again: (dw_\S+)", log.read_text())
    assert match, log.read_text()
    yield Dockwarden(f"http://127.0.0.1:{port}", match[1], home)
    process.terminate()
    try:
        process.wait(20)
    finally:
        end(process)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def clair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clair]:
    """A real Clair that knows nothing yet. Tests load what they need, which replaces what another had loaded."""
    made = Clair(tmp_path_factory.mktemp("clair")).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Docker engine of the tests' own. Yields its DOCKER_HOST."""
    with docker_engine(tmp_path_factory.mktemp("dockerd")) as host:
        yield host


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A real Chromium."""
    from playwright.sync_api import sync_playwright

    program = need("chromium", "chromium")
    ARTEFACTS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as parts:
        with real_clock():
            playwright = parts.enter_context(sync_playwright())
            running = playwright.chromium.launch(executable_path=program, args=list(BROWSER))
        yield running
        running.close()
