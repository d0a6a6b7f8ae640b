"""Keys and certificates that users paste. A private key that was pasted by mistake is refused and never stored.

Users mean to paste something public: a trust root, or a registry's CA. The private key is often in the same directory
or file. If it were stored, everybody who can read the document could sign. Texts are therefore searched for private
keys in every form that tools write, and of PEM only the expected blocks are kept, encoded again.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from scanner.errors import ScannerError, UsageError
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.patterns import lazy

_LABEL = lazy(
    r"BEGIN [A-Z0-9 ]{0,60}PRIVATE\s{1,4}KEY|PuTTY-User-Key-File-|AGE-SECRET-KEY-1"
    r"|(?:minisign encrypted|signify) secret key",
    re.I,
)
_BLOCK = lazy(r"-----BEGIN ([^\n-]{1,60})-----(.*?)-----END \1-----", re.DOTALL)
_BEGIN = lazy(r"-----BEGIN ([^\n-]{0,60})")
# Base64 of at least 30 bytes: a shorter text is no key.
_RUN = lazy(r"[A-Za-z0-9+/_-]{40,}={0,2}")
# Separators between the lines of base64 in source code, lists and indented texts.
_JOINT = lazy(r"""(?<=[A-Za-z0-9+/]{16})[\s"',\\]{1,40}(?:\+[\s"',\\]{1,40})?(?=[A-Za-z0-9+/=])""")
# Keys as openssl prints them, and as arrays of programs.
_BYTES = lazy(r"(?:(?:0x)?[0-9A-Fa-f]{2}[:\s,]{1,4}){31,}(?:0x)?[0-9A-Fa-f]{2}", re.I)
_OPENSSH = b"openssh-key-v1\0"
_ENCODINGS = 2  # nested base64
_HEX = lazy(r"(?:[0-9A-Fa-f]{2}){32,}")
_JWK_SECRETS = frozenset({"d", "p", "q", "dp", "dq", "qi", "k", "priv"})  # RFC 7517, 7518 section 6, and RFC 9964
_LIMIT, _DEPTH = 2 << 20, 64
_MAX_BLOCKS = 200  # each BEGIN without an END costs a search to the end of the text
_PUBLIC_ONLY = "only public keys and certificates belong here; openssl pkey -in KEY -pubout writes the public key"
_HINT = f"{_PUBLIC_ONLY}. Replace the private key if others can have seen it"

CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
PUBLIC_KEY = ("PUBLIC KEY", "RSA PUBLIC KEY")


def refuse_private_key(value: Any, where: str) -> None:
    """Search a text, bytes, or all names and texts of a JSON-like value for private keys.

    Raises UsageError that names the member; the message contains nothing of the key.
    """
    place = next(_private(value, "", 0), None)
    if place is not None:
        member = f"{place}: " if place else ""
        what = "this is a private key, not a PEM public key or certificate"
        raise UsageError(f"{where}: {clean_text(member, 200)}{what}", hint=_HINT)


def holds_private_key(value: Any) -> bool:
    """True if ``refuse_private_key`` would refuse it."""
    return next(_private(value, "", 0), None) is not None


def _private(value: Any, place: str, depth: int) -> Iterator[str]:
    """Dotted paths of private keys. A name that is one counts for its parent."""
    if depth > _DEPTH:
        return
    if isinstance(value, bytes):
        if is_private_der(value):
            yield place
        value = value.replace(b"\0", b"").decode("utf-8", "replace")  # without NUL bytes UTF-16 reads like UTF-8
    if isinstance(value, str):
        inner = _load_key(value) if value.lstrip()[:1] in ("{", "[") else None
        if inner is not None:  # so that the member is named
            yield from _private(inner, place, depth + 1)
        elif _is_private_text(value):
            yield place
    elif isinstance(value, Mapping):
        names = {str(name): item for name, item in value.items()}
        if "kty" in names and any(names.get(name) for name in _JWK_SECRETS):
            yield place
        if isinstance(names.get("private"), str) and names["private"]:  # a key of TUF's: keyval.private
            yield f"{place}.private".lstrip(".")
        for name, item in names.items():
            if _is_private_text(name):
                yield place
            else:
                yield from _private(item, f"{place}.{name}".lstrip("."), depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _private(item, f"{place}.{number}".lstrip("."), depth + 1)


def _load_key(text: str) -> Any:
    try:
        return load_untrusted_json(text.encode("utf-8", "replace"), limit=_LIMIT, depth=_DEPTH)
    except ScannerError:
        return None


def _is_private_text(text: str, depth: int = 0) -> bool:
    plain = _unescaped(text)
    if _LABEL.search(plain):
        return True
    # Base64 without a PEM frame or with another label, in lines, or with literal \n as line ends.
    few = plain.count("-----BEGIN ") <= _MAX_BLOCKS
    bodies = [match[2] for match in _BLOCK.finditer(plain)] if few else []
    rest = _BLOCK.sub("\n-\n", plain) if few else plain
    candidates = {re.sub(r"\s", "", body) for body in bodies}
    candidates |= {run for joined in (rest, _JOINT.sub("", rest), _join_lines(rest)) for run in _RUN.findall(joined)}
    candidates |= {re.sub(r"0[xX]|[^0-9A-Fa-f]", "", match[0]) for match in _BYTES.finditer(rest)}
    return any(_is_private_base64(candidate, depth) for candidate in candidates)


def _join_lines(text: str) -> str:
    return re.sub(r"(?<=[A-Za-z0-9+/])\r?\n(?=[A-Za-z0-9+/=])", "", text)


def _unescaped(text: str) -> str:
    """The text as a person would read it: URL and JSON escapes decoded, invisible characters removed, all spaces
    equal.
    """
    if "%" in text:
        text = unquote(text, errors="replace")
    text = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), text)
    text = re.sub(r"\\[rn]", "\n", text)
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return text


