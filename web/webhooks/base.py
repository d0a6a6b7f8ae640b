"""The interface of webhook formats: authenticate the raw body, then parse it.

A payload is never authority. ``parse`` reads which repository and digest it names; the registry is always the one that
an administrator configured for the webhook (SSRF: seventeen spellings of forbidden hosts are tested).
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from werkzeug.datastructures import Headers

from scanner.config import Secret
from scanner.errors import UsageError
from scanner.model.untrusted import load_untrusted_json

# The media types of images. Registries announce pushes of blobs, configurations and layers too, which are ignored.
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MAX_EVENTS = 10_000  # read from one delivery
# Bytes of a delivery. CNCF Distribution repeats a refused delivery forever and meanwhile sends no later one: a user who
# makes it write a longer event would stop all of them. Its largest event has the references of a manifest (4 MiB)
# and the client's User-Agent (1 MiB), where Go's JSON writes six bytes for one "<": 30 MiB.
BODY_LIMIT, LARGEST_EVENT = 1 << 20, 32 << 20
PING = "ping"  # the action of a test delivery
DIGESTS = ("sha256:", "sha512:")
# Returns the document at an address that the format derives, at most so many seconds old. Raises RemoteError, not
# retryable if there is no such document.
Fetch = Callable[[str, float], bytes]


@dataclass(frozen=True, slots=True)
class PushEvent:
    """One event as the sender describes it. Nothing in it has been checked against a registry.

    ``host``: what the payload claims, empty if its format has none. ``media_type``: empty if not given. ``action``:
    ``push`` for what concerns us, otherwise the sender's own term. ``id``: the sender's, empty if there is none.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""  # empty: the sender gives none, and the tag is resolved
    media_type: str = ""
    action: str = "push"
    id: str = ""

    @property
    def concerns_us(self) -> bool:
        """Whether it is a push of an image or index. Formats without a media type report images only."""
        return self.action == "push" and (not self.media_type or self.media_type in MANIFEST_TYPES)

    @property
    def identity(self) -> str:
        """A key shared by two reports of the same push, even under different names of the registry.

        The id alone is not enough: senders have used one id for two images, and neither may be dropped.
        """
        fields = "\n".join((self.id, self.repository, self.tag, self.digest))
        return hashlib.sha256(fields.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class UnreadableEvent:
    """An event that cannot be read. It is separate, so that the other events of the delivery are still accepted."""

    problem: str


class WebhookFormat(ABC):
    """The contract of a format.

    ``id`` is the last part of ``POST /webhooks/<id>``; ``media_types`` accepted, empty: any.

    ``senders``: registries that send it. ``setup``: where to configure it, for the registries page and
    ``docs/webhooks.md``. ``snippet``: text to copy to the sender, empty if there is none, with these placeholders:
    ``<url>`` (the address to call, including the secret if it belongs there), ``<header>``, ``<secret>`` (as the header
    has it), ``<token>`` (the secret alone) and ``<sender>``. ``authenticity``: where the sender puts the secret, or
    what it computes with it. ``header``: the header that contains it. ``delivery_header``: the header with the
    delivery's id, for events without an own id. ``sender_label``: what must be configured about the sender besides the
    secret, empty: nothing; ``sender_pattern``: its syntax; ``sender_example``: its placeholder in the docs.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    senders: ClassVar[str] = ""
    setup: ClassVar[str] = "Have the registry POST to the address, with the secret in the header."
    snippet: ClassVar[str] = ""
    media_types: ClassVar[tuple[str, ...]] = ("application/json",)
    header: ClassVar[str] = "Authorization"
    authenticity: ClassVar[Literal["header", "path", "signature", "token"]] = "header"
    delivery_header: ClassVar[str] = ""
    sender_label: ClassVar[str] = ""
    sender_pattern: ClassVar[str] = ""
    sender_example: ClassVar[str] = ""
    sender_required: ClassVar[bool] = False
    signs_body: ClassVar[bool] = (
        True  # False: the secret is in a header or the path, so a body is read only if it is correct
    )
    # More only where the secret is known before the body is read: anyone could fill the memory otherwise.
    body_limit: ClassVar[int] = BODY_LIMIT

    def address(self, url: str, secret: str) -> str:
        """The address that the registry calls: ``url``, followed by the secret if the sender can put it nowhere
        else.
        """
        return f"{url}/{secret}" if self.authenticity == "path" else url

    def configured(self, url: str, header: str, secret: str, sender: str = "") -> str:
        """The snippet of one webhook. For the header ``Authorization`` the secret is written after ``Bearer``."""
        value = f"Bearer {secret}" if header.lower() == "authorization" else secret
        values = {"url": self.address(url, secret), "header": header, "secret": value, "token": secret}
        values["sender"] = sender or self.sender_example
        text = self.snippet
        for name, one in values.items():
            text = text.replace(f"<{name}>", one)
        return text

    @abstractmethod
    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """Whether the sender of ``body`` knows ``secret``, decided on the raw bytes in constant time, before parsing.

        ``header``: the one configured for this webhook, otherwise the format's.
        """

    def verify_sender(self, body: bytes, headers: Headers, sender: str, fetch: Fetch) -> bool:
        """Whether the sender's own signature is valid, for formats that have one besides the secret.

        Called only if the secret was correct, so that anonymous callers cannot make us fetch keys. ``sender``: the one
        configured for this webhook. Raises RemoteError if the keys cannot be fetched now; the sender will try again.
        """
        return True

    @abstractmethod
    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """Parse all events of a delivery, in order. A test delivery has the action `PING`.

        Raises UsageError if the body is not of this format (not JSON, another envelope). An event that cannot be read
        becomes an UnreadableEvent, even if it is the only one, because senders repeat a refused delivery.
        """

    def acknowledge(self, body: bytes, sender: str, fetch: Fetch) -> None:
        """Confirm a test or subscription to the sender, if its protocol needs that.

        Called after the delivery is accepted.
        """
        return

    def named_at(self, host: str, event: PushEvent) -> PushEvent:
        """The event with the repository name that ``host`` uses.

        Some registries use different names at different hosts.
        """
        return event


class HeaderSecret(WebhookFormat):
    """A format with a fixed header: the secret is in the header, or in the path if the sender cannot set headers."""

    signs_body = False

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`. Both places are always compared, so that the time reveals nothing."""
        in_header = same_secret(bearer_or_plain(headers.get(header, "")), secret)
        in_path = same_secret(path_token, secret)
        return in_header or in_path


class PathSecret(WebhookFormat):
    """A format whose sender cannot authenticate itself: the secret is in the address."""

    header = ""
    authenticity = "path"
    signs_body = False

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`."""
        return same_secret(path_token, secret)


class SignedBody(WebhookFormat):
    """A format whose sender computes an HMAC of the raw body, sent as hex digits in one of ``signature_headers``."""

    authenticity = "signature"
    signature_headers: ClassVar[tuple[str, ...]]
    hash_name: ClassVar[str] = "sha256"

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`. The secret itself is never accepted in place of its HMAC."""
        expected = hmac.new(secret.reveal().encode(), body, self.hash_name).hexdigest()
        sent = [headers.get(name, "").removeprefix(f"{self.hash_name}=") for name in self.signature_headers]
        # Every header is compared, also after a match: the time must not tell which one was right.
        found = [hmac.compare_digest(one.lower().encode("utf-8", "surrogateescape"), expected.encode()) for one in sent]
        return bool(secret) and any(found)


_AUTHENTICITY = {
    "header": "The secret is in a header.",
    "path": "The sender can neither sign nor set a header: the secret is in the address.",
    "signature": "The sender signs each body with the secret (HMAC).",
    "token": "The sender signs a token whose audience is the secret.",
}


def format_list(formats: Iterable[WebhookFormat]) -> str:
    """All formats in Markdown, for ``docs/webhooks.md``: one section for each."""
    sections = []
    for form in formats:
        media_types = ", ".join(f"`{media_type}`" for media_type in form.media_types) or "any"
        lines = [
            f"### {form.title}",
            "",
            f"Format `{form.id}`, `POST /webhooks/{form.id}`, media types {media_types}."
            + (f" Sent by {form.senders}." if form.senders else "")
            + f" {_AUTHENTICITY[form.authenticity]}",
            "",
            form.setup,
        ]
        if form.snippet:
            snippet = form.configured(f"https://dockwarden.example.com/webhooks/{form.id}", form.header, "<the secret>")
            lines += ["", "```", snippet.rstrip(), "```"]
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def same_secret(sent: str, secret: Secret) -> bool:
    """Compare any two texts in constant time. An empty secret equals nothing."""
    return bool(secret) and hmac.compare_digest(sent.encode("utf-8", "surrogateescape"), secret.reveal().encode())


def bearer_or_plain(sent: str) -> str:
    """The token of an ``Authorization: Bearer`` value. Other headers contain the token alone."""
    scheme, _, token = sent.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else sent


def load(body: bytes) -> Any:
    """Parse the JSON of a delivery, strictly. Raises UsageError."""
    return load_untrusted_json(body, limit=LARGEST_EVENT, depth=32, error=UsageError, reason="invalid")


def text(value: Any, where: str, *, maximum: int = 1024) -> str:
    """A string member: empty if absent. Raises UsageError for anything but a string of printable characters."""
    if value is None:
        return ""
    # A line break in a name would forge lines of a log.
    if not isinstance(value, str) or len(value) > maximum or not value.isprintable():
        raise UsageError(f"{where} is not a string of at most {maximum} printable characters", reason="invalid")
    return value


def envelope(body: bytes, *names: str) -> dict[str, Any]:
    """The object of a delivery, which must have these members. Raises UsageError if it is not of this format."""
    document = load(body)
    if not isinstance(document, dict) or any(name not in document for name in names):
        raise UsageError("expected an object with " + " and ".join(names or ("members",)), reason="invalid")
    return document


def child(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A nested object: empty if absent. Raises UsageError for anything else."""
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        raise UsageError(f"{name} is not an object", reason="invalid")
    return value or {}


def number(value: Any, where: str) -> str:
    """A time as number or text, returned as text. Absent is empty."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    return text(value, where)


def each(values: Iterable[Any], read: Callable[[Any], PushEvent]) -> list[PushEvent | UnreadableEvent]:
    """Read each value with ``read``.

    One that cannot be read becomes an UnreadableEvent and does not affect the others.
    """
    listed = list(values)
    found: list[PushEvent | UnreadableEvent] = []
    # Each event can become a scan. The limit keeps one delivery from filling the queue.
    for value in listed[:MAX_EVENTS]:
        try:
            found.append(read(value))
        except UsageError as error:
            found.append(UnreadableEvent(str(error)))
    if len(listed) > MAX_EVENTS:
        found.append(UnreadableEvent(f"{len(listed) - MAX_EVENTS} events beyond the first {MAX_EVENTS}"))
    return found


def push_data(body: bytes, repository: str, *, id_member: str = "") -> list[PushEvent | UnreadableEvent]:
    """Parse the body that Docker Hub defined and other registries copied: one push, in ``push_data``.

    ``repository``: the member of ``repository`` that has its name. ``id_member``: the member of ``push_data`` that
    identifies a push, empty if there is none. Raises UsageError for another body.
    """

    def read(document: dict[str, Any]) -> PushEvent:
        pushed = child(document, "push_data")
        return PushEvent(
            host="",
            repository=text(child(document, "repository").get(repository), repository),
            tag=text(pushed.get("tag"), "tag"),
            digest=text(pushed.get("digest"), "digest"),
            media_type=text(pushed.get("media_type"), "media_type"),
            id=number(pushed.get(id_member), id_member) if id_member else "",
        )

    return each([envelope(body, "push_data", "repository")], read)


def tag_and_digest(version: str) -> tuple[str, str]:
    """Split a version into tag and digest: senders write the digest if a manifest has no tag."""
    return ("", version) if version.startswith(DIGESTS) else (version, "")


def split_image(value: str, where: str) -> tuple[str, str, str, str]:
    """Split ``host/repository[:tag][@digest]`` into host, repository, tag and digest. Raises UsageError.

    The host is everything before the first slash: ``registry.example@169.254.169.254`` must not become
    ``registry.example``.
    """
    host, slash, rest = value.partition("/")
    if not slash or not host or not rest:
        raise UsageError(f"{where} is not host/repository", reason="invalid")
    name, _, digest = rest.partition("@")
    directory, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return host, f"{directory}{slash}{last}", tag, digest
