"""Certification paths (RFC 5280 section 6): from a certificate to a trusted authority, valid at a given time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.trust._constraints import violation
from scanner.trust._pki import extension, is_authority, issued_by, usable, valid_at
from scanner.trust.base import SignatureRefused

# Cross-signed certificates can span exponentially many paths; a real chain has three or four certificates.
_MAX_PATH, _MAX_PATHS = 6, 64
_UNDERSTOOD = {
    x509.BasicConstraints.oid,
    x509.KeyUsage.oid,
    x509.ExtendedKeyUsage.oid,
    x509.SubjectAlternativeName.oid,
    x509.CertificatePolicies.oid,
    x509.NameConstraints.oid,  # see scanner.trust._constraints
}


def refuse_unknown_critical(
    certificates: Iterable[x509.Certificate], understood: Iterable[x509.ObjectIdentifier] = ()
) -> None:
    """Refuse unknown critical extensions (RFC 5280 section 4.2). Raises SignatureRefused(reason="certificate")."""
    known = _UNDERSTOOD | set(understood)
    for certificate in certificates:
        for item in certificate.extensions:
            if item.critical and item.oid not in known:
                raise SignatureRefused(
                    f"a certificate has the unknown critical extension {item.oid.dotted_string}", reason="certificate"
                )


def refuse_constrained(path: Sequence[x509.Certificate]) -> None:
    """Raise SignatureRefused(reason="certificate") if an authority certified a name outside its name constraints."""
    problem = violation(path)
    if problem:
        raise SignatureRefused(problem, reason="certificate")


def is_limited_to_others(authority: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    """True if an authority's own extended key usage leaves the purpose out.

    RFC 5280 does not say it, but every verifier of the web's and of signed code reads it so, and authorities rely on
    that: one that may issue for TLS servers only could otherwise name a signer of code.
    """
    purposes = extension(authority, x509.ExtendedKeyUsage)
    return purposes is not None and not {purpose, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes)


def build_path(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: datetime,
    purpose: x509.ObjectIdentifier,
) -> tuple[x509.Certificate, ...]:
    """Return a path from ``leaf`` to one of ``anchors``, with all certificates valid at the time ``at``, and every
    authority allowed to issue for ``purpose``, with a key that is not weak.

    ``others`` come with the signature and are untrusted: they count only if an anchor's chain signs them. Raises
    SignatureRefused(reason="certificate").
    """
    if not valid_at(leaf, at):
        raise SignatureRefused(
            f"the certificate was valid from {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, not at {at:%Y-%m-%dT%H:%M:%SZ}",
            reason="certificate",
        )
    refused = SignatureRefused("no valid chain leads from the certificate to a trusted authority", reason="certificate")
    others, anchors = ([c for c in each if _may_issue(c, purpose)] for each in (others, anchors))
    for path in islice(_paths((leaf,), others, anchors, at), _MAX_PATHS):
        try:
            refuse_unknown_critical(path)
            refuse_constrained(path)
        except SignatureRefused as error:
            refused = error
        else:
            return path
    raise refused


def _may_issue(authority: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    try:
        usable(authority.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return not is_limited_to_others(authority, purpose)


def _paths(
    path: tuple[x509.Certificate, ...],
    others: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> Iterator[tuple[x509.Certificate, ...]]:
    if len(path) > _MAX_PATH:
        return
    below = len(path) - 1
    for anchor in anchors:
        if is_authority(anchor, below) and valid_at(anchor, at) and issued_by(path[-1], anchor):
            yield (*path, anchor)
    # Certificates that came with a signature: a long list would multiply the work for each level.
    for other in others[:_MAX_PATH]:
        if other not in path and is_authority(other, below) and valid_at(other, at) and issued_by(path[-1], other):
            yield from _paths((*path, other), others, anchors, at)
