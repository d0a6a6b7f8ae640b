"""Google Cloud KMS: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys.cryptoKeyVersions

The access token is that of the service account key or federation in GOOGLE_APPLICATION_CREDENTIALS, or of this machine.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.config import Secret
from scanner.errors import RemoteError, ScannerError
from scanner.model.untrusted import load_untrusted_json
from scanner.patterns import lazy
from scanner.registry.cloud import google
from scanner.registry.cloud.base import CloudAccess, Surroundings, ask
from scanner.trust._kms.base import (
    KmsKey,
    credentials_error,
    decode_base64,
    public_pem,
    read_answer,
    reference_error,
    unusable_answer,
)

FORM = "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY/versions/NUMBER"
_WHO, _FILE = "Google Cloud KMS", "GOOGLE_APPLICATION_CREDENTIALS"
_REFERENCE = lazy(
    r"gcpkms://(?P<key>projects/[a-z0-9.:-]{4,100}/locations/[a-z0-9-]{1,63}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/"
    r"[A-Za-z0-9_-]{1,63})/(?:versions|cryptoKeyVersions)/(?P<version>[1-9][0-9]{0,9})"
)
_ROLE = "the role Cloud KMS CryptoKey Signer/Verifier (cloudkms.cryptoKeyVersions.{}) on this key"


@dataclass(frozen=True)
class GoogleKey:
    """See `KeyService`. ``endpoint``, ``tokens``: tests replace those of Google."""

    reference: str
    around: Surroundings
    endpoint: str = "https://cloudkms.googleapis.com"
    tokens: google.Endpoints = google.Endpoints()

    def fetch(self) -> KmsKey:
        name = self._name()
        found = self._ask("GET", f"{name}/publicKey", "viewPublicKey")
        if found.get("algorithm") not in (None, "EC_SIGN_P256_SHA256"):
            raise unusable_answer(_WHO, "the key's algorithm is not EC_SIGN_P256_SHA256")
        pem = found.get("pem")
        key, _, version = name.rpartition("/cryptoKeyVersions/")
        address = f"gcpkms://{key}/versions/{version}"
        return KmsKey(address, public_pem(pem.encode() if isinstance(pem, str) else b"", _WHO))

    def sign(self, digests: Sequence[bytes]) -> list[bytes]:
        name, found = self._name(), []
        token = self._token()
        for digest in digests:
            body = {"digest": {"sha256": base64.b64encode(digest).decode()}}
            signature = self._ask("POST", f"{name}:asymmetricSign", "useToSign", token, json=body).get("signature")
            found.append(decode_base64(signature, _WHO, "the signature"))
        return found

    def _name(self) -> str:
        match = _REFERENCE.fullmatch(self.reference)
        if match is None:
            # cosign also takes a key without a version, and then the newest one. Verifiers that have the former public
            # key would refuse every receipt as soon as there is a new version.
            raise reference_error(self.reference, FORM)
        return f"{match['key']}/cryptoKeyVersions/{match['version']}"

    def _ask(
        self, method: str, path: str, permission: str, token: Secret | None = None, **more: Any
    ) -> Mapping[str, Any]:
        url = f"{self.endpoint}/v1/{path}"
        headers = {"Authorization": f"Bearer {(token or self._token()).reveal()}"}
        with self.around.cloud(url) as http:
            answer = ask(http, _WHO, method, url, headers=headers, **more)
        return read_answer(answer, _WHO, _ROLE.format(permission))

    def _token(self) -> Secret:
        try:
            return google.token(self._access(), self.around, self.tokens).credentials.password
        except ScannerError as error:
            hint = f"set {_FILE} to the file of a service account's key or of a federation, or give this machine one"
            raise credentials_error(error, _WHO, hint) from None

    def _access(self) -> CloudAccess:
        text = self.around.secret_file(_FILE)
        found = load_untrusted_json(text.reveal().encode(), error=RemoteError) if text else None
        is_key = isinstance(found, dict) and found.get("type") == "service_account"
        return CloudAccess("gcpkms", "cloudkms", password=text if is_key else Secret(""), machine_role=not is_key)
