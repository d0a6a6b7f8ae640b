"""The one search that runs over every byte of all files: which kinds of secrets may a file contain, and is something
encoded in it?

Hyperscan searches for all kinds in one pass, ten times as fast as RE2. Where it is not installed (other processors),
RE2 does. Both only select files: what a secret is, the patterns of ``_secret_catalogue`` decide, so both find the same.
"""

from __future__ import annotations

import contextlib
import platform
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scanner.checks._encodings import in_base64, in_decimal, in_hex, wide
from scanner.checks._secret_catalogue import SHAPES
from scanner.checks._secret_shapes import Shape
from scanner.patterns import lazy_re2
from scanner.sealed import SealedFiles

_ANCHORS = tuple(dict.fromkeys(anchor for shape in SHAPES for anchor in shape.anchors))
# Literals that are long enough to be recognised in base64, where each has three forms.
_IN_BASE64 = (
    b"PRIVATE KEY-----",
    b"private_key_id",
    b'"auths"',
    b"aws_secret_access_key",
    b"AccountKey=",
    b"github_pat_",
    b"hooks.slack.com",
    b"AGE-SECRET-KEY-1",
    b"PuTTY-User-Key",
    b"client-key-data",
    b'"kty":',
    b"openssh-key-v1\0",
)
_KEY_FORMS = tuple(in_base64(b"PRIVATE KEY-----"))
# Base64 in base64 (manifests in manifests), and UTF-16 in base64 (PowerShell).
_OF_UTF16 = tuple("PRIVATE KEY-----".encode(name) for name in ("utf-16-le", "utf-16-be"))
# The start of a private key in DER, after its length. Settings and JSON contain it in base64 without a PEM frame.
_DER_LITERALS = tuple(
    map(
        bytes.fromhex,
        (
            "020100300d06092a864886f70d010101050004",  # PKCS #8: RSA
            "020100301306072a8648ce3d0201",  # PKCS #8: P-256
            "020100301006072a8648ce3d0201",  # PKCS #8: the other curves
            "020100300506032b65",  # PKCS #8: Ed25519, Ed448, X25519, X448
            "02010002818100",  # PKCS #1, by the size of the modulus
            "0201000282010100",
            "0201000282018100",
            "0201000282020100",
            "30770201010420",  # SEC 1
            "3081a40201010430",
            "3081dc0201010442",
            "06092a864886f70d01050d",  # PKCS #8, encrypted with PBES2
            "060b2a864886f70d010c0a0101",  # PKCS #12: a key
            "060b2a864886f70d010c0a0102",  # PKCS #12: an encrypted key
        ),
    )
)
# gzip in base64, with or without a file name (Terraform's base64gzip, Helm), and once more in base64 (Helm releases).
_OF_GZIP = (b"H4sIA", b"H4sIC", b"SDRzSUF", b"SDRzSUN")
_FORMS = tuple(
    form for literal in (*_IN_BASE64, *_KEY_FORMS, *_OF_UTF16, *_DER_LITERALS) for form in in_base64(literal)
)
MARKS = lazy_re2(b"|".join(map(re.escape, (*_FORMS, *_OF_GZIP))))
HEX_LITERAL = b"PRIVATE "
HEX_MARK = lazy_re2(in_hex(HEX_LITERAL))
DECIMAL_MARK = lazy_re2(in_decimal(HEX_LITERAL))
_IN_UTF16 = (
    b"PRIVATE KEY",
    b"PRIVATE+KEY",
    b"PRIVATE%20KEY",
    b"aws_secret",
    b"private_key_id",
    b"AccountKey",
    b"github_pat_",
    b"ghp_",
    b"glpat-",
    b"xoxb-",
    b"AKIA",
    b"hooks.slack.com",
)
WIDE = lazy_re2(lambda: wide((*_IN_UTF16, *_FORMS)).encode())
# A Kubernetes Secret, also as JSON within a string: its values are base64.
MANIFEST = lazy_re2(rb"kind\\*[\"']?\s{0,8}:\s{0,8}\\*[\"']?Secret\\*[\"']?(?:\s|,|\}|\\)")
# For short texts: their anchors, which compile in a tenth of the time of the expressions.
_LITERAL = lazy_re2(
    lambda: b"|".join(
        (
            *map(re.escape, _ANCHORS),
            *(found.pattern for found in (MARKS, WIDE, MANIFEST, HEX_MARK, DECIMAL_MARK)),
        ),
    ),
    memory=64 << 20,
)
_GROUP_NAME = re.compile(rb"\(\?P<\w+>")  # RE2 refuses a name twice
# Without Hyperscan: RE2 searches for all expressions in one pass. Half of all files contain an anchor, such as the
# name of a provider, and hardly one an expression.
_EXPRESSION = lazy_re2(
    lambda: b"|".join(_GROUP_NAME.sub(b"(?:", b"(?s:" + expression + b")") for _, expression in _expressions()),
    memory=256 << 20,
)
_KEPT_BYTES = 16 << 20
_WIDE_PREFIX = 7  # characters; the whole literals as expressions would take half a second to compile


