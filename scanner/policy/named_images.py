"""The other images that a workload names, in the decision about the image that was asked about. Pure.

A container can run a file of an image that it mounts, and an init container shares the volumes of the pod. A workload
is therefore not better than the worst of its images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Change, Decision, Reason, ReasonKind, Verdict
from scanner.model.untrusted import clean_text

if TYPE_CHECKING:
    from scanner.model.workload import ImageUse

RULE = "workload-image"  # the rule of the reasons that come from another image
# Of another image, shown beside the workload's own.
_REASONS = 3
_REMEDY = "ask about this image itself: dockwarden gate {}"


@dataclass(frozen=True)
class NamedImage:
    """Another image of the workload, with what was decided about it.

    ``reasons``: messages of those that denied it or warned about it, the first ones first.
    """

    use: ImageUse
    verdict: Verdict
    undecided: bool = False
    digest: str = ""  # empty: it could not be resolved
    reasons: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    valid_until: datetime | None = None  # the first time at which the decision may differ; None: no such time

    @property
    def reason(self) -> Reason | None:
        """The reason that it adds to the decision. None: it is allowed."""
        if self.verdict is Verdict.ALLOW:
            return None
        image = clean_text(self.use.image, 300)
        outcome = "has a warning" if self.verdict is Verdict.WARN else "is denied"
        outcome = "could not be decided" if self.undecided else outcome
        why = "; ".join(clean_text(each, 300) for each in self.reasons[:_REASONS])
        more = f"; and {len(self.reasons) - _REASONS} more" if len(self.reasons) > _REASONS else ""
        return Reason(
            RULE,
            ReasonKind.INCOMPLETE if self.undecided else ReasonKind.VIOLATION,
            self.verdict,
            f"{self.use.text} {image}, which {outcome}{': ' if why else ''}{why}{more}",
            image,
            remedy=_REMEDY.format(image),
            slug=RULE if self.undecided else "",
        )


def of_document(use: ImageUse, document: Mapping[str, Any]) -> NamedImage:
    """Return what the gate's answer about an image says of it."""
    verdict = Verdict(document["verdict"])
    against = [each for each in document["reasons"] if each["kind"] not in ("satisfied", "exempted")]
    denying = [each for each in against if each["action"] == verdict] or against
    until = document["valid_until"]
    return NamedImage(
        use,
        verdict,
        bool(document["undecided"]),
        str(document["digest"] or ""),
        tuple(each["message"] for each in denying),
        tuple(Change(each["action"], each["target"], each["detail"]) for each in document["changes"]),
        datetime.fromisoformat(until) if isinstance(until, str) else until,
    )


def of_decision(use: ImageUse, decision: Decision, digest: str) -> NamedImage:
    """Return what a decision says of an image."""
    against = [each for each in decision.reasons if each.kind not in (ReasonKind.SATISFIED, ReasonKind.EXEMPTED)]
    denying = [each for each in against if each.action is decision.verdict] or against
    messages = tuple(each.message for each in denying)
    undecided = decision.undecided
    return NamedImage(use, decision.verdict, undecided, digest, messages, decision.changes, decision.valid_until)


def unknown(use: ImageUse, why: str) -> NamedImage:
    """Return an image that could not be examined. Unknown is never clean, so it denies."""
    return NamedImage(use, Verdict.DENY, True, reasons=(why,))


def joined_decision(decision: Decision, others: Sequence[NamedImage]) -> Decision:
    """Return the decision about an image and the other images of its workload: the worst verdict counts."""
    verdict = max([decision.verdict, *(each.verdict for each in others)], key=lambda one: one.rank)
    reasons = tuple(reason for each in others if (reason := each.reason) is not None)
    # The changes that change the verdict: an image that only warns is not in the way of one that is denied.
    own = decision.changes if decision.verdict is verdict else ()
    found = [decision.valid_until, *(each.valid_until for each in others)]
    return replace(
        decision,
        verdict=verdict,
        reasons=(*decision.reasons, *reasons),
        changes=(*own, *changes(others, verdict)),
        valid_until=min((moment for moment in found if moment), default=None),
    )


def changes(others: Sequence[NamedImage], verdict: Verdict) -> tuple[Change, ...]:
    """Return the changes that the images with this verdict need."""
    found = []
    for each in others:
        if each.verdict is verdict and verdict is not Verdict.ALLOW:
            image = clean_text(each.use.image, 300)
            # Two images can need different upgrades of one package, so each step names its image.
            found += [Change(one.action, one.target, f"{one.detail} (in {image})".strip()) for one in each.changes]
    return tuple(found)
