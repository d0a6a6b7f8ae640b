"""The server's own TLS: the certificate from the settings, loaded again when its file changes."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scanner.config import Settings
from scanner.errors import UsageError
from scanner.files import open_regular

# Between two looks at the certificate's files, which are replaced when it is renewed.
_LOOK_SECONDS = 2.0
# The key of a verified client certificate in the WSGI environment. No header can set it: theirs begin with ``HTTP_``.
CLIENT_CERTIFICATE = "dockwarden.client_certificate"
_NAMES = frozenset(("DNS", "URI", "email"))


class Certificate:
    """The TLS context of a certificate and key. ``watch`` loads a renewed certificate without a restart."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        try:
            for file in (certificate, key):
                open_regular(file).close()  # OpenSSL would wait for a pipe, and read a device for ever
            self.context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"the certificate {certificate} with the key {key} cannot be used: {error}",
                hint="both are PEM files; the key belongs to the first certificate",
            ) from error
        if client_ca is not None:
            self._accept_clients_of(client_ca)

    def _accept_clients_of(self, authority: Path) -> None:
        """Ask clients for a certificate. One that none of these CAs issued ends the handshake; none is fine, because
        people and tokens use the same port.
        """
        try:
            open_regular(authority).close()
            self.context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"the CA certificates {authority} cannot be used: {error}",
                hint="DOCKWARDEN_ADMISSION_CLIENT_CA is a PEM file of CA certificates",
            ) from error
        self.context.verify_mode = ssl.CERT_OPTIONAL

    def refresh(self) -> bool:
        """Load changed files. If they cannot be loaded (e.g. half written), the next call tries again."""
        state = self._state()
        if state == self._seen:
            return False
        try:
            self.context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            logging.getLogger(__name__).warning("the renewed certificate cannot be used yet: %s", error)
            return False
        self._seen = state
        return True

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.refresh()

    def _state(self) -> tuple[float, ...]:
        # Kubernetes renews a mounted secret by changing a symbolic link; stat follows it.
        try:
            return tuple(path.stat().st_mtime for path in (self._certificate, self._key))
        except OSError:
            return ()


def names_of(certificate: Mapping[str, Any], now: float | None = None) -> frozenset[str]:
    """Return the names of a verified certificate (`ssl.SSLSocket.getpeercert`): common name, DNS names, URIs, e-mail.

    None if it has expired. The handshake checked that as well, but connections and TLS sessions last longer than some
    certificates.
    """
    ends = certificate.get("notAfter")
    if not isinstance(ends, str) or ssl.cert_time_to_seconds(ends) <= (time.time() if now is None else now):
        return frozenset()
    found = {value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMES}
    found |= {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return frozenset(found)


def of_settings(settings: Settings) -> Certificate | None:
    """Return None for plain HTTP, e.g. behind a proxy that terminates TLS. Raises UsageError."""
    client_ca, names = settings.admission_client_ca, settings.admission_client_names
    if (client_ca is None) != (not names):
        raise UsageError(
            "DOCKWARDEN_ADMISSION_CLIENT_CA and DOCKWARDEN_ADMISSION_CLIENT_NAMES go together",
            hint="a CA also signs certificates of others: name those that API servers use",
        )
    if settings.tls_certificate is None and settings.tls_key is None:
        if client_ca is not None:
            raise UsageError(
                "client certificates need the server's own TLS",
                hint="set DOCKWARDEN_TLS_CERTIFICATE and DOCKWARDEN_TLS_KEY; a proxy in front cannot pass them on",
            )
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise UsageError("DOCKWARDEN_TLS_CERTIFICATE and DOCKWARDEN_TLS_KEY go together", hint="set both, or neither")
    return Certificate(settings.tls_certificate, settings.tls_key, client_ca)
