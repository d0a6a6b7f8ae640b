"""Private keys in binary containers: DER, PKCS #12, Java's key stores, OpenSSH.

Stores of certificates have the same formats as stores of keys. Every Java image has one (``cacerts``), so the format
alone says nothing: what counts is an entry with a key.
"""

from __future__ import annotations

import re
import struct

from scanner.model.pem import is_private_der
from scanner.patterns import lazy

_LENGTH = rb"(?:[\x05-\x7f]|\x81[\x80-\xff]|\x82[\x01-\x7f][\x00-\xff])"
# The beginnings of PKCS#8, PKCS#1 and SEC 1 keys in DER: lengths and versions, no names.
_DER_KEY = lazy(
    rb"\x30" + _LENGTH + rb"(?:\x02\x01[\x00\x01]\x30" + _LENGTH + rb"\x06"  # PKCS #8
    rb"|\x02\x01\x00\x02" + _LENGTH + rb"|\x02\x01\x01\x04[\x14-\x50]"  # PKCS #1; SEC 1
    rb"|(\x30" + _LENGTH + rb"\x06[\x09-\x0b]\x2a\x86\x48\x86\xf7\x0d\x01(?:\x05|\x0c\x01)))"  # encrypted PKCS #8
)
# A PFX has version 3 (RFC 7292, section 4).
_PKCS12 = lazy(rb"\x30(?:\x80|[\x05-\x7f]|\x81.|\x82..|\x83...)\x02\x01\x03\x30", re.DOTALL)
# RFC 7292, 4.2: keyBag and pkcs8ShroudedKeyBag. The latter names what it holds outside of its own encryption.
_KEY_BAG = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01"
_SHROUDED_KEY_BAG = _KEY_BAG[:-1] + b"\x02"
_JAVA = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # JKS and JCEKS
# sun.security.provider.JavaKeyStore: 1 is a key, 2 a certificate.
_CERTIFICATE_ENTRY = 2
_MOST_ENTRIES = 10_000  # the count in the file is the image's claim
_OPENSSH, _UNENCRYPTED = b"openssh-key-v1\0", b"\0\0\0\4none"
BEGINNINGS = (b"\x30", _OPENSSH, *_JAVA)  # of everything that ``rule`` knows


def rule(data: bytes, *, whole: bool) -> str | None:
    """Return the rule of the private key that the data is or holds: ``private-key`` or ``encrypted-key``.

    ``whole``: nothing may follow a key in DER.
    """
    if data.startswith(b"\x30"):
        return _in_pkcs12(data) if _PKCS12.match(data) else _in_der(data, whole=whole)
    if data.startswith(_OPENSSH):
        return "private-key" if data.startswith(_UNENCRYPTED, len(_OPENSSH)) else "encrypted-key"
    return "encrypted-key" if data.startswith(_JAVA) and _java_key(data) else None


def _in_der(data: bytes, *, whole: bool) -> str | None:
    """PKCS #8, PKCS #1, SEC 1."""
    begin = _DER_KEY.match(data)
    if begin is None:
        return None
    # The length of the outer SEQUENCE in DER (X.690, 8.1.3): one byte, or a count of bytes that follow.
    octets = data[1] & 0x7F if data[1] & 0x80 else 0
    end = 2 + octets + (int.from_bytes(data[2 : 2 + octets]) if octets else data[1])
    # The beginning alone matches random data now and then. Only what a parser accepts as a private key is reported.
    if end > len(data) or (whole and len(data) - end > 2) or not is_private_der(data[:end]):
        return None
    return "encrypted-key" if begin[1] else "private-key"


def _in_pkcs12(data: bytes) -> str | None:
    if _KEY_BAG in data:
        return "private-key"
    return "encrypted-key" if _SHROUDED_KEY_BAG in data else None


def _java_key(data: bytes) -> bool:
    """Return whether a Java key store has an entry that is not a trusted certificate."""
    version, count = struct.unpack_from(">II", data.ljust(12, b"\0"), 4)
    at = 12
    try:
        for _ in range(min(count, _MOST_ENTRIES)):
            (kind,) = struct.unpack_from(">I", data, at)
            if kind != _CERTIFICATE_ENTRY:
                return kind in (1, 3)
            at = _after_text(data, at + 4) + 8  # the alias and the time
            at = _after_text(data, at) if version == 2 else at  # the certificate's type
            at += 4 + struct.unpack_from(">I", data, at)[0]
    except struct.error:
        return False
    return False


def _after_text(data: bytes, at: int) -> int:
    return at + 2 + int(struct.unpack_from(">H", data, at)[0])
