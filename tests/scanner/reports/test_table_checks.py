"""What the checks found, in a terminal: severity, then each find with the layer and instruction that made it, once."""

from __future__ import annotations

from scanner.model.finding import CheckResult, Evidence, Failed, Severity
from scanner.model.reference import Digest
from scanner.reports.base import ReportSubject
from scanner.reports.table import TableReport
from tests.reports_factory import image_report, report, simple

DIFF = Digest.of(b"diff")


def evidence(path: str, layer: int = 0) -> Evidence:
    return Evidence(
        f"/{path} is setuid", layer=DIFF, layer_index=layer, path=path, instruction="RUN a", history_index=layer
    )


def lines(failed: Failed, *hints: str) -> list[str]:
    found = report(image_report([], {"setuid-files": failed}))
    return TableReport().render(ReportSubject(found, fix_hints=hints)).splitlines()


def test_what_one_layer_made_is_told_once() -> None:
    shown = lines(
        Failed((evidence("bin/su"), evidence("bin/mount"), evidence("bin/x", 1), evidence("bin/y")), Severity.LOW)
    )
    at = shown.index("    ✕ setuid-files (low): /bin/su is setuid")
    assert shown[at + 1 : at + 4] == [
        "      /bin/mount is setuid [layer 0, RUN a]",
        "      /bin/x is setuid [layer 1, RUN a]",
        "      … and 1 more",
    ]


def test_a_find_in_the_config_names_its_line_of_the_history() -> None:
    shown = lines(Failed((Evidence("USER is root", history_index=7, instruction="USER root", pointer="/config/User"),)))
    assert "    ✕ setuid-files (high): USER is root [history line 7, USER root]" in shown


def test_the_worse_first() -> None:
    item = simple().images[0]
    checks = (
        CheckResult("a-low", Failed((Evidence("x"),), Severity.LOW), Severity.CRITICAL),
        CheckResult("b-high", Failed((Evidence("y"),)), Severity.HIGH),
    )
    found = report(type(item)(item.image, item.engines, checks))
    text = TableReport().render(ReportSubject(found))
    assert text.index("b-high (high)") < text.index("a-low (low)")


def test_hints_are_shown_as_they_are_and_harmless() -> None:
    fragment = "RUN chmod a-s " + " ".join(f"/usr/bin/program{n}" for n in range(20)) + "\nUSER 1\x1b[31m"
    shown = lines(Failed((evidence("bin/su"),)), fragment)
    assert shown[-3] == "Dockerfile"
    assert shown[-2] == fragment.splitlines()[0]
    assert "\x1b" not in shown[-1]
