"""A decision as lines for a terminal: verdict, reasons, changes. Shared by the table report and ``dockwarden gate``."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Change, Reason, ReasonKind, Verdict
from scanner.model.untrusted import clean_text

MARKS = {Verdict.ALLOW: "✓", Verdict.WARN: "▲", Verdict.DENY: "✕"}
COLORS = {Verdict.ALLOW: "32", Verdict.WARN: "33", Verdict.DENY: "31"}
_KINDS = {ReasonKind.INCOMPLETE: "unknown", ReasonKind.EXEMPTED: "accepted", ReasonKind.SATISFIED: "met"}
_ORDER = {ReasonKind.VIOLATION: 0, ReasonKind.INCOMPLETE: 1, ReasonKind.EXEMPTED: 2, ReasonKind.SATISFIED: 3}


@dataclass(frozen=True)
class DecisionText:
    """Formats a decision for a terminal.

    ``width``: columns. ``wrap_long`` wraps long texts; otherwise each reason and change is one line. ``color``: ANSI
    escapes, for a terminal only.
    """

    color: bool = False
    width: int = 100
    wrap_long: bool = True

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def headline(self, verdict: Verdict, undecided: bool, name: str) -> str:
        """Return the first line: the verdict and the image's name."""
        label = f"{MARKS[verdict]} {verdict.upper()}" + (" (could not be decided)" if undecided else "")
        return f"{self.paint(label, '1;' + COLORS[verdict])}  {clean_text(name, 300)}"

    def wrap(self, text: str, first: str, rest: str) -> list[str]:
        if not self.wrap_long:
            return [textwrap.shorten(f"{first}{clean_text(text, 600)}".lstrip(), self.width - 8, placeholder=" …")]
        lines = textwrap.wrap(clean_text(text, 600), self.width, initial_indent=first, subsequent_indent=rest)
        return lines or [first]

    def reason(self, group: Sequence[Reason]) -> Iterator[str]:
        """Return one line for a group of reasons. A single reason also shows the finding's location."""
        first = group[0]
        kind = _KINDS.get(first.kind, "")
        label = self.paint(f"{first.action:<5}", COLORS[first.action])
        # The same gap usually stops several rules: name them all, so that the reader sees what one repair would decide.
        if first.kind is ReasonKind.INCOMPLETE:
            text = f"{first.message} (rules: {', '.join(dict.fromkeys(reason.rule for reason in group))})"
        elif len(group) == 1:
            text = f"{first.rule}: {first.message}"
        else:
            shown = ", ".join(reason.subject for reason in group[:4])
            more = f" and {len(group) - 4} more" if len(group) > 4 else ""
            text = f"{first.rule}: {len(group)} findings: {shown}{more}"
        # Platforms come before the message, because a long line is cut at its end.
        platforms = list(dict.fromkeys(name for reason in group for name in reason.platforms))
        if platforms:
            more = f" and {len(platforms) - 6} more" if len(platforms) > 6 else ""
            text = f"[{', '.join(platforms[:6])}{more}] {text}"
        lines = self.wrap(f"{kind + ': ' if kind else ''}{text}", "", " " * 8)
        yield f"  {label} {lines[0]}"
        yield from lines[1:]

    def change(self, change: Change) -> Iterator[str]:
        lines = self.wrap(change.text, "", " " * 4)
        yield f"  - {lines[0]}"
        yield from lines[1:]


def group_reasons(reasons: Iterable[Reason]) -> list[list[Reason]]:
    """Group reasons by rule, action and kind, so that two hundred vulnerabilities are one line. Denials come first."""
    groups: dict[tuple[object, ...], list[Reason]] = defaultdict(list)
    for reason in reasons:
        # A gap is shown once, even if several rules could not be decided because of it.
        key = reason.message if reason.kind is ReasonKind.INCOMPLETE else reason.rule
        groups[key, reason.action, reason.kind].append(reason)
    return sorted(groups.values(), key=lambda group: (-group[0].action.rank, _ORDER[group[0].kind]))
