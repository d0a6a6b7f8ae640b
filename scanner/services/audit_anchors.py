"""Anchors of the audit log: the end of its hash chain, written regularly to a file outside of the database.

A hash chain alone does not reveal that its newest entries were deleted; an anchor does. Keep the file (setting
``audit_anchors``) where database administrators have no write access.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from scanner.config import Secret, Settings, audit_key
from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.model.untrusted import load_untrusted_json
from scanner.store import audit
from scanner.store.session import Database

# Bytes: a longer line is no anchor.
_LINE = 1000
_MAX_FILE = 256 << 20  # bytes that are read back


def anchor_file(settings: Settings) -> Path:
    return settings.audit_anchors or settings.home / "audit_anchors.jsonl"


def append_anchor(settings: Settings, database: Database) -> bool:
    """Append the end of the chain to the file. Returns False if it has not changed since the last anchor.

    Raises UsageError if the file cannot be written.
    """
    key, file = audit_key(settings), anchor_file(settings)
    with database.read() as session:
        now = audit.anchor(session, key)
    if now is None:
        return False
    try:
        if _last(file) == now.seq:
            return False
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A crash may have torn the last line: the new one must not continue it. The torn one is not cut off, because
        # the file may be one that can only be appended to.
        start = "" if _ends_well(file) else "\n"
        with file.open("a", encoding="ascii") as out:
            out.write(f"{start}{now.to_line()}\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise UsageError(f"cannot write the audit log's anchors to {file}: {error.strerror}") from error
    return True


def read(
    settings: Settings, file: Path | None = None, warn: Callable[[str], None] = lambda text: None
) -> tuple[audit.Anchor, ...]:
    """Return the anchors of the file; none if there is no file. Raises UsageError with the line of an invalid MAC.

    An incomplete line, left by a crash, is skipped with a warning. This weakens nothing: an attacker who can truncate
    a line can also delete it, so the file has to be out of the database administrator's reach in any case.
    """
    file, key = file or anchor_file(settings), audit_key(settings)
    try:
        if not file.exists():
            return ()
        lines = read_whole(file, _MAX_FILE, "the audit log's anchors in").decode("ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the audit log's anchors in {file}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not _is_torn(line):
            found.append(_anchor(line, number, file, key))
        elif line:
            warn(f"{file}, line {number}: skipped, because it is incomplete (after a crash or with a full disk)")
    return tuple(found)


def _is_torn(line: str) -> bool:
    """Whether the line is an incomplete anchor. After a power cut a file may contain NUL bytes instead of the data."""
    text, first = line.strip("\0\r"), '{"seq":'
    return first.startswith(text) or (text.startswith(first) and "}" not in text)


def _ends_well(file: Path) -> bool:
    """Whether the file is missing, empty or ends with a newline."""
    try:
        with file.open("rb") as data:
            if not data.seek(0, os.SEEK_END):
                return True
            data.seek(-1, os.SEEK_END)
            return data.read() == b"\n"
    except FileNotFoundError:
        return True


def _anchor(line: str, number: int, file: Path, key: Secret) -> audit.Anchor:
    found = load_untrusted_json(line.encode(), limit=_LINE, error=UsageError, reason="bad_anchor")
    names = ("seq", "hash", "at", "mac")
    if isinstance(found, dict) and set(found) == set(names) and isinstance(found["seq"], int):
        noted = audit.Anchor(found["seq"], str(found["hash"]), str(found["at"]), str(found["mac"]))
        if audit.is_ours(noted, key):
            return noted
    raise UsageError(
        f"{file}, line {number}: the anchor has an invalid MAC",
        reason="bad_anchor",
        hint="the line was changed, or DOCKWARDEN_AUDIT_KEY is not the key that wrote it",
    )


def _last(file: Path) -> int | None:
    """Return the sequence number of the last anchor, or None if the file is missing or its last line unreadable."""
    try:
        with file.open("rb") as data:
            data.seek(max(0, file.stat().st_size - _LINE))
            lines = [line for line in data.read().split(b"\n") if line]
    except FileNotFoundError:
        return None
    try:
        found = load_untrusted_json(lines[-1], limit=_LINE, error=UsageError) if lines else None
    except UsageError:
        return None
    return found.get("seq") if isinstance(found, dict) else None
