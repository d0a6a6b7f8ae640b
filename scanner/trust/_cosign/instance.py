"""A sigstore instance by its trusted root (``trusted_root.json``): its authorities, and keyless bundles verified by the sigstore library.

Offline: everything that verification needs is in the bundle and in the trusted root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sigstore.errors import CertValidationError, VerificationError
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore_models.trustroot.v1 import TransparencyLogInstance
from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootMessage

from scanner.model.untrusted import clean_text
from scanner.trust._cosign.document import Authorities, Identity
from scanner.trust._cosign.keyless import Who, check_identity
from scanner.trust._pki import PublicKey, key_id, usable
from scanner.trust.base import SignatureRefused

_PUBLIC = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


def bundled_root() -> str:
    """The root of sigstore's public instance as our version of the library carries it. Read as data: the library's own loader keeps a
    cache in the home directory, which whoever owns that directory could change."""
    return files("sigstore._store").joinpath(_PUBLIC, "trusted_root.json").read_text("utf-8")


@lru_cache(maxsize=16)
def load_root(text: str) -> TrustedRoot:
    """The trusted root of a JSON text, usable as a whole. Raises ValueError in plain words."""
    try:
        root = TrustedRoot(TrustedRootMessage.from_json(text))
        authorities_of(root)
        Verifier(trusted_root=root)
    except (ValueError, SigstoreError) as error:
        raise ValueError("not a sigstore trusted root (trusted_root.json)") from error
    return root


def authorities_of(root: TrustedRoot) -> Authorities:
    """Its certificate authorities and logs, for what the library does not verify: classic signatures, keyed ones in a log."""
    message = root._inner
    return Authorities(
        fulcio=tuple(root.get_fulcio_certs()),
        rekor=_log_keys(message.tlogs),
        ctfe=_log_keys(message.ctlogs),
        tsa=tuple(tuple(a.certificates(allow_expired=True)) for a in root.get_timestamp_authorities()),
    )


def _log_keys(logs: Iterable[TransparencyLogInstance]) -> dict[str, PublicKey]:
    keys = [usable(load_der_public_key(log.public_key.raw_bytes)) for log in logs if log.public_key.raw_bytes]
    return {key_id(key): key for key in keys}


@dataclass(frozen=True)
class _OneOf:
    """Our identities as sigstore's VerificationPolicy."""

    identities: Sequence[Identity]

    def verify(self, cert: x509.Certificate) -> None:
        check_identity(cert, self.identities)


def verify_bundle(bundle: bytes, root: TrustedRoot, identities: Sequence[Identity]) -> Who:
    """Who signed the bundle's DSSE envelope: certificate, SCT, log proofs (Rekor v1 and v2), times and identity all hold.

    Nothing is said of what the envelope holds. Raises SignatureRefused.
    """
    try:
        parsed = Bundle.from_json(bundle)
        Verifier(trusted_root=root).verify_dsse(parsed, _OneOf(identities))
    except CertValidationError as error:
        text = "no valid chain leads from the certificate to the authority"
        raise SignatureRefused(text, reason="certificate") from error
    except VerificationError as error:
        text = clean_text(str(error), 200)
        about_log = any(word in text for word in ("log ", "SET", "checkpoint", "inclusion"))
        reason = "tlog" if about_log else "certificate"
        raise SignatureRefused(f"sigstore refuses the bundle: {text}", reason=reason) from error
    except (SigstoreError, ValueError, KeyError, TypeError, AttributeError, x509.ExtensionNotFound) as error:
        raise SignatureRefused("the bundle cannot be read", reason="malformed") from error
    return check_identity(parsed.signing_certificate, identities)
