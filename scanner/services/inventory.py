"""The inventory of running workloads.

A source (a cluster, a host) reports a snapshot of everything that it runs. Each workload is checked, and decided by the
policies of its environment and the evidence of its image. Running images without a scan are queued.

Checks are slow and SQLite has one write lock, so a snapshot is evaluated before the transaction that writes it.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from scanner import __version__, catalog
from scanner.checks.base import ImageSubject
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.decision import ReasonKind, Verdict
from scanner.model.finding import CheckResult, Failed
from scanner.model.reference import Reference
from scanner.model.scan import Lane, ScanRequest
from scanner.model.vex import Exemption
from scanner.model.workload import Elsewhere, ImageUse, RunningDigest, Workload
from scanner.policy.evaluate import results_json
from scanner.policy.rules import default_policy
from scanner.reports.json import decision_document
from scanner.services import _fields as fields
from scanner.services import decisions, projects, workload_documents, workloads
from scanner.store import audit, exemptions, images, inventory, scans
from scanner.store import projects as stored_projects
from scanner.store.inventory import Due, ImageState, MountedImage, NewWorkload, WorkloadDecision
from scanner.store.session import Database, moment
from scanner.workloads.base import NoFiles

ENVIRONMENT = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_ENVIRONMENT_HINT = "lower-case letters, digits, and . _ - between them, such as production"
NAME_LENGTH = AGENT_LENGTH = 200
MOST_SECONDS = 86_400
# Of one source; a larger cluster reports its namespaces as sources.
MOST_WORKLOADS = 10_000
MOST_GENERATION = (1 << 53) - 1  # what every JSON reader can hold
# Labels that name the owner of a workload, by precedence.
OWNER_LABELS = ("dockwarden.owner", "owner", "team", "app.kubernetes.io/part-of", "com.docker.compose.project")
_MOST_SCANS = 500  # per snapshot, so that a new cluster does not block the queue; the next snapshot queues more
# An image that cannot be pulled fails again with every snapshot, which may come each minute.
_ASK_AGAIN_SECONDS = 24 * 3600.0
# Another snapshot of the source may be written while this one is evaluated.
_TRIES = 3
_AT_ONCE = 100


@dataclass(frozen=True)
class Snapshot:
    """Everything that one source runs.

    ``generation`` increases with each snapshot, so that a delayed one cannot replace a newer one. ``documents`` are in
    the format of ``workload_documents``. ``agent``: host and target of the agent; empty: the actor is the agent.
    ``every_seconds``: how often it reports; 0: unknown.
    """

    environment: str
    source: str
    name: str
    generation: int
    documents: Sequence[Mapping[str, Any]]
    agent: str = ""
    every_seconds: int = 0


@dataclass(frozen=True)
class SnapshotResult:
    """The numbers of workloads that a snapshot changed. The caller enqueues ``tickets`` after the transaction."""

    source: inventory.SourceView
    added: int
    changed: int
    removed: int
    unchanged: int  # were neither judged nor written again
    tickets: tuple[scans.Ticket, ...]


def parse(source: str, files: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the documents of the workloads in ``files`` (name, text), read by ``source``. Raises UsageError."""
    reader = catalog.workload_sources().get(source)
    if reader is None:
        raise _unknown_source(source)
    found = [each for name, text in files for each in reader.documents(text, name)]
    return [workload_documents.document(each) for each in reader.read(found, NoFiles())]


