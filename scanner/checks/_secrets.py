"""Detection of secrets by pattern and by name. Values are never stored; findings contain only kind and length.

Patterns match formats with few false positives, such as tokens with a prefix of their issuer. Names match variables,
and files that usually contain credentials: a ``settings.py`` or ``.env`` is reported only if its content has a
secret. Placeholders are ignored, because users stop reading findings that are often wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from scanner.checks import _key_stores
from scanner.checks._encodings import BASE64 as _BASE64
from scanner.checks._encodings import DASH as _DASH
from scanner.checks._encodings import GLUE as _GLUE
from scanner.checks._encodings import (
    GZIP,
    HEX_BLOCK,
    DecodedText,
    as_text,
    base64_blocks,
    from_base64,
    from_decimal,
    from_hex,
    gunzip,
    utf16_parts,
)
from scanner.checks._secret_catalogue import PUBLISHED, SHAPES
from scanner.checks._secret_search import (
    DECIMAL_MARK,
    HEX_LITERAL,
    HEX_MARK,
    MANIFEST,
    MARKS,
    WIDE,
    Candidates,
    Select,
    by_fastest,
    by_literals,
    selection,
)
from scanner.checks._secret_shapes import Shape
from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import ContentMatch
from scanner.model.image import Image
from scanner.patterns import lazy, lazy_re2

# Bytes. Larger files are searched in pieces.
MAX_FILE = 1 << 20
_MAX_MATCHES = 20  # per file
_WINDOW, _OVERLAP = 1 << 20, 1 << 16  # bytes of a large file that are searched at once, and of two windows in common
_PROGRAMS = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # ELF, PE, Mach-O
_UNLIKE_TEXT = (*_key_stores.BEGINNINGS, GZIP)
_LEAD = 64  # bytes before the beginnings that a window looks for
_LONG = 1 << 14  # bytes of decoded text for which one search for all kinds pays before one for each
_MAX_TEXT, _MAX_SETTINGS = 1 << 17, 1000  # bytes of a text, values of a file


_NOT_BASE64 = lazy(rb"[^A-Za-z0-9+/=]")
_PUBLISHED_BYTES = 40
_FRAME = lazy(_DASH + rb"{2}(?:" + _GLUE + rb")*$")
_MAX_GUNZIPPED = 8 << 20  # of one file, all blocks together
# From where a key begins, and all of it at once: from each character of a megabyte of base64 it would take seconds.
# Keys of Kubernetes have 253 characters at most.
_MANIFEST_VALUE = lazy(
    rb"""(?<![\w.-])([\w.-]{1,300}+)\\*["']?[ \t]*:[ \t]*(?:[|>][-+]?\s+)?\\*["']?"""
    rb"""([A-Za-z0-9+/_-]{8,}={0,2}(?:\s+[A-Za-z0-9+/_-]{40,}={0,2}){0,2000})(?=[ \t]*(?:[\\"',}\r\n]|$))"""
)

