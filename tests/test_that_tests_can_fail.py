"""A test that cannot fail proves nothing: each one asserts, expects an error, or calls a helper that does."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Calls of libraries that raise when what they check is not so.
CHECKING_CALLS = frozenset({"call_and_validate", "validate_response", "run_state_machine_as_test"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _calls(tree: ast.AST) -> Iterator[str]:
    """The last name of everything that is called: ``raises`` of ``pytest.raises(...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def _says_the_same_twice(compared: ast.Compare) -> bool:
    """Whether both sides are one value. Two equal calls are two answers, which may differ."""
    sides = [compared.left, *compared.comparators]
    return len({ast.dump(side) for side in sides}) == 1 and not any(_calls(compared))


def _can_fail(checked: ast.Assert) -> bool:
    """Not so a constant, a tuple with a message in it, and a value compared with itself."""
    if isinstance(checked.test, ast.Constant):
        return checked.test.value is False
    if isinstance(checked.test, ast.Tuple | ast.JoinedStr):
        return False
    return not (isinstance(checked.test, ast.Compare) and _says_the_same_twice(checked.test))


def _is_property(function: Function) -> bool:
    """Hypothesis looks for an input that raises: what must not be raised is the claim, and anything unnamed fails."""
    return any("given" in _calls(decorator) for node in _functions(function) for decorator in node.decorator_list)


def _checks_itself(function: Function) -> bool:
    if _is_property(function):
        return True
    asserts = any(isinstance(node, ast.Assert) and _can_fail(node) for node in ast.walk(function))
    return asserts or any(
        name in ("raises", "fail", "warns") or name in CHECKING_CALLS or name.startswith("assert_")
        for name in _calls(function)
    )


@dataclass(frozen=True)
class Read:
    """A function of the tests: whether it checks something itself, and whom it calls."""

    name: str
    file: Path
    checks_itself: bool
    calls: frozenset[str]


def _read(trees: Mapping[Path, ast.AST]) -> list[Read]:
    return [
        Read(function.name, file, _checks_itself(function), frozenset(_calls(function)))
        for file, tree in trees.items()
        for function in _functions(tree)
    ]


def _cannot_fail(trees: Mapping[Path, ast.AST]) -> list[str]:
    functions = _read(trees)
    named: dict[str, list[Read]] = {}
    for function in functions:
        if not function.name.startswith("test_"):
            named.setdefault(function.name, []).append(function)

    def meant(name: str, file: Path) -> list[Read]:
        """A name means the function of its own file; elsewhere any that bears it may be meant."""
        return [helper for helper in named.get(name, ()) if helper.file == file] or named.get(name, [])

    checking = {function for function in functions if function.checks_itself}
    while True:
        more = {
            function
            for function in functions
            if function not in checking
            and any((helpers := meant(name, function.file)) and checking.issuperset(helpers) for name in function.calls)
        }
        if not more:
            break
        checking |= more
    return [f"{test.file}: {test.name}" for test in functions if test.name.startswith("test_") and test not in checking]


@lru_cache(maxsize=1)
def _trees() -> dict[Path, ast.Module]:
    return {file.relative_to(ROOT): ast.parse(file.read_text()) for file in TESTS}


def test_every_test_can_fail() -> None:
    assert _cannot_fail(_trees()) == [], "nothing in it asserts: say what must be so"


def test_every_assertion_can_fail() -> None:
    found = [
        f"{file}:{node.lineno}"
        for file, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and not _can_fail(node)
    ]
    assert found == [], "this is so whatever the code does"


@pytest.mark.parametrize(
    ("body", "can_fail"),
    [
        ("run()", False),
        ("result = run()\n  result.close()", False),
        ("assert True", False),
        ("assert 'text'", False),
        ("assert (run() == 1, 'message')", False),
        ("assert found.id == found.id", False),
        ("assert 1 == 1", False),
        ("run()\n  assert found.id == other.id", True),
        ("assert run() == run()", True),
        ("assert not found", True),
        ("with pytest.raises(ValueError):\n    run()", True),
        ("pytest.fail('it ran')", True),
        ("mock.assert_called_once()", True),
        ("checks_by_itself()", True),
        ("checks_through_another()", True),
        ("checks_nothing()", False),
        ("checks_sometimes()", False),
    ],
)
def test_what_counts_as_a_check(body: str, *, can_fail: bool) -> None:
    helpers = (
        "def checks_by_itself():\n  assert found\n"
        "def checks_through_another():\n  checks_by_itself()\n"
        "def checks_nothing():\n  run()\n"
        "def checks_sometimes():\n  assert found\n"
        "class Other:\n  def checks_sometimes(self):\n    run()\n"
    )
    tree = ast.parse(f"{helpers}def test_it():\n  {body}\n")
    assert _cannot_fail({Path("test_it.py"): tree}) == ([] if can_fail else ["test_it.py: test_it"])