def report(database: Database, actor: Actor, snapshot: Snapshot, engine: str) -> SnapshotResult:
    """Replace the recorded workloads of a source by a snapshot.

    ``engine``: for projects without an engine of their own.

    Raises UsageError naming the field, RefusedError for an actor who is limited to projects,
    ConflictError(reason="out_of_order"), ConflictError(reason="another_agent").
    """
    actor.require_every_project()
    _check(snapshot)
    facts = _facts(snapshot)
    digest = hashlib.sha256(orjson.dumps(sorted((name, hashed) for name, (hashed, _) in facts.items()))).hexdigest()
    snapshot = replace(snapshot, agent=snapshot.agent or actor.name)
    _check_agent(database, actor, snapshot)
    for _ in range(_TRIES):
        with database.read() as session:
            before = inventory.source_of(session, snapshot.environment, snapshot.source, snapshot.name)
            # Refuse a delayed snapshot before the slow part. `_write` checks again under the lock.
            if before is not None:
                inventory.check_generation(before, snapshot.generation, digest)
            known = inventory.facts_digests(session, before.id) if before and before.digest != digest else {}
            same = before is not None and before.digest == digest
            # Only what changed is judged. A cluster reports thousands of workloads each minute, and nearly all are as
            # before.
            wanted = {} if same else {n: each for n, each in facts.items() if known.get(n) != each[0]}
            changed = _judge_new(session, snapshot, wanted)
        write = partial(
            _write,
            actor=actor,
            snapshot=snapshot,
            digest=digest,
            before=before,
            known=known,
            facts=facts,
            changed=changed,
            engine=engine,
        )
        if (done := database.uncrossed(write)) is not None:
            return done
    raise UsageError(
        "other snapshots of this source were recorded at the same time", reason="out_of_order", hint="send a newer one"
    )


def _write(
    session: Connection,
    actor: Actor,
    snapshot: Snapshot,
    digest: str,
    before: inventory.SourceView | None,
    known: Mapping[str, str],
    facts: Mapping[str, tuple[str, bytes]],
    changed: Sequence[NewWorkload],
    engine: str,
) -> SnapshotResult | None:
    """Write the evaluated workloads. None: another snapshot was written since ``before`` was read."""
    held = inventory.lock_source(session, snapshot.environment, snapshot.source, snapshot.name)
    # Another process wrote between the read and the lock, so `changed` was computed against the wrong state. The
    # caller begins again.
    if (before.generation if before else -1) != held.generation:
        return None
    inventory.check_generation(held, snapshot.generation, digest)
    inventory.check_agent(held, snapshot.agent, moment(session))
    inventory.note_agent(session, held, snapshot.agent, snapshot.every_seconds)
    if held.digest == digest:
        inventory.touch_source(session, held, snapshot.generation, actor.name)
        return SnapshotResult(
            _reload_source(session, held), 0, 0, 0, len(facts), _queue_scans(session, actor, held.id, engine)
        )
    gone = known.keys() - facts.keys()
    inventory.replace(session, held, snapshot.generation, digest, actor.name, changed, gone)
    added = sum(1 for each in changed if each.name not in known)
    counts = {"added": added, "changed": len(changed) - added, "removed": len(gone)}
    detail = {"environment": held.environment, "generation": snapshot.generation, "workloads": len(facts), **counts}
    audit.record(session, actor, Action.INVENTORY_REPORT, f"{held.source} {held.name}", detail=detail)
    tickets = _queue_scans(session, actor, held.id, engine)
    return SnapshotResult(_reload_source(session, held), **counts, unchanged=len(facts) - len(changed), tickets=tickets)


def _check_agent(database: Database, actor: Actor, snapshot: Snapshot) -> None:
    """Refuse an agent while another one reports the source, and record that it was. Raises ConflictError."""
    with database.read() as session:
        held = inventory.source_of(session, snapshot.environment, snapshot.source, snapshot.name)
        now = moment(session)
    if held is None:
        return
    try:
        inventory.check_agent(held, snapshot.agent, now)
    except ConflictError:
        refused = snapshot.agent if snapshot.agent == actor.name else f"{snapshot.agent}, with {actor.name}"
        database.uncrossed(partial(_note_refused, actor=actor, held=held, refused=refused))
        raise


def _note_refused(session: Connection, actor: Actor, held: inventory.SourceView, refused: str) -> None:
    inventory.note_refused(session, held, refused)
    # It tries again every few minutes. One entry says it; the source has the time of the last try.
    if not (held.contested and held.refused_agent == refused):
        detail = {"environment": held.environment, "agent": refused, "current": held.agent}
        audit.record(session, actor, Action.INVENTORY_REFUSE, f"{held.source} {held.name}", detail=detail)


