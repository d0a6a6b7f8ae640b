"""Dataclasses that are completed on first use behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import TypeAdapter

from scanner import lazy_dataclasses
from scanner.config import Limits, Settings
from scanner.model.image import Layer
from scanner.model.reference import Digest, Platform

KINDS = [lazy_dataclasses.dataclass, dataclasses.dataclass]
Decorator = Callable[..., Any]


@lazy_dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A frozen class with slots, which pickle must find by its name."""

    x: int
    y: int = 2
    names: tuple[str, ...] = field(default=("a",), repr=False)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class and text of what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001
        return type(error), str(error)


def made(decorator: Decorator, **options: bool) -> Any:
    @decorator(**options)
    class Thing:
        """A thing."""

        known: ClassVar[int] = 7
        name: str
        size: int = 3
        tags: list[str] = field(default_factory=list, compare=False)
        shown: str = field(default="no", repr=False, kw_only=True)

        def twice(self) -> int:
            return self.size * 2

    return Thing


OPTIONS = [
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "order": True},
    {"frozen": True, "eq": False},
    {"kw_only": True},
]
CASES: dict[str, Callable[[Any], Any]] = {
    "default": lambda kind: kind(name="a").size,
    "repr": lambda kind: repr(kind(name="a", size=1)).rpartition(".")[2],
    "missing": lambda kind: kind().name,
    "too many": lambda kind: kind("a", 1, [], "x", 4),
    "equal": lambda kind: kind(name="a") == kind(name="a", tags=["x"]),
    "other class": lambda kind: kind(name="a") == "a",
    "unequal": lambda kind: kind(name="a") != kind(name="b"),
    "hash": lambda kind: len({kind(name="a"), kind(name="a", tags=["x"])}),
    "no hash": lambda kind: kind.__hash__ is None,
    "own list": lambda kind: kind(name="a").tags is kind(name="a").tags,
    "less": lambda kind: kind(name="a") < kind(name="b"),
    "assigned": lambda kind: setattr(kind(name="a"), "size", 1),
    # Python 3.11 refuses it in a frozen class with slots too, but with the TypeError of a wrong ``super()``.
    "unknown assigned": lambda kind: isinstance(outcome(lambda: setattr(kind(name="a"), "colour", 1)), tuple),
    "deleted": lambda kind: delattr(kind(name="a"), "name"),
    "replaced": lambda kind: replace(kind(name="a"), size=9).twice(),
    "fields": lambda kind: [(f.name, f.default, f.repr, f.kw_only) for f in fields(kind)],
    "types of fields": lambda kind: [f.type for f in fields(kind)],
    "fields of an object": lambda kind: [f.name for f in fields(kind(name="a"))],
    "is one": is_dataclass,
    "class variable": lambda kind: kind.known,
    "default of the class": lambda kind: str(getattr(kind, "size", "none")),
    "no default of the class": lambda kind: hasattr(kind, "tags"),
    "match": lambda kind: kind.__match_args__,
    "parameters": lambda kind: (kind.__dataclass_params__.frozen, kind.__dataclass_params__.order),
    "asdict": lambda kind: dataclasses.asdict(kind(name="a", tags=["x"])),
    "json": lambda kind: orjson.dumps(kind(name="a")),
    "copy": lambda kind: copy.copy(kind(name="a", size=8)).size,
    "deep copy": lambda kind: copy.deepcopy(kind(name="a", tags=["x"])).tags,
    "new": lambda kind: is_dataclass(kind.__new__(kind)),
    "signature": lambda kind: kind(name="a") and str(inspect.signature(kind)),
    "slots": lambda kind: getattr(kind, "__slots__", None),
    "dict": lambda kind: hasattr(kind(name="a"), "__dict__"),
    "documentation": lambda kind: kind.__doc__,
}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "plain")
@pytest.mark.parametrize("case", CASES)
def test_a_class_answers_as_the_standard_library_does(case: str, options: dict[str, bool]) -> None:
    """Each case is the first use of a new class."""
    lazy, standard = (outcome(lambda kind=kind: CASES[case](made(kind, **options))) for kind in KINDS)
    assert lazy == standard


@lazy_dataclasses.record
class Entry:
    """A record, which pickle must find by its name."""

    path: str
    size: int = 3


def test_a_record_is_made_compared_and_copied_as_a_dataclass_with_slots() -> None:
    entry = Entry("a")
    assert (entry.size, repr(entry), Entry.__match_args__) == (3, "Entry(path='a', size=3)", ("path", "size"))
    assert entry == Entry("a", 3) != Entry("b") == replace(entry, path="b")
    assert pickle.loads(pickle.dumps(entry)) == copy.deepcopy(entry) == entry
    assert not hasattr(entry, "__dict__")
    # Without a hash: what can change must not be found by its values.
    with pytest.raises(TypeError, match="unhashable"):
        hash(entry)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("slots_of_base", [False, True])
