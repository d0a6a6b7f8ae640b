"""Parser for an image's build history: Dockerfile instructions, with a shell script in every RUN.

Builders write entries differently (classic ``/bin/sh -c #(nop) …``, BuildKit's ``RUN … # buildkit``, build arguments as
``|1 A=b``, other shells by SHELL). Scripts are parsed by a shell grammar, which handles ``&&``, pipes, subshells,
functions, here documents and nested shells.

Histories are untrusted. Length, depth and constructs that are slow to parse are limited. What was not understood is
recorded as a gap, so that a check without findings is incomplete instead of passed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath

import orjson
import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from scanner.checks._shells import (
    SHELLS,
    USER_SHELLS,
    options_of,
    program,
    reads_code_from_stdin,
    recorded_shell,
    script_word,
    without_wrappers,
)
from scanner.checks.base import ImageSubject, truncate_at_space
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.image import HistoryEntry, ImageConfig
from scanner.patterns import lazy

# Bytes of one script and of all, and entries: an attacker writes the history.
_MAX_SCRIPT, _MAX_ALL, _MAX_ENTRIES = 16 << 10, 192 << 10, 2000
# Nesting of the syntax, of scripts in scripts, and commands of one script.
_MAX_DEPTH, _MAX_NESTED, _MAX_COMMANDS = 60, 3, 2000
# The grammar needs quadratic time for these. The limits are measured and higher than real Dockerfiles need.
_MAX_PIPES, _MAX_ARRAYS = 200, 50
# Limits of quoted evidence.
_MAX_PIECES, _MAX_LINE, _MAX_MESSAGE = 100, 1000, 400

# How the classic builder marks instructions that run nothing.
_NOP = lazy(r"^(?:\|\d+ .{0,8000}? )?/\S{1,40} -c #\(nop\)\s*", re.DOTALL)
# BuildKit and Docker write "|2 A=b C=d /bin/sh -c …" for build arguments.
_ARGUMENTS = lazy(r"^\|(\d{1,4}) ")
_INSTRUCTION = lazy(
    r"^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR)\s+(.*)$",
    re.DOTALL,
)
# Options of RUN, which BuildKit leaves in the history.
_MOUNTS = lazy(r"^(?:--(?:mount|network|security)=\S+\s+)+")
# Entries of tools that create layers without running commands.
_TOOLS = lazy(r"(?i)^(?:#|bazel |ko |jib|apko|nix|buildpacks?\b|paketo|lifecycle|umoci|crane|skopeo|rules_oci|debos)")

# Shell syntax. BuildKit writes the shell before every script, so an entry without a shell is an exec form.
_SYNTAX = lazy(r"[|&;<>\n`]|\$\(")
# BuildKit runs here documents with ``#!`` from this directory. The history does not contain their text.
_HERE_DOCUMENTS = "/dev/pipes/"
_MOST_BEGINNINGS = 40
_MOST_VALUE, _MAX_EXPANDED, _MAX_CALLED = 1000, 1 << 18, 1 << 18
_VARIABLE = lazy(r"\$\{?([A-Za-z_]\w*)\}?")
_ANY_VARIABLE = lazy(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_MAX_TURNS = 8  # of a loop
# A script that comes out of one of these is hidden from readers: ``echo … | base64 -d | sh``.
_DECODERS = frozenset(
    ("base64", "base32", "basenc", "xxd", "openssl", "uudecode", "gunzip", "zcat", "xzcat", "unxz", "bzcat")
)


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command.

    ``words``: name and arguments without quotes; expansions are kept as written (``$X``). ``wrappers``: names of
    programs before it (``sudo``, ``env A=b``). ``stdin``: commands whose output it reads by pipe or redirection.
    ``substituted``: commands in substitutions of its words, or in variables that its words use. ``writes``,
    ``reads``: files of its redirections. ``here``: texts of its here documents and here strings. ``called``:
    commands whose output is the program's name (``$(curl …)``). ``environment``: assignments in front of it.
    """

    words: tuple[str, ...]
    stdin: tuple[Command, ...] = ()
    substituted: tuple[Command, ...] = ()
    writes: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    here: tuple[str, ...] = ()
    called: tuple[Command, ...] = ()
    environment: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the program without directory. Empty for a plain assignment."""
        return program(self.words[0]) if self.words else ""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(word for word in self.words[1:] if word.startswith("-") and word != "-")

    @property
    def operands(self) -> tuple[str, ...]:
        """Return the arguments that are not options. Values of options are included: they cannot be distinguished."""
        return tuple(word for word in self.words[1:] if not word.startswith("-") or word == "-")

    def has(self, *options: str) -> bool:
        """Return whether one of the options is given: alone, with ``=value``, or combined with others (``-qy``)."""
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
        """Return the subcommand of a tool: its first operand."""
        return next(iter(self.operands), "")

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One entry of the history.

    ``name``: in upper case; ``IMPORT`` for a layer without a Dockerfile instruction; empty: unknown. ``text``: what
    follows the name. ``commands``: of a RUN, in order. ``layer``: index of its layer; None: it created none.
    """

    index: int
    layer: int | None
    name: str
    text: str
    commands: tuple[Command, ...] = ()
    gap: str = ""  # what was not understood


