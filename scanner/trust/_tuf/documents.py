"""Single files of a Notary v1 repository: strict parsing, canonical JSON, keys, signatures, thresholds.

Every function raises only ``SignatureRefused``, whatever the bytes are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeGuard

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._pki import load_certificates
from scanner.trust.base import SignatureRefused

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

MAX_CERTIFICATES = 16
ROOT_LIMIT = 1 << 20
_MAX_INTEGER = 1 << 53  # Go reads numbers as float64: beyond this, two parsers read different numbers
_MAX_SIGNATURES = 256  # each costs a verification
_RSA_BITS = range(2048, 16385)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_ESCAPE = re.compile(r'\\(?:(["\\])|([nrtbf])|u00([01][0-9a-f]))')
_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
# Notary's names of delegated roles: targets/releases, targets/alice.
_DELEGATION = re.compile(r"targets(?:/[-a-z0-9_]+)+", re.ASCII)
_MAX_ROLE_NAME = 255


def malformed_document(what: str, why: str) -> SignatureRefused:
    return SignatureRefused(f"{clean_text(what, 300)}: {clean_text(why, 300)}", reason="malformed")


def canonical(value: Any) -> bytes:
    """Encode canonical JSON (OLPC form), which is what signatures cover.

    Members are sorted by their UTF-8 bytes (equal to code point order), without blanks. Strings escape only quote and
    backslash, so the other escapes of Python's encoder are reverted.
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _ESCAPE.sub(_unescape, text).encode()


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return match[0]
    return _CONTROL[match[2]] if match[2] else chr(int(match[3], 16))


def load(data: bytes, what: str, limit: int) -> Any:
    """Parse JSON. Unknown members are kept, because the signature covers them as well."""
    try:
        value = load_untrusted_json(data, limit=limit, depth=64, error=SignatureRefused, reason="malformed")
    except SignatureRefused as error:
        raise malformed_document(what, str(error)) from error
    _only_integers(value, what)
    return value


def _only_integers(value: Any, what: str) -> None:
    if isinstance(value, float) or (is_int(value) and abs(value) > _MAX_INTEGER):
        raise malformed_document(what, "a number that is not an integer, or too large to be read exactly")
    if isinstance(value, dict):
        for item in value.values():
            _only_integers(item, what)
    elif isinstance(value, list):
        for item in value:
            _only_integers(item, what)


