"""A sample: a channel that keeps nothing."""

from __future__ import annotations

from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target


class SampleChannel(ChannelFormat):
    """See `ChannelFormat`."""

    id = "sample-channel"
    title = "Sample channel"
    purpose = "nobody"
    setup = "Nothing to set up."
    fields = (Field("url", "Address", required=True, pattern=URL, example="https://sample.example.com"), CA)

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        answer = target.post(target.value("url"), body={"title": message.title})
        return Receipt(str(answer.status), answer.text)
