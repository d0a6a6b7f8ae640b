"""A client of the server's API: ask the gate, wait for the decision, report a failure as a failure and never as a
verdict.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from scanner.addresses import web_address
from scanner.config import Secret, Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.model.decision import Change, Reason, ReasonKind, Verdict
from scanner.model.finding import CheckResult
from scanner.model.untrusted import clean_text, load_untrusted_json, network_reason
from scanner.outbound import AnswerTooLarge, certificate_hint, http_client, tls_error
from scanner.reports._decision_text import DecisionText, group_reasons

# The largest answer is a policy simulation of 200 images; a larger one is not from a Dockwarden server.
_MAX_ANSWER = 8 << 20
_MAX_REPORTS = 256 << 20  # an image of 100,000 findings, in several formats
_LIMITED_SECONDS = 5.0  # between questions that the server refuses because there are too many
# Of one long poll: proxies cut silent connections after a minute.
_POLL_SECONDS = 30
# Longer than one poll: the server may hold the request open for _POLL_SECONDS before it answers.
_ASK_SECONDS = 120.0
_SIMULATED_AT_ONCE = 200  # images in one request, below the server's time limit
_ITEMS_OF_A_PAGE = 200
_REASONS, _CHANGES = 5, 2  # with the verdict, this fits on ten lines
_ALL = 1_000_000


@dataclass(frozen=True)
class Answer:
    """An answer of the gate. ``document`` is its JSON; ``pending`` is true when the wait ended before a decision."""

    document: Mapping[str, Any]
    pending: bool

    @property
    # Unknown is never clean: a verdict that this version does not know counts as a denial.
    def verdict(self) -> str:
        verdict = self.document.get("verdict")
        return verdict if verdict in ("allow", "warn", "deny") else "deny"

    @property
    def undecided(self) -> bool:
        """False only if the server says that a violation denies. An answer that we cannot read decides nothing."""
        return self.document.get("undecided") is not False


class Client:
    """A connection to one server.

    ``url`` usually has no path. The token is sent to that host only and never follows a redirect.
    """

    def __init__(self, url: str, token: Secret, ca_file: Path | None = None) -> None:
        parts = web_address(url, "--server (or DOCKWARDEN_SERVER)")
        # Loopback is exempt, because the traffic does not leave the machine.
        if parts.scheme == "http" and token and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError("a token is not sent over plain HTTP", hint=f"use https://{parts.netloc}")
        headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
        self._url, self._signed_in = url, bool(token)
        self._http = http_client(
            Settings(),
            own=(parts.hostname or "",),
            named=True,
            ca_file=ca_file,
            headers=headers.items(),
            base_url=url,
            timeout=httpx.Timeout(_POLL_SECONDS + 15, connect=10),
        )

    def gate(
        self,
        image: str,
        *,
        environment: str,
        workload: str | None,
        wait: int,
        progress: Callable[[str], None],
        reports: Sequence[str] = (),
    ) -> Answer:
        """Ask for a decision until there is one or ``wait`` seconds have passed.

        ``reports`` names formats; their texts are the member ``reports`` of the answer.

        Raises RefusedError or UsageError if the request is at fault, RemoteError if the server or the network is.
        """
        ends = time.monotonic() + wait
        while True:
            # Long-poll in slices: proxies between CI and the server cut requests that stay silent for minutes.
            left = max(0, int(ends - time.monotonic()))
            body: dict[str, Any] = {"image": image, "wait_seconds": min(left, _POLL_SECONDS)}
            if environment:
                body["environment"] = environment
            if workload is not None:
                body["workload"] = workload
            if reports:
                body["reports"] = list(reports)
            try:
                status, document = self.post("/api/v1/gate", body, limit=_MAX_REPORTS if reports else _MAX_ANSWER)
            except RemoteError as error:
                # A storm of pipelines: the server takes this image a little later. Without --wait, say so at once.
                if error.reason != "rate_limited" or time.monotonic() >= ends:
                    raise
                progress(f"{error}; asking again")
                time.sleep(min(_LIMITED_SECONDS, max(0.0, ends - time.monotonic())))
                continue
            if status == httpx.codes.OK:
                return Answer(document, pending=False)
            if time.monotonic() >= ends:
                return Answer(document, pending=True)
            failed = (
                f"; the last attempt failed: {clean_text(str(told), 300)}" if (told := document.get("message")) else ""
            )
            progress(f"pending: scan {clean_text(str(document.get('scan', '')), 100)}{failed}")
            # The server says when to ask again; bounded, so that a wrong value neither floods the server nor sleeps for
            # ever.
            time.sleep(min(max(0.2, _number(document.get("retry_after"))), 10, max(0.0, ends - time.monotonic())))

    def check_workloads(
        self, documents: Sequence[Mapping[str, Any]], *, environment: str
    ) -> list[tuple[CheckResult, ...]]:
        """Return the results of every workload check for each document, by what the server knows."""
        from pydantic import TypeAdapter, ValidationError

        body = {"environment": environment, "workloads": list(documents)}
        _, document = self.post("/api/v1/gate/workloads", body, limit=_MAX_REPORTS)
        items = document.get("items")
        checks = [each.get("checks") for each in items if isinstance(each, dict)] if isinstance(items, list) else []
        try:
            # Not strict: in JSON an enumeration is a text and a tuple is a list.
            found = TypeAdapter(list[tuple[CheckResult, ...]]).validate_python(checks)
        except ValidationError:
            found = []
        if len(found) != len(documents):
            raise RemoteError("the server's answer has no results for the workloads", reason="server_error")
        return found

    def simulate(self, name: str, text: str, *, most: int, progress: Callable[[str], None]) -> dict[str, Any]:
        """Return which images a policy would newly deny or release, by the evidence that the server has.

        Looks at ``most`` images at the most, in pages of 200.

        Raises the same errors as ``gate``.
        """
        return self._simulate_pages(name, text, "simulate", "images", most, progress)

    def simulate_workloads(self, name: str, text: str, *, most: int, progress: Callable[[str], None]) -> dict[str, Any]:
        """Return the same for running workloads."""
        return self._simulate_pages(name, text, "simulate/workloads", "workloads", most, progress)

    def _simulate_pages(
        self, name: str, text: str, path: str, what: str, most: int, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        # Page by page: one request over all images would exceed the server's time limit.
        total: dict[str, Any] = {"newly_denied": [], "newly_released": [], "unchanged": 0, "examined": 0}
        cursor: object = None
        while total["examined"] < most:
            body: dict[str, Any] = {"text": text, "limit": min(_SIMULATED_AT_ONCE, most - total["examined"])}
            if isinstance(cursor, str):
                body["cursor"] = cursor
            _, document = self.post(f"/api/v1/policies/{quote(name, safe='')}/{path}", body)
            for member in ("newly_denied", "newly_released"):
                total[member] += objects(document.get(member))
            examined = int(_number(document.get("examined"))) if document.get("examined") else 0
            total["unchanged"] += int(_number(document.get("unchanged"))) if document.get("unchanged") else 0
            total["examined"] += examined
            cursor = document.get("next_cursor")
            # Without progress, a server that repeats its cursor would keep a pipeline busy until its own time limit.
            if not isinstance(cursor, str) or not examined:
                break
            progress(f"{total['examined']} {what} simulated")
        total["truncated"] = isinstance(cursor, str)
        return total

    def ready(self) -> bool:
        # `demo` and tests poll this while the server starts; a refused connection is an expected state, not an error.
        """Whether the server's readiness endpoint answers 200. Never raises."""
        try:
            return self._http.ask("GET", "/readyz", limit=_MAX_ANSWER, seconds=5).status == httpx.codes.OK
        except (httpx.HTTPError, RemoteError):
            return False

    def get(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        """GET a JSON object. Raises for every status except 200."""
        return self._ask("GET", f"{path}?{urlencode(parameters)}", _MAX_ANSWER)[1]

    def pages(self, path: str, parameters: Mapping[str, str], most: int) -> Iterator[Mapping[str, Any]]:
        """Yield the pages of a list until the server has no more, or ``most`` items were read.

        Raises the same errors as ``get``.
        """
        cursor: object = None
        while most > 0:
            more = {"cursor": cursor} if isinstance(cursor, str) else {}
            page = self.get(path, {**parameters, "limit": str(min(_ITEMS_OF_A_PAGE, most)), **more})
            read = len(objects(page.get("items")))
            before, cursor = cursor, page.get("next_cursor")
            last = not isinstance(cursor, str) or not cursor
            # Without progress, such a server would keep a pipeline busy until its own time limit.
            if not last and (cursor == before or not read):
                raise RemoteError("the server's list does not end: a page brought nothing new", reason="server_error")
            yield page
            if last:
                return
            most -= read

    def post(
        self, path: str, body: Mapping[str, Any], limit: int = _MAX_ANSWER, seconds: float = _ASK_SECONDS
    ) -> tuple[int, Mapping[str, Any]]:
        """POST JSON and return status and JSON object. Raises for every status except 200, 201 and 202."""
        return self._ask("POST", path, limit, seconds, json=body)

    def _ask(
        self, method: str, path: str, limit: int, seconds: float = _ASK_SECONDS, **more: Any
    ) -> tuple[int, Mapping[str, Any]]:
        try:
            answer = self._http.ask(method, path, limit=limit, seconds=seconds, **more)
        except AnswerTooLarge as error:
            raise RemoteError("the server's answer is too large", reason="server_error") from error
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        try:
            # A proxy's error page is HTML with status 200 in some networks. Without an object there is no verdict.
            document = load_untrusted_json(answer.body, limit=limit, error=RemoteError)
        except RemoteError:
            document = None
        if not isinstance(document, dict):
            raise RemoteError(
                f"the server answered {answer.status} without a JSON object",
                reason="server_error",
                hint="check that --server names a Dockwarden server, not a proxy or another service",
            )
        if answer.status not in (200, 201, 202):
            raise _problem(answer.status, document, self._signed_in)
        return answer.status, document

    def _unreachable(self, error: httpx.HTTPError) -> RemoteError:
        """An error for a request without an answer: the address, the cause and what to do."""
        text = network_reason(error)
        where = f"cannot reach {self._url}: "
        if "certificate" in str(error).lower():
            hint, refused = "trust its certificate authority: --ca-file FILE, or DOCKWARDEN_CA_FILE", tls_error(error)
            if isinstance(refused, ssl.SSLCertVerificationError):
                hint = certificate_hint(refused, hint)
            return RemoteError(
                f"{where}the TLS certificate is not trusted: {text}", reason="server_untrusted", hint=hint
            )
        hint = (
            "check the address (--server or DOCKWARDEN_SERVER) and that the server is running; "
            "a server with a certificate of a private CA also needs --ca-file"
        )
        return RemoteError(f"{where}{text}", reason="server_unreachable", hint=hint)


def _problem(status: int, document: Mapping[str, Any], signed_in: bool) -> RefusedError | UsageError | RemoteError:
    """Translate a problem document (RFC 9457) into an error of ours."""
    message = str(document.get("detail") or document.get("title") or f"status {status}")[:500]
    reason, hint = str(document.get("reason") or "server_error")[:100], str(document.get("hint") or "")[:300]
    # Say "no token" rather than the server's "unauthorized": in CI an unset variable is the usual cause.
    if status == 401 and not signed_in:
        hint = "set DOCKWARDEN_TOKEN; an administrator creates a token with: dockwarden token create NAME"
        return RefusedError("the server requires an API token, and none was given", reason=reason, hint=hint)
    if status in (401, 403):
        advice = "check DOCKWARDEN_TOKEN (or --token) and its scopes"
        return RefusedError(
            f"the server refused the request: {message}", reason=reason, hint=f"{advice}; {hint}" if hint else advice
        )
    if reason == "invalid":
        # Of a person's command, the member of the request that is wrong is an argument or an option.
        message, hint = message.removeprefix("/"), hint if "openapi" not in hint else ""
    # 408 and 429 are in the 4xx range, but the request was correct: the caller should try again.
    kind = UsageError if 400 <= status < 500 and status not in (408, 429) else RemoteError
    return kind(f"the server answered: {message}", reason=reason, hint=hint)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0


def of(settings: Settings, server: str | None, token: str | None, ca_file: Path | None) -> Client:
    """Return the client for a command's options. Raises UsageError if there is no server address."""
    if not server:
        raise UsageError("no server address was given", hint="give --server URL, or set DOCKWARDEN_SERVER")
    return Client(server, Secret(token or ""), ca_file or settings.ca_file)


def describe(answer: Answer, *, show_all: bool = False) -> str:
    """Format an answer for a terminal: verdict, reasons, what to do. About ten lines unless ``show_all``."""
    document = answer.document
    if answer.pending:
        return "PENDING  the scan has not finished; try again, or with a longer --wait"
    text = DecisionText(width=120, wrap_long=show_all)
    most_reasons, most_changes = (_ALL, _ALL) if show_all else (_REASONS, _CHANGES)
    verdict = Verdict(answer.verdict)
    undecided = verdict is Verdict.DENY and answer.undecided
    name = clean_text(str(document.get("image") or document.get("subject") or ""), 400)
    lines = [text.headline(verdict, undecided, name)]
    groups = group_reasons(_reason(reason) for reason in objects(document.get("reasons")))
    changes = [_change(change) for change in objects(document.get("changes"))]
    for group in groups[:most_reasons]:
        lines += text.reason(group)
    if not groups:
        lines.append("  No rule of the policy is violated." if verdict is Verdict.ALLOW else "  No reason was given.")
    if changes:
        lines.append("  What to do:")
    for change in changes[:most_changes]:
        lines += (f"  {line}" for line in text.change(change))
    hidden = [
        f"{len(items) - most} more {what}"
        for items, most, what in ((groups, most_reasons, "reasons"), (changes, most_changes, "changes"))
        if len(items) > most
    ]
    if hidden:
        lines.append(f"  … and {' and '.join(hidden)} (--all shows them)")
    return "\n".join(lines)


def _reason(document: Mapping[str, Any]) -> Reason:
    """Read a reason from the server's JSON.

    An unreadable member becomes "deny" and "incomplete", so that a broken answer never looks better than it is.
    """
    action, kind = document.get("action"), document.get("kind")
    return Reason(
        _shown_member(document, "rule"),
        ReasonKind(kind) if kind in tuple(ReasonKind) else ReasonKind.INCOMPLETE,
        Verdict(action) if action in tuple(Verdict) else Verdict.DENY,
        _shown_member(document, "message"),
        _shown_member(document, "subject"),
        platforms=tuple(clean_text(name, 100) for name in _texts(document.get("platforms"))),
    )


def _change(document: Mapping[str, Any]) -> Change:
    return Change(
        _shown_member(document, "action"), _shown_member(document, "target"), _shown_member(document, "detail")
    )


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _shown_member(document: Mapping[str, Any], name: str) -> str:
    return clean_text(str(document.get(name) or ""), 400)


def objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