# Files that often contain credentials. Their content is checked.
_CONFIGURATIONS = lazy(
    r"(?:^|/)(?:\.env(?:\.[\w-]+)*|[^/]+\.env|\.?npmrc|\.yarnrc(?:\.yml)?|[._]netrc|\.pgpass|\.my\.cnf"
    r"|\.git-credentials|\.git/config|\.?gitconfig"
    r"|\.docker/config\.json|\.dockercfg|\.dockerconfigjson|\.kube/config|kubeconfig|\.pypirc|pip\.conf"
    r"|\.htpasswd|credentials?(?:\.(?:json|xml|ya?ml|ini|toml|tfrc\.json))?"
    r"|(?:containers|\d+|\.?composer)/auth\.json|\.m2/settings\.xml|gradle\.properties"
    r"|\.?vault[_-]pass(?:word)?(?:\.txt)?"
    r"|appsettings(?:\.[\w-]+)?\.json|[Ww]eb(?:\.[\w-]+)?\.config|[Aa]pp\.config|[^/]+\.exe\.config"
    r"|NuGet\.[Cc]onfig|nuget\.config"
    r"|(?:docker-)?compose(?:\.[\w-]+)?\.ya?ml|\.terraformrc|sasl_passwd|[^/]+\.tfvars\.json"
    r"|settings\.py|local_settings\.py|secret_token\.rb|carrierwave\.rb|omniauth\.rb|database\.yml"
    r"|secrets\.ya?ml|wp-config\.php"
    r"|application(?:-[\w-]+)?\.(?:properties|ya?ml)|[^/]+\.(?:tfvars|tfstate|cscfg|ovpn|rdp|secret"
    r"|private_key)|passwords?\.txt"
    r"|\.(?:ba|z|fi)?sh_history|\.(?:my|p)sql_history|etc/(?:master\.)?(?:passwd|shadow)-?)$"
)
# Nine of ten files have names that end like this, which only ``.env.js`` and the like have in common with the above.
_USUAL = (".js", ".ts", ".map", ".mjs", ".cjs", ".md", ".pyc", ".pyi", ".so", ".h", ".html", ".css", ".mo", ".gz")
_SOURCE = (".py", ".rb", ".php")
_WHOLE = (
    *(".secret", ".private_key", "password.txt", "passwords.txt"),
    *("vault_pass", "vault-pass", "vault_password", "vault_pass.txt", "vault-pass.txt", "vault_password.txt"),
)
_ANY_VALUE = lazy(r"\S{6,}")
# Password hashes of crypt(5) and of Apache's htpasswd.
_HASH = lazy(r"(?m)^([^:\n]{1,64}):(\$(?:1|2[abxy]?|5|6|7|y|gy|apr1)\$[^:\n]{10,}|\{SHA\}[A-Za-z0-9+/=]{20,})")
_SETTING = lazy(
    r"""(?im)^[ \t"'<{\[$-]*(?:(?:export|set|define|ENV)[ \t(]+["']?)?(?://[^\s=]{1,200}:)?"""
    r"""([A-Za-z_$][\w.-]{1,80})["'\])]*[ \t]*(?:=>|[:=,])[ \t]*(["']?)([^\s"'#;,{}<>]{4,400})\2"""
)
# Passphrases: values with spaces, in quotes.
_QUOTED_SETTING = lazy(
    r"""(?m)^[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]{1,80})[ \t]*[:=][ \t]*(["'])([^"'\n]{4,400})\2"""
)
# JSON need not have lines: state files and minified settings have one.
_MEMBER = lazy(r'''"([A-Za-z_$][\w.-]{1,80})"\s{0,8}:\s{0,8}"((?:[^"\\\n]|\\.){4,400})"''')
# <password>…</password> in Maven's and other XML settings.
_ELEMENT = lazy(r"<([A-Za-z][\w.-]{1,60})>\s{0,8}([^<>\s]{4,400})\s{0,8}</")
# <add key="…" value="…"/> in .NET's settings.
_ATTRIBUTES = lazy(r'''\b(?:key|name)="([A-Za-z][\w.:-]{1,80})"\s{1,8}value="([^"\n]{4,400})"''')
_IN_CONNECTION_STRING = ("password=", "pwd=")  # ``Server=x;User Id=y;Password=…``
# .npmrc and .yarnrc.yml: base64 of user and password.
_NPM_AUTH = lazy(r"""(?m)^[ \t]*(?:(?://[^\s=]{1,200}:)?_auth|npmAuthIdent)[ \t]*[=:][ \t]*["']?([^\s"'$]{6,400})""")
# ~/.netrc: machine HOST login USER password PASSWORD
_NETRC = lazy(r"(?i)\bpassword[ \t]+(\S{4,200})")
# ~/.pgpass: host:port:database:user:password
_PGPASS = lazy(r"(?m)^[^#:\s]*:[0-9*]*:[^:\n]*:([^:\n]+):([^:\n]{4,200})$")
# ~/.docker/config.json
_DOCKER_AUTH = lazy(r'"(auth|identitytoken|password)"\s*:\s*"([^"]{8,})"')
# kubeconfig
_ENCODED_KEY = lazy(r"(client-key-data|token):[ \t]*([A-Za-z0-9+/=._-]{40,})")