def is_int(value: Any) -> TypeGuard[int]:
    """True for integers; bool is a subclass of int in Python, but not a number in JSON."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_text_list(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def decode_base64(value: Any, what: str) -> bytes:
    """Decode standard, padded base64. Raises SignatureRefused(reason="malformed")."""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise malformed_document(what, "not base64")


def parse_time(value: Any, what: str) -> datetime:
    """Parse an RFC 3339 time with up to nine digits of a second."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is not None:
            offset = timedelta(hours=int(match[4] or 0), minutes=int(match[5] or 0))
            zone = timezone(-offset if match[3] == "-" else offset)
            fraction = int((match[2] or "").ljust(9, "0")) // 1000
            return datetime.fromisoformat(match[1]).replace(microsecond=fraction, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise malformed_document(what, "expires is not an RFC 3339 time")


@dataclass(frozen=True)
class Key:
    """A public key with the id that its content gives it.

    ``public`` is None for a type that cannot be used; such a key never counts.
    """

    id: str
    type: str
    public: PublicKey | None
    certificates: tuple[x509.Certificate, ...] = ()  # of the formats that wrap a key in one

    @property
    def identity(self) -> bytes:
        """Equal for equal keys, however they are wrapped.

        Thresholds count identities, so one key never counts twice.
        """
        return spki(self.public) if self.public is not None else self.id.encode()


def spki(public: PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(kind: str, public: bytes) -> str:
    """The id that Notary gives a key. For a root key it is the certificate's id."""
    value = {"keytype": kind, "keyval": {"private": None, "public": base64.b64encode(public).decode()}}
    return hashlib.sha256(canonical(value)).hexdigest()


def parse_keys(value: Any, what: str) -> dict[str, Key]:
    """Parse keys, by the id under which the document lists them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed_document(what, "keys is not an object")
    return {listed: _parse_key(item, what) for listed, item in value.items()}


def _parse_key(value: Any, what: str) -> Key:
    inner = value.get("keyval") if isinstance(value, dict) else None
    kind = value.get("keytype") if isinstance(value, dict) else None
    if not isinstance(inner, dict) or not isinstance(kind, str):
        raise malformed_document(what, "a key without keytype or keyval")
    raw = decode_base64(inner.get("public"), what)
    identifier = key_id(kind, raw)
    public: Any = None
    certificates: tuple[x509.Certificate, ...] = ()
    try:
        if kind in ("ecdsa-x509", "rsa-x509"):
            # One more than the limit, so that `_unfit` can tell "too many" from "just enough" without keeping
            # thousands.
            certificates = load_certificates(raw)[: MAX_CERTIFICATES + 1]
            public = certificates[0].public_key()
        elif kind in ("ecdsa", "rsa"):
            public = serialization.load_der_public_key(raw)
        elif kind == "ed25519":
            public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass  # an unusable key is no error, it just never counts
    return Key(identifier, kind, usable_key(public, kind), certificates)


def usable_key(public: Any, kind: str) -> PublicKey | None:
    """Return the key if it is of its declared type and strong enough."""
    family = kind.removesuffix("-x509")
    if family == "ecdsa" and isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return public
    if family == "rsa" and isinstance(public, rsa.RSAPublicKey) and public.key_size in _RSA_BITS:
        return public
    if family == "ed25519" and isinstance(public, ed25519.Ed25519PublicKey):
        return public
    return None


@dataclass(frozen=True)
class Signature:
    keyid: str
    method: str  # as the document names it; the key's type decides which are accepted
    value: bytes


def signature_is_valid(key: Key, signature: Signature, content: bytes) -> bool:
    """True if the key verifies the signature over this content."""
    public, method, value = key.public, signature.method.lower(), signature.value
    try:
        if isinstance(public, ec.EllipticCurvePublicKey) and method == "ecdsa":
            half = (public.key_size + 7) // 8
            if len(value) != 2 * half:  # r and s, padded to the curve's length; never DER
                return False
            r, s = int.from_bytes(value[:half]), int.from_bytes(value[half:])
            public.verify(encode_dss_signature(r, s), content, ec.ECDSA(hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey) and method == "rsapss":
            public.verify(value, content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        elif isinstance(public, rsa.RSAPublicKey) and method == "rsapkcs1v15":
            public.verify(value, content, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey) and method == "eddsa":
            public.verify(value, content)
        else:
            return False
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class Role:
    """The signers that a role needs. ``keys`` are listed by id. ``threshold``: number of different keys."""

    name: str
    keyids: frozenset[str]
    threshold: int
    keys: Mapping[str, Key]

    @property
    def signing(self) -> frozenset[bytes]:
        """The role's public keys, to detect a change of keys."""
        return frozenset(self.keys[keyid].identity for keyid in self.keyids)


def parse_role(name: str, value: Any, keys: Mapping[str, Key], what: str) -> Role:
    if not isinstance(value, dict):
        raise malformed_document(what, f"no role {name}")
    keyids, threshold = value.get("keyids"), value.get("threshold")
    if not is_text_list(keyids):
        raise malformed_document(what, f"role {name} has no list of key ids")
    if not is_int(threshold) or threshold < 1:
        raise malformed_document(what, f"role {name} has no threshold of 1 or more")
    if any(keyid not in keys for keyid in keyids):
        raise malformed_document(what, f"role {name} names a key that is not defined")
    return Role(name, frozenset(keyids), threshold, {keyid: keys[keyid] for keyid in keyids})


@dataclass(frozen=True)
class FileMeta:
    """Length and hashes of a file, as stated by its verified parent."""

    length: int
    sha256: bytes
    sha512: bytes | None  # None: the parent states only sha256

    @property
    def hex(self) -> str:
        return self.sha256.hex()

    def compare(self, data: bytes, what: str) -> None:
        """Compare length and every hash. Raises SignatureRefused(reason="checksum")."""
        if len(data) != self.length:
            raise SignatureRefused(f"{what} has another length than its parent states", reason="checksum")
        # SHA-512 is compared only beside SHA-256, because a parent may leave it out: an attacker must not choose the
        # hash.
        if hashlib.sha256(data).digest() != self.sha256:
            raise SignatureRefused(f"{what} is not the file that its parent names (sha256)", reason="checksum")
        if self.sha512 is not None and hashlib.sha512(data).digest() != self.sha512:
            raise SignatureRefused(f"{what} is not the file that its parent names (sha512)", reason="checksum")


def parse_meta(value: Any, what: str) -> FileMeta:
    found = value.get("hashes") if isinstance(value, dict) else None
    length = value.get("length") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not is_int(length) or length < 0:
        raise malformed_document(what, "no hashes or length")
    sha256 = decode_base64(found.get("sha256"), what)
    sha512 = decode_base64(found["sha512"], what) if "sha512" in found else None
    if len(sha256) != 32 or (sha512 is not None and len(sha512) != 64):
        raise malformed_document(what, "a hash of the wrong length")
    return FileMeta(length, sha256, sha512)


@dataclass(frozen=True)
class Document:
    """One well-formed file, not yet verified. ``content``: the bytes that its signatures cover."""

    name: str
    data: bytes  # the whole file
    signed: Mapping[str, Any]
    content: bytes
    signatures: tuple[Signature, ...]
    version: int
    expires: datetime  # after that it is refused, however well it is signed

    @property
    def fingerprint(self) -> str:
        """Digest of the signed content: two documents of the same version must be equal in it."""
        return hashlib.sha256(self.content).hexdigest()


def parse_document(data: bytes, name: str, kind: str, limit: int) -> Document:
    """Parse a file. ``kind``: Root, Timestamp, Snapshot or Targets; delegated roles are Targets too."""
    what = f"{name}.json"
    if len(data) > limit:
        raise SignatureRefused(f"{what} is larger than {limit} bytes", reason="too_large")
    value = load(data, what, limit)
    signed = value.get("signed") if isinstance(value, dict) else None
    if not isinstance(signed, dict):
        raise malformed_document(what, "it has no signed member")
    if signed.get("_type") != kind:
        raise malformed_document(what, f"its type is not {kind}")
    version = signed.get("version")
    if not is_int(version) or version < 1:
        raise malformed_document(what, "version is not a whole number of 1 or more")
    return Document(
        name=name,
        data=data,
        signed=signed,
        content=canonical(signed),
        signatures=_parse_signatures(value.get("signatures"), what),
        version=version,
        expires=parse_time(signed.get("expires"), what),
    )


def _parse_signatures(value: Any, what: str) -> tuple[Signature, ...]:
    if not isinstance(value, list) or len(value) > _MAX_SIGNATURES:
        raise malformed_document(what, "no list of signatures, or one that is too long")
    found = []
    for item in value:
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("keyid"), str)
            or not isinstance(item.get("method"), str)
        ):
            raise malformed_document(what, "a signature without keyid or method")
        found.append(Signature(item["keyid"], item["method"], decode_base64(item.get("sig"), what)))
    return tuple(found)


