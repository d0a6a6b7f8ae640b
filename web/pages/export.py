"""Export a page of a list as CSV or JSON: same rows, same filters."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from flask import Response, request

from scanner.errors import UsageError
from scanner.model.untrusted import spreadsheet_text

FORMATS = {"csv": "text/csv", "json": "application/json"}


def requested_format() -> str:
    """Return the requested export format, or an empty string for a page. Raises UsageError if unknown."""
    name = request.args.get("format", "")
    if name and name not in FORMATS:
        raise UsageError(f"unknown format {name!r}", hint="use one of " + ", ".join(FORMATS))
    return name


def answer(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], kind: str) -> Response:
    """Return the rows as a download."""
    body = orjson.dumps(list(rows), option=orjson.OPT_INDENT_2) if kind == "json" else as_csv(columns, rows).encode()
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
    return Response(body, content_type=FORMATS[kind] + "; charset=utf-8", headers=headers)


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """RFC 4180 with a header. Cells that a spreadsheet would run as a formula start with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return spreadsheet_text(str(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
