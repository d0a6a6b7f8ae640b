"""Compose files (Compose Specification).

https://github.com/compose-spec/compose-spec
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from scanner.errors import UsageError
from scanner.model.workload import Workload
from scanner.workloads import _compose_services
from scanner.workloads._compose_interpolation import env_file
from scanner.workloads._documents import Document
from scanner.workloads.base import Files, LocalFiles, WorkloadSource, read_file, read_texts

_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")  # in Compose's order


class ComposeFiles(WorkloadSource):
    """See ``WorkloadSource``.

    Several files are merged in order. Services of inactive profiles are included.
    """

    id = "compose"
    title = "Compose files (FILE, or FILE,FILE merged in order)"
    targets = (
        (
            "compose:FILE[,FILE…]",
            "Compose files, merged in order: `include`, `extends`, anchors, `${VAR:-default}`, "
            "`.env`, `!reset`, `!override`",
        ),
    )
    compose_tags = True

    def recognises(self, document: Document) -> bool:
        """See ``WorkloadSource.recognises``."""
        return _compose_services.looks_like(document)

    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """See ``WorkloadSource.read``.

        Variables have their defaults: the sender's environment is unknown.
        """
        return _compose_services.read(documents, files, {}, self.id)

    def load(self, target: str, stdin: Callable[[], bytes]) -> tuple[Workload, ...]:
        """See ``WorkloadSource.load``.

        Variables come from the environment and from ``.env`` in the directory of the first file, as in Compose. For a
        directory, its Compose file is read.
        """
        target = _in_directory(target)
        documents = [d for name, text in read_texts(target, stdin) for d in self.documents(text, name)]
        beside = Path(target.split(",")[0]).parent / ".env"
        variables = env_file(read_file(beside), os.environ) if target != "-" and beside.is_file() else {}
        # The environment wins over `.env`, as in Compose.
        return _compose_services.read(documents, LocalFiles(), {**variables, **os.environ}, self.id)


def _in_directory(target: str) -> str:
    """The file that ``docker compose`` would take in a directory; the target itself where it is no directory."""
    if not Path(target).is_dir():
        return target
    for name in _FILES:
        if (Path(target) / name).is_file():
            return str(Path(target) / name)
    raise UsageError(f"{target}: no {', '.join(_FILES)} in it", reason="bad_workload", hint="write compose:FILE")
