from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.layer_size import LayerSize
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable

TWO = (layer(entry("a")), layer(entry("b")))


def test_a_large_layer() -> None:
    outcome = LayerSize().examine(subject(*TWO, size=400_000_000))
    assert isinstance(outcome, Failed)
    assert [e.layer_index for e in outcome.evidence] == [0, 1]
    assert outcome.evidence[0].message == "layer 0 has 400.0 MB compressed"


def test_within_the_budget() -> None:
    image = subject(*TWO, size=30_000_000)
    assert isinstance(LayerSize().examine(image), Passed)
    assert isinstance(LayerSize().examine(replace(image, parameters={"max_megabytes": 20})), Failed)


def test_the_manifest_says_it_even_where_layers_cannot_be_read() -> None:
    assert isinstance(LayerSize().examine(unreadable(size=400_000_000)), Failed)
