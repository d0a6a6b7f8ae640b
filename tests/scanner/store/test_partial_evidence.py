"""Evidence decides for exactly what was asked: never one platform for an index, never a weaker choice of engines for
a project.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from scanner.model.decision import Verdict
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.scan import ImageReport, Lane, ScanReport
from scanner.store import gate, images, listings, scans, tags
from scanner.store.schema import decision, report
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.scanner.store.together import transact

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
INDEX = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"an index"), 900)
TARGET = f"{make.REPOSITORY}:1"


def of_platform(platform: Platform) -> ImageReport:
    (item,) = make.report(f"image for {platform}").images
    config = replace(item.image.config, platform=platform)
    return replace(item, image=replace(item.image, config=config))


WHOLE = replace(make.report(), subject=INDEX, images=(of_platform(AMD64), of_platform(ARM64)))
PARTIAL = replace(WHOLE, images=WHOLE.images[1:])


def record(
    database: Database,
    found: ScanReport,
    verdict: Verdict,
    *,
    target: str = TARGET,
    platform: Platform | None = None,
    engine: str = "trivy",
    deciding: str = "trivy",
) -> scans.ScanView:
    asked = make.request(target, platform=platform, engine=engine, force=True)
    scan_id = transact(database, lambda s: scans.request(s, asked)).scan_id
    held = transact(database, lambda s: scans.claim(s, "w", ["push"], 60, scan_id=scan_id))
    assert held is not None
    made = [make.decided(found, verdict)]
    transact(database, lambda s: images.record(s, held, found, make.evidence(found), made, engine=deciding))
    with database.read() as session:
        assert scans.invariants(session) == []
        return scans.get(session, scan_id)


def by(engine: str) -> ScanReport:
    """Evidence about one image as this engine choice gives it."""
    found = make.report()
    (item,) = found.images
    theirs = replace(item.engines[0], engine="clair")
    engines = {"trivy": item.engines, "clair": (theirs,), "both": (*item.engines, theirs)}[engine]
    return replace(found, images=(replace(item, engines=engines),), started_at=make.NOW.replace(hour=len(engine)))


def in_force(database: Database, found: ScanReport) -> str | None:
    with database.read() as session:
        row = gate.current_decision(session, found.digest, "", found.repository, None)
    return row.document if row else None


def test_one_platform_does_not_decide_for_its_index(database: Database) -> None:
    record(database, WHOLE, Verdict.DENY)
    narrowed = record(database, PARTIAL, Verdict.ALLOW, platform=ARM64)
    assert "deny" in (in_force(database, WHOLE) or "")
    assert narrowed.message == "evidence about linux/arm64 only: no decision about the whole index"
    with database.read() as session:
        (listed,) = listings.list_images(session, None).items
        assert listed.verdict is Verdict.DENY
        assert listings.newest_report(session, WHOLE.digest, None)[1] == WHOLE
        assert (
            session.execute(sa.select(decision.c.verdict).where(decision.c.scan_id == narrowed.id)).scalar() == "allow"
        )


def test_one_platform_first_leaves_the_index_undecided(database: Database) -> None:
    record(database, PARTIAL, Verdict.ALLOW, platform=ARM64)
    assert in_force(database, WHOLE) is None
    with database.read() as session:
        assert listings.list_images(session, None).items == ()
        assert tags.history(session, None).items == ()


def test_one_platform_is_no_current_result_of_its_index(database: Database) -> None:
    pinned = f"{make.REPOSITORY}@{INDEX.digest}"
    record(database, PARTIAL, Verdict.ALLOW, target=pinned, platform=ARM64)
    with database.read() as session:
        for platform in (None, AMD64, ARM64, Platform("linux", "arm64", "v8")):
            assert scans.current(session, INDEX.digest, "trivy", "default", platform=platform) is None


def test_the_platform_of_a_single_image_is_all_of_it(database: Database) -> None:
    found = replace(make.report(), subject=of_platform(ARM64).image.manifest, images=(of_platform(ARM64),))
    record(database, found, Verdict.DENY, platform=ARM64)
    assert "deny" in (in_force(database, found) or "")


@pytest.mark.parametrize(
    ("there", "wanted", "fits"),
    [
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm/v7", False),
        ("linux/arm/v6", "linux/arm/v7", False),
    ],
)
def test_a_variant_is_part_of_a_platform(there: str, wanted: str, fits: bool) -> None:
    image = of_platform(Platform.parse(there))
    found = replace(make.report(), subject=image.image.manifest, images=(image,))
    assert found.answers(Platform.parse(wanted)) is fits


def test_another_engine_replaces_no_verdict_of_the_projects_engine(database: Database) -> None:
    record(database, by("trivy"), Verdict.DENY)
    other = record(database, by("clair"), Verdict.ALLOW, engine="clair")
    assert "deny" in (in_force(database, by("trivy")) or "")
    assert "decided with engine trivy" in other.message
    record(database, by("both"), Verdict.WARN, engine="both")
    assert "warn" in (in_force(database, by("trivy")) or "")


def test_another_engine_first_leaves_the_gate_undecided(database: Database) -> None:
    record(database, by("clair"), Verdict.ALLOW, engine="clair")
    assert in_force(database, by("clair")) is None
    with database.read() as session:
        assert len(listings.list_images(session, None).items) == 1, "it can be looked at"


def test_a_result_is_current_under_the_name_that_was_scanned(database: Database) -> None:
    found = make.report()
    record(database, found, Verdict.ALLOW)
    with database.read() as session:
        ask = lambda name: scans.current(session, found.digest, "trivy", "default", repository=name)  # noqa: E731
        assert ask(found.repository) is not None
        assert ask("registry.example.com/other/name") is None


@pytest.mark.parametrize(
    "change", [{"platform": ARM64}, {"engine": "clair"}, {"project": "other"}, {"target": "x/y:1"}]
)
def test_the_gate_means_only_the_very_same_request(database: Database, change: dict[str, object]) -> None:
    asked = make.request(lane=Lane.GATE)
    transact(database, lambda s: scans.request(s, replace(asked, **change)))  # type: ignore[arg-type]
    with database.read() as session:
        assert gate.recent_scan(session, asked, 60) is None
        assert gate.recent_scan(session, replace(asked, **change), 60) is not None  # type: ignore[arg-type]


def test_a_failed_scan_answers_the_gate_once(database: Database) -> None:
    asked = make.request(lane=Lane.GATE)
    scan_id = transact(database, lambda s: scans.request(s, asked)).scan_id
    held = transact(database, lambda s: scans.claim(s, "w", ["gate"], 60))
    assert held is not None
    transact(database, lambda s: scans.fail(s, held, "registry_unreachable", "no answer"))
    ask = lambda s: gate.recent_scan(s, asked, 60)  # noqa: E731
    assert transact(database, ask) is not None, "who polls learns of it"
    transact(database, lambda s: scans.request(s, replace(asked, target="registry.example.com/other:1@" + "0" * 64)))
    assert transact(database, ask) is not None, "a push of another image changes nothing"
    transact(database, lambda s: gate.note_failure_reported(s, scan_id))
    assert transact(database, ask) is None, "its cause may be gone"


def test_a_push_outdates_the_failure_of_a_tag_that_did_not_exist(database: Database) -> None:
    asked = make.request(target="registry.example.com/shop/app:1.4", lane=Lane.GATE)
    transact(database, lambda s: scans.request(s, asked))
    held = transact(database, lambda s: scans.claim(s, "w", ["gate"], 60))
    assert held is not None
    transact(database, lambda s: scans.fail(s, held, "not_found", "no such tag"))
    ask = lambda s: gate.recent_scan(s, asked, 60)  # noqa: E731
    for other in ("registry.example.com/shop/app:1.40", "registry.example.com/shop/app:1_4"):
        transact(database, lambda s, t=other: scans.request(s, replace(asked, target=f"{t}@sha256:{'1' * 64}")))
    assert transact(database, ask) is not None
    transact(
        database,
        lambda s: scans.request(s, replace(asked, target=f"{asked.target}@sha256:{'1' * 64}", lane=Lane.PUSH)),
    )
    assert transact(database, ask) is None


def test_a_scan_that_waits_to_be_tried_again_answers_however_old_it_is(database: Database) -> None:
    asked = make.request(lane=Lane.GATE)
    scan_id = transact(database, lambda s: scans.request(s, asked)).scan_id
    assert transact(database, lambda s: gate.recent_scan(s, asked, 0)) is None
    held = transact(database, lambda s: scans.claim(s, "w", ["gate"], 60))
    assert held is not None
    transact(database, lambda s: scans.retry(s, held, "registry_unreachable", "no answer"))
    found = transact(database, lambda s: gate.recent_scan(s, asked, 0))
    assert (found.id, found.message) == (scan_id, "no answer")


def test_a_failed_push_does_not_answer_the_gate(database: Database) -> None:
    asked = make.request(lane=Lane.PUSH)
    transact(database, lambda s: scans.request(s, asked))
    held = transact(database, lambda s: scans.claim(s, "w", ["push"], 60))
    assert held is not None
    transact(database, lambda s: scans.fail(s, held, "registry_unreachable", "no answer"))
    assert transact(database, lambda s: gate.recent_scan(s, asked, 60)) is None


def test_a_done_scan_answers_for_as_long_as_it_may(database: Database) -> None:
    record(database, make.report(), Verdict.ALLOW)
    asked = make.request(lane=Lane.GATE)
    assert transact(database, lambda s: gate.recent_scan(s, asked, 60)) is not None
    assert transact(database, lambda s: gate.recent_scan(s, asked, 0)) is None


def test_partial_evidence_is_not_complete(database: Database) -> None:
    record(database, PARTIAL, Verdict.ALLOW, platform=ARM64)
    with database.read() as session:
        assert session.execute(sa.select(report.c.complete)).scalar() is False
