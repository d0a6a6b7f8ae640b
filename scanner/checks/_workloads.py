"""Evidence of workload checks, with the position in the document."""

from __future__ import annotations

from typing import Any

from scanner.model.finding import Evidence
from scanner.model.workload import Workload


def evidence(workload: Workload, message: str, *fields: str, **more: Any) -> Evidence:
    """Return evidence with the position of the first of ``fields`` that the source sets. See ``Origin.place``.

    The message begins with the workload's name, because a document may contain many.
    """
    place = workload.place(*fields)
    # A YAML stream holds several documents. The pointer (RFC 6901) counts within one, so the number of the document
    # comes first.
    pointer = f"#{place.document}{place.pointer}" if place.document else place.pointer
    return Evidence(f"{workload.name}: {message}", path=place.file, pointer=pointer, line=place.line, **more)
