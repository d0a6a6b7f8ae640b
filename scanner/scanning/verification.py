"""Signature verification of an image with every scheme that has a trust root. Used by scans and commands."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from scanner import catalog
from scanner.config import Settings
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import TrustStatus, Verification
from scanner.model.glob import matches
from scanner.model.reference import Descriptor, Reference
from scanner.model.scan import ScanReport

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from scanner.registry.auth import CredentialStore
    from scanner.trust.base import Fetcher, TrustJob, TrustRoot, TrustScheme, TrustState

log = logging.getLogger(__name__)

# Evidence is immutable and large. Unchanged results are not stored again until they are this old.
_YOUNG = timedelta(hours=6)


def _no_state() -> TrustState:
    from scanner.trust._state import NoState

    return NoState()


@dataclass(frozen=True)
class Trust:
    """The trust roots of an installation, and the state of verifiers against rollback."""

    roots: tuple[TrustRoot, ...] = ()
    state: TrustState = field(default_factory=_no_state)


def roots(session: Connection) -> tuple[TrustRoot, ...]:
    """Return all trust roots of the database."""
    from scanner.store import trust as store  # imported here: a scan without a database should not load the driver
    from scanner.trust.base import TrustRoot

    return tuple(TrustRoot(view.name, view.scheme, view.document, view.scope) for view in store.list_roots(session))


def stored_trust(settings: Settings) -> Trust:
    """Return the trust roots of this installation's database, for commands. Empty if there is no database yet."""
    if settings.embedded and not (settings.home / "dockwarden.db").exists():
        return Trust()
    from scanner.store.session import Database
    from scanner.store.trust import StoredState

    database = Database.of(settings)
    if settings.embedded:
        database.upgrade()
    database.check_head()
    with database.read() as session:
        return Trust(roots(session), StoredState(database))


def verify(
    reference: Reference,
    descriptor: Descriptor,
    fetch: Fetcher,
    trust: Trust,
    settings: Settings,
    now: datetime,
    credentials: CredentialStore | None = None,
) -> tuple[Verification, ...]:
    """Verify the image with every scheme. Without a trust root for the repository no request is sent."""
    from scanner.trust.base import TrustJob

    covering = [root for root in trust.roots if matches(root.scope, reference.name)]
    if not covering:
        return not_verified("no_trust_root", f"no trust root covers {reference.name}", descriptor)
    found: list[Verification] = []
    for scheme in catalog.schemes().values():
        job = TrustJob(
            reference=reference.at(descriptor.digest),
            roots=tuple(root for root in covering if root.scheme == scheme.id),
            now=now,
            state=trust.state,
            settings=settings,
            credentials=credentials,
            descriptor=descriptor,
            fetch=fetch,
        )
        found += run_scheme(scheme, job)
    return tuple(found)


def run_scheme(scheme: TrustScheme, job: TrustJob) -> tuple[Verification, ...]:
    """Run a verifier. An exception makes the status unknown, never verified."""
    try:
        return scheme.verify(job)
    except Exception as error:  # the stage boundary: hostile signatures must not end the scan
        log.exception("%s failed", scheme.id)
        detail = f"{scheme.id} failed on this image ({type(error).__name__})"
        return (
            Verification(
                scheme.id, TrustStatus.UNKNOWN, job.descriptor.digest, "verifier_failed", detail, checked_at=job.now
            ),
        )


def not_verified(reason: str, detail: str, descriptor: Descriptor) -> tuple[Verification, ...]:
    """Return an unknown result for each scheme that was not run, with the reason."""
    return tuple(
        Verification(scheme, TrustStatus.UNKNOWN, descriptor.digest, reason, detail) for scheme in catalog.schemes()
    )


def with_new_signatures(known: ScanReport, found: tuple[Verification, ...], now: datetime) -> ScanReport:
    """Return the evidence with new signature results. The same object if they are equal and recent."""
    if all(_is_unchanged(image.verifications, found) and _young(image.verifications, now) for image in known.images):
        return known
    return replace(known, images=tuple(replace(image, verifications=found) for image in known.images))


def _is_unchanged(old: Iterable[Verification], new: Iterable[Verification]) -> bool:
    return [replace(v, checked_at=None) for v in old] == [replace(v, checked_at=None) for v in new]


def _young(old: Iterable[Verification], now: datetime) -> bool:
    return all(v.checked_at is None or now - v.checked_at < _YOUNG for v in old)
