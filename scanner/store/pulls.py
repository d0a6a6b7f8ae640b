"""What a pull gate asks beside the decision in force: which index holds a manifest, which images have a blob."""

from __future__ import annotations

from collections.abc import Set

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.scans import NOT_AN_IMAGE
from scanner.store.schema import image_blob, image_stack, scan, verdict
from scanner.store.session import insert_new

_MOST = 50  # images of one repository that share a blob, and indexes that share a manifest: more are not looked at


def note_blobs(session: Connection, subject: str, blobs: Set[tuple[str, str]]) -> None:
    """Remember (blob, manifest) of what a name resolved to."""
    rows = [{"blob": blob, "subject": str(subject), "digest": digest} for blob, digest in sorted(blobs)]
    insert_new(session, image_blob, rows)


def is_artifact(session: Connection, digest: str) -> bool:
    """Whether a scan found that this is no image. A digest names the same bytes for ever, so it still is none."""
    query = sa.select(scan.c.id).where(scan.c.digest == digest, scan.c.reason == NOT_AN_IMAGE)
    return session.execute(query.limit(1)).first() is not None


def indexes_of(session: Connection, manifest: str, repository: str) -> tuple[str, ...]:
    """The indexes with a decision under this repository's name that hold the manifest."""
    query = sa.select(image_stack.c.subject).join(verdict, verdict.c.digest == image_stack.c.subject)
    query = query.where(image_stack.c.digest == manifest, image_stack.c.subject != manifest)
    query = query.where(verdict.c.repository == repository).distinct().order_by(image_stack.c.subject)
    return tuple(session.execute(query.limit(_MOST)).scalars())


def images_with(session: Connection, blob: str, repository: str) -> tuple[tuple[str, str], ...]:
    """(subject, manifest) of the images with a decision under this repository's name that have the blob."""
    key = (image_blob.c.subject, image_blob.c.digest)
    query = sa.select(*key).join(verdict, verdict.c.digest == image_blob.c.subject)
    query = query.where(image_blob.c.blob == blob, verdict.c.repository == repository).distinct().order_by(*key)
    return tuple((row.subject, row.digest) for row in session.execute(query.limit(_MOST)))


def is_artifact_blob(session: Connection, blob: str) -> bool:
    """Whether artifacts have the blob and no image does: an artifact that names an image's layers opens none."""
    rows = session.execute(sa.select(image_blob.c.subject).where(image_blob.c.blob == blob).distinct().limit(_MOST))
    subjects = list(rows.scalars())
    return bool(subjects) and all(is_artifact(session, subject) for subject in subjects)
