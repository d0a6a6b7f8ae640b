"""Trust documents: the examples of the documentation are valid, and what is none is said to be none."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.trust._documents import load_document

EXAMPLES = sorted((Path(__file__).parents[3] / "examples/trust").iterdir())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_valid(file: Path) -> None:
    scheme = next(
        scheme for name, scheme in catalog.schemes().items() if file.name.startswith(name.removesuffix("-v1"))
    )
    assert scheme.parse_trust(file.read_bytes(), str(file))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a trust document"),
        (b"[1]", "not a trust document"),
        (b'{"a": 1, "a": 2}', "has a member twice"),
        (b"a: 1\na: 2\n", "line 2"),
        (b"a: &x [1]\nb: *x\n", "YAML aliases are not allowed"),
        (b"\xff\xfe", "neither PEM, JSON nor YAML"),
        (b"a: !!python/object:os.system {}", "could not determine a constructor"),
        (b"[" * 50000, "nested too deep"),
        (b"- " * 5000, "neither PEM, JSON nor YAML"),
        (b"a: " + b"a" * (200 << 10), "larger than 128 KiB"),
        (b"a" * (2 << 20), "larger than"),
    ],
)
def test_what_is_no_document(data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=r"^here: ") as caught:
        load_document(data, "here")
    assert words in str(caught.value)
