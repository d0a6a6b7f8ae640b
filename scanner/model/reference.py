"""Names of images: digests, references, descriptors, platforms (OCI image-spec, distribution-spec, Docker's
reference grammar).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scanner.errors import ImageError, UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.patterns import lazy

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

DOCKER_HUB = "docker.io"

# The registered algorithms (image-spec, descriptor.md).
_DIGEST = lazy(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})", re.ASCII)
# 1 to 65535, and no zero in front: one registry has one spelling.
PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = lazy(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})?)*|\[[0-9a-fA-F:]+\])"
    rf"(?::{PORT})?",
    re.ASCII,
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = lazy(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
# distribution-spec, "Pulling manifests".
_TAG = lazy(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
# Characters of host and name: the limit of Docker and of the reference grammar.
_MAX_REPOSITORY = 255


class Digest(str):
    """A validated content digest ``algorithm:hex`` (OCI image-spec, descriptor.md#digests): sha256 or sha512, lower
    case.

    Raises ``ImageError(reason="malformed_image")`` otherwise. Digests become parts of paths and URLs, so an
    unvalidated one allows path traversal (CVE-2024-3727).
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Digest:
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            raise ImageError(
                f"not a digest: {str(value)[:100]!r}", hint="expected sha256: and 64 lower-case hex digits"
            )
        return super().__new__(cls, value)

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hex digits, for display."""
        return self.hex[:12]

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """True if ``data`` has this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # a scan in one process validates no JSON of its own

        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(pattern=f"^{_DIGEST.pattern}$"),
            serialization=core_schema.to_string_ser_schema(),
        )


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An ``os/architecture[/variant]`` triple as in an OCI image index."""

    os: str
    architecture: str
    variant: str = ""  # such as v7; empty: none

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm64/v8`` -> Platform. Raises UsageError."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"[a-z0-9_.-]{1,32}", part) for part in parts):
            raise UsageError(
                f"not a platform: {text[:100]!r}", hint="write os/architecture[/variant], e.g. linux/amd64"
            )
        return cls(*parts)

    @property
    def is_image(self) -> bool:
        """False for ``unknown/unknown``: buildkit's attestation manifests, which are not images."""
        return self.os != "unknown" and self.architecture != "unknown"

    def fits(self, wanted: Platform) -> bool:
        """True if an image of this platform satisfies ``wanted``. Without a wanted variant, any variant does."""
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and wanted.variant in ("", self.variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with a tag and/or a digest. ``host``: in lower case; Docker Hub's short names are expanded."""

    host: str
    repository: str  # without the host
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference like docker (distribution/reference grammar). Raises UsageError that names the wrong part.

        Without tag and digest, the tag is ``latest``. The first part is a host if it has a dot, a colon or upper case,
        or is ``localhost``.
        """

        def refused(what: str, part: str, hint: str) -> UsageError:
            return UsageError(f"not an image reference: {text[:100]!r}: not a {what}: {part[:100]!r}", hint=hint)

        if not text or len(text) > 1024 or text.startswith("-"):
            raise UsageError(
                f"not an image reference: {text[:100]!r}", hint="write host/repository:tag or host/repository@sha256:…"
            )
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            if not _DIGEST.fullmatch(digest_text):
                raise refused("digest", digest_text, "after @: sha256: and 64 lower-case hex digits")
            digest = Digest(digest_text)
        first, slash, path = rest.partition("/")
        if slash and (first == "localhost" or any(c in first for c in ".:") or first != first.lower()):
            # Names of hosts have no case: a policy for docker.io holds for Docker.IO, too.
            host = first.lower()
        else:
            host, path = DOCKER_HUB, rest
        name, colon, tag = path.partition(":")
        if not _HOST.fullmatch(host) or len(host) > 261:
            raise refused("registry host", host, "write host[:port], without https://")
        if host.removesuffix(":443") in (DOCKER_HUB, "index.docker.io", "registry-1.docker.io"):
            host = DOCKER_HUB
            name = name if "/" in name else f"library/{name}"
        if not _REPOSITORY.fullmatch(name) or len(name) > _MAX_REPOSITORY:
            raise refused("repository name", name, "lower-case letters, digits, and . _ - / between them")
        if colon and not _TAG.fullmatch(tag):
            raise refused("tag", tag, "up to 128 letters, digits, . _ -")
        if not colon and digest is None:
            tag = "latest"
        return cls(host, name, tag or None, digest)

    @property
    def name(self) -> str:
        """``host/repository``, without tag or digest; compared with a policy's ``match.images``."""
        return f"{self.host}/{self.repository}"

    def at(self, digest: Digest) -> Reference:
        """Return the reference pinned to a digest. The tag is kept for display only."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A content descriptor (OCI image-spec, descriptor.md). ``size``: bytes, validated to be 0 or more."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    artifact_type: str = ""  # of a referrer; empty: an image
    annotations: tuple[tuple[str, str], ...] = ()
