"""The server's own TLS: the certificate from the settings, loaded again when its file changes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from scanner.config import Settings
from scanner.errors import UsageError
from scanner.files import open_regular

_LOOK_SECONDS = 2.0


class Certificate:
    """The TLS context of a certificate and key. ``watch`` loads a renewed certificate without a restart."""

    def __init__(self, certificate: Path, key: Path) -> None:
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


def of_settings(settings: Settings) -> Certificate | None:
    """Return None for plain HTTP, e.g. behind a proxy that terminates TLS. Raises UsageError."""
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise UsageError("DOCKWARDEN_TLS_CERTIFICATE and DOCKWARDEN_TLS_KEY go together", hint="set both, or neither")
    return Certificate(settings.tls_certificate, settings.tls_key)
