"""A Dockerfile as the image that it would build, without files: the config and history of its last stage.

Syntax: https://docs.docker.com/reference/dockerfile/. Libraries that read Dockerfiles know no heredocs, and would take
the lines of one for instructions.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scanner.errors import UsageError
from scanner.model.image import Healthcheck, HistoryEntry, Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform

_MAX_LINES = 20_000
_MAX_VALUE = 20_000  # characters after variables are replaced: a few lines can double a value each
_INSTRUCTIONS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_WITH_LAYER = ("RUN", "COPY", "ADD", "WORKDIR")
_SHELL = ("/bin/sh", "-c")
# What every builder starts with. Without it, PATH=/app:$PATH would be a path relative to a directory named "$PATH".
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DIRECTIVE = re.compile(r"#\s*([a-z]+)\s*=\s*(\S+)\s*", re.IGNORECASE)
# <<EOF, <<-EOF, <<"EOF"; not the shell's <<<.
_HEREDOC = re.compile(r"(?<!<)<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\2")
# $A, ${A}, ${A:-default}, ${A:+value}; an escaped dollar is text.
_VARIABLE = re.compile(r"\\\$|\$(?:(\w+)|\{(\w+)(?::([-+])([^{}]*))?\})")
# The arguments of FROM.
_STAGE = re.compile(r"(?:--platform=(\S+)\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
# An instruction's own options stand before its arguments.
_OPTION = re.compile(r"--([a-z-]+)(?:=(\S+))?\s+")


@dataclass(frozen=True)
class Instruction:
    """One instruction. ``line``: its first, from 1. ``name``: in upper case. ``heredocs``: their texts."""

    line: int
    name: str
    value: str
    heredocs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build:
    """What a Dockerfile builds. ``base``: the image that the last stage is built on; empty: ``scratch``.

    ``lines``: the line of each entry of the image's history. ``line``: of the last stage's FROM.
    """

    image: Image
    base: str
    line: int
    lines: tuple[int, ...]


@dataclass
class _Stage:
    """A stage while it is read. A stage on an earlier one goes on with what that has."""

    line: int
    base: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    history: list[tuple[HistoryEntry, int]] = field(default_factory=list)


def read(text: str, file: str) -> Build:
    """Return what a Dockerfile builds: its last stage, with all stages that it is built on.

    Raises UsageError with file and line for an unknown instruction, an unreadable value, or a text without FROM.
    """
    stages: dict[str, _Stage] = {}
    defaults: dict[str, str] = {}  # of ARG before the first FROM
    current: _Stage | None = None
    for number, one in enumerate(instructions(text, file)):
        if one.name == "FROM":
            current = _begin(one, stages, defaults, file)
        elif current is None and one.name == "ARG":
            defaults.update(_arguments(one, {}))
        elif current is None:
            raise _wrong(file, one.line, f"{one.name} before the first FROM" if number else "it begins without FROM")
        else:
            _apply_instruction(current, one, file, defaults)
    if current is None:
        raise UsageError(f"{file}: there is no FROM instruction", reason="bad_dockerfile")
    return _build_of_stage(current)


def instructions(text: str, file: str) -> Iterator[Instruction]:
    """Yield the instructions. Comments and empty lines between continued lines are left out, as BuildKit does."""
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > _MAX_LINES:
        raise UsageError(f"{file}: it has {len(lines):,} lines, more than {_MAX_LINES:,}", reason="limit_exceeded")
    escape, index = _escape(lines), 0
    while index < len(lines):
        first, whole = index, ""
        while index < len(lines):
            line = lines[index]
            index += 1
            if line.lstrip().startswith("#") or (whole and not line.strip()):
                continue
            continued = line.rstrip().endswith(escape)
            whole += line.rstrip().removesuffix(escape) if continued else line
            first = index - 1 if not whole.strip() else first
            if not continued:
                break
        if not whole.strip():
            continue
        name, _, value = whole.strip().partition(" ")
        name, value = name.upper(), " ".join(value.split("\t")).strip()
        first = _first_line(lines, first)
        if name not in _INSTRUCTIONS:
            raise _wrong(file, first + 1, f"unknown instruction {name[:40]!r}")
        documents = []
        # COPY and ADD take files from heredocs; other instructions have none.
        for dash, _, end in _HEREDOC.findall(value) if name in ("RUN", "COPY", "ADD") else ():
            body: list[str] = []
            while index < len(lines) and (lines[index].lstrip("\t") if dash else lines[index]) != end:
                body.append(lines[index])
                index += 1
            if index >= len(lines):
                raise _wrong(file, first + 1, f"the heredoc {end} does not end")
            index += 1
            documents.append("\n".join(body) + "\n")
        yield Instruction(first + 1, name, value, tuple(documents))


def _first_line(lines: Sequence[str], index: int) -> int:
    while index < len(lines) and (not lines[index].strip() or lines[index].lstrip().startswith("#")):
        index += 1
    return min(index, len(lines) - 1)


def _escape(lines: Sequence[str]) -> str:
    """The escape character: parser directives are comments before anything else."""
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape" and match[2] in ("\\", "`"):
            return match[2]
    return "\\"


def _begin(one: Instruction, stages: dict[str, _Stage], defaults: Mapping[str, str], file: str) -> _Stage:
    match = _STAGE.fullmatch(_with_variables(one.value, defaults))
    if match is None:
        raise _wrong(file, one.line, f"FROM {one.value[:100]!r} is not an image")
    name = match[2]
    # A stage's name wins over an image of the same name, as in the builder.
    known = next((s for key, s in stages.items() if key == name.lower()), None)
    stage = _Stage(one.line, "" if name == "scratch" else name)
    if known is not None:
        stage = _Stage(one.line, known.base, dict(known.config), {}, list(known.history))
    if match[3]:
        stages[match[3].lower()] = stage
    return stage


def _apply_instruction(stage: _Stage, one: Instruction, file: str, defaults: Mapping[str, str]) -> None:
    # ENV wins over ARG of the same name, as in the builder.
    known = {"PATH": _PATH, **stage.variables, **dict(stage.config.get("env", ()))}
    # The builder replaces no variables in these five: a shell does at run time, or a later build. Replacing them here
    # would judge another command than the one that runs.
    value = (
        one.value if one.name in ("RUN", "CMD", "ENTRYPOINT", "SHELL", "ONBUILD") else _with_variables(one.value, known)
    )
    config = stage.config
    created = f"{one.name} {value}"
    match one.name:
        case "ARG":
            stage.variables.update(_arguments(one, defaults))
        case "ENV":
            config["env"] = tuple({**dict(config.get("env", ())), **_pairs(value, file, one.line)}.items())
        case "LABEL":
            config["labels"] = tuple({**dict(config.get("labels", ())), **_pairs(value, file, one.line)}.items())
        case "USER":
            config["user"] = value
        case "WORKDIR":
            config["working_dir"] = value
        case "STOPSIGNAL":
            config["stop_signal"] = value
        case "MAINTAINER":
            config["author"] = value
        case "EXPOSE":
            ports = (port if "/" in port else f"{port}/tcp" for port in value.split())
            config["exposed_ports"] = (*config.get("exposed_ports", ()), *ports)
        case "VOLUME":
            config["volumes"] = (*config.get("volumes", ()), *(_words(value) or value.split()))
        case "ONBUILD":
            config["onbuild"] = (*config.get("onbuild", ()), value)
        case "SHELL":
            config["shell"] = _words(value)
            if not config["shell"]:
                raise _wrong(file, one.line, 'SHELL needs a JSON list: SHELL ["/bin/bash", "-c"]')
        case "ENTRYPOINT":
            config["entrypoint"] = _command(config, value)
            config["cmd"] = ()  # an entrypoint of a stage resets the command that was inherited
        case "CMD":
            config["cmd"] = _command(config, value)
        case "HEALTHCHECK":
            config["healthcheck"] = _healthcheck(value)
        case "RUN":
            created = _run(config, one)
    layer = one.name in _WITH_LAYER
    # Written as BuildKit writes its history, so that every check of an image's history works on a Dockerfile as it
    # is.
    entry = HistoryEntry(f"{created[:_MAX_VALUE]} # buildkit", empty_layer=not layer, comment="buildkit.dockerfile.v0")
    stage.history.append((entry, one.line))


def _arguments(one: Instruction, defaults: Mapping[str, str]) -> dict[str, str]:
    """The arguments of an ARG with a value. A name alone takes the value of the ARG before the first FROM."""
    found = {}
    for word in one.value.split():
        name, given, value = word.partition("=")
        if given or name in defaults:
            found[name] = value.strip("\"'") if given else defaults[name]
    return found


def _run(config: Mapping[str, Any], one: Instruction) -> str:
    """The history's line of a RUN, as BuildKit writes it."""
    shell = " ".join(config.get("shell", ()) or _SHELL)
    options = "".join(match[0] for match in _leading_options(one.value))
    script = one.value[len(options) :]
    if one.heredocs and _HEREDOC.fullmatch(script.strip()):
        # A heredoc alone is a script. One for another interpreter is a file, of which the history shows the name only.
        body = one.heredocs[0]
        if body.startswith("#!") and not re.match(r"#!\s*\S*/(?:env\s+)?(?:ba|da|a)?sh\b", body):
            return "RUN /dev/pipes/EOF"
        return f"RUN {shell} {body}"
    words = _words(script)
    if words:
        return f"RUN {shlex.join(words)}"
    ends = (f"\n{body}{match[2]}" for body, match in zip(one.heredocs, _HEREDOC.findall(script), strict=False))
    return f"RUN {shell} {script}{''.join(ends)}"


