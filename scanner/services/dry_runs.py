"""Dry runs: what a policy would newly deny or allow among all images and running workloads that it applies to.

A dry run is a job. It examines stored evidence in batches and stores each batch with the place where the next one
begins. For a past day, it decides with the evidence, policies, exemptions, VEX statements and revocations of that day:
"had this policy been enabled then".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import orjson
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.decision import Verdict
from scanner.model.scan import Progress, ScanState, Stage
from scanner.policy.rules import parse_policy
from scanner.services import policies, trust_roots
from scanner.services.simulation import Flip, Trial, WorkloadFlip
from scanner.store import audit, inventory, jobs
from scanner.store import dry_runs as store
from scanner.store.leases import ACTIVE
from scanner.store.session import Database, moment

DAYS = 90  # as far back as a dry run may look; older evidence may be pruned
_LOOKED_AT = 500  # rows per query that are skipped without reading their evidence
_UNFINISHED = 3  # per person
# An equal dry run that ended within this time is answered again.
_VALID = timedelta(hours=1)
# Actions of the audit log that can change a verdict. A dry run is recorded there as well, and changes none.
_DECIDING = (
    Action.POLICY_WRITE,
    Action.POLICY_ENABLE,
    Action.POLICY_DISABLE,
    "exemption.",
    "vex.",
    "trust_root.",
    "trust_state.",
    "project.",
)


@dataclass(frozen=True)
class View:
    """A dry run with the state of its job."""

    run: store.DryRun
    job: jobs.JobView

    @property
    def finished(self) -> bool:
        """Whether everything was examined. A dry run that ended otherwise says nothing about the rest."""
        return self.job.state is ScanState.DONE


def request(session: Connection, actor: Actor, text: str, name: str = "", as_of: date | None = None) -> View:
    """Request a dry run of a policy's text, or return the unfinished one of the same text and day.

    Raises PolicyError, UsageError for a day that is not one of the last `DAYS`, ConflictError for too many at once.
    """
    parsed = policies.parse(session, text, name)
    at, person = _end_of(session, as_of), actor.person.id
    projects = None if actor.projects is None else sorted(actor.projects)
    # The projects of the actor are part of the key. An actor who has gained or lost a project must not get the result
    # of the run before.
    parts = (person, projects, text, as_of.isoformat() if at and as_of else "")
    key = hashlib.sha256(orjson.dumps(parts)).hexdigest()
    identifier = jobs.request(session, jobs.DRY_RUN, key, actor.name)
    if not store.exists(session, identifier):
        if store.count_unfinished(session, person, ACTIVE) >= _UNFINISHED:
            raise ConflictError(
                f"{_UNFINISHED} of your dry runs have not finished",
                reason="too_many_dry_runs",
                hint="wait for one of them, or cancel it",
            )
        store.insert(session, identifier, person, actor.projects, parsed.name, text, at)
        detail = {"policy": parsed.name, "as_of": as_of.isoformat() if at and as_of else None}
        audit.record(session, actor, Action.POLICY_DRY_RUN, identifier, detail=detail)
    return get(session, actor, identifier)


def get(session: Connection, actor: Actor, identifier: str) -> View:
    """Return a dry run. Raises NotFoundError, also for another person's, unless the actor sees every project."""
    found = store.get(session, identifier)
    # A dry run lists image names of all projects that its owner sees. "Not found" instead of "refused": an id tells
    # nothing.
    if found.owner_id != actor.person.id and actor.projects is not None:
        raise NotFoundError("there is no such dry run", hint="start a new one")
    return View(found, jobs.get(session, identifier))


def still_valid(session: Connection, actor: Actor, text: str) -> View | None:
    """Return the actor's dry run of this text that still says what saving it would change, or None.

    It has examined everything, and nothing that decides has changed since it was requested. It is at most an hour old:
    rules about ages and exemptions that expire change verdicts without a change of evidence.
    """
    found = store.newest(session, actor.person.id, text, moment(session) - _VALID)
    if found is None:
        return None
    view = get(session, actor, found)
    if not view.finished or view.run.projects != actor.projects:
        return None
    return None if store.evidence_changed(session, view.run.created_at, _DECIDING) else view


