"""An image's build history, read as what it is: Dockerfile instructions, and in every RUN a shell script.

Builders write a line differently (classic ``/bin/sh -c #(nop) …``, BuildKit's ``RUN … # buildkit``, build arguments
in front as ``|1 A=b``, other shells by SHELL). The script is parsed by a shell's grammar, so ``&&``, ``;``, new
lines, pipes, subshells, functions, here documents and a shell inside a shell are all seen for what they are. A
history is hostile: its length, depth and the grammar's own slow cases are bounded, and what was not understood is
said, so that a check which found nothing can say that it does not know.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath

import orjson
import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from scanner.checks._shells import (
    SHELLS,
    USER_SHELLS,
    beginning,
    program,
    reads_code_from_stdin,
    script_word,
    unwrapped,
)
from scanner.checks.base import ImageSubject, cut
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.image import HistoryEntry, ImageConfig

_MAX_SCRIPT, _MAX_ALL, _MAX_ENTRIES = 16 << 10, 192 << 10, 2000
_MAX_DEPTH, _MAX_NESTED, _MAX_COMMANDS = 60, 3, 2000
# Where the grammar takes a time that grows with the square: measured, and more than any Dockerfile writes.
_MAX_PIPES, _MAX_ARRAYS = 200, 50
# How much is quoted as evidence.
_MAX_PIECES, _MAX_LINE, _MAX_MESSAGE = 100, 1000, 400

_NOP = re.compile(r"^(?:\|\d+ .{0,8000}? )?/\S{1,40} -c #\(nop\)\s*", re.DOTALL)
_ARGUMENTS = re.compile(r"^\|(\d{1,4}) ")
_INSTRUCTION = re.compile(
    r"^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\s+(.*)$",
    re.DOTALL,
)
_MOUNTS = re.compile(r"^(?:--(?:mount|network|security)=\S+\s+)+")
# Tools that make layers without running anything in them, by how they sign: nothing in such a layer was done by a
# shell.
_TOOLS = re.compile(
    r"(?i)^(?:#|bazel |ko |jib|apko|nix|buildpacks?\b|paketo|lifecycle|umoci|crane|skopeo|rules_oci|debos)"
)

# A shell's own characters. BuildKit writes the shell in front of every script, so a line of it that has none is an exec
# form.
_SYNTAX = re.compile(r"[|&;<>\n`]|\$\(")
# BuildKit runs a here document that begins with ``#!`` as this file. Its text is not in the history.
_HERE_DOCUMENTS = "/dev/pipes/"
_MOST_BEGINNINGS = 40
_DECODERS = frozenset(
    ("base64", "base32", "basenc", "xxd", "openssl", "uudecode", "gunzip", "zcat", "xzcat", "unxz", "bzcat")
)


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command: ``words`` without quotes, its name first, expansions as they are written (``$X``), and
    what stands before it (``sudo``, ``env A=b``) taken off into ``wrappers``.

    ``stdin`` are the commands whose output it reads through a pipe or redirection, ``substituted`` those inside its
    own words or in variables that its words name. ``writes`` and ``reads`` are the files of its redirections,
    ``here`` the texts of its here documents and here strings.
    """

    words: tuple[str, ...]
    stdin: tuple[Command, ...] = ()
    substituted: tuple[Command, ...] = ()
    writes: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    here: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The program without its directory; empty for an assignment alone."""
        return program(self.words[0]) if self.words else ""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(word for word in self.words[1:] if word.startswith("-") and word != "-")

    @property
    def operands(self) -> tuple[str, ...]:
        """Words that are no options. A value that an option takes is among them: the grammar cannot know."""
        return tuple(word for word in self.words[1:] if not word.startswith("-") or word == "-")

    def has(self, *options: str) -> bool:
        """Whether one of these options is given, as itself, with ``=value``, or a letter among others (``-qy``)."""
        for word in self.options:
            name = word.partition("=")[0]
            if name in options:
                return True
            letters = {option[1] for option in options if len(option) == 2}
            if not word.startswith("--") and letters & set(word[1:]):
                return True
        return False

    @property
    def verb(self) -> str:
        """A package manager's or tool's subcommand: the first operand that is no option's value."""
        return next(iter(self.operands), "")

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line.

    ``name`` is upper case, ``IMPORT`` for a layer that no Dockerfile instruction made, ``""`` where that is not
    known; ``text`` is what follows the name. ``commands`` of a RUN, in the order in which they are written.
    """

    index: int
    layer: int | None
    name: str
    text: str
    commands: tuple[Command, ...] = ()
    gap: str = ""  # why it was not (wholly) understood


@dataclass(frozen=True, slots=True)
class History:
    """Every instruction, and why silence about them would prove nothing: ``gaps``."""

    instructions: tuple[Instruction, ...]
    gaps: tuple[Incomplete, ...] = ()

    def runs(self) -> Iterator[Instruction]:
        return (one for one in self.instructions if one.name == "RUN")

    def outcome(self, found: Sequence[Evidence]) -> Outcome:
        """What a check of the history says that found this: without a find, passed only where all of it was
        understood.
        """
        if found:
            return failed(found)
        return self.gaps[0] if self.gaps else Passed()


def failed(found: Sequence[Evidence]) -> Failed:
    """A failure on this evidence, each piece once, and no more of it than a person reads."""
    pieces = tuple(dict.fromkeys(found))
    if len(pieces) > _MAX_PIECES:
        more = Evidence(f"and {len(pieces) - _MAX_PIECES} more of the kind, which are not listed")
        pieces = (*pieces[:_MAX_PIECES], more)
    return Failed(pieces)


def evidence(subject: ImageSubject, one: Instruction, message: str) -> Evidence:
    """Evidence that points at an instruction, whether it made a layer or not.

    What is quoted from a hostile line is cut.
    """
    line = f"{one.name} {one.text}".strip()
    line, message = cut(line, _MAX_LINE), cut(message, _MAX_MESSAGE)
    if one.layer is not None:
        return subject.evidence(message, layer_index=one.layer, instruction=line)
    return Evidence(message, instruction=line, history_index=one.index)


def history(subject: ImageSubject) -> History:
    """The history of this image. The checks that ask share one reading."""
    return read_history(subject.image.config)


def read_history(config: ImageConfig) -> History:
    """See ``History``."""
    return _read(config.history, len(config.diff_ids), config.shell)


@lru_cache(maxsize=4)
def _read(entries: tuple[HistoryEntry, ...], layers: int, shell: tuple[str, ...]) -> History:
    found: list[Instruction] = []
    left = _MAX_ALL
    shells = _shells(entries, shell)
    for index, entry in enumerate(entries[:_MAX_ENTRIES]):
        one, used = _instruction(index, entry, left, shells)
        left -= used
        found.append(one)
    return History(tuple(found), tuple(_gaps(entries, layers, found)))


def _shells(entries: Sequence[HistoryEntry], shell: Sequence[str]) -> tuple[str, ...]:
    """The shells that SHELL set, as they stand in front of a script, the longest first.

    Each holds until the next, and a base image's may hold again, so every one of them is looked for in every line.
    """
    found = {" ".join(shell)} if shell else set()
    for entry in entries[:_MAX_ENTRIES]:
        line = _NOP.sub("", entry.created_by.strip(), count=1)
        if match := re.match(r"SHELL \[([^\n]{1,1000})\]", line):
            found.add(match[1].strip())
            words = _json_words(f"[{match[1]}]")
            found.add(" ".join(words))
    return tuple(sorted(filter(None, found), key=len, reverse=True))[:_MOST_BEGINNINGS]


def _gaps(entries: Sequence[HistoryEntry], layers: int, found: Sequence[Instruction]) -> Iterator[Incomplete]:
    if not any(entry.created_by for entry in entries):
        yield Incomplete("history_absent", "the image carries no build history, so how it was built is not known")
        return
    if len(entries) > _MAX_ENTRIES:
        yield Incomplete("limit_exceeded", f"the history has {len(entries)} lines")
    told = {one.layer for one in found if one.layer is not None and one.name}
    silent = [index for index in range(layers) if index not in told]
    if silent:
        which = ", ".join(map(str, silent[:5])) + (" and others" if len(silent) > 5 else "")
        yield Incomplete("history_absent", f"the history does not say what made layer {which}")
    for one in found:
        if one.gap:
            yield Incomplete("history_not_understood", f"history line {one.index}: {one.gap}")


def _instruction(index: int, entry: HistoryEntry, left: int, shells: Sequence[str]) -> tuple[Instruction, int]:
    """One line, and how many characters of script were parsed for it."""
    line = entry.created_by.strip()
    buildkit = line.endswith("# buildkit") or entry.comment.startswith("buildkit.dockerfile")
    line = line.removesuffix("# buildkit").rstrip()
    if _NOP.match(line):
        line = _NOP.sub("", line, count=1)
    elif line.startswith("RUN "):
        return _run(
            Instruction(index, entry.layer, "RUN", ""), line.removeprefix("RUN ").lstrip(), left, shells, buildkit
        )
    elif (script := _script(line, shells)).found:
        if not script.text.startswith("#(nop)"):
            return _run(Instruction(index, entry.layer, "RUN", ""), line, left, shells, False)
        line = script.text.removeprefix("#(nop)").strip()
    match = _INSTRUCTION.match(line)
    if match:
        return Instruction(index, entry.layer, match[1], match[2].strip()), 0
    # A root file system, or a tool's layer: no instruction ran in it. Before there is a root file system nothing can
    # run.
    made_elsewhere = (
        entry.layer == 0 or _TOOLS.match(line) or (line and entry.comment.startswith(("buildkit.exporter", "Imported")))
    )
    if made_elsewhere:
        return Instruction(index, entry.layer, "IMPORT", line), 0
    gap = "" if not line or entry.layer is None else "is no Dockerfile instruction"
    return Instruction(index, entry.layer, "", line, gap=gap), 0


def _run(one: Instruction, text: str, left: int, shells: Sequence[str], buildkit: bool) -> tuple[Instruction, int]:
    text = _MOUNTS.sub("", text)
    script = _script(text, shells)
    one = replace(one, text=script.text)
    if script.gap:
        return replace(one, gap=script.gap), 0
    if len(script.text) > min(_MAX_SCRIPT, left):
        return replace(one, gap="is too long to be read"), 0
    parsed = _Script()
    parsed.read(script.text)
    if script.text.startswith(("'", '"')) and script.start and len(text) <= _MAX_SCRIPT:
        # ``bash -c 'a && b' && c``: a line that a shell read, not one whose shell the builder wrote in front.
        parsed.read(text)
    if buildkit and not script.found and _SYNTAX.search(script.text):
        parsed.miss("does not begin with a shell that is read here")
    return replace(one, commands=tuple(parsed.commands), gap=parsed.gap), len(script.text)


@dataclass(frozen=True, slots=True)
class _Text:
    """What the shell is given: the text without build arguments and without the shell.

    ``found``: it begins with a shell or with build arguments; ``start``: where it stood; ``gap``: why it cannot be
    read.
    """

    text: str
    found: bool = False
    start: int = 0
    gap: str = ""


def _script(text: str, shells: Sequence[str]) -> _Text:
    """Arguments' values may hold spaces, so behind them the shell is looked for; of an exec form there is none, and
    its words are a command as they are.
    """
    if _ARGUMENTS.match(text):
        _, _, text = text.partition(" ")
        places = [m.end() for m in re.finditer(r" (?=\S)", text[:_MAX_SCRIPT])]
        known = next((place for place in places if _of_shells(text[place : place + 4000], shells)), None)
        likely = (place for place in places if re.match(r"/|[\w.-]+ ", text[place : place + 80]))
        for place in [known] if known is not None else islice(likely, _MOST_BEGINNINGS):
            if (script := _behind_shell(text[place:], shells)).found:
                return script
        return _Text(text, found=True)
    return _behind_shell(text, shells)


def _of_shells(text: str, shells: Sequence[str]) -> str:
    return next((shell for shell in shells if text.startswith(f"{shell} ") or text == shell), "")


def _behind_shell(text: str, shells: Sequence[str]) -> _Text:
    shell = _of_shells(text, shells)
    start = beginning(f"{shell} x" if shell else text)
    if shell and (start is None or (not start.gap and start.start < len(shell))):
        return _Text(text, True, gap=f"is run by {cut(shell, 80)}, which is not a shell that is read here")
    if start is not None and start.gap:
        return _Text(text, True, gap=start.gap)
    if start is not None:
        at = len(shell) if shell else start.start
        script = text[at:].strip()
        words = _json_words(script)
        return _Text(shlex.join(words) if words else script, True, at)
    words = _json_words(text)
    return _Text(shlex.join(words), True) if words else _Text(text.strip())


def _json_words(text: str) -> tuple[str, ...]:
    """The words of an exec form as some builders record it: a JSON list of texts. Empty: it is none."""
    if not text.startswith("[") or len(text) > _MAX_SCRIPT:
        return ()
    try:
        words = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ()
    return tuple(words) if isinstance(words, list) and all(isinstance(word, str) for word in words) else ()


@lru_cache(maxsize=1)
def _language() -> Language:
    return Language(tree_sitter_bash.language())


@dataclass
class _Script:
    """Collects the simple commands of a script."""

    commands: list[Command] = field(default_factory=list)
    gap: str = ""
    _nested: int = 0
    _variables: dict[str, tuple[Command, ...]] = field(default_factory=dict)

    def miss(self, gap: str) -> None:
        """Say what was not understood. The first gap is kept."""
        self.gap = self.gap or gap

    def read(self, text: str, stdin: tuple[Command, ...] = ()) -> None:
        """Parse; whatever is understood is kept even where the rest is not. ``stdin`` feeds the whole script."""
        if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
            self.miss("holds control characters")
            return
        if text.count("|") > _MAX_PIPES or text.count("=(") > _MAX_ARRAYS or len(text) > _MAX_SCRIPT:
            self.miss("is too intricate to be read")
            return
        # Line continuations are gone from what builders record, but not from a here document's text.
        data = text.replace("\r\n", "\n").encode("utf-8", "replace")
        tree = Parser(_language()).parse(data)
        if tree.root_node.has_error:
            self.miss("is no shell script that could be read wholly")
        self._walk(tree.root_node, stdin, 0)

    def _walk(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        """The commands below ``node`` in order; each reads ``stdin`` where nothing nearer feeds it."""
        if depth > _MAX_DEPTH or len(self.commands) > _MAX_COMMANDS:
            self.miss("is nested too deep, or has too many commands")
            return []
        kind = node.type
        if kind == "pipeline":
            return self._pipeline(node, stdin, depth)
        if kind == "redirected_statement":
            return self._redirected(node, stdin, depth)
        if kind in ("command", "declaration_command"):
            return self._command(node, stdin, depth, _Targets())
        found: list[Command] = []
        for child in node.named_children:
            found.extend(self._walk(child, stdin, depth + 1))
        if kind == "variable_assignment" and (name := node.child_by_field_name("name")) is not None and found:
            self._variables[_text(name)] = tuple(found)
        return found

    def _pipeline(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        found: list[Command] = []
        for child in node.named_children:
            made = self._walk(child, stdin, depth + 1)
            found.extend(made)
            stdin = tuple(made)
        return found

    def _redirected(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        body, redirects = node.child_by_field_name("body"), node.children_by_field_name("redirect")
        files = [redirect for redirect in redirects if redirect.type == "file_redirect"]
        targets = _Targets(
            _destinations(files, (">", ">>", ">|", "&>", "&>>")),
            _destinations(files, ("<",)),
            tuple(_text(c) for r in redirects for c in r.named_children if c.type == "heredoc_body")
            + tuple(_word(c) for r in redirects if r.type == "herestring_redirect" for c in r.named_children),
        )
        outputs = [redirect for redirect in files if ">(" in _text(redirect)]
        inputs = [
            c
            for r in redirects
            if r.type != "heredoc_redirect" and r not in outputs
            for c in self._walk(r, (), depth + 1)
        ]
        feed = stdin + tuple(inputs)
        before = len(self.commands)
        if body is None:
            found = []
        elif body.type == "command":
            found = self._command(body, feed, depth + 1, targets)
        else:
            found = self._redirect(self._walk(body, feed, depth + 1), body.type == "pipeline", targets)
        for redirect in redirects:
            if redirect.type == "heredoc_redirect":
                found.extend(self._heredoc(redirect, found, self.commands[before:], depth))
            elif redirect.type == "herestring_redirect":
                self._herestring(redirect, self.commands[before:])
            elif redirect in outputs:  # ``> >(sh)`` reads what the command writes
                self._walk(redirect, tuple(found), depth + 1)
        return found

    def _redirect(self, found: list[Command], last: bool, targets: _Targets) -> list[Command]:
        """Commands of a group or pipeline with the redirections behind it, which are those of all of them or of the
        last.
        """
        changed: list[Command] = []
        places = {id(command): place for place, command in enumerate(self.commands)}
        for command in found:
            if last and command is not found[-1]:
                changed.append(command)
                continue
            writes, reads = (*command.writes, *targets.writes), (*command.reads, *targets.reads)
            fed = replace(command, writes=writes, reads=reads, here=(*command.here, *targets.here))
            self.commands[places[id(command)]] = fed
            changed.append(fed)
        return changed

    def _held(self, *words: str) -> tuple[Command, ...]:
        """The commands whose output stands in the variables that these words name."""
        names = (name for word in words for name in re.findall(r"\$\{?([A-Za-z_]\w*)", word))
        return tuple(command for name in dict.fromkeys(names) for command in self._variables.get(name, ()))

    def _herestring(self, node: Node, own: Sequence[Command]) -> None:
        if any(c.name in SHELLS and reads_code_from_stdin(c.words) for c in own):
            for child in node.named_children:
                self._inner(_word(child), ())

    def _heredoc(self, node: Node, body: Sequence[Command], own: Sequence[Command], depth: int) -> list[Command]:
        """A here document: a script where a shell reads it; and what the grammar hangs behind its mark (``<<EOF |
        sh``, ``<<EOF && …``).
        """
        found: list[Command] = []
        for child in node.named_children:
            if child.type not in ("heredoc_start", "heredoc_body", "heredoc_end", "file_redirect"):
                piped = child.prev_sibling is not None and child.prev_sibling.type in ("|", "|&")
                feeding = tuple(body) if piped or child.type == "pipeline" else ()
                found.extend(self._walk(child, feeding, depth + 1))
        shell = any(c.name in SHELLS | USER_SHELLS and reads_code_from_stdin(c.words) for c in (*own, *found))
        for child in (c for c in node.named_children if c.type == "heredoc_body"):
            if shell:
                self._inner(_text(child), ())
            else:
                found.extend(self._walk(child, (), depth + 1))
        return found

    def _command(self, node: Node, stdin: tuple[Command, ...], depth: int, targets: _Targets) -> list[Command]:
        words: list[str] = []
        inner: list[Command] = []
        extra: list[Command] = []
        for child in node.children:
            if child.type in ("herestring_redirect", "file_redirect"):
                extra.extend(self._walk(child, (), depth + 1))
                continue
            if child.type != "variable_assignment" or node.type == "declaration_command":
                words.append(_word(child))
            if child.named_child_count:
                # ``tee >(sh)`` reads what the command writes there.
                fed = (Command(unwrapped(words)[1], stdin),) if ">(" in _text(child) else ()
                inner.extend(self._walk(child, fed, depth + 1))
        wrappers, rest = unwrapped(words)
        here = tuple(
            _word(c) for child in node.children if child.type == "herestring_redirect" for c in child.named_children
        )
        targets = replace(targets, here=(*targets.here, *here))
        feed = stdin + tuple(extra) + self._held(*targets.here)  # the same tuple where nothing is added
        command = Command(
            rest, feed, (*inner, *self._held(*rest)), targets.writes, wrappers, targets.reads, targets.here
        )
        self.commands.append(command)
        for child in node.children:
            if child.type == "herestring_redirect":
                self._herestring(child, (command,))
        self._code(command)
        return [*inner, *extra, command]

    def _code(self, command: Command) -> None:
        """The scripts that this command runs, as far as they stand in the text."""
        if any(word.startswith(_HERE_DOCUMENTS) for word in command.words):
            self.miss("runs a here document with an interpreter of its own, whose text is not in the history")
        script = script_word(command.words)
        if script:
            self._inner(script, command.stdin)
        if command.name in SHELLS and command.stdin and reads_code_from_stdin(command.words):
            last = command.stdin[-1]
            if last.name in ("echo", "printf"):  # ``echo 'curl … | sh' | sh``
                self._inner("\n".join(last.operands), ())
            elif last.name in _DECODERS:
                self.miss(f"runs code that {last.name} decodes during the build")

    def _inner(self, script: str, stdin: tuple[Command, ...]) -> None:
        """A script inside a script: ``sh -c '…'``, ``eval``, a here document for a shell."""
        if self._nested >= _MAX_NESTED:
            self.miss("runs shells in shells in shells")
            return
        self._nested += 1
        self.read(script, stdin)
        self._nested -= 1


@dataclass(frozen=True, slots=True)
class _Targets:
    """The files of a command's redirections."""

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    here: tuple[str, ...] = ()


def _destinations(redirects: Sequence[Node], signs: Sequence[str]) -> tuple[str, ...]:
    chosen = (redirect for redirect in redirects if any(child.type in signs for child in redirect.children))
    return tuple(_word(target) for redirect in chosen for target in redirect.children_by_field_name("destination"))


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _word(node: Node) -> str:
    """A word as the command would get it, but for expansions, which stay as they are written."""
    text = _text(node)
    if node.type == "string":
        return re.sub(r'\\(["\\$`\n])', r"\1", text[1:-1])
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "ansi_c_string":
        return text[2:-1]
    if node.type in ("concatenation", "command_name"):
        return "".join(map(_word, node.children)) if node.child_count else text
    if node.type == "word":
        return re.sub(r"\\(.)", r"\1", text)
    return text


def path_of(text: str, working_directory: str = "/") -> str:
    """A path as files are named here: relative to the root, without ``.`` and ``..``."""
    parts: list[str] = []
    for part in PurePosixPath("/" + working_directory.lstrip("/"), text).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def address(url: str) -> str:
    """A URL as it may be shown: without the name and password, and without the query, which are where credentials
    stand.
    """
    return re.sub(r"(?<=://)[^/@\s]*@", "", url).partition("?")[0][:200]