def _leading_options(value: str) -> Iterator[re.Match[str]]:
    at = 0
    while match := _OPTION.match(value, at):
        yield match
        at = match.end()


def _command(config: Mapping[str, Any], value: str) -> tuple[str, ...]:
    words = _words(value)
    return words if words else (*(config.get("shell", ()) or _SHELL), value)


def _healthcheck(value: str) -> Healthcheck:
    options = "".join(match[0] for match in _leading_options(value))
    test = value[len(options) :].strip()
    if test.upper() == "NONE":
        return Healthcheck(("NONE",))
    command = test.partition(" ")[2].strip()
    words = _words(command)
    return Healthcheck(("CMD", *words) if words else ("CMD-SHELL", command))


def _words(text: str) -> tuple[str, ...]:
    """The words of a JSON list of texts; empty for anything else, which the builder takes as a shell's line."""
    if not text.lstrip().startswith("["):
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(found) if isinstance(found, list) and all(isinstance(word, str) for word in found) else ()


def _pairs(value: str, file: str, line: int) -> dict[str, str]:
    """``KEY=value KEY2="two words"``, or the old form ``KEY the rest``."""
    name, space, rest = value.partition(" ")
    if "=" not in name and space:
        return {name: rest.strip()}
    try:
        words = shlex.split(value, posix=True)
    except ValueError:
        raise _wrong(file, line, "a quotation mark is not closed") from None
    return {key: text for key, _, text in (word.partition("=") for word in words)}


