"""A server's scans: the pipeline under a lease, with the store's memory, reaching nothing but configured registries."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from scanner import __version__, catalog
from scanner.advisories import feeds
from scanner.config import Secret, Settings
from scanner.errors import EngineError, NotAnImage, ScannerError, UsageError
from scanner.model.finding import AdvisoryStatus
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.posture import Posture
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.model.scan import Progress, ScanReport, ScanRequest, Stage
from scanner.policy.evaluate import evidence_digest
from scanner.registry.sources import AccessTo, Source, open_target
from scanner.scanning import posture, verification
from scanner.scanning.pipeline import (
    BaseOf,
    Deadline,
    Report,
    Services,
    examine,
    examine_registry,
    make_services,
    verify_signatures,
)
from scanner.services import decisions
from scanner.store import bases, images, projects, pulls, registries, registry_checks, scans, trust
from scanner.store.session import Database

if TYPE_CHECKING:
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerServices:
    """``Services`` and the database. ``access`` lets nothing be reached but configured registries."""

    services: Services
    database: Database
    key: Secret

    @classmethod
    def make(cls, settings: Settings, database: Database, slot: str, key: Secret) -> ServerServices:
        services = make_services(settings, slot)
        return cls(replace(services, posture=stored_posture(settings, database)), database, key)

    def with_trust(self) -> Services:
        """What one scan works with: whom the installation trusts as it begins."""
        with self.database.read() as session:
            trusted = verification.Trust(verification.roots(session), trust.StoredState(self.database))
        return replace(self.services, trust=trusted)

    def cancelled_by(self, cancelled: Callable[[], bool]) -> ServerServices:
        return replace(self, services=replace(self.services, cancelled=cancelled))


def configured_access(
    settings: Settings, database: Database, key: Secret, project: str, repository: str = ""
) -> AccessTo:
    """How registries are reached for a project's scan: only those configured for it, with their own credentials and
    CA.

    Another project's registry is as if it were not there: its credentials must pull nothing for anybody else. Where
    projects share a registry, a repository is reached by the one that owns it.
    """

    def access(host: str) -> tuple[Access, CredentialStore]:
        with database.read() as session:
            owner = projects.owner(session, f"{host}/{repository}")
        if owner != project:
            raise _not_configured(host, project)
        return reached(settings, database, key, host, project)

    return access


def _not_configured(host: str, project: str) -> UsageError:
    message = f"{host} is not a configured registry of project {project}"
    return UsageError(message, reason="registry_not_configured", hint="add it under Registries first")


def reached(
    settings: Settings, database: Database, key: Secret, host: str, project: str = ""
) -> tuple[Access, CredentialStore]:
    """How a configured registry is reached, whoever asks. Raises UsageError for one that is not configured."""
    from scanner.registry.auth import Credentials, CredentialStore
    from scanner.registry.client import Access

    with database.read() as session:
        found = registries.find(session, host)
        password = registries.password(session, found.id, key) if found else None
    if found is None:
        raise _not_configured(host, project)
    given = {host: Credentials(found.username, password)} if found.username and password else {}
    ca_file = _kept(settings.home / "ca", found.ca_pem) if found.ca_pem else None
    way = Access(found.insecure or host in settings.insecure_registries, ca_file, proof_key=key)
    return way, CredentialStore(settings, given, personal=False)


def _kept(directory: Path, certificates: str) -> Path:
    """A file that holds these CA certificates.

    TLS libraries read files, and several slots read this one at any moment. So its name says what it holds: it is
    written once, appears whole, and never changes; another certificate is another file.
    """
    data = certificates.encode()
    file = directory / f"{hashlib.sha256(data).hexdigest()}.pem"
    if file.is_file():
        return file
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, partial = tempfile.mkstemp(dir=directory, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    finally:
        Path(partial).unlink(missing_ok=True)
    return file


def repository_of(target: str) -> str:
    """The repository of a reference, without its host; nothing for what is none."""
    try:
        return Reference.parse(target).repository
    except UsageError:
        return ""


def stored_posture(settings: Settings, database: Database) -> posture.PostureOf:
    """A registry's posture as it was last examined; examined now, before it is first used, where that is unknown or
    too long ago.
    """

    def of(host: str, repository: str, access: Access, credentials: CredentialStore) -> Posture:
        with database.read() as session:
            kept = registry_checks.of_host(session, host)
        if kept is not None and posture.is_current(kept, settings):
            return kept
        found = posture.or_unknown(
            host, lambda: posture.examine(host, settings, credentials, access, repository=repository)
        )
        if posture.has_completed_check(found):
            with database.session() as session:
                configured = registries.find(session, host)
                if configured is not None:
                    registry_checks.record(session, configured.id, found, "scan")
        return found

    return of


def check_registry(server: ServerServices) -> bool:
    """Claim one examination of a registry that somebody or the schedule asked for, and bring it to an end.

    False: there was none.
    """
    settings, database = server.services.settings, server.database
    with database.read() as session:  # asked every second: it must not hold up whoever writes
        if not registry_checks.is_any_open(session):
            return False
    with database.session() as session:
        held = registry_checks.claim(session)
        if held is None:
            return False
        view = registries.get(session, held.registry_id)
        repository = registry_checks.repository_of(session, view.host)
    try:
        access, credentials = reached(settings, database, server.key, view.host)
        found = posture.examine(view.host, settings, credentials, access, repository)
    except ScannerError as error:
        problem = error
    except (
        Exception
    ) as error:  # the boundary of an examination: one that ended here would be tried again for ever, unseen
        log.exception("the examination of %s broke", view.host)
        problem = ScannerError(f"internal error ({type(error).__name__})", reason="probe_failed")
    else:
        database.transact(lambda session: registry_checks.finish(session, held, found))
        return True
    database.transact(lambda session: registry_checks.fail(session, held, problem.reason, f"{problem}"))
    return True


def known_base(settings: Settings, database: Database, key: Secret, project: str) -> BaseOf:
    """What this project knows of an image's base.

    Where the base's repository is the project's own in a registry that is configured, that is asked what the tag
    names now: an image names its base, so nothing else may be reached for it, and a registry that does not answer
    costs no scan.
    """

    silent: set[str] = set()  # an index has many images on one base: a registry that did not answer is asked once

    def base_of(image: Image) -> BaseImage | None:
        with database.read() as session:
            base = bases.find(session, image, frozenset((project,)))
        if base is None or base.digest is None or base.note or not base.reference or base.reference in silent:
            return base
        try:
            access = configured_access(settings, database, key, project, repository_of(base.reference))
            return replace(base, newest=_named_now(base, base.digest, settings, access), newest_at=None)
        except ScannerError:
            silent.add(base.reference)
            return base

    return base_of


def _named_now(base: BaseImage, digest: Digest, settings: Settings, access: AccessTo) -> Digest | None:
    """What the registry says that the base's tag names: ``digest`` itself where it is one of the index's images."""
    reference = Reference.parse(base.reference)
    if reference.tag is None:
        return base.newest
    with open_target(f"{reference.name}:{reference.tag}", settings, access) as source:
        newest = source.resolve()
        if newest.digest == digest:
            return digest
        images_of_it, _ = source.children(newest, None, every=True)
    return digest if digest in (one.digest for one in images_of_it) else newest.digest


def run_claim(claim: scans.Claim, server: ServerServices, report: Report) -> None:
    """Bring a claimed scan to its recorded end.

    Raises ScannerError, or LeaseLost when it is another worker's by now.
    """
    services, database = server.with_trust(), server.database
    access = configured_access(
        services.settings, database, server.key, claim.request.project, repository_of(claim.request.target)
    )
    deadline = Deadline.after(services.settings.limits.scan_seconds)
    with ExitStack() as opened:
        source = opened.enter_context(open_target(claim.request.target, services.settings, access))
        source.read_until(deadline.ends)
        report(Progress(Stage.RESOLVE, source.describe()))
        subject, asked = source.resolve(), claim.request
        one = _one_platform(source, subject, asked)
        if one is not None:
            source = opened.enter_context(open_target(one, services.settings, access))
            source.read_until(deadline.ends)
            subject, asked = source.resolve(), replace(asked, target=one, platform=None)
        advisories = advisories_id(asked.engine, services.settings)

        def settle(session: Connection) -> tuple[bool, ScanReport | None]:
            if not scans.settle(session, claim, subject.digest, advisories):
                return False, None
            return True, None if asked.force else usable_evidence(session, subject, asked, advisories)

        is_ours, known = database.transact(settle)
        if not is_ours:
            return
        services = replace(services, base=known_base(services.settings, database, server.key, claim.request.project))
        try:
            found = known or examine(source, subject, asked, services, report, every_platform=True, deadline=deadline)
        except NotAnImage as error:
            message, blobs = f"{error}", error.blobs

            def finish(session: Connection) -> None:
                pulls.note_blobs(session, subject.digest, {(blob, str(subject.digest)) for blob in blobs})
                scans.finish_without_image(session, claim, subject.digest, message)

            database.transact(finish)
            return
        if known is not None and source.reference is not None:
            results, posture_at = examine_registry(source, services.ask_posture, report)
            named = replace(
                known,
                reference=asked.target,
                repository=source.reference.name,
                tag=source.reference.tag or "",
                posture=results,
                posture_at=posture_at,
                finished_at=datetime.now(UTC),  # nothing would come out otherwise: the evidence is as good as new
            )
            signatures = verify_signatures(source, subject, services.trust, services.settings, report)
            found = verification.renewed(named, signatures, datetime.now(UTC))
    report(Progress(Stage.EVALUATE, "deciding"))
    evidence = evidence_digest(found)

    def record(session: Connection) -> None:
        made = decisions.decide_all(session, found, catalog.known(), catalog.remedies(), recorded=known is not None)
        rungs = decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known()))
        deciding = projects.engine_of(session, asked.project) or services.settings.engine
        images.record(session, replace(claim, request=asked), found, evidence, made, rungs, engine=deciding)
        trust.note(session, found, claim.request.project)

    # A database that restarts at this moment must not cost the whole scan.
    database.transact(record)


def _one_platform(source: Source, subject: Descriptor, asked: ScanRequest) -> str | None:
    """The reference by digest of the one image of an index that was asked for. None: all of the subject was.

    The scan goes on as one of that image, as if its digest had been asked for: evidence is about what was examined,
    so that no question about the index, its tag or another platform ever finds it.
    """
    if asked.platform is None or source.reference is None:
        return None
    try:
        (image, *_), _ = source.children(subject, asked.platform, every=False)
    except NotAnImage:  # told when it is examined
        return None
    return None if image.digest == subject.digest else f"{source.reference.name}@{image.digest}"


def advisories_id(choice: str, settings: Settings) -> str:
    """What scan keys compare: changes when and only when the engines' answers could."""
    return "+".join(sorted(_basis(engine_id, settings) for engine_id in catalog.chosen_engines(choice)))


def _basis(engine_id: str, settings: Settings) -> str:
    engine = catalog.engines()[engine_id]
    try:
        return _rests_on(engine.version(settings), engine.advisories(settings), feeds.all_status(settings))
    except EngineError as error:
        return f"none|{error.reason}"


def _rests_on(version: str, advisories: AdvisoryStatus, asked: Sequence[AdvisoryStatus]) -> str:
    return "|".join((version, advisories.id, *(feed.id for feed in asked)))


def usable_evidence(
    session: Connection, subject: Descriptor, request: ScanRequest, advisories: str
) -> ScanReport | None:
    """Complete evidence about all of the same digest, by the same version of ours and of the engine, with the same
    advisories: nothing would come out otherwise.
    """
    current = scans.current(session, subject.digest, request.engine, request.project)
    if current is None or current.report_id is None:
        return None
    found = images.evidence(session, current.report_id)
    if found.dockwarden != __version__ or not found.answers(request.platform):
        return None
    rest_on = {"+".join(sorted(_rests_on(e.version, e.advisories, e.feeds) for e in i.engines)) for i in found.images}
    checks = {c.check for image in found.images for c in image.checks}
    return found if rest_on == {advisories} and checks >= set(catalog.image_checks()) else None
