"""Tokens of identity providers: bounded before they are parsed, and their moments compared as numbers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import KeySet, RSAKey

from web.signed_tokens import LIMIT, moment, unverified_part, verified_claims

KEY = RSAKey.generate_key(2048, {"kid": "one"})
KEYS = KeySet([KEY])


def signed(payload: bytes) -> str:
    return jws.serialize_compact({"alg": "RS256", "kid": "one"}, payload, KEY)


def part(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_the_claims_of_a_signed_token() -> None:
    token = signed(b'{"sub": "1"}')
    assert verified_claims(token, KEYS, ["RS256"]) == {"sub": "1"}
    assert verified_claims(token, KEYS, ["ES256"]) is None
    assert verified_claims(token[:-8] + "AAAAAAAA", KEYS, ["RS256"]) is None


@pytest.mark.parametrize(
    "token",
    [
        signed(b"[" * 5000),
        signed(b'{"aud":' + b"[" * 3000),
        signed(b"[]"),
        signed(b'{"sub": "1", "sub": "2"}'),
        ".".join((part('{"alg":' + "[" * 5000), part("{}"), "AAAA")),
        "..",
        "a.b",
        "a.b.c.d",
        part("{}") + "." + part(json.dumps({"a": "x" * LIMIT})) + ".AAAA",
        "\ud800.\ud800.\ud800",
    ],
    ids=["deep", "deep claim", "a list", "twice", "deep header", "empty", "two parts", "four parts", "long", "no text"],
)
def test_what_is_no_token_has_no_claims(token: str) -> None:
    assert verified_claims(token, KEYS, ["RS256"]) is None


def test_a_part_is_an_object() -> None:
    assert unverified_part(part('{"aud": "a"}')) == {"aud": "a"}
    assert unverified_part(part("[1]")) is None
    assert unverified_part("%%%") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1767312000, 1767312000.0),
        (1.5, 1.5),
        (True, None),
        ("1767312000", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_a_moment_is_a_finite_number(value: Any, found: float | None) -> None:
    assert moment(value) == found
