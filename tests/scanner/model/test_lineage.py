"""What an image says of its base, and whose a finding is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.model.finding import Evidence, Vulnerability
from scanner.model.image import HistoryEntry, Image
from scanner.model.lineage import (
    BASE_DIGEST,
    BASE_NAME,
    BaseImage,
    Origin,
    chains,
    count,
    declared_base,
    describe,
    evidence_origin,
    vulnerability_origin,
)
from scanner.model.reference import Digest
from tests.scanner.checks.factory import entry, layer, subject

IMAGE = subject(layer(entry("a")), layer(entry("b")), layer(entry("c"))).image
DIGEST = Digest.of(b"base")


def labelled(**labels: str) -> Image:
    return replace(IMAGE, config=replace(IMAGE.config, labels=tuple(labels.items())))


def test_annotations_come_before_labels() -> None:
    both = replace(
        labelled(**{BASE_NAME: "alpine:3.20"}), annotations=((BASE_NAME, "debian:12"), (BASE_DIGEST, DIGEST))
    )
    assert declared_base(both) == BaseImage("annotations", "docker.io/library/debian:12", DIGEST)
    assert declared_base(labelled(**{BASE_NAME: "alpine:3.20"})) == BaseImage("labels", "docker.io/library/alpine:3.20")


@pytest.mark.parametrize(
    "name", ["", "  ", "not a name", "../../etc/passwd", "x" * 2000, "http://169.254.169.254/", "-x"]
)
def test_nonsense_says_nothing(name: str) -> None:
    assert declared_base(labelled(**{BASE_NAME: name, BASE_DIGEST: "sha256:short"})) is None


def test_a_broken_digest_is_left_out() -> None:
    assert declared_base(labelled(**{BASE_NAME: "debian:12", BASE_DIGEST: "sha256:../x"})) == BaseImage(
        "labels", "docker.io/library/debian:12"
    )


def test_buildah_says_where_its_build_began() -> None:
    lines = [
        HistoryEntry("a", layer=0),
        HistoryEntry("CMD x", empty_layer=True),
        HistoryEntry("b", comment="FROM docker.io/library/debian:12", layer=1),
    ]
    image = replace(IMAGE, config=replace(IMAGE.config, history=(*lines, HistoryEntry("c", layer=2))))
    assert declared_base(image) == BaseImage("history", "docker.io/library/debian:12", layers=1, history=2)
    named = replace(image, annotations=((BASE_NAME, "debian:12"),))
    assert declared_base(named) == BaseImage("annotations", "docker.io/library/debian:12", layers=1, history=2)


def test_chains() -> None:
    a, b = Digest.of(b"a"), Digest.of(b"b")
    assert chains((a, b)) == (a, Digest.of(f"{a} {b}".encode()))
    assert chains(()) == ()


def test_whose_a_finding_is() -> None:
    base = BaseImage("layers", layers=2, history=3)
    seen = [
        Evidence("", layer_index=1),
        Evidence("", layer_index=2),
        Evidence("", history_index=2),
        Evidence("", history_index=3),
        Evidence("", pointer="/config/User"),
    ]
    assert [evidence_origin(item, base) for item in seen] == [
        Origin.BASE,
        Origin.OWN,
        Origin.BASE,
        Origin.OWN,
        Origin.OWN,
    ]
    assert [evidence_origin(item, None) for item in seen] == [Origin.UNKNOWN] * 4 + [Origin.OWN]
    flaws = [
        Vulnerability("CVE-1", "", "", "", layer=one)
        for one in (IMAGE.layers[0].diff_id, IMAGE.layers[2].diff_id, None)
    ]
    assert [vulnerability_origin(flaw, IMAGE, base) for flaw in flaws] == [Origin.BASE, Origin.OWN, Origin.UNKNOWN]
    assert count([Origin.OWN, Origin.BASE, Origin.OWN]) == {Origin.BASE: 1, Origin.OWN: 2, Origin.UNKNOWN: 0}


def test_whether_it_is_outdated() -> None:
    assert BaseImage("layers", digest=DIGEST, newest=DIGEST).outdated is False
    assert BaseImage("layers", digest=DIGEST, newest=Digest.of(b"x")).outdated is True
    assert BaseImage("labels", newest=DIGEST).outdated is None


def test_in_words() -> None:
    assert describe(BaseImage("layers", "debian:12", layers=1), 3) == "debian:12 (1 of 3 layers, proven by its layers)"
    assert describe(BaseImage("labels", "debian:12"), 3) == "debian:12 (its layers are unknown, declared in labels)"