# Examples in manuals are public, and every image has them.
_DOCUMENTATION = lazy(r"^(?:usr/share/(?:doc|man|info|perl|python3?)|usr/lib/python[\d.]{1,5}/test|proc|sys)/")
# Code of others: what is in there was published with it.
_PACKAGES = lazy(r"(?:^|/)(?:(?:site|dist)-packages|node_modules|gems|pkg/mod|vendor)/")
# Keys in tests of packages are made for the tests.
_TESTS = lazy(r"(?:^|/)(?:tests?|testing|testdata|test_data|__tests__|spec|fixtures|examples?)/")
_EXAMPLE_ENDS = tuple(f"{mark}{name}.json" for mark in "._-" for name in ("example", "examples"))
_NAMES = lazy(
    r"(?i)(?:^|_)(?:[a-z]*pass(?:wd|word|phrase)|(?:db)?pass|pwd|secret(?:_?key)?|token|api_?key"
    r"|access_?key(?:_?id)?|private_?key|credentials?"
    r"|authtoken|(?:encryption|signing|master|deploy|jwt|session|cookie|hmac|account)_?key)(?:_|$)"
)
# Names that look like secrets, of values that are none: paths, addresses, digests, versions.
_HARMLESS_NAMES = lazy(
    r"(?i)^(?:GPG_KEYS?|.*_(?:FILE|PATH|DIR|URL|URI|SHA256|SHA512|VERSION|NAME|TYPE|EXPIRY|TTL|LENGTH"
    r"|ALGORITHM|HEADER|FIELD|PARAM|ENDPOINT|ISSUER|PREFIX"
    r"|LIFETIME|TIMEOUT|DURATION|EXPIRATION|AUDIENCE|SCOPES?|PATTERN|REGEX|POLICY|PROVIDER|STRATEGY|FORMAT"
    r"|VALIDATORS)|SSL_CERT_.*|PWD|OLDPWD|SSH_AUTH_SOCK)$"
)
_KEY_REST = lazy_re2(rb"(?:" + _GLUE + rb"|" + _BASE64 + rb")*(?:-----END[A-Z +%0-9]*-----)?")
_BLOCK = lazy_re2(rb"(?:[A-Za-z0-9+/_=-]|" + _GLUE + rb")*")
# Base64 within base64: deeper, nobody reads it by accident.
_MAX_NESTED = 2
_PLACEHOLDER = lazy(
    r"(?i)^(?:$|.{0,4}…(?:\(.*)?|\$.*|%.*%|<.*>|\{\{.*|changeme|change[-_]?(?:me|it|this).*|replace[-_]?(?:me"
    r"|this)?.*|example.*|.*[-_]?example|dummy.*|fake.*|test|none|null|nil|undefined"
    r"|true|false|yes|no|on|off|x+|\*+|\.+|0|1|/.*|https?://[^@]*|file:.*|env:.*|vault:.*|unset|empty"
    r"|your[-_].*|todo|redacted.*|optional|required|prompt|insert.*)$"
)
# The value is computed when the program runs; it is not in the file.
_CALL = lazy(r"^[\w.]+[(\[]|^(?:os|process|ENV|config|self|settings)[.\[]")

# Secrets in command lines. The last group is the secret.
_COMMANDS = (
    (
        "a password on a command line",
        lazy(
            r"""(?i)(?<![\w-])--?(?:[a-z-]{0,40}(?:password|passwd|passphrase))(?:=|[ \t]+)["']?([^\s"'&|;]{4,200})"""
        ),
    ),
    (
        "a token on a command line",
        lazy(
            r"""(?i)(?<![\w-])--(?:[a-z-]{0,40}(?:token|secret|api-?key))(?:=|[ \t]+)"""
            r"""["']?([^\s"'&|;-][^\s"'&|;]{7,200})"""
        ),
    ),
    (
        "a user and password for curl",
        lazy(r"""\bcurl\b[^|&;]{0,500}?[ \t](?:-u|--user)[ \t=]*["']?[^\s"':]+:([^\s"'&|;]{3,200})"""),
    ),
    ("a password for sshpass", lazy(r"""\bsshpass[ \t]+-p[ \t]*["']?([^\s"'&|;]{3,200})""")),
    (
        "an Authorization header",
        lazy(r"""(?i)authorization:[ \t]*(?:bearer|basic|token)[ \t]+([A-Za-z0-9+/=._~-]{8,})"""),
    ),
    (
        "a password for chpasswd",
        lazy(r"""["' \t]\w+:([^\s"'|]{3,200})["']?[ \t]*\|[ \t]*(?:sudo[ \t]+)?chpasswd"""),
    ),
    (
        "a password in a connection string",
        lazy(r"""(?i);[ \t]*(?:password|pwd)[ \t]*=[ \t]*([^\s;"'<>|&]{4,200})"""),
    ),
    (
        "a password in an address",
        lazy(r"""[a-z][a-z0-9+.-]{1,20}://[^/\s:@"'$]{0,80}:([^/\s:@"']{3,200})@(?!localhost|127\.)"""),
    ),
)
_ASSIGNMENT = lazy(r"""(?<![\w$-])([A-Za-z_][A-Za-z0-9_]{2,60})=("[^"]{1,400}"|'[^']{1,400}'|[^\s;&|"']{1,400})""")


