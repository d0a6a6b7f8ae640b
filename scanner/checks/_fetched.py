"""Code that a build gets as a whole tree and then runs: archives, clones of repositories, packages by URL.

What stands in a tree is not in the history. So what counts is where it was put and what is run from there. Build
tools (``make``, ``pip install .``) are not taken for a run: nearly every image from source has them, and a finding
on each would teach people to look away.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from scanner.checks._history import Command
from scanner.lazy_dataclasses import dataclass
from scanner.patterns import lazy

# Many things are unpacked here, so a program below is the archive's own only if the first directory is named like it.
_SHARED = lazy(
    r"/|/(?:usr|opt|tmp|root|var|home|srv|app|bin|lib|etc|build|work|workspace|src)"
    r"|/usr/(?:local|src|bin|lib|share)|/usr/local/(?:bin|lib|share|src)|/var/(?:tmp|lib)|/home/[^/]+"
)
# Twelve digits are what git itself takes for unique in large repositories.
_FIXED_COMMIT = lazy(r"[0-9a-f]{12,64}")
# A variable with such a name is taken for a commit: its value is not in the image.
_COMMIT_VARIABLE = lazy(r"(?i)\$\{?\w*(?:sha|commit|rev|hash)\w*")
_REPOSITORY = lazy(r"(?:https?|git|ssh|svn|svn\+ssh|bzr|lp)://|[\w.-]+@[\w.-]+:")
_MOST_TREES = 50  # an image with more is hostile, and each costs a comparison for every later command
# Version control systems other than Git, with the commands that fetch a tree.
_CHECKOUTS = {
    "svn": {"checkout", "co", "export"},
    "hg": {"clone"},
    "bzr": {"branch", "checkout", "co", "export"},
    "fossil": {"clone", "open"},
    "darcs": {"clone", "get"},
}


@dataclass(frozen=True)
class Tree:
    """A directory that came from the network.

    ``archive`` is the saved file that it was unpacked from, empty for a pipe. ``names`` are the words of the URL and
    the file: what an archive's top directory is called like. ``own``: the directory holds nothing else. ``line``: the
    number of the RUN that made it.
    """

    place: str
    download: Command
    line: int
    archive: str = ""
    names: frozenset[str] = frozenset()
    own: bool = False
    clone: bool = False

    def holds(self, path: str, line: int, *, relative: bool) -> bool | None:
        """Whether a path is of this tree. None: a program beside the archive's own directory, which may be of it."""
        if not path.startswith(self.place.rstrip("/") + "/"):
            return False
        inside = path[len(self.place.rstrip("/")) + 1 :].split("/")
        if self.own:
            return True
        # In a shared directory, a program is taken for the archive's own only by its directory's name. Everything
        # below /usr/local would otherwise count as downloaded.
        if len(inside) > 1:
            return bool(self.names & {*_words(inside[0]), inside[0].lower()}) or "*" in inside[0]
        return None if line == self.line and relative else False


