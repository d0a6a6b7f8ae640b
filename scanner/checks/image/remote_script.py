"""Downloaded code that a build runs without verification (``curl … | sh``)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from scanner.checks._fetched import Tree, Trees, archives_of, installed_by_url, installed_files, unpacks
from scanner.checks._history import Command, address, evidence, history, path_of, start_commands
from scanner.checks._shells import (
    FOREIGN_SHELLS,
    SHELLS,
    USER_SHELLS,
    interpreter,
    options_of,
    program,
    reads_code_from_stdin,
)
from scanner.checks.base import ConfigCheck, ImageSubject, truncate_at_space
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity
from scanner.model.glob import matches_text
from scanner.patterns import lazy

# Programs that write what a URL gives to stdout or a file.
_DOWNLOADERS = frozenset(("curl", "wget", "aria2c", "fetch", "http", "https", "lwp-download", "axel", "wget2", "xh"))
# Programs that print downloads, and programs that copy a download to their last argument.
_NETWORK = lazy(
    r"nc|ncat|netcat|socat|telnet|ssh|rsh|lynx|w3m|links|links2|elinks|GET|lwp\-request|ftp|lftp|tftp|"
    r"curlie|wcurl|httpie|gsutil|rclone|s3cmd|aws|az|azcopy|gcloud|scp|sftp|rsync|oras|crane|skopeo|docker|"
    r"podman|nerdctl"
)
# Programs that write what a remote address has to a file that they name last.
_REMOTE_COPIERS = frozenset(("aws", "gsutil", "gcloud", "rclone", "scp", "rsync", "s3cmd", "azcopy", "sftp"))
_URL = lazy(r"(?:https?|ftps?|s3|gs)://", re.I)
_URL_IN_WORD = lazy(r"(?:--?[\w-]+=)?(?:https?|ftps?|s3|gs)://", re.I)  # also ``--remote=https://…``
# Programs that print only their arguments or files of the image. The output of other programs is unknown.
_LOCAL = lazy(
    r"echo|printf|cat|tac|rev|sed|awk|gawk|mawk|grep|egrep|fgrep|head|tail|tr|cut|sort|uniq|tee|yes|find|"
    r"ls|dpkg|dpkg\-query|rpm|true|false|test|\[|cd|set|export|seq|column|paste|fold|fmt|nl|xargs|basename|"
    r"dirname|readlink|realpath|expr|date|env|uname|getconf|jq|yq|dd|base64|base32|xxd|gunzip|zcat|bzcat|"
    r"xzcat|unxz|envsubst|m4|strings|diff|comm|read|tar|gpg|gpgv|apt\-key|sha256sum|sha512sum|md5sum|"
    r"python|python3|perl|ruby|node|php|if|for|while|:|exit|return|sleep|mkdir|rm|chmod|wait"
)
# Other programs that run their standard input as code.
_RUNNERS = frozenset(("parallel", "at", "batch", "ssh", "R", "groovysh", "scala", "jshell", "irb", "ghci", "expect"))
_RUNNERS |= {"guile", "osascript", "nu", "ed", "ex", "crontab", "ocaml", "swipl", "sbcl", "elixir", "iex", "groovy"}
_RUNNERS |= {"clojure", "racket", "escript"}
# Programs that run the files they are given.
_FILE_RUNNERS = _RUNNERS | frozenset(("java", "javaw", "mono", "dotnet", "wine", "wine64", "wasmtime", "wasmer"))
_FILE_RUNNERS |= {"ts-node", "tsx", "erl", "kotlin", "ansible-playbook", "ld.so"}
# "sh /dev/stdin" reads the pipe as "sh" does.
_STDIN_WORDS = frozenset(("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"))
# "/bin/ba?h" is bash.
_GLOB = lazy(r"[*?\[{]")
_FILE_READERS = {"awk": "-f", "gawk": "-f", "mawk": "-f", "sed": "-f", "make": "-f", "gmake": "-f", "gdb": "-x"}
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
# Code for an interpreter that downloads something, and code that runs something.
_REACHES = lazy(
    r"https?://|ftp://|urllib|\brequests\.|http\.client|\bLWP\b|open-uri|Net::HTTP|\bfetch\(|\bsocket\b|/inet/tcp"
    r"|\bi(?:wr|rm)\b|invoke-(?:webrequest|restmethod)|net\.webclient|start-bitstransfer",
    re.I,
)
# What makes an interpreter's one-liner run code or a program.
_RUNS = lazy(
    r"(?<![.\w])(?:exec|eval)\b|\bsystem\b|popen|spawn|subprocess|child_process|shell_exec|passthru|runpy|execfile"
    r"|instance_eval|loadstring|(?i:\biex\b|invoke-expression|scriptblock|start-process|\.[/\\]\w+\.ps1)|`"
    r"|\|\s*(?:\w+/)*(?:ba|da|a|z|k)?sh\b|\b(?:include|require)(?:_once)?\W{1,3}(?:https?|ftp)://"
)
# Code that runs what it reads from its standard input.
_RUNS_STDIN = lazy(
    r"\b(?:exec|eval)\b.{0,200}?(?:stdin|<>|readFileSync|input\(|getContent|Get-Content|\$input)"
    r"|\bsystem\s*\(?\s*\$0|(?i:\biex\b|invoke-expression)",
    re.I | re.DOTALL,
)
# GNU sed: the command "e", and the flag "e" of "s", run a program.
_SED_RUNS = lazy(
    r"(?:^|[;{}\n0-9$/])[ \t]*e\s*(?:$|[;}\n])|s([^\w\s])(?:(?!\1).){0,300}\1(?:(?!\1).){0,300}\1[gpiImM0-9]{0,8}e",
    re.DOTALL,
)
_LOADED = lazy(
    r"""\b(?:do|require|require_relative|load|include(?:_once)?|import|run_path|dofile|execfile|source|open)"""
    r"""[\s("']{1,4}([\w./-]{1,200})"""
)
# Files that shells, the dynamic loader and interpreters run on their own when they start.
_RUN_AT_START = lazy(
    r"etc/(?:profile|bash\.bashrc|bashrc|zshenv|zprofile|zshrc|ld\.so\.preload|rc\.local)|etc/profile\.d/[^/]+"
    r"|(?:(?:root|home/[^/]+)/)?\.(?:bashrc|bash_profile|bash_login|profile|zshrc|zshenv|zprofile"
    r"|config/fish/config\.fish)"
    r"|etc/cron(?:tab|\.[\w]+/[^/]+)|etc/init\.d/[^/]+|docker-entrypoint\.d/[^/]+"
)
# A one-liner with one of these compares a digest.
_HASHES = lazy(r"(?i)hash_file|hashlib|sha(?:1|256|384|512)\b|digest|createHash")
_RUN_WORDS = frozenset(("eval", "source", "."))
# A download keeps its origin under the new name.
_COPIERS = frozenset(("mv", "cp", "install", "ln"))
# After one of these, what was downloaded counts as verified.
_VERIFIERS = lazy(
    r"(?:sha\d+|md5|b2|g?sha\d+)sums?|shasum|cksum|gpgv?2?|cosign|minisign|openssl|rekor-cli|slsa-verifier|signify"
    r"|rpmkeys|debsig-verify|dpkg-sig|notation|sigstore|attest"
)
# Bounds of time for a hostile history; a build of thousands of lines stays below them.
_MAX_CHECKS, _MOST_TEXTS, _MOST_COMPARED = 100, 300, 50_000


class RemoteScript(ConfigCheck):
    """An attacker who controls the server or the network can run code in the build and change the image.

    The code may be piped, substituted, or saved and run later. It is accepted if its digest or signature is verified.
    """

    id = "remote-script"
    title = "Downloaded code run unverified"
    severity = Severity.HIGH
    remedy = (
        'ADD --checksum=sha256:DIGEST https://example.com/install.sh /tmp/   (or: echo "DIGEST  '
        'install.sh" | sha256sum -c before running it)'
    )
    looks_at = (
        "shell commands of RUN in the history: downloads that an interpreter runs by pipe, substitution, here string, "
        "file or a variable such as BASH_ENV, and those saved where shells start; programs of archives and clones "
        "without a verified digest, signature or commit; packages that are installed by URL or from a download; the "
        "same in ENTRYPOINT, CMD, HEALTHCHECK and ONBUILD"
    )
    cannot_see = (
        "downloads by called scripts or programs; what build tools (make, pip install .) run of a downloaded tree; "
        "packages by name, which their index verifies; instructions of images without history (incomplete)"
    )
    cis = ("4.11",)
    article = ("Security", "Lessons Learned: Security isn't optional")
    tags = ("build", "history", "supply-chain")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        found, unclear = [], ""
        reading = _FileTracker()
        for run in lines.instructions:
            if run.name == "ADD":
                reading.added(run.text)
            elif run.name == "ENV":
                reading.set(run.text)
            elif run.name == "WORKDIR":
                reading.trees.working_directory(run.text)
            for one in reading.executed(run.commands):
                if one.certain:
                    found.append(evidence(subject, run, one.message))
                else:
                    unclear = unclear or f"history entry {run.index}: {one.message}"
        for name, commands in start_commands(subject.image.config):
            # A container that loads its code when it starts runs what nobody has scanned.
            executions = _FileTracker().executed(commands)
            found += [
                Evidence(f"{name}: {one.message}", pointer="/config", name=name) for one in executions if one.certain
            ]
        if unclear and not found:
            return Incomplete("history_not_understood", unclear)
        return lines.outcome(found)


class _Execution(NamedTuple):
    """Downloaded code that is run.

    ``certain`` False: a verification exists, but it is unknown whether it covers this file.
    """

    message: str
    certain: bool = True


class _FileTracker:
    """Tracks saved, verified and run files over all instructions of a history.

    One instruction may save what another runs: ``RUN curl -o i.sh …``, then ``RUN sh i.sh``.
    """

    def __init__(self) -> None:
        self._downloads = _Downloads()
        self._saved = _SavedFiles()
        self._checks: list[_Check] = []
        self._written: dict[str, list[Command]] = defaultdict(list)
        self.trees = Trees()
        self._pipes: set[str] = set()  # named ones
        self._expected: dict[str, str] = {}  # files that are run as soon as there is something in them
        self._commands = 0  # how many were run
        self._descriptors: list[Command] = []  # downloads that a file descriptor of the shell gives

    def set(self, text: str) -> None:
        """An ``ENV``: what it names is run by every shell that starts later."""
        for path in _startup_files((text, *text.split())):
            self._expected.setdefault(path, "a variable of the image")

    def added(self, text: str) -> None:
        """Record the files of an ``ADD`` with a URL. With ``--checksum`` they are verified."""
        words = text.split()
        if "--checksum=" in text or len(words) < 2:
            return
        for word in words[:-1]:
            if _URL.match(word):
                download = Command(("ADD", word))
                name = word.partition("?")[0].rpartition("/")[2]
                self._saved.add(_key(words[-1]), download)
                self._saved.add(_key(f"{words[-1]}/{name}"), download)

    def executed(self, commands: Sequence[Command]) -> Iterator[_Execution]:
        """Yield the downloads that an instruction runs."""
        # A verification of unknown files counts only within its own instruction.
        checks = [replace(check, partial=False) for check in self._checks]
        self._checks = checks
        self.trees.begin()
        self._descriptors.clear()
        for command in commands:
            yield from self._run(command)
        for name in self._saved.unseen_of(_RUN_AT_START):
            yield from self._run_saved(name, "run when shells or programs start")
        for path, by in list(self._expected.items()):
            if name := self._saved.find(path):
                del self._expected[path]
                yield from self._run_saved(name, f"run by {by}")

    def _is_settled(self, name: str) -> bool:
        """Return whether a saved file was verified, so that its copies need no verification."""
        return _is_verified(name, self._checks, self._saved.when.get(name, 0)) is True

    def _run(self, command: Command) -> Iterator[_Execution]:
        self._commands += 1
        saved, checks = self._saved, self._checks
        source = _source(command, self._downloads)
        if source is None:
            source = self._by_descriptor(command)
        if source is not None:
            yield source
        for path in _programs(command, saved) if source is None else ():
            if name := saved.find(path):
                yield from self._run_saved(name, "run")
            elif _key(path) in self._pipes:
                self._expected[path] = f"{truncate_at_space(command.name, 40)}, which waits for it"
            elif (found := self.trees.find(path)) is not None:
                yield from self._run_of_tree(path, *found)
        if url := installed_by_url(command):
            message = f"{address(url)} is installed by {truncate_at_space(command.name, 40)}"
            yield _Execution(f"{message} by its URL, without a digest or a fixed commit")
        self._follow(command)
        code = _code_of(command)
        if len(checks) < _MAX_CHECKS:
            if _verifies(command):
                checks.append(replace(_check(command, self._written), number=self._commands))
            elif code and _HASHES.search(code):
                checks.append(_Check(tuple(_literals(code)), False, self._commands))
        for target in command.writes:
            self._written[_last(target)].append(command)
        for path, download in _saved_files(command, saved, self._downloads, self._is_settled):
            saved.add(path, download, self._commands)

    def _run_saved(self, name: str, how: str) -> Iterator[_Execution]:
        """Yield what is wrong with running a saved file, unless it was verified."""
        answer = _is_verified(name, self._checks, self._saved.when.get(name, 0))
        message = f"{_target_directory(self._saved.downloads[name])} is saved as {name} and {how}"
        if answer is None:
            unclear = f"{message}; it is unknown whether its digest or signature was verified"
            yield _Execution(unclear, certain=False)
        elif answer is False:
            yield _Execution(f"{message} without verification of its digest or signature")

    def _run_of_tree(self, path: str, tree: Tree, certain: bool) -> Iterator[_Execution]:
        """Yield what is wrong with running a program of an archive or a clone."""
        where, program = _target_directory(tree.download), truncate_at_space(path, 80)
        if tree.clone:
            yield _Execution(f"{where} is cloned without a fixed commit, and its {program} is run")
            return
        answer: bool | None = False
        if tree.archive:
            answer = _is_verified(tree.archive, self._checks, self._saved.when.get(tree.archive, 0))
        if answer is True:
            return
        if answer is None or not certain:
            what = "it is unknown whether it belongs to the archive, or whether that was verified"
            yield _Execution(f"{where} is unpacked and {program} is run; {what}", certain=False)
        else:
            yield _Execution(
                f"{where} is unpacked and its {program} is run without verification of its digest or signature"
            )

    def _by_descriptor(self, command: Command) -> _Execution | None:
        """``coproc curl …; bash <&${COPROC[0]}`` and ``exec 3< <(curl …); bash <&3``."""
        if not self._descriptors or options_of(command.words) is None:
            return None
        # ``exec < <(curl …)``: the shell's own input, which a shell without another one reads
        inherits = not (command.stdin or command.reads or command.here) and reads_code_from_stdin(command.words)
        if inherits or any(_DESCRIPTOR.fullmatch(word) for word in (*command.reads, *command.words[1:])):
            where, by = _target_directory(self._descriptors[-1]), truncate_at_space(command.name, 40)
            return _Execution(f"{where} is run by {by} as it comes from the network")
        return None

    def _follow(self, command: Command) -> None:
        """Remember what later commands run by another name: pipes, descriptors, variables, trees."""
        self.trees.follow(command)
        if command.name == "mkfifo" or (command.name == "mknod" and command.words[-1:] == ("p",)):
            self._pipes.update(_key(word) for word in command.operands)
        for target in command.writes:  # ``echo /x.so > /etc/ld.so.preload``
            if path_of(target) == "etc/ld.so.preload":
                self._expected |= {word: "the dynamic loader" for word in command.operands if "/" in word}
        if "coproc" in command.wrappers and _is_download(command):
            self._descriptors.append(command)
        elif command.name == "exec":
            found = self._downloads.among(command.substituted, command.stdin)
            names = [name for word in command.reads if (name := self._saved.find(word))]
            names = [name for name in names if not self._is_settled(name)]
            self._descriptors += [found] if found else [self._saved.downloads[name] for name in names[:1]]
        if command.name in ("export", "declare", "typeset"):
            for path in _startup_files(command.words):
                self._expected.setdefault(path, "a variable of the shell")
        if unpacks(command):
            archive = next((name for word in archives_of(command) if (name := self._saved.find(word))), "")
            download = self._saved.downloads.get(archive) or self._downloads.among(command.stdin)
            if download is not None:
                self.trees.unpacked(command, archive, download)


# What a shell or the dynamic loader runs before the program: the files that these variables name.
_STARTUP = lazy(r"(?:BASH_ENV|ENV|LD_PRELOAD|NODE_OPTIONS|RUBYOPT|ZDOTDIR)[= ](.{1,1000})", re.DOTALL)
_DESCRIPTOR = lazy(r"[3-9]|\d\d|\$\{?\w+(?:\[\w+\])?\}?|/(?:dev|proc/self)/fd/(?:[3-9]|\d\d|\$\{?\w+.{0,10})")


def _startup_files(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if match := _STARTUP.match(word):
            for part in re.split(r"[\s:=]+", match[1].strip("\"'")):
                path = part.strip("\"'").removeprefix("-r")
                if "/" in path or "." in path:
                    yield path


class _SavedFiles:
    """The files with downloaded content, by path."""

    def __init__(self) -> None:
        self.downloads: dict[str, Command] = {}
        self.when: dict[str, int] = {}  # the number of the command that wrote it
        self._by_last: dict[str, dict[str, None]] = defaultdict(dict)
        self._seen: set[str] = set()
        self._compared = 0  # patterns with files

    def add(self, path: str, download: Command, number: int = 0) -> None:
        """Record that the file with this ``_key`` contains the download. Former verifications were of other content."""
        self.downloads[path] = download
        self.when[path] = number
        self._by_last[_last(path)][path] = None

    def unseen_of(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the files whose paths match, each once."""
        found = [path for path in self.downloads if path not in self._seen and pattern.fullmatch(path)]
        self._seen.update(found)
        return found

    def is_program(self, name: str) -> bool:
        """Return whether a download was saved as a program with this name in a bin directory."""
        return any(re.search(r"(?:^|/)s?bin/[^/]+$", path) for path in self._by_last.get(name, {}))

    def find(self, path: str) -> str:
        """Return the saved file to which a path refers. Empty: none.

        If one of the two has no directory, only the file names are compared.
        """
        key = _key(path)
        if key in self.downloads:
            return key
        if _GLOB.search(key) and (found := self._matching_file(key)):
            return found
        names = self._by_last.get(_last(key), {}) if key else {}
        return next((name for name in names if not ("/" in name and "/" in key)), "")

    def _matching_file(self, pattern: str) -> str:
        """Return the saved file that a pattern of the shell matches (``sh /tmp/*.sh``). Empty: none.

        A history with so many patterns and files that comparing them takes seconds is hostile: then the next file
        counts as matching.
        """
        name = _last(pattern)
        for path in self.downloads:
            self._compared += 1
            if self._compared > _MOST_COMPARED:
                return path
            if "/" in pattern and "/" in path:
                found = matches_text(pattern, path)
            else:  # ``*`` alone, in an unknown directory, is no hint
                found = bool(name.strip("*?")) and matches_text(name, _last(path))
            if found:
                return path
        return ""


class _Downloads:
    """Finds the download that is the input of a command.

    Results are cached: a crafted script can contain exponentially many paths to one command.
    """

    def __init__(self) -> None:
        self._found: dict[int, Command] = {}
        self._none: set[int] = set()

    def among(self, *feeds: Sequence[Command]) -> Command | None:
        """Return the first download among the commands and their inputs. Commands of a group share one input."""
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
            found = self._found.get(id(feed)) or next(filter(_is_download, feed), None)
            if found is not None:
                self._found[id(start)] = found
                return
            waiting.extend(
                inner for command in reversed(feed) for inner in (command.substituted, command.stdin) if inner
            )
        self._none |= seen


def _is_download(command: Command) -> bool:
    """Return whether a command prints a download."""
    if command.name in _DOWNLOADERS or _NETWORK.fullmatch(command.name) or command.name == "ADD":
        return True
    if any(word.startswith(("/dev/tcp/", "/dev/udp/")) for word in (*command.reads, *command.operands)):
        return True
    if command.name == "openssl":
        return "s_client" in command.words
    return not _LOCAL.fullmatch(command.name) and any(_URL_IN_WORD.match(word) for word in command.words[1:])


def _source(command: Command, downloads: _Downloads) -> _Execution | None:
    """Return the download that the command runs as code, or an input of unknown origin. None: neither."""
    found = _fed_interpreter(command, downloads)
    if isinstance(found, _Execution):
        return found
    if found is None:
        return None
    by = truncate_at_space(command.name, 40) or "a program"
    return _Execution(f"{_target_directory(found)} is downloaded and run by {by} without verification")


def _fed_interpreter(command: Command, downloads: _Downloads) -> Command | _Execution | None:
    words = command.words
    if not words:
        return None
    if (found := downloads.among(command.called)) is not None:  # ``$(curl …)``: the output is the command
        return found
    shown = words[0].startswith(("$", "`")) or _GLOB.search(words[0])  # ``| /bin/b?sh``
    if shown and (found := downloads.among(command.stdin)) is not None:
        return _Execution(
            f"{_target_directory(found)} is passed to {truncate_at_space(words[0], 40)}, which may be a shell",
            certain=False,
        )
    if command.name in _RUN_WORDS:
        if any(word in ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0") for word in words[1:]):
            return downloads.among(command.stdin)
        expands = any(_expands(word) for word in words[1:])
        return downloads.among(command.substituted, command.stdin) if expands else None
    options = options_of(words)
    if options is None:
        return _fed_to_another(command, downloads)
    if any(word.startswith(("/dev/tcp/", "/dev/udp/")) for word in (*command.reads, *command.writes)):
        return command
    if any(one.startswith("<(") for one in words[1 : options.operand + 1]):  # also ``--rcfile <(…)``
        return downloads.among(command.substituted)
    if reads_code_from_stdin(words) or "xargs" in command.wrappers:
        if (found := downloads.among(command.stdin)) is not None or "xargs" in command.wrappers:
            return found
        if not command.here or command.name in SHELLS:
            return _unknown(command)
    word = words[options.operand] if options.operand < len(words) else ""
    before = words[min(options.operand, len(words)) - 1] if options.code else ""
    if options.code and word == "-" and command.name in FOREIGN_SHELLS:  # ``powershell -Command -``
        return downloads.among(command.stdin)
    if options.code and (_expands(word) or _expands(before)):
        return downloads.among(command.substituted)
    if options.code and command.name in SHELLS and _RUNS_ARGUMENT.search(word):
        return downloads.among(command.substituted)  # ``bash -c 'eval "$0"' "$(curl …)"``
    if not options.code and _URL.match(word):  # ``deno run https://…``
        return command
    if command.name in ("powershell", "pwsh") and re.fullmatch(r"-(?:e|ec|en\w*)", before, re.I):
        return _Execution(f"{command.name} runs encoded code", certain=False)
    code = _code_of(command)
    if code and _RUNS_STDIN.search(code) and (found := downloads.among(command.stdin)) is not None:
        return found
    if code and _REACHES.search(code) and _RUNS.search(code):
        where = _target_directory(Command(("x", *_URLS.findall(code)[:1])))
        sure = bool(_URL.search(code))
        return _Execution(f"{where} is downloaded and run by code in the arguments of {command.name}", certain=sure)
    return None


_RUNS_ARGUMENT = lazy(r"""(?:^|[;&|]|\b(?:eval|exec|source)|(?<!\S)\.(?=\s)|-c)\s*["']?\$\{?[0-9@*]""")
_URLS = lazy(r"""(?:https?|ftp)://[^\s"'`)|;]{1,400}""", re.I)


def _fed_to_another(command: Command, downloads: _Downloads) -> Command | _Execution | None:
    """Return the download that a program other than an interpreter runs."""
    words, name = command.words, command.name
    if command.wrappers and _URL.match(words[0]):  # ``uv run https://…``
        return Command(("uv", words[0]))
    option = _FILE_READERS.get(name, "")
    if option and any(a == option and b in ("-", "/dev/stdin") for a, b in pairwise(words)):
        return downloads.among(command.stdin)
    code = _code_of(command)
    if code and (_REACHES.search(code) or re.search(r"\b(?:curl|wget)\b", code)) and _RUNS.search(code):
        return command
    if code and _RUNS_STDIN.search(code):
        return downloads.among(command.stdin)
    if name == "sed" and any(map(_SED_RUNS.search, words[1:])):
        return downloads.among(command.stdin)
    if name == "socat" and any(re.match(r"(?:EXEC|SYSTEM):", word, re.I) for word in words):
        return downloads.among(command.stdin)
    if not _LOCAL.fullmatch(name) and name not in _COPIERS and _STDIN_WORDS & set(words):
        found = downloads.among(command.stdin)
        return (
            None
            if found is None
            else _Execution(
                f"{_target_directory(found)} is read by {truncate_at_space(str(command), 80)}", certain=False
            )
        )
    if name in _RUNNERS:
        return downloads.among(command.stdin, command.substituted)  # ``parallel ::: "$(curl …)"``
    if _LOCAL.fullmatch(name) or name in _DOWNLOADERS:
        return None
    # An unknown program with a shell as argument is probably a wrapper.
    for place in range(1, min(len(words), 20)):
        if program(words[place]) in SHELLS:
            inner = _fed_interpreter(replace(command, words=words[place:], called=()), downloads)
            if isinstance(inner, Command):
                return _Execution(
                    f"{_target_directory(inner)} is passed to {truncate_at_space(str(command), 80)}", certain=False
                )
            break
    return None


def _unknown(command: Command) -> _Execution | None:
    """Return a result if a shell runs the output of an unknown program."""
    if command.name not in SHELLS:
        return None
    waiting, seen = list(command.stdin), set[int]()
    while waiting and len(seen) < _MOST_TEXTS:
        one = waiting.pop()
        if id(one) in seen or not one.words:
            continue
        seen.add(id(one))
        if not _LOCAL.fullmatch(one.name) and options_of(one.words) is None:
            told = f"{command.name} runs the output of {truncate_at_space(str(one), 80)}, which is unknown"
            return _Execution(told, certain=False)
        waiting.extend(one.stdin[:_MOST_TEXTS])
    return None


def _code_of(command: Command) -> str:
    """Return the code in the arguments of an interpreter other than a shell. Empty: none."""
    if command.name in ("awk", "gawk", "mawk"):
        return " ".join(command.words[1:])
    if command.name in SHELLS or command.name in USER_SHELLS:
        return ""
    options = options_of(command.words)
    if options is not None and not options.code and command.here and reads_code_from_stdin(command.words):
        return "\n".join(command.here)  # ``python3 - <<EOF``
    return " ".join(command.words[1:]) if options is not None and options.code else ""


def _literals(code: str) -> Iterator[str]:
    """Yield string literals in the code that may be file names."""
    for match in re.finditer(r"""["']([\w./-]{1,200})["']""", code):
        yield match[1]


def _expands(word: str) -> bool:
    """Return whether a word is a substitution or a variable."""
    return word.startswith(("$(", "${", "$", "`", "<("))


def _target_directory(command: Command) -> str:
    named = next((word for word in (*command.operands, *command.words[1:]) if "://" in word), "")
    # The address of ``--remote=https://…`` begins behind the option.
    found = _URLS.search(named) if named.startswith("-") else None
    return address((found[0] if found else named) or f"the download of {command.name}")


def _saved_files(
    command: Command, saved: _SavedFiles, downloads: _Downloads, settled: Callable[[str], bool]
) -> Iterator[tuple[str, Command]]:
    """Yield the files to which a command writes a download, each with the download.

    ``settled``: whether a saved file was verified. What is made of it needs no verification of its own.
    """
    words = command.words
    if command.name in _COPIERS and len(command.operands) > 1:
        *sources, target = command.operands
        for source in sources:
            printed = downloads.among(command.stdin) if source in _STDIN_WORDS else None
            if printed is not None:  # ``curl … | install /dev/stdin /usr/bin/x``
                yield _key(target), printed
            elif (name := saved.find(source)) and not settled(name):
                yield _key(target), saved.downloads[name]
                yield _key(f"{target}/{_last(source)}"), saved.downloads[name]
        return
    code = _code_of(command)
    if code and _URL.search(code):  # ``php -r "copy('https://…', 'setup.php');"``
        download = Command(("x", *_URLS.findall(code)[:1]))
        yield from ((_key(name), download) for name in _literals(code))
    if command.name in _REMOTE_COPIERS and len(command.operands) > 1:
        *_, source, target = command.operands
        if ":" in source:
            yield _key(target), command
            yield _key(f"{target}/{_last(source)}"), command
    yield from _derived_files(command, saved, settled)
    if command.name not in _DOWNLOADERS and command.name != "wcurl":
        printed = downloads.among(command.stdin, command.substituted)
        if printed is not None:
            # An unknown program may write its input to any file that it names, as ``sponge`` does.
            writes = command.name == "tee" or not _LOCAL.fullmatch(command.name)
            outputs = command.operands if writes else ()
            outputs += tuple(word[3:] for word in words if command.name == "dd" and word.startswith("of="))
            yield from ((_key(word), printed) for word in (*command.writes, *outputs))
        return
    for position, word in enumerate(words[:-1]):
        if re.fullmatch(r"--output|--output-document|--out|-\w*[oO]", word) and not (
            command.name == "curl" and word.endswith("O")
        ):
            yield _key(words[position + 1]), command
    for word in words if command.name in ("curl", "wget", "aria2c") else ():  # ``-ox``, ``-fsSLox``
        if match := re.fullmatch(r"-(?!-)[A-Za-z0-9]*?[oO]([^=].*)", word):
            yield _key(match[1]), command
    for word in words:
        if match := re.match(r"(?:--output|--output-document|--out)=(.+)", word):
            yield _key(match[1]), command
    yield from ((_key(word), command) for word in command.writes)
    if command.name != "curl" or command.has("-O", "--remote-name", "--remote-name-all"):
        for word in command.operands:
            if "://" in word:
                yield _key(word.partition("?")[0].rpartition("/")[2] or "index.html"), command


def _derived_files(
    command: Command, saved: _SavedFiles, settled: Callable[[str], bool]
) -> Iterator[tuple[str, Command]]:
    """Yield files that a command creates from a download: ``sed … i.sh > j.sh``, ``gunzip i.sh.gz``."""
    if not saved.downloads:
        return
    names = (*command.operands, *command.reads, *(w[3:] for w in command.words if w.startswith("if=")))
    source = next((name for word in names if (name := saved.find(word))), "")
    if not source or command.name in ("tar", "unzip") or settled(source):
        return
    download = saved.downloads[source]
    yield from ((_key(word), download) for word in command.writes)
    for option, value in pairwise(command.words):  # also of compilers: what was made of a download is a download
        if option in ("-o", "-out", "--out", "--output"):
            yield _key(value), download
    yield from ((_key(word[3:]), download) for word in command.words if word.startswith("of="))
    if command.name == "rsync" and len(command.operands) > 1:
        yield _key(command.operands[-1]), download
        yield _key(f"{command.operands[-1]}/{_last(source)}"), download
    if re.fullmatch(r"gunzip|gzip|unxz|xz|bunzip2|bzip2|zstd|unzstd|lz4|uncompress", command.name):
        yield from ((_key(word.rpartition(".")[0]), download) for word in command.operands if "." in word)


def _programs(command: Command, saved: _SavedFiles) -> Iterator[str]:
    """Yield the files that a command runs: by path, as argument or as input of an interpreter."""
    words = command.words
    options = options_of(words)
    if command.environment:
        yield from _startup_files(command.environment)
    if options is None and command.name not in _RUN_WORDS:
        if (words and "/" in words[0]) or (words and saved.is_program(words[0])):
            yield words[0]
        yield from _files_run_by(command, saved)
        yield from installed_files(command)
        return
    yield from _loaded_files(command)
    yield from installed_files(command)
    if command.name in _RUN_WORDS:
        yield from words[1:2]
    elif options is not None and options.code and "xargs" in command.wrappers:
        code = words[options.operand] if options.operand < len(words) else "{}"
        yield from command.reads if "{}" in code else ()  # the file's lines are code, not its arguments
    elif options is not None and options.code and command.name in SHELLS:
        code = words[options.operand] if options.operand < len(words) else ""
        yield from words[options.operand + 1 :] if _RUNS_ARGUMENT.search(code) else ()  # ``sh -c '. "$0"' x``
    elif options is not None and not options.code:
        yield from words[options.operand : options.operand + 1]
        if reads_code_from_stdin(words) or "xargs" in command.wrappers:
            yield from command.reads
            yield from _read_by(command.stdin)
        if "xargs" in command.wrappers:
            yield from (word for one in command.stdin if one.name in ("echo", "printf") for word in one.words[1:])
    yield from _read_by(command.substituted)


def _files_run_by(command: Command, saved: _SavedFiles) -> Iterator[str]:
    """Yield the files that a program other than an interpreter with known options runs."""
    name, words = command.name, command.words
    if name in _FILE_RUNNERS or (name == "go" and command.verb == "run"):
        yield from (part for word in words[1:] for part in re.split(r"[=:,]", word) if part)
    elif name == "run-parts":
        yield from (f"{word}/*" for word in command.operands)
    elif option := _FILE_READERS.get(name):
        yield from (b for a, b in pairwise(words) if a in (option, "--file"))
        yield from (word[2:] for word in words[1:] if word.startswith(option) and len(word) > 2)
        if name in ("make", "gmake") and not any(word.startswith(option) for word in words[1:]):
            yield from filter(saved.find, _MAKEFILES)  # those of a tree are not looked at


def _loaded_files(command: Command) -> Iterator[str]:
    """Yield the files that an interpreter loads beside or instead of a script: ``node -r x.js``, ``python3 -m x``."""
    words = command.words
    if not words or interpreter(command.name) is None:
        return
    for option, value in pairwise(words):
        if option in ("-r", "--require", "--import", "--loader"):
            yield value
        elif option == "-m":
            yield f"{value.replace('.', '/')}.py"
    yield from (m[1] for word in words[1:] if (m := re.fullmatch(r"(?:-r|--require=|--import=)(.+)", word)))
    for match in _LOADED.finditer(_code_of(command)):
        yield match[1]
        yield f"{match[1]}.py"


def _read_by(commands: Sequence[Command]) -> Iterator[str]:
    """Yield the files that commands read and print: ``cat i.sh``, ``sed s/a/b/ i.sh``."""
    for command in commands:
        if _LOCAL.fullmatch(command.name) and command.name not in ("echo", "printf"):
            yield from (*command.operands, *command.reads)
            yield from _read_by(command.stdin[:1])


def _verifies(command: Command) -> bool:
    """Return whether a command verifies a digest or signature. Some programs do other things as well."""
    if command.name in ("gpg", "gpg2"):
        return command.has("--verify", "--verify-files")
    if command.name == "openssl":
        return command.verb in ("dgst", "cms", "smime", "pkeyutl", "ts", "sha256", "sha384", "sha512", "sha1", "md5")
    if command.name == "rpm":
        return command.has("-K", "--checksig")
    return _VERIFIERS.fullmatch(command.name) is not None


@dataclass(frozen=True)
class _Check:
    """A verification of a digest or signature.

    ``texts``: words that may contain the verified file names. ``partial``: it also verifies files whose names are not
    in the history (a list of digests, a variable).
    """

    texts: tuple[str, ...]
    partial: bool
    number: int = 0  # of the command


def _check(command: Command, written: Mapping[str, Sequence[Command]]) -> _Check:
    texts = [*_texts(command)]
    lists = [word for word in command.operands if command.has("-c", "--check") and word not in ("-", "/dev/stdin")]
    unknown = [listed for listed in lists if not written.get(_last(listed))]
    for listed in (*lists, *command.reads):
        texts.extend(text for other in written.get(_last(listed), ()) for text in _texts(other))
    nothing = not (command.stdin or command.reads or command.here or command.operands)
    return _Check(tuple(texts[:_MOST_TEXTS]), bool(unknown) or nothing or any("$" in text for text in texts))


def _is_verified(name: str, every: Sequence[_Check], since: int) -> bool | None:
    """Return whether one of the verifications covers the file. None: unknown.

    ``since``: the number of the command that wrote the file. Another file of this name may have been verified before.
    """
    checks = [check for check in every if check.number >= since]
    if any(_names(text, name) for check in checks for text in check.texts):
        return True
    return None if any(check.partial for check in checks) else False


def _texts(command: Command) -> Iterator[str]:
    """Yield the words of a command and of its inputs."""
    waiting, seen = [command], set[int]()
    while waiting and len(seen) < _MOST_TEXTS:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield from (*one.words[1:], *one.reads, *one.here)
            waiting.extend((*one.stdin, *one.substituted)[:_MOST_TEXTS])


def _names(text: str, name: str) -> bool:
    """Return whether a text contains the file's name: alone, in a list of digests, or as name of a signature or digest
    file (``i.sh.sha256``).
    """
    last = _last(name)
    return any(
        _last(word) == last or re.fullmatch(re.escape(last) + r"\.(?:\w{2,8})", _last(word))
        for word in re.split(r"[\s\"'*()\\]+", text)
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _key(word: str) -> str:
    """Return the key of a file: an absolute path, or only the name if the working directory is unknown."""
    path = path_of(word)
    return path if word.startswith("/") else path.rpartition("/")[2]
