"""The changes that make a denied image pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from scanner.model import versions
from scanner.model.decision import Change, Reason, ReasonKind, Verdict


def changes(reasons: Sequence[Reason]) -> tuple[Change, ...]:
    """Return the changes that remove every denial: one for each package, check, signature or missing evidence.

    Without a denial, the changes that remove the warnings.
    """
    # Warnings would bury the few changes that open the gate, so they are shown only when nothing is denied.
    relevant = [r for r in reasons if r.action is Verdict.DENY] or [
        r for r in reasons if r.kind not in (ReasonKind.EXEMPTED, ReasonKind.SATISFIED)
    ]
    steps: dict[tuple[str, str], list[Reason]] = defaultdict(list)
    for reason in relevant:
        if reason.kind is ReasonKind.INCOMPLETE:
            steps["examine", reason.slug].append(reason)
        elif reason.remedy.startswith("upgrade "):
            steps["upgrade", reason.remedy.removeprefix("upgrade ").partition(" to ")[0]].append(reason)
        elif reason.remedy:
            steps["sign" if reason.remedy.startswith("sign") else "configure", reason.subject].append(reason)
        else:
            steps["replace", reason.subject].append(reason)
    return tuple(_change(action, target, group) for (action, target), group in steps.items())


def _change(action: str, target: str, group: Sequence[Reason]) -> Change:
    if action == "upgrade":
        # One upgrade per package: the highest of the needed versions removes all its vulnerabilities at once.
        needed = versions.highest(r.remedy.partition(" to ")[2] for r in group)
        return Change(action, target, f"to {needed}", tuple(dict.fromkeys(r.subject for r in group)))
    detail = group[0].remedy if action in ("configure", "sign") else group[0].message
    return Change(action, target, detail, tuple(dict.fromkeys(r.rule for r in group)))