def examine(
    session: Connection, actor: Actor, environment: str, documents: Sequence[Mapping[str, Any]]
) -> list[tuple[CheckResult, ...]]:
    """Check workloads with the evidence of their images and what other environments run, as a snapshot is checked.

    Nothing is recorded. Images of projects that the actor does not see count as unknown. If ``environment`` is empty,
    nothing is compared with other environments. Raises UsageError naming the field.
    """
    if environment:
        fields.check_pattern("environment", environment, ENVIRONMENT, 63, _ENVIRONMENT_HINT)
    read = []
    for each in documents:
        data = workload_documents.encode(workload_documents.without_values(each))
        if len(data) > workload_documents.MOST_BYTES:
            raise fields.invalid("workloads", f"a workload is larger than {workload_documents.MOST_BYTES >> 10} KiB")
        read.append(workload_documents.workload(data))
    judge = _Judge(session, environment, read)
    return [judge.results(each, actor) for each in read]


def remove(session: Connection, actor: Actor, source_id: str) -> None:
    """Remove a source and its workloads. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    gone = inventory.remove_source(session, source_id)
    detail = {"environment": gone.environment, "workloads": gone.workloads}
    audit.record(session, actor, Action.INVENTORY_REMOVE, f"{gone.source} {gone.name}", detail=detail)


def refresh(database: Database, *, seconds: float) -> int:
    """Renew outdated decisions about workloads for up to ``seconds``. Returns their number."""
    ends, done = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        with database.read() as session:
            stale = inventory.due(session, limit=_AT_ONCE)
            if not stale:
                return done
            judged = _judge_due(session, stale)
        written = database.uncrossed(partial(inventory.rejudge, judged=judged))
        done += written
        if not written:
            return done  # newer snapshots changed them all, and judged them
    return done


# Validation of a snapshot


def _check(snapshot: Snapshot) -> None:
    fields.check_pattern("environment", snapshot.environment, ENVIRONMENT, 63, _ENVIRONMENT_HINT)
    if snapshot.source not in catalog.workload_sources():
        raise _unknown_source(snapshot.source)
    fields.text("name", snapshot.name, NAME_LENGTH, shortest=1)
    fields.text("agent", snapshot.agent, AGENT_LENGTH)
    if not 0 <= snapshot.every_seconds <= MOST_SECONDS:
        raise fields.invalid("every_seconds", f"an agent reports at least every {MOST_SECONDS} seconds")
    if not 0 <= snapshot.generation <= MOST_GENERATION:
        raise fields.invalid("generation", f"a generation is between 0 and {MOST_GENERATION}")
    if len(snapshot.documents) > MOST_WORKLOADS:
        hint = "report each namespace or host as a separate source (--name)"
        raise fields.invalid("workloads", f"a snapshot contains at most {MOST_WORKLOADS:,} workloads", hint)


def _unknown_source(source: str) -> UsageError:
    return fields.invalid(
        "source", f"not a source of workloads: {source[:64]!r}", "one of " + ", ".join(catalog.workload_sources())
    )


def _facts(snapshot: Snapshot) -> dict[str, tuple[str, bytes]]:
    """Return digest and bytes of each document by the workload's name. A number is added to duplicate names."""
    found: dict[str, tuple[str, bytes]] = {}
    for each in snapshot.documents:
        name = each.get("name")
        if not isinstance(name, str) or not name:
            raise fields.invalid("workloads", "a workload has no name")
        data = workload_documents.encode(workload_documents.without_values(each))
        if len(data) > workload_documents.MOST_BYTES:
            most = workload_documents.MOST_BYTES >> 10
            raise fields.invalid("workloads", f"the workload {name[:100]!r} is larger than {most} KiB")
        # Two workloads can have one name after it is cut, or because an agent repeats one. Dropping one would hide a
        # workload.
        short, number, unique = name[:380], 1, name[:380]
        while unique in found:
            number += 1
            unique = f"{short} ({number})"
        found[unique] = (hashlib.sha256(data).hexdigest(), data)
    return found


# Decisions


