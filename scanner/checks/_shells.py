"""Command lines of shells and interpreters: wrappers before them, their options, and the source of their code.

Options may take values (``bash -eo pipefail``), and programs may start others (``env``, ``tini``, ``conda run``).
Without that knowledge ``curl … | bash -eo pipefail`` looks like a shell that runs the file ``pipefail``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from scanner.lazy_dataclasses import dataclass
from scanner.patterns import lazy

SHELLS = frozenset(
    (
        "sh",
        "bash",
        "dash",
        "ash",
        "zsh",
        "ksh",
        "ksh93",
        "mksh",
        "lksh",
        "oksh",
        "pdksh",
        "posh",
        "yash",
        "rbash",
        "rzsh",
    )
)
# Shells with another grammar, whose scripts are not parsed.
FOREIGN_SHELLS = frozenset(("powershell", "pwsh", "cmd", "fish", "csh", "tcsh", "elvish", "xonsh"))
# Programs that start the shell of a user with -c.
USER_SHELLS = frozenset(("su", "runuser"))
# Names with a version or variant: bash-5.2, busybox-static, zsh-5.9.
_SHELL_NAME = lazy(r"(?:bash|busybox|dash|zsh|ksh)[-.\d]*(?:static)?")
# sudo env nice …: more of them are hostile.
_MOST_WRAPPERS = 8


class Wrapper(NamedTuple):
    """A program that starts another one.

    ``values``: its options with a value. ``operands``: the number of its arguments before the other program. ``verbs``:
    subcommands before it.
    """

    values: tuple[str, ...] = ()
    operands: int = 0
    verbs: tuple[str, ...] = ()


_CONDA = Wrapper(
    ("-n", "--name", "-p", "--prefix", "--cwd", "-r", "--root-prefix", "-a", "--attach", "-e"), 0, ("run",)
)
_WRAPPERS = {
    "sudo": Wrapper(("-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "-R", "-T", "--user", "--group")),
    "doas": Wrapper(("-u", "-C")),
    "env": Wrapper(("-u", "-C", "--unset", "--chdir")),
    "exec": Wrapper(("-a",)),
    "command": Wrapper(),
    "time": Wrapper(("-f", "-o")),
    "nice": Wrapper(("-n",)),
    "nohup": Wrapper(),
    "setsid": Wrapper(),
    "timeout": Wrapper(("-s", "-k", "--signal", "--kill-after"), 1),
    "ionice": Wrapper(("-c", "-n")),
    "eatmydata": Wrapper(),
    "gosu": Wrapper((), 1),
    "su-exec": Wrapper((), 1),
    "s6-setuidgid": Wrapper((), 1),
    "chpst": Wrapper(("-u", "-U", "-e", "-/")),
    "chronic": Wrapper(),
    "busybox": Wrapper(),
    "toybox": Wrapper(),
    "builtin": Wrapper(),
    "fakeroot": Wrapper(("-l", "-s", "-i")),
    "xargs": Wrapper(("-n", "-P", "-I", "-a", "-d", "-L", "-s", "-E")),
    "stdbuf": Wrapper(("-i", "-o", "-e")),
    "unbuffer": Wrapper(),
    "linux32": Wrapper(),
    "linux64": Wrapper(),
    "setarch": Wrapper((), 1),
    "chroot": Wrapper(("--userspec", "--groups"), 1),
    "setpriv": Wrapper(("--reuid", "--regid", "--groups", "--ruid", "--rgid")),
    "unshare": Wrapper(("-S", "-G", "-R", "-w")),
    "tini": Wrapper(("-p", "-e")),
    "tini-static": Wrapper(("-p", "-e")),
    "docker-init": Wrapper(("-p", "-e")),
    "dumb-init": Wrapper(("-r", "--rewrite")),
    "catatonit": Wrapper(),
    "xvfb-run": Wrapper(("-n", "-s", "-f", "-e", "-w", "-p")),
    "conda": _CONDA,
    "mamba": _CONDA,
    "micromamba": _CONDA,
    "pixi": Wrapper(("-e", "--environment", "--manifest-path"), 0, ("run",)),
    "poetry": Wrapper(("-C", "-P"), 0, ("run",)),
    "pipenv": Wrapper((), 0, ("run",)),
    "pdm": Wrapper(("-p",), 0, ("run",)),
    "uv": Wrapper(("--project", "--directory", "--python", "-p", "--with"), 0, ("run",)),
    "hatch": Wrapper(("-e",), 0, ("run",)),
    "bundle": Wrapper((), 0, ("exec",)),
    "dbus-run-session": Wrapper(("--config-file",)),
    "catchsegv": Wrapper(),
    "ld.so": Wrapper(("--library-path", "--preload", "--argv0")),
    "scl": Wrapper((), 1, ("enable",)),
    "flock": Wrapper(("-w", "-E", "--timeout", "--conflict-exit-code"), 1),
    "strace": Wrapper(("-e", "-o", "-p", "-s", "-u", "-E", "-a", "-S", "-P", "-O", "-I")),
    "ltrace": Wrapper(("-e", "-o", "-p", "-s", "-u", "-a", "-n", "-l", "-x")),
    "nsenter": Wrapper(("-t", "-S", "-G", "--target", "--setuid", "--setgid")),
    "taskset": Wrapper((), 1),
    "chrt": Wrapper((), 1),
    "prlimit": Wrapper(),
    "proot": Wrapper(("-r", "-b", "-q", "-w", "-R", "-S")),
    "rlwrap": Wrapper(("-a", "-b", "-f", "-H", "-p")),
    "winpty": Wrapper(),
    "coproc": Wrapper(),
    "capsh": Wrapper(),
}
# Wrappers that start a shell if no other program is given, which reads the standard input: ``curl … | sudo -s``.
_START_SHELLS = frozenset(("sudo", "doas", "chroot", "unshare", "nsenter", "proot", "fakeroot", "script"))
# Programs whose last argument is a shell script, if it has several words.
_SCRIPT_RUNNERS = frozenset(("watch", "sem", "parallel", "tmux", "screen"))
# Their arguments are data: "echo curl x | sh" downloads nothing.
_PRINTERS = frozenset(
    ("echo", "printf", "grep", "egrep", "fgrep", "sed", "awk", "git", "find", "xargs", "jq", "yq", "test", "[")
)
_MOST_WORDS = 20
# Shells whose scripts are read like those of sh: nearly the same grammar, and what differs is not completely valid.
_SIMILAR_SHELLS = frozenset(("fish", "csh", "tcsh", "elvish"))
# Options of other programs whose value is a shell script.
_SCRIPT_OPTIONS = {
    "script": ("-c", "--command"),
    "split": ("--filter",),
    "tar": ("--to-command",),
    "flock": ("-c", "--command"),
    "nix-shell": ("--run", "--command"),
    "nix": ("-c", "--command"),
    "sg": ("-c",),
    "entr": ("-s",),
    "xvfb-run": ("-c",),
}


class Interpreter(NamedTuple):
    """The options of an interpreter.

    ``values``: letters of options with a value, attached or as the next word. ``attached``: with an attached value
    only. ``code``: whose value is the program. ``long_values``, ``long_code``: the same for long options.
    """

    values: str = ""
    attached: str = ""
    code: str = ""
    long_values: tuple[str, ...] = ()
    long_code: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


_PYTHON = Interpreter("XW", "", "cm", ("--check-hash-based-pycs",))
_NODE = Interpreter(
    "rC",
    "",
    "ep",
    ("--require", "--import", "--loader", "--experimental-loader", "--input-type", "--env-file", "--conditions"),
    ("--eval", "--print"),
)
INTERPRETERS = {
    "perl": Interpreter("I", "iC0lDFMmVx", "eE"),
    "raku": Interpreter("IM", "", "e"),
    "ruby": Interpreter("ICEr", "FTKWix0", "e"),
    "node": _NODE,
    "nodejs": _NODE,
    "php": Interpreter("dcz", "", "rBRESfF"),
    "lua": Interpreter("l", "", "e"),
    "luajit": Interpreter("lj", "", "e"),
    "deno": Interpreter("", "", "", ("--config", "--import-map"), (), ("run",)),
    "bun": Interpreter("r", "", "ep", (), ("--eval",), ("run",)),
    "tclsh": Interpreter(),
    "Rscript": Interpreter("", "", "e"),
    "julia": Interpreter("JtpL", "", "eE", ("--project",), ("--eval",)),
}
_PYTHON_NAME = lazy(r"(?:python|pypy)[\d.]*(?:-dbg)?")


@lru_cache(maxsize=4096)
def program(word: str) -> str:
    """Return a program's name without directory, version and ``.exe``: ``/nix/store/…/bin/bash`` -> ``bash``."""
    name = re.split(r"[/\\]", word)[-1]
    name = name.removesuffix(".exe").removesuffix(".EXE")
    if re.fullmatch(r"ld(?:-linux[\w.-]*|-musl[\w.-]*|)\.so[\d.]*", name):
        return "ld.so"
    # `bash-5.2` and `bash-static` are the same shell. An unrecognised name would make the download before it look
    # harmless.
    if _SHELL_NAME.fullmatch(name):
        return re.split(r"[-.\d]", name)[0]
    return name.lower() if name.lower() in FOREIGN_SHELLS else name


