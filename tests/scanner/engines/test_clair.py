"""Clair's answer is believed only as far as it deserves: a real Clair where one was built, recorded and hostile
answers everywhere.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret, Settings
from scanner.demo.samples import SAMPLES, Step, build_layout
from scanner.engines import _clair_client
from scanner.engines._clair_client import ClairClient
from scanner.engines.base import EngineJob
from scanner.engines.clair import ClairEngine, Reader, Updates, _Memory
from scanner.errors import EngineError
from scanner.model.finding import CVSS, EngineReport, Severity
from scanner.model.image import Image
from scanner.model.reference import Descriptor, Digest
from scanner.model.scan import ImageReport, ScanRequest
from scanner.scanning.pipeline import local_services, run
from tests.clair import Clair, advisory, cvss
from tests.reports_factory import NOW, image_report

RECORDED = Path(__file__).parents[2] / "data" / "clair"
KEY = base64.b64encode(b"a key of thirty-two bytes, or so.").decode()
STATE = "cb31df826983"
CVE = "CVE-2026-90001"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


def recorded_image() -> Image:
    """The image that the recording is about: its digest, and the layer that its packages came with."""
    document = recorded("vulnerability_report")
    image = image_report([]).image
    layer = replace(image.layers[0], diff_id=Digest(next(iter(document["environments"].values()))[0]["introduced_in"]))
    manifest = Descriptor(image.manifest.media_type, Digest(document["manifest_hash"]), 1)
    return replace(image, manifest=manifest, layers=(layer,))


IMAGE = recorded_image()


@pytest.fixture
def fake(httpserver: HTTPServer) -> HTTPServer:
    """Clair's answers as recorded from a real one."""
    httpserver.expect_request("/indexer/api/v1/index_state").respond_with_json({"state": STATE})
    httpserver.expect_request("/indexer/api/v1/index_report", method="POST").respond_with_json(
        recorded("index_report"), status=201
    )
    httpserver.expect_request(f"/matcher/api/v1/vulnerability_report/{IMAGE.digest}").respond_with_json(
        recorded("vulnerability_report")
    )
    httpserver.expect_request("/matcher/api/v1/internal/update_operation").respond_with_json(
        recorded("update_operation"), headers={"ETag": '"5eaec69e"'}
    )
    return httpserver


def job(server: HTTPServer, directory: Path, seconds: float = 10, **more: Any) -> EngineJob:
    blob = directory / "layout" / "blobs" / "sha256"
    blob.mkdir(parents=True, exist_ok=True)
    (blob / IMAGE.layers[0].diff_id.hex).write_bytes(b"a layer")
    settings = Settings(home=directory, clair_url=server.url_for("").rstrip("/"), clair_psk=Secret(KEY), **more)
    return EngineJob(IMAGE, directory / "layout", directory, directory, settings, seconds)


def asked(server: HTTPServer) -> list[str]:
    return [f"{request.method} {request.path}" for request, _ in server.log]


def test_a_recorded_answer_becomes_our_values(fake: HTTPServer, tmp_path: Path) -> None:
    found = ClairEngine().scan(job(fake, tmp_path))
    assert (found.coverage.os_family, found.coverage.os_version, found.coverage.packages) == ("debian", "12", 6)
    assert not found.incomplete
    by_id = {v.id: v for v in found.vulnerabilities}
    first = by_id[CVE]
    assert first.purl == "pkg:deb/debian/libssl3@3.0.9-1?arch=amd64&distro=debian-12"
    assert (first.severity, first.fixed_versions, first.status) == (Severity.CRITICAL, ("3.0.13-1~deb12u1",), "fixed")
    assert first.cvss == (CVSS("3.1", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "nvd@nist.gov"),)
    assert first.layer == IMAGE.layers[0].diff_id
    assert (by_id["CVE-2026-90003"].fixed_versions, by_id["CVE-2026-90003"].status) == ((), "affected")
    named_otherwise = by_id["DSA-5999-1"]
    assert named_otherwise.aliases == ("CVE-2026-90002",)
    assert named_otherwise.severity is Severity.LOW, "negligible is not none"
    epoch = next(c for c in found.components if c.name == "zlib1g")
    assert epoch.purl == "pkg:deb/debian/zlib1g@1.2.13.dfsg-1?arch=amd64&distro=debian-12&epoch=1"
    assert found.advisories.version == "5eaec69e"
    assert found.advisories.updated_at is not None


