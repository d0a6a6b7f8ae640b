"""A Dockerfile fragment with the remedies of an image's failed checks, in the order of a Dockerfile.

Instructions of the history that failed a check are rewritten. Changes of accounts and modes are combined into one
RUN as root. Remedies that are not an instruction are listed at the end. Text from the image is quoted and on one
line, because users will paste the fragment.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scanner.checks._history import Instruction, read_history
from scanner.checks._package_managers import manager_of, verb
from scanner.checks.base import Check
from scanner.model.finding import CheckResult, Evidence, Failed
from scanner.model.image import ImageConfig
from scanner.model.scan import ImageReport
from scanner.patterns import lazy

# Checks whose failure can be fixed within the instruction.
_CORRECTED_CHECKS = (
    "recommended-packages",
    "package-cache",
    "lone-update",
    "add-instead-of-copy",
    "shell-form-entrypoint",
)
_ORDER = (
    "FROM",
    "LABEL",
    "ENV",
    "ADD",
    "COPY",
    "RUN",
    "VOLUME",
    "EXPOSE",
    "WORKDIR",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "USER",
    "ENTRYPOINT",
    "CMD",
)
_LINE = lazy(rf"({'|'.join(_ORDER)}) \S")
# General remedies with placeholders. They are listed, but not as an instruction to paste.
_EXAMPLE = lazy(
    r"…|\b(?:NAME|PACKAGE|DIGEST)\b|/path\b|\bthen\b|https://example\.com|/app/\w|\bone of\b|\b(?:a|the) \w+ "
)
# Where --no-install-recommends has its place.
_APT = lazy(r"\b(apt-get|apt)((?:\s+-[\w=:.-]+)*)\s+install\b")
# Characters of a suggested line.
_WIDTH = 110


@dataclass(frozen=True)
class _Remedy:
    check: str
    text: str

    @property
    def keyword(self) -> str:
        match = _LINE.match(self.text)
        # An unprintable remedy could contain a line end, and with it an instruction of the image's author. Users
        # paste this fragment into their Dockerfile.
        return match[1] if match and not _EXAMPLE.search(self.text) and self.text.isprintable() else ""


def fragment(report: ImageReport, checks: Mapping[str, Check]) -> str:
    """Return the fragment. Empty if no check failed."""
    failed = [(r, r.outcome) for r in report.checks if isinstance(r.outcome, Failed)]
    if not failed:
        return ""
    config = report.image.config
    mended = dict(_mended_lines(config, failed))
    done = {name for names in mended.values() for name in names[1]}
    remedies = [
        _Remedy(result.check, outcome.remedy or (checks[result.check].remedy if result.check in checks else ""))
        for result, outcome in failed
        if result.check not in done
    ]
    lines = [*_dockerfile(config, remedies, mended), *_by_hand(remedies), *_compose(failed)]
    return "\n".join(lines).strip("\n") + "\n"


def _dockerfile(
    config: ImageConfig, remedies: Sequence[_Remedy], mended: Mapping[int, tuple[str, Sequence[str]]]
) -> Iterator[str]:
    yield "# Remedies of the failed checks, as instructions for the image's Dockerfile."
    by_keyword: dict[str, list[_Remedy]] = defaultdict(list)
    for remedy in remedies:
        by_keyword[remedy.keyword].append(remedy)
    runs = by_keyword["RUN"]
    for keyword in _ORDER:
        found = by_keyword[keyword]
        if keyword == "RUN":
            for index, (line, names) in mended.items():
                yield from ("", f"# {', '.join(names)}: replaces history line {index}", line)
            if runs:
                yield from _one_run(config, runs, restore=not by_keyword["USER"])
            continue
        for text in dict.fromkeys(remedy.text for remedy in found):
            yield from ("", f"# {', '.join(dict.fromkeys(r.check for r in found if r.text == text))}", text)


def _one_run(config: ImageConfig, runs: Sequence[_Remedy], *, restore: bool) -> Iterator[str]:
    """Yield one RUN as root for all changes of accounts and modes, then restore the image's user."""
    yield from ("", f"# {', '.join(dict.fromkeys(run.check for run in runs))}")
    root = config.user.partition(":")[0] in ("", "0", "root")
    if not root:
        yield "USER root"
    yield "RUN " + " \\\n && ".join(dict.fromkeys(run.text.removeprefix("RUN ") for run in runs))
    # The user comes from the image's config. Anything but a plain name or number is left out instead of being quoted.
    if not root and restore and re.fullmatch(r"[\w.:-]{1,64}", config.user):
        yield f"USER {config.user}"


def _by_hand(remedies: Sequence[_Remedy]) -> Iterator[str]:
    rest = [remedy for remedy in remedies if not remedy.keyword and remedy.check != "read-only-root-filesystem"]
    if not rest:
        return
    yield from ("", "# By hand:")
    for remedy in rest:
        text = "".join(c if c.isprintable() else "?" for c in remedy.text)
        yield from textwrap.wrap(
            f"{remedy.check}: {text}", _WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False
        )


