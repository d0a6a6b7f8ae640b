"""The contract of a webhook format: who sent it, told from the raw bytes; what it says, as a hint.

A payload is never authority. ``parse`` takes from it which repository and digest to look at; where to look is always
the registry that an administrator configured for the webhook (reliability: F10, seventeen spellings of SSRF).
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from werkzeug.datastructures import Headers

from scanner.config import Secret
from scanner.errors import UsageError
from scanner.model.untrusted import load_untrusted_json

# What a push must be of to concern us: blobs, configs and layers are announced too (webhooks: rule d).
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MAX_EVENTS = 10_000  # that are looked at; a delivery of 1 MiB holds some 2,000 of a real registry's


@dataclass(frozen=True, slots=True)
class PushEvent:
    """One thing that happened, as the sender tells it. Nothing in it has been checked against a registry.

    ``host`` is what the payload claims, empty where its format has none; ``media_type`` empty where it does not say;
    ``action`` is ``push`` for what concerns us, otherwise the sender's word; ``id`` the sender's own, empty where it
    has none.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""
    media_type: str = ""
    action: str = "push"
    id: str = ""

    @property
    def concerns_us(self) -> bool:
        """A push of a manifest or an index. Without a media type the format only speaks of images."""
        return self.action == "push" and (not self.media_type or self.media_type in MANIFEST_TYPES)

    @property
    def identity(self) -> str:
        """What two tellings of one push share, whichever of the registry's names they give.

        An id alone is not enough: senders have used one for two images, and neither may be dropped.
        """
        said = "\n".join((self.id, self.repository, self.tag, self.digest))
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def key(self) -> str:
        """What two tellings of the same event share: the sender's id, or what it says."""
        return (
            self.id
            or hashlib.sha256(
                "\n".join((self.host, self.repository, self.tag, self.digest, self.action)).encode()
            ).hexdigest()
        )


@dataclass(frozen=True, slots=True)
class UnreadableEvent:
    """An event of a delivery that cannot be read, beside others that can: it must not keep those from being taken."""

    problem: str


class WebhookFormat(ABC):
    """``id`` is the last part of ``POST /webhooks/<id>``; ``media_types`` those accepted, empty for any.

    ``senders`` are the registries that send it and ``setup`` says where to configure it, both for the registries
    page and ``docs/webhooks.md``. ``snippet`` is what to put there, with ``<url>``, ``<header>`` and ``<secret>`` to
    be filled in; a format whose registry is configured by form fields has none.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    senders: ClassVar[str] = ""
    setup: ClassVar[str] = "Have the registry POST to the address, with the secret in the header."
    snippet: ClassVar[str] = ""
    media_types: ClassVar[tuple[str, ...]] = ("application/json",)
    header: ClassVar[str] = "Authorization"
    signs_body: ClassVar[bool] = True  # False: the secret is in the headers or the path, so no stranger's body is read

    def configured(self, url: str, header: str, secret: str) -> str:
        """The snippet for one webhook. ``secret`` is written after ``Bearer`` where the header is ``Authorization``."""
        value = f"Bearer {secret}" if header.lower() == "authorization" else secret
        return self.snippet.replace("<url>", url).replace("<header>", header).replace("<secret>", value)

    @abstractmethod
    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """Whether whoever sent ``body`` knows ``secret``.

        Judged on the raw bytes, in constant time, before anything is parsed.

        ``header`` is the one configured for this webhook, or the format's own.
        """

    @abstractmethod
    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """Every event of the delivery, in its order.

        Raises UsageError for a body that is not this format at all: no JSON, or another envelope. An event that cannot be
        read is an UnreadableEvent, also where it is the only one: a sender repeats what is refused.
        """


def format_list(formats: Iterable[WebhookFormat]) -> str:
    """The formats in Markdown: the list in ``docs/webhooks.md``, a section for each."""
    sections = []
    for form in formats:
        media_types = ", ".join(f"`{media_type}`" for media_type in form.media_types) or "any"
        lines = [
            f"### {form.title}",
            "",
            f"Format `{form.id}`, `POST /webhooks/{form.id}`, media types {media_types}."
            + (f" Sent by {form.senders}." if form.senders else ""),
            "",
            form.setup,
        ]
        if form.snippet:
            snippet = form.configured(f"https://dockwarden.example.com/webhooks/{form.id}", form.header, "<the secret>")
            lines += ["", "```", snippet.rstrip(), "```"]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def same_secret(sent: str, secret: Secret) -> bool:
    """Constant-time comparison, of any text with any text. An empty secret equals nothing."""
    return bool(secret) and hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), secret.reveal().encode())


def bearer_or_plain(sent: str) -> str:
    """The token of an ``Authorization: Bearer`` value; any other header carries it bare."""
    scheme, _, token = sent.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else sent


def load(body: bytes) -> Any:
    """The JSON of a delivery, strictly. Raises UsageError."""
    return load_untrusted_json(body, limit=1 << 20, depth=32, error=UsageError, reason="invalid")


def text(value: Any, where: str, *, maximum: int = 1024) -> str:
    """A string member. Absent is empty; anything but a string of printable characters raises UsageError."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > maximum or not value.isprintable():
        raise UsageError(f"{where} is not a short text", reason="invalid")
    return value
