"""The contract of a signature scheme.

``verify`` is the thin part that fetches; the cryptography lives in pure functions beside it that take bytes, keys
and a clock. "Not signed", "refused" and "unknown" are three different answers (``TrustStatus``): a dead server is
unknown, never not-signed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from scanner.config import Settings
from scanner.errors import ImageError
from scanner.model.finding import Verification
from scanner.model.reference import Descriptor, Digest, Reference

if TYPE_CHECKING:
    from scanner.registry.auth import CredentialStore


class TrustState(Protocol):
    """What a scheme remembers between runs (rollback detection), per key such as a GUN.

    Only verified metadata is remembered.
    """

    def load(self, key: str) -> bytes | None:
        """The state that was saved last. None: nothing was."""

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        """Keep ``state``, if ``replacing`` is still what is stored (None: nothing is).

        False: another run was faster, and nothing was written. The caller loads again and verifies again. If the
        slower run won, it could put an older version in the place of a newer one; if it gave up, what it saw would
        be forgotten.
        """


class Fetcher(Protocol):
    """What a scheme may ask of a registry: see ``scanner.registry.client.RegistryClient``."""

    def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]: ...

    def blob(self, reference: Reference, digest: Digest, limit: int) -> bytes: ...

    def referrers(self, reference: Reference, digest: Digest, artifact_type: str = "") -> list[Descriptor]: ...


@dataclass(frozen=True)
class TrustRoot:
    """A named trust root: what a policy's ``signers|keys|identities`` refer to.

    ``document`` is scheme specific, already validated.
    """

    name: str
    scheme: str
    document: Mapping[str, Any]
    scope: tuple[str, ...] = ("**",)  # repository globs


@dataclass(frozen=True)
class TrustOptions:
    """What a person says on the command line beside the trust root; it wins over the root's document."""

    server: str = ""  # the Notary server's address
    gun: str = ""  # the name under which the image was signed, where it is not the name it is pulled by
    require_signers: tuple[str, ...] = ()
    ca_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrustQuestion:
    """Whether a name is signed, asked without a registry.

    ``roots`` are those of this scheme whose scope covers the name.
    """

    reference: Reference  # with a tag, a digest, or both: then they must agree
    roots: tuple[TrustRoot, ...]
    now: datetime
    state: TrustState
    settings: Settings = field(default_factory=Settings)
    options: TrustOptions = field(default_factory=TrustOptions)
    credentials: CredentialStore | None = (
        None  # the registry's: a scheme gives them to nobody but the registry's own services
    )

    @property
    def name(self) -> str:
        """The repository's name as its signers know it (the GUN; what a trust policy's scopes are compared with)."""
        return self.options.gun or self.reference.name


@dataclass(frozen=True, kw_only=True)
class TrustJob(TrustQuestion):
    """The same about an image at hand: ``reference`` is pinned to ``descriptor.digest``; its tag is what a person
    used and may be None.
    """

    descriptor: Descriptor
    fetch: Fetcher


UNSOUND_TRUST = "unsound_trust"


class SignatureRefused(ImageError):
    """One signature that does not count.

    ``reason`` says which step it failed: signature, payload, certificate, identity, tlog, expired, malformed,
    checksum, threshold, policy, too_large … A scheme turns it into a Verification.
    """

    default_reason = "signature"


class TrustScheme(ABC):
    """``id`` is what a policy's ``signature.scheme`` and ``--scheme`` take."""

    id: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """Every answer of this scheme about the image: for each root one about its signature (thresholds applied),
        and one for each attestation, with its ``predicate_type``. No root: one answer, not signed, or unknown
        with reason ``no_trust_root``.

        Raises nothing: a fault is a Verification with status unknown or refused.
        """

    @abstractmethod
    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """The ``TrustRoot.document`` that a file holds (PEM, JSON or YAML, as the scheme allows), validated; or a
        word that a person wrote instead of a file, such as a key id, where the scheme knows one.

        Plain JSON values only, so that it can be stored; ``parse_trust`` accepts its JSON again. Raises UsageError
        that begins with ``where`` and names the member that is wrong; with the reason UNSOUND_TRUST for a document
        of the right form that trusts nobody or contradicts itself: by such a one every image is refused.
        """

    def describe(self) -> str:
        """One line for lists of schemes: the first of the class's docstring."""
        return (type(self).__doc__ or self.title).strip().partition("\n")[0]

    def signers(self, document: Mapping[str, Any]) -> frozenset[str] | None:
        """Whom a policy may name of this trust root; None: whoever it lets in is not known beforehand."""
        return None


class NameScheme(TrustScheme):
    """A scheme that binds signatures to names, so that it can answer where there is no registry."""

    @abstractmethod
    def verify(self, job: TrustQuestion) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``."""