@dataclass(frozen=True, slots=True)
class TextSecret:
    """A secret in a text. ``what``: a description for users; ``start``, ``end``: the position of its value."""

    what: str
    start: int
    end: int


class SecretScanner:
    """Searches files while layers are read. See ``scanner.registry.layers.ContentScanner``.

    ``kept``: a directory for compiled patterns, so that each process need not compile them.
    """

    # Change it with the patterns: cached facts of layers are keyed by it.
    version = "secrets-9"

    def __init__(self, select: Select | None = None, kept: Path | None = None) -> None:
        self._chosen, self._kept = select, kept

    def _select(self, data: bytes | memoryview) -> Candidates:
        if self._chosen is None:
            self._chosen = selection(self._kept)  # when the first file is read: a known image needs none
        return self._chosen(data)

    def wants(self, path: str, size: int) -> bool:
        """Return whether to search a file: not too large, no documentation and no tests of dependencies."""
        return 8 <= size <= MAX_FILE and not is_ignored(path)

    def may_match(self, stretch: bytes | memoryview) -> bool:
        """See ``ContentScanner``. What selects files has no look-around, so headers before and after change nothing."""
        return any(self._select(stretch))

    def goes_by_patterns(self, path: str, head: bytes) -> bool:
        """See ``ContentScanner``: no key store, nothing that gzip compressed, no settings."""
        return not head.startswith(_UNLIKE_TEXT) and not _is_configuration(path)

    def large(self, path: str, size: int) -> LargeFile | None:
        """Return the search of a file that is too large for ``search``."""
        return LargeFile(path, self._select) if size > MAX_FILE and not is_ignored(path) else None

    def search(self, path: str, data: bytes) -> list[ContentMatch]:
        """Return matches of patterns, then credentials of configuration files, up to `_MAX_MATCHES`."""
        candidates = self._select(data)
        found = list(islice(_shapes(path, data, candidates), _MAX_MATCHES)) if any(candidates) else []
        found += self._search_gzip(path, data)
        rule = _key_stores.rule(data, whole=True)
        if rule is not None and not _is_documented_example(data):
            found.append(ContentMatch(rule, path, 1, f"DER… ({len(data)} bytes)"))
        if _is_configuration(path):
            lines = {match.line for match in found}
            # A line that a pattern has matched already is not reported again by the name of its setting.
            found.extend(islice((m for m in _settings(path, data) if m.line not in lines), _MAX_MATCHES - len(found)))
        return found

    def _search_gzip(self, path: str, data: bytes) -> list[ContentMatch]:
        """Return what a file holds that gzip compressed, each kind once. Lines of the unpacked file are not given."""
        text = gunzip(data, _MAX_GUNZIPPED)
        if not text:
            return []
        candidates = self._select(text)
        found = list(islice(_shapes(path, text, candidates), _MAX_MATCHES)) if any(candidates) else []
        if key := _key_stores.rule(text, whole=True):
            found.append(ContentMatch(key, path, 1, f"DER… ({len(text)} bytes)"))
        rules = {match.rule: match for match in found}
        return [replace(match, line=1, redacted=f"{match.redacted}, in gzip") for match in rules.values()]


