"""No network: everything works from files; and a process that dies in the middle of an update leaves what was in
force.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.advisories import database, trivydb
from scanner.config import Settings
from scanner.demo import samples
from tests.scanner.advisories.test_feeds import EPSS, KEV
from tests.scanner.advisories.test_mirror import archive
from tests.servers import shifted_clock, spawn, wait_for
from tests.test_end_to_end import dockwarden

POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: fresh}
advisories: {max_age: 48h}
rules:
  - {id: exploited, vulnerability: {known_exploited: true}, action: deny}
  - {id: likely, vulnerability: {epss: 0.5}, action: deny}
"""


def test_everything_from_files(tmp_path: Path, sample_layouts: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert dockwarden(settings, "advisories", "status").returncode == 3
    assert dockwarden(settings, "advisories", "update").returncode == 2
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    target = f"oci:{sample_layouts / 'shop/vulnerable'}:1.4.1"

    built = datetime.now(UTC) - timedelta(hours=72)
    files = {
        "db": trivydb.build(samples.ADVISORIES, tmp_path / "db", updated_at=built),
        "kev": tmp_path / "kev.json",
        "epss": tmp_path / "epss.csv",
    }
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    files["kev"].write_text(
        json.dumps({**KEV, "dateReleased": f"{today}T00:00:00Z", "vulnerabilities": [{"cveID": "CVE-2026-90002"}]})
    )
    scores = "".join(f"CVE-2026-9000{n},0.01,0.1\n" for n in range(1, 5))
    files["epss"].write_text(f"#model_version:v1,score_date:{today}T00:00:00Z\ncve,epss,percentile\n{scores}")
    for file in files.values():
        done = dockwarden(settings, "advisories", "import", str(file))
        assert done.returncode == 0, done.stderr
    said = dockwarden(settings, "advisories", "status")
    assert said.returncode == 0
    assert "72 h ago" in said.stdout or "3 days ago" in said.stdout
    assert "file epss.csv" in said.stdout

    scanned = dockwarden(settings, "scan", target, "--policy", str(policy), "--format", "json")
    decision = json.loads(scanned.stdout)["decision"]
    assert scanned.returncode == 1, scanned.stderr
    assert {r["slug"] for r in decision["reasons"] if r["kind"] == "incomplete"} == {"advisories_stale"}
    assert [r["subject"] for r in decision["reasons"] if r["kind"] == "violation"] == ["CVE-2026-90002"]

    dockwarden(settings, "advisories", "import", str(trivydb.build(samples.ADVISORIES, tmp_path / "newer")))
    fresh = json.loads(dockwarden(settings, "scan", target, "--policy", str(policy), "--format", "json").stdout)[
        "decision"
    ]
    assert {r["kind"] for r in fresh["reasons"]} == {"violation"}


def test_status_for_programs(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    dockwarden(settings, "advisories", "import", str(trivydb.build(samples.ADVISORIES, tmp_path / "db")))
    document = json.loads(dockwarden(settings, "advisories", "status", "--format", "json").stdout)
    sources = {source["source"]: source for source in document["sources"]}
    assert sources["trivy-db"]["stale"] is False
    assert sources["trivy-db"]["digest"].startswith("sha256:")
    assert sources["epss"]["updated_at"] is None


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    bad = tmp_path / "epss.csv"
    bad.write_text(EPSS.replace("0.91", "often"))
    done = dockwarden(settings, "advisories", "import", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert "epss.csv, line 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def halting(httpserver: HTTPServer, tmp_path: Path) -> Iterator[tuple[str, threading.Event]]:
    """A mirror that sends half of the database, and the rest when it is told to."""
    data, go = archive(tmp_path / "newest"), threading.Event()

    def answer(request: Request) -> Response:
        def body() -> Iterator[bytes]:
            yield data[: len(data) // 2]
            go.wait(30)
            yield data[len(data) // 2 :]

        return Response(body(), headers={"Content-Length": str(len(data))})

    httpserver.expect_request("/db.tar.gz").respond_with_handler(answer)
    yield httpserver.url_for("/db.tar.gz"), go
    go.set()


@pytest.mark.parametrize("with_server", [False, True], ids=["command line alone", "beside a server"])
def test_killed_in_the_middle_of_an_update(
    tmp_path: Path, halting: tuple[str, threading.Event], httpserver: HTTPServer, with_server: bool
) -> None:
    settings = Settings(home=tmp_path / "home")
    database.import_file(
        settings, trivydb.build(samples.ADVISORIES, tmp_path / "one", updated_at=datetime(2026, 1, 1, tzinfo=UTC))
    )
    if with_server:
        assert dockwarden(settings, "db", "upgrade").returncode == 0
    before, live = database.status(settings), database.current(settings)
    url, go = halting
    variables = {
        "DOCKWARDEN_ADVISORIES_SOURCE": url,
        "DOCKWARDEN_INSECURE_REGISTRIES": f"{httpserver.host}:{httpserver.port}",
        "DOCKWARDEN_LEASE_SECONDS": "1",
    }
    environment = {"PATH": "/usr/bin:/bin", "DOCKWARDEN_HOME": str(settings.home), **variables, **shifted_clock()}
    process = spawn([sys.executable, "-m", "scanner.cli", "advisories", "update"], tmp_path / "log", environment)
    download = settings.advisories_dir / ".download-trivy-db"
    wait_for(lambda: download.exists() or process.poll() is not None, "the download", tmp_path / "log")
    process.kill()
    process.wait()
    assert download.exists(), (tmp_path / "log").read_text()
    assert (database.status(settings), database.current(settings)) == (before, live)
    go.set()
    if with_server:
        from scanner.store import jobs
        from scanner.store.session import Database

        store = Database(settings.database)

        def swept() -> bool:
            with store.session() as session:
                return jobs.sweep(session) > 0

        wait_for(swept, "the lease", tmp_path / "log")
    again = dockwarden(settings, "advisories", "update", **variables)
    assert again.returncode == 0, again.stderr
    assert database.status(settings) != before
    left = {
        path.name
        for path in settings.advisories_dir.iterdir()
        if path.name.startswith((".incoming", ".download", ".link"))
    }
    assert left == set()
