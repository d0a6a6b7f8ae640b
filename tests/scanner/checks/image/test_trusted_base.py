from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.trusted_base import TrustedBase
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from scanner.model.lineage import BaseImage
from tests.scanner.checks.factory import subject

PROVEN = BaseImage("layers", "registry.example.com/bases/debian:12", layers=1)


def examine(base: BaseImage | None, *allow: str) -> Outcome:
    return TrustedBase().examine(replace(subject(), base=base, parameters={"allow": allow} if allow else {}))


def test_a_known_base() -> None:
    assert isinstance(examine(PROVEN), Passed)
    assert isinstance(examine(PROVEN, "registry.example.com/bases/*"), Passed)
    assert isinstance(examine(PROVEN, "registry.example.com/other/*"), Failed)


def test_a_policys_list_judges_what_is_stored() -> None:
    image = replace(subject(), base=PROVEN)
    stored = TrustedBase().examine(image)
    assert isinstance(TrustedBase().judge(stored, image.image, {"allow": ("other/*",)}), Failed)


def test_what_an_image_says_of_itself_proves_nothing() -> None:
    for base in (None, BaseImage("annotations", PROVEN.reference), replace(PROVEN, note="odd")):
        assert isinstance(examine(base, "*"), Incomplete)
