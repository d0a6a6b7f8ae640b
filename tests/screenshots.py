"""Pictures of every page for the documentation: filled, empty and failing, at both widths.

    python -m tests.screenshots docs/images

A generated fleet (``benchmarks.fleet``) fills the pages; an empty database and a wrong address show the other two.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from benchmarks import fleet
from scanner import queue
from scanner.config import Secret, Settings, secret_key
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE, SERVICE, Person
from scanner.services import inventory, retention
from scanner.store import accounts, exemptions, jobs, listings, policies, projects, registries, schema
from scanner.store.session import Database, moment
from tests.conftest import BROWSER
from tests.scanner.workloads import sins
from web import create_app

WELL_RUN = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web, team: shop}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: app
          image: none
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          resources: {limits: {cpu: "1", memory: 256Mi}, requests: {cpu: 100m, memory: 128Mi}}
"""
WIDTHS = {"wide": (1280, 860), "narrow": (390, 844)}


@contextmanager
def serving(home: Path, images: int) -> Iterator[tuple[str, str, fleet.Fleet | None]]:
    """The app over a store of so many images: its address, a token, and what is in it."""
    settings = Settings(home=home, database_url=Secret(f"sqlite:///{home}/shown.db"), rate_limits=False)
    home.mkdir(parents=True)
    database = Database(settings.database)
    database.upgrade()
    key = secret_key(settings)
    found = fleet.fill(database, images) if images else None
    with database.session() as session:
        token = accounts.create_token(session, "documentation", SCOPES, key)[1]
        if found:
            _people(session, key)
            _packages(session)
    if found:
        _running(database, found)
        _pruned(database, settings)
    server = make_server("127.0.0.1", 0, create_app(settings, database, queue.make_app(settings)), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", token.reveal(), found
    finally:
        server.shutdown()
        thread.join()


def _people(session: Any, key: Secret) -> None:
    for name in ("payments", "shop", "data"):
        projects.create(session, name, description=f"What {name} runs", patterns=[f"{fleet.HOST}/{name}/**"])
    dora = accounts.create_user(session, "dora", "correct horse battery", "developer")
    sam = accounts.create_user(session, "sam", "correct horse battery", "security")
    projects.add_member(session, "shop", dora.id)
    registries.add(session, fleet.HOST, key, username="puller", password=Secret("not shown"))
    production = (Path(__file__).parent.parent / "examples/policies/production.yaml").read_text()
    policies.put(session, "production", production, "sam", if_version=0)
    policies.put(session, "production", production.replace("72h", "24h"), "sam", if_version=1)
    for subject, days in (("CVE-2026-1234", 9), ("root-user", 60)):
        asked = exemptions.request(
            session,
            "shop",
            Person(dora.id, "dora"),
            images=[f"{fleet.HOST}/shop/service-0001"],
            subject=subject,
            justification="The flaw is in a command that this service never calls.",
            expires_at=moment(session) + fleet.timedelta(days=days),
        )
    exemptions.approve(session, asked.id, Person(sam.id, "sam"), note="Until the next release.")


def _running(database: Database, known: fleet.Fleet) -> None:
    """A cluster and a host that run some of the images, some of them badly."""
    with database.read() as session:
        shown = listings.list_images(session, None, limit=12).items
    clusters: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number, item in enumerate(shown):
        text = sins.KUBERNETES_BAD if number % 3 == 0 else WELL_RUN
        name = f"{item.repository.rpartition('/')[2]}-{number}"
        reference = f"{item.name}@{item.digest}" if number else f"{item.repository}:not-scanned"
        lines = [
            line.partition("image: ")[0] + f"image: {reference}" if "image: " in line else line
            for line in text.replace("name: web", f"name: {name}").splitlines()
        ]
        where = ("production", "cluster-1") if number % 4 else ("staging", "cluster-2")
        clusters.setdefault(where, []).extend(inventory.parse("kubernetes", [(f"{name}.yaml", "\n".join(lines))]))
    for (environment, cluster), documents in clusters.items():
        snapshot = inventory.Snapshot(environment, "kubernetes", cluster, 1, documents)
        inventory.report(database, COMMAND_LINE, snapshot, "trivy")


def _pruned(database: Database, settings: Settings) -> None:
    """A pruning, so that the tables are measured."""
    with database.session() as session:
        jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "maintenance")
        held = jobs.claim(session, "documentation", {jobs.RETENTION: None}, 3600)
    assert held
    retention.Pruning(settings, database, held, SERVICE).run()


