"""Files on this machine's disk that may be pruned: unused layers, and former advisory databases."""

from __future__ import annotations

import time
from collections.abc import Mapping

from scanner.advisories import database
from scanner.config import Settings
from scanner.registry.blobs import BlobStore


def prune_files(settings: Settings, *, now: float | None = None, dry_run: bool = False) -> Mapping[str, int]:
    """Remove files that are older than their retention. Returns the bytes freed, or to be freed, by setting."""
    now = time.time() if now is None else now
    freed: dict[str, int] = {}
    blobs, advisories = settings.retention_blobs, settings.retention_advisories
    if blobs.seconds and settings.blobs_dir.is_dir():
        store = BlobStore(settings.blobs_dir, settings.blob_store_bytes)
        freed["blobs"] = store.remove_unused(now - blobs.seconds, dry_run=dry_run)
    if advisories.seconds:
        freed["advisories"] = database.remove_former(settings, now - advisories.seconds, dry_run=dry_run)
    return {name: size for name, size in freed.items() if size}
