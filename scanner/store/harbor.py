"""Scans that a Harbor requested: the token that requested each, and the registry credentials that came with it.

The credentials are encrypted, and erased in the transaction that ends the scan (`scanner.store.scans`).
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.model.scan import ScanRequest
from scanner.store import scans
from scanner.store.schema import harbor_scan
from scanner.store.secrets import seal, unseal


def request(session: Connection, asked: ScanRequest, token_id: str, credentials: Secret, key: Secret) -> scans.Ticket:
    """Record a scan and its credentials; empty: none came. It joins no other scan."""
    # Another client that joined this scan would use credentials that were sent for Harbor's request only.
    ticket = scans.request(session, asked, alone=True)
    sealed = seal(credentials, key, _place(ticket.scan_id)) if credentials else None
    session.execute(harbor_scan.insert().values(id=ticket.scan_id, token_id=token_id, credentials=sealed))
    return ticket


def get(session: Connection, scan_id: str, token_id: str, projects: frozenset[str] | None) -> scans.ScanView:
    """Return a scan that this token requested. Raises NotFoundError, also for those of others."""
    mine = sa.and_(harbor_scan.c.id == scan_id, harbor_scan.c.token_id == token_id)
    if session.execute(sa.select(harbor_scan.c.id).where(mine)).first() is None:
        raise NotFoundError("there is no such scan")
    return scans.get(session, scan_id, projects)


def credentials(session: Connection, scan_id: str, key: Secret) -> Secret | None:
    """Return the credentials that came with the request of a scan, or None."""
    sealed = session.execute(sa.select(harbor_scan.c.credentials).where(harbor_scan.c.id == scan_id)).scalar()
    return unseal(sealed, key, _place(scan_id)) if sealed else None


def _place(scan_id: str) -> str:
    return f"harbor_scan|{scan_id}|credentials"