class LargeFile:
    """Searches a file in windows that overlap, so that its size is no bound and its memory is.

    Each secret belongs to one window: that in which it begins, unless it begins in the part that the next window has
    as well. The first bytes of a window are only there to be looked at, because a token may not begin within a word.
    What is longer than the overlap (a line of base64) begins before the window: it is found in either. A program has no
    lines, and counting them takes as long as searching it: there each kind is reported once, in line 1.
    """

    def __init__(self, path: str, select: Select) -> None:
        self._path, self._select = path, select
        self._window, self._filled = bytearray(_WINDOW), 0
        self._lines, self._first = 0, True  # line ends before the window
        self._is_program = False
        self._budget = _Budget()
        self._found: dict[tuple[str, int], ContentMatch] = {}
        self._before: set[tuple[str, str]] = set()  # what the window before had found
        self._is_configuration = _is_configuration(path)

    def feed(self, data: memoryview) -> None:
        """Read the next bytes."""
        while data:
            take = min(len(data), _WINDOW - self._filled)
            self._window[self._filled : self._filled + take] = data[:take]
            self._filled += take
            data = data[take:]
            if self._filled == _WINDOW:
                self._search(last=False)
                if not self._is_program:
                    self._lines += self._window.count(b"\n", 0, _WINDOW - _OVERLAP)
                self._window[:_OVERLAP] = self._window[_WINDOW - _OVERLAP :]
                self._filled, self._first = _OVERLAP, False

    def matches(self) -> list[ContentMatch]:
        """End the file and return what was found in it, up to `_MAX_MATCHES`."""
        self._search(last=True)
        return list(self._found.values())

    def _search(self, *, last: bool) -> None:
        if len(self._found) >= _MAX_MATCHES:
            return
        if self._first:
            self._is_program = self._window.startswith(_PROGRAMS)
        view = memoryview(self._window)[: self._filled]
        candidates = self._select(view)
        here: set[tuple[str, str]] = set()
        data = bytes(view) if any(candidates) or self._is_configuration else b""
        begin, end = 0 if self._first else _LEAD, self._filled if last else self._filled - _OVERLAP + _LEAD
        for secret in _in_any_form(data, candidates, self._budget) if any(candidates) else ():
            if len(self._found) >= _MAX_MATCHES:
                return
            here.add((secret.rule, secret.shown))
            encoded_before = ", in " in secret.shown and (secret.rule, secret.shown) not in self._before
            if secret.start < end and (secret.start >= begin or encoded_before):
                line = 1 if self._is_program else self._lines + data.count(b"\n", 0, secret.start) + 1
                self._add(ContentMatch(secret.rule, self._path, line, secret.shown))
        self._before = here
        if self._is_configuration:
            lines = {line for _, line in self._found}
            for match in _settings(self._path, data):
                if match.line + self._lines not in lines:
                    self._add(replace(match, line=match.line + self._lines))

    def _add(self, match: ContentMatch) -> None:
        if len(self._found) < _MAX_MATCHES:
            self._found.setdefault((match.rule, match.line), match)


def _in_any_form(data: bytes, candidates: Candidates, budget: _Budget | None = None) -> Iterator[_Secret]:
    return chain(
        _plain_secrets(data, candidates.shapes), _encoded_secrets(data, budget=budget) if candidates.encoded else ()
    )


def _shapes(path: str, data: bytes, candidates: Candidates) -> Iterator[ContentMatch]:
    """Yield matches in all encodings, each kind once per line."""
    seen: set[tuple[str, int]] = set()
    for secret in _in_any_form(data, candidates):
        line = data.count(b"\n", 0, secret.start) + 1
        if (secret.rule, line) not in seen:
            seen.add((secret.rule, line))
            yield ContentMatch(secret.rule, path, line, secret.shown)


class _Secret(NamedTuple):
    rule: str
    start: int
    end: int
    shown: str


def _plain_secrets(data: bytes, shapes: Sequence[Shape] | None = None) -> Iterator[_Secret]:
    if shapes is None:
        shapes = SHAPES if len(data) < _LONG else by_fastest(data).shapes
    for shape in shapes:
        for match in shape.matches(data):
            start, end = shape.span(match)
            value = match[0][start - match.start() : end - match.start()]
            if not _is_documented_example(value) and not (shape.value and is_placeholder(value.decode("latin-1"))):
                rule = "encrypted-key" if _is_encrypted(value) else shape.rule
                # Without a prefix of its issuer, the first characters of a value are already a part of the secret.
                shown = f"… ({len(value)} characters)" if shape.value else redact(value)
                yield _Secret(rule, start, end, shown)


class _Budget:
    """The number of bytes that may still be decompressed from one file: a file can hold many gzip bombs."""

    def __init__(self) -> None:
        self._left = _MAX_GUNZIPPED

    def gunzip(self, data: bytes) -> bytes:
        """Return the decompressed data, cut at the budget; nothing if it is not gzip."""
        found = gunzip(data, self._left) if self._left else b""
        self._left -= len(found)
        return found