def test_a_subclass_has_the_fields_of_its_base(kind: Decorator, slots: bool, slots_of_base: bool) -> None:
    @kind(frozen=True, slots=slots_of_base)
    class Base:
        a: int
        b: int = 2

    @kind(frozen=True, slots=slots)
    class Derived(Base):
        b: int = 5
        c: int = 3

    found = Derived(1)
    assert (found.a, found.b, found.c) == (1, 5, 3)
    assert repr(found).endswith("Derived(a=1, b=5, c=3)")
    assert Derived(1) != Base(1, 5)
    for name in ("a", "c"):
        with pytest.raises(FrozenInstanceError):
            setattr(found, name, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_own_methods_of_a_class_stay(kind: Decorator) -> None:
    @kind(frozen=True)
    class Own:
        a: int

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("negative")

        def __repr__(self) -> str:
            return "own"

        def __hash__(self) -> int:
            return 4

        def __eq__(self, other: object) -> bool:
            return True

    assert (repr(Own(1)), hash(Own(1)), Own(1) == 7) == ("own", 4, True)
    with pytest.raises(ValueError, match="negative"):
        Own(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_equality_of_its_own_leaves_a_class_without_a_hash(kind: Decorator) -> None:
    @kind
    class Own:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

    assert outcome(lambda: hash(Own(1))) == (TypeError, "unhashable type: 'Own'")


def test_a_mutable_class_cannot_extend_a_frozen_one() -> None:
    @lazy_dataclasses.dataclass
    class Wrong(Point):
        z: int = 1

    with pytest.raises(TypeError, match="frozen"):
        Wrong(1)


def test_a_frozen_class_cannot_set_attributes_in_a_way_of_its_own() -> None:
    with pytest.raises(TypeError, match="__setattr__"):

        @lazy_dataclasses.dataclass(frozen=True)
        class Wrong:
            def __setattr__(self, name: str, value: object) -> None:
                """Refused: the class would not be frozen."""


def test_an_argument_of_init_alone_is_refused() -> None:
    """It would be a slot that stays empty."""

    with pytest.raises(TypeError, match="kind of field that is unknown here"):

        @lazy_dataclasses.dataclass(slots=True)
        class Wrong:
            a: dataclasses.InitVar[int]


def test_a_pickled_object_is_read_by_a_process_that_has_used_no_class() -> None:
    data = pickle.dumps(Platform("linux", "arm64", "v8"))
    code = "import pickle, sys; found = pickle.loads(sys.stdin.buffer.read()); print(found, hash(found) == hash(found))"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"{Platform('linux', 'arm64', 'v8')} True"
    assert pickle.loads(pickle.dumps(Point(1, 5, ("b",)))) == Point(1, 5, ("b",))


def test_threads_that_use_a_class_first_get_one_class() -> None:
    for _ in range(20):
        kind, start, found = made(lazy_dataclasses.dataclass, frozen=True, slots=True), threading.Barrier(4), []

        def use(kind: Any = kind, start: threading.Barrier = start, found: list[Any] = found) -> None:
            start.wait(60)
            found.append(kind(name="a"))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 4
        assert len(set(found)) == 1


def test_a_child_of_a_fork_can_complete_a_class() -> None:
    """Another thread of the parent may hold the lock at that moment; there is no such thread in the child."""
    code = """
import os, threading
from scanner import lazy_dataclasses
from scanner.model.reference import Platform
held, done = threading.Event(), threading.Event()
def hold():
    with lazy_dataclasses._completing:
        held.set()
        done.wait(0.2)
thread = threading.Thread(target=hold)
thread.start()
held.wait(60)
child = os.fork()
if child == 0:
    os._exit(0 if Platform("linux", "amd64").architecture == "amd64" else 1)
thread.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_pydantic_reads_such_a_class() -> None:
    read = TypeAdapter(Point).validate_json(b'{"x": 4, "names": ["b"]}')
    assert read == Point(4, names=("b",))
    with pytest.raises(ValueError, match="valid integer"):
        TypeAdapter(Point).validate_json(b'{"x": "four"}')


def test_classes_of_the_model_are_complete_when_they_are_used() -> None:
    assert replace(Settings(), limits=Limits()) == Settings()
    digest = Digest(f"sha256:{'0' * 64}")
    with pytest.raises(FrozenInstanceError):
        Layer(0, digest, digest, 1, "m").size = 2  # type: ignore[misc]
