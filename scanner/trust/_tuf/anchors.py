"""Trust anchors for a repository's root: pinned certificate ids, a CA, root keys, a whole root.json, or the first root
seen (TOFU).

With any anchor, the certificate must name the repository. Docker uses one root key for all repositories of a user, so
the name is the only protection against a server that answers for one repository with the complete, valid metadata of
another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scanner.model.untrusted import clean_text
from scanner.trust import _pki
from scanner.trust._constraints import violation
from scanner.trust._pki import load_certificates
from scanner.trust._tuf.documents import (
    MAX_CERTIFICATES,
    ROOT_LIMIT,
    Key,
    Role,
    Root,
    key_id,
    parse_root,
    spki,
    usable_key,
    verify_role,
)
from scanner.trust.base import SignatureRefused

_WEAK = (hashes.MD5, hashes.SHA1)
_GRACE = timedelta(days=1)  # signers' clocks may be fast
# Notary asks Go for serverAuth, so it refuses even the codeSigning certificates that it creates itself. Code signing is
# the purpose of these certificates.
_USAGES = {
    ExtendedKeyUsageOID.CODE_SIGNING,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}
_UNDERSTOOD = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.NameConstraints,
)
# Certificates of a chain.
_DEPTH = 8


class Mode(StrEnum):
    TOFU = "tofu"
    CERT_IDS = "cert_ids"
    CA = "ca"
    ROOT_KEYS = "root_keys"
    ROOT_JSON = "root_json"


@dataclass(frozen=True)
class Anchor:
    """The start of trust in a repository. Later roots are trusted because earlier ones sign them."""

    mode: Mode
    ids: frozenset[str] = frozenset()  # of root keys; empty: of another mode
    authorities: tuple[x509.Certificate, ...] = ()
    keys: frozenset[bytes] = frozenset()  # SubjectPublicKeyInfo
    root: Root | None = None  # a whole root.json as the start; None: of another mode


def anchor_of(document: Mapping[str, Any]) -> Anchor:
    """Build the anchor from a trust root's document, which ``NotaryV1.parse_trust`` has validated."""
    mode = Mode(document["mode"])
    if mode is Mode.CERT_IDS:
        return Anchor(mode, ids=frozenset(document["ids"]))
    if mode is Mode.CA:
        return Anchor(mode, authorities=load_certificates(document["pem"]))
    if mode is Mode.ROOT_KEYS:
        return Anchor(mode, keys=frozenset(load_public_key(item) for item in document["pem"]))
    if mode is Mode.ROOT_JSON:
        return Anchor(mode, root=parse_root(document["root_json"].encode(), ROOT_LIMIT))
    return Anchor(mode)


def load_public_key(text: str) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a PEM public key.

    Raises ValueError for a type or strength that is never accepted.
    """
    return spki(_pki.load_public_key(text))


@dataclass(frozen=True)
class Leaf:
    """A root key that is a certificate for this repository and valid now."""

    key: Key
    certificate: x509.Certificate
    bundle: tuple[x509.Certificate, ...]  # intermediates that came with it


@dataclass(frozen=True)
class Leaves:
    """The certificates of a root: those that count, and why the others were dropped."""

    good: tuple[Leaf, ...]
    dropped: tuple[str, ...] = field(default=())


def root_leaves(root: Root, gun: str, now: datetime) -> Leaves:
    """The root role's certificates that name the repository, are strong enough and are valid now."""
    good, dropped = [], []
    role = root.roles["root"]
    for keyid in sorted(role.keyids):
        key = role.keys[keyid]
        reason = _unfit(key, gun, now)
        if reason:
            dropped.append(f"{key.id[:16]} {reason}")
        else:
            good.append(Leaf(key, key.certificates[0], key.certificates[1:]))
    return Leaves(tuple(good), tuple(dropped))


