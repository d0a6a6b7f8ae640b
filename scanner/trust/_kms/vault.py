"""HashiCorp Vault and OpenBao, secrets engine transit: https://developer.hashicorp.com/vault/api-docs/secret/transit

Address and token come from the environment, with the names that Vault's own client and cosign use.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.config import Secret
from scanner.errors import UsageError
from scanner.outbound import split_address
from scanner.patterns import lazy
from scanner.registry.cloud.base import Surroundings, ask, is_token
from scanner.trust._kms.base import (
    KmsKey,
    credentials_error,
    decode_base64,
    public_pem,
    read_answer,
    reference_error,
    unusable_answer,
)

FORM = "hashivault://KEY or hashivault://KEY/versions/NUMBER"
_WHO = "Vault"
_REFERENCE = lazy(r"hashivault://(?P<key>[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})(?:/versions/(?P<version>[1-9][0-9]{0,8}))?")
_MOUNT = lazy(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9_-]{0,99}){0,5}")
_SIGNATURE = lazy(r"vault:v(?P<version>[0-9]{1,9}):(?P<base64>[A-Za-z0-9+/]{1,400}={0,2})")


@dataclass(frozen=True)
class VaultKey:
    """See `KeyService`."""

    reference: str
    around: Surroundings

    def fetch(self) -> KmsKey:
        key, version = self._parts()
        data = self._ask("GET", f"keys/{key}", f"the capability read on {self._mount()}/keys/{key}")
        number = version or data.get("latest_version")
        versions = data.get("keys")
        found = versions.get(str(number)) if isinstance(versions, dict) else None
        pem = found.get("public_key") if isinstance(found, dict) else None
        if data.get("type") != "ecdsa-p256" or not isinstance(number, int) or not isinstance(pem, str):
            raise UsageError(
                f"the key {key!r} of Vault has no version {number} of the type ecdsa-p256",
                reason="kms_refused",
                hint=f"create it: vault write -f {self._mount()}/keys/NAME type=ecdsa-p256",
            )
        return KmsKey(f"hashivault://{key}/versions/{number}", public_pem(pem.encode(), _WHO))

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        key, version = self._parts()
        path = f"sign/{key}/sha2-256"
        found = []
        for digest in digests:
            body = {
                "input": base64.b64encode(digest).decode(),
                "prehashed": True,
                "marshaling_algorithm": "asn1",
                # Vault signs with the newest version otherwise, which verifiers do not know yet.
                "key_version": version or 0,
            }
            data = self._ask("POST", path, f"the capability update on {self._mount()}/{path}", json=body)
            match = _SIGNATURE.fullmatch(str(data.get("signature")))
            if match is None:
                raise unusable_answer(_WHO, "it has no signature")
            found.append(decode_base64(match["base64"], _WHO, "the signature"))
        return found

    def _parts(self) -> tuple[str, int | None]:
        match = _REFERENCE.fullmatch(self.reference)
        if match is None:
            raise reference_error(self.reference, FORM)
        return match["key"], int(match["version"]) if match["version"] else None

    def _mount(self) -> str:
        mount = self.around.environment.get("TRANSIT_SECRET_ENGINE_PATH") or "transit"
        if not _MOUNT.fullmatch(mount.strip("/")):
            raise UsageError("TRANSIT_SECRET_ENGINE_PATH is not the path of a secrets engine", hint="such as transit")
        return mount.strip("/")

    def _ask(self, method: str, path: str, permission: str, **more: Any) -> Mapping[str, Any]:
        url = f"{self._server()}/v1/{self._mount()}/{path}"
        # Vault's agents refuse requests without the second header, so that no page in a browser can make them.
        headers = {"X-Vault-Token": self._token().reveal(), "X-Vault-Request": "true"}
        given = self.around.environment
        if namespace := given.get("VAULT_NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        ca_file = Path(given["VAULT_CACERT"]) if given.get("VAULT_CACERT") else None
        with self.around.cloud(url, ca_file) as http:
            answer = ask(http, _WHO, method, url, headers=headers, **more)
        data = read_answer(answer, _WHO, permission).get("data")
        if not isinstance(data, dict):
            raise unusable_answer(_WHO, "it has no data")
        return data

    def _server(self) -> str:
        text = self.around.environment.get("VAULT_ADDR", "")
        parts = split_address(text)
        if parts is None or parts.username or parts.query or parts.fragment:
            raise UsageError("VAULT_ADDR is not the address of a Vault server", hint="such as https://vault:8200")
        # The token would travel in plain text. An agent on this machine is the exception.
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError("the token of Vault is not sent over plain HTTP", hint="use https:// in VAULT_ADDR")
        return text.rstrip("/")

    def _token(self) -> Secret:
        """The token, or that of a file, which an agent renews."""
        found = Secret(self.around.environment.get("VAULT_TOKEN", "")) or self.around.secret_file("VAULT_TOKEN_FILE")
        if not found or not is_token(found.reveal()):
            missing = UsageError("VAULT_TOKEN is not set, or no token")
            raise credentials_error(missing, _WHO, "set VAULT_TOKEN, or VAULT_TOKEN_FILE to a file that has it")
        return found
