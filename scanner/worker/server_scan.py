"""Scans on a server: the pipeline under a lease, with the store's evidence, limited to configured registries."""

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
from scanner.model.cloud_registry import STATIC
from scanner.model.finding import AdvisoryStatus
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.posture import Posture
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.model.scan import Progress, ScanReport, ScanRequest, Stage
from scanner.policy.evaluate import evidence_digest
from scanner.registry.sources import AccessTo, RegistrySource, Source, open_target
from scanner.scanning import posture, verification
from scanner.scanning.pipeline import (
    BaseOf,
    Deadline,
    Report,
    Services,
    examine,
    examine_registry,
    make_services,
    under_reference,
    verify_signatures,
)
from scanner.scanning.results import Results
from scanner.services import decisions
from scanner.services.harbor import parse_authorization
from scanner.store import bases, harbor, images, projects, pulls, registries, registry_checks, scans, trust
from scanner.store.session import Database

if TYPE_CHECKING:
    from scanner.registry.auth import Credentials, CredentialStore, Temporary
    from scanner.registry.client import Access

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerServices:
    """``Services`` with the database. ``key`` decrypts registry passwords."""

    services: Services
    database: Database
    key: Secret

    @classmethod
    def make(cls, settings: Settings, database: Database, slot: str, key: Secret) -> ServerServices:
        services = make_services(settings, slot)
        # The evidence in the store answers for an unchanged subject in its project. Results answer for each image: in
        # another project, and in an index of which one platform was built again.
        services = replace(services, posture=stored_posture(settings, database), results=Results.under(settings.home))
        return cls(services, database, key)

    def with_trust(self) -> Services:
        """The services for one scan, with the trust roots at its start."""
        with self.database.read() as session:
            trusted = verification.Trust(verification.roots(session), trust.StoredState(self.database))
        return replace(self.services, trust=trusted)

    def cancelled_by(self, cancelled: Callable[[], bool]) -> ServerServices:
        return replace(self, services=replace(self.services, cancelled=cancelled))


def configured_access(
    settings: Settings,
    database: Database,
    key: Secret,
    project: str,
    repository: str = "",
    credentials: Credentials | None = None,
) -> AccessTo:
    """Access to registries for a project's scan: only those configured for it, with their own credentials and CA.

    Another project's registry is treated as not configured, because its credentials must not be used for this one. If
    projects share a registry, a repository is accessible to its owner only. ``credentials``: those that came with the
    scan's request, used instead of the stored ones.
    """

    def access(host: str) -> tuple[Access, CredentialStore]:
        with database.read() as session:
            owner = projects.owner(session, f"{host}/{repository}")
        if owner != project:
            raise _not_configured(host, project)
        return registry_access(settings, database, key, host, project, credentials)

    return access


def _not_configured(host: str, project: str) -> UsageError:
    message = f"{host} is not a configured registry of project {project}"
    return UsageError(message, reason="registry_not_configured", hint="add it on the page Registries first")


def registry_access(
    settings: Settings,
    database: Database,
    key: Secret,
    host: str,
    project: str = "",
    credentials: Credentials | None = None,
) -> tuple[Access, CredentialStore]:
    """Access to a configured registry, for any project. Raises UsageError if it is not configured."""
    from scanner.registry.auth import Credentials, CredentialStore
    from scanner.registry.client import Access
    from scanner.registry.cloud.access import CloudCredentials
    from scanner.registry.cloud.base import CloudAccess

    with database.read() as session:
        found = registries.find(session, host)
        password = registries.password(session, found.id, key) if found else None
    if found is None:
        raise _not_configured(host, project)
    ca_file = _certificate_file(settings.home / "ca", found.ca_pem) if found.ca_pem else None
    given: dict[str, Credentials | Temporary] = {}
    if credentials is not None:
        given[host] = credentials
    elif found.credentials != STATIC:
        cloud = CloudAccess(
            found.credentials,
            host,
            found.username,
            password or Secret(""),
            found.tenant,
            found.machine_role,
            ca_file,
            found.role_arn,
            found.external_id,
        )
        given[host] = CloudCredentials(cloud, settings)
    elif found.username and password:
        given[host] = Credentials(found.username, password)
    # A cloud's token is never sent over plain HTTP.
    insecure = found.credentials == STATIC and (found.insecure or host in settings.insecure_registries)
    way = Access(insecure, ca_file, proof_key=key, token_service=found.token_service)
    return way, CredentialStore(settings, given, personal=False)