def _with_variables(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables. One without a value stays as it is written: unknown is not the same as empty."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not name:
            return match[0]
        if match[3] == "+":
            return match[4] if name in variables else ""
        if name in variables:
            return variables[name]
        return match[4] if match[3] == "-" else match[0]

    return _VARIABLE.sub(value, text)[:_MAX_VALUE]


def _build_of_stage(stage: _Stage) -> Build:
    layers: list[Layer] = []
    entries: list[HistoryEntry] = []
    for entry, line in stage.history:
        if not entry.empty_layer:
            # A made-up digest, which only has to be different for each layer: nothing was built.
            digest = Digest.of(f"{line}:{len(layers)}".encode())
            entry = replace(entry, layer=len(layers))
            layers.append(Layer(len(layers), digest, digest, "", 0, created_by=entry.created_by))
        entries.append(entry)
    nothing = Digest.of(b"")
    config = ImageConfig(
        nothing,
        Platform("linux", "amd64"),
        tuple(layer.diff_id for layer in layers),
        history=tuple(entries),
        **stage.config,
    )
    image = Image(Descriptor("", nothing, 0), config, tuple(layers))
    return Build(image, stage.base, stage.line, tuple(line for _, line in stage.history))


def _wrong(file: str, line: int, what: str) -> UsageError:
    return UsageError(f"{file}:{line}: {what}", reason="bad_dockerfile")
