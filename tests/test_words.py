"""Words that must not come back: the texts that users read use plain English and the field's terms.

Covers templates, documentation, examples, and the string literals, docstrings and comments of the code. The lists are
short on purpose: they hold what was found and replaced, not a style guide.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
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
    r"\bspeaks? (no|TLS)\b": "does not use TLS, accepts TLS 1.2",
    r"\bvouch(es|ed)?\b": "verifies, signed by",
    r"\banybody may\b": "anyone can",
    r"\btaken out\b|\btook out\b": "removed, deleted",
}
# What made a reader of the code stop. Names are not searched: a variable may be called ``told``.
BANNED_IN_CODE = {
    r"\b(any|some)body\b": "a user, a client, an attacker",
    r"\bwhom\b": "say which role it is",
    r"\bin force\b": "current, enabled, active",
    r"\b(is|are|was|were|be) (told|said|heard)\b": "reported, recorded, known",
    r"\btold (of|about|where)\b": "recorded",
    r"\bwhat (it|they|there) (is|are) of\b": "name the thing",
    r"\bgone through\b": "processed",
}
ROOMS = ("web", "scanner", *sorted(f"scanner/{room.parent.name}" for room in (ROOT / "scanner").glob("*/__init__.py")))


def _lines_of_prose() -> Iterator[tuple[Path, int, str]]:
    paths = [ROOT / "README.md", ROOT / "compose.yaml"]
    for folder in ("web/templates", "docs", "examples"):
        paths += [path for path in (ROOT / folder).rglob("*") if path.suffix in {".html", ".md", ".yaml", ".env"}]
    for path in sorted(paths):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            yield path, number, line


def _modules(room: str) -> list[Path]:
    """The modules of a room. Those directly in ``scanner`` belong to no other."""
    folder = ROOT / room
    return sorted(folder.glob("*.py") if room == "scanner" else folder.rglob("*.py"))


def _string_literals(room: str) -> Iterator[tuple[Path, int, str]]:
    for path in _modules(room):
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


def _docstrings_and_comments(room: str) -> Iterator[tuple[Path, int, str]]:
    for path in _modules(room):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, getattr(node, "lineno", 1), " ".join((ast.get_docstring(node) or "").split())
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield path, token.start[0], token.string


def _found(texts: Iterator[tuple[Path, int, str]], banned: Mapping[str, str] = BANNED) -> list[str]:
    pattern = re.compile("|".join(f"(?P<w{i}>{word})" for i, word in enumerate(banned)), re.IGNORECASE)
    instead = list(banned.values())
    return [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {instead[int(str(match.lastgroup)[1:])]!r}"
        for path, number, text in texts
        for match in pattern.finditer(text)
    ]


def test_pages_and_documentation_use_plain_words() -> None:
    found = _found(_lines_of_prose())
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_messages_use_plain_words(room: str) -> None:
    found = _found(_string_literals(room), BANNED | BANNED_IN_CODE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_and_comments_use_plain_words(room: str) -> None:
    found = _found(_docstrings_and_comments(room), BANNED | BANNED_IN_CODE)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    ["ask to accept it", "Rows on screen as CSV", "said by Whoever pushed", "the bill's word", "40 under a name"],
)
def test_a_banned_word_is_found_and_named_with_its_line(text: str) -> None:
    assert _found(iter([(ROOT / "docs/pages.md", 7, text)]))[0].startswith("docs/pages.md:7: ")


@pytest.mark.parametrize("text", ["if somebody asks", "the user, to whom it belongs", "it is told by the registry"])
def test_a_riddle_in_a_docstring_is_found(text: str) -> None:
    assert _found(iter([(ROOT / "scanner/store/scans.py", 7, text)]), BANNED_IN_CODE)


def test_similar_words_are_not_banned() -> None:
    assert not _found(
        iter([(ROOT / "docs/pages.md", 7, "a billing service is billed: posturing, named by its digest")])
    )


def test_the_readme_links_every_page_of_the_documentation() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if f"](docs/{page.name})" not in readme]
    assert missing == []
