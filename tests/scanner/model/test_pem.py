"""A private key that was pasted by mistake: known in every form, and nothing of it is told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import UsageError
from scanner.model.pem import CERTIFICATE as CERTIFICATE_LABELS
from scanner.model.pem import holds_private_key, is_private_der, pem_blocks, read_ca, refuse_private_key
from tests.scanner.trust.certificates import AUTHORITY, certify, ec_key, pem, rsa_key

EC, RSA = ec_key("pasted"), rsa_key()
ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"7" * 32)
KEYS: list[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey] = [EC, RSA, ED]
CERTIFICATE = certify({"CN": "ca"}, EC, AUTHORITY)
LOCKED = BestAvailableEncryption(b"secret")


def private_pem(form: PrivateFormat = PrivateFormat.PKCS8, key: Any = EC, *, locked: bool = False) -> str:
    return str(key.private_bytes(Encoding.PEM, form, LOCKED if locked else NoEncryption()).decode())


def private_der(key: Any = EC, *, locked: bool = False, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, form, LOCKED if locked else NoEncryption()))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2",
    "y": "x_FEzRu9",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
FORMS: dict[str, Any] = {
    "PKCS#8": private_pem(),
    "PKCS#8, encrypted": private_pem(locked=True),
    "SEC 1": private_pem(PrivateFormat.TraditionalOpenSSL),
    "SEC 1, encrypted": private_pem(PrivateFormat.TraditionalOpenSSL, locked=True),
    "PKCS#1": private_pem(PrivateFormat.TraditionalOpenSSL, RSA),
    "OpenSSH": private_pem(PrivateFormat.OpenSSH, ED),
    "cosign's own": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJrZGYi\n-----END ENCRYPTED SIGSTORE "
    "PRIVATE KEY-----\n",
    "PGP": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n-----END PGP PRIVATE KEY BLOCK-----\n",
    "after a certificate": pem(CERTIFICATE) + private_pem(),
    "after a public key": pem(EC) + private_pem(),
    "line ends as text": private_pem().replace("\n", "\\n"),
    "in lower case": private_pem().lower(),
    "cut off": private_pem()[:60],
    "another label": private_pem().replace("PRIVATE KEY", "CERTIFICATE"),
    "without its frame": "".join(private_pem().splitlines(keepends=True)[1:-1]),
    "base64 of DER": b64(private_der()),
    "base64 of DER, in lines": base64.encodebytes(private_der(RSA)).decode(),
    "base64url of DER": base64.urlsafe_b64encode(private_der()).decode().rstrip("="),
    "base64 of encrypted DER": b64(private_der(locked=True)),
    "base64 of PKCS#1": b64(private_der(RSA, form=PrivateFormat.TraditionalOpenSSL)),
    "base64 of PEM": b64(private_pem().encode()),
    "hex of DER": private_der().hex(),
    "DER": private_der(),
    "PKCS#12": pkcs12.serialize_key_and_certificates(b"a", EC, CERTIFICATE, None, LOCKED),
    "UTF-16": private_pem().encode("utf-16"),
    "a JWK": JWK,
    "a JWK as text": json.dumps(JWK),
    "a set of JWKs": {"keys": [{"kty": "EC"}, JWK]},
    "a symmetric JWK": {"kty": "oct", "k": "c2VjcmV0"},
    "a key of TUF's": {"keytype": "ecdsa", "keyval": {"public": "AAAA", "private": "c2VjcmV0"}},
    "a name": {private_pem(): "x"},
    "age": "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZ",
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("inside", [lambda v: v, lambda v: {"members": [1, {"one": v}]}], ids=["alone", "inside"])
def test_every_form_of_a_private_key_is_known(name: str, inside: Callable[[Any], Any]) -> None:
    value = inside(FORMS[name])
    assert holds_private_key(value)
    with pytest.raises(UsageError) as caught:
        refuse_private_key(value, "trust.json")
    told = f"{caught.value} {caught.value.hint}"
    assert "this is a private key" in told
    assert told.startswith("trust.json: ")
    secret = FORMS[name] if isinstance(FORMS[name], str) else json.dumps(FORMS[name], default=str)
    assert not [part for part in secret.replace("\\n", "\n").split("\n") if len(part) > 30 and part in told]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
def test_what_is_public_is_not_taken_for_private(key: Any) -> None:
    public = key.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der = CERTIFICATE.public_bytes(Encoding.DER)
    signature = ec_key("a").sign(b"x", ec.ECDSA(hashes.SHA256()))
    for value in (pem(public), pem(CERTIFICATE), b64(spki), b64(der), spki, der, spki.hex(), b64(signature), "a" * 64):
        assert not holds_private_key(value)
    assert not holds_private_key({"kty": "EC", "x": "f83", "y": "x_F", "d": ""})
    assert not holds_private_key({"keyval": {"private": None, "public": b64(spki)}})


def test_of_a_ca_only_the_certificates_are_kept() -> None:
    given = "# from Anna's mail\n" + pem(CERTIFICATE).replace("\n", "\r\n") + "trailing text\n" + pem(CERTIFICATE)
    assert read_ca(given, "ca_pem") == pem(CERTIFICATE) * 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pem(CERTIFICATE) + private_pem(), "private key"),
        (pem(CERTIFICATE) + pem(EC), "it contains a block BEGIN PUBLIC KEY"),
        ("no certificate", "not PEM certificates"),
        (pem(CERTIFICATE)[:-30], "not PEM certificates"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not PEM certificates"),
    ],
)
def test_what_is_no_ca_is_refused(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"^ca_pem: ") as caught:
        read_ca(given, "ca_pem")
    assert words in str(caught.value)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: b"\x30\x82\x01\x00\x02\x01\x00" + tail))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert is_private_der(data) in (True, False)
    assert holds_private_key(data) in (True, False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_value_is_judged(value: Any) -> None:
    assert holds_private_key(value) in (True, False)


def test_a_certificate_is_a_certificate() -> None:
    assert isinstance(x509.load_pem_x509_certificate(read_ca(pem(CERTIFICATE), "ca").encode()), x509.Certificate)


def test_beginnings_without_an_end_do_not_take_long() -> None:
    """Each would be searched for its end: quadratic, and the text may be an annotation beside an image."""
    for text in ("-----BEGIN CERTIFICATE-----\n" * 30_000, "-----BEGIN " * 80_000, "-----BEGIN A-----" * 50_000):
        assert not holds_private_key(text)
        with pytest.raises(ValueError, match="PEM certificates"):
            pem_blocks(text, CERTIFICATE_LABELS, "PEM certificates")


def _lines(text: str) -> list[str]:
    return text.splitlines()[1:-1]


PASTED: dict[str, Callable[[str], str]] = {
    "a URL's escapes": lambda text: text.replace(" ", "%20").replace("\n", "%0A"),
    "JSON's escapes": lambda text: text.replace(" ", "\\u0020").replace("\n", "\\n"),
    "a space that does not break": lambda text: text.replace(" ", "\u00a0"),
    "a character that is not seen": lambda text: text.replace("PRIVATE", "PRI\u200bVATE"),
    "base64 in base64": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "the lines in a list": lambda text: ", ".join(f'"{line}"' for line in _lines(text)),
    "the lines joined with +": lambda text: " +\n".join(f"'{line}'" for line in _lines(text)),
    "indented lines": lambda text: "\n".join(f"    {line}" for line in _lines(text)),
    "the lines alone": lambda text: "\n".join(_lines(text)),
    "a frame of something else": lambda text: re.sub("[A-Z]* ?PRIVATE KEY", "CERTIFICATE", text),
    "bytes in hex": lambda text: ":".join(f"{byte:02x}" for byte in base64.b64decode("".join(_lines(text)))),
    "an array of bytes": lambda text: ", ".join(f"0x{byte:02x}" for byte in base64.b64decode("".join(_lines(text)))),
}


@pytest.mark.parametrize("form", PASTED)
@pytest.mark.parametrize("kind", [PrivateFormat.PKCS8, PrivateFormat.OpenSSH])
def test_a_private_key_in_another_dress(form: str, kind: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pasted = PASTED[form](key.private_bytes(Encoding.PEM, kind, NoEncryption()).decode())
    with pytest.raises(UsageError, match=r"keys\.release: this is a private key") as raised:
        refuse_private_key({"keys": {"release": pasted}}, "trust root")
    assert pasted[40:80] not in str(raised.value)


@pytest.mark.parametrize("text", ["\\" * 500_000, "%41" * 100_000, "00:" * 100_000, ("A" * 17 + ' "') * 20_000])
def test_hostile_texts_hold_no_key_and_take_no_quadratic_time(text: str) -> None:
    assert not holds_private_key(text)