def interpreter(name: str) -> Interpreter | None:
    """Return the options of an interpreter, or None if the program is not one. Shells are handled separately."""
    return _PYTHON if _PYTHON_NAME.fullmatch(name) else INTERPRETERS.get(name)


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed options of a command line.

    ``code``: the script is an argument (``-c``). ``stdin``: ``-s`` is given. ``operand``: position of the first
    argument that is not an option, which is the script (``code``) or the file to run.
    """

    code: bool
    stdin: bool
    operand: int


def shell_options(words: Sequence[str]) -> Options:
    """Parse the options of a shell like bash, dash, ash, zsh and ksh. ``words`` begins with the shell."""
    code = stdin = False
    position = 1
    while position < len(words):
        word = words[position]
        if word in ("-", "--"):
            position += 1
            break
        if len(word) < 2 or word[0] not in "-+":
            break
        position += 1
        if word.startswith("--"):
            position += word in ("--rcfile", "--init-file", "--emulate")
            continue
        # Letters are combined: `bash -exc` runs a script as well as `bash -c`.
        code, stdin = code or (word[0] == "-" and "c" in word), stdin or "s" in word
        position += sum(letter in "oO" for letter in word[1:])  # -o and -O take the next word
    return Options(code, stdin and not code, min(position, len(words)))


_POWERSHELL_VALUES = lazy(
    r"-(?:ex|ep|exec\w*|wd|wo\w*|working\w*|inp\w*|if|out\w*|of|w|windowstyle|v|version|config\w*|custom\w*"
    r"|settings\w*)",
    re.I,
)
# PowerShell takes any unambiguous beginning of an option.
_POWERSHELL_CODE = lazy(r"-(?:c|command|cwa|commandwithargs|e|ec|en\w*)", re.I)


def powershell_options(words: Sequence[str]) -> Options:
    """Parse the options of PowerShell, which may be abbreviated. ``-EncodedCommand`` counts as code."""
    position = 1
    while position < len(words):
        word = words[position]
        if not word.startswith("-") or word == "-":
            break
        position += 1
        if _POWERSHELL_CODE.fullmatch(word):
            return Options(True, False, position)
        if word.lower() in ("-f", "-file"):
            break
        position += bool(_POWERSHELL_VALUES.fullmatch(word))
    return Options(False, False, min(position, len(words)))


def user_shell_options(words: Sequence[str]) -> Options:
    """Parse the options of ``su`` and ``runuser``, which may follow the user's name."""
    for position, word in enumerate(words[1:], 1):
        if word == "--command" or re.fullmatch(r"-[A-Za-z]*c", word):
            return Options(True, False, position + 1)
    return Options(False, True, len(words))


