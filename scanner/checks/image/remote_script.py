"""Code from the network run in the build without looking at it (``curl … | sh``)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from scanner.checks._history import Command, address, evidence, history, path_of
from scanner.checks._shells import options_of, reads_code_from_stdin
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity

_DOWNLOADERS = frozenset(("curl", "wget", "aria2c", "fetch", "http", "https", "lwp-download", "axel", "wget2", "xh"))
_RUN_WORDS = frozenset(("eval", "source", "."))
_COPIERS = frozenset(("mv", "cp", "install", "ln"))
_VERIFIERS = re.compile(
    r"(?:sha\d+|md5|b2|g?sha\d+)sums?|shasum|cksum|gpgv?2?|cosign|minisign|openssl|rekor-cli|slsa-verifier|signify"
)
_MOST_CHECKS, _MOST_TEXTS = 100, 300


class RemoteScript(ConfigCheck):
    """Whoever controls that server, or the way to it, controls the image.

    Piped, substituted, or saved and then run: it is the same, unless a digest or signature is checked in between.
    """

    id = "remote-script"
    title = "Downloaded code run unverified"
    severity = Severity.HIGH
    remedy = (
        'ADD --checksum=sha256:DIGEST https://example.com/install.sh /tmp/   (or: echo "DIGEST  '
        'install.sh" | sha256sum -c before running it)'
    )
    looks_at = (
        "every RUN of the history, parsed as shell: a download that an interpreter reads by pipe, "
        "substitution, here string or file"
    )
    cannot_see = (
        "downloads that a called script or program does by itself; images whose history was taken out are unknown"
    )
    cis = ("4.11",)
    article = ("Security", "Lessons Learned: Security isn't optional")
    tags = ("build", "history", "supply-chain")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        found, unclear = [], ""
        for run in lines.runs():
            for one in _executed(run.commands):
                if one.certain:
                    found.append(evidence(subject, run, one.message))
                else:
                    unclear = unclear or f"history line {run.index}: {one.message}"
        if unclear and not found:
            return Incomplete("history_not_understood", unclear)
        return lines.outcome(found)


class _Execution(NamedTuple):
    """Downloaded code that is run.

    Not ``certain``: something was verified, and whether it was this file cannot be told.
    """

    message: str
    certain: bool = True


def _executed(commands: Sequence[Command]) -> Iterator[_Execution]:
    """Read the commands in their order: what is saved, what is verified, what is run."""
    downloads = _Downloads()
    saved = _Saved()
    checks: list[_Check] = []
    written: dict[str, list[Command]] = defaultdict(list)
    for command in commands:
        source = _source(command, downloads)
        if source is not None:
            yield _Execution(f"{_where(source)} is run by {command.name} as it comes from the network")
        for path in _programs(command) if source is None else ():
            if (name := saved.find(path)) and (answer := _is_verified(name, checks)) is not True:
                message = f"{_where(saved.downloads[name])} is saved as {name} and run"
                if answer is None:
                    unclear = f"{message}, and whether its digest or signature was checked cannot be told"
                    yield _Execution(unclear, certain=False)
                else:
                    yield _Execution(f"{message} without a check of its digest or signature")
        if _VERIFIERS.fullmatch(command.name) and len(checks) < _MOST_CHECKS:
            checks.append(_check(command, written))
        for target in command.writes:
            written[_last(target)].append(command)
        for path, download in _saved(command, saved, downloads):
            saved.add(path, download)


class _Saved:
    """Files that hold what was downloaded, and the download of each."""

    def __init__(self) -> None:
        self.downloads: dict[str, Command] = {}
        self._by_last: dict[str, dict[str, None]] = defaultdict(dict)

    def add(self, path: str, download: Command) -> None:
        """Remember that this path, as ``_key`` gives it, holds that download."""
        self.downloads[path] = download
        self._by_last[_last(path)][path] = None

    def find(self, path: str) -> str:
        """The saved file that a path names; empty: none.

        Where one of the two has no directory, the last part decides.
        """
        key = _key(path)
        if key in self.downloads:
            return key
        names = self._by_last.get(_last(key), {}) if key else {}
        return next((name for name in names if not ("/" in name and "/" in key)), "")


class _Downloads:
    """Finds the download that feeds a command.

    A hostile line makes very many ways to one command, so no answer is sought twice.
    """

    def __init__(self) -> None:
        self._found: dict[int, Command] = {}
        self._none: set[int] = set()

    def among(self, *feeds: Sequence[Command]) -> Command | None:
        """The first download among these commands and what feeds them. Commands of a group share one feed."""
        for feed in feeds:
            if id(feed) not in self._found and id(feed) not in self._none:
                self._look(feed)
            if found := self._found.get(id(feed)):
                return found
        return None

    def _look(self, start: Sequence[Command]) -> None:
        waiting: list[Sequence[Command]] = [start]
        seen: set[int] = set()
        while waiting:
            feed = waiting.pop()
            if id(feed) in seen or id(feed) in self._none:
                continue
            seen.add(id(feed))
            found = self._found.get(id(feed)) or next((c for c in feed if c.name in _DOWNLOADERS), None)
            if found is not None:
                self._found[id(start)] = found
                return
            waiting.extend(
                inner for command in reversed(feed) for inner in (command.substituted, command.stdin) if inner
            )
        self._none |= seen


def _source(command: Command, downloads: _Downloads) -> Command | None:
    """The download whose output this command runs as code."""
    words = command.words
    if command.name in _RUN_WORDS:
        if any(word in ("/dev/stdin", "/dev/fd/0") for word in words[1:]):
            return downloads.among(command.stdin)
        expands = any(_expands(word) for word in words[1:])
        return downloads.among(command.substituted, command.stdin) if expands else None
    options = options_of(words)
    if options is None:
        return None
    if reads_code_from_stdin(words) or "xargs" in command.wrappers:
        return downloads.among(command.stdin)
    word = words[options.operand] if options.operand < len(words) else ""
    before = words[options.operand - 1] if options.code else ""
    if word.startswith("<(") or (options.code and (_expands(word) or _expands(before))):
        return downloads.among(command.substituted)
    return None


def _expands(word: str) -> bool:
    """Whether a word is what a command printed, or what a variable holds."""
    return word.startswith(("$(", "${", "$", "`", "<("))


def _where(command: Command) -> str:
    return address(next((word for word in command.operands if "://" in word), f"what {command.name} loads"))


def _saved(command: Command, saved: _Saved, downloads: _Downloads) -> Iterator[tuple[str, Command]]:
    """Where a download's bytes are put, by itself or by the command behind it: each path with the download."""
    words = command.words
    if command.name in _COPIERS and len(command.operands) > 1:
        *sources, target = command.operands
        for source in sources:
            if name := saved.find(source):
                yield _key(target), saved.downloads[name]
                yield _key(f"{target}/{_last(source)}"), saved.downloads[name]
        return
    if command.name not in _DOWNLOADERS:
        download = downloads.among(command.stdin, command.substituted)
        if download is not None:
            outputs = command.operands if command.name == "tee" else ()
            outputs += tuple(word[3:] for word in words if command.name == "dd" and word.startswith("of="))
            yield from ((_key(word), download) for word in (*command.writes, *outputs))
        return
    for position, word in enumerate(words[:-1]):
        if re.fullmatch(r"--output|--output-document|--out|-\w*[oO]", word) and not (
            command.name == "curl" and word.endswith("O")
        ):
            yield _key(words[position + 1]), command
    for word in words:
        if match := re.match(r"(?:--output|--output-document|--out)=(.+)", word):
            yield _key(match[1]), command
    yield from ((_key(word), command) for word in command.writes)
    if command.name != "curl" or command.has("-O", "--remote-name", "--remote-name-all"):
        for word in command.operands:
            if "://" in word:
                yield _key(word.partition("?")[0].rpartition("/")[2]), command


