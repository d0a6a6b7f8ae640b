"""What a kind of secret is: an expression for its form, and guards against what only looks like it.

The table of all kinds is ``_secret_catalogue``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from scanner.lazy_dataclasses import dataclass
from scanner.patterns import lazy

# A random value is a checksum or a version if its setting has one of these words: lock files, package records and build
# information are full of them.
_CHECKSUM = lazy(
    rb"(?i)sha-?\d|md5|hash|digest|checksum|integrity|commit|revision|version|fingerprint|etag|build|tree|\.(?:py|js|css)\b"
)
_DIGIT = lazy(rb"[0-9]")  # a word is no key
# The last letters of an escape sequence belong to no word: ``\\nTOKEN`` in JSON, ``token%3DTOKEN`` in an address.
_ESCAPE_BEFORE = rb"|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})"


@dataclass(frozen=True)
class Shape:
    """The pattern of a kind of secret.

    Every match of ``body`` contains one of ``anchors``, and neither begins after a byte of the class ``before`` nor
    ends before one of ``after``. ``body`` has no look-around, so that Hyperscan can search for it; where it is too
    large for that, ``coarse`` are simpler expressions, of which every match of ``body`` contains one. If ``body`` has
    the group ``value``, only that group is the secret: the rest is its surroundings. The group ``name`` is what the
    value is assigned to.

    ``entropy``: the least number of bits per character of the value. ``distinct``: the least number of different
    characters in it. ``identifier``: it names an account or an application, or belongs to a test environment or to
    browsers, and grants little by itself.
    """

    rule: str
    title: str
    anchors: tuple[bytes, ...]
    body: bytes
    before: bytes = b""
    after: bytes = b""
    coarse: tuple[bytes, ...] = ()
    escaped: re.Pattern[bytes] | None = None  # for text with escaped line ends (JSON, URLs, …)
    entropy: float = 0.0
    distinct: int = 0
    identifier: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Everything but ``before``: a pattern that begins with a literal is ten times as fast."""
        return re.compile(self.body + (b"(?!" + self.after + b")" if self.after else b""))

    @cached_property
    def _may_begin(self) -> re.Pattern[bytes]:
        return re.compile(b"(?<!" + self.before + b")" + _ESCAPE_BEFORE if self.before else b"")

    @cached_property
    def value(self) -> str | int:
        """The group of ``pattern`` that is the secret."""
        return "value" if "value" in self.pattern.groupindex else 0

    @property
    def searched(self) -> tuple[bytes, ...]:
        """The expressions for Hyperscan: a file without a match of one of them has no secret of this kind."""
        return self.coarse or (self.body,)

    def matches(self, data: bytes) -> Iterator[re.Match[bytes]]:
        """Yield all matches, first plain, then escaped."""
        # A search for a literal is many times as fast as the expression, and most files have no anchor of most kinds.
        if not any(anchor in data for anchor in self.anchors):
            return
        ends = set()
        match = self.pattern.search(data)
        while match is not None:
            begins = self._may_begin.match(data, match.start()) is not None
            if begins and self._is_credible(match):
                ends.add(match.start())
                yield match
            # After a match that may not begin here, the search goes on one byte later and not at its end: a real
            # token can begin inside of it.
            match = self.pattern.search(data, match.end() if begins else match.start() + 1)
        if self.escaped is not None:
            yield from (match for match in self.escaped.finditer(data) if match.start() not in ends)

    def span(self, match: re.Match[bytes]) -> tuple[int, int]:
        """Return where the secret is. ``match``: one of ``matches``."""
        return match.span(self.value if match.re is self.pattern else 0)

    def _is_credible(self, match: re.Match[bytes]) -> bool:
        value = match[self.value]
        # `ghp_xxxxxxxx…` and rows of zeros are examples in documentation and tests.
        if self.distinct and len(set(value)) < self.distinct:
            return False
        if self.entropy and entropy(value) < self.entropy:
            return False
        if "name" not in self.pattern.groupindex:
            return True
        return _DIGIT.search(value) is not None and _CHECKSUM.search(match["name"]) is None


def entropy(value: bytes) -> float:
    """Return Shannon's entropy in bits per byte: about 3.5 for 32 random hexadecimal digits, 4.5 for base64."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def token(
    rule: str,
    title: str,
    prefixes: str,
    rest: str,
    *,
    before: str = r"[A-Za-z0-9_]",
    after: str = r"[A-Za-z0-9_]",
    distinct: int = 6,
    identifier: bool = False,
) -> Shape:
    """A token that its issuer's prefix makes known. ``prefixes``: literals, separated by blanks."""
    anchors = tuple(prefix.encode() for prefix in prefixes.split())
    alternatives = b"|".join(map(re.escape, anchors))
    body = alternatives if len(anchors) == 1 else b"(?:" + alternatives + b")"
    return Shape(
        rule,
        title,
        anchors,
        body + rest.encode(),
        before=before.encode(),
        after=after.encode(),
        distinct=distinct,
        identifier=identifier,
    )


# After the name: up to 25 more characters of it, what ends a quoted name, the assignment, and what begins a value.
# ``\\*`` before a quote: JSON in a string. ``>``: XML.
_ASSIGNED = rb"(?P<name>[\w .,-]{0,25})[ \t\"'`\\\])]{0,4}(?:=>|[=:,>(]|\|\|)[ \t\"'`\\=(\[{]{0,6}(?P<value>"


def shape_with_name(
    rule: str,
    title: str,
    words: str,
    value: str,
    *,
    before: str = "",
    bits: float = 3.0,
    identifier: bool = False,
) -> Shape:
    """A value without a form of its own: what makes it known is the provider's name in the name that it is assigned to.

    ``words``: the spellings of the provider's name, in lower case, separated by blanks. Each is also recognised
    capitalised and in upper case. ``bits``: the least entropy, because a word or a row of zeros is no key.
    """
    # Three spellings instead of a flag for any case: literals are what the fast search can look for.
    spellings = dict.fromkeys(form for word in words.split() for form in (word, word.capitalize(), word.upper()))
    anchors = tuple(spelling.encode() for spelling in spellings)
    body = b"(?:" + b"|".join(map(re.escape, anchors)) + b")" + _ASSIGNED + value.encode() + b")"
    return Shape(
        rule,
        title,
        anchors,
        body,
        before=before.encode(),
        after=rb"[A-Za-z0-9_+/=-]",
        entropy=bits,
        identifier=identifier,
    )
