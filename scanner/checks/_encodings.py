"""Encoded text inside files: UTF-16, UTF-32, base64, hexadecimal, gzip in base64, and escapes of JSON, YAML,
JavaScript and URLs.

An encoding is detected by literals that it must contain, so a file without them costs one pass of RE2. Decoding is
limited: each block is decoded once, to two levels of nesting. Decompression has a limit of its own.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from scanner.patterns import lazy, lazy_re2

# Line ends, spaces and string concatenation as written in JSON, nested JSON, YAML, JavaScript, shells, Python and URLs.
GLUE = (
    rb"(?:\n\s*(?:#|//|\*)|[\s\"'`,+|.>]|PHP_EOL|\\+(?:[nrt\"'/]|u00(?:0[9aAdD]|2[027])|x(?:0[9aAdD]|20)|0?1[25])|\\"
    rb"|%(?:25)*(?:0[9aAdD]|20|22)|&#(?:x[aAdD]|1[03]|32);|&quot;|<br ?/?>)"
)
# Characters of base64, also escaped by JSON and URLs.
BASE64 = rb"(?:[A-Za-z0-9+/=]|\\+/|\\+u00(?:2[bBfF]|3[dD])|%(?:25)*(?:2[bBfF]|3[dD]))"
DASH = rb"(?:-|%(?:25)*2[dD]|\\+u002[dD]|\\+x2[dD]|&#(?:x2[dD]|45);)"
SPACE = rb"(?: |\+|%(?:25)*20|\\+u0020|\\+x20)"

# ASCII in UTF-16 or UTF-32 (little endian): each character is followed by zeros.
_WIDE_TEXT = lazy_re2(rb"(?:[\t\r\n -~]\x00{1,3}){16,}")
_TOKEN = lazy_re2(rb"[A-Za-z0-9+/_-]{16,}")
# As little glue as possible: a last line can begin with ``+``, which stands between two lines in a program.
_REST = lazy_re2(rb"(?:" + GLUE + rb"){1,8}?([+/_-]*[A-Za-z0-9][A-Za-z0-9+/_-]{0,14})")
_ONLY_GLUE = lazy_re2(rb"(?:" + GLUE + rb"|=)*")
# A line break as JSON, YAML and URLs write it within one string.
_LINE_END = lazy_re2(rb"\\+[nrt]|\\+u000[aAdD9]|%0[aAdD]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
# Between the bytes of hexadecimal text: nothing, spaces, line ends, or the syntax of a programming language, a URL or
# HTML (``0x2d, 0x2d``, ``\\x2d\\x2d``, ``\\u002d``, ``%2D``, ``&#x2d;``).
_BETWEEN = rb"(?:[\s,:;\"'%]|0[xX]|\\+x|\\+u00|&#[xX]){0,8}"
# Forty bytes: shorter ones are digests and colours.
HEX_BLOCK = lazy_re2(rb"(?:" + _BETWEEN + rb"[0-9A-Fa-f]{2}){40,}")
_NO_HEX = lazy(rb"0[xX]|\\+x|\\+u00|[^0-9A-Fa-f]")
# Bytes as decimal numbers: arrays of programs, and a Buffer of Node.js in JSON.
_DECIMAL_BLOCK = lazy_re2(rb"(?:[0-9]{1,3}[\s,;&#]{1,8}){40,}")
_DECIMAL = lazy(rb"[0-9]+")
GZIP = b"\x1f\x8b\x08"
_LEAST_WRAPPED_LINE = 40  # the shortest line length at which tools wrap base64
_FAR = 80  # bytes between two lines of one block


class DecodedText(NamedTuple):
    """A decoded text and the offset of its encoded form in the file."""

    text: bytes
    start: int


def wide(literals: Iterable[bytes]) -> str:
    """Return a pattern for the literals in UTF-16 or UTF-32, little or big endian."""
    return "|".join("\\x00{1,3}".join(re.escape(chr(byte)) for byte in literal) for literal in literals)


def in_base64(literal: bytes) -> Iterator[bytes]:
    """Yield the base64 forms of a literal: one for each offset in a group of three bytes, in both alphabets."""
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + literal)
        # Without the first and last characters that also hold bits of the neighbouring bytes: those vary with what
        # stands beside the literal.
        form = encoded[-(-shift * 8 // 6) : (shift + len(literal)) * 8 // 6]
        yield form
        if set(form) & set(b"+/"):
            yield form.translate(bytes.maketrans(b"+/", b"-_"))


def utf16_parts(data: bytes) -> Iterator[DecodedText]:
    """Yield the ASCII parts of UTF-16 and UTF-32 text in a file."""
    for match in _WIDE_TEXT.finditer(data):
        yield DecodedText(match[0].replace(b"\0", b""), match.start())


def base64_blocks(data: bytes, marks: re.Pattern[bytes]) -> Iterator[DecodedText]:
    """Yield decoded blocks of base64 that contain ``marks`` (literals in base64). Wrapped lines are joined."""
    # Replaced by as many spaces, so that offsets in the file stay true for the evidence.
    flat = _LINE_END.sub(lambda m: b" " * len(m[0]), data) if b"\\" in data or b"%" in data else data
    block: list[bytes] = []
    start = end = 0
    for match in _TOKEN.finditer(flat):
        joins = (
            block and len(block[-1]) >= _LEAST_WRAPPED_LINE and len(block[-1]) % 4 == 0 and match.start() - end <= _FAR
        )
        if not (joins and _ONLY_GLUE.fullmatch(flat, end, match.start())):
            yield from _block([*block, *_last_line(flat, end, block)], start, marks)
            block, start = [], match.start()
        block.append(match[0])
        end = match.end()
    yield from _block([*block, *_last_line(flat, end, block)], start, marks)


def _last_line(flat: bytes, end: int, block: list[bytes]) -> Iterator[bytes]:
    """What is left for the last line of a wrapped block, too short to be looked for. DER is none without it."""
    if block and len(block[-1]) >= _LEAST_WRAPPED_LINE and len(block[-1]) % 4 == 0:
        found = _REST.match(flat, end)
        if found is not None:
            yield found[1]


def _block(tokens: list[bytes], start: int, marks: re.Pattern[bytes]) -> Iterator[DecodedText]:
    text = b"".join(tokens)
    # Most tokens of 16 letters are words, hashes and identifiers. The marks keep them from being decoded at all.
    if not text or marks.search(text) is None:
        return
    text = text.translate(_URL_SAFE)
    for offset in range(4):  # preceding letters may belong to the alphabet and shift the groups
        if (found := from_base64(text[offset:])) is not None:
            yield DecodedText(found, start)


def from_base64(text: bytes) -> bytes | None:
    """Decode base64 with or without padding. None: invalid."""
    text = text.translate(_URL_SAFE).rstrip(b"=")
    # One character more than whole groups cannot be base64: it belongs to what follows.
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def in_hex(literal: bytes) -> bytes:
    """Return a pattern for a literal in hexadecimal. Its digits must be 0 to 9, so that the case does not matter."""
    assert literal.hex().isdigit()
    return _BETWEEN.join(b"%02x" % byte for byte in literal)


def from_hex(data: bytes, literal: bytes) -> Iterator[DecodedText]:
    """Yield the decoded hexadecimal blocks that contain ``literal``."""
    digits = literal.hex().encode()
    for match in HEX_BLOCK.finditer(data):
        text = _NO_HEX.sub(b"", match[0])
        at = text.find(digits)
        if at >= 0:
            text = text[at % 2 :]  # skip a hexadecimal digit that belongs to the text before
            start = match.end() - len(match[0].lstrip())  # the block may begin with the end of the line before
            yield DecodedText(bytes.fromhex(text[: len(text) // 2 * 2].decode()), start)


def in_decimal(literal: bytes) -> bytes:
    """Return a pattern for a literal as decimal numbers."""
    return rb"[\s,;&#]{1,8}".join(b"%d" % byte for byte in literal)


def from_decimal(data: bytes, mark: re.Pattern[bytes]) -> Iterator[DecodedText]:
    """Yield the decoded blocks of decimal numbers that contain ``mark``."""
    for match in _DECIMAL_BLOCK.finditer(data):
        if mark.search(match[0]) is not None:
            numbers = map(int, _DECIMAL.findall(match[0]))
            yield DecodedText(bytes(number for number in numbers if number < 256), match.start())


def gunzip(data: bytes, most: int) -> bytes:
    """Return up to ``most`` decompressed bytes, also of a truncated stream; nothing if the data is not gzip."""
    if not data.startswith(GZIP):
        return b""
    try:
        # `most` is enforced by zlib, so a decompression bomb costs no more memory than the limit.
        return zlib.decompressobj(wbits=31).decompress(data, most)
    except zlib.error:
        return b""


def as_text(data: bytes) -> str:
    """Decode a configuration file: UTF-16 or UTF-32 by byte order mark or zero bytes, otherwise UTF-8."""
    for mark, name in (
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"\xef\xbb\xbf", "utf-8-sig"),
    ):
        if data.startswith(mark):
            return data.decode(name, "replace")
    head = data[:400]
    # Text without a mark: in UTF-16 every second byte of ASCII is zero, in UTF-32 three of four.
    if head.count(0) * 3 >= len(head) > 0:
        width = "utf-32" if head.count(0) * 3 >= len(head) * 2 else "utf-16"
        little = head[0] != 0
        return data.decode(f"{width}-{'le' if little else 'be'}", "replace")
    return data.decode("utf-8", "replace")