def signing_keys(document: Document, role: Role) -> tuple[Key, ...]:
    """Return the role's keys with a valid signature, each public key once.

    A key counts only under the id that its content gives it: otherwise one key under two ids could meet a threshold
    of 2.
    """
    found: dict[bytes, Key] = {}
    for signature in document.signatures:
        key = role.keys.get(signature.keyid)
        # The listed id is attacker's text. The id that the content gives decides, and the identity of the bare key
        # counts, so that one key never meets a threshold under several ids.
        if key is None or key.id != signature.keyid or key.identity in found:
            continue
        if signature_is_valid(key, signature, document.content):
            found[key.identity] = key
    return tuple(found.values())


def verify_role(document: Document, role: Role) -> tuple[Key, ...]:
    """Return who signed. Raises SignatureRefused(reason="signature") if they are fewer than the role's threshold."""
    found = signing_keys(document, role)
    if len(found) < role.threshold:
        raise SignatureRefused(
            f"{document.name}.json: {len(found)} of the {role.threshold} signatures that {role.name} requires",
            reason="signature",
        )
    return found


def current(document: Document, now: datetime) -> None:
    """Raise SignatureRefused(reason="expired") if the document has expired."""
    if now >= document.expires:
        raise SignatureRefused(
            f"{document.name}.json expired on {document.expires:%Y-%m-%d %H:%M} UTC",
            reason="expired",
            hint="the repository's owner must sign and publish it again",
        )


@dataclass(frozen=True)
class Root:
    """A root document: which keys may sign for which role."""

    document: Document
    roles: Mapping[str, Role]  # root, targets, snapshot, timestamp

    @property
    def version(self) -> int:
        return self.document.version