def _certificate_file(directory: Path, certificates: str) -> Path:
    """Return a file with these CA certificates.

    TLS libraries need a file, and several slots read it concurrently. It is named by its content, written once and
    atomically, and never changes; other certificates are another file.
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
    """The repository of a reference, without its host. Empty for an invalid reference."""
    try:
        return Reference.parse(target).repository
    except UsageError:
        return ""


def stored_posture(settings: Settings, database: Database) -> posture.PostureOf:
    """A registry's posture as last recorded. If it is unknown or too old, the registry is examined now."""

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
    """Claim one requested or scheduled examination of a registry, and run it. Returns False if there was none."""
    settings, database = server.services.settings, server.database
    with database.read() as session:  # runs every second, so it must not block writers
        if not registry_checks.is_any_open(session):
            return False
    with database.session() as session:
        held = registry_checks.claim(session)
        if held is None:
            return False
        view = registries.get(session, held.registry_id)
        repository = registry_checks.repository_of(session, view.host)
    try:
        access, credentials = registry_access(settings, database, server.key, view.host)
        found = posture.examine(view.host, settings, credentials, access, repository)
    except ScannerError as error:
        problem = error
    # The boundary of an examination. A crash here would be retried for ever without being noticed.
    except Exception as error:
        log.exception("the examination of %s failed unexpectedly", view.host)
        problem = ScannerError(f"internal error ({type(error).__name__})", reason="probe_failed")
    else:
        database.transact(lambda session: registry_checks.finish(session, held, found))
        return True
    database.transact(lambda session: registry_checks.fail(session, held, problem.reason, f"{problem}"))
    return True


def known_base(settings: Settings, database: Database, key: Secret, project: str) -> BaseOf:
    """A function that finds an image's base among this project's images.

    If the base's repository belongs to the project, its registry is asked for the tag's current digest. Other
    registries are not contacted, because the image itself names its base. A registry that fails does not fail the scan.
    """

    silent: set[str] = set()  # images of an index often share a base: a failed registry is asked only once

    def base_of(image: Image) -> BaseImage | None:
        with database.read() as session:
            base = bases.find(session, image, frozenset((project,)))
        if base is None or base.digest is None or base.note or not base.reference or base.reference in silent:
            return base
        try:
            access = configured_access(settings, database, key, project, repository_of(base.reference))
            return replace(base, newest=_current_digest(base, base.digest, settings, access), newest_at=None)
        except ScannerError:
            silent.add(base.reference)
            return base

    return base_of


def _current_digest(base: BaseImage, digest: Digest, settings: Settings, access: AccessTo) -> Digest | None:
    """The digest of the base's tag in the registry now; ``digest`` itself if it is one of that index's images."""
    reference = Reference.parse(base.reference)
    if reference.tag is None:
        return base.newest
    with open_target(f"{reference.name}:{reference.tag}", settings, access) as source:
        if isinstance(source, RegistrySource) and source.still_names(digest):
            return digest
        newest = source.resolve()
        images_of_it, _ = source.children(newest, None, every=True)
    return digest if digest in (one.digest for one in images_of_it) else newest.digest


