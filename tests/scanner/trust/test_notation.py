"""Notation: the sample cases, then every rule on envelopes made here."""

from __future__ import annotations

from typing import Any

import pytest

from scanner.model.finding import TrustStatus
from scanner.trust.notation import Notation
from tests.scanner.trust.trees import cases, run_case

CASES = cases("cases_notation.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_sample_cases(case: dict[str, Any]) -> None:
    answer = run_case(Notation(), case)
    if "digest" in case["expect"]:
        assert (answer.status, answer.digest) == (TrustStatus.VERIFIED, case["expect"]["digest"])
        assert answer.notes, "what was not checked is said"
    else:
        assert answer.status in (TrustStatus.REFUSED, TrustStatus.NOT_SIGNED)
        assert answer.reason in case["expect"]["error"], answer