def interpreter_options(words: Sequence[str], known: Interpreter) -> Options:
    """Parse the options of an interpreter other than a shell."""
    position, code = 1, False
    while position < len(words):
        word = words[position]
        if word in known.verbs:
            position += 1
            continue
        if word == "-" or not word.startswith("-"):
            break
        position += 1
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            code = code or name in known.long_code
            position += not equals and name in (*known.long_values, *known.long_code)
            continue
        for index, letter in enumerate(word[1:], 1):
            # The rest of the word, or the next one, is the program. Letters after it are no options.
            if letter in known.code:
                code = True
                break
            if letter in known.values:
                position += index == len(word) - 1
                break
            if letter in known.attached:
                break
    return Options(code, False, position)


def options_of(words: Sequence[str]) -> Options | None:
    """Parse the options of a shell or interpreter. None: the program is neither."""
    name = program(words[0]) if words else ""
    if name in ("powershell", "pwsh"):
        return powershell_options(words)
    if name in SHELLS or name in FOREIGN_SHELLS:
        return shell_options(words)
    if name in _START_SHELLS and len(words) > 1 and not script_word(words):
        return Options(False, True, len(words))  # `without_wrappers` found no other program
    if name in USER_SHELLS:
        return user_shell_options(words)
    known = interpreter(name)
    return interpreter_options(words, known) if known else None


def reads_code_from_stdin(words: Sequence[str]) -> bool:
    """Return whether a shell or interpreter runs its standard input: ``sh``, ``sh -s -- x``, ``python3 -X utf8 -``."""
    options = options_of(words)
    if options is None or options.code:
        return False
    # Without a file, a shell reads its standard input.
    operand = words[options.operand] if options.operand < len(words) else "-"
    return options.stdin or operand in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


def script_word(words: Sequence[str]) -> str:
    """Return the script in an argument of a shell, ``su``, ``eval``, ``trap`` or similar. Empty: none."""
    name = program(words[0]) if words else ""
    if name == "eval":
        return " ".join(words[1:])
    if name == "trap":
        return next((word for word in words[1:2] if word not in ("-", "--", "-l", "-p")), "")
    if name in _SCRIPT_OPTIONS:
        return _value_of(words, _SCRIPT_OPTIONS[name])
    if name not in SHELLS | USER_SHELLS | _SIMILAR_SHELLS:
        return _wrapped_script(name, words)
    options = options_of(words)
    return words[options.operand] if options and options.code and options.operand < len(words) else ""