@dataclass(frozen=True, slots=True)
class History:
    """All instructions. ``gaps``: why a check without findings cannot pass."""

    instructions: tuple[Instruction, ...]
    gaps: tuple[Incomplete, ...] = ()

    def runs(self) -> Iterator[Instruction]:
        return (one for one in self.instructions if one.name == "RUN")

    def outcome(self, found: Sequence[Evidence]) -> Outcome:
        """Return the outcome of a check of the history. Without findings it passes only if there are no gaps."""
        if found:
            return failed(found)
        return self.gaps[0] if self.gaps else Passed()


def failed(found: Sequence[Evidence]) -> Failed:
    """Return a failure with the evidence without duplicates, up to a limit."""
    pieces = tuple(dict.fromkeys(found))
    if len(pieces) > _MAX_PIECES:
        more = Evidence(f"and {len(pieces) - _MAX_PIECES} more, not listed")
        pieces = (*pieces[:_MAX_PIECES], more)
    return Failed(pieces)


def evidence(subject: ImageSubject, one: Instruction, message: str) -> Evidence:
    """Return evidence for an instruction, with or without a layer. Quoted text is truncated."""
    line = f"{one.name} {one.text}".strip()
    line, message = truncate_at_space(line, _MAX_LINE), truncate_at_space(message, _MAX_MESSAGE)
    if one.layer is not None:
        return subject.evidence(message, layer_index=one.layer, instruction=line)
    return Evidence(message, instruction=line, history_index=one.index)


def history(subject: ImageSubject) -> History:
    """Return the parsed history of the image. It is parsed once for all checks."""
    return read_history(subject.image.config)


def read_history(config: ImageConfig) -> History:
    """Return the parsed history."""
    return _read_history(config.history, len(config.diff_ids), config.shell)


@lru_cache(maxsize=4)
def _read_history(entries: tuple[HistoryEntry, ...], layers: int, shell: tuple[str, ...]) -> History:
    found: list[Instruction] = []
    # One budget for the whole history: two thousand entries of the largest size would keep the parser busy for
    # minutes.
    left = _MAX_ALL
    shells = _shells(entries, shell)
    files: dict[str, str] = {}
    for index, entry in enumerate(entries[:_MAX_ENTRIES]):
        one, used = _instruction(index, entry, left, shells, files)
        left -= used
        found.append(one)
    return History(tuple(found), tuple(_gaps(entries, layers, found)))


def start_commands(config: ImageConfig) -> Iterator[tuple[str, tuple[Command, ...]]]:
    """Yield the commands that a container runs, each with its instruction: ENTRYPOINT with CMD, HEALTHCHECK.

    ONBUILD: the commands that a build on this image runs. What is not understood is left out.
    """
    test = config.healthcheck.test if config.healthcheck else ()
    kind, words = test[:1], test[1:]
    scripts = [("ENTRYPOINT", shlex.join((*config.entrypoint, *config.cmd)))]
    scripts.append(("HEALTHCHECK", " ".join(words) if kind == ("CMD-SHELL",) else shlex.join(words)))
    for trigger in config.onbuild:
        name, _, rest = trigger.partition(" ")
        if name.upper() == "RUN":
            exec_form = _json_words(rest.strip())
            scripts.append(("ONBUILD", shlex.join(exec_form) if exec_form else rest))
    left = _MAX_ALL
    for name, script in scripts[:_MAX_PIPES]:
        if not script or len(script) > min(_MAX_SCRIPT, left):
            continue
        left -= len(script)
        parsed = _Script()
        parsed.read(script)
        yield name, tuple(parsed.commands)


