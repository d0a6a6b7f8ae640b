"""A server's scans: the pipeline under a lease, with the store's memory, reaching nothing but configured registries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from scanner import catalog, decisions
from scanner.advisories import feeds
from scanner.config import Secret, Settings
from scanner.errors import EngineError, UsageError
from scanner.model.finding import AdvisoryStatus
from scanner.model.reference import Descriptor, Reference
from scanner.model.scan import Progress, ScanReport, ScanRequest, Stage
from scanner.pipeline import Report, Services, examine, make_services
from scanner.policy.evaluate import evidence_digest
from scanner.registry.sources import AccessTo, open_target
from scanner.store import images, projects, registries, scans
from scanner.store.session import Database

if TYPE_CHECKING:
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access


@dataclass(frozen=True)
class ServerServices:
    """``Services`` and the database. ``access`` lets nothing be reached but configured registries."""

    services: Services
    database: Database
    key: Secret

    @classmethod
    def make(cls, settings: Settings, database: Database, slot: str, key: Secret) -> ServerServices:
        return cls(make_services(settings, slot), database, key)

    def cancelled_by(self, cancelled: Callable[[], bool]) -> ServerServices:
        return replace(self, services=replace(self.services, cancelled=cancelled))


def configured_access(
    settings: Settings, database: Database, key: Secret, project: str, repository: str = ""
) -> AccessTo:
    """How registries are reached for a project's scan: only those configured for it, with their own credentials and CA.

    Another project's registry is as if it were not there: its credentials must pull nothing for anybody else. Where projects share a
    registry, a repository is reached by the one that owns it.
    """

    def access(host: str) -> tuple[Access, CredentialStore]:
        from scanner.registry.auth import Credentials, CredentialStore
        from scanner.registry.client import Access

        with database.read() as session:
            found = registries.find(session, host)
            password = registries.password(session, found.id, key) if found else None
            owner = projects.owner(session, f"{host}/{repository}")
        if found is None or owner != project:
            message = f"{host} is not a configured registry of project {project}"
            raise UsageError(message, reason="registry_not_configured", hint="add it under Registries first")
        given = {host: Credentials(found.username, password)} if found.username and password else {}
        ca_file = None
        if found.ca_pem:
            ca_file = settings.home / "ca" / f"{found.id}.pem"
            ca_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            ca_file.write_text(found.ca_pem)
        return Access(found.insecure or host in settings.insecure_registries, ca_file), CredentialStore(
            settings, given, personal=False
        )

    return access


def repository_of(target: str) -> str:
    """The repository of a reference, without its host; nothing for what is none."""
    try:
        return Reference.parse(target).repository
    except UsageError:
        return ""


def run_claim(claim: scans.Claim, server: ServerServices, report: Report) -> None:
    """Bring a claimed scan to its recorded end. Raises ScannerError, or LeaseLost when it is another worker's by now."""
    services, database = server.services, server.database
    access = configured_access(
        services.settings, database, server.key, claim.request.project, repository_of(claim.request.target)
    )
    with open_target(claim.request.target, services.settings, access) as source:
        report(Progress(Stage.RESOLVE, source.describe()))
        subject = source.resolve()
        advisories = advisories_id(claim.request.engine, services.settings)
        with database.session() as session:
            if not scans.settle(session, claim, subject.digest, advisories):
                return
            known = None if claim.request.force else usable_evidence(session, subject, claim.request, advisories)
        found = known or examine(source, subject, claim.request, services, report, every_platform=True)
        if known is not None and source.reference is not None:
            found = replace(
                known, reference=claim.request.target, repository=source.reference.name, tag=source.reference.tag or ""
            )
    report(Progress(Stage.EVALUATE, "deciding"))
    evidence = evidence_digest(found)

    def record(session: Connection) -> None:
        made = decisions.decide_all(session, found, catalog.known(), catalog.remedies())
        images.record(session, claim, found, evidence, made)

    # A database that restarts at this moment must not cost the whole scan.
    database.transact(record)


def advisories_id(engine_id: str, settings: Settings) -> str:
    """What scan keys compare: changes when and only when the engine's answers could."""
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
    """Complete evidence about the same digest, by the same engine with the same advisories: nothing would come out otherwise."""
    current = scans.current(session, subject.digest, request.engine, request.project)
    if current is None or current.report_id is None or request.platform is not None:
        return None
    found = images.evidence(session, current.report_id)
    engines = {_rests_on(e.version, e.advisories, e.feeds) for image in found.images for e in image.engines}
    checks = {c.check for image in found.images for c in image.checks}
    return found if engines == {advisories} and checks >= set(catalog.image_checks()) else None
