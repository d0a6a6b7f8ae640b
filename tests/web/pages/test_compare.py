"""Two images compared: by what they have, not by when they were scanned; what is not known is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import CheckResult, Incomplete, NotApplicable, Outcome, Passed
from scanner.model.scan import ImageReport, ScanRequest
from scanner.store import scans
from scanner.store.session import Database
from tests.reports_factory import engine, failed, image_report, report, vulnerability
from tests.web.conftest import Worker
from tests.web.pages.test_policies import Form
from web.pages.compare import PackageChange, compare

OLD = vulnerability("CVE-2026-1", "openssl")
BOTH = vulnerability("CVE-2026-2", "curl", "low")
NEW = vulnerability("CVE-2026-3", "zlib", "high")


def one(*found: object, **checks: Outcome) -> ImageReport:
    return image_report([engine(found)], {name.replace("_", "-"): o for name, o in checks.items()})  # type: ignore[arg-type]


def test_better_and_worse() -> None:
    found = compare(
        one(OLD, BOTH, root_user=failed(), healthcheck=Passed()),
        one(BOTH, NEW, root_user=Passed(), healthcheck=failed()),
    )
    assert (found.fixed, found.introduced, found.kept) == ((OLD,), (NEW,), 1)
    assert found.packages == (PackageChange("openssl (debian)", "1.0", ""), PackageChange("zlib (debian)", "", "1.0"))
    assert (found.better, found.worse, found.unknown) == (("root-user",), ("healthcheck",), ())


def test_the_same_flaw_in_a_newer_version_is_the_same_flaw() -> None:
    newer = replace(OLD, installed_version="1.1", purl="pkg:deb/debian/openssl@1.1")
    found = compare(one(OLD), one(newer))
    assert (found.fixed, found.introduced, found.kept) == ((), (), 1)
    assert found.packages == (PackageChange("openssl (debian)", "1.0", "1.1"),)


def test_what_is_not_known_any_more_is_not_better() -> None:
    gone = Incomplete("layer", "a layer could not be read")
    found = compare(one(a=Passed(), b=failed(), c=NotApplicable("x")), one(a=gone, b=gone, c=Passed()))
    assert (found.better, found.worse) == ((), ("a",))
    broken = replace(one(), incomplete=(gone,))
    assert compare(broken, one()).unknown == ("a layer could not be read",)
    assert compare(None, one()).unknown
    assert compare(one(BOTH), one(BOTH)).same


def test_the_page(app: OpenAPI, make_token: Callable[..., str], database: Database, worker: Worker) -> None:
    digests = []
    for tag, found in (
        ("1", one(OLD, BOTH)),
        ("2", replace(one(BOTH, NEW), checks=(CheckResult("root-user", Passed()),))),
    ):
        with database.session() as session:
            scans.request(session, ScanRequest(f"registry.example.com/shop/app:{tag}", source="api"))
        item = replace(found, image=image_report([], seed=tag).image)
        digests.append(str(item.image.digest))
        worker.finish(report(item))
    form = Form(app.test_client(), make_token())
    offered = form.client.get(f"/images/{digests[1]}/compare", headers=form.headers).text
    link = f'href="/images/{digests[1]}/compare?with={digests[0]}"'
    assert link in offered
    found = form.client.get(f"/images/{digests[1]}/compare?q=app:1", headers={**form.headers, "HX-Request": "true"})
    assert link in found.text
    assert "<html" not in found.text
    nothing = form.client.get(f"/images/{digests[1]}/compare?q=nothing", headers=form.headers).text
    assert "No other image matches" in nothing
    page = form.client.get(f"/images/{digests[1]}/compare?with={digests[0]}", headers=form.headers).text
    better, worse = page.partition("<h2>Better</h2>")[2].partition("<h2>Worse</h2>")[::2]
    assert "CVE-2026-1" in better
    assert "CVE-2026-3" in worse
    assert form.client.get(f"/images/{digests[1]}/compare?with=sha256:nothing", headers=form.headers).status_code == 404