def _is_private_base64(text: str, depth: int = 0) -> bool:
    decoded = []
    try:
        decoded.append(
            base64.urlsafe_b64decode(
                text.rstrip("=").replace("+", "-").replace("/", "_") + "=" * (-len(text.rstrip("=")) % 4)
            )
        )
        if _HEX.fullmatch(text):
            decoded.append(bytes.fromhex(text))
    except (binascii.Error, ValueError):
        pass
    return any(_is_private_bytes(data, depth) for data in decoded)


def _is_private_bytes(data: bytes, depth: int) -> bool:
    if data.startswith(_OPENSSH) or is_private_der(data) or _LABEL.search(data[:200].decode("latin-1")):
        return True
    return depth < _ENCODINGS and data.isascii() and _is_private_text(data.decode(), depth + 1)


def is_private_der(data: bytes) -> bool:
    """True if the bytes are a private key: PKCS#8 (plain or encrypted), PKCS#1, SEC 1, or a PKCS#12 store."""
    if len(data) < 16 or data[0] != 0x30:  # each is a SEQUENCE
        return False
    # Imported only here, because scans never paste keys and the import is slow.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    try:
        load_der_private_key(data, None)
    except TypeError:  # it needs a password
        return True
    except (ValueError, UnsupportedAlgorithm):
        return _is_private_form(data)
    return True


def _is_private_form(data: bytes) -> bool:
    """Recognise by structure: keys that the library does not support (other encryption or curve) or that are
    damaged.
    """
    from asn1crypto import core

    try:
        items = core.SequenceOf.load(data, spec=core.Any)
        parts = [items[index].parse() for index in range(min(len(items), 3))]
        if len(parts) < 2:
            return False
        if isinstance(parts[0], core.Integer):
            version, second = parts[0].native, parts[1]
            if version == 3 and isinstance(second, core.Sequence):  # PKCS#12
                return isinstance(second[0], core.ObjectIdentifier)
            octets = len(parts) > 2 and isinstance(parts[2], core.OctetString)
            return version in (0, 1) and (
                (isinstance(second, core.Sequence) and octets)  # PKCS#8
                or (version == 1 and isinstance(second, core.OctetString))  # SEC 1
                or (isinstance(second, core.Integer) and len(parts) > 2 and len(items) >= 9)  # PKCS#1
            )
        # EncryptedPrivateKeyInfo: an algorithm of PKCS#5 or PKCS#12, and bytes
        return (
            isinstance(parts[0], core.Sequence)
            and isinstance(parts[1], core.OctetString)
            and str(parts[0][0].native).startswith(("pbes", "1.2.840.113549.1.5.", "1.2.840.113549.1.12.", "pkcs12"))
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return False


def pem_blocks(text: str, labels: Sequence[str], what: str) -> list[str]:
    """Return the PEM blocks of a text, all of which must have one of ``labels``. ``what`` describes them in messages.

    Raises ValueError with a message for users, which names the label of a wrong block and contains nothing of its
    content.
    """
    begun = _BEGIN.findall(text)
    if len(begun) > _MAX_BLOCKS:
        raise ValueError(f"not {what}: more than {_MAX_BLOCKS} blocks")
    for label in begun:
        if "PRIVATE KEY" in label.upper():
            raise ValueError(f"this contains a private key (BEGIN {clean_text(label, 60)}); {_PUBLIC_ONLY}")
        if label not in labels:
            raise ValueError(f"not {what}: it contains a block BEGIN {clean_text(label, 60)}")
    found = [match[0] + "\n" for match in _BLOCK.finditer(text)]
    if not found or len(found) != len(begun):
        raise ValueError(f"not {what} (-----BEGIN {labels[0]}-----)")
    return found


def read_ca(text: str, where: str) -> str:
    """Return the CA certificates of a PEM text, encoded again so that other text is not kept. Raises UsageError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    refuse_private_key(text, where)
    try:
        blocks = pem_blocks(text, CERTIFICATE, "PEM certificates")
        loaded = [x509.load_pem_x509_certificate(block.encode()) for block in blocks]
    except ValueError as error:
        problem = str(error) if str(error).startswith(("this contains", "not PEM")) else "not PEM certificates"
        raise UsageError(f"{where}: {problem}", reason="invalid", hint="give the CA's certificates in PEM") from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in loaded)