def _encoded_secrets(data: bytes, depth: int = 0, budget: _Budget | None = None) -> Iterator[_Secret]:
    """Yield secrets in UTF-16, in base64 (of text, gzip or DER), in hexadecimal, and in Kubernetes Secrets."""
    budget = budget or _Budget()
    readings: list[tuple[str, Iterator[DecodedText]]] = []
    if WIDE.search(data) is not None:
        readings.append(("UTF-16", utf16_parts(data)))
    if MARKS.search(data) is not None:
        readings.append(("base64", base64_blocks(data, MARKS)))
    if HEX_MARK.search(data) is not None:
        readings.append(("hexadecimal", from_hex(data, HEX_LITERAL)))
    if DECIMAL_MARK.search(data) is not None:
        readings.append(("decimal numbers", from_decimal(data, DECIMAL_MARK)))
    for name, texts in readings:
        for read, start in texts:
            text = budget.gunzip(read) or read
            # Inside a PEM frame the key has been found as text already.
            rule = None if _FRAME.search(data, max(0, start - 40), start) else _key_stores.rule(text, whole=False)
            if rule is not None:
                yield _Secret(rule, start, start + len(text), f"DER… ({len(text)} bytes), in {name}")
            # Attackers and tools nest encodings. Each level can be larger than the one before, so the depth is
            # limited and the budget is shared.
            nested = _encoded_secrets(text, depth + 1, budget) if depth < _MAX_NESTED else ()
            found = chain(_plain_secrets(text), _docker_auths(text), nested)
            for secret in found:
                # Positions in UTF-16 can be converted. For base64 the position is that of the block.
                at = start + 2 * secret.start if name == "UTF-16" else start
                yield _Secret(secret.rule, at, at + len(text), f"{secret.shown}, in {name}")
    if b"apiVersion" in data and MANIFEST.search(data) is not None:
        yield from _manifest(data)


def _docker_auths(data: bytes) -> Iterator[_Secret]:
    if b'"auths"' in data:
        for match in _DOCKER_AUTH.finditer(data.decode("utf-8", "replace")):
            if not is_placeholder(match[2]):
                yield _Secret("credential", 0, len(data), f"registry {match[1]} ({len(match[2])} characters)")


def _manifest(data: bytes) -> Iterator[_Secret]:
    """Yield secrets in ``data`` of a Kubernetes Secret, by pattern and by name."""
    for match in islice(_MANIFEST_VALUE.finditer(data), _MAX_SETTINGS):
        value = from_base64(b"".join(match[2].split()))
        if value is None:
            continue
        name = match[1].decode("ascii", "replace")
        yield from (
            _Secret(secret.rule, match.start(), match.end(), f"{secret.shown}, in base64")
            for secret in (*_plain_secrets(value), *_docker_auths(value))
        )
        text = value.decode("utf-8", "replace").strip()
        looks_encoded = not match[2].islower()  # ``password: changed-later`` is valid base64, but plain text
        if looks_encoded and text.isprintable() and is_secret_variable(_snake(name), text):
            yield _Secret("credential", match.start(), match.end(), f"{name} ({len(text)} characters), in base64")
    begin = data.find(b"stringData")
    if begin >= 0:  # values as they are
        text = data[begin:].decode("latin-1")
        for _, name, offset, plain in islice(_assigned_secrets(text, quoted=False), _MAX_SETTINGS):
            if not is_placeholder(plain):
                at = begin + offset
                yield _Secret("credential", at, at + len(plain), f"{name} ({len(plain)} characters)")


def _settings(path: str, data: bytes) -> Iterator[ContentMatch]:
    text = as_text(data)
    name = path.rpartition("/")[2]
    found: list[tuple[str, str, int, str]] = []  # rule, description, offset, value
    if name in ("passwd", "shadow", "passwd-", "shadow-", "master.passwd", ".htpasswd"):
        found += [("password-hash", f"of {m[1]}", m.start(), m[2]) for m in _HASH.finditer(text)]
    elif name in (".netrc", "_netrc"):
        found += [("credential", "password", m.start(), m[1]) for m in _NETRC.finditer(text)]
    elif name == ".pgpass":
        found += [("credential", f"password of {m[1]}", m.start(), m[2]) for m in _PGPASS.finditer(text)]
    elif name.endswith(_WHOLE):
        found += [("credential", name, m.start(), m[0]) for m in islice(_ANY_VALUE.finditer(text), 1)]
    else:
        found += [
            ("credential", m[1], m.start(), m[2])
            for m in _DOCKER_AUTH.finditer(text)
            if name.startswith((".d", "con", "auth"))
        ]
        found += [("credential", m[1], m.start(), m[2]) for m in _ENCODED_KEY.finditer(text) if "kube" in path]
        assigned = islice(_assigned_secrets(text, quoted=name.endswith(_SOURCE)), _MAX_SETTINGS)
        # Examples for developers: ``POSTGRES_PASSWORD: postgres`` protects nothing.
        found += (one for one in assigned if not ("compose" in name and one[3].lower() in one[1].lower()))
        if "npm" in name or "yarn" in name:
            found += [("credential", "_auth", m.start(), m[1]) for m in _NPM_AUTH.finditer(text)]
        found += [
            ("credential", s.what, s.start, text[s.start : s.end])
            for s in in_text(text[:_MAX_TEXT])
            if "=" not in s.what or s.what.lower() in _IN_CONNECTION_STRING
        ]
    seen: set[int] = set()
    for rule, what, offset, value in found[:_MAX_SETTINGS]:
        line = text.count("\n", 0, offset) + 1
        if line not in seen and (rule == "password-hash" or not is_placeholder(value)):
            seen.add(line)
            yield ContentMatch(rule, path, line, f"{what} ({len(value)} characters)")


