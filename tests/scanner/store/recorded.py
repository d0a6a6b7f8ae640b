"""Recording scans in tests."""

from __future__ import annotations

from scanner.model.decision import Verdict
from scanner.model.scan import ScanReport
from scanner.store import images, scans
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.store.together import transact


def claim(database: Database, project: str = "default") -> scans.Claim:
    asked = factories.request(force=True, project=project)
    scan_id = transact(database, lambda s: scans.request(s, asked)).scan_id
    held = transact(database, lambda s: scans.claim(s, "w", ["push"], 60, scan_id=scan_id))
    assert held is not None
    return held


def record(
    database: Database,
    found: ScanReport,
    judged: Verdict = Verdict.ALLOW,
    *,
    project: str = "default",
    environment: str = "",
) -> None:
    held = claim(database, project)
    made = [factories.decided(found, judged, environment)]
    transact(database, lambda s: images.record(s, held, found, factories.evidence(found), made))
