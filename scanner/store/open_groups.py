"""Queries whether a reported group of events is still open: in current images of tags, or in running images."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.decision import Verdict
from scanner.store import inventory, tags
from scanner.store.schema import (
    finding,
    image,
    image_stack,
    listing,
    verdict,
    vulnerability,
)


def has_vulnerability(session: Connection, project: str, name: str) -> bool:
    """Return whether the project has a vulnerability in the current image of a tag or in a running image."""
    having = (
        sa.select(listing.c.id)
        .select_from(finding)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .join(image, image.c.id == finding.c.image_id)
    )
    # Two queries: with OR between them, neither database would use an index.
    for query in (
        having.join(listing, listing.c.digest == image.c.digest),
        having.join(image_stack, image_stack.c.digest == image.c.digest).join(
            listing, listing.c.digest == image_stack.c.subject
        ),
    ):
        mine = query.where(vulnerability.c.name == name, listing.c.project == project, _is_current())
        if session.execute(mine.limit(1)).first() is not None:
            return True
    return False


def is_denied(session: Connection, project: str, policy: str, rule: str) -> bool:
    """Return whether a policy's rule denies the current image of a tag or a running image of the project."""
    query = (
        sa.select(verdict.c.digest)
        .join(listing, (listing.c.digest == verdict.c.digest) & (listing.c.repository == verdict.c.repository))
        .where(
            listing.c.project == project,
            listing.c.verdict == Verdict.DENY,
            # A text search in the stored JSON. It can find too much and never too little, so an alert stays open for
            # longer in doubt.
            verdict.c.document.contains(f'"rule":"{rule}"', autoescape=True),
            verdict.c.document.contains(f'"{policy}"', autoescape=True),
            _is_current(),
        )
        .limit(1)
    )
    return session.execute(query).first() is not None


def _is_current() -> sa.ColumnElement[bool]:
    """Select listings whose tag has not been moved to another image, or whose image is running."""
    return sa.or_(tags.is_named_last(), inventory.runs(listing.c.digest))
