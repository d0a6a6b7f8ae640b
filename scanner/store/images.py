"""Images: record a scan's evidence and decisions in one transaction, and read evidence back.

The complete evidence is stored once under its digest and never changed. Packages, vulnerabilities and names are also
stored as rows, which `scanner.store.listings` queries.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.model import agreement, versions
from scanner.model.decision import Decision
from scanner.model.finding import Component, Failed, Incomplete, Severity, TrustStatus, Vulnerability
from scanner.model.matching import RUNGS
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport, ScanReport, ScanRequest, report_adapter
from scanner.store import (
    base_watch,
    bases,
    gate,
    image_events,
    inventory,
    matches,
    outbox,
    pulls,
    retention,
    scans,
    tags,
)
from scanner.store.schema import (
    SafeText,
    component,
    decision,
    finding,
    first_seen,
    image,
    image_component,
    image_stack,
    listing,
    report,
    verdict,
    vulnerability,
)
from scanner.store.session import epoch, insert_new, moment, put

_CHUNK = 500  # rows of one statement
# Bytes of an index key: PostgreSQL takes up to 2,704.
_PURL_BYTES, _NAME_BYTES = 1000, 128


@dataclass(frozen=True)
class DecisionRecord:
    """A decision to record."""

    decision: Decision
    document: str  # its JSON, the gate's answer


def record(
    session: Connection,
    held: scans.Claim,
    found: ScanReport,
    evidence: Digest,
    made: Sequence[DecisionRecord],
    rungs: Sequence[float] = RUNGS,
    *,
    engine: str = "",
) -> None:
    """Record a scan's evidence and decisions and finish the scan, all or nothing.

    ``rungs``: see ``model.matching``. ``engine``: the project's engine; empty: any.

    Partial evidence is stored with its decisions but changes no verdict: evidence about one platform says nothing about
    the rest of an index, and evidence of another engine than the project's must not replace a verdict that is based on
    more engines. Otherwise a user could request a narrower scan to get a better verdict.

    Raises LeaseLost if another worker has the scan; the caller must roll back.
    """
    project = held.request.project
    retention.block_pruning(session)
    whole = found.answers(held.request.platform)
    decides = whole and _engine_decides(session, found, engine)
    _hold(session, found.digest, found.repository)
    # Evidence of another engine does not replace a listing, but a name that is not listed at all gets one: unknown
    # would be shown as never scanned.
    listed = decides or (whole and not _is_listed(session, found, project))
    report_id = _store_report(session, found, evidence, whole=whole)
    if listed:
        # Before the links are replaced: afterwards everything that the image has counts as known.
        _tell_new_vulnerabilities(session, found, project)
        _store_images(session, found)
    for one in made:
        _store_decision(session, one, found, report_id, project, held.scan_id, in_force=decides)
    if listed:
        listing_id = _store_listing(session, found, report_id, project, [one.decision for one in made])
        matches.link(session, listing_id, found, rungs)
        base_watch.note(session, listing_id, found, project)
        if found.tag and found.repository:
            former = tags.note(session, found.repository, found.tag, found.digest, held.request.source)
            if former:
                base_watch.note_moved(session, found.repository, found.tag)
                outbox.add(
                    session,
                    [image_events.tag_moved(found.repository, found.tag, str(found.digest), former, project)],
                )
    inventory.invalidate_image(session, found.repository, found.tag, found.digest)
    scans.finish(
        session, held, report_id, found.digest, "" if decides else _evidence_only_message(held.request, engine, whole)
    )


def _evidence_only_message(asked: ScanRequest, engine: str, whole: bool) -> str:
    """Return the message of a scan whose evidence changed no verdict."""
    if not whole:
        return f"evidence about {asked.platform} only: no decision about the whole index"
    return f"evidence by {asked.engine} only: images of project {asked.project} are decided with engine {engine}"


def _engine_of(found: ScanReport) -> str:
    """Return the engines of the evidence as the value of a request's ``engine``."""
    engines = found.images[0].engines if found.images else ()
    return "both" if len(engines) > 1 else "".join(e.engine for e in engines)


