"""Who signed an image, asked of every scheme for which somebody named a trust root.

Used by scans and by the command line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from scanner import catalog
from scanner.config import Settings
from scanner.model.finding import TrustStatus, Verification
from scanner.model.glob import matches
from scanner.model.reference import Descriptor, Reference
from scanner.model.scan import ScanReport
from scanner.trust._state import NoState
from scanner.trust.base import Fetcher, TrustJob, TrustRoot, TrustScheme, TrustState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from scanner.registry.auth import CredentialStore

log = logging.getLogger(__name__)

# Evidence is immutable and not small: the same answers as before are kept as they are, while they are as young as this.
_YOUNG = timedelta(hours=6)


@dataclass(frozen=True)
class Trust:
    """Whom an installation trusts, and what its verifiers remember."""

    roots: tuple[TrustRoot, ...] = ()
    state: TrustState = field(default_factory=NoState)


def roots(session: Connection) -> tuple[TrustRoot, ...]:
    """Every named trust root."""
    from scanner.store import trust as store  # a scan without a server pays for no database's driver

    return tuple(TrustRoot(view.name, view.scheme, view.document, view.scope) for view in store.list_(session))


def stored(settings: Settings) -> Trust:
    """The trust of this installation's database, for the command line.

    Where there is no database yet, nobody was named.
    """
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
    """Each scheme's answers about the image. Where no trust root covers the repository, nobody is asked anything."""
    covering = [root for root in trust.roots if matches(root.scope, reference.name)]
    if not covering:
        return unasked("no_trust_root", f"no trust root covers {reference.name}", descriptor)
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
        found += answers(scheme, job)
    return tuple(found)


def answers(scheme: TrustScheme, job: TrustJob) -> tuple[Verification, ...]:
    """The scheme's word; a verifier that breaks on an image has not verified it."""
    try:
        return scheme.verify(job)
    except Exception as error:
        log.exception("%s failed", scheme.id)
        detail = f"{scheme.id} broke on this image ({type(error).__name__})"
        return (
            Verification(
                scheme.id, TrustStatus.UNKNOWN, job.descriptor.digest, "verifier_failed", detail, checked_at=job.now
            ),
        )


def unasked(reason: str, detail: str, descriptor: Descriptor) -> tuple[Verification, ...]:
    """An answer for each scheme that says why it was not asked, whenever that was."""
    return tuple(
        Verification(scheme, TrustStatus.UNKNOWN, descriptor.digest, reason, detail) for scheme in catalog.schemes()
    )


def renewed(known: ScanReport, found: tuple[Verification, ...], now: datetime) -> ScanReport:
    """Evidence of the same bytes with today's answers about who signed them; the evidence itself where nothing
    changed lately.
    """
    if all(_same(image.verifications, found) and _young(image.verifications, now) for image in known.images):
        return known
    return replace(known, images=tuple(replace(image, verifications=found) for image in known.images))


def _same(old: Iterable[Verification], new: Iterable[Verification]) -> bool:
    return [replace(v, checked_at=None) for v in old] == [replace(v, checked_at=None) for v in new]


def _young(old: Iterable[Verification], now: datetime) -> bool:
    return all(v.checked_at is None or now - v.checked_at < _YOUNG for v in old)