class Trees:
    """Follows the working directory, and what was cloned and unpacked where."""

    def __init__(self) -> None:
        self._trees: list[Tree] = []
        self._directory = self._start = "/"
        self._line = 0

    def working_directory(self, text: str) -> None:
        """A ``WORKDIR``."""
        self._start = self._resolve_path(text.strip().strip("\"'"), self._start)

    def begin(self) -> None:
        """A RUN begins where the last WORKDIR says."""
        self._directory, self._line = self._start, self._line + 1

    def follow(self, command: Command) -> None:
        """Take note of a change of the directory, a clone and the choice of a commit."""
        if command.name in ("cd", "pushd"):
            place = next(iter(command.operands), "")
            if place and place != "-":
                self._directory = self._resolve_path(place, self._directory)
        elif command.name == "git":
            self._git(command)
        elif command.name in _CHECKOUTS:
            self._checkout(command)

    def unpacked(self, command: Command, archive: str, download: Command) -> None:
        """A command unpacked what was downloaded (``archive``: the file it was saved in)."""
        target = _directory_of(command)
        place = self._resolve_path(target, self._directory) if target else self._directory
        stripped = any(re.match(r"--strip(?:-components|-path)?\b", word) for word in command.words)
        own = (bool(target) or stripped) and not _SHARED.fullmatch(place)
        urls = [word for word in download.words if "://" in word]
        names = frozenset(word for text in (*urls, archive) for word in (*_words(text), _stem(text)))
        self._add(Tree(place, download, self._line, archive, names, own))

    def find(self, path: str) -> tuple[Tree, bool] | None:
        """The tree that a program is of, and whether that is certain."""
        full = self._resolve_path(path, self._directory)
        # The newest first: what was unpacked last into a directory has replaced what was there.
        for tree in reversed(self._trees):
            held = tree.holds(full, self._line, relative=not path.startswith(("/", "$", "~")))
            if held is not False:
                return tree, held is True
        return None

    def _add(self, tree: Tree) -> None:
        if len(self._trees) < _MOST_TREES:
            self._trees.append(tree)

    def _git(self, command: Command) -> None:
        words = command.words
        base = self._directory
        if "-C" in words[:-1]:
            base = self._resolve_path(words[words.index("-C") + 1], base)
        if "clone" in words:
            rest = words[words.index("clone") + 1 :]
            url = next((n for n, word in enumerate(rest) if _REPOSITORY.match(word)), None)
            if url is not None:
                name = rest[url].rstrip("/").rpartition("/")[2].removesuffix(".git")
                given = next((word for word in rest[url + 1 :] if not word.startswith("-")), name)
                place = self._resolve_path(given, base)
                address = rest[url] if "://" in rest[url] else "ssh://" + rest[url].replace(":", "/", 1)
                self._add(Tree(place, Command(("git", address)), self._line, own=True, clone=True))
        # A fixed commit or a verified signature settles the content, so the clone is no finding any more.
        elif _pins(words):
            clones = [tree for tree in self._trees if tree.clone]
            below = [tree for tree in clones if base == tree.place or base.startswith(f"{tree.place}/")]
            for tree in below or clones[-1:]:
                self._trees.remove(tree)

    def _checkout(self, command: Command) -> None:
        """A checkout by another version control system. Only Mercurial names its content by a digest (``-r``)."""
        words = command.words
        url = next((n for n, word in enumerate(words) if _REPOSITORY.match(word)), None)
        if url is None or not _CHECKOUTS[command.name] & set(words[1:url]):
            return
        revision = _value(words, "-r") or _value(words, "--rev") or _value(words, "-u")
        if command.name == "hg" and _FIXED_COMMIT.fullmatch(revision):
            return
        name = words[url].rstrip("/").rpartition("/")[2]
        given = next((word for word in words[url + 1 :] if not word.startswith("-")), name)
        place = self._resolve_path(given, self._directory)
        self._add(Tree(place, Command((command.name, words[url])), self._line, own=True, clone=True))

    @staticmethod
    def _resolve_path(path: str, base: str) -> str:
        path = path.strip("\"'")
        if path.startswith(("$", "~")):  # a variable's directory, told apart by its name
            path = "/" + path
        return posixpath.normpath("/" + posixpath.join(base, path).lstrip("/"))


def _pins(words: Sequence[str]) -> bool:
    """Return whether this ``git`` command fixes the content: by a commit, or by a signature that it verifies."""
    if {"verify-commit", "verify-tag"} & set(words):
        return True
    if not {"checkout", "reset", "switch", "fetch"} & set(words):
        return False
    return any(_FIXED_COMMIT.fullmatch(word) or _COMMIT_VARIABLE.search(word) for word in words[1:])


def unpacks(command: Command) -> bool:
    """Whether a command unpacks an archive into a directory."""
    name, words = command.name, command.words
    if name in ("tar", "bsdtar", "gtar"):
        first = words[1] if len(words) > 1 else ""
        letters = first if first and not first.startswith("-") else ""
        letters += "".join(word[1:] for word in words[1:] if re.fullmatch(r"-[A-Za-z]+", word))
        return "x" in letters or command.has("--extract", "--get")
    if name == "unzip":
        return not command.has("-l", "-p", "-t", "-Z", "-v")
    if name in ("7z", "7za", "7zr", "unrar"):
        return command.verb in ("x", "e")
    return name == "cpio" and command.has("-i", "--extract")


def archives_of(command: Command) -> Iterator[str]:
    """The words that may name the archive."""
    yield from command.operands
    yield from (word.partition("=")[2] for word in command.words if word.startswith("--file="))
    yield from (word[2:] for word in command.words if re.match(r"-f[^\s-]", word))
    yield from command.reads


