"""The same tag with another digest in another environment: only the inventory knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.workload.digest_differs_elsewhere import DigestDiffersElsewhere
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from scanner.model.workload import Elsewhere, RunningDigest, Workload

WORKLOAD = Workload("shop/Deployment/web · app", "registry.example.com/shop/web:1.4", "kubernetes")
DIGESTS = tuple(f"sha256:{number:064x}" for number in (1, 2))


@pytest.mark.parametrize(
    ("elsewhere", "outcome"),
    [
        (None, NotApplicable),
        (Elsewhere(DIGESTS[0]), Passed),
        (Elsewhere(DIGESTS[0], (RunningDigest("staging", DIGESTS[0]),)), Passed),
        (Elsewhere(DIGESTS[0], (RunningDigest("staging", DIGESTS[1]),)), Failed),
        (Elsewhere("", (RunningDigest("staging", DIGESTS[1]),)), Incomplete),
    ],
)
def test_another_digest_elsewhere_is_known_by_the_inventory_only(elsewhere: Elsewhere | None, outcome: type) -> None:
    workload = replace(WORKLOAD, elsewhere=elsewhere)
    found = DigestDiffersElsewhere().examine(workload, None)
    assert isinstance(found, outcome)
    if isinstance(found, Failed):
        assert f"{DIGESTS[1][:19]}… in staging" in found.evidence[0].message
        assert found.remedy
    assert workload.facts() == WORKLOAD.facts(), "it is not part of the document"
