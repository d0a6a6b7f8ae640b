"""A self-contained HTML page: no script, no external resource, all text from the image escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from scanner.model import agreement
from scanner.model.decision import Decision, ReasonKind
from scanner.model.finding import Failed
from scanner.model.image import instruction
from scanner.model.plurals import number_of
from scanner.model.scan import ImageReport
from scanner.reports import _audit
from scanner.reports.base import AuditSubject, ReportFormat, ReportSubject, image_gaps

# Second line of defence: if escaping fails somewhere, the injected markup still cannot run a script or load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8886;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
.deny,.critical,.high,.unknown{color:#b00020}.warn,.medium{color:#8a5a00}.allow{color:#0a6b2d}
@media (prefers-color-scheme:dark){
.deny,.critical,.high,.unknown{color:#ff8a80}.warn,.medium{color:#ffcc80}.allow{color:#81c995}}
code{font:13px/1.4 ui-monospace,monospace}
"""


class HtmlReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "html"
    title = "HTML"
    purpose = "one page to keep or send, without scripts"
    media_type = "text/html"
    extension = "html"

    def render(self, subject: ReportSubject) -> str:
        return "\n".join(_page(subject)) + "\n"

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return "\n".join(_audit_page(subject)) + "\n"


# The class names that the style sheet colours. A cell is matched against them, so that text of an image is no class.
_CLASSES = frozenset({"deny", "warn", "allow", "critical", "high", "medium", "low", "unknown", "none"})


def _page(subject: ReportSubject) -> Iterator[str]:
    report, decision = subject.report, subject.decision
    title = _audit.html_text(report.reference or str(report.digest))
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
    yield (
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" '
        'content="no-referrer">'
    )
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{title}</h1><p><code>{_audit.html_text(str(report.digest))}</code></p>"
    if decision:
        yield from _decision(decision)
    for image in report.images:
        yield from _image(image)
    if not report.images:
        yield "<p>No image was examined. The result is unknown, not clean.</p>"
    yield (
        f"<p>Scanned {report.finished_at:%Y-%m-%d %H:%M} UTC by Dockwarden "
        f"{_audit.html_text(report.dockwarden)}.</p></main></body></html>"
    )


def _audit_page(subject: AuditSubject) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
    yield (
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" '
        'content="no-referrer">'
    )
    yield f"<title>Audit</title><style>{_STYLE}</style></head><body><main>"
    yield from _audit.html(subject)
    audit = subject.audit
    yield (
        f"<p>Audited {audit.finished_at:%Y-%m-%d %H:%M} UTC by Dockwarden "
        f"{_audit.html_text(audit.dockwarden)}.</p></main></body></html>"
    )


def _decision(decision: Decision) -> Iterator[str]:
    label = decision.verdict.upper() + (" (could not be decided)" if decision.undecided else "")
    yield f'<h2 class="{decision.verdict}">{label}</h2><p>by policy {_audit.html_text(decision.policy)}</p>'
    kinds = {ReasonKind.INCOMPLETE: "not known", ReasonKind.EXEMPTED: "accepted", ReasonKind.VIOLATION: "found"}
    rows = [(r.action, r.rule, kinds[r.kind], r.message, r.remedy) for r in decision.reasons]
    yield from _table("Reasons", ("Action", "Rule", "Kind", "Reason", "What to do"), rows)


def _image(image: ImageReport) -> Iterator[str]:
    config = image.image.config
    yield f"<h2>{_audit.html_text(str(config.platform))} <code>{image.image.digest.short}</code></h2>"
    built = f"{config.created:%Y-%m-%d}" if config.created else "not known"
    yield (
        f"<p>{number_of(len(image.image.layers), 'layer')}, {image.image.size / 1e6:.1f} MB, user "
        f"{_audit.html_text(config.user or 'root (unset)')}, built {built}</p>"
    )
    engines = [
        (
            e.engine,
            e.version,
            e.coverage.system or "not recognised",
            str(e.coverage.packages),
            f"{e.advisories.updated_at:%Y-%m-%d %H:%M} UTC" if e.advisories.updated_at else "not known",
        )
        for e in image.engines
    ]
    yield from _table("Engines", ("Engine", "Version", "System", "Packages", "Advisories updated"), engines)
    unknown = [(name, gap.detail or gap.reason) for name, gap in image_gaps(image)]
    yield from _table("Not known", ("What", "Why"), unknown)
    found = sorted(
        agreement.findings(image.engines),
        key=lambda f: (-f.vulnerability.severity.rank, f.vulnerability.package, f.vulnerability.id),
    )
    upgrades = agreement.Upgrades(found)
    rows = [
        (
            f.vulnerability.severity,
            f.vulnerability.id,
            f.vulnerability.package,
            f.vulnerability.installed_version,
            upgrades.of(f.vulnerability) or f.vulnerability.status.replace("_", " "),
            f.dispute or f.vulnerability.title,
        )
        for f in found
    ]
    yield from _table("Vulnerabilities", ("Severity", "Id", "Package", "Version", "Fixed in", "Title"), rows)
    failed = [
        (r.outcome.severity or r.severity, r.check, e.message, e.path, e.instruction)
        for r in image.checks
        if isinstance(r.outcome, Failed)
        for e in r.outcome.evidence
    ]
    yield from _table("Failed checks", ("Severity", "Check", "Evidence", "Path", "Instruction"), failed)
    layers = [(str(x.index), instruction(x.created_by), f"{x.size / 1e6:.1f} MB") for x in image.image.layers]
    yield from _table("Layers", ("Layer", "Created by", "Compressed"), layers)


def _table(caption: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    yield f'<h3>{caption}</h3><div class="scroll"><table><thead><tr>'
    yield "".join(f'<th scope="col">{_audit.html_text(name)}</th>' for name in head) + "</tr></thead><tbody>"
    for row in rows:
        style = f' class="{row[0]}"' if str(row[0]) in _CLASSES else ""
        first = f"<td{style}>{_audit.html_text(row[0])}</td>"
        yield f"<tr>{first}" + "".join(f"<td>{_audit.html_text(cell)}</td>" for cell in row[1:]) + "</tr>"
    yield "</tbody></table></div>"