@dataclass(frozen=True)
class _RunningImage:
    """The image that a workload runs. Fields that its document does not contain are empty."""

    repository: str = ""
    tag: str = ""
    digest: str = ""

    @classmethod
    def mounted(cls, image: str) -> _RunningImage:
        """An image whose files are mounted."""
        known = _reference(image)
        return cls(known.name, known.tag or "", str(known.digest or "")) if known else cls()

    @classmethod
    def of(cls, workload: Workload) -> _RunningImage:
        named, running = _reference(workload.image), _reference(workload.running_digest)
        known = named or running
        if known is None:
            return cls()
        # What the runtime reports is preferred to what the manifest says: the tag in the manifest may have been moved
        # since.
        digest = (running.digest if running else None) or (named.digest if named else None)
        return cls(known.name, (named.tag if named else None) or "", str(digest or ""))


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text) if text else None
    except UsageError:
        return None


class _Judge:
    """Checks and decides about workloads of one environment. Looks up shared data (policies, images, owners) once."""

    def __init__(self, session: Connection, environment: str, judged: Sequence[Workload]) -> None:
        running = [_RunningImage.of(each) for each in judged]
        running += [_RunningImage.mounted(use.image) for each in judged for use in each.mounted_images]
        self._session, self._environment = session, environment
        known = catalog.known_names()
        self._around = decisions.Surroundings(
            decisions.enabled_policies(session, known), default_policy(known), moment(session), catalog.remedies()
        )
        untold = [(each.repository, each.tag) for each in running if each.repository and each.tag and not each.digest]
        self._tagged = inventory.digests_of_tags(session, untold)
        digests = {(each.repository, self._digest(each)) for each in running if each.repository}
        self._states = inventory.image_states(session, environment, [pair for pair in digests if pair[1]])
        tagged = {(each.repository, each.tag) for each in running if each.repository and each.tag}
        self._elsewhere = inventory.digests_elsewhere(session, environment, tagged)
        self._owners = stored_projects.owners(session, {each.repository for each in running})
        self._subject = lru_cache(maxsize=32)(self._read_subject)
        self._accepted: dict[str, tuple[Exemption, ...]] = {}

    def judge(self, workload: Workload, former: Due | None = None) -> WorkloadDecision:
        """Check and decide. Reuses the results of ``former`` if neither the checks nor the image's evidence changed."""
        running = _RunningImage.of(workload)
        digest = self._digest(running)
        state = self._states.get((running.repository, digest), ImageState())
        workload = replace(workload, elsewhere=self._known_elsewhere(running, digest))
        # All that the results depend on besides the workload itself. A new version brings new checks, so it is part
        # of this.
        checked_with = f"{__version__} {state.report_id} {_short_digest(workload.elsewhere)}"
        if former is not None and former.checked_with == checked_with:
            evidence, packed = zlib.decompress(former.results), former.results
            results = _read_results(evidence)
        else:
            results = workloads.check(workload, self._subject(state.report_id))
            evidence = results_json(results)
            packed = zlib.compress(evidence, 1)
        project = self._owners.get(running.repository, stored_projects.DEFAULT)
        if project not in self._accepted:
            self._accepted[project] = exemptions.exemptions_in_effect(self._session, project)
        examined = decisions.ExaminedWorkload(workload, results, evidence, running.repository, project)
        decision = decisions.decide_workload(examined, self._around, self._environment, self._accepted[project])
        mounted = tuple(self._mounted_image(use) for use in workload.mounted_images)
        level = _level(decision.verdict, decision.undecided, state, bool(workload.image))
        # The worst of what runs and what is mounted. A clean container that executes a file of a denied image is not
        # clean.
        level = max([level, *map(_level_of_mounted, mounted)], key=inventory.LEVELS.index)
        # Within one level, workloads with more open reasons are listed first.
        against = sum(
            1 for r in decision.reasons if r.action is not Verdict.ALLOW and r.kind is not ReasonKind.EXEMPTED
        )
        return WorkloadDecision(
            project=project,
            repository=running.repository,
            tag=running.tag,
            digest=digest,
            by_tag=bool(digest) and not running.digest,
            rank=inventory.rank_of(level, against),
            verdict=decision.verdict,
            undecided=decision.undecided,
            image_verdict=state.verdict,
            image_undecided=state.undecided,
            failed=tuple(result.check for result in results if isinstance(result.outcome, Failed)),
            mounted=mounted,
            results=packed,
            checked_with=checked_with,
            decision=orjson.dumps(decision_document(decision), default=str).decode(),
            decided_at=decision.decided_at,
            valid_until=decision.valid_until.timestamp() if decision.valid_until else None,
        )

    def results(self, workload: Workload, actor: Actor) -> tuple[CheckResult, ...]:
        """Check only. The image's evidence and the inventory count if the actor sees the image's project."""
        running = _RunningImage.of(workload)
        if not actor.sees(self._owners.get(running.repository, stored_projects.DEFAULT)):
            return workloads.check(workload, None)
        digest = self._digest(running)
        state = self._states.get((running.repository, digest), ImageState())
        if self._environment:
            workload = replace(workload, elsewhere=self._known_elsewhere(running, digest))
        return workloads.check(workload, self._subject(state.report_id))

    def _mounted_image(self, use: ImageUse) -> MountedImage:
        running = _RunningImage.mounted(use.image)
        digest = self._digest(running)
        state = self._states.get((running.repository, digest), ImageState())
        project = self._owners.get(running.repository, stored_projects.DEFAULT)
        return MountedImage(
            use.image[:1024],
            running.repository,
            running.tag,
            digest,
            bool(digest) and not running.digest,
            project,
            state.verdict,
            state.undecided,
        )

    def _known_elsewhere(self, running: _RunningImage, digest: str) -> Elsewhere | None:
        """What the inventory knows of the workload's tag. None: it has no tag, so it names one image everywhere."""
        if not running.tag:
            return None
        others = self._elsewhere.get((running.repository, running.tag), ())
        return Elsewhere(digest, tuple(RunningDigest(environment, other) for environment, other in others))

    def _digest(self, running: _RunningImage) -> str:
        return running.digest or self._tagged.get((running.repository, running.tag), "")

    def _read_subject(self, report_id: str) -> ImageSubject | None:
        if not report_id:
            return None
        try:
            return workloads.image_subject(images.evidence(self._session, report_id))
        except NotFoundError:
            return None  # pruned by retention since `image_states` was read


