"""The key of a service account: what is none is refused with the field, and nothing of it is quoted."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from scanner.errors import UsageError
from scanner.model.service_account import read_key

SECRET = "s3cret-that-nobody-may-see"
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
# An algorithm that the library does not know: it raises an error that is no ValueError.
GOST = (
    "-----BEGIN PRIVATE KEY-----\nMEgCAQAwHwYIKoUDBwEBAQEwEwYHKoUDAgIjAQYIKoUDBwEBAgIEIgQgQUFBQUFB\n"
    "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n-----END PRIVATE KEY-----\n"
)
FILE = {
    "type": "service_account",
    "private_key_id": "0123456789abcdef",
    "private_key": PEM,
    "client_email": "scan@example.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_a_key_is_read_and_does_not_show_itself() -> None:
    found = read_key(json.dumps(FILE))
    assert (found.email, found.key_id) == (FILE["client_email"], FILE["private_key_id"])
    assert "key=" not in repr(found)
    without_breaks = json.dumps(FILE, indent=2).replace("\n", " ")  # as a password field of a browser sends it
    assert read_key(without_breaks).email == found.email


def _ec_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("hunter2", "not JSON"),
        ("[]", "not JSON"),
        (json.dumps({**FILE, "type": "external_account"}), "type is not service_account"),
        (json.dumps({**FILE, "type": "authorized_user"}), "type is not service_account"),
        (json.dumps({**FILE, "token_uri": "http://169.254.169.254/"}), "token_uri"),
        (json.dumps({**FILE, "client_email": 5}), "is missing"),
        (json.dumps({**FILE, "private_key": ""}), "is missing"),
        (json.dumps({**FILE, "private_key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"}), "not an RSA key"),
        (json.dumps({**FILE, "private_key": _ec_pem()}), "not an RSA key"),
        (json.dumps({**FILE, "private_key": GOST}), "not an RSA key"),
        (json.dumps({**FILE, "private_key": PUBLIC}), "not a private key"),
    ],
)
def test_what_is_no_key_is_refused_with_the_field(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        read_key(text)
    assert raised.value.field == "password"
    assert SECRET not in f"{raised.value}"
    assert raised.value.__cause__ is None
