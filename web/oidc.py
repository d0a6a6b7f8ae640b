"""Sign-in at an identity provider: OpenID Connect, authorization code with PKCE.

The provider authenticates; roles are ours.

``verify`` is pure: token, keys, expected values and a clock. HTTP goes through the vetted client; its addresses come
from the provider that an administrator configured, never from a browser.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from scanner.config import Secret, Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.model.access import ROLES
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.outbound import AnswerTooLarge, http_client
from scanner.store.accounts import Identity
from web.remote_documents import RemoteDocuments
from web.signed_tokens import moment, unverified_part, verified_claims

# Asymmetric signatures only: never "none", and never HMAC, whose key would be a public one (algorithm confusion).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
# Bytes of the provider's answers.
_LIMIT = 256 << 10
_SECONDS = 15.0  # a user is waiting
_LEEWAY = 60.0  # seconds by which the provider's clock may differ
# Of the provider's keys, and before an unknown key makes us look again.
_KEPT_SECONDS, _LOOK_AGAIN_SECONDS = 3600.0, 60.0
_STALE_SECONDS = 600.0  # beyond, for sign-ins while the provider is slow to answer
_MOST_GROUPS = 500
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Attempt:
    """Ties an answer to the browser that started the sign-in. Stored sealed in that browser's cookie."""

    state: str  # comes back with the answer (RFC 6749, section 10.12)
    nonce: str  # comes back inside the ID token, against a replayed one
    verifier: str  # PKCE (RFC 7636): an intercepted code is worth nothing without it

    @classmethod
    def new(cls) -> Attempt:
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))


@dataclass(frozen=True)
class ExpectedClaims:
    """The values that an ID token must have to be accepted now."""

    issuer: str
    client_id: str  # must be the audience
    nonce: str
    now: float  # seconds since 1970


def verify(token: str, keys: KeySet, expected: ExpectedClaims) -> Mapping[str, Any]:
    """Verify an ID token (OpenID Connect Core 3.1.3.7) and return its claims.

    Raises RefusedError(reason="oidc_refused") that names the failed step.
    """
    claims = verified_claims(token, keys, ALGORITHMS)  # steps 6 to 8: signature, algorithm
    if claims is None:
        raise _refused_sign_in("the signature of the ID token is not valid")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != expected.issuer:  # step 2
        raise _refused_sign_in("the ID token is from another issuer")
    if expected.client_id not in audiences:  # step 3
        raise _refused_sign_in("the ID token is for another client")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != expected.client_id:  # steps 4, 5
        raise _refused_sign_in("the ID token was issued to another client")
    expires, issued, begins = (moment(claims.get(name)) for name in ("exp", "iat", "nbf"))
    if expires is None or expires + _LEEWAY <= expected.now:  # step 9
        raise _refused_sign_in("the ID token has expired")
    if issued is None or issued - _LEEWAY > expected.now:  # step 10
        raise _refused_sign_in("the ID token was issued in the future")
    if claims.get("nbf") is not None and (begins is None or begins - _LEEWAY > expected.now):
        raise _refused_sign_in("the ID token is not valid yet")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not secrets.compare_digest(nonce.encode(), expected.nonce.encode()):  # step 11
        raise _refused_sign_in("the ID token belongs to another request")
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:  # section 2
        raise _refused_sign_in("the ID token has no valid subject")
    return claims


def _check_access_token(claims: Mapping[str, Any], access_token: str, token: str) -> None:
    """Compare the access token with ``at_hash`` of its ID token, where that has one (OpenID Connect Core 3.1.3.8):
    groups are read with it. ``token``: the ID token, already verified. Raises RefusedError.
    """
    if "at_hash" not in claims:
        return
    algorithm = str((unverified_part(token.partition(".")[0]) or {}).get("alg"))
    # The hash of the signature's algorithm; that of EdDSA on Ed25519 is SHA-512.
    name = f"sha{algorithm[2:]}" if algorithm[2:] in ("256", "384", "512") else "sha512"
    digest = hashlib.new(name, access_token.encode()).digest()
    expected = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    if claims["at_hash"] != expected:
        raise _refused_sign_in("the access token does not belong to the ID token")


