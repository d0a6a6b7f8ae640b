"""An image's build history, read as what it is: Dockerfile instructions, and in every RUN a shell script.

Builders write a line differently (classic ``/bin/sh -c #(nop) …``, BuildKit's ``RUN … # buildkit``, build arguments in front as ``|1 A=b``,
other shells by SHELL). The script is parsed by a shell's grammar, so ``&&``, ``;``, new lines, pipes, subshells, functions, here documents
and a shell inside a shell are all seen for what they are. A history is hostile: its length, depth and the grammar's own slow cases
are bounded, and what was not understood is said, so that a check which found nothing can say that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePosixPath

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

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
_SHELL = re.compile(
    r"^/\S{0,40}?(?:ba|da|a|z|k|mk)?sh(?: -(?!c )[A-Za-z]+(?: (?:pipefail|errexit|nounset))?)* -\w*c ", re.ASCII
)
_FOREIGN = re.compile(r"^(?:\S*\\|/\S*/)?(?:(?i:powershell|pwsh)(?:\.exe)?\b|cmd(?:\.exe)?\s+/[SsCc]\b)")
_INSTRUCTION = re.compile(
    r"^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\s+(.*)$",
    re.DOTALL,
)
_MOUNTS = re.compile(r"^(?:--(?:mount|network|security)=\S+\s+)+")
# Tools that make layers without running anything in them, by how they sign: nothing in such a layer was done by a shell.
_TOOLS = re.compile(
    r"(?i)^(?:#|bazel |ko |jib|apko|nix|buildpacks?\b|paketo|lifecycle|umoci|crane|skopeo|rules_oci|debos)"
)

_WRAPPERS = {
    "sudo": ("-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U"), "doas": ("-u", "-C"), "env": ("-u", "-C", "-S"), "exec": ("-a",),
    "command": (), "time": (), "nice": ("-n",), "nohup": (), "timeout": ("-s", "-k"), "ionice": ("-c", "-n"), "eatmydata": (),
    "gosu": (), "su-exec": (), "chronic": (), "busybox": (), "builtin": (), "xargs": ("-n", "-P", "-I", "-a", "-d", "-L", "-s", "-E"),
    "stdbuf": ("-i", "-o", "-e"), "unbuffer": (), "linux32": (), "setarch": (),
}  # fmt: skip
_ONE_OPERAND = frozenset(("timeout", "gosu", "su-exec", "setarch"))  # these take an operand before the command
SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"))


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command: ``words`` without quotes, its name first, expansions as they are written (``$X``), and what stands before it
    (``sudo``, ``env A=b``) taken off into ``wrappers``.

    ``stdin`` are the commands whose output it reads through a pipe or redirection, ``substituted`` those inside its own words.
    """

    words: tuple[str, ...]
    stdin: tuple[Command, ...] = ()
    substituted: tuple[Command, ...] = ()
    writes: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The program without its directory; empty for an assignment alone."""
        return self.words[0].rpartition("/")[2] if self.words else ""

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
    """One line. ``name`` is upper case, ``IMPORT`` for a layer that no Dockerfile instruction made, ``""`` where that is not known;
    ``text`` is what follows the name. ``commands`` of a RUN, in the order in which they are written."""

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
        """What a check of the history says that found this: without a find, passed only where all of it was understood."""
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
    """Evidence that points at an instruction, whether it made a layer or not. What is quoted from a hostile line is cut."""
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
    return _read(config.history, len(config.diff_ids))


@lru_cache(maxsize=4)
def _read(entries: tuple[HistoryEntry, ...], layers: int) -> History:
    found: list[Instruction] = []
    left = _MAX_ALL
    for index, entry in enumerate(entries[:_MAX_ENTRIES]):
        one, used = _instruction(index, entry, left)
        left -= used
        found.append(one)
    return History(tuple(found), tuple(_gaps(entries, layers, found)))


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


def _instruction(index: int, entry: HistoryEntry, left: int) -> tuple[Instruction, int]:
    """One line, and how many characters of script were parsed for it."""
    line = entry.created_by.strip().removesuffix("# buildkit").rstrip()
    if _NOP.match(line):
        line = _NOP.sub("", line, count=1)
    elif line.startswith("RUN ") or _ARGUMENTS.match(line) or _SHELL.match(line) or _FOREIGN.match(line):
        return _run(Instruction(index, entry.layer, "RUN", ""), line.removeprefix("RUN ").lstrip(), left)
    match = _INSTRUCTION.match(line)
    if match:
        return Instruction(index, entry.layer, match[1], match[2].strip()), 0
    # A root file system, or a tool's layer: no instruction ran in it. Before there is a root file system nothing can run.
    made_elsewhere = (
        entry.layer == 0 or _TOOLS.match(line) or (line and entry.comment.startswith(("buildkit.exporter", "Imported")))
    )
    if made_elsewhere:
        return Instruction(index, entry.layer, "IMPORT", line), 0
    gap = "" if not line or entry.layer is None else "is no Dockerfile instruction"
    return Instruction(index, entry.layer, "", line, gap=gap), 0


def _run(one: Instruction, text: str, left: int) -> tuple[Instruction, int]:
    text = _MOUNTS.sub("", text)
    script = _script(text)
    one = replace(one, text=script)
    if _FOREIGN.match(script):
        return replace(one, gap="runs PowerShell or cmd, which is not read here"), 0
    if len(script) > min(_MAX_SCRIPT, left):
        return replace(one, gap="is too long to be read"), 0
    parsed = _Script()
    parsed.read(script)
    return replace(one, commands=tuple(parsed.commands), gap=parsed.gap), len(script)


def _script(text: str) -> str:
    """What the shell is given: without the build arguments in front and without the shell itself. Arguments' values may hold spaces,
    so the shell is looked for; of an exec form there is none, and its words are a command as they are."""
    if _ARGUMENTS.match(text):
        _, _, text = text.partition(" ")
        for match in re.finditer(r"(?<= )(?=/)", text[:_MAX_SCRIPT]):
            if _SHELL.match(text[match.start() : match.start() + 120]):
                text = text[match.start() :]
                break
    return _SHELL.sub("", text, count=1).strip()


@lru_cache(maxsize=1)
def _language() -> Language:
    return Language(tree_sitter_bash.language())


@dataclass
class _Script:
    """Collects the simple commands of a script."""

    commands: list[Command] = field(default_factory=list)
    gap: str = ""
    _nested: int = 0

    def read(self, text: str) -> None:
        """Parse; whatever is understood is kept even where the rest is not."""
        if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
            self.gap = self.gap or "holds control characters"
            return
        if text.count("|") > _MAX_PIPES or text.count("=(") > _MAX_ARRAYS or len(text) > _MAX_SCRIPT:
            self.gap = self.gap or "is too intricate to be read"
            return
        # Line continuations are gone from what builders record, but not from a here document's text.
        data = text.replace("\r\n", "\n").encode("utf-8", "replace")
        tree = Parser(_language()).parse(data)
        if tree.root_node.has_error:
            self.gap = self.gap or "is no shell script that could be read wholly"
        self._walk(tree.root_node, (), 0)

    def _walk(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        """The commands below ``node`` in order; each reads ``stdin`` where nothing nearer feeds it."""
        if depth > _MAX_DEPTH or len(self.commands) > _MAX_COMMANDS:
            self.gap = self.gap or "is nested too deep, or has too many commands"
            return []
        kind = node.type
        if kind == "pipeline":
            return self._pipeline(node, stdin, depth)
        if kind == "redirected_statement":
            return self._redirected(node, stdin, depth)
        if kind in ("command", "declaration_command"):
            return self._command(node, stdin, depth, ())
        found: list[Command] = []
        for child in node.named_children:
            found.extend(self._walk(child, stdin, depth + 1))
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
        writes = tuple(_text(d) for r in redirects if r.type == "file_redirect" and any(c.type in (">", ">>", ">|", "&>") for c in r.children)
                       for d in r.children_by_field_name("destination"))  # fmt: skip
        inputs = [c for r in redirects if r.type != "heredoc_redirect" for c in self._walk(r, (), depth + 1)]
        feed = stdin + tuple(inputs)
        before = len(self.commands)
        if body is None:
            found = []
        elif body.type == "command":
            found = self._command(body, feed, depth + 1, writes)
        else:
            found = self._walk(body, feed, depth + 1)
        for redirect in redirects:
            if redirect.type == "heredoc_redirect":
                found.extend(self._heredoc(redirect, found, self.commands[before:], depth))
        return found

    def _heredoc(self, node: Node, body: Sequence[Command], own: Sequence[Command], depth: int) -> list[Command]:
        """A here document: a script where a shell reads it; and what the grammar hangs behind its mark (``<<EOF | sh``, ``<<EOF && …``)."""
        found: list[Command] = []
        for child in node.named_children:
            if child.type not in ("heredoc_start", "heredoc_body", "heredoc_end", "file_redirect"):
                piped = child.prev_sibling is not None and child.prev_sibling.type in ("|", "|&")
                feeding = tuple(body) if piped or child.type == "pipeline" else ()
                found.extend(self._walk(child, feeding, depth + 1))
        shell = any(c.name in SHELLS and reads_code_from_stdin(c) for c in (*own, *found))
        for child in (c for c in node.named_children if c.type == "heredoc_body"):
            if shell:
                self._inner(_text(child))
            else:
                found.extend(self._walk(child, (), depth + 1))
        return found

    def _command(self, node: Node, stdin: tuple[Command, ...], depth: int, writes: tuple[str, ...]) -> list[Command]:
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
                inner.extend(self._walk(child, (), depth + 1))
        wrappers, rest = _unwrap(words)
        command = Command(rest, (*stdin, *extra), tuple(inner), writes, wrappers)
        self.commands.append(command)
        script = _inner_script(command)
        if script:
            self._inner(script)
        return [*inner, *extra, command]

    def _inner(self, script: str) -> None:
        """A script inside a script: ``sh -c '…'``, ``eval``, a here document for a shell."""
        if self._nested >= _MAX_NESTED:
            self.gap = self.gap or "runs shells in shells in shells"
            return
        self._nested += 1
        self.read(script)
        self._nested -= 1


def _inner_script(command: Command) -> str:
    """The script that a shell, ``su`` or ``eval`` is given as a word."""
    if command.name == "eval":
        return " ".join(command.words[1:]) if not command.substituted else ""
    if command.name in SHELLS or command.name == "su":
        for position, word in enumerate(command.words[1:], 1):
            option = word == "--command" or (re.fullmatch(r"-[A-Za-z]*c", word) is not None)
            if option and position + 1 < len(command.words):
                return "" if command.substituted else command.words[position + 1]
    return ""


def reads_code_from_stdin(command: Command) -> bool:
    """Whether an interpreter runs what it is fed, rather than a script that it is named: ``sh``, ``sh -s -- x``, ``bash /dev/stdin``."""
    words = command.words[1:]
    if command.name in SHELLS and any(re.fullmatch(r"-[A-Za-z]*s", word) for word in words):
        return True
    if any(
        re.fullmatch(r"-[A-Za-z]*[cem]|--eval|--command|-p", word)
        for word in words
        if word != "-e" or command.name not in SHELLS
    ):
        return False
    operands = [word for word in words if word in ("-", "/dev/stdin") or not word.startswith("-")]
    return not operands or operands[0] in ("-", "/dev/stdin")


def _unwrap(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take off ``sudo -E``, ``env A=b``, ``timeout 5`` and the like, to find the command that is run."""
    rest = list(words)
    wrappers: list[str] = []
    while rest and (name := rest[0].rpartition("/")[2]) in _WRAPPERS and len(wrappers) < 5:
        takes_value = _WRAPPERS[name]
        position = 1
        while position < len(rest) and (rest[position].startswith("-") or (name == "env" and "=" in rest[position])):
            position += 2 if rest[position] in takes_value else 1
        if name in _ONE_OPERAND:
            position += 1
        if position >= len(rest):
            break  # ``exec`` or ``sudo`` alone is the command
        wrappers.append(name)
        rest = rest[position:]
    return tuple(wrappers), tuple(rest)


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
    """A URL as it may be shown: without the name and password, and without the query, which are where credentials stand."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", url).partition("?")[0][:200]