def _level_of_mounted(image: MountedImage) -> str:
    """An image that cannot be read as a reference, or was never scanned, is undecided: a command can be its file."""
    unknown = image.undecided or image.verdict == inventory.IMAGE_UNKNOWN
    return inventory.UNDECIDED if unknown else image.verdict


def _short_digest(elsewhere: Elsewhere | None) -> str:
    """Identify what the results are based on besides the image. Only what other environments run can change here."""
    if elsewhere is None or not elsewhere.others:
        return "-"
    told = repr((elsewhere.digest, elsewhere.others))
    return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()


def _level(verdict: Verdict, undecided: bool, state: ImageState, has_image: bool) -> str:
    """Return the worse level of workload and image. An image without a scan is undecided: unknown is never clean."""
    own = inventory.UNDECIDED if undecided else str(verdict)
    if not has_image:
        return own
    unknown = state.undecided or state.verdict == inventory.IMAGE_UNKNOWN
    image = inventory.UNDECIDED if unknown else state.verdict
    return max(own, image, key=inventory.LEVELS.index)


def _judge_new(
    session: Connection, snapshot: Snapshot, wanted: Mapping[str, tuple[str, bytes]]
) -> tuple[NewWorkload, ...]:
    read = {name: workload_documents.workload(data) for name, (_, data) in wanted.items()}
    for workload in read.values():
        if workload.source != snapshot.source:
            said = f"{workload.source[:64]!r} in a snapshot of {snapshot.source!r}"
            raise fields.invalid("workloads", f"the workload {workload.name[:100]!r} has the source {said}")
    if not read:
        return ()
    judge = _Judge(session, snapshot.environment, list(read.values()))
    return tuple(
        NewWorkload(
            name=name,
            facts_digest=wanted[name][0],
            facts=wanted[name][1],
            namespace=workload.namespace[:200],
            kind=workload.kind[:64],
            owner=_owner(workload),
            image=workload.image[:1024],
            judged=judge.judge(replace(workload, name=name)),
        )
        for name, workload in read.items()
    )


