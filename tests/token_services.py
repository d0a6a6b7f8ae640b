"""A registry's token service, as Harbor's core is one: it knows robot accounts and signs short-lived tokens.

https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from tests.servers import Authority


class TokenService:
    """``robots``: secret by name. Each may push and pull everything; others get a token that permits nothing."""

    def __init__(self, authority: Authority, robots: Mapping[str, str]) -> None:
        certificate, key = authority.issue("token-service")
        self.root: Path = authority.file
        self._key = ECKey.import_key(key.read_bytes())
        der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
        self._chain = [base64.b64encode(der).decode()]
        self._robots = dict(robots)
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(service.answer(self.headers.get("Authorization", ""), self.path))

            def _answer(self, document: dict[str, Any] | None) -> None:
                body = orjson.dumps(document or {"errors": [{"code": "UNAUTHORIZED"}]})
                self.send_response(200 if document else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/service/token"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, authorization: str, path: str) -> dict[str, Any] | None:
        """The document of a token; None: the credentials are wrong."""
        known = {
            f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}" for name, secret in self._robots.items()
        }
        if authorization and authorization not in known:
            return None
        scopes = parse_qs(urlsplit(path).query).get("scope", [])
        return {"token": self.token(scopes if authorization else []), "expires_in": 300}

    def token(self, scopes: list[str]) -> str:
        """A token for scopes such as ``repository:shop/web:pull``."""
        now = int(time.time())
        parts = [scope.split(":") for scope in scopes]
        access = [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in parts]
        claims = {"iss": "tests", "sub": "robot", "aud": "tests", "exp": now + 300, "nbf": now - 60, "iat": now}
        header = {"alg": "ES256", "typ": "JWT", "x5c": self._chain}
        return jwt.encode(header, claims | {"jti": str(uuid.uuid4()), "access": access}, self._key)
