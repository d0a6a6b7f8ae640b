from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.recommended_packages import RecommendedPackages
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, layer, subject, without_history

LINE = "RUN /bin/sh -c apt-get update; apt-get install -y curl # buildkit"


def test_recommended_as_well() -> None:
    outcome = RecommendedPackages().examine(built_by(LINE))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


@pytest.mark.parametrize(
    "script",
    [
        "apt-get install -y --no-install-recommends curl",
        "apt-get -o APT::Install-Recommends=false install curl",
        "apk add curl",
        "apt-get remove install-info",
    ],
)
def test_only_what_is_needed(script: str) -> None:
    assert isinstance(RecommendedPackages().examine(built_by(f"RUN /bin/sh -c {script}")), Passed)


def test_where_the_image_says_so_itself() -> None:
    configured = subject(layer(contents={"etc/apt/apt.conf.d/01lean": b'APT::Install-Recommends "0";\n'}))
    image = replace(built_by(LINE), rootfs=configured.rootfs)
    assert isinstance(RecommendedPackages().examine(image), Passed)


def test_a_megabyte_of_blank_lines_takes_no_time() -> None:
    configured = subject(layer(contents={"etc/apt/apt.conf.d/01lean": b"\n" * (1 << 20)}))
    assert isinstance(RecommendedPackages().examine(replace(built_by(LINE), rootfs=configured.rootfs)), Failed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(RecommendedPackages().examine(without_history()), Incomplete)