def _engine_decides(session: Connection, found: ScanReport, engine: str) -> bool:
    """Return whether the evidence may change the verdict.

    It needs the project's engine, or the engines of the current verdict.
    """
    own = _engine_of(found)
    return own in ("", "both", engine) or engine == "" or own == _engine_in_force(session, found)


def _engine_in_force(session: Connection, found: ScanReport) -> str | None:
    """Return the engines of the current verdict's evidence. None: there is no verdict."""
    query = sa.select(report.c.engine).join(verdict, verdict.c.report_id == report.c.id)
    query = query.where(verdict.c.digest == found.digest, verdict.c.repository == found.repository)
    return session.execute(query.order_by(report.c.engine == "both").limit(1)).scalar()


def _is_listed(session: Connection, found: ScanReport, project: str) -> bool:
    name = {"project": project, "repository": found.repository, "tag": found.tag, "digest": found.digest}
    return session.execute(sa.select(listing.c.id).filter_by(**name)).first() is not None


def redecide(
    session: Connection, report_id: str, found: ScanReport, made: Sequence[DecisionRecord], project: str
) -> None:
    """Store new decisions about stored evidence (a policy changed, a grace period ended) and update all its tags.

    The time of the scan is not changed.
    """
    _hold(session, found.digest, found.repository)
    for one in made:
        _store_decision(session, one, found, report_id, project, None)
    # A tag is listed once, with the worst verdict of all its environments.
    worst = _worst([one.decision for one in made])
    same_name = sa.and_(listing.c.digest == found.digest, listing.c.repository == found.repository)
    session.execute(listing.update().where(same_name).values(verdict=worst.verdict, undecided=worst.undecided))
    inventory.invalidate_image(session, found.repository, "", found.digest)


@dataclass(frozen=True)
class Stale:
    """An outdated decision."""

    digest: str
    repository: str
    environment: str  # empty: the decision for no environment
    decision_id: int
    report_id: str
    project: str


def stale(session: Connection, *, limit: int) -> tuple[Stale, ...]:
    """Return outdated decisions, the longest outdated first."""
    names = ("digest", "repository", "environment", "decision_id", "report_id", "project")
    query = sa.select(*(verdict.c[name] for name in names)).where(verdict.c.valid_until <= epoch(session))
    return tuple(Stale(*row) for row in session.execute(query.order_by(verdict.c.valid_until).limit(limit)))


def _hold(session: Connection, digest: str, repository: str) -> None:
    """Lock the listing rows of an image by id.

    Every writer locks listings first, then the image, then verdicts. Other orders can deadlock on PostgreSQL.
    """
    mine = sa.and_(listing.c.digest == digest, listing.c.repository == repository)
    session.execute(sa.select(listing.c.id).where(mine).order_by(listing.c.id).with_for_update()).all()


def claim_stale(session: Connection, found: Stale) -> bool:
    """Return whether the decision is still outdated. Locks it until the end of the transaction."""
    gate.begin_decision(session)
    _hold(session, found.digest, found.repository)
    key = (
        verdict.c.digest == found.digest,
        verdict.c.repository == found.repository,
        verdict.c.environment == found.environment,
    )
    # Another worker that renews it has the lock; waiting would only repeat its work.
    query = sa.select(verdict.c.decision_id).where(*key).with_for_update(skip_locked=True)
    return session.execute(query).scalar() == found.decision_id


@dataclass(frozen=True)
class ListingEvidence:
    """A listed name with its current evidence."""

    id: int
    project: str
    repository: str
    tag: str
    digest: str
    report_id: str  # of the evidence that the decision is made of