def _compose(failed: Sequence[tuple[CheckResult, Failed]]) -> Iterator[str]:
    """Yield settings for compose.yaml that a Dockerfile cannot contain."""
    needs: Sequence[Evidence] = next((o.evidence for r, o in failed if r.check == "read-only-root-filesystem"), ())
    paths = [(item.name, item.path) for item in needs if re.fullmatch(r"[\w./@-]+", item.path)]
    if not paths:
        return
    yield from ("", "# compose.yaml, for a read-only root file system:", "#   read_only: true")
    scratch = [f"/{path}" for kind, path in paths if kind != "volume"]
    volumes = [f"{path.replace('/', '-')}:/{path}" for kind, path in paths if kind == "volume"]
    if scratch:
        yield f"#   tmpfs: [{', '.join(scratch)}]"
    if volumes:
        yield f"#   volumes: [{', '.join(volumes)}]"
    yield '#   security_opt: ["no-new-privileges:true"]'


def _mended_lines(
    config: ImageConfig, failed: Sequence[tuple[CheckResult, Failed]]
) -> Iterator[tuple[int, tuple[str, list[str]]]]:
    """Yield history index, corrected instruction and the checks that it fixes."""
    minded: dict[int, list[str]] = defaultdict(list)
    for result, outcome in failed:
        for item in outcome.evidence if result.check in _CORRECTED_CHECKS else ():
            if item.history_index is not None and result.check not in minded[item.history_index]:
                minded[item.history_index].append(result.check)
    history = read_history(config).instructions
    lines = {one.index: one for one in history}
    # A corrected instruction removes the package lists. Later ones that rely on them must fetch the lists themselves.
    first = min((index for index in minded if index in lines and _uses_lists(lines[index])), default=None)
    for later in history:
        if first is not None and later.index > first and later.name == "RUN" and _needs_lists(later):
            minded.setdefault(later.index, ["package lists are removed"])
    for index, names in sorted(minded.items()):
        one = lines.get(index)
        if one is not None and "lone-update" in names and not _installs(one):
            if one.text.isprintable() and len(one.commands) == 1:
                yield index, (f"# remove: RUN {one.text}", names)
            continue
        line = _corrected_instruction(one) if one is not None else ""
        if line:
            yield index, (line, names)


def _actions(one: Instruction) -> Iterator[tuple[str, str]]:
    """Yield the package manager actions of a RUN: (name, "refresh" or "install")."""
    for command in one.commands:
        manager = manager_of(command)
        if manager is not None and (action := verb(command, manager)):
            yield manager.name, "install" if action in manager.install else "refresh"


def _installs(one: Instruction) -> bool:
    return any(action == "install" for _, action in _actions(one))


def _uses_lists(one: Instruction) -> bool:
    return any(name in ("apt", "apk") for name, _ in _actions(one))


def _needs_lists(one: Instruction) -> bool:
    """Return whether it installs with package lists that an earlier instruction fetched."""
    actions = list(_actions(one))
    return any((name, "install") in actions and (name, "refresh") not in actions for name in ("apt", "apk"))


def _without_comment(text: str) -> str:
    """The line without a shell comment at its end: what is added behind it would be a part of the comment."""
    quote, before = "", " "
    escaped = False
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and before in " \t;&|()":
            return text[:place]
        before = character
    return text


def _corrected_instruction(one: Instruction) -> str:
    """Return the corrected instruction. Empty if it cannot be corrected on one line."""
    text = " ".join(one.text.split("\n")) if one.name != "RUN" else one.text
    if not text.isprintable():
        return ""
    if one.name == "ADD":
        return f"COPY {text}" if " in " not in text else ""
    if one.name != "RUN" or one.gap:
        return ""
    text = _without_comment(text).strip().rstrip(";").rstrip()
    if text.endswith("&"):  # what is added would not wait for it
        return ""
    actions = set(_actions(one))
    if ("apt", "install") in actions and ("apt", "refresh") not in actions:
        text = f"apt-get update && {text}"
    text = _APT.sub(
        lambda m: m[0] if "--no-install-recommends" in text else f"{m[1]}{m[2]} install --no-install-recommends", text
    )
    text = re.sub(r"\bapk\s+(?:update|upgrade)\s*&&\s*", "", text)
    text = re.sub(r"\bapk\s+add(?!.*--no-cache)", "apk add --no-cache", text)
    text = re.sub(r"\bpip(3?)\s+install(?!.*--no-cache-dir)", r"pip\1 install --no-cache-dir", text)
    if re.search(r"\bapt(?:-get)?\b", text) and "/var/lib/apt/lists" not in text:
        text += " && apt-get clean && rm -rf /var/lib/apt/lists/*"
    for manager in ("microdnf", "dnf", "yum"):
        if re.search(rf"\b{manager}\s[^&;|]*install\b", text) and "clean all" not in text:
            text += f" && {manager} clean all"
            break
    if re.search(r"\bzypper\s[^&;|]*install\b", text) and "zypper clean" not in text:
        text += " && zypper clean --all"
    if re.search(r"\bnpm\s+(?:ci|i|install)\b", text) and "npm cache clean" not in text:
        text += " && npm cache clean --force"
    return f"RUN {text}"
