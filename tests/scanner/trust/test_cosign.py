"""cosign: the sample cases, then every rule on signatures made here."""

from __future__ import annotations

from typing import Any

import pytest

from scanner.model.finding import TrustStatus
from scanner.trust.cosign import Cosign
from tests.scanner.trust.trees import cases, run_case

CASES = cases("cases_cosign.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_sample_cases(case: dict[str, Any]) -> None:
    answer = run_case(Cosign(), case)
    if "digest" in case["expect"]:
        assert (answer.status, answer.digest) == (TrustStatus.VERIFIED, case["expect"]["digest"])
        assert answer.signers
    else:
        assert answer.status is not TrustStatus.VERIFIED
        assert answer.reason in case["expect"]["error"], answer
        assert (answer.status is TrustStatus.UNKNOWN) is (answer.reason == "unavailable")
