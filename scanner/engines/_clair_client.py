"""A client of Clair v4's HTTP API: requests are signed, answers bounded, temporary failures retried within a deadline.

https://quay.github.io/clair/reference/api.html. Clair's answers never choose where we connect to: paths are fixed,
redirects are refused, and only the configured host is contacted.
"""

from __future__ import annotations

import base64
import binascii
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson
from joserfc import jwt
from joserfc.jwk import OctKey

from scanner.config import Limits, Settings
from scanner.errors import EngineError
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text, load_untrusted_json, network_reason
from scanner.outbound import AnswerTooLarge, http_client

_TOKEN_SECONDS = 60  # a token is signed for each request, so it need not live longer
_MAX_WAIT = 20.0
# Clair answers 500 in passing, and for an image that it cannot index.
_TRIES_OF_500 = 3
_SMALL = 16 << 20
# Another try may succeed; other statuses are about the request.
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Answer:
    """An answer with one of the expected statuses."""

    status: int
    headers: Mapping[str, str]
    body: bytes  # within the limit that was asked for

    def document(self, settings: Settings) -> Mapping[str, Any]:
        """Parse the body as a JSON object. Raises EngineError(reason="scanner_output_invalid")."""
        return read_document(self.body, settings.limits)


def read_document(data: bytes, limits: Limits) -> Mapping[str, Any]:
    """Parse bytes as a JSON object. Raises EngineError(reason="scanner_output_invalid")."""
    found = load_untrusted_json(
        data,
        limit=limits.report,
        depth=limits.json_depth,
        error=EngineError,
        reason="scanner_output_invalid",
        mend_text=True,
    )
    if not isinstance(found, dict):
        raise EngineError("Clair's answer is not a JSON object", reason="scanner_output_invalid")
    return found


