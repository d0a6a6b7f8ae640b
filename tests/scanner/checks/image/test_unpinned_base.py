from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.unpinned_base import UnpinnedBase
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from tests.scanner.checks.factory import subject


def examine(base: BaseImage | None) -> Outcome:
    return UnpinnedBase().examine(replace(subject(), base=base))


@pytest.mark.parametrize("name", ["docker.io/library/debian:latest", "debian", "localhost:5000/base:latest"])
def test_moves(name: str) -> None:
    # A digest that the builder noted beside the name does not pin the name.
    assert isinstance(examine(BaseImage("annotations", name, Digest.of(b"base"))), Failed)


@pytest.mark.parametrize(
    "name", ["docker.io/library/debian:12", "debian@sha256:" + "0" * 64, "debian:latest@sha256:" + "0" * 64]
)
def test_stays(name: str) -> None:
    assert isinstance(examine(BaseImage("labels", name)), Passed)


def test_not_known() -> None:
    for base in (
        None,
        BaseImage("layers"),
        BaseImage("labels", "x:1", note="its layers are others"),
        BaseImage("labels", "UPPER:1:2"),
    ):
        assert isinstance(examine(base), Incomplete)