def lock_listing(session: Connection, listing_id: int) -> ListingEvidence | None:
    """Return a listing by id and lock it, so that a concurrent scan of the name waits. None: it is gone."""
    gate.begin_decision(session)
    retention.block_pruning(session)  # before the row lock: pruning locks in the same order
    columns = (
        listing.c.id,
        listing.c.project,
        listing.c.repository,
        listing.c.tag,
        listing.c.digest,
        listing.c.report_id,
    )
    row = session.execute(sa.select(*columns).where(listing.c.id == listing_id).with_for_update()).first()
    return ListingEvidence(*row) if row else None


def renew(
    session: Connection,
    name: ListingEvidence,
    former: ScanReport,
    found: ScanReport,
    evidence: Digest,
    made: Sequence[DecisionRecord],
) -> int:
    """Replace the evidence of a name after a re-match with newer advisories, without a scan.

    New critical or exploited vulnerabilities are written to the outbox. Returns the number of new findings.
    """
    report_id = _store_report(session, found, evidence)
    own, in_force = _engine_of(found), _engine_in_force(session, found)
    decides = in_force is not None and own in ("", "both", in_force)
    # A re-match changes vulnerabilities, seldom packages: writing all links again would be most of its time.
    if _components(former) == _components(found):
        _change_findings(session, former, found)
    else:
        _store_images(session, found)
    for one in made:
        _store_decision(session, one, found, report_id, name.project, None, in_force=decides)
    values = _listed_values(found, report_id, name.project, [one.decision for one in made])
    session.execute(listing.update().where(listing.c.id == name.id).values(**values))
    inventory.invalidate_image(session, found.repository, found.tag, found.digest)
    before = {(v.purl, v.id) for v in _vulnerabilities(former)}
    new = [v for v in _vulnerabilities(found) if (v.purl, v.id) not in before]
    urgent = image_events.become_urgent(_vulnerabilities(former), _vulnerabilities(found))
    outbox.add(session, image_events.new_vulnerabilities(session, found, name.project, urgent))
    return len(new)


def _tell_new_vulnerabilities(session: Connection, found: ScanReport, project: str) -> None:
    """What a rescan found in images that were known: a first scan tells its verdict, not each vulnerability."""
    before = image_events.known_before(session, {str(item.image.digest) for item in found.images})
    if before is None:
        return
    new = [
        v
        for item in found.images
        if str(item.image.digest) in before
        for e in item.engines
        for v in e.vulnerabilities
        if bounded_key(v.id, _NAME_BYTES) not in before[str(item.image.digest)]
    ]
    outbox.add(session, image_events.new_vulnerabilities(session, found, project, new))


def _components(found: ScanReport) -> list[tuple[Component, ...]]:
    return [e.components for i in found.images for e in i.engines]


def _vulnerabilities(found: ScanReport) -> list[Vulnerability]:
    return [v for i in found.images for e in i.engines for v in e.vulnerabilities]


def _store_report(session: Connection, found: ScanReport, evidence: Digest, *, whole: bool = True) -> str:
    engines = found.images[0].engines if found.images else ()
    gaps = [x for i in found.images for x in (*i.incomplete, *(g for e in i.engines for g in e.incomplete))]
    row = {
        "id": evidence.hex,
        "digest": found.digest,
        "repository": found.repository,
        "tag": found.tag,
        "engine": _engine_of(found),
        "engine_version": "+".join(e.version for e in engines)[:64],
        "advisories": "+".join(e.advisories.id for e in engines)[:100],
        "platform": str(found.images[0].image.platform) if len(found.images) == 1 else "",
        "complete": bool(found.images) and not gaps and whole,
        "created_at": moment(session),
        "body": zlib.compress(report_adapter().dump_json(found), 6),
    }
    insert_new(session, report, [row])
    return evidence.hex


