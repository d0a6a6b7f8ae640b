"""The readers of identity providers' tokens: nothing but what a trusted key signed, for us and for now, is accepted."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from joserfc import jws
from joserfc.jwk import KeySet, RSAKey

from scanner.errors import RefusedError, RemoteError
from scanner.model.untrusted import load_untrusted_json
from web import oidc
from web.webhooks import gar

ISSUER, CLIENT, SENDER, NOW = "https://idp.example.com", "dockwarden", "pusher@example.com", 1_767_312_000.0
EXPECTED = oidc.ExpectedClaims(ISSUER, CLIENT, "nonce", NOW)


@cache
def _key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one"})


def id_token(data: bytes) -> None:
    """A token that nobody signed, as a stranger sends it."""
    text, keys = data.decode("utf-8", "replace"), KeySet([_key()])
    gar._unverified_claims(text)
    assert not gar.verify(text, keys, SENDER, NOW)
    with suppress(RefusedError):
        oidc.verify(text, keys, EXPECTED)
        raise AssertionError("a token without a valid signature was accepted")


def token_claims(data: bytes) -> None:
    """Claims that the trusted key signed, whatever they are."""
    token = jws.serialize_compact({"alg": "RS256", "kid": "one"}, data, _key())
    keys = KeySet([_key()])
    accepted = gar.verify(token, keys, SENDER, NOW)
    assert not accepted or gar._unverified_claims(token)["email"] == SENDER
    with suppress(RefusedError):
        claims = oidc.verify(token, keys, EXPECTED)
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        assert (claims["iss"], claims["nonce"]) == (ISSUER, "nonce")
        assert CLIENT in audience
        assert claims["exp"] > NOW - 61


def token_keys(data: bytes) -> None:
    """The published keys of a provider."""
    with suppress(RemoteError):
        gar._keys(data)
    with suppress(RemoteError):
        document = load_untrusted_json(data, limit=1 << 20, error=RemoteError)
        if isinstance(document, dict):  # the provider's client requires an object
            oidc._key_set(document)
