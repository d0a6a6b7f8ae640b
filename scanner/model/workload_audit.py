"""The result of an audit: each workload with its checks, its image's verdict, and the decision about both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Decision, Reason, Verdict, is_undecided
from scanner.model.finding import CheckResult
from scanner.model.workload import Workload


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What is known about a workload's image. ``verdict`` None: unknown; ``message`` says why."""

    verdict: Verdict | None
    undecided: bool = False
    digest: str = ""  # empty: unknown
    message: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """The evaluation of one workload.

    ``own_verdict`` and ``reasons`` are about how it runs, and ``decision`` makes the decision that contains them: its
    digests take as long as the checks, and few reports show them. ``image`` None: the image was not evaluated.
    """

    workload: Workload
    checks: tuple[CheckResult, ...]
    own_verdict: Verdict
    reasons: tuple[Reason, ...]
    decision: Callable[[], Decision]
    image: ImageAnswer | None = None

    @property
    def verdict(self) -> Verdict:
        """The worse verdict of workload and image. An image that should be evaluated but is unknown denies."""
        if self.image is None:
            return self.own_verdict
        return max(self.own_verdict, self.image.verdict or Verdict.DENY, key=lambda verdict: verdict.rank)

    @property
    def undecided(self) -> bool:
        """True if it is denied only because evidence is missing."""
        if self.verdict is not Verdict.DENY:
            return False
        own_denies = self.own_verdict is Verdict.DENY and not is_undecided(self.own_verdict, self.reasons)
        image_denies = self.image is not None and self.image.verdict is Verdict.DENY and not self.image.undecided
        return not own_denies and not image_denies


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of one audit. ``targets``: as given by the user."""

    targets: tuple[str, ...]
    workloads: tuple[WorkloadReport, ...]
    policy: str
    finished_at: datetime
    dockwarden: str  # our version
    environment: str = ""  # empty: none was named

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all workloads; ``allow`` if there are none."""
        return max((each.verdict for each in self.workloads), key=lambda v: v.rank, default=Verdict.ALLOW)

    @property
    def undecided(self) -> bool:
        """True if it is denied only because evidence is missing."""
        denied = [each for each in self.workloads if each.verdict is Verdict.DENY]
        return bool(denied) and all(each.undecided for each in denied)