def test_an_image_is_indexed_once_for_each_state_of_the_indexer(fake: HTTPServer, tmp_path: Path) -> None:
    engine = ClairEngine()
    engine.scan(job(fake, tmp_path))
    engine.scan(job(fake, tmp_path))
    assert asked(fake).count("POST /indexer/api/v1/index_report") == 1
    other = _Memory(job(fake, tmp_path).settings, "another state")
    assert not other.has(IMAGE.digest)
    other.add(IMAGE.digest)
    assert not _Memory(job(fake, tmp_path).settings, STATE).has(IMAGE.digest), "former states are forgotten"


def test_what_clair_has_forgotten_is_indexed_again(fake: HTTPServer, tmp_path: Path) -> None:
    fake.expect_oneshot_request(f"/matcher/api/v1/vulnerability_report/{IMAGE.digest}").respond_with_data(status=404)
    _Memory(job(fake, tmp_path).settings, STATE).add(IMAGE.digest)
    assert ClairEngine().scan(job(fake, tmp_path)).vulnerabilities
    assert asked(fake).count("POST /indexer/api/v1/index_report") == 1


def test_the_manifest_offers_layers_that_only_its_tokens_open(
    httpserver: HTTPServer, fake: HTTPServer, tmp_path: Path
) -> None:
    """What Clair does with what it is sent: fetch each layer, with the header and without."""
    import httpx

    got: dict[str, Any] = {}

    def index(request: Request) -> Response:
        sent = json.loads(request.data)
        got["manifest"] = sent
        layer = sent["layers"][0]
        headers = {name: values[0] for name, values in layer["headers"].items()}
        got["with"] = httpx.get(layer["uri"], headers=headers, trust_env=False)
        got["without"] = httpx.get(layer["uri"], trust_env=False).status_code
        got["wrong"] = httpx.get(layer["uri"], headers={"Authorization": "Bearer x"}, trust_env=False).status_code
        later = layer["uri"].replace("expires=", "expires=9")
        got["later"] = httpx.get(later, headers=headers, trust_env=False).status_code
        other = layer["uri"].replace(layer["hash"], str(Digest.of(b"other")))
        got["other"] = httpx.get(other, headers=headers, trust_env=False).status_code
        got["put"] = httpx.put(layer["uri"], headers=headers, trust_env=False).status_code
        return Response(json.dumps(recorded("index_report")), 201)

    httpserver.expect_oneshot_request("/indexer/api/v1/index_report", method="POST").respond_with_handler(index)
    ClairEngine().scan(job(fake, tmp_path))
    assert got["manifest"]["hash"] == str(IMAGE.digest)
    assert got["with"].content == b"a layer"
    assert (got["without"], got["wrong"], got["later"], got["other"], got["put"]) == (404, 404, 404, 404, 501)
    with pytest.raises(httpx.ConnectError):
        httpx.get(got["manifest"]["layers"][0]["uri"], trust_env=False)