def _shells(entries: Sequence[HistoryEntry], shell: Sequence[str]) -> tuple[str, ...]:
    """Return the values of all SHELL instructions as written before scripts, the longest first.

    Any of them may precede any script: a base image's SHELL applies again after a later stage.
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
    # Tools that squash or import images remove the history. A check of it has then seen nothing, which is not the
    # same as having found nothing.
    if not any(entry.created_by for entry in entries):
        yield Incomplete("history_absent", "the image has no build history, so its build is unknown")
        return
    if len(entries) > _MAX_ENTRIES:
        yield Incomplete(
            "limit_exceeded", f"the history has {len(entries)} entries, more than the limit of {_MAX_ENTRIES}"
        )
    # A history that names fewer layers than there are hides a layer. An attacker who edits the config could drop
    # exactly the entry that would be found.
    told = {one.layer for one in found if one.layer is not None and one.name}
    silent = [index for index in range(layers) if index not in told]
    if silent:
        which = ", ".join(map(str, silent[:5])) + (" and others" if len(silent) > 5 else "")
        yield Incomplete("history_absent", f"the history has no entry for layer {which}")
    for one in found:
        if one.gap:
            yield Incomplete("history_not_understood", f"history entry {one.index} {one.gap}")


def _instruction(
    index: int, entry: HistoryEntry, left: int, shells: Sequence[str], files: dict[str, str]
) -> tuple[Instruction, int]:
    """Return an entry as instruction, and the number of characters of script that were parsed."""
    line = entry.created_by.strip()
    buildkit = line.endswith("# buildkit") or entry.comment.startswith("buildkit.dockerfile")
    line = line.removesuffix("# buildkit").rstrip()
    if _NOP.match(line):
        line = _NOP.sub("", line, count=1)
    elif line.startswith("RUN "):
        run = Instruction(index, entry.layer, "RUN", "")
        return _run(run, line.removeprefix("RUN ").lstrip(), left, shells, buildkit, files)
    elif (script := _script(line, shells)).found:
        if not script.text.startswith("#(nop)"):
            return _run(Instruction(index, entry.layer, "RUN", ""), line, left, shells, False, files)
        line = script.text.removeprefix("#(nop)").strip()
    match = _INSTRUCTION.match(line)
    if match:
        return Instruction(index, entry.layer, match[1], match[2].strip()), 0
    # Root file systems and layers of tools. Layer 0 cannot be a RUN: there is nothing to run yet.
    made_elsewhere = (
        entry.layer == 0 or _TOOLS.match(line) or (line and entry.comment.startswith(("buildkit.exporter", "Imported")))
    )
    if made_elsewhere:
        return Instruction(index, entry.layer, "IMPORT", line), 0
    gap = "" if not line or entry.layer is None else "is not a Dockerfile instruction"
    return Instruction(index, entry.layer, "", line, gap=gap), 0


def _run(
    one: Instruction, text: str, left: int, shells: Sequence[str], buildkit: bool, files: dict[str, str]
) -> tuple[Instruction, int]:
    text = _MOUNTS.sub("", text)
    script = _script(text, shells)
    one = replace(one, text=script.text)
    if script.gap:
        return replace(one, gap=script.gap), 0
    if len(script.text) > min(_MAX_SCRIPT, left):
        return replace(one, gap="is longer than the limit"), 0
    parsed = _Script(files=files)
    parsed.read(script.text)
    if script.text.startswith(("'", '"')) and script.start and len(text) <= _MAX_SCRIPT:
        # ``bash -c 'a && b' && c``: here the shell is part of the script, not the builder's prefix. Parse both
        # readings.
        parsed.read(text)
    if buildkit and not script.found and _SYNTAX.search(script.text):
        parsed.miss("does not begin with a supported shell")
    return replace(one, commands=tuple(parsed.commands), gap=parsed.gap), len(script.text)


@dataclass(frozen=True, slots=True)
class _Text:
    """A script without build arguments and shell.

    ``found``: it was preceded by a shell or build arguments. ``start``: its offset. ``gap``: why it cannot be parsed.
    """

    text: str
    found: bool = False
    start: int = 0
    gap: str = ""


def _script(text: str, shells: Sequence[str]) -> _Text:
    """Separate build arguments and shell from the script.

    Values of build arguments may contain spaces, so the shell is searched after them. An exec form has no shell; its
    words are the command.
    """
    if _ARGUMENTS.match(text):
        _, _, text = text.partition(" ")
        # The values are not quoted, so where the last one ends can only be found by what follows: a shell that is
        # known, or a path.
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
    start = recorded_shell(f"{shell} x" if shell else text)
    if shell and (start is None or (not start.gap and start.start < len(shell))):
        return _Text(text, True, gap=f"is run by {truncate_at_space(shell, 80)}, which is not a supported shell")
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
    """Return the words of an exec form in JSON. Empty: not an exec form."""
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
    gap: str = ""  # why the script could not be read to its end; empty: it was
    files: dict[str, str] = field(default_factory=dict)  # content of files that earlier commands wrote
    _nested: int = 0  # how deep ``sh -c`` is within ``sh -c``
    _looping: bool = False
    _expansions: int = _MAX_EXPANDED
    _called: int = 0  # bytes of the functions that were called
    _variables: dict[str, tuple[Command, ...]] = field(default_factory=dict)
    _values: dict[str, str] = field(default_factory=dict)  # literal values of variables
    _functions: dict[str, Node] = field(default_factory=dict)  # bodies of the functions that the script defines
    _aliases: dict[str, str] = field(default_factory=dict)

    def miss(self, gap: str) -> None:
        """Record what was not understood. The first gap is kept."""
        self.gap = self.gap or gap

    def read(self, text: str, stdin: tuple[Command, ...] = ()) -> None:
        """Parse a script and collect what is understood. ``stdin``: commands that feed the whole script."""
        # The grammar and a shell treat them differently, and in evidence they could rewrite the reader's terminal.
        if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
            self.miss("contains control characters")
            return
        if text.count("|") > _MAX_PIPES or text.count("=(") > _MAX_ARRAYS or len(text) > _MAX_SCRIPT:
            self.miss("is too complex to parse")
            return
        # Builders remove line continuations, except in here documents.
        data = text.replace("\r\n", "\n").encode("utf-8", "replace")
        tree = Parser(_language()).parse(data)
        # The part that was understood is still judged. The gap keeps the check from passing on it.
        if tree.root_node.has_error:
            self.miss("is not completely valid shell syntax")
        self._walk(tree.root_node, stdin, 0)

    def _walk(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        """Return the commands below ``node`` in order. Those without an own input read ``stdin``."""
        if depth > _MAX_DEPTH or len(self.commands) > _MAX_COMMANDS:
            self.miss("is nested too deeply or has too many commands")
            return []
        kind = node.type
        if kind == "pipeline":
            return self._pipeline(node, stdin, depth)
        if kind == "redirected_statement":
            return self._redirected_commands(node, stdin, depth)
        if kind in ("command", "declaration_command"):
            return self._command(node, stdin, depth, _Targets())
        if kind == "for_statement" and (turns := self._loop(node, stdin, depth)) is not None:
            return turns
        if kind == "function_definition" and (name := node.child_by_field_name("name")) is not None:
            self._functions[_text(name)] = node
        found: list[Command] = []
        for child in node.named_children:
            found.extend(self._walk(child, stdin, depth + 1))
        if kind == "variable_assignment":
            self._store_variable(node)
        if kind == "variable_assignment" and (name := node.child_by_field_name("name")) is not None and found:
            self._variables[_text(name)] = tuple(found)
        if kind == "command_substitution" and not found:  # ``$(< file)`` is ``cat file``
            reads = tuple(_word(t) for r in node.named_children for t in r.children_by_field_name("destination"))
            if reads:
                found = [Command(("cat",), stdin, reads=reads)]
                self.commands.extend(found)
        return found

    def _loop(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command] | None:
        """Walk a loop over few words once for each, outside of other loops: ``for f in a b; do sh $f; done``."""
        name, body = node.child_by_field_name("variable"), node.child_by_field_name("body")
        values = node.children_by_field_name("value")
        if name is None or body is None or not 0 < len(values) <= _MAX_TURNS or self._looping:
            return None
        if not re.search(rf"\$\{{?{re.escape(_text(name))}\b", _text(body)):
            return None
        found: list[Command] = []
        self._looping = True
        for value in values:
            found.extend(self._walk(value, (), depth + 1))
            text = self._literal_word(value)
            # As in ``_store_variable``: a long value, named many times, would become a hundred million characters.
            self._values[_text(name)] = "" if len(text) > _MOST_VALUE or "$" in text or "`" in text else text
            found.extend(self._walk(body, stdin, depth + 1))
        self._looping = False
        return found

    def _literal_word(self, node: Node) -> str:
        """Return a word with the literal values of variables."""
        return _word(node) if node.type == "raw_string" else self._expand(_word(node))

    def _expand(self, text: str) -> str:
        if "$" not in text or not self._values:
            return text
        # In a function that is called a thousand times, a short script would become gigabytes.
        if self._expansions <= 0:
            self.miss("expands variables to too much text")
            return text
        expanded = _ANY_VARIABLE.sub(lambda match: self._values.get(match[1] or match[2]) or match[0], text)
        self._expansions -= len(expanded)
        return expanded

    def _store_variable(self, node: Node) -> None:
        """Store a variable with a literal value, so that ``S=sh; … | $S`` is understood."""
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is not None and value is not None and len(self._values) < _MAX_COMMANDS:
            text = self._literal_word(value)
            # Only literal values are stored. A value with an expansion is not known before the build runs.
            self._values[_text(name)] = "" if len(text) > _MOST_VALUE or "$" in text or "`" in text else text

    def _resolve_program(self, words: list[str]) -> list[str]:
        """Return the words with the program's name resolved from literal variables, aliases and ``$IFS``."""
        if not words:
            return words
        first = words[0]
        # `curl$IFS-O$IFS…` is a known way to hide a command from scanners that split words at spaces.
        if "IFS" in first and "$" in first:
            words = [part for part in re.split(r"\$\{IFS[^}]*\}|\$IFS\b(?:\$\d)?", first) if part] + words[1:]
            first = words[0] if words else ""
        if (match := re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", first)) and (value := self._values.get(match[1])):
            words = re.split(r"[\s,]+", value.strip()) + words[1:]
        elif first in self._aliases:
            words = self._aliases[first].split() + words[1:]
        return words

    def _pipeline(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        found: list[Command] = []
        for child in node.named_children:
            made = self._walk(child, stdin, depth + 1)
            found.extend(made)
            stdin = tuple(made)
        return found

    def _redirected_commands(self, node: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        body, redirects = node.child_by_field_name("body"), node.children_by_field_name("redirect")
        files = [redirect for redirect in redirects if redirect.type == "file_redirect"]
        here = [_text(c) for r in redirects for c in r.named_children if c.type == "heredoc_body"]
        here += [_word(c) for r in redirects if r.type == "herestring_redirect" for c in r.named_children]
        targets = _Targets(
            tuple(map(self._expand, _destinations(files, (">", ">>", ">|", "&>", "&>>", ">&")))),
            tuple(map(self._expand, _destinations(files, ("<", "<&")))),
            tuple(map(self._expand, here)),
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
                self._read_herestring(redirect, self.commands[before:])
            elif redirect in outputs:  # ``> >(sh)``: the shell reads the command's output
                self._walk(redirect, tuple(found), depth + 1)
        return found

    def _redirect(self, found: list[Command], last: bool, targets: _Targets) -> list[Command]:
        """Add redirections after a group to all of its commands, or after a pipeline to its last command."""
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

    def _commands_in_variables(self, *words: str) -> tuple[Command, ...]:
        """Return the commands whose output is in variables that the words use."""
        names = (name for word in words for name in re.findall(r"\$\{?([A-Za-z_]\w*)", word))
        return tuple(command for name in dict.fromkeys(names) for command in self._variables.get(name, ()))

    def _read_herestring(self, node: Node, own: Sequence[Command]) -> None:
        if any(_runs_stdin(c) for c in own):
            for child in node.named_children:
                self._inner(_word(child), ())

    def _heredoc(self, node: Node, body: Sequence[Command], own: Sequence[Command], depth: int) -> list[Command]:
        """Handle a here document. If a shell reads it, it is a script.

        The grammar makes commands after the delimiter (``<<EOF | sh``, ``<<EOF && …``) children of the here document.
        """
        found: list[Command] = []
        for child in node.named_children:
            if child.type not in ("heredoc_start", "heredoc_body", "heredoc_end", "file_redirect"):
                piped = child.prev_sibling is not None and child.prev_sibling.type in ("|", "|&")
                feeding = tuple(body) if piped or child.type == "pipeline" else ()
                found.extend(self._walk(child, feeding, depth + 1))
        shell = any(_runs_stdin(c) for c in (*own, *found))
        for child in (c for c in node.named_children if c.type == "heredoc_body"):
            if shell:
                self._inner(_text(child), ())
            else:
                found.extend(self._walk(child, (), depth + 1))
        return found

    def _command(self, node: Node, stdin: tuple[Command, ...], depth: int, targets: _Targets) -> list[Command]:
        words: list[str] = []
        assigned: list[str] = []
        inner: list[Command] = []
        extra: list[Command] = []
        called: list[Command] = []
        for child in node.children:
            if child.type in ("herestring_redirect", "file_redirect"):
                extra.extend(self._walk(child, (), depth + 1))
                continue
            if child.type != "variable_assignment" or node.type == "declaration_command":
                words.append(self._literal_word(child))
            else:
                assigned.append(_word(child))
            if child.named_child_count:
                # ``tee >(sh)``: the shell reads the output of tee.
                # A substitution reads the command's own input: ``curl … | sh -c "$(cat)"``.
                fed = (Command(without_wrappers(words)[1], stdin),) if ">(" in _text(child) else stdin
                made = self._walk(child, fed, depth + 1)
                inner.extend(made)
                if child.type == "command_name":
                    called.extend(made)
        words = self._resolve_program(words)
        wrappers, rest = without_wrappers(words)
        # A script can define `curl` or `sh` as a function, and can hide a download in one. The body is judged where
        # it is called, with the input of the call.
        if function := self._functions.get(rest[0] if rest else ""):
            return [*inner, *self._call(function, stdin, depth)]
        here = tuple(
            _word(c) for child in node.children if child.type == "herestring_redirect" for c in child.named_children
        )
        targets = replace(targets, here=(*targets.here, *here))
        front = words[: len(words) - len(rest)]
        if "xargs" in wrappers:
            targets = replace(targets, reads=(*targets.reads, *_arguments_file(front)))
        feed = (
            stdin + tuple(extra) + self._commands_in_variables(*targets.here)
        )  # keeps the identity of the tuple if nothing is added
        command = Command(
            rest,
            feed,
            (*inner, *self._commands_in_variables(*rest)),
            targets.writes,
            wrappers,
            targets.reads,
            targets.here,
            (*called, *self._commands_in_variables(*rest[:1])),
            (*assigned, *(word for word in front if "=" in word)),
        )
        self.commands.append(command)
        for child in node.children:
            if child.type == "herestring_redirect":
                self._read_herestring(child, (command,))
        self._remember(command)
        return [*inner, *extra, command, *self._code(command)]

    def _call(self, function: Node, stdin: tuple[Command, ...], depth: int) -> list[Command]:
        """Return the commands of a called function. They read the input of the call."""
        body = function.child_by_field_name("body")
        if body is None:
            return []
        if self._nested >= _MAX_NESTED:
            self.miss("nests function calls too deeply")
            return []
        self._called += body.end_byte - body.start_byte
        if self._called > _MAX_CALLED:
            self.miss("calls functions too often")
            return []
        self._nested += 1
        found = self._walk(body, stdin, depth + 1)
        self._nested -= 1
        return found

    def _remember(self, command: Command) -> None:
        """Store effects on later commands: variables set by ``read``, aliases, files written by ``echo``."""
        name = command.name
        if name in ("read", "mapfile", "readarray"):
            for variable in command.operands:
                self._variables[variable] = command.stdin
        elif name == "alias":
            for word in command.words[1:]:
                left, equals, value = word.partition("=")
                if equals and len(self._aliases) < _MAX_NESTED * 10:
                    self._aliases[left] = value.strip("'\"")
        written = _literal_output(command)
        if name in ("cat", "tee", "dd") and command.here:
            written = "\n".join(command.here)
        elif command.stdin and name in ("cat", "tee"):
            written = next((text for one in command.stdin if (text := _literal_output(one))), "")
        targets = (*command.writes, *(command.operands if name == "tee" else ()))
        if written and len(written) <= _MAX_SCRIPT:
            for target in targets:
                if len(self.files) < _MAX_PIECES:
                    # By the file's name alone: the working directory of a script is not always known, and a script
                    # that was judged once too often is better than one that was not.
                    key = target.rpartition("/")[2]
                    self.files[key] = f"{self.files.get(key, '')}\n{written}"[-_MAX_SCRIPT:]

    def _code(self, command: Command) -> list[Command]:
        """Parse the scripts that this command runs, if their text is known."""
        before = len(self.commands)
        words = command.words
        if any(word.startswith(_HERE_DOCUMENTS) for word in words):
            self.miss("runs a here document whose text is not in the history")
        script = script_word(words)
        if script and command.name in SHELLS | {"eval"} and (match := _VARIABLE.fullmatch(script)):
            # The value is from ARG, ENV or another instruction: ``eval "$INSTALL"`` can hide a ``curl … | sh``.
            if value := self._values.get(match[1]):
                script = value
            elif not self._commands_in_variables(script):
                self.miss(f"runs code from the variable {truncate_at_space(match[1], 40)}, whose value is unknown")
        if script:
            self._inner(script, command.stdin)
        if command.name == "find":
            self._executed_by_find(words, command.stdin)
        runs_input = (command.name in SHELLS and reads_code_from_stdin(words)) or command.name in ("at", "batch")
        if command.stdin and runs_input:
            last = command.stdin[-1]
            if last.name in ("echo", "printf"):  # ``echo 'curl … | sh' | sh``
                text = _literal_output(last)
                self._inner(text, ())
                if (match := _VARIABLE.fullmatch(text.strip())) and not self._commands_in_variables(text):
                    self.miss(f"runs code from the variable {truncate_at_space(match[1], 40)}")
        if command.stdin and runs_input and (name := _decoder(command.stdin)):
            self.miss(f"runs code that {name} decodes during the build")
        options = options_of(words)
        takes = options is not None and (options.code or words[options.operand : options.operand + 1] != ())
        if command.name in ("eval", "source", ".") or (takes and command.name in SHELLS):
            # Code that is decoded during the build cannot be read here, and hiding it is rarely innocent. It is
            # unknown, and so the check is incomplete.
            if name := _decoder(command.substituted):
                self.miss(f"runs code that {name} decodes during the build")
            self._printed_code(command)
        self._written_code(command)
        return self.commands[before:]

    def _executed_by_find(self, words: Sequence[str], stdin: tuple[Command, ...]) -> None:
        places = [n for n, word in enumerate(words) if word in ("-exec", "-execdir", "-ok", "-okdir")]
        for place in places[:_MAX_NESTED]:
            rest = list(words[place + 1 :])
            end = next((n for n, word in enumerate(rest) if word in (";", "+")), len(rest))
            wrappers, run = without_wrappers([word.replace("{}", _found_by(words)) for word in rest[:end]])
            inner = Command(run, stdin, wrappers=wrappers)
            self.commands.append(inner)
            if script := script_word(run):
                self._inner(script, stdin)

    def _printed_code(self, command: Command) -> None:
        """Parse the output of inner commands as code: ``eval "$(printf …)"`` and ``bash <(echo …)``."""
        for one in command.substituted[:_MAX_NESTED]:
            if text := _literal_output(one):
                self._inner(text, ())

    def _written_code(self, command: Command) -> None:
        """Parse files that earlier commands wrote as code: ``echo 'curl … | sh' > x; sh x``."""
        words = command.words
        options = options_of(words)
        files = words[1:2] if command.name in (".", "source") else ()
        if options is not None and not options.code:
            files = (*words[options.operand : options.operand + 1], *command.reads)
            files = (*files, *(word for one in command.stdin if one.name == "cat" for word in one.words[1:]))
        elif options is None and words and "/" in words[0]:
            files = words[:1]
        for path in files:
            # Removed when it is parsed: a script that runs itself would otherwise be parsed again and again.
            if text := self.files.pop(path.rpartition("/")[2], ""):
                self._inner(text, ())

    def _inner(self, script: str, stdin: tuple[Command, ...]) -> None:
        """Parse a nested script: ``sh -c '…'``, ``eval``, a here document for a shell."""
        if self._nested >= _MAX_NESTED:
            self.miss("nests shells too deeply")
            return
        self._nested += 1
        self.read(script, stdin)
        self._nested -= 1


def _arguments_file(words: Sequence[str]) -> Iterator[str]:
    """The file that ``xargs`` takes its input from."""
    for place, word in enumerate(words):
        if word in ("-a", "--arg-file"):
            yield from words[place + 1 : place + 2]
        elif match := re.match(r"(?:-a|--arg-file=)(.+)", word):
            yield match[1]


def _runs_stdin(command: Command) -> bool:
    """Return whether a command runs its standard input as a shell script."""
    if command.name in (".", "source"):
        return command.words[1:2] in (("/dev/stdin",), ("/dev/fd/0",), ("/proc/self/fd/0",))
    return command.name in SHELLS | USER_SHELLS and reads_code_from_stdin(command.words)


def _found_by(words: Sequence[str]) -> str:
    """The files that ``find`` gives to another program, as a pattern: ``./*.sh``."""
    names = [words[n + 1] for n, word in enumerate(words[:-1]) if word in ("-name", "-iname")]
    place = words[1].rstrip("/") if len(words) > 1 and not words[1].startswith("-") else "."
    return f"./{names[0]}" if names else f"{place}/*"


def _literal_output(command: Command) -> str:
    """Return the literal output of ``echo`` and ``printf``. Empty for other commands."""
    if command.name == "echo":
        words = list(command.words[1:])
        while words and re.fullmatch(r"-[neE]+", words[0]):
            words.pop(0)
        return _unescape(" ".join(words))
    if command.name == "printf" and len(command.words) > 1:
        template, *rest = (word for word in command.words[1:] if word != "--")
        pieces, values = re.split(r"%[-\d.]*[sbq]", template), iter(rest)
        text = pieces[0]
        for piece in pieces[1:]:
            text += next(values, "") + piece
        return _unescape("\n".join([text, *values]))
    return ""


def _unescape(text: str) -> str:
    """Replace the escapes of ``printf``, ``echo -e`` and ``$'…'``."""

    def character(match: re.Match[str]) -> str:
        kind, digits = match[0][1], match[0][2:]
        if kind in "xuU":
            return chr(min(int(digits, 16), 0x10FFFF)) if digits else match[0]
        if kind.isdigit():
            return chr(int(match[0][1:], 8) & 0xFF)
        return {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "a": "\a"}.get(kind, kind)

    return re.sub(
        r"\\(?:x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|U[0-9A-Fa-f]{1,8}|[0-7]{1,4}|[ntrea\\'\"?])", character, text
    )


def _decoder(commands: Sequence[Command]) -> str:
    """Return the name of a decoder among the commands or their inputs. Empty: none."""
    waiting, seen = list(commands), set[int]()
    while waiting and len(seen) < _MAX_PIPES:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.name in _DECODERS and (one.name != "openssl" or one.has("-d") or "base64" in one.words):
            return one.name
        waiting.extend((*one.stdin, *one.substituted)[:_MAX_PIPES])
    return ""


@dataclass(frozen=True, slots=True)
class _Targets:
    """The files of a command's redirections."""

    writes: tuple[str, ...] = ()  # files that the command's output goes to
    reads: tuple[str, ...] = ()  # files that the command reads
    here: tuple[str, ...] = ()  # texts of here-documents


def _destinations(redirects: Sequence[Node], signs: Sequence[str]) -> tuple[str, ...]:
    chosen = (redirect for redirect in redirects if any(child.type in signs for child in redirect.children))
    return tuple(_word(target) for redirect in chosen for target in redirect.children_by_field_name("destination"))


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _word(node: Node) -> str:
    """Return a word as the command receives it. Expansions are kept as written."""
    text = _text(node)
    if node.type == "string":
        return re.sub(r'\\(["\\$`\n])', r"\1", text[1:-1])
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "ansi_c_string":
        return _unescape(text[2:-1])
    if node.type in ("concatenation", "command_name"):
        return "".join(map(_word, node.children)) if node.child_count else text
    if node.type == "word":
        return re.sub(r"\\(.)", r"\1", text)
    return text


def path_of(text: str, working_directory: str = "/") -> str:
    """Return a path relative to the root, without ``.`` and ``..``, as in `Rootfs.files`."""
    parts: list[str] = []
    for part in PurePosixPath("/" + working_directory.lstrip("/"), text).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def address(url: str) -> str:
    """Return a URL without user, password and query, which may contain credentials."""
    # Reports and logs quote it. A token in a URL would be published by the scan that was to protect it.
    return re.sub(r"(?<=://)[^/@\s]*@", "", url).partition("?")[0][:200]
