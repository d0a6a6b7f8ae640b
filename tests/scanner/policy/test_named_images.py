"""The other images of a workload in a decision: the worst verdict counts, and only a violation is decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from scanner.model.decision import Change, Decision, Reason, ReasonKind, Verdict
from scanner.model.reference import Digest
from scanner.model.workload import ImageUse
from scanner.policy.named_images import NamedImage, joined_decision, of_decision, unknown

DIGEST = Digest.of(b"an image")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
USE = ImageUse("registry.example.com/tool:1", "init", "setup")


def decided(verdict: Verdict, kind: ReasonKind = ReasonKind.VIOLATION) -> Decision:
    reasons = () if verdict is Verdict.ALLOW else (Reason("r", kind, verdict, "openssl is old", "CVE-1"),)
    changes = (Change("upgrade", "openssl", "to 3"),) if reasons else ()
    found = Decision(verdict, reasons, "p", 1, DIGEST, DIGEST, DIGEST, NOW, NOW + timedelta(hours=2), changes)
    return replace(found, environment="production")


@pytest.mark.parametrize("own", Verdict)
@pytest.mark.parametrize("other", Verdict)
def test_the_worst_verdict_counts(own: Verdict, other: Verdict) -> None:
    named = of_decision(USE, decided(other), str(DIGEST))
    together = joined_decision(decided(own), [named])
    assert together.verdict is max(own, other, key=lambda one: one.rank)
    assert not together.undecided
    assert (named.reason is None) is (other is Verdict.ALLOW)
    assert any(USE.image in one.detail for one in together.changes) is (other is together.verdict is not Verdict.ALLOW)


def test_a_gap_is_undecided_and_a_violation_beside_it_decides() -> None:
    gap = unknown(USE, "the registry does not answer")
    assert joined_decision(decided(Verdict.ALLOW), [gap]).undecided
    assert not joined_decision(decided(Verdict.DENY), [gap]).undecided
    assert not joined_decision(decided(Verdict.ALLOW), [gap, of_decision(USE, decided(Verdict.DENY), "")]).undecided
    assert joined_decision(decided(Verdict.DENY, ReasonKind.INCOMPLETE), [gap]).undecided


def test_the_sentence_names_use_image_and_reasons() -> None:
    many = NamedImage(USE, Verdict.DENY, reasons=("a", "b", "c", "d", "e"))
    assert many.reason is not None
    assert many.reason.message == (
        "the init container setup runs registry.example.com/tool:1, which is denied: a; b; c; and 2 more"
    )
    mounted = unknown(ImageUse("x:1", "mounted", ""), "it is not an image")
    assert mounted.reason is not None
    assert mounted.reason.message == (
        "the container mounts the files of x:1, which could not be decided: it is not an image"
    )


def test_it_is_valid_until_the_first_of_them_may_change() -> None:
    sooner = NamedImage(USE, Verdict.ALLOW, valid_until=NOW + timedelta(hours=1))
    assert joined_decision(decided(Verdict.ALLOW), [sooner]).valid_until == NOW + timedelta(hours=1)
    assert joined_decision(decided(Verdict.ALLOW), []).valid_until == NOW + timedelta(hours=2)