def _store_images(session: Connection, found: ScanReport) -> None:
    """Write images and replace their links to packages and vulnerabilities.

    Rows that scans share are written table by table in sorted order. Otherwise two concurrent scans could deadlock.
    """
    pictures = {item.image.digest: item for item in found.images}
    insert_new(session, image, [_image_values(session, pictures[digest]) for digest in sorted(pictures)])
    stacks = [row for item in found.images if (row := bases.stack(found.digest, item.image))]
    insert_new(session, image_stack, sorted(stacks, key=lambda row: str(row["digest"])))
    blobs = {(str(blob), str(item.image.digest)) for item in found.images for blob in item.image.blobs}
    pulls.note_blobs(session, found.digest, blobs)
    # Concurrent scans of the same image wait here.
    numbers = sa.select(image.c.digest, image.c.id).where(image.c.digest.in_(list(pictures))).order_by(image.c.id)
    image_ids = {row.digest: row.id for row in session.execute(numbers.with_for_update())}
    links = {digest: _Links.of(item) for digest, item in pictures.items()}
    components = {key: row for one in links.values() for key, row in one.components.items()}
    advisories = {v.id: v for one in links.values() for v in one.vulnerabilities}
    names = {bounded_key(name, _NAME_BYTES): v for name, v in advisories.items()}
    component_ids = _shared_ids(session, component, "purl", components, components.__getitem__)
    vulnerability_ids = _shared_ids(session, vulnerability, "name", names, lambda name: _advisory(name, names[name]))
    pairs: set[tuple[int, int]] = set()
    for digest in sorted(links):
        pairs |= _link(session, image_ids[digest], links[digest], component_ids, vulnerability_ids)
    if found.repository:
        now = moment(session)
        seen_now = [
            {"repository": found.repository, "component_id": c, "vulnerability_id": v, "at": now}
            for c, v in sorted(pairs)
        ]
        insert_new(session, first_seen, seen_now)


def _change_findings(session: Connection, former: ScanReport, found: ScanReport) -> None:
    """Update the links of images with unchanged packages and changed vulnerabilities.

    Writes only the difference: a new advisory database changes few of the many findings of all images.
    """
    before, after = _found_pairs(former), _found_pairs(found)
    gone = before.keys() - after.keys()
    come = {key: v for key, v in after.items() if key not in before or _fix(before[key]) != _fix(v)}
    touched = sorted({digest for digest, _, _ in (*gone, *come)})
    if not touched:
        return
    numbers = sa.select(image.c.digest, image.c.id).where(image.c.digest.in_(touched)).order_by(image.c.id)
    image_ids = {row.digest: row.id for row in session.execute(numbers.with_for_update())}
    changed = [(key[1], before.get(key) or after[key]) for key in (*gone, *come)]
    wanted = {purl: _component_row(Component(v.purl, v.package, v.installed_version, "")) for purl, v in changed}
    component_ids = _shared_ids(session, component, "purl", wanted, wanted.__getitem__)
    names = {name: v for (_, _, name), v in come.items()}
    vulnerability_ids = _shared_ids(session, vulnerability, "name", names, lambda name: _advisory(name, names[name]))
    vulnerability_ids |= _ids(session, vulnerability, vulnerability.c.name, {name for _, _, name in gone})

    def row(key: tuple[str, str, str]) -> dict[str, int]:
        digest, purl, name = key
        return {
            "image_id": image_ids[digest],
            "component_id": component_ids[purl],
            "vulnerability_id": vulnerability_ids[name],
        }

    columns = (finding.c.image_id, finding.c.component_id, finding.c.vulnerability_id)
    rows = [{f"old_{name}": number for name, number in row(key).items()} for key in sorted((*gone, *come))]
    session.execute(finding.delete().where(*(c == sa.bindparam(f"old_{c.name}") for c in columns)), rows)
    insert_new(session, finding, [{**row(key), **_fix(come[key])} for key in sorted(come)])
    if found.repository:
        now = moment(session)
        pairs = sorted({(r["component_id"], r["vulnerability_id"]) for r in map(row, come)})
        seen_now = [
            {"repository": found.repository, "component_id": c, "vulnerability_id": v, "at": now} for c, v in pairs
        ]
        insert_new(session, first_seen, seen_now)


