"""Somebody's SBOM: read within bounds from a real registry, marked as theirs, and never instead of our own look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from scanner import catalog
from scanner.advisories import database, trivydb
from scanner.config import Limits, Settings
from scanner.demo import samples
from scanner.errors import ImageError
from scanner.model import agreement
from scanner.model.finding import Component, Severity
from scanner.model.reference import Digest
from scanner.model.scan import AttachedSbom, ImageReport, ScanRequest
from scanner.policy.rules import default_policy, parse_policy
from scanner.registry.attached import parse_sbom
from scanner.reports.base import ReportSubject
from scanner.reports.cyclonedx import CycloneDxReport
from scanner.reports.spdx import SpdxReport
from scanner.scanning import pipeline
from scanner.scanning.attached_sboms import LookupContext, look_up
from scanner.scanning.pipeline import local_services, run
from tests.scanner.reports.subjects import every, ordinary
from tests.servers import Registry

CYCLONEDX, SPDX = "application/vnd.cyclonedx+json", "application/spdx+json"
MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
OURS = {
    "type": "library",
    "name": "libc6",
    "version": "2.36-9+deb12u9",
    "purl": "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9",
}
THEIRS = {
    "type": "library",
    "name": "vendored",
    "version": "1.0",
    "purl": "pkg:generic/vendored@1.0",
    "licenses": [{"license": {"id": "MIT"}}],
}
SBOM = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [OURS, {**THEIRS, "components": [{**THEIRS, "name": "inner"}]}],
}


def attach(registry: Registry, repository: str, subject: dict[str, Any], sboms: list[tuple[str, bytes]]) -> None:
    """As a client does where the registry has no referrers API: artifacts, and an index under the tag
    ``sha256-<hex>``.
    """
    base = f"http://{registry.host}/v2/{repository}"
    with httpx.Client(trust_env=False, timeout=30) as client:

        def put(data: bytes) -> dict[str, Any]:
            digest = str(Digest.of(data))
            place = client.post(f"{base}/blobs/uploads/").headers["Location"]
            client.put(f"{place}&digest={digest}", content=data).raise_for_status()
            return {"digest": digest, "size": len(data)}

        empty = {"mediaType": "application/vnd.oci.empty.v1+json", **put(b"{}")}
        listed = []
        for kind, data in sboms:
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "artifactType": kind,
                    "config": empty,
                    "layers": [{"mediaType": kind, **put(data)}],
                    "subject": subject,
                }
            ).encode()
            digest = str(Digest.of(manifest))
            headers = {"Content-Type": MANIFEST}
            client.put(f"{base}/manifests/{digest}", content=manifest, headers=headers).raise_for_status()
            listed.append({"mediaType": MANIFEST, "artifactType": kind, "digest": digest, "size": len(manifest)})
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        tag = subject["digest"].replace(":", "-")
        client.put(f"{base}/manifests/{tag}", content=index, headers={"Content-Type": INDEX}).raise_for_status()


def scan(settings: Settings, target: str) -> ImageReport:
    with local_services(settings) as services:
        return run(ScanRequest(target), services, lambda progress: None).images[0]


def pushed(registry: Registry, sample_layouts: Path, name: str, repository: str, sboms: list[tuple[str, bytes]]) -> str:
    registry.push(f"oci:{sample_layouts / name}", f"{repository}:1")
    answer = httpx.get(
        f"http://{registry.host}/v2/{repository}/manifests/1", headers={"Accept": MANIFEST}, trust_env=False
    )
    subject = {"mediaType": MANIFEST, "digest": str(Digest.of(answer.content)), "size": len(answer.content)}
    attach(registry, repository, subject, sboms)
    return f"{registry.host}/{repository}:1"


def test_what_is_attached_is_read_and_marked(
    plain_registry: Registry, settings: Settings, sample_layouts: Path
) -> None:
    sboms = [
        (CYCLONEDX, json.dumps(SBOM).encode()),
        (SPDX, b"not even JSON"),
        ("application/vnd.in-toto+json", b"{}"),
    ]
    target = pushed(plain_registry, sample_layouts, "shop/good", "sboms/good", sboms)
    settings = replace(settings, insecure_registries=(plain_registry.host,))
    assert scan(settings, target).attached == (), "nobody asked for it"
    image = scan(replace(settings, attached_sboms=True), target)
    theirs, broken = image.attached
    assert (theirs.format, [c.name for c in theirs.components]) == ("cyclonedx", ["libc6", "vendored", "inner"])
    assert [c.name for c in agreement.unseen(theirs, image.engines)] == ["vendored", "inner"]
    assert theirs.components[1].licenses == ("MIT",)
    assert (broken.format, broken.components) == ("spdx", ())
    assert "not JSON" in broken.problem
    assert "vendored" not in {c.name for e in image.engines for c in e.components}


def test_more_sboms_than_are_read_are_counted(
    plain_registry: Registry, settings: Settings, sample_layouts: Path
) -> None:
    """A list that ends silently would look complete."""
    deep = {"bomFormat": "CycloneDX", "components": [nested(20)]}
    sboms = [(CYCLONEDX, json.dumps({**SBOM, "serialNumber": f"urn:uuid:{n}"}).encode()) for n in range(9)]
    target = pushed(
        plain_registry, sample_layouts, "shop/good", "sboms/many", [(CYCLONEDX, json.dumps(deep).encode()), *sboms]
    )
    settings = replace(settings, insecure_registries=(plain_registry.host,), attached_sboms=True)
    found = scan(settings, target).attached
    problems = [each.problem for each in found if each.problem]
    assert len(found) == 9
    assert "nests components deeper" in problems[0]
    assert problems[-1] == "2 more were not read"


def test_an_sbom_never_stands_in_for_our_own_look(
    plain_registry: Registry, settings: Settings, sample_layouts: Path
) -> None:
    target = pushed(
        plain_registry, sample_layouts, "shop/mystery", "sboms/mystery", [(CYCLONEDX, json.dumps(SBOM).encode())]
    )
    own = replace(settings, insecure_registries=(plain_registry.host,), attached_sboms=True)
    with local_services(own) as services:
        report = run(ScanRequest(target), services, lambda progress: None)
    assert len(report.images[0].attached[0].components) == 3
    decision = pipeline.decide(report, default_policy(catalog.known_names()))
    assert decision.undecided
    shown = catalog.reports()["table"].render(ReportSubject(report, decision, width=200))
    assert "3 components, 3 of them not found in the image" in shown


def test_our_own_sboms_are_read_back() -> None:
    found = ordinary()
    expected = {(c.purl, c.name, c.version) for c in found.images[0].engines[0].components}
    for kind, form in (("cyclonedx", CycloneDxReport()), ("spdx", SpdxReport())):
        data = form.render(ReportSubject(found)).encode()
        assert {(c.purl, c.name, c.version) for c in parse_sbom(data, kind, Limits()).components} == expected


@pytest.mark.parametrize("name", list(every()))
def test_whatever_we_write_can_be_read(name: str) -> None:
    for kind, form in (("cyclonedx", CycloneDxReport()), ("spdx", SpdxReport())):
        found = every()[name]
        sbom = parse_sbom(form.render(ReportSubject(found)).encode(), kind, Limits())
        listed = {c.purl for image in found.images for e in image.engines for c in e.components}
        images = {c.purl for c in sbom.components if c.purl.startswith("pkg:oci/")}
        assert len({c.purl for c in sbom.components} - images) == len(listed)


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = THEIRS
    for _ in range(depth):
        made = {**THEIRS, "components": [made]}
    return made


def test_what_is_no_package_is_left_out_and_null_is_nothing() -> None:
    components = [
        {"type": "file", "name": "/etc/passwd"},
        {"type": "file", "name": "jar", "purl": "pkg:maven/a/b@1"},
        {**THEIRS, "licenses": None, "components": None},
        None,
    ]
    found = parse_sbom(json.dumps({**SBOM, "components": components}).encode(), "cyclonedx", Limits())
    assert [component.purl for component in found.components if component.name] == ["pkg:maven/a/b@1", THEIRS["purl"]]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("cyclonedx", b""),
        ("cyclonedx", b"[]"),
        ("cyclonedx", b"{}"),
        ("spdx", json.dumps(SBOM).encode()),
        ("cyclonedx", json.dumps({**SBOM, "components": {}}).encode()),
        ("cyclonedx", json.dumps({**SBOM, "components": ["x"]}).encode()),
        (
            "cyclonedx",
            b'{"bomFormat":"CycloneDX","components":' + b'[{"components":' * 500 + b"[]" + b"}]" * 500 + b"}",
        ),
        ("cyclonedx", json.dumps({**SBOM, "components": [nested(200)]}).encode()),
        ("spdx", b'{"spdxVersion":"SPDX-2.3","packages":[[]]}'),
        ("spdx", b'{"spdxVersion":"SPDX-3.0","packages":[]}'),
    ],
)
def test_what_is_no_sbom_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_sbom(data, kind, Limits())


def test_an_sbom_that_says_itself_that_it_lacks_something_is_told_apart() -> None:
    def partial(**more: Any) -> bool:
        return parse_sbom(json.dumps({**SBOM, **more}).encode(), "cyclonedx", Limits()).partial

    assert not partial()
    assert not partial(compositions=[{"aggregate": "complete"}, {"aggregate": "unknown"}])
    assert partial(compositions=[{"aggregate": "complete"}, {"aggregate": "incomplete_third_party_only"}])


def python(name: str, version: str = "1.0") -> dict[str, str]:
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}


def sbom(*components: Mapping[str, object]) -> bytes:
    return json.dumps({**SBOM, "components": components}).encode()


SYSTEM = {"type": "operating-system", "name": "mystery", "version": "0"}
LISTING = {"type": "application", "name": "app/poetry.lock"}
ACCEPTING = parse_policy(
    "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: sboms}\nattached_sboms: {accept: true}\n"
    "rules:\n  - {id: severe, vulnerability: {severity: [critical, high]}, action: deny}\n",
    known=catalog.known_names(),
)


@pytest.mark.parametrize(
    ("listed", "accepted", "default"),
    [
        ([sbom(python("fine"), SYSTEM, LISTING)], "allow", "deny"),
        ([sbom(python("requests"))], "deny by violation", "deny"),
        ([sbom(python("fine"), THEIRS)], "deny", "deny"),
        ([sbom(python("fine"), OURS)], "deny", "deny"),
        ([sbom({**python("fine"), "version": "2.0"})], "deny", "deny"),
        ([sbom(SYSTEM)], "deny", "deny"),
        ([b"{}"], "deny", "deny"),
        ([b"{}", sbom(python("fine"))], "allow", "deny"),
    ],
    ids=[
        "good",
        "bad",
        "of no ecosystem",
        "a distribution's",
        "contradicts itself",
        "no package",
        "broken",
        "one broken",
    ],
)
def test_the_word_of_an_sbom_where_a_policy_takes_it(
    plain_registry: Registry,
    settings: Settings,
    sample_layouts: Path,
    tmp_path: Path,
    listed: list[bytes],
    accepted: str,
    default: str,
) -> None:
    name = f"sboms/{Digest.of(b''.join(listed)).hex[:12]}"
    target = pushed(plain_registry, sample_layouts, "shop/mystery", name, [(CYCLONEDX, data) for data in listed])
    made = replace(settings, insecure_registries=(plain_registry.host,), attached_sboms=True)
    database.import_file(made, trivydb.build((*samples.ADVISORIES, REQUESTS), tmp_path / "advisories"))
    with local_services(made) as services:
        report = run(ScanRequest(target), services, lambda progress: None)
    for by, expected in ((ACCEPTING, accepted), (default_policy(catalog.known_names()), default)):
        decision = pipeline.decide(report, by)
        said = str(decision.verdict) + (
            " by violation" if decision.verdict == "deny" and not decision.undecided else ""
        )
        assert said == expected, decision.reasons
    own = report.images[0].engines[0]
    assert (own.vulnerabilities, own.components) == ((), ()), "what an SBOM says is never an engine's word on the image"


REQUESTS = trivydb.Advisory(
    "CVE-2026-2", "pip::GitHub Security Advisory Pip", "requests", Severity.HIGH, "x", "2.1", ("<2.1",)
)


def test_what_was_found_in_an_sbom_packages_is_kept_beside_it(
    plain_registry: Registry, settings: Settings, sample_layouts: Path, tmp_path: Path
) -> None:
    data = sbom(python("fine"), python("requests"), THEIRS)
    target = pushed(plain_registry, sample_layouts, "shop/mystery", "sboms/answers", [(CYCLONEDX, data)])
    made = replace(settings, insecure_registries=(plain_registry.host,), attached_sboms=True)
    database.import_file(made, trivydb.build((*samples.ADVISORIES, REQUESTS), tmp_path / "advisories"))
    with local_services(made) as services:
        report = run(ScanRequest(target), services, lambda progress: None)
    (answer,) = report.images[0].attached[0].answers
    assert (answer.engine, answer.coverage.packages, answer.components) == ("trivy", 2, ())
    assert [(v.id, v.package, v.engines) for v in answer.vulnerabilities] == [("CVE-2026-2", "requests", ("trivy",))]
    assert [gap.reason for gap in answer.incomplete] == ["not_looked_up"]
    assert "pkg:generic/vendored@1.0" in answer.incomplete[0].detail
    shown = catalog.reports()["table"].render(ReportSubject(report, None, width=300))
    assert "trivy found 1 vulnerability in them" in shown


def test_an_engine_that_cannot_look_up_says_so(settings: Settings) -> None:
    theirs = AttachedSbom(Digest.of(b"a"), "spdx", (Component("pkg:pypi/fine@1.0", "fine", "1.0", "pypi"),))
    broken = AttachedSbom(Digest.of(b"b"), "spdx", problem="not JSON")
    engines = [catalog.engines()["clair"], catalog.engines()["trivy"]]
    means = LookupContext(settings, "0", lambda: 60.0, lambda: False)
    told, unread = look_up([theirs, broken], engines, means)
    assert unread == broken
    assert [(a.engine, [gap.reason for gap in a.incomplete]) for a in told.answers] == [
        ("clair", ["cannot_match"]),
        ("trivy", ["no_advisories", "nothing_to_scan"]),
    ]


def test_a_look_up_is_bounded(settings: Settings, tmp_path: Path) -> None:
    database.import_file(settings, trivydb.build((*samples.ADVISORIES, REQUESTS), tmp_path / "advisories"))

    def gaps(made: Settings, *names: str) -> list[str]:
        listed = tuple(Component(f"pkg:pypi/{name}@1.0", name, "1.0", "pypi") for name in names)
        means = LookupContext(made, "0", lambda: 60.0, lambda: False)
        stated = [AttachedSbom(Digest.of(b"a"), "spdx", listed)]
        (told,) = look_up(stated, [catalog.engines()["trivy"]], means)
        return [gap.reason for gap in told.answers[0].incomplete]

    assert gaps(settings, "requests") == []
    few = replace(settings, limits=replace(settings.limits, packages=2))
    assert gaps(few, "one", "two", "three") == ["limit_exceeded"]
    none = replace(settings, limits=replace(settings.limits, report_findings=0))
    assert gaps(none, "requests") == ["limit_exceeded"]


def test_an_sbom_without_bounds_is_refused() -> None:
    many = {**SBOM, "components": [{**THEIRS, "name": f"n{number}"} for number in range(50_001)]}
    with pytest.raises(ImageError, match="more than 50000"):
        parse_sbom(json.dumps(many).encode(), "cyclonedx", Limits())
