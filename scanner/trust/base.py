"""The contract of a signature scheme.

``verify`` is the thin part that fetches. The cryptography is in pure functions that take bytes, keys and a clock. "Not
signed", "refused" and "unknown" are different answers (``TrustStatus``): if a server is down, the answer is unknown,
never not signed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from scanner.config import Settings
from scanner.errors import ImageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Verification
from scanner.model.reference import Descriptor, Digest, Reference

if TYPE_CHECKING:
    from scanner.registry.auth import CredentialStore


class TrustState(Protocol):
    """What a scheme remembers between runs to detect rollbacks, by a key such as the GUN.

    Only verified metadata is remembered.
    """

    def load(self, key: str) -> bytes | None:
        """Return the state that was saved last, or None."""

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        """Store ``state`` if ``replacing`` is still the stored one (None: nothing is stored).

        Returns False, and writes nothing, if another run was faster. The caller must then load and verify again:
        overwriting could replace a newer version by an older one, and giving up would forget what this run has seen.
        """


class Fetcher(Protocol):
    """The registry operations that a scheme may use: see ``scanner.registry.client.RegistryClient``."""

    def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]: ...

    def blob(self, reference: Reference, digest: Digest, limit: int) -> bytes: ...

    def referrers(self, reference: Reference, digest: Digest, artifact_type: str = "") -> list[Descriptor]: ...


@dataclass(frozen=True)
class TrustRoot:
    """A named trust root, to which a policy's ``signers|keys|identities`` refer.

    ``document``: specific to the scheme, already validated.
    """

    name: str
    scheme: str
    document: Mapping[str, Any]
    scope: tuple[str, ...] = ("**",)  # repository globs


@dataclass(frozen=True)
class TrustOptions:
    """Options of the command line. They take precedence over the trust root's document."""

    server: str = ""  # URL of the Notary server
    gun: str = ""  # the name that was signed, if it differs from the image's
    require_signers: tuple[str, ...] = ()
    ca_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrustQuestion:
    """Whether a name is signed; no registry is contacted.

    ``roots``: trust roots of this scheme whose scope covers it.
    """

    reference: Reference  # with a tag, a digest, or both, which must then agree
    roots: tuple[TrustRoot, ...]
    now: datetime
    state: TrustState  # the versions that were seen before, against rollbacks
    settings: Settings = field(default_factory=Settings)
    options: TrustOptions = field(default_factory=TrustOptions)
    credentials: CredentialStore | None = (
        None  # the registry's; a scheme sends them to the registry's own services only
    )

    @property
    def name(self) -> str:
        """The repository's name as signed (the GUN); a Notation trust policy's scopes are compared with it."""
        return self.options.gun or self.reference.name


@dataclass(frozen=True, kw_only=True)
class TrustJob(TrustQuestion):
    """Whether an image is signed.

    ``reference`` is pinned to ``descriptor.digest``; its tag is the one the user gave, or None.
    """

    descriptor: Descriptor
    fetch: Fetcher


UNSOUND_TRUST = "unsound_trust"


class SignatureRefused(ImageError):
    """A signature that does not count.

    ``reason``: the step that failed: signature, payload, certificate, identity, tlog, expired, malformed, checksum,
    threshold, policy, too_large … A scheme turns it into a Verification.
    """

    default_reason = "signature"


class TrustScheme(ABC):
    """A signature scheme. ``id`` is the value of ``signature.scheme`` in policies and of ``--scheme``."""

    id: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """Return every answer of this scheme about the image.

        One for each trust root (thresholds applied), and one for each attestation, with its ``predicate_type``. Without
        a trust root: one answer, not signed, or unknown with the reason ``no_trust_root``. Never raises: an error
        becomes a Verification with the status unknown or refused.
        """

    @abstractmethod
    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """Return the validated ``TrustRoot.document`` of a file (PEM, JSON or YAML), or of a single word such as a
        key id, if the scheme knows one.

        The result holds plain JSON values, so that it can be stored; ``parse_trust`` accepts it again. Raises
        UsageError: its message begins with ``where`` and names the wrong member. The reason UNSOUND_TRUST means a
        well-formed document that trusts nobody or contradicts itself: every image is refused by it.
        """

    def describe(self) -> str:
        """One line for lists of schemes: the first line of the class's docstring."""
        return (type(self).__doc__ or self.title).strip().partition("\n")[0]

    def signers(self, document: Mapping[str, Any]) -> frozenset[str] | None:
        """Names that a policy may require from this trust root. None: they are not known in advance."""
        return None


class NameScheme(TrustScheme):
    """A scheme that signs names, so it can answer without a registry."""

    @abstractmethod
    def verify(self, job: TrustQuestion) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``."""