def _found_pairs(found: ScanReport) -> dict[tuple[str, str, str], Vulnerability]:
    """Return the findings of a report by (image digest, package key, vulnerability name)."""
    return {
        (item.image.digest, purl_key(v.purl), bounded_key(v.id, _NAME_BYTES)): v
        for item in found.images
        for e in item.engines
        for v in e.vulnerabilities
    }


def _fix(v: Vulnerability) -> dict[str, Any]:
    """The columns about the fix of a finding."""
    return {"fixable": v.fixable, "fixed": versions.upgrade(v.installed_version, v.fixed_versions)[:200]}


@dataclass(frozen=True)
class _Links:
    """The packages (rows by key) and vulnerabilities of one image."""

    components: Mapping[str, Mapping[str, str]]
    vulnerabilities: Sequence[Vulnerability]

    @classmethod
    def of(cls, item: ImageReport) -> _Links:
        vulnerabilities = [v for e in item.engines for v in e.vulnerabilities]
        # A vulnerability may name a package that the engine did not list: its row is needed for the link.
        packages = [Component(v.purl, v.package, v.installed_version, "") for v in vulnerabilities]
        packages += [c for e in item.engines for c in e.components]  # with more data, so they replace the former
        return cls({purl_key(c.purl): _component_row(c) for c in packages}, vulnerabilities)


def _component_row(item: Component) -> dict[str, str]:
    return {
        "purl": purl_key(item.purl),
        "name": item.name[:512],
        "version": item.version[:512],
        "type": item.type[:64],
    }


def _image_values(session: Connection, item: ImageReport) -> dict[str, Any]:
    picture = item.image
    return {
        "digest": picture.digest,
        "config_digest": picture.config.digest,
        "platform": str(picture.platform),
        "size": picture.size,
        "created_at": picture.config.created,
        "first_seen": moment(session),
    }


def _link(
    session: Connection,
    image_id: int,
    links: _Links,
    component_ids: Mapping[str, int],
    vulnerability_ids: Mapping[str, int],
) -> set[tuple[int, int]]:
    # Replaced as a whole: a package that the newer engine no longer sees must not keep its findings.
    session.execute(finding.delete().where(finding.c.image_id == image_id))
    session.execute(image_component.delete().where(image_component.c.image_id == image_id))
    own = sorted(component_ids[key] for key in links.components)
    insert_new(session, image_component, [{"image_id": image_id, "component_id": number} for number in own])
    pairs = {
        (component_ids[purl_key(v.purl)], vulnerability_ids[bounded_key(v.id, _NAME_BYTES)]): _fix(v)
        for v in links.vulnerabilities
    }
    rows = [
        {"image_id": image_id, "component_id": c, "vulnerability_id": v, **fix}
        for (c, v), fix in sorted(pairs.items(), key=lambda pair: pair[0])
    ]
    insert_new(session, finding, rows)
    return set(pairs)


def purl_key(purl: str) -> str:
    """Return the key of a package: its purl, shortened if it is long."""
    return bounded_key(purl, _PURL_BYTES)


def bounded_key(text: str, size: int) -> str:
    """Return ``text`` as a key of at most ``size`` bytes. Long text is shortened and gets a hash.

    PostgreSQL refuses index keys above 2,704 bytes. Truncation alone would make different long names equal.
    """
    if len(text) <= size and text.isascii() and "\0" not in text:
        return text
    # Measured as it will be stored, without NUL and half surrogates.
    kept = SafeText().process_bind_param(text, None) or ""
    data = kept.encode()
    if len(data) <= size:
        return kept
    mark = "~" + hashlib.sha256(data).hexdigest()[:32]
    return data[: size - len(mark)].decode("utf-8", "ignore") + mark