def _judge_due(session: Connection, stale: Sequence[Due]) -> dict[Due, WorkloadDecision]:
    found: dict[Due, WorkloadDecision] = {}
    for environment in sorted({one.environment for one in stale}):
        mine = [(one, workload_documents.workload(one.facts)) for one in stale if one.environment == environment]
        judge = _Judge(session, environment, [workload for _, workload in mine])
        found.update({one: judge.judge(workload, one) for one, workload in mine})
    return found


def _owner(workload: Workload) -> str:
    labels = workload.label
    return next((labels[name][:200] for name in OWNER_LABELS if labels.get(name)), "")


# Scans of running images


def _queue_scans(session: Connection, actor: Actor, source_id: str, engine: str) -> tuple[scans.Ticket, ...]:
    """Request scans of the source's images that have no evidence, at most once a day for each."""
    targets = inventory.images_without_evidence(session, source_id, limit=_MOST_SCANS * 2)
    # Twice as many are read as are requested: those that were requested lately are dropped here, and a page of them
    # must not keep the others from being scanned.
    lately = inventory.recently_requested(session, [target for target, _ in targets], _ASK_AGAIN_SECONDS)
    engines: dict[str, str] = {}
    tickets = []
    for target, project in [each for each in targets if each[0] not in lately][:_MOST_SCANS]:
        if project not in engines:
            engines[project] = projects.engine_for(session, project, engine)
        asked = ScanRequest(target, None, engines[project], Lane.PUSH, False, project, actor.name, "inventory")
        ticket = scans.request(session, asked)
        if ticket.created:
            tickets.append(ticket)
    return tuple(tickets)


def _reload_source(session: Connection, held: inventory.SourceView) -> inventory.SourceView:
    found = inventory.source_of(session, held.environment, held.source, held.name)
    assert found is not None
    return found


# Compressed results


@lru_cache(maxsize=1)
def _results() -> TypeAdapter[tuple[CheckResult, ...]]:
    return TypeAdapter(tuple[CheckResult, ...])


def _read_results(evidence: bytes) -> tuple[CheckResult, ...]:
    return _results().validate_json(evidence)


@dataclass(frozen=True)
class Detail:
    """One workload for pages and API."""

    row: inventory.WorkloadRow
    workload: Workload
    facts: Mapping[str, Any]  # how it runs, without values of variables
    results: tuple[CheckResult, ...]
    decision: Mapping[str, Any]
    tag_names: str  # the digest that its tag refers to now; empty: unknown
    other_digests: Mapping[str, tuple[str, ...]]  # of the same tag, by environment: what was tested is not what runs

    @property
    def drifted(self) -> bool:
        """Return whether the tag was moved since the workload was started."""
        return bool(self.tag_names and self.row.digest and not self.row.by_tag and self.tag_names != self.row.digest)


def examined_row(found: inventory.WorkloadDetail) -> decisions.ExaminedWorkload:
    """A stored workload, with what its checks found."""
    evidence = zlib.decompress(found.results)
    workload = workload_documents.workload(found.facts)
    return decisions.ExaminedWorkload(
        workload, _read_results(evidence), evidence, found.row.repository, found.row.project
    )


def detail(session: Connection, actor: Actor, uid: str) -> Detail:
    """Return a workload with results and decision. Raises NotFoundError, also for another project's workload."""
    found = inventory.get(session, uid, actor.projects)
    return Detail(
        found.row,
        workload_documents.workload(found.facts),
        orjson.loads(found.facts),
        _read_results(zlib.decompress(found.results)),
        orjson.loads(found.decision),
        found.tag_names,
        inventory.other_digests(session, found.row, actor.projects),
    )