def parse_root(data: bytes, limit: int, name: str = "root") -> Root:
    document = parse_document(data, name, "Root", limit)
    what = f"{name}.json"
    keys, roles = parse_keys(document.signed.get("keys"), what), document.signed.get("roles")
    if not isinstance(roles, dict):
        raise malformed_document(what, "no roles")
    needed = ("root", "targets", "snapshot", "timestamp")  # other names are allowed and mean nothing to us
    return Root(document, {role: parse_role(role, roles.get(role), keys, what) for role in needed})


@dataclass(frozen=True)
class Delegation:
    """A role to which a targets document delegates tags.

    ``paths``: prefixes, one tuple for each level of delegation; every level must allow a tag.
    """

    role: Role
    paths: tuple[tuple[str, ...], ...]

    def covers(self, tag: str) -> bool:
        return all(any(tag.startswith(prefix) for prefix in level) for level in self.paths)


@dataclass(frozen=True)
class Targets:
    """A targets document, of the repository itself or of a delegated role."""

    document: Document
    entries: Mapping[str, Any]  # by target name, not read before they are needed
    delegations: Mapping[str, Delegation]
    covers: Delegation | None = None  # None: the repository's own targets, which may list any tag
    signed_by: tuple[Key, ...] = ()

    @property
    def role(self) -> str:
        return self.document.name

    def lists(self, tag: str) -> bool:
        return tag in self.entries and (self.covers is None or self.covers.covers(tag))

    def digest(self, tag: str) -> str:
        """Return the digest of the entry for ``tag``.

        Raises SignatureRefused(reason="bad_target") if the entry has no usable sha256.
        """
        try:
            return f"sha256:{parse_meta(self.entries[tag], self.role).hex}"
        except SignatureRefused as error:
            raise SignatureRefused(
                f"{self.role} lists {clean_text(tag, 130)!r} without a usable sha256", reason="bad_target"
            ) from error


def parse_targets(data: bytes, role: str, limit: int, covers: Delegation | None = None) -> Targets:
    document = parse_document(data, role, "Targets", limit)
    what = f"{role}.json"
    entries, delegations = document.signed.get("targets"), document.signed.get("delegations")
    if entries is not None and not isinstance(entries, dict):
        raise malformed_document(what, "targets is not an object")
    if delegations is not None and not isinstance(delegations, dict):
        raise malformed_document(what, "delegations is not an object")
    return Targets(document, entries or {}, _parse_delegations(delegations or {}, role, what, covers), covers)


def _parse_delegations(
    value: Mapping[str, Any], parent: str, what: str, above: Delegation | None
) -> dict[str, Delegation]:
    keys, roles = parse_keys(value.get("keys"), what), value.get("roles")
    if roles is None:
        return {}
    if not isinstance(roles, list):
        raise malformed_document(what, "the delegated roles are not a list")
    found: dict[str, Delegation] = {}
    for item in roles:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not _is_child(name, parent):
            raise malformed_document(what, "a delegated role whose name is not allowed here")
        if name in found:
            raise malformed_document(what, f"{name} is delegated twice")
        paths = item.get("paths")
        if paths is not None and not is_text_list(paths):
            raise malformed_document(what, f"the paths of {name} are not a list")
        role = parse_role(name, item, keys, what)
        found[name] = Delegation(role, (*(above.paths if above else ()), tuple(paths or ())))
    return found


def _is_child(name: str, parent: str) -> bool:
    return len(name) <= _MAX_ROLE_NAME and bool(_DELEGATION.fullmatch(name)) and name.rpartition("/")[0] == parent


def parse_snapshot_meta(document: Document) -> dict[str, FileMeta]:
    """Metadata of every published file, from a snapshot; ``root`` and ``targets`` are required."""
    what = f"{document.name}.json"
    meta = document.signed.get("meta")
    if not isinstance(meta, dict) or "root" not in meta or "targets" not in meta:
        raise malformed_document(what, "it does not list root and targets")
    return {name: parse_meta(item, what) for name, item in meta.items()}


def parse_timestamp_meta(document: Document) -> FileMeta:
    """Metadata of the snapshot, from a timestamp."""
    meta = document.signed.get("meta")
    if not isinstance(meta, dict) or "snapshot" not in meta:
        raise malformed_document(f"{document.name}.json", "it names no snapshot")
    return parse_meta(meta["snapshot"], f"{document.name}.json")