class Provider:
    """The configured identity provider. Its metadata and keys are read on first use and cached for an hour."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self.issuer = settings.oidc_issuer
        self._roles = _parse_mapping(settings.oidc_roles)
        for role in (*self._roles.values(), *filter(None, [settings.oidc_default_role])):
            if role not in ROLES:
                raise UsageError(f"oidc_roles: unknown role {role!r}", hint="use one of " + ", ".join(ROLES))
        if not settings.oidc_client_id:
            raise UsageError("oidc_client_id is missing", hint="see docs/accounts.md")
        _check_address(self.issuer, self.issuer)
        self._metadata: RemoteDocuments[Mapping[str, Any]] = RemoteDocuments(1, clock=clock)
        self._keys: RemoteDocuments[KeySet] = RemoteDocuments(1, clock=clock)

    @property
    def name(self) -> str:
        """Display name of the provider."""
        return urlsplit(self.issuer).hostname or self.issuer

    def address(self, attempt: Attempt, redirect_uri: str) -> str:
        """Return the authorization URL."""
        parameters = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(dict.fromkeys(["openid", *self._settings.oidc_scopes])),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": create_s256_code_challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        base = self._endpoint("authorization_endpoint")
        return f"{base}{'&' if '?' in base else '?'}{urlencode(parameters, quote_via=quote)}"

    def identify(self, attempt: Attempt, code: str, redirect_uri: str) -> Identity:
        """Return the identity of the user.

        Raises RefusedError for an invalid answer, RemoteError if the provider fails.
        """
        document = self._post(
            "token_endpoint",
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "client_id": self._settings.oidc_client_id,
                "code_verifier": attempt.verifier,
            },
        )
        token = document.get("id_token")
        if not isinstance(token, str):
            raise _refused_sign_in("the provider sent no ID token")
        expected = ExpectedClaims(self.issuer, self._settings.oidc_client_id, attempt.nonce, time.time())
        try:
            claims = verify(token, self._current_keys(), expected)
        except RefusedError:
            claims = verify(token, self._current_keys(look_again=True), expected)  # its keys may have changed
        return self._identity(claims, document.get("access_token"), token)

    def role(self, groups: Iterable[str]) -> str:
        """Return the highest role that the groups give. Raises RefusedError if there is none."""
        given = [self._roles[group] for group in groups if group in self._roles]
        if not given and not self._settings.oidc_default_role:
            raise RefusedError(
                "none of your groups may sign in here", reason="oidc_refused", hint="ask an administrator: oidc_roles"
            )
        return max([*given, *filter(None, [self._settings.oidc_default_role])], key=lambda role: len(ROLES[role]))

    def _identity(self, claims: Mapping[str, Any], access_token: object, token: str) -> Identity:
        wanted = self._settings.oidc_groups_claim
        more: Mapping[str, Any] = claims
        if wanted not in claims and isinstance(access_token, str) and self._is_known("userinfo_endpoint"):
            _check_access_token(claims, access_token, token)
            more = self._get(self._endpoint("userinfo_endpoint"), {"Authorization": f"Bearer {access_token}"})
            if more.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2
                raise _refused_sign_in("userinfo belongs to another subject")
        groups = more.get(wanted)
        named = groups[:_MOST_GROUPS] if isinstance(groups, list) else [groups]
        name = claims.get(self._settings.oidc_name_claim) or more.get(self._settings.oidc_name_claim)
        return Identity(
            self.issuer,
            claims["sub"],
            clean_text(name, 150) if isinstance(name, str) else "",
            frozenset(clean_text(group, 200) for group in named if isinstance(group, str) and group),
        )

    # Metadata of the provider

    def _is_known(self, name: str) -> bool:
        return isinstance(self._about().get(name), str)

    def _endpoint(self, name: str) -> str:
        found = self._about().get(name)
        if not isinstance(found, str):
            raise _unusable(f"its metadata has no {name}")
        try:
            _check_address(found, self.issuer)
        except UsageError as error:
            raise _unusable(f"{name}: {error}") from error
        return found

    def _about(self) -> Mapping[str, Any]:
        return self._metadata.get(self.issuer, self._read_metadata, _KEPT_SECONDS, stale=_STALE_SECONDS)

    def _read_metadata(self) -> Mapping[str, Any]:
        found = self._get(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:  # OpenID Connect Discovery 4.3
            raise _unusable("the issuer in its metadata differs from oidc_issuer")
        return found

    def _current_keys(self, *, look_again: bool = False) -> KeySet:
        address = self._endpoint("jwks_uri")

        def read() -> KeySet:
            return _key_set(self._get(address))

        if look_again:
            return self._keys.get(address, read, _LOOK_AGAIN_SECONDS)
        return self._keys.get(address, read, _KEPT_SECONDS, stale=_STALE_SECONDS)

    # HTTP

    def _get(self, address: str, headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        return self._ask("GET", address, headers=dict(headers or {}))

    def _post(self, endpoint: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        secret = self._settings.oidc_client_secret
        address, headers, body = self._endpoint(endpoint), {"Accept": "application/json"}, dict(form)
        methods = self._about().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if secret and "client_secret_basic" in methods:
            pair = (quote(self._settings.oidc_client_id, safe=""), quote(secret.reveal(), safe=""))  # RFC 6749 2.3.1
            return self._ask("POST", address, headers=headers, form=body, auth=httpx.BasicAuth(*pair))
        if secret:
            body["client_secret"] = secret.reveal()
        return self._ask("POST", address, headers=headers, form=body)

    def _ask(self, method: str, address: str, **more: Any) -> Mapping[str, Any]:
        try:
            with http_client(self._settings, ca_file=self._settings.ca_file) as client:
                answer = client.ask(method, address, limit=_LIMIT, seconds=_SECONDS, **more)
        except AnswerTooLarge as error:
            raise _unusable("its response is too large") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unusable(type(error).__name__) from error
        if answer.status in (400, 401, 403):
            raise _refused_sign_in("the provider rejected the code")
        if answer.status != httpx.codes.OK:
            raise _unusable(f"it answered {answer.status}")
        found = load_untrusted_json(answer.body, limit=_LIMIT, error=RemoteError)
        if not isinstance(found, dict):
            raise _unusable("its response is not a JSON object")
        return found


def make(settings: Settings) -> Provider | None:
    """Return the configured provider, or None if there is none. Raises UsageError for invalid settings."""
    return Provider(settings) if settings.oidc_issuer else None


def _key_set(document: Mapping[str, Any]) -> KeySet:
    """The provider's public signature keys. Symmetric keys are ignored, because a published one is not secret."""
    listed = document.get("keys")
    keys = [
        key
        for key in (listed if isinstance(listed, list) else [])
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    ]
    try:
        found = KeySet.import_key_set({"keys": keys})
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise _unusable("its keys are not valid") from error
    if not found.keys:
        raise _unusable("it publishes no keys")
    return found


