"""Numbers of things in a sentence."""

from scanner.model.plurals import number_of


def test_one_is_one() -> None:
    assert [number_of(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [number_of(count, "entry", "entries") for count in (1, 3)] == ["1 entry", "3 entries"]
