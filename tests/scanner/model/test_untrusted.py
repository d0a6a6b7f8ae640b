"""The one JSON loader for everything from outside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import ImageError, RemoteError, UsageError
from scanner.model.untrusted import clean_text, escaped, load_untrusted_json, nesting_depth

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_reads_what_json_writes(value: object) -> None:
    assert load_untrusted_json(json.dumps(value).encode()) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1, "\\u0061": 2}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"1" * 41,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"",
        b"{",
        b'{"a": 1} {}',
        b'"\\',
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 200_000,
        b'"' + b'\\"' * 200_000,
    ],
)
def test_refuses(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        load_untrusted_json(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert load_untrusted_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_brackets_inside_strings_are_not_nesting() -> None:
    assert load_untrusted_json(b'["' + b"[" * 1000 + b'\\"]"]') == ["[" * 1000 + '"]']


def test_depth_and_size_are_inclusive() -> None:
    assert load_untrusted_json(b"[" * 64 + b"]" * 64, depth=64) is not None
    assert load_untrusted_json(b"[1]", limit=3) == [1]
    with pytest.raises(RemoteError):
        load_untrusted_json(b"[1 ]", limit=3, error=RemoteError)


def test_the_callers_error_and_reason_are_used() -> None:
    with pytest.raises(UsageError) as caught:
        load_untrusted_json(b"{", error=UsageError, reason="bad_json")
    assert caught.value.reason == "bad_json"


def test_foreign_text_becomes_one_safe_line() -> None:
    assert clean_text("a\nb\x1b[31mc\u202ed\x00\ud800e") == "a\ufffdb\ufffd[31mc\ufffdd\ufffd\ufffde"
    assert clean_text("Grüße, 世界") == "Grüße, 世界"


def test_foreign_text_is_cut() -> None:
    assert clean_text("x" * 10, 10) == "x" * 10
    assert clean_text("x" * 11, 10) == "x" * 9 + "\N{HORIZONTAL ELLIPSIS}"


def test_half_pairs_are_mended_where_a_runtime_would() -> None:
    document = b'{"\\ud800": ["a\\udfffb", 1], "pair": "\\ud83d\\ude00"}'
    mended = load_untrusted_json(document, mend_text=True)
    assert mended == {"\ufffd": ["a\ufffdb", 1], "pair": "\N{GRINNING FACE}"}
    with pytest.raises(ImageError):
        load_untrusted_json(b'{"\\ud800": 1, "\\udfff": 2}', mend_text=True)


@pytest.mark.parametrize(
    ("data", "depth"),
    [(b"", 0), (b"[]{}", 1), (b'{"a": [{}]}', 3), (b'"[[["', 3), (b"]]][", 1), (b"[" * 1000, 1000), (b"- - -", 0)],
)
def test_nesting_counts_brackets_wherever_they_stand(data: bytes, depth: int) -> None:
    assert nesting_depth(data) == depth


@dataclass(frozen=True)
class _Holder:
    text: str
    more: tuple[object, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("bin/\udcff", "bin/\\xff"), ("\udc80\udcfe", "\\x80\\xfe"), ("a\ud800b", "a\\ud800b"), ("é/😀", "é/😀")],
)
def test_what_has_no_utf_8_form_is_escaped(name: str, shown: str) -> None:
    made = escaped(_Holder(name, (name, (name, 1, None), _Holder(name)), {name: name}))
    assert made == _Holder(shown, (shown, (shown, 1, None), _Holder(shown)), {shown: shown})
    repr(made).encode()


def test_what_needs_no_escape_stays_the_same_object() -> None:
    made = _Holder("é", ("a", _Holder("b")))
    assert escaped(made) is made