def _packages(session: Any) -> None:
    """A package that every image has, in three versions."""
    for number, version in enumerate(("2.14.1", "2.17.1", "2.24.0")):
        purl = f"pkg:maven/org.apache.logging.log4j/log4j-core@{version}"
        values = {"purl": purl, "name": "log4j-core", "version": version, "type": "maven"}
        key = session.execute(schema.component.insert().values(values)).inserted_primary_key[0]
        images = session.execute(sa.select(schema.image.c.id).where(schema.image.c.id % 3 == number)).scalars()
        session.execute(schema.image_component.insert(), [{"image_id": one, "component_id": key} for one in images])


def _worst(url: str, token: str) -> str:
    """The page of the worst workload."""
    headers = {"Authorization": f"Bearer {token}"}
    items = httpx.get(f"{url}/api/v1/workloads?limit=1", headers=headers, trust_env=False).json()["items"]
    return f"/workloads/{items[0]['id']}"


def filled(known: fleet.Fleet) -> Mapping[str, str]:
    """Pages by the name of their picture."""
    image = f"/images/{known.digest}"
    return {
        "overview": "/overview",
        "images": "/images",
        "image": image,
        "image-layers": f"{image}?tab=layers",
        "compare": f"{image}/compare?with={known.other}",
        "workloads": "/workloads",
        "vulnerabilities": "/vulnerabilities",
        "packages": "/packages?q=log4j&version=%3C2.17.1",
        "vulnerability": f"/vulnerabilities/{known.vulnerability}",
        "scans": "/scans",
        "policies": "/policies",
        "policy": "/policies/production",
        "policy-edit": "/policies/production/edit",
        "exemptions": "/exemptions",
        "exemption-new": "/exemptions/new?subject=CVE-2026-1234",
        "registries": "/registries",
        "audit-log": "/audit-log",
        "settings": "/settings",
        "settings-people": "/settings/people",
        "settings-projects": "/settings/projects",
        "settings-tokens": "/settings/tokens",
        "settings-storage": "/settings/storage",
    }


EMPTY = {
    "overview-empty": "/overview",
    "images-empty": "/images",
    "workloads-empty": "/workloads",
    "vulnerabilities-empty": "/vulnerabilities",
    "packages-empty": "/packages",
    "scans-empty": "/scans",
    "policies-empty": "/policies",
    "exemptions-empty": "/exemptions",
    "registries-empty": "/registries",
    "events-empty": "/events",
}
FAILING = {"error": "/images/sha256:nothing", "images-none-fits": "/images?q=nothing+of+the+kind"}
NARROW = ("overview", "images", "image", "workloads", "workload", "policy-edit", "settings-storage")


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(BROWSER))
        with serving(Path(base) / "filled", 60) as (url, token, known):
            assert known
            pages = {**filled(known), "workload": _worst(url, token)}
            page = _signed_in(browser, url, token, "wide")
            _take(page, url, {**pages, **FAILING}, target)
            narrow = _signed_in(browser, url, token, "narrow")
            _take(narrow, url, {f"{name}-narrow": pages[name] for name in NARROW}, target)
            dark = _signed_in(browser, url, token, "wide", "dark")
            _take(dark, url, {"overview-dark": "/overview"}, target)
        with serving(Path(base) / "empty", 0) as (url, token, _):
            page = _signed_in(browser, url, token, "wide")
            _take(page, url, EMPTY, target)
        browser.close()


def _signed_in(browser: Any, url: str, token: str, width: str, theme: str = "light") -> Any:
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    page = browser.new_context(viewport=size, color_scheme=theme).new_page()
    page.goto(url + "/")
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url("**/overview")
    return page


def _take(page: Any, url: str, paths: Mapping[str, str], target: Path) -> None:
    for name, path in paths.items():
        page.goto(url + path)
        page.wait_for_timeout(200)  # a chart draws itself
        page.screenshot(path=str(target / f"{name}.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
