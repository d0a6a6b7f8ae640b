"""Base images: find the recorded image on which another was built, by its stack of layers.

Every recorded image can be a base. A project sees only the base images that belong to its own images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from scanner.errors import UsageError
from scanner.model.image import Image
from scanner.model.lineage import BaseImage, chains, declared_base
from scanner.model.reference import Digest, Reference
from scanner.model.scan import ImageReport
from scanner.store.schema import image_stack, listing, tag_move

# Candidates, the ones with most layers in common first.
_MAX_BASES = 50


def stack(subject: Digest, image: Image) -> dict[str, Any] | None:
    """Return the row by which an image is found as a base. None: it has no layers.

    ``subject`` is the digest that its tag resolved to, which may be an index.
    """
    found = chains(image.config.diff_ids)
    if not found:
        return None
    return {
        "subject": str(subject),
        "digest": str(image.digest),
        "chain": str(found[-1]),
        "layers": len(found),
        "history": len(image.config.history),
        "created_at": image.config.created,
    }


def find(session: Connection, image: Image, projects: frozenset[str] | None) -> BaseImage | None:
    """Return the nearest base: the recorded image with the most layers that are all first layers of this image.

    If there is none, return the base that the image declares in its annotations, checked against the recorded image of
    that digest: an image can declare any base.
    """
    said = declared_base(image)
    # Without the last one: an image is not its own base, and a second tag of it is neither.
    below = [str(chain) for chain in chains(image.config.diff_ids)[:-1]]
    rows = _rows(session, image_stack.c.chain.in_(below), projects) if below else []
    if rows:
        most = [row for row in rows if row.layers == rows[0].layers]
        return _newest(session, _as_base(_base_image(most, said)), projects)
    if said is None:
        return None
    # The declared base is recorded, so its layers are known, and they are not below this image. The declaration is
    # false or out of date. It is shown as such and never used as a proof.
    if said.digest is not None and _rows(session, _names(said.digest), projects):
        note = f"the image declares {said.reference} as its base, but its layers are not those of {said.digest.short}"
        return replace(said, layers=None, history=None, note=note)
    return _newest(session, said, projects)


def of(
    session: Connection, item: ImageReport, scanned_at: datetime, projects: frozenset[str] | None
) -> BaseImage | None:
    """Return the base of a recorded image by current knowledge.

    The newest digest of its tag is the one that the image's scan got from the registry, if that is more recent.
    """
    now, then = find(session, item.image, projects), item.base
    if now is None or then is None or (then.proven and not now.proven):
        return then if now is None or then is not None else now
    asked = then.newest is not None and then.newest_at is None and then.digest == now.digest
    if asked and (now.newest_at is None or scanned_at > now.newest_at):
        return replace(now, newest=then.newest, newest_at=scanned_at)
    return now


def _names(digest: Digest) -> sa.ColumnElement[bool]:
    return sa.or_(image_stack.c.digest == str(digest), image_stack.c.subject == str(digest))


def _rows(
    session: Connection, condition: sa.ColumnElement[bool], projects: frozenset[str] | None
) -> Sequence[Row[Any]]:
    query = (
        sa.select(*image_stack.c, listing.c.repository, listing.c.tag)
        .join(listing, listing.c.digest == image_stack.c.subject)
        .where(condition)
        .order_by(image_stack.c.layers.desc(), listing.c.scanned_epoch.desc(), listing.c.id)
        .limit(_MAX_BASES)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return list(session.execute(query))


def _base_image(rows: Sequence[Row[Any]], said: BaseImage | None) -> Row[Any]:
    """Return the image that is declared as base, or else one with a specific tag. All ``rows`` have the same layers."""

    def rank(row: Row[Any]) -> tuple[bool, bool, bool]:
        named = said is not None and (
            said.digest in (row.subject, row.digest) or said.reference == f"{row.repository}:{row.tag}"
        )
        return named, bool(row.repository), row.tag not in ("", "latest")

    return max(rows, key=rank)


def _as_base(row: Row[Any]) -> BaseImage:
    name = f"{row.repository}:{row.tag}" if row.repository and row.tag else row.repository
    return BaseImage("layers", name, Digest(row.subject), row.layers, row.history, row.created_at)


def _newest(session: Connection, base: BaseImage, projects: frozenset[str] | None) -> BaseImage:
    """Return the base with the last known digest of its tag. Only tags of the projects' own images are looked up."""
    try:
        reference = Reference.parse(base.reference) if base.reference else None
    except UsageError:
        reference = None
    if reference is None or reference.tag is None:
        return base
    # The tag ledger has no project. Without this condition, an image that declares a base could ask what tags of
    # other projects name.
    seen = sa.select(listing.c.id).where(listing.c.repository == reference.name, listing.c.tag == reference.tag)
    if projects is not None:
        seen = seen.where(listing.c.project.in_(projects))
    if session.execute(seen.limit(1)).first() is None:
        return base
    query = sa.select(tag_move.c.digest, tag_move.c.seen_at).where(
        tag_move.c.repository == reference.name, tag_move.c.tag == reference.tag
    )
    last = session.execute(query.order_by(tag_move.c.id.desc()).limit(1)).first()
    if last is None:
        return base
    newest = Digest(last.digest)
    # A declared digest may be that of a platform's image, while the tag refers to the index.
    same = sa.select(image_stack.c.subject).where(
        image_stack.c.subject == last.digest, image_stack.c.digest == str(base.digest)
    )
    if base.digest is not None and session.execute(same).first() is not None:
        newest = base.digest
    return replace(base, newest=newest, newest_at=last.seen_at)