class Candidates(NamedTuple):
    """What a file may contain: secrets of these shapes as they are, and ``encoded`` ones."""

    shapes: Sequence[Shape]
    encoded: bool


_NO_CANDIDATES = Candidates((), encoded=False)
_ALL_CANDIDATES = Candidates(SHAPES, encoded=True)
Select = Callable[[bytes | memoryview], Candidates]


def by_literals(data: bytes | memoryview) -> Candidates:
    """Select a short text by literals, all or nothing."""
    return _NO_CANDIDATES if _LITERAL.search(data) is None else _ALL_CANDIDATES


def by_re2(data: bytes | memoryview) -> Candidates:
    """Select with RE2, all or nothing."""
    return _NO_CANDIDATES if _EXPRESSION.search(data) is None else _ALL_CANDIDATES


def by_expressions(kept: SealedFiles | None = None) -> Select | None:
    """Return the selection by Hyperscan; None where it is not installed, or the processor has not what it needs.

    ``kept``: keeps the compiled database, which takes some tenths of a second to compile.
    """
    try:
        import hyperscan
    except ImportError:
        return None
    try:
        database = _database(hyperscan, kept)
        hyperscan.Scratch(database)
    except hyperscan.error:
        return None
    own = threading.local()  # the scratch memory of a running search belongs to one thread

    def select(data: bytes | memoryview) -> Candidates:
        scratch = getattr(own, "scratch", None)
        if scratch is None:
            scratch = own.scratch = hyperscan.Scratch(database)
        found: list[int] = []
        database.scan(data, match_event_handler=_note, context=found, scratch=scratch)
        if not found:
            return _NO_CANDIDATES
        numbers = sorted(set(found))
        encoded = numbers[-1] == len(SHAPES)
        return Candidates([SHAPES[number] for number in numbers if number < len(SHAPES)], encoded)

    return select


def _database(hyperscan: Any, kept: SealedFiles | None) -> Any:
    """Return the compiled expressions. The name of the kept form contains everything that it depends on."""
    expressions = list(_expressions())
    # A compiled database belongs to one version of the library and to one kind of processor. The machine's name
    # stands for the processor, because a home directory can be shared by several machines.
    name = repr(("hyperscan", hyperscan.__version__, platform.machine(), platform.node(), expressions))
    known = kept.get(name) if kept else None
    if known is not None:
        with contextlib.suppress(hyperscan.error):  # of another processor: a state directory can move
            database = hyperscan.loadb(known, hyperscan.HS_MODE_BLOCK)
            hyperscan.Scratch(database)
            return database
    database = _compiled_database(hyperscan, expressions)
    if kept:
        kept.put(name, hyperscan.dumpb(database))
    return database


def _compiled_database(hyperscan: Any, expressions: Sequence[tuple[int, bytes]]) -> Any:
    # One match of each expression is enough: it selects the file. Reporting every match of a large file would take
    # longer than searching it.
    flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[expression for _, expression in expressions],
        ids=[number for number, _ in expressions],
        elements=len(expressions),
        flags=[flags] * len(expressions),
    )
    return database


def _note(number: int, start: int, end: int, flags: int, found: list[int]) -> None:
    """The callback of Hyperscan for a match."""
    found.append(number)


def _expressions() -> Iterator[tuple[int, bytes]]:
    """Yield the number of each shape with its expressions, and one more number for everything encoded."""
    for number, shape in enumerate(SHAPES):
        yield from ((number, expression) for expression in shape.searched)
    prefixes = dict.fromkeys(literal[:_WIDE_PREFIX] for literal in (*_IN_UTF16, *_FORMS))
    encoded = (
        *map(re.escape, (*_FORMS, *_OF_GZIP)),
        *(wide((prefix,)).encode() for prefix in prefixes),
        MANIFEST.pattern,
        HEX_MARK.pattern,
        DECIMAL_MARK.pattern,
    )
    yield from ((len(SHAPES), expression) for expression in encoded)


@cache
def selection(directory: Path | None = None) -> Select:
    """Return the fastest selection of this machine. ``directory``: keeps what takes time to compile."""
    found = by_expressions(SealedFiles(directory, _KEPT_BYTES) if directory else None) or by_re2
    _loaded_searches[:] = [found]
    return found


_loaded_searches: list[Select] = []  # the selection of this process, once one was asked for


def by_fastest(data: bytes | memoryview) -> Candidates:
    """Select with what this process has loaded already. RE2 takes less time to compile than Hyperscan."""
    return (_loaded_searches[0] if _loaded_searches else by_re2)(data)
