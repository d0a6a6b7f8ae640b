"""Code from the network run in the build without looking at it (``curl … | sh``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from scanner.checks._history import SHELLS, Command, address, evidence, history, path_of, reads_code_from_stdin
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Outcome, Severity

_DOWNLOADERS = frozenset(("curl", "wget", "aria2c", "fetch", "http", "https", "lwp-download"))
_INTERPRETERS = SHELLS | {"perl", "ruby", "node", "php", "lua", "deno", "bun"}
_PYTHON = re.compile(r"python[\d.]*|pypy[\d.]*")
_RUN_WORDS = frozenset(("eval", "source", "."))
_VERIFIERS = re.compile(
    r"(?:sha\d+|md5|b2|g?sha\d+)sums?|shasum|cksum|gpgv?2?|cosign|minisign|openssl|rekor-cli|slsa-verifier|signify"
)


class RemoteScript(ConfigCheck):
    """Whoever controls that server, or the way to it, controls the image. Piped, substituted, or saved and then run: it is the same, unless
    a digest or signature is checked in between."""

    id = "remote-script"
    title = "Downloaded code run unverified"
    severity = Severity.HIGH
    remedy = 'ADD --checksum=sha256:DIGEST https://example.com/install.sh /tmp/   (or: echo "DIGEST  install.sh" | sha256sum -c before running it)'
    looks_at = "every RUN of the history, parsed as shell: a download that an interpreter reads by pipe, substitution, here string or file"
    cannot_see = (
        "downloads that a called script or program does by itself; images whose history was taken out are unknown"
    )
    cis = ("4.11",)
    article = ("Security", "Lessons Learned: Security isn't optional")
    tags = ("build", "history", "supply-chain")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        return lines.outcome(
            [evidence(subject, run, message) for run in lines.runs() for message in _executed(run.commands)]
        )


def _executed(commands: Sequence[Command]) -> Iterator[str]:
    verified = any(_VERIFIERS.fullmatch(command.name) for command in commands)
    saved: dict[str, Command] = {}
    for command in commands:
        source = _source(command)
        if source is not None:
            yield f"{_where(source)} is run by {command.name} as it comes from the network"
        elif not verified and (path := _program(command)) in saved:
            yield f"{_where(saved[path])} is saved as {path} and run without a check of its digest or signature"
        if command.name in _DOWNLOADERS:
            saved.update((path, command) for path in _saved(command))


def _interpreter(command: Command) -> bool:
    return command.name in _INTERPRETERS or _PYTHON.fullmatch(command.name) is not None


def _source(command: Command) -> Command | None:
    """The download whose output this command runs as code."""
    if command.name in _RUN_WORDS:
        return _download(command.substituted)
    if not _interpreter(command):
        return None
    if reads_code_from_stdin(command) and (found := _download(command.stdin)):
        return found
    words = command.words[1:]
    for position, word in enumerate(words):
        is_code = word.startswith("<(") and not any(not w.startswith("-") for w in words[:position])
        if is_code or (word.startswith("$(") and position and re.fullmatch(r"-\w*[ce]", words[position - 1])):
            return _download(command.substituted)
    return None


def _download(commands: Sequence[Command], depth: int = 0) -> Command | None:
    for command in commands:
        if command.name in _DOWNLOADERS:
            return command
        if depth < 10 and (found := _download((*command.stdin, *command.substituted), depth + 1)):
            return found
    return None


def _where(command: Command) -> str:
    return address(next((word for word in command.operands if "://" in word), f"what {command.name} loads"))


def _saved(command: Command) -> Iterator[str]:
    """Where a download puts its bytes."""
    words = command.words
    for position, word in enumerate(words[:-1]):
        if re.fullmatch(r"--output|--output-document|-\w*[oO]", word) and not (
            command.name == "curl" and word.endswith("O")
        ):
            yield _key(words[position + 1])
    for word in command.writes:
        yield _key(word)
    if command.name == "wget" or command.has("-O", "--remote-name"):
        yield from (_key(word.partition("?")[0].rpartition("/")[2]) for word in command.operands if "://" in word)


def _program(command: Command) -> str:
    """The file that is run: named by its path, or given to an interpreter."""
    if command.words and "/" in command.words[0] and not _interpreter(command):
        return _key(command.words[0])
    if (_interpreter(command) or command.name in _RUN_WORDS) and command.operands:
        return _key(command.operands[0])
    return ""


def _key(word: str) -> str:
    """A file's name as both the download and the call may write it: where the working directory is not known, the last part decides."""
    path = path_of(word)
    return path if word.startswith("/") else path.rpartition("/")[2]
