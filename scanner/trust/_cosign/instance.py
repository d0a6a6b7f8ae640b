"""A sigstore instance described by its trusted root (``trusted_root.json``), and keyless bundles verified by the
sigstore library.

Works offline: everything that verification needs is in the bundle and in the trusted root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sigstore.errors import CertValidationError, VerificationError
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore_models.common.v1 import TimeRange
from sigstore_models.trustroot.v1 import CertificateAuthority as CertificateAuthorityMessage
from sigstore_models.trustroot.v1 import TransparencyLogInstance
from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootMessage

from scanner.errors import ScannerError
from scanner.model.untrusted import clean_text
from scanner.trust._cosign.authorities import ALWAYS, Authorities, Authority, Log, Period
from scanner.trust._cosign.identity import Identity
from scanner.trust._cosign.keyless import KeylessSigner, check_certificate, check_identity, check_sct
from scanner.trust._pki import key_id, load_der_certificate, usable
from scanner.trust.base import SignatureRefused

_PUBLIC = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


# Exceptions that the library lets through for a malformed bundle or a malformed certificate in it.
_UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def bundled_root() -> str:
    """The trusted root of sigstore's public instance, as shipped with the installed version of the library.

    Read as a file: the library's own loader keeps a cache in the home directory, and any process of that user could
    change it.
    """
    return files("sigstore._store").joinpath(_PUBLIC, "trusted_root.json").read_text("utf-8")


@lru_cache(maxsize=16)
def load_root(text: str) -> TrustedRoot:
    """Parse a trusted root (JSON) and check that all of it is usable. Raises ValueError with a message for users."""
    try:
        root = TrustedRoot(TrustedRootMessage.from_json(text))
        authorities_of(root)
        # Build the library's verifier now: a root that it refuses must fail when it is configured, not at the first
        # scan.
        Verifier(trusted_root=root)
    except (ValueError, TypeError, SigstoreError, ScannerError, UnsupportedAlgorithm) as error:
        raise ValueError("not a sigstore trusted root (trusted_root.json)") from error
    return root


def authorities_of(root: TrustedRoot) -> Authorities:
    """The certificate authorities and logs of a root, each with its period.

    Needed for what the library does not verify: classic signatures, signatures by a key in a log, and the periods of
    logs and certificate authorities. Raises ValueError.
    """
    message = root._inner
    return Authorities(
        fulcio=tuple(map(_authority, message.certificate_authorities)),
        rekor=_logs(message.tlogs),
        ctfe=_logs(message.ctlogs),
        tsa=tuple(map(_authority, message.timestamp_authorities)),
    )


def _authority(item: CertificateAuthorityMessage) -> Authority:
    certificates = (load_der_certificate(found.raw_bytes) for found in item.cert_chain.certificates)
    return Authority(tuple(certificates), _period(item.valid_for))


def _logs(logs: Iterable[TransparencyLogInstance]) -> dict[str, Log]:
    """Logs by the id of their key (Rekor v1, CT logs) and by the id that the trusted root gives them (Rekor v2)."""
    found: dict[str, Log] = {}
    for log in logs:
        if log.public_key.raw_bytes:
            one = Log(usable(load_der_public_key(log.public_key.raw_bytes)), _period(log.public_key.valid_for))
            found.setdefault(log.log_id.key_id.hex(), one)
            found[key_id(one.key)] = one
    return found


def _period(given: TimeRange | None) -> Period:
    return ALWAYS if given is None else Period(*(at and _aware(at) for at in (given.start, given.end)))


def _aware(at: datetime) -> datetime:
    """The format requires RFC 3339 with a time zone; a time without one is taken as UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _OneOf:
    """Our identities as sigstore's VerificationPolicy."""

    identities: Sequence[Identity]

    def verify(self, cert: x509.Certificate) -> None:
        check_identity(cert, self.identities)


def verify_bundle(bundle: bytes, root: TrustedRoot, identities: Sequence[Identity]) -> KeylessSigner:
    """Verify a bundle's DSSE envelope and return its signer: certificate, SCT, log proofs (Rekor v1 and v2), times and
    identity.

    Does not look at the payload of the envelope. Raises SignatureRefused.
    """
    verifier = Verifier(trusted_root=root)
    try:
        parsed = Bundle.from_json(bundle)
        verifier.verify_dsse(parsed, _OneOf(identities))
        # A private method, but the library offers no other way to learn the times that it verified.
        times = [found.time for found in verifier._establish_time(parsed)]
    except CertValidationError as error:
        text = "no valid chain leads from the certificate to the authority"
        raise SignatureRefused(text, reason="certificate") from error
    except VerificationError as error:
        text = clean_text(str(error), 200)
        # The library has one exception for everything, so the step that failed is only visible in its text.
        about_log = any(word in text for word in ("log ", "SET", "checkpoint", "inclusion"))
        reason = "tlog" if about_log else "certificate"
        raise SignatureRefused(f"sigstore refuses the bundle: {text}", reason=reason) from error
    except (SigstoreError, *_UNREADABLE) as error:
        raise SignatureRefused("the bundle cannot be read", reason="malformed") from error
    _check_periods(parsed, times, authorities_of(root))
    return check_identity(parsed.signing_certificate, identities)


def _check_periods(bundle: Bundle, times: Sequence[datetime], trusted: Authorities) -> None:
    """Check that log, certificate authority and CT log were trusted when the bundle was signed.

    Raises SignatureRefused.

    The library compares the signing time with the periods of timestamp authorities only.
    """
    named = bundle.log_entry._inner.log_id.key_id.hex()
    log = trusted.rekor.get(named)
    if log is None:  # for an unknown log id the library tries every key, so the id itself would prove nothing
        raise SignatureRefused(f"the log {named[:16]}… is not trusted", reason="tlog")
    for time in times:
        log.period.require(time, "the transparency log", "tlog")
    path = check_certificate(bundle.signing_certificate, (), trusted.fulcio, times)
    check_sct(path, trusted.ctfe)