def _parse_mapping(pairs: Iterable[str]) -> dict[str, str]:
    """``group=role``; a group name may contain an equals sign."""
    found = {}
    for pair in pairs:
        group, separator, role = pair.rpartition("=")
        if not separator or not group.strip():
            raise UsageError(f"oidc_roles: {pair!r} does not have the form group=role")
        found[group.strip()] = role.strip()
    return found


def _check_address(address: str, issuer: str) -> None:
    """Require https. http is allowed only if the issuer itself is on this machine."""
    parts = urlsplit(address)
    local = urlsplit(issuer).scheme == "http" and urlsplit(issuer).hostname in _LOOPBACK
    if parts.scheme != "https" and not (local and parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UsageError(
            f"{clean_text(address, 200)!r} is not an https URL", hint="oidc_issuer must start with https://"
        )
    if not parts.hostname or parts.username is not None:
        raise UsageError(f"{clean_text(address, 200)!r} is not a URL", hint="see oidc_issuer in docs/settings.md")


def _refused_sign_in(why: str) -> RefusedError:
    return RefusedError(f"the sign-in was not accepted: {why}", reason="oidc_refused", hint="try again")


def _unusable(why: str) -> RemoteError:
    return RemoteError(
        f"the identity provider cannot be used: {why}", reason="oidc_unavailable", hint="tell an administrator"
    )


def seal_text(attempt: Attempt, target: str) -> Secret:
    """Serialise an attempt and its target page to one text, which is then sealed."""
    return Secret("\n".join((attempt.state, attempt.nonce, attempt.verifier, f"{time.time() + 600:.0f}", target)))


def unseal_text(text: Secret) -> tuple[Attempt, str] | None:
    """Parse the text of ``seal_text``. None if it is older than ten minutes."""
    state, nonce, verifier, ends, target = text.reveal().split("\n", 4)
    return (Attempt(state, nonce, verifier), target) if float(ends) > time.time() else None
