"""Keeps the receipts in registries current: signs what is missing or ends soon, and writes it beside the images.

A job like those of `maintenance`: it determines what is left to do, so another worker can continue after a crash.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from sqlalchemy.engine import Connection

from scanner.config import Secret, Settings, secret_key
from scanner.errors import ScannerError
from scanner.model.actor import SERVICE
from scanner.model.plurals import number_of
from scanner.model.reference import Reference
from scanner.model.scan import Progress, Stage
from scanner.registry.attaching import Attestation, attach
from scanner.registry.client import RegistryClient
from scanner.services import receipts as use_cases
from scanner.store import jobs
from scanner.store import receipts as store
from scanner.store.session import Database, moment
from scanner.worker.server_scan import registry_access

log = logging.getLogger(__name__)

_SECONDS = 60.0  # of one job; the next one continues
_TRIES = 1  # a failed push is repeated as a whole, after a pause


def is_due(session: Connection, settings: Settings) -> bool:
    """Return whether a receipt must be signed for, or written to, a registry.

    In the pause after a failure to sign, only what needs no signature is due.
    """
    if store.due(session, limit=1) or store.is_any_outdated(session):
        return True
    if not use_cases.unsigned(session, settings, limit=1):
        return False
    return not _is_resting(session, use_cases.signing_trouble(session, settings))


def _is_resting(session: Connection, trouble: use_cases.SigningTrouble | None) -> bool:
    return trouble is not None and moment(session) < trouble.next_try


def run(job: jobs.Job, settings: Settings, database: Database, report: Callable[[Progress], None]) -> None:
    """Bring the receipts in registries up to date, for up to a minute, and finish the job."""
    signer = use_cases.Signer(settings, secret_key(settings))
    ends = time.monotonic() + _SECONDS
    signed, pushed, failed = 0, 0, 0
    problem: ScannerError | None = None
    with database.read() as session:
        known = use_cases.signing_trouble(session, settings)
        rested = _is_resting(session, known)
    while time.monotonic() < ends:
        report(Progress(Stage.RECORD, "signing receipts", signed))
        # First, and on its own: where no key can be used, registries must still drop the receipts of former decisions.
        made = database.uncrossed(lambda session: _supersede(session, job))
        if problem is None and not rested:
            try:
                made += _sign_some(database, job, signer)
            except ScannerError as error:
                problem = error
        signed += made
        with database.read() as session:
            due = store.due(session)
        for push in due:
            report(Progress(Stage.RECORD, f"writing receipts of {push.repository}", pushed))
            if _push(job, push, signer, database):
                pushed += 1
            else:
                failed += 1
            if time.monotonic() >= ends:
                break
        if not made and not due:
            break
    if problem is not None:
        # Said once, not at every try: the page Enforcement shows it, and a notification reports beginning and end.
        level = logging.WARNING if known is None or known.reason != problem.reason else logging.DEBUG
        log.log(level, "receipts are not signed: %s", problem)
        # Not tried again as this job, which would block the next one: what needs no signature must not wait.
        problem.retryable = False
        raise problem
    with database.session() as session:
        if rested:
            jobs.keep(session, job, {**job.parameters, use_cases.RESTED: True})
        jobs.finish(
            session,
            job,
            f"{number_of(signed, 'receipt')} signed; "
            f"{number_of(pushed, 'image')} written to registries, {failed} failed",
        )


def _supersede(session: Connection, job: jobs.Job) -> int:
    jobs.check(session, job)
    return store.supersede_outdated(session)


def _sign_some(database: Database, job: jobs.Job, signer: use_cases.Signer) -> int:
    """Sign a batch of decisions. Returns their number."""
    count, drafts = database.uncrossed(lambda session: _sign_or_draft(session, job, signer, {}))
    if drafts:
        # Between two transactions: a key management service may take seconds for each, and SQLite has one writer.
        ready = {each.draft.about: each for each in use_cases.sign_drafts(signer, drafts)}
        count += database.uncrossed(lambda session: _sign_or_draft(session, job, signer, ready))[0]
    return count


def _sign_or_draft(
    session: Connection,
    job: jobs.Job,
    signer: use_cases.Signer,
    ready: Mapping[tuple[str, str, str], use_cases.SignedDraft],
) -> tuple[int, list[use_cases.Draft]]:
    """Return the number of decisions that were signed, and what a key management service must sign first.

    ``ready``: what it has signed.
    """
    jobs.check(session, job)
    count, drafts = 0, list[use_cases.Draft]()
    for found in use_cases.unsigned(session, signer.settings):
        own = ready.get((found.digest, found.repository, found.environment))
        try:
            use_cases.sign(session, signer, SERVICE, found, found.environment, use_cases.MARGIN, ready=own)
        except use_cases.SignatureNeeded as needed:
            drafts.append(needed.draft)
        else:
            count += 1
    return count, drafts


def _push(job: jobs.Job, push: store.PushView, signer: use_cases.Signer, database: Database) -> bool:
    """Write one image's receipts to its registry, and record the outcome. Returns whether it succeeded."""
    with database.read() as session:
        wanted = [
            Attestation(kind, envelope.encode(), bundle.encode(), signer.verifier, found.issued_at)
            for found in store.to_push(session, push.digest, push.repository)
            for (kind, bundle), envelope in zip(
                use_cases.bundles(session, found).items(), found.envelopes.values(), strict=True
            )
        ]
    image = Reference.parse(f"{push.repository}@{push.digest}")
    try:
        note = _attach(signer.settings, database, signer.key, image, signer.verifier, wanted)
    except ScannerError as error:
        log.warning("the receipts of %s were not written: %s", push.repository, error)
        problem = error
        database.transact(
            lambda session: store.fail_push(session, push, problem.reason, f"{problem}", problem.retry_after)
        )
        return False

    def end(session: Connection) -> None:
        jobs.check(session, job)
        use_cases.record_push(session, SERVICE, push, len(wanted), note)

    database.transact(end)
    return True


def _attach(
    settings: Settings, database: Database, key: Secret, image: Reference, owner: str, wanted: list[Attestation]
) -> str:
    access, credentials = registry_access(settings, database, key, image.host)
    with RegistryClient(image.host, settings, credentials, access, tries=_TRIES) as client:
        return attach(client, image, owner, wanted)
