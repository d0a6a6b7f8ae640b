"""How inputs are made: a seed of the corpus, changed in a few places; a JSON document also in its values, where its
text stays JSON.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# What readers stumble over: ends of ranges, empty and huge things, control characters, other types than are expected.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.5,
    1e308,
    2**31,
    2**63,
    2**64,
    -(2**63),
    "",
    " ",
    "\0",
    "\ud800",
    "\u202e",
    "a" * 5000,
    "../../etc/passwd",
    "1e9999",
    "NaN",
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00Z",
    "sha256:" + "0" * 64,
    "linux/amd64",
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    [None] * 50,
    {"a": {"b": {"c": {}}}},
)
ODD_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\xff" * 8,
    b"\n",
    b":",
    b'"',
    b"{",
    b"]",
    b"\\u0000",
    b"\xed\xa0\x80",
    b"9" * 40,
    b"-1",
    b"\x80\0\0\0\0\0\0\0\xff\xff\xff\xff",
    b"ustar\0",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"-----BEGIN CERTIFICATE-----",
    b"..",
    b"%s",
    b"*" * 64,
)
_POSITIONS = st.floats(0, 1, exclude_max=True)


def inputs(seeds: Sequence[bytes], *, is_json: bool) -> st.SearchStrategy[bytes]:
    """Inputs of one target."""
    seed = st.sampled_from(list(seeds))
    changed = st.builds(_edited, seed, st.lists(st.tuples(_POSITIONS, _POSITIONS, _edits()), min_size=1, max_size=4))
    ways = [seed, changed, st.builds(_spliced, seed, seed, _POSITIONS, _POSITIONS), st.binary(max_size=200)]
    if is_json:
        revised = st.builds(_revised, seed, st.lists(st.tuples(_POSITIONS, _values()), min_size=1, max_size=3))
        ways = [revised, revised, revised, *ways]
    return st.one_of(ways)


def _edits() -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(ODD_BYTES), st.binary(max_size=16))


def _values() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.sampled_from(ODD_VALUES), st.text(max_size=20), st.integers(), st.just(_REMOVED), st.just(_RENAMED)
    )


_REMOVED, _RENAMED = object(), object()


def _edited(seed: bytes, edits: Sequence[tuple[float, float, bytes]]) -> bytes:
    """Pieces of it are replaced: mostly short ones, now and then all that follows."""
    data = bytearray(seed)
    for where, length, piece in edits:
        at = int(where * (len(data) + 1))
        size = int(length**4 * len(data)) if length > 0.2 else 0
        data[at : at + size] = piece
    return bytes(data)


def _spliced(first: bytes, second: bytes, where: float, there: float) -> bytes:
    return first[: int(where * len(first))] + second[int(there * len(second)) :]


def _revised(seed: bytes, changes: Sequence[tuple[float, Any]]) -> bytes:
    """The document with other values somewhere in it."""
    try:
        document = json.loads(seed)
    except ValueError:
        return seed
    for where, value in changes:
        places = list(_places(document))
        if not places:
            return json.dumps(value if value not in (_REMOVED, _RENAMED) else {}).encode("utf-8", "surrogatepass")
        holder, key = places[int(where * len(places))]
        if value is _REMOVED:
            del holder[key]
        elif value is _RENAMED:
            if isinstance(holder, dict):
                holder[str(key).upper()] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(value)  # else a value could be put into itself
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
