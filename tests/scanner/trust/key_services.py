"""Doubles of key management services: their documented requests for a key and a signature, with a key of ours."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.scanner.registry.cloud.fakes import SECRET

ID = "0d1e2f3a-1111-2222-3333-444455556666"
ARN = f"arn:aws:kms:eu-west-1:123456789012:key/{ID}"
GCP = "projects/shop/locations/global/keyRings/ring/cryptoKeys/receipts"
VERSION = "0123456789abcdef0123456789abcdef"


@dataclass
class Fake:
    """A service with keys of ours. ``answer``: given instead of the right one. ``asked``: the requests for keys."""

    server: HTTPServer
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    version: int = 1
    answer: Response | None = None
    asked: list[Request] = field(default_factory=list)

    @classmethod
    def on(cls, server: HTTPServer) -> Fake:
        """All services at the addresses of one server."""
        found = cls(server)
        path = re.compile(r"/|/(v1|keys)/.*|/[0-9-]{36}/oauth2/v2.0/token")
        server.expect_request(path).respond_with_handler(found.respond)
        return found

    @property
    def base(self) -> str:
        return self.server.url_for("").rstrip("/")

    @property
    def pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def signature(self, digest: str) -> bytes:
        raw = base64.urlsafe_b64decode(digest.replace("+", "-").replace("/", "_") + "==")
        return self.key.sign(raw, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    def respond(self, request: Request) -> Response:
        if "token" in request.path:
            return Response(json.dumps({"access_token": "an.access.token", "expires_in": 3600}))
        self.asked.append(request)
        return self.answer or Response(json.dumps(self.right(request)))

    def right(self, request: Request) -> dict[str, Any]:
        body = json.loads(request.get_data() or b"{}")
        if "X-Amz-Target" in request.headers:
            return self.aws(request.headers["X-Amz-Target"], body, request.headers["Authorization"])
        if request.path.startswith("/v1/transit/"):
            return {"data": self.vault(request, body)}
        assert request.headers["Authorization"] == "Bearer an.access.token"
        return self.google(request, body) if request.path.startswith("/v1/") else self.azure(request, body)

    def aws(self, target: str, body: dict[str, str], authorization: str) -> dict[str, Any]:
        assert "Credential=AKIDEXAMPLE00000/" in authorization
        assert "/eu-west-1/kms/aws4_request, " in authorization
        if target == "TrentService.GetPublicKey":
            der = base64.b64encode(_der(self.key)).decode()
            return {"KeyId": ARN, "PublicKey": der, "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
        assert target == "TrentService.Sign"
        assert (body["KeyId"], body["MessageType"], body["SigningAlgorithm"]) == (ARN, "DIGEST", "ECDSA_SHA_256")
        return {"KeyId": ARN, "Signature": base64.b64encode(self.signature(body["Message"])).decode()}

    def google(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        name = f"{GCP}/cryptoKeyVersions/1"
        if request.method == "GET":
            assert request.path == f"/v1/{name}/publicKey"
            return {"pem": self.pem, "algorithm": "EC_SIGN_P256_SHA256", "name": name}
        assert request.path == f"/v1/{name}:asymmetricSign"
        return {"signature": base64.b64encode(self.signature(body["digest"]["sha256"])).decode()}

    def azure(self, request: Request, body: dict[str, str]) -> dict[str, Any]:
        assert request.args["api-version"] == "7.4"
        if request.method == "GET":
            assert request.path == "/keys/receipts"
            numbers = self.key.public_key().public_numbers()
            x, y = (
                base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y)
            )
            kid = f"https://shop.vault.azure.net/keys/receipts/{VERSION}"
            return {"key": {"kid": kid, "kty": "EC-HSM", "crv": "P-256", "x": x, "y": y, "key_ops": ["sign"]}}
        assert (request.path, body["alg"]) == (f"/keys/receipts/{VERSION}/sign", "ES256")
        r, s = utils.decode_dss_signature(self.signature(body["value"]))
        raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return {"kid": request.path, "value": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}

    def vault(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        assert request.headers["X-Vault-Token"] == SECRET
        if request.method == "GET":
            assert request.path == "/v1/transit/keys/receipts"
            versions = {str(self.version): {"public_key": self.pem, "creation_time": "2026-01-01T00:00:00Z"}}
            return {"type": "ecdsa-p256", "latest_version": self.version, "keys": versions}
        assert request.path == "/v1/transit/sign/receipts/sha2-256"
        assert (body["prehashed"], body["marshaling_algorithm"]) == (True, "asn1")
        signature = base64.b64encode(self.signature(body["input"])).decode()
        return {"signature": f"vault:v{body['key_version']}:{signature}"}


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)