def _directory_of(command: Command) -> str:
    words = command.words
    for place, word in enumerate(words):
        if word.startswith(("--directory=", "--one-top-level=")):
            return word.partition("=")[2]
        after = words[place + 1] if place + 1 < len(words) else ""
        if command.name in ("tar", "bsdtar", "gtar", "cpio"):
            if word in ("--directory", "-D") or re.fullmatch(r"-[A-Za-z]*C", word):
                return after
            if re.match(r"-C.", word):
                return word[2:]
        elif command.name == "unzip" and word == "-d":
            return after
        elif command.name.startswith("7z") and word.startswith("-o"):
            return word[2:]
    return ""


def _words(text: str) -> set[str]:
    """The words of a name: ``bar-1.2.tar.gz`` -> ``bar``; single letters and numbers say nothing."""
    return {word for word in re.findall(r"[a-z][a-z0-9]+", text.lower()) if word not in _COMMON}


def _stem(text: str) -> str:
    """A file's name without what says how it is packed: ``x-1.0.tar.gz`` -> ``x-1.0``."""
    name = text.partition("?")[0].rpartition("/")[2].lower()
    return re.sub(r"(?:\.tar)?\.(?:gz|tgz|xz|txz|bz2|tbz2?|zst|zip|tar|7z|lz)$", "", name)


# Words that are in nearly every URL say nothing about what was downloaded.
_COMMON = frozenset(
    (
        "https",
        "http",
        "www",
        "com",
        "org",
        "io",
        "net",
        "github",
        "gitlab",
        "releases",
        "release",
        "download",
        "downloads",
        "archive",
        "raw",
        "main",
        "master",
        "tar",
        "gz",
        "tgz",
        "xz",
        "zip",
        "bz2",
        "linux",
        "amd64",
        "x86",
        "64",
        "arm64",
        "bin",
        "src",
        "lib",
        "dist",
        "refs",
        "tags",
        "heads",
    )
)

_PIP = lazy(r"pip[\d.]*")
_NODE_INSTALLERS = {
    "npm": ("install", "i", "add", "exec", "x", "create", "init"),
    "pnpm": ("install", "i", "add", "dlx", "exec"),
    "yarn": ("add", "dlx", "global"),
    "bun": ("install", "i", "add", "x"),
    "npx": (),
    "pnpx": (),
    "bunx": (),
}
# Options whose value is an address and no package: where packages are looked up, and what only limits versions.
_ADDRESS_OPTIONS = frozenset(
    (
        "-i",
        "--index-url",
        "--extra-index-url",
        "--index",
        "--default-index",
        "-f",
        "--find-links",
        "--trusted-host",
        "-c",
        "--constraint",
        "--constraints",
        "--proxy",
        "--cert",
        "--registry",
        "--target",
        "-t",
        "--root",
        "--prefix",
        "--src",
        "--cache",
        "--userconfig",
        "--cache-dir",
        "--python",
        "-p",
        "--fetch-retry-mintimeout",
        "--https-proxy",
        "--index-strategy",
        "--exclude-newer",
    )
)
# Requirements that name an address (PEP 508, and git+https://… of pip and npm).
_BY_URL = lazy(r"(?:^|[@=]|\s)(?:(?:git|hg|svn|bzr)\+[a-z+]{2,6}://|https?://|git://|git@)", re.I)
# npm: owner/name is a repository at GitHub.
_HOSTED = lazy(r"(?:github|gitlab|bitbucket|gist):[\w./-]+|(?![@./~])[\w-]+/[\w.-]+")
# An address that ends in a digest or a commit always gives the same content.
_FIXED = lazy(r"(?:#|&)sha(?:256|384|512)=[0-9a-f]{64,}|[@#][0-9a-f]{12,64}(?:[#&]|$)", re.I)