def test_no_token_and_no_key_is_ever_written_down(
    fake: HTTPServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    work = job(fake, tmp_path)
    ClairEngine().scan(work)
    sent = next(r for r, _ in fake.log if r.method == "POST")
    token = json.loads(sent.data)["layers"][0]["headers"]["Authorization"][0].removeprefix("Bearer ")
    signed = sent.headers["Authorization"].removeprefix("Bearer ")
    printed = capfd.readouterr()
    written = "".join(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())
    for secret in (token, signed, KEY):
        assert secret not in caplog.text + printed.out + printed.err + written + repr(work)


def test_every_request_is_signed_for_a_minute(fake: HTTPServer, tmp_path: Path) -> None:
    ClairEngine().scan(job(fake, tmp_path))
    key = OctKey.import_key(base64.b64decode(KEY))
    for request, _ in fake.log:
        token = jwt.decode(request.headers["Authorization"].removeprefix("Bearer "), key)
        assert token.header["alg"] == "HS256"
        assert token.claims["iss"] == "dockwarden"
        assert token.claims["exp"] - token.claims["iat"] == 60
        assert abs(token.claims["iat"] - time.time()) < 60


def answers(server: HTTPServer, path: str, **answer: Any) -> None:
    server.expect_oneshot_request(path).respond_with_data(**answer)


INDEX, MATCH = "/indexer/api/v1/index_report", f"/matcher/api/v1/vulnerability_report/{IMAGE.digest}"


def changed(name: str, **members: Any) -> str:
    return json.dumps({**recorded(name), **members})


@pytest.mark.parametrize(
    ("path", "answer", "reason", "says"),
    [
        (MATCH, {"status": 202}, "engine_db_unavailable", "not loaded"),
        (
            INDEX,
            {"response_data": changed("index_report", success=False, err="layer is no tar\x1b[31m")},
            "scanner_failed",
            "layer is no tar\ufffd",
        ),
        (INDEX, {"response_data": changed("index_report", state="IndexError")}, "scanner_output_invalid", "IndexError"),
        (
            INDEX,
            {"response_data": changed("index_report", state="ScanFinished", packages=None)},
            "scanner_output_invalid",
            "ScanFinished",
        ),
        (
            INDEX,
            {"response_data": changed("index_report", manifest_hash="sha256:" + "0" * 64)},
            "scanner_output_invalid",
            "another image",
        ),
        (
            MATCH,
            {"response_data": changed("vulnerability_report", manifest_hash="sha256:" + "0" * 64)},
            "scanner_output_invalid",
            "another image",
        ),
        (MATCH, {"response_data": "<html>proxy error</html>"}, "scanner_output_invalid", "not JSON"),
        (MATCH, {"response_data": "[]"}, "scanner_output_invalid", "not a JSON object"),
        (MATCH, {"response_data": ""}, "scanner_output_invalid", "not JSON"),
        (MATCH, {"response_data": "[" * 100_000}, "scanner_output_invalid", "nested"),
        (MATCH, {"status": 302, "headers": {"Location": "http://169.254.169.254/"}}, "scanner_failed", "302"),
        (INDEX, {"status": 401}, "clair_refused", "refused our key"),
        (
            INDEX,
            {"status": 400, "response_data": '{"code":"bad-request","message":"bogus manifest"}'},
            "scanner_failed",
            "bogus manifest",
        ),
    ],
)
def test_an_answer_that_is_not_believed(
    httpserver: HTTPServer, fake: HTTPServer, tmp_path: Path, path: str, answer: dict[str, Any], reason: str, says: str
) -> None:
    answers(httpserver, path, **answer)
    with pytest.raises(EngineError) as caught:
        ClairEngine().scan(job(fake, tmp_path))
    assert caught.value.reason == reason
    assert says in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(
    httpserver: HTTPServer, fake: HTTPServer, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clair_client, "_MAX_WAIT", 0.01)
    answers(httpserver, MATCH, status=status, headers={"Retry-After": "0"})
    assert ClairEngine().scan(job(fake, tmp_path)).vulnerabilities


def test_an_image_that_clair_cannot_index_is_not_tried_for_ever(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real Clair answers 500 for such an image, where its API says ``success: false``."""
    monkeypatch.setattr(_clair_client, "_MAX_WAIT", 0.01)
    httpserver.expect_request("/indexer/api/v1/index_state").respond_with_json({"state": STATE})
    httpserver.expect_request(INDEX).respond_with_json(
        {"code": "internal", "message": "failed to scan all layer contents"}, 500
    )
    with pytest.raises(EngineError, match="failed to scan all layer contents") as caught:
        ClairEngine().scan(job(httpserver, tmp_path, seconds=600))
    assert (caught.value.reason, caught.value.retryable) == ("scanner_failed", False)
    assert asked(httpserver).count(f"POST {INDEX}") == 3


def test_a_clair_that_is_not_there_is_said_within_the_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, clair_url="http://127.0.0.1:9")
    naps: list[float] = []
    with ClairClient(settings, 5, sleep=naps.append) as client, pytest.raises(EngineError) as caught:
        client.index_state()
    assert (caught.value.reason, caught.value.retryable) == ("clair_unavailable", True)
    assert naps


def test_a_cancelled_scan_asks_no_more(fake: HTTPServer, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        ClairEngine().scan(replace(job(fake, tmp_path), cancelled=lambda: True))
    assert caught.value.reason == "cancelled"
    assert not fake.log


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"clair_url": ""}, "no Clair is configured"),
        ({"clair_url": "clair:6060"}, "not a URL"),
        ({"clair_url": "http://user:pass@clair"}, "not a URL"),
        ({"clair_psk": Secret("not base64!")}, "not base64"),
        ({"clair_layers_address": "nowhere"}, "not an address to listen on"),
        ({"clair_layers_address": "192.0.2.1:0"}, "cannot listen on"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    fake: HTTPServer, tmp_path: Path, setting: dict[str, Any], says: str
) -> None:
    work = job(fake, tmp_path)
    with pytest.raises(EngineError, match=says) as caught:
        ClairEngine().scan(replace(work, settings=replace(work.settings, **setting)))
    assert caught.value.hint


def read(change: Callable[[dict[str, Any]], None]) -> EngineReport:
    document = recorded("vulnerability_report")
    change(document)
    updates = Updates("x", {"debian/updater": NOW})
    return Reader(document, IMAGE).report("v4", updates)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(packages=[]),
        lambda d: d.update(packages={"2": []}),
        lambda d: d["packages"]["2"].update(name=""),
        lambda d: d["packages"]["2"].update(name=" "),
        lambda d: d["environments"]["2"][0].update(distribution_id=[]),
        lambda d: d["environments"]["2"][0].update(distribution_id={"1": "1"}),
        lambda d: d.update(vulnerabilities={key: {**v, "name": " "} for key, v in d["vulnerabilities"].items()}),
        lambda d: d.update(vulnerabilities={k: {**v, "fixed_in_version": 3} for k, v in d["vulnerabilities"].items()}),
        lambda d: d.update(environments={"2": {}}),
        lambda d: d.update(package_vulnerabilities={"2": "1"}),
        lambda d: d.update(package_vulnerabilities={"999": ["1"]}),
        lambda d: d.update(package_vulnerabilities={"2": ["999"]}),
        lambda d: d.update(vulnerabilities={key: {**v, "name": ""} for key, v in d["vulnerabilities"].items()}),
        lambda d: d.update(enrichments={"x; enricher=clair.cvss": {}}),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(EngineError) as caught:
        read(change)
    assert caught.value.reason == "scanner_output_invalid"


def test_no_package_is_not_clean() -> None:
    found = read(lambda d: d.update(packages={}, environments={}, package_vulnerabilities={}))
    assert [gap.reason for gap in found.incomplete] == ["nothing_to_scan"]


def test_no_distribution_is_not_clean() -> None:
    found = read(lambda d: d.update(distributions={}))
    assert [gap.reason for gap in found.incomplete] == ["unsupported_os", "no_advisories"]
    assert {c.type for c in found.components} == {"unknown"}


def test_packages_of_two_releases_are_not_clean() -> None:
    """A layer on top that tells another release takes its packages out of what they would be compared with."""

    def two(document: dict[str, Any]) -> None:
        document["distributions"]["2"] = {**document["distributions"]["1"], "id": "2", "version_id": "15"}
        document["environments"]["2"][0]["distribution_id"] = "2"

    found = read(two)
    assert [(g.reason, "debian 15" in g.detail) for g in found.incomplete] == [("release_disagrees", True)]


@pytest.mark.parametrize(
    ("updater", "change", "covered"),
    [
        ("alpine-main-v3.20-updater", {"did": "alpine", "version_id": "", "version": "3.20"}, True),
        ("alpine-main-v3.19-updater", {"did": "alpine", "version_id": "", "version": "3.20"}, False),
        ("alpine-main-edge-updater", {"did": "alpine", "version_id": "", "version": "edge"}, True),
        ("ubuntu/updater/jammy", {"did": "ubuntu", "version_id": "22.04", "version_code_name": "jammy"}, True),
        ("ubuntu/updater/focal", {"did": "ubuntu", "version_id": "22.04", "version_code_name": "jammy"}, False),
        ("debian/updater", {"did": "debian", "version_id": "12"}, True),
        ("debian/updater", {"did": "debian", "version_id": "99"}, False),
        ("debian/updater", {"did": "kali", "version_id": "2024.3"}, False),
        ("rhel-vex", {"did": "rhel", "version_id": "9"}, True),
        ("oracle-2024-updater", {"did": "ol", "version_id": "9"}, True),
        ("aws-AL2023-updater", {"did": "amzn", "version_id": "2023"}, True),
        ("aws-AL2-updater", {"did": "amzn", "version_id": "2023"}, False),
        ("suse-updater-suse.linux.enterprise.server.15", {"did": "sles", "version_id": "15.5"}, True),
        ("suse-updater-opensuse.leap.15.5", {"did": "opensuse-leap", "version_id": "15.6"}, False),
        ("photon-updater-photon3", {"did": "photon", "version_id": "3.0"}, True),
        ("photon-updater-photon3", {"did": "photon", "version_id": "4.0"}, False),
    ],
)
def test_an_updater_covers_the_releases_that_it_names(updater: str, change: dict[str, str], covered: bool) -> None:
    document = recorded("vulnerability_report")
    document["distributions"]["1"].update(change)
    found = Reader(document, IMAGE).report("v4", Updates("x", {updater: NOW}))
    assert [gap.reason for gap in found.incomplete] == ([] if covered else ["no_advisories"])


@pytest.mark.parametrize(("updater", "covered"), [("osv/PyPI", True), ("osv/npm", False), ("debian/updater", False)])
def test_a_language_without_an_updater_is_not_clean(updater: str, covered: bool) -> None:
    document = recorded("vulnerability_report")
    for places in document["environments"].values():
        places[0].update(package_db="python:opt/site-packages", distribution_id="")
    found = Reader(document, IMAGE).report("v4", Updates("x", {updater: NOW, "debian/updater": NOW}))
    assert [gap.reason for gap in found.incomplete] == ([] if covered else ["no_advisories"])


def test_a_distribution_without_advisories_is_not_clean() -> None:
    """Clair matches such an image against nothing, and answers with an empty list."""

    def rocky(document: dict[str, Any]) -> None:
        document.update(vulnerabilities={}, package_vulnerabilities={})
        document["distributions"]["1"].update(did="rocky", version_id="9")

    found = read(rocky)
    assert [(g.reason, "rocky" in g.detail) for g in found.incomplete] == [("no_advisories", True)]


def test_a_layer_that_is_not_of_this_image_is_not_named() -> None:
    def elsewhere(document: dict[str, Any]) -> None:
        for items in document["environments"].values():
            items[0]["introduced_in"] = "sha256:" + "f" * 64

    assert {v.layer for v in read(elsewhere).vulnerabilities} == {None}


def test_language_packages_have_their_own_purls_and_paths() -> None:
    def languages(document: dict[str, Any]) -> None:
        places = {"2": "python:usr/lib/python3", "4": "nodejs:app/package.json", "6": "go:bin/x", "8": "maven:app.jar"}
        names = {"2": "Flask", "4": "@scope/name", "6": "example.com/mod/v2", "8": "org.acme:thing"}
        for key, place in places.items():
            document["environments"][key][0].update(package_db=place, distribution_id="")
            document["packages"][key].update(name=names[key], version="1.0", arch="")

    components = {c.type: c for c in read(languages).components}
    assert components["python-pkg"].purl == "pkg:pypi/flask@1.0"
    assert components["node-pkg"].purl == "pkg:npm/%40scope/name@1.0"
    assert components["gobinary"].purl == "pkg:golang/example.com/mod/v2@1.0"
    assert components["jar"].purl == "pkg:maven/org.acme/thing@1.0"
    assert components["python-pkg"].path == "usr/lib/python3"


def test_links_are_http_or_nothing() -> None:
    def links(document: dict[str, Any]) -> None:
        for item in document["vulnerabilities"].values():
            item.update(
                links="javascript:alert(1) data:x https://ok.example", fixed_in_version="fixed=2.0&introduced=0"
            )

    found = read(links).vulnerabilities[0]
    assert (found.url, found.references, found.fixed_versions) == (
        "https://ok.example",
        ("https://ok.example",),
        ("2.0",),
    )


# A real Clair


def scan_with(settings: Settings, layout: Path, engine: str = "clair") -> ImageReport:
    with local_services(settings) as services:
        return run(ScanRequest(f"oci:{layout}", engine=engine), services, lambda progress: None).images[0]


@pytest.mark.real_clock  # our token would be of the future
def test_a_real_clair(clair: Clair, settings: Settings, sample_layouts: Path) -> None:
    settings = replace(settings, clair_url=clair.url, clair_psk=Secret(clair.key))
    clair.load(
        [advisory(CVE, "libssl3", "Critical", "3.0.13-1~deb12u1")],
        [cvss(CVE, 9.8, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")],
    )
    image = scan_with(settings, sample_layouts / "shop/vulnerable")
    found = image.engines[0]
    assert [(v.id, v.package, v.severity, v.fixed_versions) for v in found.vulnerabilities] == [
        (CVE, "libssl3", Severity.CRITICAL, ("3.0.13-1~deb12u1",))
    ]
    assert found.vulnerabilities[0].cvss[0].score == 9.8
    assert found.vulnerabilities[0].layer == image.image.layers[0].diff_id
    assert not found.incomplete
    assert not image.incomplete, "our own reading of the image agrees with what Clair saw of it"
    posts = clair.log.count('"method":"POST","request_uri":"/indexer/api/v1/index_report"')
    clair.load(
        [advisory(CVE, "libssl3", "Critical", "3.0.13-1~deb12u1"), advisory("CVE-2026-90003", "libxml2", "High")]
    )
    again = scan_with(settings, sample_layouts / "shop/vulnerable").engines[0]
    assert {v.id for v in again.vulnerabilities} == {CVE, "CVE-2026-90003"}
    assert again.advisories.id != found.advisories.id
    assert clair.log.count('"method":"POST","request_uri":"/indexer/api/v1/index_report"') == posts, "not indexed again"
    assert "Bearer " not in clair.log


_DEBIAN = b'PRETTY_NAME="Debian"\nNAME="Debian GNU/Linux"\nID=debian\n'
SPOOFED = {
    "debian_version of Kali": {"etc/debian_version": b"kali-rolling\n"},
    "debian_version of no release": {"etc/debian_version": b"15.0\n"},
    "Kali": {"etc/os-release": b'NAME="Kali GNU/Linux"\nID=kali\nID_LIKE=debian\nVERSION_ID="2026.3"\n'},
    "no such Debian": {"etc/os-release": _DEBIAN + b'VERSION_ID="15"\nVERSION="15 (duke)"\nVERSION_CODENAME=duke\n'},
    "testing": {"etc/os-release": _DEBIAN, "etc/debian_version": b"trixie/sid\n"},
    "Alpine edge": {
        "etc/os-release": b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.24_alpha20260101\nPRETTY_NAME="Alpine"\n',
        "etc/alpine-release": b"3.24_alpha20260101\n",
    },
}


@pytest.mark.real_clock
@pytest.mark.parametrize(
    ("name", "squashed"),
    [
        pytest.param(name, squashed, marks=() if (name, squashed) == ("Kali", True) else pytest.mark.long)
        for name in SPOOFED
        for squashed in (False, True)
    ],
)
def test_a_real_clair_that_compares_with_nothing(
    clair: Clair, settings: Settings, tmp_path: Path, name: str, squashed: bool
) -> None:
    """A vulnerable Debian 12 names another release: Clair's silence is not an absence of findings."""
    settings = replace(settings, clair_url=clair.url, clair_psk=Secret(clair.key))
    clair.load([advisory(CVE, "libssl3", "Critical", "3.0.13-1~deb12u1")])
    vulnerable = next(sample for sample in SAMPLES if sample.repository == "shop/vulnerable")
    base, *others = vulnerable.steps
    files = {**base.files, **SPOOFED[name]} if squashed else base.files
    above = () if squashed else (Step("COPY release /etc", SPOOFED[name]),)
    build_layout(replace(vulnerable, steps=(replace(base, files=files), *others, *above)), tmp_path / "layout")
    image = scan_with(settings, tmp_path / "layout")
    found = {v.id for v in image.engines[0].vulnerabilities}
    reasons = {i.reason for i in (*image.incomplete, *image.engines[0].incomplete)}
    if "etc/os-release" in SPOOFED[name]:
        assert reasons & {"no_advisories", "release_disagrees", "unsupported_os"}, reasons
    else:  # Clair reads os-release only
        assert CVE in found


def test_a_real_clair_refuses_another_key(clair: Clair, settings: Settings, sample_layouts: Path) -> None:
    settings = replace(settings, clair_url=clair.url, clair_psk=Secret(KEY))
    found = scan_with(settings, sample_layouts / "shop/good").engines[0]
    assert [gap.reason for gap in found.incomplete] == ["clair_refused"]


@pytest.mark.real_clock
def test_a_real_clair_that_cannot_reach_us_says_so(
    clair: Clair, settings: Settings, sample_layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clair_client, "_MAX_WAIT", 0.01)
    settings = replace(
        settings, clair_url=clair.url, clair_psk=Secret(clair.key), clair_layers_url="http://127.0.0.1:9"
    )
    found = scan_with(settings, sample_layouts / "shop/aging").engines[0]
    assert [gap.reason for gap in found.incomplete] == ["scanner_failed"]
    assert "docs/clair.md" in found.incomplete[0].detail or "connection refused" in found.incomplete[0].detail
