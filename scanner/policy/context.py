"""The context of a decision: time, exemptions, VEX statements, newer advisories, revocations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Revoked
from scanner.model.finding import CheckResult, EngineReport, Matched
from scanner.model.matching import Basis, Confirmed, basis_of
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.vex import Exemption, VexStatement

if TYPE_CHECKING:
    from scanner.model.posture import Posture
    from scanner.model.workload import Workload

FirstSeen = Mapping[tuple[str, str], datetime]


@dataclass(frozen=True, slots=True)
class Context:
    """The inputs of a decision other than evidence and policy."""

    now: datetime
    version: int = 0  # of the policy; 0: the built-in one
    environment: str = ""  # empty: none was asked about
    exemptions: tuple[Exemption, ...] = ()
    vex: tuple[VexStatement, ...] = ()
    first_seen: FirstSeen | None = None  # (purl, vulnerability) -> when this repository first had it
    workloads: tuple[Workload, ...] = ()  # the workloads that run the image; empty: not given
    workload_results: tuple[CheckResult, ...] = ()  # results of every workload check on each workload
    remedies: Mapping[str, str] | None = None  # check id -> remedy, from the catalogue
    posture: Posture | None = None  # posture of the image's registry, if it is newer than the evidence
    revoked: tuple[Revoked, ...] = ()  # engine versions and databases whose evidence counts as unknown
    examined_at: datetime | None = None  # when a scan last gathered identical evidence, if known
    first_named: tuple[Digest, datetime] | None = None  # what the image's tag named first, and when; None: not known
    confirmed: tuple[Confirmed, ...] = ()  # newer advisories that gave the same result for this evidence, newest last


def with_confirmed(report: ScanReport, context: Context) -> ScanReport:
    """Return the report with the newest advisories that gave the same findings, which also set its age."""
    # Revoked advisories must not confirm anything: then the older answer counts, with its own age.
    newest = {(c.image, c.engine): c.on for c in context.confirmed if not _revoked_part(_parts(c.on), context)}
    if not newest:
        return report

    def renewed(image: ImageReport, engine: EngineReport) -> EngineReport:
        on = newest.get((image.image.digest, engine.engine))
        if on is None:
            return engine
        matched = Matched(on.version, on.binary, context.now)
        return replace(engine, advisories=on.advisories, feeds=on.feeds, matched=matched)

    return replace(
        report, images=tuple(replace(i, engines=tuple(renewed(i, e) for e in i.engines)) for i in report.images)
    )


def _parts(on: Basis) -> Iterator[tuple[str, str, str]]:
    """Yield what can be revoked: (engine, version, digest) of engines, binaries and advisories."""
    yield on.engine, on.version, on.binary or ""
    yield "", "", on.advisories.digest or ""


def _revoked_part(parts: Iterable[tuple[str, str, str]], context: Context) -> Revoked | None:
    for engine, version, digest in parts:
        for item in context.revoked:
            # A digest names one file exactly. Engine and version are for a release that was bad on every machine.
            if item.digest == digest if item.digest else (item.engine, item.version) == (engine, version):
                return item
    return None


def revoked_basis(engine: EngineReport, context: Context) -> str:
    """Return which part of an answer (engine, binary, advisories) was revoked, as a sentence. Empty: none."""
    parts = [(engine.engine, engine.version, engine.binary or ""), *_parts(basis_of(engine))]
    revoked = _revoked_part(parts, context)
    return f"it is based on {revoked}, which was revoked" if revoked else ""
