"""Secrets in command lines: found for a check, and removed from whatever is written, sent or stored.

A command line is visible to every user of its host (``ps``), in ``docker inspect``, in the API of the cluster, and in
the logs of what starts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scanner.model.secret_variables import is_named_secret, spans
from scanner.patterns import lazy

if TYPE_CHECKING:
    from scanner.model.workload import Workload

REDACTED: Final = "[redacted]"
# Words of one command line; further ones are not searched.
_MOST_TOKENS = 5000
_BY_FORM = "a key, a token, or a password in a URL or a header"
# The words of a script ("sh -c '…'"), and what ends a command in it.
_TOKEN = lazy(r"""(?:"[^"]*"|'[^']*'|[^\s;|&()"'])+|[;|&()]""")
_ASSIGNED = lazy(r"(-{1,2}[A-Za-z][\w.:-]*|[A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_OPTION = lazy(r"-{1,2}[A-Za-z][\w.:-]*")
# dbPassword is db-password.
_CAMEL = lazy(r"(?<=[a-z0-9])(?=[A-Z])")
# Options whose names say nothing general: redis-server --requirepass, etcd's and Redis' masterauth.
_OWN_NAMES = frozenset(("REQUIREPASS", "MASTERAUTH", "PWD", "PSK", "BEARER"))
# curl -H "Authorization: …"
_HEADER = lazy(
    r"(?:authorization|proxy-authorization|x-api-key|x-auth-token|private-token|x-vault-token)\s*:\s*"
    r"(?:(?:bearer|basic|token|apikey)\s+)?([^\s\"',;]+)",
    re.IGNORECASE,
)
# The name of an object with the secret, a file, or what a shell or the kubelet replaces.
_REFERENCE = lazy(r"[a-z0-9.-]+/[a-z0-9.-]+|@.*|(?:file|env|vault|arn|ref\+?)[:+].*|[`].*")
# Short options of one program each, with the value in the next word or in the same one.
_SHORT = {
    "curl": ("-u", "--user", "-U", "--proxy-user"),
    "redis-cli": ("-a", "--pass"),
    "sshpass": ("-p",),
    "mongo": ("-p",),
    "mongosh": ("-p",),
    "mongodump": ("-p",),
    "docker": ("-p",),
    "helm": ("-p",),
    "ldapsearch": ("-w",),
    "ldapmodify": ("-w",),
    "mysql": ("-p",),
    "mysqldump": ("-p",),
    "mysqladmin": ("-p",),
    "mariadb": ("-p",),
    "mariadb-dump": ("-p",),
    "mariadb-admin": ("-p",),
    "rabbitmqadmin": ("-p",),
}
# Theirs stands in the same word only: the next word of "mysql -p db" is the database.
_ATTACHED = ("mysql", "mariadb")
# What stands before the program: the form of a healthcheck, and programs that run another one.
_WRAPPERS = frozenset(("CMD", "CMD-SHELL", "env", "exec", "sudo", "nohup", "time", "timeout", "tini", "dumb-init"))
_LOGIN = {"docker": "login", "helm": "login"}  # the command in which -p is a password, and not a port


@dataclass(frozen=True, slots=True)
class SecretArgument:
    """Where a secret stands: the word, and start and end within it. ``name``: the option or variable, for a person."""

    word: int
    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class _Token:
    word: int
    start: int
    text: str  # as it stands, with quotes


def find_secrets(words: Sequence[str]) -> tuple[SecretArgument, ...]:
    """Return the secrets of a command line, in order. Words with blanks are read as scripts of a shell."""
    named = [each for command in _commands(words) for each in _by_name(command)]
    spots = {(each.word, place) for each in named for place in (each.start, each.end)}
    # An option with a token says more than the token.
    formed = [each for each in _by_form(words) if not {(each.word, each.start), (each.word, each.end)} & spots]
    return tuple(sorted({*named, *formed}, key=lambda each: (each.word, each.start, -each.end)))


def redact(words: Sequence[str]) -> tuple[str, ...]:
    """Return the command line with every secret replaced."""
    told = list(words)
    ends: dict[int, int] = {}
    # From the last to the first, so that the earlier positions still hold. Of two that overlap, the outer one counts.
    for each in sorted(find_secrets(words), key=lambda one: (one.word, one.end, -one.start), reverse=True):
        end = min(each.end, ends.get(each.word, each.end))
        if each.start < end:
            text = told[each.word]
            told[each.word] = text[: each.start] + REDACTED + text[end:]
            ends[each.word] = each.start
    return tuple(told)


def without_secrets(workload: Workload) -> Workload:
    """Return the workload with the secrets of its command lines replaced. The check finds the replacement as well."""
    changed: dict[str, object] = {
        name: told
        for name in ("command", "arguments", "healthcheck_test")
        if (words := getattr(workload, name)) and (told := redact(words)) != words
    }
    if workload.processes:
        changed["processes"] = tuple(redact((line,))[0] for line in workload.processes)
    if any(probe.command or probe.headers for probe in workload.probes):
        changed["probes"] = tuple(
            replace(probe, command=redact(probe.command), headers=redact(probe.headers)) for probe in workload.probes
        )
    return replace(workload, **changed) if changed else workload  # type: ignore[arg-type]


def _by_form(words: Sequence[str]) -> Iterator[SecretArgument]:
    for number, word in enumerate(words[:_MOST_TOKENS]):
        removed = (found.span() for found in re.finditer(re.escape(REDACTED), word))
        for start, end in (*spans(word), *removed):
            yield SecretArgument(number, start, end, _BY_FORM)
        for header in _HEADER.finditer(word):
            if _is_value(header[1]) and not header[1].startswith("$"):
                yield SecretArgument(number, *header.span(1), _BY_FORM)


def _commands(words: Sequence[str]) -> Iterator[list[_Token]]:
    """Yield the tokens of each command: those of the command line, and those of each script in it."""
    # First, so that a long script cannot end the search before it.
    yield [_Token(number, 0, word) for number, word in enumerate(words[:_MOST_TOKENS])]
    left = _MOST_TOKENS
    for number, word in enumerate(words[:_MOST_TOKENS]):
        if not re.search(r"\s", word):
            continue
        script: list[_Token] = []
        for match in _TOKEN.finditer(word):
            left -= 1
            if left < 0:
                yield script
                return
            if match[0] in ";|&()":
                yield script
                script = []
            else:
                script.append(_Token(number, match.start(), match[0]))
        yield script


def _by_name(command: Sequence[_Token]) -> Iterator[SecretArgument]:
    program = ""
    used: tuple[str, ...] = ()
    for number, token in enumerate(command):
        start, text = _unquoted(token)
        following = command[number + 1] if number + 1 < len(command) else None
        if not program and not text.startswith("-") and "=" not in text and not text.isdigit():
            name = text.rpartition("/")[2]
            program = "" if name in _WRAPPERS else name
        used = (*used[-8:], text)
        if (assigned := _ASSIGNED.fullmatch(text)) is not None:
            value = token.text[start + assigned.start(2) :] if start == 0 else assigned[2]
            inner, value = _unquoted(_Token(token.word, 0, value))
            if _is_secret_option(assigned[1], value):
                begin = token.start + start + assigned.start(2) + inner
                yield SecretArgument(token.word, begin, begin + len(value), assigned[1])
        elif following is not None and _OPTION.fullmatch(text):
            inner, value = _unquoted(following)
            if not value.startswith("-") and (
                _is_secret_option(text, value) or (_takes_secret(program, text, used) and _is_value(value))
            ):
                begin = following.start + inner
                yield SecretArgument(following.word, begin, begin + len(value), text)
        if program.startswith(_ATTACHED) and text.startswith("-p") and _is_value(text[2:]):
            begin = token.start + start + 2
            yield SecretArgument(token.word, begin, begin + len(text) - 2, "-p")


def _unquoted(token: _Token) -> tuple[int, str]:
    """Return a token without its quotes, and how many characters were cut before it."""
    text = token.text
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        return 1, text[1:-1]
    return 0, text


def _is_secret_option(option: str, value: str) -> bool:
    if not _is_value(value):
        return False
    bare = option.lstrip("-")
    # Java's -Dspring.datasource.password is the name of a property.
    bare = bare[1:] if option.startswith("-D") and "." in bare else bare
    name = re.sub(r"[^A-Za-z0-9]+", "_", _CAMEL.sub("_", bare)).upper()
    if option[0] == "-" and name.endswith("AUTH") and name not in _OWN_NAMES:
        return (
            ":" in value or len(value) > 20 or value == REDACTED
        )  # --auth=jwt chooses a kind, --basic-auth=user:password is a secret
    return name.rpartition("_")[2] in _OWN_NAMES or is_named_secret(name, value)


def _is_value(value: str) -> bool:
    """Whether this can be a secret, and is not the name of one."""
    return value == REDACTED or (bool(value) and is_named_secret("PASSWORD", value) and not _REFERENCE.fullmatch(value))


def _takes_secret(program: str, option: str, used: Sequence[str]) -> bool:
    if option not in _SHORT.get(program, ()) or program.startswith(_ATTACHED):
        return False
    return program not in _LOGIN or _LOGIN[program] in used
