"""Reasons are shown as sentences."""

import re

from scanner.model.reasons import _SENTENCES, sentence


def test_a_reason_is_shown_as_a_sentence():
    assert sentence("nothing_to_scan") == "There was no package to look up."


def test_a_reason_without_a_text_of_its_own_is_shown_without_underscores():
    assert sentence("some_new_reason") == "Some new reason."


def test_every_text_is_one_short_sentence():
    assert not [t for t in _SENTENCES.values() if not re.fullmatch(r"[A-Z][^_]{5,80}\.", t)]