def _advisory(name: str, v: Vulnerability) -> dict[str, Any]:
    document = {
        "references": list(v.references),
        "cvss": [[c.version, c.vector, c.score, c.source] for c in v.cvss],
        "cwes": list(v.cwes),
        "aliases": list(v.aliases),
        "known_exploited": v.known_exploited,
        "epss": v.epss,
    }
    return {
        "name": name,
        "severity": v.severity,
        "title": v.title[:512],
        "description": v.description,
        "url": v.url[:1000],
        "document": document,
        "published": v.published.timestamp() if v.published else 0.0,
    }


def refresh(session: Connection, items: Iterable[Vulnerability]) -> None:
    """Update severity, text and exploitation of known vulnerabilities. Those that no image ever had are ignored."""
    newest = {bounded_key(v.id, _NAME_BYTES): v for v in items}
    rows = [
        {"n": name, **{f"new_{k}": x for k, x in _advisory(name, newest[name]).items() if k != "name"}}
        for name in sorted(newest)
    ]
    if rows:
        columns = ("severity", "title", "description", "url", "document", "published")
        values = {vulnerability.c[c]: sa.bindparam(f"new_{c}", type_=vulnerability.c[c].type) for c in columns}
        session.execute(vulnerability.update().where(vulnerability.c.name == sa.bindparam("n")).values(values), rows)


def _shared_ids(
    session: Connection, table: sa.Table, key: str, keys: Collection[str], row: Callable[[str], Mapping[str, Any]]
) -> dict[str, int]:
    """Return the ids of shared rows by key. Missing rows are inserted.

    Reads first, because most rows exist: images share packages.
    """
    known = _ids(session, table, table.c[key], keys)
    missing = sorted(set(keys) - known.keys())
    if missing:
        insert_new(session, table, [row(name) for name in missing])
        known |= _ids(session, table, table.c[key], missing)
    return known


def _ids(session: Connection, table: sa.Table, column: sa.ColumnElement[Any], keys: Iterable[str]) -> dict[str, int]:
    wanted = list(keys)
    found: dict[str, int] = {}
    # Databases limit the parameters of a statement (SQLite: 32,766).
    for start in range(0, len(wanted), _CHUNK):
        rows = session.execute(sa.select(column, table.c.id).where(column.in_(wanted[start : start + _CHUNK])))
        found.update((row[0], row[1]) for row in rows)
    return found


def _store_decision(
    session: Connection,
    made: DecisionRecord,
    found: ScanReport,
    report_id: str,
    project: str,
    scan_id: str | None,
    *,
    in_force: bool = True,
) -> None:
    """Append a decision to the history. ``in_force``: it also becomes the gate's verdict."""
    d = made.decision
    decision_id = session.execute(
        decision.insert()
        .values(
            digest=d.subject,
            repository=found.repository,
            policy=d.policy,
            policy_version=d.policy_version,
            environment=d.environment,
            verdict=d.verdict,
            undecided=d.undecided,
            evidence=d.evidence,
            scan_id=scan_id,
            decided_at=d.decided_at,
            document=made.document,
        )
        .returning(decision.c.id)
    ).scalar_one()
    # The decision stays in the history, which explains the scan. It is not what the gate answers.
    if not in_force:
        return
    key = (
        verdict.c.digest == d.subject,
        verdict.c.repository == found.repository,
        verdict.c.environment == d.environment,
    )
    # An event only where the verdict changed. Every policy change renews all decisions, and most of them say the same
    # again.
    before = session.execute(sa.select(verdict.c.document).where(*key)).scalar()
    values = {
        "digest": d.subject,
        "repository": found.repository,
        "environment": d.environment,
        "project": project,
        "decision_id": decision_id,
        "report_id": report_id,
        "document": made.document,
        "valid_until": d.valid_until.timestamp() if d.valid_until else None,
    }
    put(session, verdict, values, ("digest", "repository", "environment"))
    if before is None or f'"verdict":"{d.verdict}"' not in before:
        outbox.add(session, [image_events.verdict_event(found, d, project)])


