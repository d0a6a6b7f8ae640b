"""Every reader of foreign bytes, for a few hundred inputs; ``make fuzz SECONDS=600`` goes on for so long with each.

What was found is kept in ``tests/data/fuzz/<target>`` and is read first, every time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutation import inputs
from tests.fuzz.targets import TARGETS

CORPORA = Path(__file__).parents[1] / "data" / "fuzz"
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
FEW, MANY = 100, 300


def corpus(name: str) -> list[Path]:
    return sorted((CORPORA / name).iterdir())


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_was_found_once(name: str) -> None:
    assert corpus(name), "a target has seeds"
    for item in corpus(name):
        TARGETS[name].run(item.read_bytes())


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_reader_refuses_or_reads(name: str) -> None:
    target = TARGETS[name]
    seeds = [item.read_bytes() for item in corpus(name)]

    def session(number: int, examples: int) -> None:
        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(inputs(seeds, is_json=target.is_json))
        def refuses_or_reads(data: bytes) -> None:
            target.run(data)

        refuses_or_reads()

    ends, number = time.monotonic() + SECONDS, 1
    session(number, FEW)
    while time.monotonic() < ends:
        number += 1
        session(number, MANY)


def test_the_targets_can_find_something() -> None:
    """A target that swallowed everything would find nothing for ever."""
    with pytest.raises(ZeroDivisionError):
        type(TARGETS["tar"])(lambda data: 1 // 0).run(b"")
    assert {path.name for path in CORPORA.iterdir() if path.is_dir()} == set(TARGETS)
