"""Secrets in the image (CIS Docker 4.10)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from scanner.checks._secret_catalogue import IDENTIFIERS
from scanner.checks._secrets import TextSecret, in_text, is_secret_variable, title, without_secrets
from scanner.checks.base import ALLOW, ImageCheck, ImageSubject
from scanner.model.filesystem import NOT_SEARCHED, ContentMatch, Rootfs
from scanner.model.finding import Evidence, Incomplete, Outcome, Passed, Severity
from scanner.model.image import instruction
from scanner.model.untrusted import clean_text

_SHELL, _MOST_UNSPECIFIED = "/bin/sh -c ", 100
_LESSER = ("password hash", "private key (encrypted)")  # not usable without cracking them first


class EmbeddedSecrets(ImageCheck):
    """Secrets in files, variables, labels and history. Deleted files are included: their layer is still pulled."""

    id = "embedded-secrets"
    title = "Secrets in the image"
    severity = Severity.CRITICAL
    remedy = "RUN --mount=type=secret,id=token …  and revoke the leaked secret"
    looks_at = (
        "files of all layers: token and key formats, and values in credential files, also with escaped line ends, in "
        "UTF-16, base64, gzip, hexadecimal, decimal numbers and Kubernetes Secrets; private keys in DER, PKCS #12 and "
        "Java key stores; ENV, labels, annotations, ENTRYPOINT, CMD, HEALTHCHECK and all other texts of the config; "
        "build arguments, commands and comments in the history; results of the engines' secret scanners"
    )
    cannot_see = (
        "secrets of unknown format outside of credential files; encrypted files, and files that are compressed in "
        "other ways than gzip"
    )
    cis = ("4.10",)
    dockle = ("CIS-DI-0010",)
    trivy = ("DS-0031",)
    article = ("Security", "Lessons Learned: Treat images as artifacts")
    tags = ("secrets",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        found = [*self._variables(subject), *self._labels(subject), *self._commands(subject), *self._history(subject)]
        found += islice(self._unspecified(subject), _MOST_UNSPECIFIED)
        if subject.rootfs is not None:
            found.extend(self._files(subject, subject.rootfs))
        outcome = self.judged(dict.fromkeys(found), subject.parameters)
        if isinstance(outcome, Passed) and subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        if isinstance(outcome, Passed) and subject.rootfs is not None:
            for index, oddity in subject.rootfs.oddities:
                if oddity.reason == NOT_SEARCHED:
                    return Incomplete(NOT_SEARCHED, f"layer {index}: /{oddity.path} {oddity.detail}")
        return outcome

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        if all(any(kind in item.message for kind in IDENTIFIERS) for item in evidence):
            return Severity.LOW
        lesser = (*_LESSER, *IDENTIFIERS)
        return Severity.HIGH if all(any(kind in item.message for kind in lesser) for item in evidence) else None

    def _variables(self, subject: ImageSubject) -> Iterator[Evidence]:
        for name, value in subject.image.config.env:
            if is_secret_variable(name, value):
                what = f"a value ({len(value)} characters)"
            elif found := in_text(value):
                what = _kinds(found)
            else:
                continue
            message = f"variable {name} contains {what}"
            evidence = subject.setting(message, "ENV", holding=f"{name}=", pointer="/config/Env", name=name)
            yield replace(evidence, instruction=without_secrets(evidence.instruction))

    def _labels(self, subject: ImageSubject) -> Iterator[Evidence]:
        for name, value in subject.image.config.labels:
            if found := in_text(value) or in_text(f"{name.rpartition('.')[2].replace('-', '_')}='{value}'"):
                message = f"label {name} contains {_kinds(found)}"
                evidence = subject.setting(message, "LABEL", holding=name, pointer="/config/Labels", name=name)
                yield replace(evidence, instruction=without_secrets(evidence.instruction))

        for name, value in subject.image.annotations:
            if found := in_text(value) or in_text(f"{name.rpartition('.')[2].replace('-', '_')}='{value}'"):
                yield Evidence(f"annotation {name} contains {_kinds(found)}", pointer="/annotations", name=name)

    def _commands(self, subject: ImageSubject) -> Iterator[Evidence]:
        """Yield secrets in the commands that containers run. Tools can set them without a line in the history."""
        config = subject.image.config
        test = config.healthcheck.test if config.healthcheck else ()
        for keyword, member, words in (
            ("ENTRYPOINT", "Entrypoint", config.entrypoint),
            ("CMD", "Cmd", config.cmd),
            ("HEALTHCHECK", "Healthcheck/Test", test),
            ("ONBUILD", "OnBuild", config.onbuild),
            ("SHELL", "Shell", config.shell),
            ("USER", "User", (config.user,)),
            ("WORKDIR", "WorkingDir", (config.working_dir,)),
            ("VOLUME", "Volumes", config.volumes),
        ):
            if found := in_text(" ".join(words)):
                yield Evidence(f"{keyword} contains {_kinds(found)}", pointer=f"/config/{member}", name=keyword)
        if found := in_text(config.author):
            yield Evidence(f"the author contains {_kinds(found)}", pointer="/author", name="author")

    def _unspecified(self, subject: ImageSubject) -> Iterator[Evidence]:
        """Yield secrets in members of the config that only some builders write. All who pull the image get them."""
        config = subject.image.config
        # Docker's old builder repeats there what is in the config and the history.
        shown = {*(f"{name}={value}" for name, value in config.env), *(value for _, value in config.labels)}
        shown.update(entry.created_by.removeprefix(_SHELL) for entry in config.history)
        for pointer, text in config.unspecified:
            name = pointer.rpartition("/")[2]
            found = in_text(text) or in_text(f"{name.rpartition('.')[2].replace('-', '_')}='{text}'")
            if found and text not in shown:
                place = without_secrets(clean_text(pointer, 200))
                yield Evidence(f"{place} of the image config contains {_kinds(found)}", pointer=place)

    def _history(self, subject: ImageSubject) -> Iterator[Evidence]:
        """Yield secrets in the history. Entries are searched unparsed, to include build arguments (``|1 TOKEN=…``).

        ``_variables`` reports current values of ENV; overridden ones are reported here.
        """
        variables = {f"{name}=": value for name, value in subject.image.config.env}
        for index, entry in enumerate(subject.image.config.history):
            line = entry.created_by
            for what, note in (("comment", entry.comment), ("author", entry.author)):
                if kinds := in_text(note):
                    message = f"the {what} of a step in the build history contains {_kinds(kinds)}"
                    yield Evidence(message, history_index=index, pointer=f"/history/{index}/{what}", name=what)
            found = [s for s in in_text(line) if variables.get(s.what) != line[s.start : s.end].strip("\"'")]
            if found:
                layer = entry.layer if entry.layer is not None and entry.layer < len(subject.image.layers) else None
                yield Evidence(
                    f"the build history contains {_kinds(found)}",
                    layer=subject.image.layers[layer].diff_id if layer is not None else None,
                    layer_index=layer,
                    instruction=without_secrets(instruction(line)),
                    history_index=index,
                    pointer=f"/history/{index}",
                    name=" ".join(dict.fromkeys(s.what.rstrip("=") for s in found if s.what.endswith("="))),
                )

    def _files(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
        same: dict[ContentMatch, list[int]] = defaultdict(list)
        for index, layer in enumerate(rootfs.layers):
            for match in layer.matches:
                same[match].append(index)
        for match, layers in same.items():
            also = f"; also in layer {', '.join(map(str, layers[1:]))}" if len(layers) > 1 else ""
            note = _deleted_note(hidden.get((layers[-1], match.path)))
            message = f"/{match.path} line {match.line}: {title(match.rule)}: {match.redacted}{also}{note}"
            yield subject.evidence(message, layer_index=layers[0], path=match.path, line=match.line)
        yield from self._engines(subject, rootfs, hidden)

    def _engines(
        self, subject: ImageSubject, rootfs: Rootfs, hidden: Mapping[tuple[int, str], int]
    ) -> Iterator[Evidence]:
        """Yield secrets that only the engine's scanner found. Results on the same or next line are the same secret."""
        ours: dict[str, set[int]] = defaultdict(set)
        for layer in rootfs.layers:
            for match in layer.matches:
                ours[match.path].add(match.line)
        for secret in subject.secrets or ():
            lines = ours.get(secret.path, set())
            if lines and (secret.line is None or any(abs(line - secret.line) <= 1 for line in lines)):
                continue
            index = subject.layer_index(secret.layer)
            note = _deleted_note(hidden.get((index, secret.path))) if index is not None else ""
            where = f" line {secret.line}" if secret.line else ""
            what = secret.title or secret.rule
            yield subject.evidence(
                f"/{secret.path}{where}: {what} (the engine's scanner){note}",
                layer_index=index,
                path=secret.path,
                line=secret.line,
            )


def _kinds(found: Sequence[TextSecret]) -> str:
    """Return the kinds of secrets without values: ``a value of TOKEN, an Authorization header``."""
    return ", ".join(dict.fromkeys(f"a value of {s.what[:-1]}" if s.what.endswith("=") else s.what for s in found))


def _deleted_note(by: int | None) -> str:
    return f"; layer {by} deletes it, but the image still contains it" if by is not None else ""