def _worst(decisions: Sequence[Decision]) -> Decision:
    # Of two denials, the one for a known reason: "undecided" would suggest that a rescan can help.
    return max(decisions, key=lambda d: (d.verdict.rank, not d.undecided))


def _store_listing(
    session: Connection, found: ScanReport, report_id: str, project: str, decisions: Sequence[Decision]
) -> int:
    """Insert or replace the listing of a name. Returns its id."""
    values = _listed_values(found, report_id, project, decisions)
    values |= {"scanned_at": moment(session), "scanned_epoch": epoch(session)}
    key = ("project", "repository", "tag", "digest")
    put(session, listing, values, key)
    return int(session.execute(sa.select(listing.c.id).where(*(listing.c[n] == values[n] for n in key))).scalar_one())


def _listed_values(found: ScanReport, report_id: str, project: str, decisions: Sequence[Decision]) -> dict[str, Any]:
    worst = _worst(decisions)
    # Two engines report most vulnerabilities twice, often under different ids. They are counted once, so that the
    # numbers do not double with a second engine.
    agreed = [f.vulnerability for i in found.images for f in agreement.findings(i.engines)]
    vulnerabilities = {(v.purl, v.id): v for v in agreed}.values()
    counts = Counter(v.severity for v in vulnerabilities)
    outcomes = [c.outcome for i in found.images for c in i.checks]
    gaps = {
        (x.reason, x.detail)
        for i in found.images
        for x in (*i.incomplete, *(g for e in i.engines for g in e.incomplete))
    }
    return {
        "project": project,
        "repository": found.repository,
        "tag": found.tag,
        "digest": found.digest,
        "report_id": report_id,
        "verdict": worst.verdict,
        "undecided": worst.undecided,
        **{
            s.value: counts[s]
            for s in (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.UNKNOWN)
        },
        "fixable": sum(v.fixable for v in vulnerabilities),
        "failed_checks": sum(isinstance(o, Failed) for o in outcomes),
        "incomplete": len(gaps) + sum(isinstance(o, Incomplete) for o in outcomes),
        "exploited": sum(bool(v.known_exploited) for v in vulnerabilities),
        "signer": next(iter(_signers(found)), "")[:200],
        "base": next((i.base.reference for i in found.images if i.base and i.base.reference), "")[:600],
        "size": sum(i.image.size for i in found.images),
    }


def _signers(found: ScanReport) -> list[str]:
    verified = (
        v for i in found.images for v in i.verifications if v.status is TrustStatus.VERIFIED and not v.predicate_type
    )
    return sorted({s.name or s.keyid or s.role for v in verified for s in v.signers} - {""})


# Reading


def evidence(session: Connection, report_id: str) -> ScanReport:
    """Return the stored evidence. Raises NotFoundError."""
    body = session.execute(sa.select(report.c.body).where(report.c.id == report_id)).scalar()
    if body is None:
        raise NotFoundError("there is no such evidence")
    return report_adapter().validate_json(zlib.decompress(body))


def first_seen_times(session: Connection, repository: str, found: ScanReport) -> dict[tuple[str, str], datetime]:
    """Return when this repository first had each vulnerability of each package, by (purl, id)."""
    if not repository:
        return {}
    query = (
        sa.select(component.c.purl, vulnerability.c.name, first_seen.c.at)
        .join(component, component.c.id == first_seen.c.component_id)
        .join(vulnerability, vulnerability.c.id == first_seen.c.vulnerability_id)
        .where(first_seen.c.repository == repository)
    )
    times = {(row.purl, row.name): row.at for row in session.execute(query)}
    now = moment(session)
    pairs = {(v.purl, v.id) for i in found.images for e in i.engines for v in e.vulnerabilities}
    return {(purl, name): times.get((purl_key(purl), bounded_key(name, _NAME_BYTES)), now) for purl, name in pairs}