def cancel(session: Connection, actor: Actor, identifier: str) -> View:
    """Cancel a dry run. Raises NotFoundError, ConflictError if it has ended."""
    found = get(session, actor, identifier)
    if not jobs.cancel(session, identifier):
        raise ConflictError(f"the dry run is already {found.job.state}", reason="already_ended")
    audit.record(session, actor, Action.JOB_CANCEL, identifier)
    return get(session, actor, identifier)


def _end_of(session: Connection, day: date | None) -> datetime | None:
    """Return the end of a past day in UTC. None: today, so the current state."""
    if day is None:
        return None
    today = moment(session).astimezone(UTC).date()
    if not today - timedelta(days=DAYS) <= day <= today:
        raise UsageError(
            f"{day} is not one of the last {DAYS} days",
            reason="invalid",
            hint=f"choose a day from {today - timedelta(days=DAYS)} to {today}",
            field="as_of",
        )
    # The end of the day, because "yesterday" means all that was known yesterday. Today has not ended, so it means
    # now.
    return None if day == today else datetime.combine(day, time(23, 59, 59), UTC)


@dataclass
class Examination:
    """The work of a dry run's job, from where it was left. ``at_once``: images or workloads per transaction."""

    database: Database
    job: jobs.Job
    report: Callable[[Progress], None] = lambda progress: None
    at_once: int = 20

    def run(self) -> None:
        """Examine everything and end the job. Raises LeaseLost, ScannerError."""
        with self.database.read() as session:
            run = store.get(session, self.job.id)
        if not run.images.complete:
            self._examine(run, store.IMAGE, run.images, self._images)
        # The inventory keeps only what runs now. For a past day there is nothing to compare.
        if run.as_of is None and not run.workloads.complete:
            self._examine(run, store.WORKLOAD, run.workloads, self._workloads)
        self.database.transact(self._end)

    def _end(self, session: Connection) -> None:
        run = store.get(session, self.job.id)
        examined = run.images.examined + run.workloads.examined
        message = f"{examined} examined; {run.denied} newly denied, {run.released} newly allowed"
        jobs.finish(session, self.job, message)

    def _examine(
        self,
        run: store.DryRun,
        subject: str,
        share: store.Share,
        batch: Callable[[Connection, Trial, store.DryRun, store.Share], tuple[store.Share, list[store.Change]]],
    ) -> None:
        while not share.complete:
            with self.database.read() as session:
                trial = self._trial(session, run)
                if share.matching is None:
                    changes: list[store.Change] = []
                    share = _count_subjects(session, trial, run, subject)
                else:
                    share, changes = batch(session, trial, run, share)
            # Deciding happens in a read transaction and only the result is written: a dry run over thousands of
            # images must not hold SQLite's write lock while it evaluates.
            self.report(Progress(Stage.EVALUATE, f"examining {subject}s", share.examined, share.matching or 0))
            self.database.transact(lambda session: self._keep(session, subject, share, changes))  # noqa: B023

    def _keep(self, session: Connection, subject: str, share: store.Share, changes: Iterable[store.Change]) -> None:
        # Raises `LeaseLost` if another worker has taken the job over; two workers must not both add to the counts.
        jobs.check(session, self.job)
        store.keep(session, self.job.id, subject, share, changes)

    def _trial(self, session: Connection, run: store.DryRun) -> Trial:
        new = parse_policy(run.text, run.policy, known=trust_roots.known_to_authors(session))
        return Trial(session, new, run.as_of)

    def _images(
        self, session: Connection, trial: Trial, run: store.DryRun, share: store.Share
    ) -> tuple[store.Share, list[store.Change]]:
        """Examine the next images. Those that the policy does not apply to are passed over."""
        examined, skipped, later, flips = 0, 0, 0, list[Flip]()
        rows = store.images_after(session, run.projects, share.after, _LOOKED_AT)
        after = share.after
        for row in rows:
            after = row.id
            concerned = trial.environments(row.repository)
            if not concerned:
                continue
            report_id = row.report_id if run.as_of is None else store.evidence_at(session, row, run.as_of)
            try:
                if report_id:
                    flips += trial.compare_image(report_id, row.name, row.digest, row.project, concerned)
                    examined += 1
                else:
                    later += 1
            except NotFoundError:  # pruned since the list was read
                skipped += 1
            if examined + skipped + later == self.at_once:
                break
        # Both conditions: a short page ends the list only if the loop did not stop early because its batch was full.
        complete = len(rows) < _LOOKED_AT and (not rows or after == rows[-1].id)
        changes = [_change(flip) for flip in flips if _change_of(flip)]
        return _add_flips(share, flips, examined, after, complete, skipped=skipped, later=later), changes

    def _workloads(
        self, session: Connection, trial: Trial, run: store.DryRun, share: store.Share
    ) -> tuple[store.Share, list[store.Change]]:
        """Examine the next running workloads."""
        examined, skipped, flips = 0, 0, list[WorkloadFlip]()
        rows = store.workloads_after(session, run.projects, share.after, _LOOKED_AT)
        after = share.after
        for identifier, uid, repositories, environment in rows:
            after = identifier
            if not any(trial.concerns(each, environment) for each in repositories):
                continue
            try:
                flips.append(trial.compare_workload(inventory.get(session, uid, run.projects), run.projects))
                examined += 1
            except NotFoundError:  # its source reports it no more
                skipped += 1
            if examined + skipped == self.at_once:
                break
        complete = len(rows) < _LOOKED_AT and (not rows or after == rows[-1][0])
        changes = [_change(flip) for flip in flips if _change_of(flip)]
        unscanned = sum(not flip.image_scanned for flip in flips)
        return _add_flips(share, flips, examined, after, complete, skipped=skipped, unscanned=unscanned), changes