def _unfit(key: Key, gun: str, now: datetime) -> str:
    """Return why a root key does not count. Empty if it does."""
    if not key.certificates or len(key.certificates) > MAX_CERTIFICATES:
        return "is not a certificate"
    leaf, *others = key.certificates
    if is_authority(leaf) or not all(is_authority(other) for other in others):
        return "is not one leaf certificate followed by its issuers"
    if not names(leaf, gun):
        return f"is for {clean_text(common_name(leaf) or 'no name', 100)!r}, not for this repository"
    if weak(leaf) or key.public is None:
        return "has a weak key or signature"
    if now < leaf.not_valid_before_utc - _GRACE:
        return f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}"
    if now > leaf.not_valid_after_utc:
        return f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}"
    return ""


def common_name(certificate: x509.Certificate) -> str | None:
    """The common name. None if there is none, or several: verifiers could differ in which one counts."""
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return None
    return str(found[0].value) if len(found) == 1 else None


def names(certificate: x509.Certificate, gun: str) -> bool:
    """True if the common name is the repository, or a prefix of it that ends with a star."""
    name = common_name(certificate)
    if name is None:
        return False
    # No other wildcards, as in Notary: `*` in the middle would let `host/team*/app` cover names of another team.
    return gun.startswith(name[:-1]) if name.endswith("*") else name == gun


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def weak(certificate: x509.Certificate) -> bool:
    try:
        algorithm = certificate.signature_hash_algorithm
        public = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return True
    if isinstance(algorithm, _WEAK):
        return True
    return all(usable_key(public, kind) is None for kind in ("ecdsa", "rsa", "ed25519"))


def begin(anchor: Anchor, root: Root, gun: str, now: datetime) -> None:
    """Trust a first root. Raises SignatureRefused(reason="root_untrusted") with the certificates that the root has."""
    leaves = root_leaves(root, gun, now)
    good = [leaf for leaf in leaves.good if _anchor_matches(anchor, leaf, now)]
    if not good:
        raise SignatureRefused(
            _untrusted_reason(anchor, root, leaves), reason="root_untrusted", hint=_pinning_hint(anchor, leaves)
        )
    _self_signed(root, good)


def follow(old: Root, new: Root, gun: str, now: datetime) -> None:
    """Trust a root because its predecessor does: it must be signed as the old root requires, and as it requires itself.

    The old root's certificates may have expired, the new one's may not: a repository that was not visited for years
    must still be updatable. Raises SignatureRefused(reason="root_untrusted").
    """
    try:
        # TUF specification 5.3.4: signed by the threshold of the old root and, in `confirm`, by that of the new one.
        verify_role(new.document, old.roles["root"])
    except SignatureRefused as error:
        raise SignatureRefused(
            f"root {new.version} is not signed by the keys of root {old.version}", reason="root_untrusted"
        ) from error
    confirm(new, gun, now)


def confirm(root: Root, gun: str, now: datetime) -> None:
    """Check that a root meets its own threshold with certificates that are valid now."""
    leaves = root_leaves(root, gun, now)
    if not leaves.good:
        raise SignatureRefused(
            f"root {root.version}: no certificate is usable: {'; '.join(leaves.dropped) or 'there is none'}",
            reason="root_untrusted",
        )
    _self_signed(root, leaves.good)


def _self_signed(root: Root, leaves: Sequence[Leaf]) -> None:
    role = root.roles["root"]
    keys = {leaf.key.id: leaf.key for leaf in leaves}
    remaining = Role("root", role.keyids & keys.keys(), role.threshold, keys)
    try:
        verify_role(root.document, remaining)
    except SignatureRefused as error:
        raise SignatureRefused(f"root {root.version} is not signed by its own keys", reason="root_untrusted") from error


def _anchor_matches(anchor: Anchor, leaf: Leaf, now: datetime) -> bool:
    if anchor.mode is Mode.CERT_IDS:
        return leaf.key.id in anchor.ids
    if anchor.mode is Mode.CA:
        return issued_by(leaf.certificate, leaf.bundle, anchor.authorities, now)
    if anchor.mode is Mode.ROOT_KEYS:
        return leaf.key.identity in anchor.keys
    return anchor.mode is Mode.TOFU