def run_claim(claim: scans.Claim, server: ServerServices, report: Report) -> None:
    """Run a claimed scan to its recorded end. Raises ScannerError, or LeaseLost if another worker owns it now."""
    services, database = server.with_trust(), server.database
    access = configured_access(
        services.settings,
        database,
        server.key,
        claim.request.project,
        repository_of(claim.request.target),
        _credentials_of(claim, database, server.key),
    )
    deadline = Deadline.after(services.settings.limits.scan_seconds)
    with ExitStack() as opened:
        source = opened.enter_context(open_target(claim.request.target, services.settings, access))
        source.read_until(deadline.ends)
        report(Progress(Stage.RESOLVE, source.describe()))
        subject, request = source.resolve(), claim.request
        one = _one_platform(source, subject, request)
        if one is not None:
            source = opened.enter_context(open_target(one, services.settings, access))
            source.read_until(deadline.ends)
            subject, request = source.resolve(), replace(request, target=one, platform=None)
        advisories = advisories_id(request.engine, services.settings)

        def settle(session: Connection) -> tuple[bool, ScanReport | None]:
            if not scans.settle(session, claim, subject.digest, advisories):
                return False, None
            # Attached SBOMs belong to a repository and can be attached at any time: they are read by each scan.
            again = request.force or services.settings.attached_sboms
            return True, None if again else usable_evidence(session, subject, request, advisories)

        is_ours, known = database.transact(settle)
        if not is_ours:
            return
        services = replace(services, base=known_base(services.settings, database, server.key, claim.request.project))
        try:
            found = known or examine(source, subject, request, services, report, every_platform=True, deadline=deadline)
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
                reference=request.target,
                repository=source.reference.name,
                tag=source.reference.tag or "",
                images=tuple(under_reference(image, source.reference) for image in known.images),
                posture=results,
                posture_at=posture_at,
                finished_at=datetime.now(UTC),  # a new scan would give the same evidence
            )
            signatures = verify_signatures(source, subject, services.trust, services.settings, report)
            found = verification.with_new_signatures(named, signatures, datetime.now(UTC))
    report(Progress(Stage.EVALUATE, "deciding"))
    evidence = evidence_digest(found)

    def record(session: Connection) -> None:
        decided = decisions.decide_all(
            session, found, catalog.known_names(), catalog.remedies(), recorded=known is not None
        )
        rungs = decisions.epss_thresholds(decisions.enabled_policies(session, catalog.known_names()))
        deciding = projects.engine_of(session, request.project) or services.settings.engine
        images.record(session, replace(claim, request=request), found, evidence, decided, rungs, engine=deciding)
        trust.note(session, found, claim.request.project)

    # Retried: a database restart at this moment must not cost the whole scan.
    database.transact(record)


def _credentials_of(claim: scans.Claim, database: Database, key: Secret) -> Credentials | None:
    """The credentials that a Harbor sent with its request of this scan."""
    from scanner.registry.auth import Credentials

    with database.read() as session:
        sent = harbor.credentials(session, claim.scan_id, key)
    if sent is None:
        return None
    parsed = parse_authorization(sent)
    return Credentials(parsed.username, parsed.password, registry_token=parsed.token)


def _one_platform(source: Source, subject: Descriptor, request: ScanRequest) -> str | None:
    """The reference by digest of the one requested image of an index. None if the whole subject was requested.

    The scan continues as if that digest had been requested: evidence is about what was examined, so it is never used
    for the index, its tag or another platform.
    """
    if request.platform is None or source.reference is None:
        return None
    try:
        (image, *_), _ = source.children(subject, request.platform, every=False)
    except NotAnImage:  # reported by the examination
        return None
    return None if image.digest == subject.digest else f"{source.reference.name}@{image.digest}"


def advisories_id(choice: str, settings: Settings) -> str:
    """Identifier for scan keys: it changes if and only if the engines' results could change."""
    return "+".join(sorted(_basis(engine_id, settings) for engine_id in catalog.chosen_engines(choice)))


def _basis(engine_id: str, settings: Settings) -> str:
    engine = catalog.engines()[engine_id]
    try:
        return _basis_id(engine.version(settings), engine.advisories(settings), feeds.all_status(settings))
    except EngineError as error:
        return f"none|{error.reason}"


def _basis_id(version: str, advisories: AdvisoryStatus, feed_status: Sequence[AdvisoryStatus]) -> str:
    return "|".join((version, advisories.id, *(feed.id for feed in feed_status)))


def usable_evidence(
    session: Connection, subject: Descriptor, request: ScanRequest, advisories: str
) -> ScanReport | None:
    """Complete evidence for the same digest, version, engine and advisories, which a new scan would only repeat; or
    None.
    """
    current = scans.current(session, subject.digest, request.engine, request.project)
    if current is None or current.report_id is None:
        return None
    found = images.evidence(session, current.report_id)
    if found.dockwarden != __version__ or not found.answers(request.platform):
        return None
    bases = {"+".join(sorted(_basis_id(e.version, e.advisories, e.feeds) for e in i.engines)) for i in found.images}
    checks = {c.check for image in found.images for c in image.checks}
    return found if bases == {advisories} and checks >= set(catalog.image_checks()) else None
