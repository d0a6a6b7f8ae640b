"""Queries of the pull gate: which indexes contain a manifest, and which images contain a blob."""

from __future__ import annotations

from collections.abc import Set

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.scans import NOT_AN_IMAGE
from scanner.store.schema import image_blob, image_stack, scan, verdict
from scanner.store.session import insert_new

# Popular base layers are in thousands of images. A pull must not wait for all of their decisions.
_MAX_IMAGES = 50


def note_blobs(session: Connection, subject: str, blobs: Set[tuple[str, str]]) -> None:
    """Store (blob, manifest) pairs of a scan. ``subject``: the digest that the scanned name resolved to."""
    rows = [{"blob": blob, "subject": str(subject), "digest": digest} for blob, digest in sorted(blobs)]
    insert_new(session, image_blob, rows)


def is_artifact(session: Connection, digest: str) -> bool:
    """Return whether a scan has found that this is not an image. The result of a digest never changes."""
    query = sa.select(scan.c.id).where(scan.c.digest == digest, scan.c.reason == NOT_AN_IMAGE)
    return session.execute(query.limit(1)).first() is not None


def indexes_of(session: Connection, manifest: str, repository: str) -> tuple[str, ...]:
    """Return the indexes that contain the manifest and have a decision for this repository."""
    query = sa.select(image_stack.c.subject).join(verdict, verdict.c.digest == image_stack.c.subject)
    query = query.where(image_stack.c.digest == manifest, image_stack.c.subject != manifest)
    query = query.where(verdict.c.repository == repository).distinct().order_by(image_stack.c.subject)
    return tuple(session.execute(query.limit(_MAX_IMAGES)).scalars())


def images_with(session: Connection, blob: str, repository: str) -> tuple[tuple[str, str], ...]:
    """Return (subject, manifest) of images that contain the blob and have a decision for this repository."""
    key = (image_blob.c.subject, image_blob.c.digest)
    query = sa.select(*key).join(verdict, verdict.c.digest == image_blob.c.subject)
    query = query.where(image_blob.c.blob == blob, verdict.c.repository == repository).distinct().order_by(*key)
    return tuple((row.subject, row.digest) for row in session.execute(query.limit(_MAX_IMAGES)))


def is_artifact_blob(session: Connection, blob: str) -> bool:
    """Return whether only artifacts contain the blob.

    If an image contains it too, its decision counts: otherwise pushing an artifact that lists the layers of a denied
    image would make them available.
    """
    rows = session.execute(
        sa.select(image_blob.c.subject).where(image_blob.c.blob == blob).distinct().limit(_MAX_IMAGES)
    )
    subjects = list(rows.scalars())
    return bool(subjects) and all(is_artifact(session, subject) for subject in subjects)