def _untrusted_reason(anchor: Anchor, root: Root, leaves: Leaves) -> str:
    there = ", ".join(leaf.key.id for leaf in leaves.good)
    if there:
        return f"the root is not the one that is trusted: its certificate is {there}"
    return f"root {root.version}: no certificate is usable: {'; '.join(leaves.dropped) or 'there is none'}"


def _pinning_hint(anchor: Anchor, leaves: Leaves) -> str:
    """A hint for the usual mistake: the id of the bare key is the private key's file name, and looks like a
    certificate id.
    """
    for leaf in leaves.good:
        public = leaf.key.public
        if public is None:
            continue
        bare = key_id(leaf.key.type.removesuffix("-x509"), spki(public))
        if bare in anchor.ids:
            return (
                "the pinned id belongs to the bare key (it is the private key's file name); pin the "
                f"certificate's: {leaf.key.id}"
            )
    return ""


def issued_by(
    leaf: x509.Certificate, bundle: Sequence[x509.Certificate], authorities: Iterable[x509.Certificate], now: datetime
) -> bool:
    """True if a chain leads from the leaf, over certificates of its bundle, to one of the authorities.

    RFC 5280 section 6 without policies. A certificate with an unknown critical extension issues nothing.
    """
    return _chain((leaf,), tuple(bundle), tuple(authorities), now)


def _chain(
    path: tuple[x509.Certificate, ...],
    bundle: tuple[x509.Certificate, ...],
    authorities: tuple[x509.Certificate, ...],
    now: datetime,
) -> bool:
    """Depth-first search. ``path``: the chain so far, leaf first."""
    certificate, below = path[-1], len(path) - 1  # number of intermediates below the next issuer
    # The bundle comes from the server: without a bound, cross-signed certificates would make the search exponential.
    if below > _DEPTH or not _acceptable(certificate, now):
        return False
    if any(_issues(one, certificate, below, now) and not violation((*path, one)) for one in authorities):
        return True
    return any(
        _issues(other, certificate, below, now)
        and _chain((*path, other), tuple(c for c in bundle if c != other), authorities, now)
        for other in bundle
    )


def _acceptable(certificate: x509.Certificate, now: datetime) -> bool:
    try:
        extensions = certificate.extensions
    except ValueError:
        return False
    usage = next((e.value for e in extensions if isinstance(e.value, x509.ExtendedKeyUsage)), None)
    return (
        not weak(certificate)
        and certificate.not_valid_before_utc - _GRACE <= now <= certificate.not_valid_after_utc
        and not any(e.critical and not isinstance(e.value, _UNDERSTOOD) for e in extensions)
        and (usage is None or bool(_USAGES & set(usage)))
    )


def _issues(issuer: x509.Certificate, certificate: x509.Certificate, below: int, now: datetime) -> bool:
    if certificate.issuer != issuer.subject or not is_authority(issuer) or not _acceptable(issuer, now):
        return False
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    # RFC 5280 6.1.4 (l): counted in intermediates below the issuer, without the leaf.
    if constraints.path_length is not None and below > constraints.path_length:
        return False
    usage = next((e.value for e in issuer.extensions if isinstance(e.value, x509.KeyUsage)), None)
    if usage is not None and not usage.key_cert_sign:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def anchor_digest(anchor: Anchor) -> str:
    """Identify the anchor. State that was recorded under one anchor does not count under another."""
    parts = [
        anchor.mode,
        *sorted(anchor.ids),
        *sorted(authority.fingerprint(hashes.SHA256()).hex() for authority in anchor.authorities),
        *sorted(key.hex() for key in anchor.keys),
        anchor.root.document.fingerprint if anchor.root else "",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
