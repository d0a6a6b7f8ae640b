"""The contract of a webhook format: who sent it, told from the raw bytes; what it says, as a hint.

A payload is never authority. ``parse`` takes from it which repository and digest to look at; where to look is always
the registry that an administrator configured for the webhook (reliability: F10, seventeen spellings of SSRF).
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
PING = "ping"  # the action of a sender's test
DIGESTS = ("sha256:", "sha512:")
# The document at an address that a format names, at most so many seconds old. Raises RemoteError; not retryable: there
# is no such document.
Fetch = Callable[[str, float], bytes]


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
    page and ``docs/webhooks.md``. ``snippet`` is what to put there, with ``<url>`` (the address to call, the secret in
    it where it belongs there), ``<header>``, ``<secret>`` (as the header carries it), ``<token>`` (the bare secret) and
    ``<sender>`` to be filled in; empty: nothing can be copied.

    ``authenticity``: where the sender puts the secret, or what it makes with it. ``header``: which carries it.
    ``delivery_header``: the header in which the sender names a delivery, the id of events that have none.
    ``sender_label``: what must be known of the sender beside the secret, empty for nothing; ``sender_pattern`` is what
    it looks like, ``sender_example`` stands for it in the docs.
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
    signs_body: ClassVar[bool] = True  # False: the secret is in the headers or the path, so no stranger's body is read

    def address(self, url: str, secret: str) -> str:
        """What the registry calls: ``url``, with the secret behind it where the sender can put it nowhere else."""
        return f"{url}/{secret}" if self.authenticity == "path" else url

    def configured(self, url: str, header: str, secret: str, sender: str = "") -> str:
        """The snippet for one webhook. ``secret`` is written after ``Bearer`` where the header is ``Authorization``."""
        value = f"Bearer {secret}" if header.lower() == "authorization" else secret
        values = {"url": self.address(url, secret), "header": header, "secret": value, "token": secret}
        values["sender"] = sender or self.sender_example
        text = self.snippet
        for name, one in values.items():
            text = text.replace(f"<{name}>", one)
        return text

    @abstractmethod
    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """Whether whoever sent ``body`` knows ``secret``.

        Judged on the raw bytes, in constant time, before anything is parsed.

        ``header`` is the one configured for this webhook, or the format's own.
        """

    def verify_sender(self, body: bytes, headers: Headers, sender: str, fetch: Fetch) -> bool:
        """Whether the sender's own signature holds, for formats that have one beside the secret.

        Asked only of a delivery whose secret was right: no stranger makes us fetch a key. ``sender`` is the one
        configured for this webhook. Raises RemoteError where the keys cannot be had now: the sender tries again.
        """
        return True

    @abstractmethod
    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """Every event of the delivery, in its order; a test of the sender's has the action `PING`.

        Raises UsageError for a body that is not this format at all: no JSON, or another envelope. An event that cannot
        be read is an UnreadableEvent, also where it is the only one: a sender repeats what is refused.
        """

    def acknowledge(self, body: bytes, sender: str, fetch: Fetch) -> None:
        """Do what the sender waits for before it sends anything else. Asked once a test or a confirmation was taken."""
        return

    def named_at(self, host: str, event: PushEvent) -> PushEvent:
        """``event`` as the registry ``host`` names it: some give a repository another name at another host."""
        return event


class HeaderSecret(WebhookFormat):
    """A format whose sender sends a fixed header: the secret is in it, or in the path where no header can be set."""

    signs_body = False

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`. Both places are always compared: time tells nothing about either."""
        in_header = same_secret(bearer_or_plain(headers.get(header, "")), secret)
        in_path = same_secret(path_token, secret)
        return in_header or in_path


class PathSecret(WebhookFormat):
    """A format whose sender can authenticate itself in no way: the secret is in the address."""

    header = ""
    authenticity = "path"
    signs_body = False

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`."""
        return same_secret(path_token, secret)


class SignedBody(WebhookFormat):
    """A format whose sender makes an HMAC of the raw body: hex digits in one of ``signature_headers``."""

    authenticity = "signature"
    signature_headers: ClassVar[tuple[str, ...]]
    hash_name: ClassVar[str] = "sha256"

    def authenticate(self, body: bytes, headers: Headers, path_token: str, secret: Secret, header: str) -> bool:
        """See `WebhookFormat.authenticate`. The secret itself is never accepted in place of what is made with it."""
        made = hmac.new(secret.reveal().encode(), body, self.hash_name).hexdigest()
        sent = [headers.get(name, "").removeprefix(f"{self.hash_name}=") for name in self.signature_headers]
        found = [hmac.compare_digest(one.lower().encode("utf-8", "surrogateescape"), made.encode()) for one in sent]
        return bool(secret) and any(found)


_AUTHENTICITY = {
    "header": "The secret is in a header.",
    "path": "The sender can sign nothing and send no header: the secret is in the address.",
    "signature": "The sender signs each body with the secret (HMAC).",
    "token": "The sender signs a token whose audience is the secret.",
}


def format_list(formats: Iterable[WebhookFormat]) -> str:
    """The formats in Markdown: the list in ``docs/webhooks.md``, a section for each."""
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


def envelope(body: bytes, *names: str) -> dict[str, Any]:
    """The object that a delivery is, which has these members. Raises UsageError for another: not this format at all."""
    document = load(body)
    if not isinstance(document, dict) or any(name not in document for name in names):
        raise UsageError("expected an object with " + " and ".join(names or ("members",)), reason="invalid")
    return document


def child(document: dict[str, Any], name: str) -> dict[str, Any]:
    """An object in an object. Absent is empty; anything else raises UsageError."""
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        raise UsageError(f"{name} is not an object", reason="invalid")
    return value or {}


def number(value: Any, where: str) -> str:
    """A number or a text that names a moment, as text. Absent is empty."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    return text(value, where)


def each(values: Iterable[Any], read: Callable[[Any], PushEvent]) -> list[PushEvent | UnreadableEvent]:
    """Every event that ``read`` makes of the values, and those that cannot be read: none keeps another out."""
    listed = list(values)
    found: list[PushEvent | UnreadableEvent] = []
    for value in listed[:MAX_EVENTS]:
        try:
            found.append(read(value))
        except UsageError as error:
            found.append(UnreadableEvent(str(error)))
    if len(listed) > MAX_EVENTS:
        found.append(UnreadableEvent(f"{len(listed) - MAX_EVENTS} events beyond the first {MAX_EVENTS}"))
    return found


def tag_and_digest(version: str) -> tuple[str, str]:
    """What a version is: senders write the digest where a manifest has no tag."""
    return ("", version) if version.startswith(DIGESTS) else (version, "")


def split_image(value: str, where: str) -> tuple[str, str, str, str]:
    """Host, repository, tag and digest of ``host/repository[:tag][@digest]``. The host is all before the first slash,
    whatever it holds: ``registry.example@169.254.169.254`` must not become ``registry.example``. Raises UsageError."""
    host, slash, rest = value.partition("/")
    if not slash or not host or not rest:
        raise UsageError(f"{where} is not host/repository", reason="invalid")
    name, _, digest = rest.partition("@")
    directory, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return host, f"{directory}{slash}{last}", tag, digest
