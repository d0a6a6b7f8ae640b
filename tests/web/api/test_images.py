"""Images and their evidence, as the newest scan stored it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, Passed, Severity, TrustStatus, Verification
from scanner.model.reference import Digest
from scanner.store import projects
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

PACKAGES = [make.package(n) for n in range(3)]
FOUND = make.report(
    "image",
    packages=PACKAGES,
    vulnerabilities=[
        make.vulnerability(1, PACKAGES[0], severity=Severity.LOW),
        make.vulnerability(2, PACKAGES[1], severity=Severity.CRITICAL),
        make.vulnerability(3, PACKAGES[1], severity=Severity.CRITICAL),
    ],
)
IMAGE = replace(
    FOUND.images[0],
    checks=(
        CheckResult("root-user", Failed((Evidence("runs as root", pointer="/config/User"),)), Severity.HIGH),
        CheckResult("healthcheck", Passed()),
        CheckResult("setuid-files", Incomplete("layer_unreadable", "the second layer could not be read")),
    ),
    verifications=(Verification("cosign", TrustStatus.NOT_SIGNED, FOUND.digest, "not_signed"),),
)
FOUND = replace(FOUND, images=(IMAGE,))
PATH = f"/images/{FOUND.digest}"


@pytest.fixture
def scanned(api: Api, worker: Worker) -> Api:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:1.4"})
    worker.finish(FOUND)
    return api


def test_the_list_says_verdict_and_counts(scanned: Api) -> None:
    (item,) = scanned("GET", "/images").json["items"]
    assert (item["repository"], item["tag"], item["digest"]) == (make.REPOSITORY, "1.4", FOUND.digest)
    assert item["verdict"] == "deny"
    assert item["vulnerabilities"] == {"critical": 2, "high": 0, "medium": 0, "low": 1, "unknown": 0}
    assert (item["failed_checks"], item["incomplete"]) == (1, 1)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("search=cart", 1),
        ("search=CART:1.4", 1),
        ("search=nothing", 0),
        ("search=%25", 0),
        ("search=_", 0),
        (f"search={FOUND.digest[:20]}", 1),
        ("verdict=deny", 1),
        ("verdict=allow&verdict=warn", 0),
        ("verdict=undecided", 0),
        (f"repository={make.REPOSITORY}", 1),
        ("repository=x", 0),
    ],
)
def test_the_list_is_searched(scanned: Api, query: str, count: int) -> None:
    assert len(scanned("GET", f"/images?{query}").json["items"]) == count


def test_an_image_with_its_names_and_decision(scanned: Api) -> None:
    image = scanned("GET", PATH).json
    assert image["digest"] == FOUND.digest
    assert [name["tag"] for name in image["names"]] == ["1.4"]
    assert image["images"][0]["platform"] == "linux/amd64"
    assert image["decision"]["verdict"] == "deny"


def test_findings_the_worst_first_and_filtered(scanned: Api) -> None:
    items = scanned("GET", f"{PATH}/findings").json["items"]
    assert [i["vulnerability"]["severity"] for i in items] == ["critical", "critical", "low"]
    query = "severity=critical&fixable=true"
    assert [i["vulnerability"]["id"] for i in scanned("GET", f"{PATH}/findings?{query}").json["items"]] == [
        "CVE-2026-00003"
    ]
    first = scanned("GET", f"{PATH}/findings?limit=2").json
    second = scanned("GET", f"{PATH}/findings?limit=2&cursor={first['next_cursor']}").json
    assert first["items"] + second["items"] == items
    assert second["next_cursor"] is None


def test_the_rest_of_the_evidence(scanned: Api) -> None:
    assert [i["component"]["purl"] for i in scanned("GET", f"{PATH}/components").json["items"]] == [
        p.purl for p in PACKAGES
    ]
    checks = {c["check"]: c for c in scanned("GET", f"{PATH}/checks").json["items"]}
    assert checks["root-user"]["outcome"]["evidence"][0]["pointer"] == "/config/User"
    assert checks["root-user"]["remedy"]
    assert checks["setuid-files"]["outcome"]["kind"] == "incomplete"
    (signature,) = scanned("GET", f"{PATH}/signatures").json["items"]
    assert signature["verification"]["status"] == "not-signed"
    (layer,) = scanned("GET", f"{PATH}/layers").json["items"]
    assert layer["layer"]["diff_id"] == IMAGE.image.layers[0].diff_id
    (decision,) = scanned("GET", f"{PATH}/decisions").json["items"]
    assert decision["decision"]["verdict"] == decision["verdict"] == "deny"


def test_a_report_in_the_format_asked_for(scanned: Api) -> None:
    default = scanned("GET", f"{PATH}/report")
    assert default.json["report"]["subject"]["digest"] == FOUND.digest
    assert default.json["verdict"] == "deny"
    text = scanned("GET", f"{PATH}/report?format=table")
    assert text.mimetype == "text/plain"
    assert "DENY" in text.text
    assert text.headers["Content-Disposition"].startswith("attachment; filename=")
    negotiated = scanned("GET", f"{PATH}/report", headers={"Accept": "text/plain"})
    assert negotiated.mimetype == "text/plain"
    assert scanned("GET", f"{PATH}/report?format=nothing").status_code == 406
    assert scanned("GET", f"{PATH}/report", headers={"Accept": "image/png"}).status_code == 406


def test_a_vulnerability_and_all_it_touches(scanned: Api) -> None:
    found = scanned("GET", "/vulnerabilities/CVE-2026-00002").json
    assert (found["severity"], found["truncated"]) == ("critical", False)
    assert (found["known_exploited"], found["epss"]) == (None, None)
    assert [(a["digest"], a["package"]) for a in found["affected"]] == [(FOUND.digest, "lib1")]
    assert scanned("GET", "/vulnerabilities/CVE-1999-0001").status_code == 404


PARTS = ("", "/findings", "/components", "/checks", "/signatures", "/layers", "/decisions", "/report")


@pytest.mark.parametrize("part", PARTS)
def test_another_projects_image_is_not_there(
    scanned: Api, call: Callable[..., Api], database: Database, part: str
) -> None:
    with database.session() as session:
        projects.create(session, "other")
    other = call(projects=["other"])
    answer = other("GET", PATH + part)
    assert answer.status_code == 404
    assert other("GET", "/images/sha256:" + "0" * 64 + part).json["detail"] == answer.json["detail"]
    assert other("GET", "/images").json["items"] == []
    assert other("GET", "/vulnerabilities/CVE-2026-00002").status_code == 404


@pytest.mark.parametrize("digest", ["latest", "sha256:12", "sha256:" + "A" * 64, "..%2f..%2fetc"])
def test_what_is_no_digest(api: Api, digest: str) -> None:
    assert api("GET", f"/images/{digest}").status_code in (404, 422)


def test_what_it_was_built_on_and_whose_a_finding_is(scanned: Api, worker: Worker) -> None:
    """The base was scanned first; then everything about its layers is the base's."""
    layers = (IMAGE.image.layers[0], replace(IMAGE.image.layers[0], index=1, diff_id=Digest.of(b"own")))
    config = replace(IMAGE.image.config, diff_ids=tuple(layer.diff_id for layer in layers))
    built = replace(
        IMAGE.image, manifest=replace(IMAGE.image.manifest, digest=Digest.of(b"built")), config=config, layers=layers
    )
    flaws = [
        make.vulnerability(1, PACKAGES[0], layer=layers[0].diff_id),
        make.vulnerability(2, PACKAGES[1], layer=layers[1].diff_id),
        make.vulnerability(3, PACKAGES[2]),
    ]
    seen = (Evidence("in the base", layer_index=0), Evidence("in mine", layer_index=1), Evidence("in the config"))
    checks = (CheckResult("setuid-files", Failed(seen)),)
    item = replace(
        IMAGE, image=built, engines=(replace(IMAGE.engines[0], vulnerabilities=tuple(flaws)),), checks=checks
    )
    scanned("POST", "/scans", {"image": "registry.example.com/shop/built:1"})
    worker.finish(replace(FOUND, subject=built.manifest, images=(item,)))
    path = f"/images/{built.digest}"
    base = scanned("GET", path).json["images"][0]["base"]
    assert (base["reference"], base["digest"], base["source"], base["layers"]) == (
        f"{make.REPOSITORY}:1.4",
        FOUND.digest,
        "layers",
        1,
    )
    assert base["outdated"] is False
    assert scanned("GET", PATH).json["images"][0]["base"] is None
    found = {f["vulnerability"]["id"]: f["origin"] for f in scanned("GET", f"{path}/findings").json["items"]}
    assert found == {"CVE-2026-00001": "base", "CVE-2026-00002": "own", "CVE-2026-00003": "unknown"}
    (check,) = scanned("GET", f"{path}/checks").json["items"]
    assert check["origins"] == ["base", "own", "own"]