def _assigned_secrets(text: str, *, quoted: bool) -> Iterator[tuple[str, str, int, str]]:
    """Yield secrets in ``NAME = value`` settings. ``quoted``: source code, in which only literals count."""
    for match in _SETTING.finditer(text):
        name, quote, value = match[1], match[2], match[3]
        if (quote or not quoted) and not _CALL.search(value) and is_secret_variable(_snake(name), value):
            yield "credential", name, match.start(1), value
    if not quoted:
        for pattern in (_QUOTED_SETTING, _MEMBER, _ELEMENT, _ATTRIBUTES):
            for match in pattern.finditer(text):
                name, value = match[1], match[match.re.groups]
                if is_secret_variable(_snake(name), value) and not _CALL.search(value):
                    yield "credential", name, match.start(1), value


def _snake(name: str) -> str:
    """Convert ``spring.datasource.adminPassword`` to ``spring_datasource_admin_password``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace(".", "_").replace("-", "_").lower()


def _is_encrypted(found: bytes) -> bool:
    """Return whether a private key is encrypted: PKCS #8 and PEM by a header, OpenSSH by its cipher name."""
    if b"ENCRYPTED" in found:
        return not found.startswith(b"---- BEGIN SSH2")  # its header says so of every key
    # "openssh-key-v1" with the cipher "none" in base64 (PROTOCOL.key of OpenSSH). Any other cipher needs a
    # passphrase.
    return found.startswith(b"-----BEGIN OPENSSH") and b"b3BlbnNzaC1rZXktdjEAAAAABG5vbmU" not in found


def _is_documented_example(value: bytes) -> bool:
    """Return whether a value is an example from a vendor's documentation, or a key of a library's own tests."""
    if value.startswith(b"-----BEGIN"):
        begin = _NOT_BASE64.sub(b"", value.partition(b"KEY-----")[2])[:_PUBLISHED_BYTES]
        return hashlib.sha256(begin).hexdigest()[:16] in PUBLISHED
    return b"EXAMPLE" in value or b"xxxx" in value.lower() or hashlib.sha256(value).hexdigest()[:16] in PUBLISHED