def _wrapped_script(name: str, words: Sequence[str]) -> str:
    """Return the script of a shell that an unknown program starts: ``retry 3 sh -c '…'``. Empty: none.

    Programs that print or search their arguments start none.
    """
    if name in _SCRIPT_RUNNERS and re.search(r"\s", words[-1]):
        return words[-1]
    if name in _PRINTERS or interpreter(name) is not None:
        return ""
    for place in range(1, min(len(words), _MOST_WORDS)):
        if program(words[place]) in SHELLS:
            rest = words[place:]
            options = shell_options(rest)
            return rest[options.operand] if options.code and options.operand < len(rest) else ""
    return ""


def _value_of(words: Sequence[str], options: Sequence[str]) -> str:
    """The value of one of the options: the next word, behind ``=``, or behind other letters (``-qc CODE``)."""
    letters = "".join(option[1] for option in options if len(option) == 2)
    for number, word in enumerate(words[1:], 1):
        name, equals, value = word.partition("=")
        if name in options and equals:
            return value
        if word in options or (letters and re.fullmatch(rf"-[A-Za-z]*[{letters}]", word)):
            return words[number + 1] if number + 1 < len(words) else ""
    return ""


def without_wrappers(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove wrappers such as ``sudo -E``, ``env A=b``, ``timeout 5``. Returns their names and the command."""
    rest = list(words)
    wrappers: list[str] = []
    while rest and len(wrappers) < _MOST_WRAPPERS and (wrapper := _WRAPPERS.get(name := program(rest[0]))) is not None:
        position = 1
        if wrapper.verbs:
            position = next((n + 1 for n, word in enumerate(rest) if word in wrapper.verbs), len(rest))
        while position < len(rest) and (rest[position].startswith("-") or (name == "env" and "=" in rest[position])):
            word = rest[position]
            position += 2 if word in wrapper.values else 1
            if word == "--":
                break
            # `env -S` splits one word into many. `env -S "sh -c …"` would otherwise look like a program with a strange
            # name.
            if name == "env" and (split := _ENV_SPLIT.fullmatch(word)):
                if split[1]:
                    rest[position:position] = split[1].split()
                elif position < len(rest):
                    rest[position : position + 1] = rest[position].split()
        if name == "scl":
            position = rest.index("--") + 1 if "--" in rest else len(rest)
        elif name == "capsh":  # what follows is for bash
            position = rest.index("--") + 1 if "--" in rest else len(rest)
            rest[position:position] = ["bash"] if "--" in rest else []
        else:
            position += wrapper.operands
        if position < len(rest) and rest[position] in _SCRIPT_OPTIONS.get(name, ()):
            break  # ``flock FILE -c CODE``
        if position >= len(rest):
            break  # ``exec`` or ``sudo`` without a command
        wrappers.append(name)
        rest = rest[position:]
    return tuple(wrappers), tuple(rest)


# env -S runs what is in one argument.
_ENV_SPLIT = lazy(r"(?:-[a-zA-Z0]*S|--split-string=?)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RecordedShell:
    """The shell before a recorded script. ``start``: where the script begins. ``gap``: why it cannot be parsed."""

    start: int
    gap: str = ""


def recorded_shell(text: str) -> RecordedShell | None:
    """Return the shell at the beginning of a line of a builder: words joined by spaces, then the unquoted script.

    None: the line does not begin with a shell.
    """
    # The prefix that builders write is short. Splitting a script of many kilobytes into words for each of many
    # positions would take quadratic time.
    head = text[:2000]
    spans = [match.span() for match in re.finditer(r"\S+", head)][:60]
    words = [head[start:end] for start, end in spans]
    if not words or (program(words[0]) not in _WRAPPERS and not _is_shell(words[0])):
        return None
    _, rest = without_wrappers(words)
    first = len(words) - len(rest)
    if not rest or not _is_shell(rest[0]):
        return None
    name = program(rest[0])
    if name == "cmd" and (rest[0] == "CMD" or not (len(rest) > 1 and re.fullmatch(r"/[SCKsck]", rest[1]))):
        return None  # the instruction CMD, or another program named cmd
    if name in FOREIGN_SHELLS:
        return RecordedShell(spans[first][0], f"runs {name}, whose scripts are not supported")
    options = options_of(rest)
    if options is None or not options.code:
        return None
    position = first + options.operand
    return RecordedShell(spans[position][0] if position < len(spans) else len(text))


def _is_shell(word: str) -> bool:
    return program(word) in SHELLS | FOREIGN_SHELLS | USER_SHELLS
