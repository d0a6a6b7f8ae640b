"""Every format says how it is set up."""

from __future__ import annotations

import pytest

from scanner import plugins
from web.webhooks import formats
from web.webhooks.base import WebhookFormat


def test_the_command_line_offers_the_formats_that_there_are() -> None:
    """It knows nothing of the web, and finds them by their files."""
    assert plugins.ids("web.webhooks") == tuple(formats())


@pytest.mark.parametrize("form", formats().values(), ids=lambda form: form.id)
def test_a_format_says_how_it_is_set_up(form: WebhookFormat) -> None:
    assert form.title
    assert form.setup.endswith(".")
    assert form.snippet
    shown = form.configured("https://d.example/webhooks/x", form.header, "s3cret")
    assert "https://d.example/webhooks/x" in shown
    assert "s3cret" in shown
    assert form.sender_example in shown
    assert "<" not in shown.replace("<digest>", "")
