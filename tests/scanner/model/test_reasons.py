"""Reasons are shown as sentences."""

import re

from scanner.model.reasons import _ADVICE, _SENTENCES, sentence


def test_a_reason_is_shown_as_a_sentence():
    assert sentence("nothing_to_scan") == "There was no package to look up."


def test_a_reason_without_a_text_of_its_own_is_shown_without_underscores():
    assert sentence("some_new_reason") == "Some new reason."


def test_every_text_is_one_short_sentence():
    assert not [t for t in _SENTENCES.values() if not re.fullmatch(r"[A-Z][^_]{5,80}\.", t)]


def test_every_advice_is_for_a_reason_with_a_sentence_and_starts_with_a_verb():
    assert set(_ADVICE) <= set(_SENTENCES)
    assert not [text for text in _ADVICE.values() if not re.fullmatch(r"[A-Z][a-z]+ .{10,110}[^.]", text)]
