"""What checks of workloads share: evidence at its line, and a remedy in the source's own language."""

from __future__ import annotations

from typing import Any

from scanner.model.finding import Evidence
from scanner.model.workload import Workload


def evidence(workload: Workload, message: str, *fields: str, **more: Any) -> Evidence:
    """Evidence at the place of the first of these fields that the source says; see ``Origin.place``.

    The message begins with the workload's name, because one document holds many.
    """
    place = workload.place(*fields)
    pointer = f"#{place.document}{place.pointer}" if place.document else place.pointer
    return Evidence(f"{workload.name}: {message}", path=place.file, pointer=pointer, line=place.line, **more)