def installed_by_url(command: Command) -> str:
    """Return the URL of a package that is installed without a digest or a fixed commit. Empty: there is none.

    Packages by name pass: indexes have digests, and Go has a checksum database.
    """
    name, words = command.name, list(command.words)
    if re.fullmatch(r"python[\d.]*", name) and words[1:2] == ["-m"] and words[2:3] and _PIP.fullmatch(words[2]):
        name, words = words[2], words[2:]
    if name == "cargo" and "install" in words[:4]:
        return _cargo(words)
    if name == "go":
        return _go(command)
    if name == "rpm" or (name in _RPM_MANAGERS and set(words[1:]) & _RPM_VERBS):
        # Repositories are signed, but a package by URL is verified only if the configuration demands it
        # (localpkg_gpgcheck), and rpm itself installs unsigned packages.
        checks = name == "rpm" and not command.has("-i", "-U", "-F", "--install", "--upgrade")
        return "" if checks else next((word for word in command.operands if _RPM_BY_URL.match(word)), "")
    if name == "uv" and words[1:2] in (["pip"], ["tool"]):
        name, words = f"uv {words[1]}", words[1:]
    node = _NODE_INSTALLERS.get(name)
    if _PIP.fullmatch(name) or name in ("uv pip", "uv tool", "pipx"):
        verbs: tuple[str, ...] = ("install", "run", "inject", "upgrade")
    elif node is not None or name in ("uvx",):
        verbs = node or ()
    else:
        return ""
    start = next((n + 1 for n, word in enumerate(words) if word in verbs), None) if verbs else 1
    # pip refuses every package without a digest then, also those by URL.
    if start is None or "--require-hashes" in words:
        return ""
    # ``npx eslint src/app``: what follows the package are its own words.
    runs = start == 1 or words[start - 1] in ("run", "exec", "x", "dlx", "create", "init")
    return _unsettled_word(words[start:], hosted=node is not None, runs=runs)


_RPM_MANAGERS = frozenset(("yum", "dnf", "dnf5", "microdnf", "tdnf"))
_RPM_VERBS = frozenset(("install", "localinstall", "reinstall", "upgrade", "update", "swap"))
_RPM_BY_URL = lazy(r"(?:https?|ftp)://", re.I)
# A package manager reads a local file, or a name from its own repositories.
_PACKAGE_FILE = lazy(r".*\.(?:deb|rpm|whl|gem|tar\.\w+|tgz|zip)|.*/.*", re.DOTALL)


def installed_files(command: Command) -> Iterator[str]:
    """Yield the package files that a command installs: code of a package runs as root. ``apk`` verifies them."""
    name, words = command.name, command.words
    dpkg = name == "dpkg" and command.has("-i", "--install", "--unpack")
    rpm = name == "rpm" and command.has("-i", "-U", "-F", "--install", "--upgrade")
    apt = name in ("apt", "apt-get", "gdebi") and ("install" in words or name == "gdebi")
    dnf = name in _RPM_MANAGERS and bool(set(words[1:]) & _RPM_VERBS)
    python = bool(_PIP.fullmatch(name) or (len(words) > 2 and words[1] == "-m" and _PIP.fullmatch(words[2])))
    pip = (python or name in ("uv", "pipx")) and "install" in words and "--require-hashes" not in words
    node = name in ("npm", "yarn", "pnpm") and bool({"install", "i", "add"} & set(words[1:3]))
    gem = name == "gem" and "install" in words
    if dpkg or rpm or apt or dnf or pip or node or gem:
        yield from (word for word in command.operands if _PACKAGE_FILE.fullmatch(word) and "://" not in word)


def _unsettled_word(words: Sequence[str], *, hosted: bool, runs: bool) -> str:
    skip = False
    for word in words:
        if skip:
            skip = False
            continue
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if option in _ADDRESS_OPTIONS:
            skip = not equals
            continue
        by_url = bool(_BY_URL.search(value)) or (hosted and bool(_HOSTED.fullmatch(value)))
        if by_url and not _FIXED.search(value):
            return value.removeprefix("git+")
        if runs and not option:
            break
    return ""


def _cargo(words: Sequence[str]) -> str:
    url = _value(words, "--git")
    return "" if not url or _FIXED_COMMIT.fullmatch(_value(words, "--rev")) else url


def _go(command: Command) -> str:
    """``go run host/x@latest`` is checked against the checksum database, unless that was turned off."""
    if command.verb not in ("run", "install", "get"):
        return ""
    off = any(
        re.match(r"GOSUMDB=off\b|GONOSUM(?:DB|CHECK)=.|GOINSECURE=.|GOFLAGS=.*-insecure", word)
        for word in command.environment
    )
    return next((word for word in command.operands if "@" in word and off), "")


def _value(words: Sequence[str], option: str) -> str:
    for place, word in enumerate(words):
        if word == option and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""