class ClairClient:
    """A connection to one Clair, for at most ``seconds`` in total. Use it in a ``with`` statement.

    Every method raises EngineError: ``clair_unavailable`` (retryable) if Clair cannot be reached or keeps failing until
    the deadline, ``clair_refused`` for a wrong key, ``scanner_output_invalid`` for an invalid answer, ``scan_timeout``
    and ``cancelled``.
    """

    def __init__(
        self,
        settings: Settings,
        seconds: float,
        cancelled: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        base = configured_url(settings)
        self._settings, self._cancelled, self._sleep = settings, cancelled, sleep
        self._ends = time.monotonic() + seconds
        self._key = _key(settings)
        # An administrator configured this host, so unlike hosts in a registry's answers it may have a private or
        # loopback
        # address.
        near = replace(settings, allow_private_addresses=True, allow_loopback_addresses=True)
        parts = urlsplit(base)
        here = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        self._http = http_client(
            near,
            allowed=lambda host, port: (host, port) == here,
            ca_file=settings.clair_ca_file or settings.ca_file,
        )
        self._base = base

    def __enter__(self) -> ClairClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def index_state(self) -> str:
        """Return the state of the indexer. It changes if Clair would index the same image differently."""
        state = (
            self._ask("GET", "/indexer/api/v1/index_state", {200}, limit=_SMALL).document(self._settings).get("state")
        )
        if not isinstance(state, str) or not state:
            raise EngineError("Clair's answer has no indexer state", reason="scanner_output_invalid")
        return clean_text(state, 200)

    def index(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Index an image and wait for it. Returns the index report, which may report a failure."""
        body = orjson.dumps(manifest, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        kind = "application/vnd.clair.manifest.v1+json"
        return self._ask("POST", "/indexer/api/v1/index_report", {200, 201}, body, kind).document(self._settings)

    def index_report(self, digest: Digest) -> Mapping[str, Any] | None:
        """Return the index report of this digest, or None if it is not indexed."""
        answer = self._ask("GET", f"/indexer/api/v1/index_report/{digest}", {200, 404})
        return answer.document(self._settings) if answer.status == 200 else None

    def vulnerability_report(self, digest: Digest) -> Mapping[str, Any] | None:
        """Return the vulnerabilities of an indexed image, or None if it is not indexed.

        Raises EngineError(reason="engine_db_unavailable") as long as no vulnerability database is loaded: Clair then
        answers 202 without a body, which looks like success.
        """
        answer = self._ask("GET", f"/matcher/api/v1/vulnerability_report/{digest}", {200, 201, 202, 404})
        # Read as "no vulnerabilities", this answer would allow every image for as long as the updaters run.
        if answer.status == 202:
            raise EngineError(
                "Clair's vulnerability database is not loaded yet",
                reason="engine_db_unavailable",
                hint="wait for its updaters, or run clairctl import-updaters",
            )
        return None if answer.status == 404 else answer.document(self._settings)

    def update_operations(self) -> tuple[str, Mapping[str, Any]]:
        """Return the reference of the newest update, and the newest update operations of every updater, by its name."""
        answer = self._ask("GET", "/matcher/api/v1/internal/update_operation?latest=true", {200}, limit=_SMALL)
        return answer.headers.get("etag", "").strip('"'), answer.document(self._settings)

    def notification(self, identifier: str, following: str = "") -> Mapping[str, Any] | None:
        """Return one page of a notification, or None if it does not exist (any more)."""
        query = "?page_size=500" + (f"&next={quote(following, safe='')}" if following else "")
        path = f"/notifier/api/v1/notification/{quote(identifier, safe='')}{query}"
        answer = self._ask("GET", path, {200, 404})
        return answer.document(self._settings) if answer.status == 200 else None

    def acknowledge(self, identifier: str) -> None:
        """Delete a processed notification in Clair."""
        self._ask("DELETE", f"/notifier/api/v1/notification/{quote(identifier, safe='')}", {200, 204, 404})

    def _ask(
        self, method: str, path: str, expected: set[int], body: bytes = b"", kind: str = "", limit: int | None = None
    ) -> Answer:
        """Send a request until its status is an expected one. Temporary failures are retried until the deadline."""
        tries = 0
        while True:
            tries += 1
            why, wait, status = "", 0.0, 0
            try:
                answer = self._request_once(method, path, body, kind, limit or self._settings.limits.report)
            except httpx.HTTPError as error:
                why = f"cannot reach Clair at {self._base}: {network_reason(error)}"
            else:
                if answer.status in expected:
                    return answer
                status = answer.status
                why, wait = self._refusal(answer, path)
            if method == "POST" and status == 500 and tries >= _TRIES_OF_500:
                # Clair also answers 500 for an image that it cannot index, and would do so for ever.
                raise EngineError(why, hint="see Clair's log")
            # With jitter: many workers wait for one Clair, and would all return at the same moment.
            wait = min(_MAX_WAIT, max(wait, 0.5 * 2.0**tries)) * random.uniform(0.8, 1.2)
            if self._seconds_left() <= wait:
                raise EngineError(
                    why,
                    reason="clair_unavailable",
                    retryable=True,
                    hint="check that Clair is running: see docs/clair.md",
                )
            self._sleep(wait)

    def _seconds_left(self) -> float:
        if self._cancelled():
            raise EngineError("the scan was cancelled", reason="cancelled")
        return self._ends - time.monotonic()

    def _request_once(self, method: str, path: str, body: bytes, kind: str, limit: int) -> Answer:
        left = self._seconds_left()
        if left <= 0:
            raise EngineError("Clair did not answer in time", reason="scan_timeout", retryable=True)
        headers = {"Accept": "application/json", **({"Content-Type": kind} if kind else {}), **self._authorization()}
        try:
            answer = self._http.ask(
                method,
                self._base + path,
                content=body or None,
                headers=headers,
                limit=limit,
                seconds=left,
                read_seconds=left,
            )
        except AnswerTooLarge as error:
            raise EngineError("Clair's answer is larger than allowed", reason="scanner_output_invalid") from error
        except httpx.TimeoutException as error:
            if time.monotonic() < self._ends:
                raise
            raise EngineError("Clair did not answer in time", reason="scan_timeout", retryable=True) from error
        return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body)

    def _authorization(self) -> dict[str, str]:
        """A token signed with Clair's ``auth.psk`` key, valid for a minute. Empty without a key."""
        if self._key is None:
            return {}
        now = int(time.time())
        claims = {"iss": self._settings.clair_issuer, "iat": now, "nbf": now, "exp": now + _TOKEN_SECONDS}
        return {"Authorization": f"Bearer {jwt.encode({'alg': 'HS256'}, claims, self._key)}"}

    def _refusal(self, answer: Answer, path: str) -> tuple[str, float]:
        """Return the message and the requested wait of a temporary failure. Raises EngineError for a permanent one."""
        message = clean_text(_message(answer.body), 300)
        where = path.partition("?")[0]
        if answer.status in _TEMPORARY:
            wait = answer.headers.get("retry-after", "")
            return f"Clair answered {answer.status} for {where}: {message or 'no reason'}", float(
                wait
            ) if wait.isdecimal() else 0.0
        if answer.status in (401, 403):
            raise EngineError(
                "Clair refused our key",
                reason="clair_refused",
                hint="DOCKWARDEN_CLAIR_PSK must be Clair's auth.psk.key and DOCKWARDEN_CLAIR_ISSUER one of "
                "auth.psk.iss",
            )
        text = f"Clair answered {answer.status} for {where}" + (f": {message}" if message else "")
        raise EngineError(text, reason="scanner_failed", hint="check DOCKWARDEN_CLAIR_URL")


def configured_url(settings: Settings) -> str:
    """Return Clair's URL without a trailing slash. Raises EngineError if it is missing or invalid."""
    if not settings.clair_url:
        raise EngineError(
            "no Clair is configured",
            reason="engine_missing",
            hint="set DOCKWARDEN_CLAIR_URL; docs/clair.md says how to run one",
        )
    parts = urlsplit(settings.clair_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username or parts.fragment:
        raise EngineError(
            "DOCKWARDEN_CLAIR_URL is not a URL",
            reason="engine_misconfigured",
            hint="write http://HOST:6060 or https://HOST",
        )
    return settings.clair_url.rstrip("/")


def _key(settings: Settings) -> OctKey | None:
    if not settings.clair_psk:
        return None
    try:
        key = base64.b64decode(settings.clair_psk.reveal(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise EngineError(
            "DOCKWARDEN_CLAIR_PSK is not base64",
            reason="engine_misconfigured",
            hint="copy auth.psk.key of Clair's configuration",
        )
    return OctKey.import_key(key)


def _message(body: bytes) -> str:
    """The ``message`` of Clair's error document, or an empty text."""
    try:
        found = load_untrusted_json(body[:65536], limit=65536, error=EngineError)
    except EngineError:
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) else ""