def _programs(command: Command) -> Iterator[str]:
    """The files whose code is run: named by their path, given to an interpreter, or fed to it."""
    words = command.words
    options = options_of(words)
    if options is None and command.name not in _RUN_WORDS:
        if words and "/" in words[0]:
            yield words[0]
        return
    if command.name in _RUN_WORDS:
        yield from words[1:2]
    elif options is not None and not options.code:
        yield from words[options.operand : options.operand + 1]
        if reads_code_from_stdin(words):
            yield from command.reads
            yield from _read_by(command.stdin)
    yield from _read_by(command.substituted)


def _read_by(commands: Sequence[Command]) -> Iterator[str]:
    for command in commands:
        if command.name == "cat":
            yield from (*command.operands, *command.reads)


class _Check(NamedTuple):
    """A check of a digest or signature: the words that may name what is checked.

    ``partial``: it also reads names that are not in the history (a list of digests, a variable).
    """

    texts: tuple[str, ...]
    partial: bool


def _check(command: Command, written: Mapping[str, Sequence[Command]]) -> _Check:
    texts = [*_texts(command)]
    lists = [word for word in command.operands if command.has("-c", "--check") and word not in ("-", "/dev/stdin")]
    unknown = [listed for listed in lists if not written.get(_last(listed))]
    for listed in (*lists, *command.reads):
        texts.extend(text for other in written.get(_last(listed), ()) for text in _texts(other))
    nothing = not (command.stdin or command.reads or command.here or command.operands)
    return _Check(tuple(texts[:_MOST_TEXTS]), bool(unknown) or nothing or any("$" in text for text in texts))


def _is_verified(name: str, checks: Sequence[_Check]) -> bool | None:
    """Whether one of the checks names this file. None: it cannot be told."""
    if any(_names(text, name) for check in checks for text in check.texts):
        return True
    return None if any(check.partial for check in checks) else False


def _texts(command: Command) -> Iterator[str]:
    """The words of a command and of what feeds it."""
    waiting, seen = [command], set[int]()
    while waiting and len(seen) < _MOST_TEXTS:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield from (*one.words[1:], *one.reads, *one.here)
            waiting.extend((*one.stdin, *one.substituted)[:_MOST_TEXTS])


def _names(text: str, name: str) -> bool:
    """Whether a text names the file: alone, in a line of digests, or as the file that a signature or digest is of
    (``i.sh.sha256``).
    """
    last = _last(name)
    return any(
        _last(word) == last or re.fullmatch(re.escape(last) + r"\.(?:\w{2,8})", _last(word))
        for word in re.split(r"[\s\"'*()\\]+", text)
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _key(word: str) -> str:
    """A file's name as both the download and the call may write it: where the working directory is not known, the
    last part decides.
    """
    path = path_of(word)
    return path if word.startswith("/") else path.rpartition("/")[2]