def redact(value: bytes) -> str:
    """Return the part of a secret that may be shown: its prefix (at most a fifth) and its length."""
    label = re.match(rb"-----BEGIN[A-Z +]{0,40}-----", value)
    if label is None and b"kty" in value:
        return f"JWK… ({len(value)} characters)"
    # Enough to recognise the kind of a token, and never a part of a short password.
    head = label[0] if label else b"" if value.startswith(b"-----") else value[: min(4, len(value) // 5)]
    return f"{head.decode('ascii', 'replace')}… ({len(value)} characters)"


def title(rule: str) -> str:
    more = {"credential": "credential", "password-hash": "password hash", "encrypted-key": "private key (encrypted)"}
    return more.get(rule) or next((shape.title for shape in SHAPES if shape.rule == rule), rule)


def is_ignored(path: str) -> bool:
    """Return whether a file is documentation or a test of a dependency, which contain example secrets."""
    directory, _, name = path.rpartition("/")
    ignored, in_package = _ignored_directory(directory)
    # Tests of a dependency contain keys that its authors published. Tests of the application itself are searched.
    return ignored or (in_package and name.endswith(_EXAMPLE_ENDS))


@lru_cache(maxsize=1024)
def _ignored_directory(directory: str) -> tuple[bool, bool]:
    """Return whether all files in a directory are ignored, and whether it belongs to a dependency.

    Files come by directory, so most answers are known.
    """
    path = f"{directory}/"
    if _DOCUMENTATION.match(path) is not None:
        return True, False
    package = _PACKAGES.search(path)
    if package is None:
        return False, False
    return _TESTS.search(path, package.end() - 1) is not None, True


def _is_configuration(path: str) -> bool:
    """Return whether a file often contains credentials. Only the last two parts of its path are looked at."""
    if path.endswith(_USUAL) and ".env" not in path:
        return False
    return _CONFIGURATIONS.search(path, max(0, path.rfind("/", 0, max(0, path.rfind("/"))))) is not None


def is_placeholder(value: str) -> bool:
    return _PLACEHOLDER.match(value.strip("\"' ")) is not None


def is_secret_variable(name: str, value: str) -> bool:
    """Return whether a variable has a secret's name and a value that is neither a placeholder nor a path."""
    return bool(_NAMES.search(name)) and not _HARMLESS_NAMES.match(name) and not is_placeholder(value)


def in_text(text: str) -> tuple[TextSecret, ...]:
    """Return secrets in an instruction, variable or message: by variable name, by option, by pattern."""
    found = [TextSecret(f"{m[1]}=", *m.span(2)) for m in _ASSIGNMENT.finditer(text) if is_secret_variable(m[1], m[2])]
    found += [
        TextSecret(what, *m.span(1))
        for what, pattern in _COMMANDS
        for m in pattern.finditer(text)
        if not is_placeholder(m[1])
    ]
    data = text.encode("latin-1", "replace")  # one byte per character keeps positions; all patterns are ASCII
    if any(by_literals(data)):
        secrets = islice(chain(_plain_secrets(data), _encoded_secrets(data)), _MAX_SETTINGS)
        found += [TextSecret(title(secret.rule), secret.start, _end(data, secret)) for secret in secrets]
    kept: list[TextSecret] = []
    # Overlapping finds are merged into the longest, so that replacing them leaves no piece of a secret behind.
    for item in sorted(found, key=lambda item: (item.start, -item.end)):
        if not kept or item.start >= kept[-1].end:
            kept.append(item)
    return tuple(kept)


def _end(data: bytes, secret: _Secret) -> int:
    """Return the end of a secret. A key is extended from the matched beginning to its end."""
    rest = _KEY_REST.match(data, secret.end) if data.startswith(b"-----BEGIN", secret.start) else None
    if rest is None and secret.shown.endswith("in base64"):
        rest = _BLOCK.match(data, secret.start)
    elif rest is None and secret.shown.endswith("in hexadecimal"):
        rest = HEX_BLOCK.match(data, secret.start)
    return max(secret.end if rest is None else rest.end(), secret.start + 1)


def without_secrets(text: str) -> str:
    """Return the text with secrets replaced by their length. Text beyond the search limit is cut off."""
    if len(text) > _MAX_TEXT:
        # Cut off before it is searched: what was not searched must not be stored.
        text = f"{text[:_MAX_TEXT]}… ({len(text) - _MAX_TEXT} more characters)"
    # From the end, so that the positions before it stay true.
    for item in reversed(in_text(text)):
        text = f"{text[: item.start]}…({item.end - item.start} characters)…{text[item.end :]}"
    return text


def image_without_secrets(image: Image) -> Image:
    """Return the image without secrets in variables, labels and history, so that it can be stored and shown."""
    config = image.config

    def value(name: str, text: str) -> str:
        return f"…({len(text)} characters)…" if is_secret_variable(_snake(name), text) else without_secrets(text)

    return replace(
        image,
        layers=tuple(replace(layer, created_by=without_secrets(layer.created_by)) for layer in image.layers),
        config=replace(
            config,
            env=tuple((name, value(name, text)) for name, text in config.env),
            labels=tuple((name, value(name, text)) for name, text in config.labels),
            history=tuple(
                replace(
                    entry,
                    created_by=without_secrets(entry.created_by),
                    author=without_secrets(entry.author),
                    comment=without_secrets(entry.comment),
                )
                for entry in config.history
            ),
            author=without_secrets(config.author),
            shell=_words_without_secrets(config.shell),
            user=without_secrets(config.user),
            working_dir=without_secrets(config.working_dir),
            volumes=tuple(map(without_secrets, config.volumes)),
            unspecified=(),
            entrypoint=_words_without_secrets(config.entrypoint),
            cmd=_words_without_secrets(config.cmd),
            onbuild=tuple(map(without_secrets, config.onbuild)),
            healthcheck=config.healthcheck
            and replace(config.healthcheck, test=_words_without_secrets(config.healthcheck.test)),
        ),
        annotations=tuple((name, value(name, text)) for name, text in image.annotations),
    )


def _words_without_secrets(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a command with secrets replaced. An option and its secret may be two words."""
    line = " ".join(words)
    if not in_text(line):
        return words
    hidden, at = [], 0
    found = in_text(line)
    for word in words:
        end = at + len(word)
        touched = any(item.start < end and item.end > at for item in found)
        hidden.append(f"…({len(word)} characters)…" if touched else word)
        at = end + 1
    return tuple(hidden)
