"""Azure Key Vault and Managed HSM: https://learn.microsoft.com/en-us/rest/api/keyvault/keys/sign/sign and get-key.

The access token is that of a client secret in the environment, or of this machine's identity, as for a registry of
Azure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from scanner.config import Secret
from scanner.errors import ScannerError
from scanner.patterns import lazy
from scanner.registry.cloud import azure
from scanner.registry.cloud.base import CloudAccess, Surroundings, ask
from scanner.trust._kms.base import KmsKey, credentials_error, public_pem, read_answer, reference_error, unusable_answer

FORM = "azurekms://VAULT/KEY, azurekms://VAULT.vault.azure.net/KEY or the same with /VERSION"
_WHO = "Azure Key Vault"
_VERSION = "7.4"
_REFERENCE = lazy(
    r"azurekms://(?P<vault>[a-z0-9][a-z0-9-]{1,62})(?:\.(?P<zone>vault\.azure\.net|vault\.azure\.cn|"
    r"vault\.usgovcloudapi\.net|managedhsm\.azure\.net|managedhsm\.azure\.cn|managedhsm\.usgovcloudapi\.net))?"
    r"/(?P<key>[A-Za-z0-9-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?"
)
_KEY_ID = lazy(r"https://[a-z0-9.:-]{1,260}/keys/(?P<key>[A-Za-z0-9-]{1,127})/(?P<version>[0-9a-f]{32})")
_AUTHORITIES = {
    "net": "https://login.microsoftonline.com",
    "cn": "https://login.chinacloudapi.cn",
    "gov": "https://login.microsoftonline.us",
}
_POLICY = "the role Key Vault Crypto User, or an access policy with the key permission {}"


@dataclass(frozen=True)
class AzureKey:
    """See `KeyService`. ``endpoint``, ``authority``, ``instance``: empty means those of Azure."""

    reference: str
    around: Surroundings
    endpoint: str = ""
    authority: str = ""
    instance: str = ""

    def fetch(self) -> KmsKey:
        vault, zone, key, version = self._parts()
        path = f"{key}/{version}" if version else key
        found = self._ask(self._token(), "GET", path, _POLICY.format("Get")).get("key")
        given = found if isinstance(found, dict) else {}
        match = _KEY_ID.fullmatch(str(given.get("kid")))
        if match is None or match["key"].lower() != key.lower() or version not in ("", match["version"]):
            raise unusable_answer(_WHO, "it does not name the key")
        operations = given.get("key_ops")
        if isinstance(operations, list) and "sign" not in operations:
            raise unusable_answer(_WHO, "the key is not for signing")
        pem = public_pem(_der(given), _WHO)
        # A reference without version leads to the newest one, which can change at any time.
        return KmsKey(f"azurekms://{vault}.{zone}/{match['key']}/{match['version']}", pem)

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        _, _, key, version = self._parts()
        token, found = self._token(), []
        for digest in digests:
            body = {"alg": "ES256", "value": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
            answer = self._ask(token, "POST", f"{key}/{version}/sign", _POLICY.format("Sign"), json=body)
            raw = _decoded(answer.get("value"))
            if len(raw) != 64:
                raise unusable_answer(_WHO, "the signature is not one of ES256")
            # JSON Web Signature (RFC 7518 section 3.4) has r and s side by side; DSSE and X.509 have them in DER.
            r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            found.append(utils.encode_dss_signature(r, s))
        return found

    def _parts(self) -> tuple[str, str, str, str]:
        match = _REFERENCE.fullmatch(self.reference)
        if match is None:
            raise reference_error(self.reference, FORM)
        return match["vault"], match["zone"] or "vault.azure.net", match["key"], match["version"] or ""

    def _ask(self, token: Secret, method: str, path: str, permission: str, **more: Any) -> Mapping[str, Any]:
        vault, zone, _, _ = self._parts()
        url = f"{self.endpoint or f'https://{vault}.{zone}'}/keys/{path}"
        headers = {"Authorization": f"Bearer {token.reveal()}"}
        with self.around.cloud(url) as http:
            answer = ask(http, _WHO, method, url, headers=headers, params={"api-version": _VERSION}, **more)
        return read_answer(answer, _WHO, permission)

    def _token(self) -> Secret:
        _, zone, _, _ = self._parts()
        given = self.around.environment
        client, secret = given.get("AZURE_CLIENT_ID", ""), Secret(given.get("AZURE_CLIENT_SECRET", ""))
        tenant = given.get("AZURE_TENANT_ID", "") if secret else ""
        access = CloudAccess("azurekms", zone, client, secret, tenant, machine_role=not secret)
        authority = self.authority or _AUTHORITIES["gov" if "usgov" in zone else zone.rpartition(".")[2]]
        places = azure.Endpoints(authority, "", self.instance or azure.Endpoints.instance)
        try:
            # For vaults only. A token for management.azure.com would allow much more.
            return azure.entra_token(access, self.around, places, f"https://{zone}")[0]
        except ScannerError as error:
            hint = "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or give this machine an identity"
            raise credentials_error(error, _WHO, hint) from None


def _der(key: Mapping[str, Any]) -> bytes:
    """The public half of a JSON Web Key in DER."""
    if key.get("crv") != "P-256":
        raise unusable_answer(_WHO, "the key is not of the curve P-256")
    x, y = (int.from_bytes(_decoded(key.get(name)), "big") for name in ("x", "y"))
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise unusable_answer(_WHO, "its point is not on the curve") from None
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _decoded(value: object) -> bytes:
    try:
        text = value if isinstance(value, str) else ""
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise unusable_answer(_WHO, "it is not base64url") from None