def _count_subjects(session: Connection, trial: Trial, run: store.DryRun, subject: str) -> store.Share:
    """Return the share at the beginning: how many there are, and how many the policy applies to."""
    if subject == store.IMAGE:
        by_repository = store.repositories(session, run.projects)
        matching = sum(n for repository, n in by_repository.items() if trial.environments(repository))
        return store.Share(sum(by_repository.values()), matching)
    running = store.running(session, run.projects)
    matching = sum(
        number
        for (repositories, environment), number in running.items()
        if any(trial.concerns(each, environment) for each in repositories)
    )
    return store.Share(sum(running.values()), matching)


def _add_flips(
    share: store.Share,
    flips: Iterable[Flip | WorkloadFlip],
    examined: int,
    after: int,
    complete: bool,
    *,
    skipped: int = 0,
    later: int = 0,
    unscanned: int = 0,
) -> store.Share:
    changes = [_change_of(flip) for flip in flips]
    return dataclasses.replace(
        share,
        examined=share.examined + examined,
        skipped=share.skipped + skipped,
        later=share.later + later,
        unscanned=share.unscanned + unscanned,
        denied=share.denied + changes.count(store.DENIED),
        released=share.released + changes.count(store.RELEASED),
        unchanged=share.unchanged + changes.count(""),
        after=after,
        complete=complete,
    )


def _change_of(flip: Flip | WorkloadFlip) -> str:
    """``denied``, ``released``, or empty."""
    if (flip.before is Verdict.DENY) == (flip.after is Verdict.DENY):
        return ""
    return store.DENIED if flip.after is Verdict.DENY else store.RELEASED


def _change(flip: Flip | WorkloadFlip) -> store.Change:
    subject, name, reference = (
        (store.IMAGE, flip.image, flip.digest) if isinstance(flip, Flip) else (store.WORKLOAD, flip.name, flip.uid)
    )
    return store.Change(
        subject,
        _change_of(flip),
        name,
        reference,
        flip.project,
        flip.environment,
        flip.before,
        flip.after,
        flip.rules,
        flip.reasons,
    )
