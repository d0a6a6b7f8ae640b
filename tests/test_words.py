"""Words that must not come back: the texts that users read use plain English and the field's terms.

Covers templates, documentation, examples and the string literals of the code; docstrings are prose for maintainers
and are left out. The list is short on purpose: it holds what was found and replaced, not a style guide.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each pattern with the text to write instead.
BANNED = {
    r"\bbills?\b": "SBOM",
    r"\b(take|taken|took|takes) (the|their|its) word\b": "trust the SBOM",
    r"\bwhoever\b": "name the role",
    r"\bwhomever\b|\bto whom it\b|\bwhom it\b": "applies to",
    r"\bthereby\b|\bwherein\b|\bwhereof\b": "two sentences",
    r"\bask to accept\b": "Request exemption",
    r"\bNot decided: denied\b": "Undecided (denied)",
    r"\bunder a name\b": "tagged",
    r"\bRows on screen\b": "Export this page",
    r"\bAll that fit\b": "Export all",
    r"\bwhat came of it\b": "outcome",
    r"\bAnother password\b": "Change password",
    r"\bspeaks? against\b": "violates",
    r"\bsays of itself\b": "declares",
    r"\bput in force\b|\bout of force\b": "enable, disable",
    r"\bfound nothing out\b": "failed",
    r"\bof no image\b": "not an image manifest",
}
_PATTERN = re.compile("|".join(f"(?P<w{i}>{word})" for i, word in enumerate(BANNED)), re.IGNORECASE)


def _lines_of_prose() -> Iterator[tuple[Path, int, str]]:
    paths = [ROOT / "README.md", ROOT / "compose.yaml"]
    for folder in ("web/templates", "docs", "examples"):
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".html", ".md", ".yaml", ".env"}]
    for path in sorted(paths):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield path, number, line


def _string_literals(room: str) -> Iterator[tuple[Path, int, str]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield path, node.lineno, node.value


def _found(texts: Iterator[tuple[Path, int, str]]) -> list[str]:
    instead = list(BANNED.values())
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {instead[int(str(match.lastgroup)[1:])]!r}"
        for path, number, text in texts
        for match in _PATTERN.finditer(text)
    ]


def test_pages_and_documentation_use_plain_words() -> None:
    found = _found(_lines_of_prose())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", ["web"])
def test_messages_use_plain_words(room: str) -> None:
    found = _found(_string_literals(room))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    ["ask to accept it", "Rows on screen as CSV", "said by Whoever pushed", "the bill's word", "40 under a name"],
)
def test_a_banned_word_is_found_and_named_with_its_line(text: str) -> None:
    assert _found(iter([(ROOT / "docs/pages.md", 7, text)]))[0].startswith("docs/pages.md:7: ")


def test_similar_words_are_not_banned() -> None:
    assert not _found(
        iter([(ROOT / "docs/pages.md", 7, "a billing service is billed: posturing, named by its digest")])
    )


def test_the_readme_links_every_page_of_the_documentation() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f"](docs/{page.name})" not in readme]
    assert missing == []
