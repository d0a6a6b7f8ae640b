"""Secrets in the image (CIS Docker 4.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.checks._secrets import is_secret_file, is_secret_variable, shape_of, title
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity
from scanner.model.image import instruction

_ASSIGNMENT = re.compile(r"""(?<![\w$])([A-Za-z_][A-Za-z0-9_]{2,60})=("[^"]{1,200}"|'[^']{1,200}'|[^\s;&|"']{1,200})""")


class EmbeddedSecrets(ImageCheck):
    """Secrets in files, variables, labels and history; also those that a later layer deletes, because the layer is still pulled."""

    id = "embedded-secrets"
    title = "Secrets in the image"
    severity = Severity.CRITICAL
    remedy = "RUN --mount=type=secret,id=token …  and revoke the secret that was built in"
    looks_at = "file names and contents of every layer, ENV, labels and history; contents by unmistakable shapes"
    cannot_see = "secrets without a known shape in files whose names say nothing; encrypted or compressed files"
    cis = ("4.10",)
    dockle = ("CIS-DI-0010",)
    article = ("Security", "Lessons Learned: Treat images as artifacts")
    tags = ("secrets",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        found = [*self._config(subject), *self._history(subject)]
        if subject.rootfs is not None:
            found.extend(self._files(subject, subject.rootfs))
        if found:
            return Failed(tuple(dict.fromkeys(found)))
        return Incomplete("layers_unreadable", subject.rootfs_reason) if subject.rootfs is None else Passed()

    def _config(self, subject: ImageSubject) -> Iterator[Evidence]:
        for where, pairs in (("Env", subject.image.config.env), ("Labels", subject.image.config.labels)):
            for name, value in pairs:
                rule = shape_of(value)
                if rule or (where == "Env" and is_secret_variable(name, value)):
                    what = title(rule) if rule else "a value"
                    yield subject.evidence(
                        f"{where} {name} holds {what} ({len(value)} characters)", pointer=f"/config/{where}"
                    )

    def _history(self, subject: ImageSubject) -> Iterator[Evidence]:
        for index, entry in enumerate(subject.image.config.history):
            line = instruction(entry.created_by)
            if line.startswith("ENV "):
                continue  # judged above, where the value in force stands
            names = [m[1] for m in _ASSIGNMENT.finditer(line) if is_secret_variable(m[1], m[2]) or shape_of(m[2])]
            for name in dict.fromkeys(names):
                kind = line.partition(" ")[0]
                yield Evidence(
                    f"the build history shows a value of {name}",
                    instruction=kind,
                    history_index=index,
                    pointer=f"/history/{index}",
                )

    def _files(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
        for index, layer in enumerate(rootfs.layers):
            for match in layer.matches:
                note = _deleted(hidden.get((index, match.path)))
                message = f"/{match.path} line {match.line} holds a {title(match.rule)}: {match.redacted}{note}"
                yield subject.evidence(message, layer_index=index, path=match.path, line=match.line)
            found_inside = {match.path for match in layer.matches}
            for entry in layer.entries:
                if (
                    entry.type is FileType.FILE
                    and entry.size
                    and entry.path not in found_inside
                    and is_secret_file(entry.path)
                ):
                    note = _deleted(hidden.get((index, entry.path)))
                    yield subject.evidence(
                        f"/{entry.path} is named as a file of credentials{note}", layer_index=index, path=entry.path
                    )


def _deleted(by: int | None) -> str:
    return f"; layer {by} hides it, but it is still in the image" if by is not None else ""
