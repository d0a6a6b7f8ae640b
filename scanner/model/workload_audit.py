"""What an audit of workloads found: each workload, its checks, its image's verdict, and the decision about both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from scanner.model.decision import Decision, Verdict
from scanner.model.finding import CheckResult
from scanner.model.workload import Workload


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """What is known of the image that a workload runs. ``verdict`` None: not known, and ``message`` says why."""

    verdict: Verdict | None
    undecided: bool = False
    digest: str = ""
    message: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """One workload judged.

    ``decision`` is about how it is run; ``image`` is None where nobody asked about its image.
    """

    workload: Workload
    checks: tuple[CheckResult, ...]
    decision: Decision
    image: ImageAnswer | None = None

    @property
    def verdict(self) -> Verdict:
        """The worse of how it is run and of its image. An image that is asked for and not known denies."""
        own = [self.decision.verdict]
        if self.image is not None:
            own.append(self.image.verdict or Verdict.DENY)
        return max(own, key=lambda verdict: verdict.rank)

    @property
    def undecided(self) -> bool:
        """Whether it is denied only for want of evidence."""
        if self.verdict is not Verdict.DENY:
            return False
        own_denies = self.decision.verdict is Verdict.DENY and not self.decision.undecided
        image_denies = self.image is not None and self.image.verdict is Verdict.DENY and not self.image.undecided
        return not own_denies and not image_denies


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of one audit. ``targets`` are the texts that were asked for."""

    targets: tuple[str, ...]
    workloads: tuple[WorkloadReport, ...]
    policy: str
    finished_at: datetime
    dockwarden: str  # our version
    environment: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst of all workloads; ``allow`` where there is none."""
        return max((each.verdict for each in self.workloads), key=lambda v: v.rank, default=Verdict.ALLOW)

    @property
    def undecided(self) -> bool:
        """Whether it is denied only for want of evidence."""
        denied = [each for each in self.workloads if each.verdict is Verdict.DENY]
        return bool(denied) and all(each.undecided for each in denied)
