"""The command line's side of a server: ask the gate, wait, and never mistake a failure for an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import RefusedError, RemoteError, UsageError
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.outbound import AnswerTooLarge, http_client

_MAX_ANSWER = 8 << 20
_POLL_SECONDS = 30
_ASK_SECONDS = 120.0
_SIMULATED_AT_ONCE = 200


@dataclass(frozen=True)
class Answer:
    """What the gate said. ``document`` is its JSON; ``pending`` when the wait ended before a decision."""

    document: Mapping[str, Any]
    pending: bool

    @property
    def verdict(self) -> str:
        verdict = self.document.get("verdict")
        return verdict if verdict in ("allow", "warn", "deny") else "deny"

    @property
    def undecided(self) -> bool:
        """True unless the server said that a violation denies: an answer we cannot read decides nothing."""
        return self.document.get("undecided") is not False


class Client:
    """A connection to one server. ``url`` without a path is the usual; the token goes to that host only, never on a redirect."""

    def __init__(self, url: str, token: Secret, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"not a server address: {url[:200]!r}", hint="write https://host[:port]")
        if parts.scheme == "http" and token and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError("refusing to send a token over plain HTTP", hint=f"use https://{parts.netloc}")
        if ca_file and not ca_file.is_file():
            raise UsageError(f"cannot read the CA file {ca_file}")
        headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
        self._url = url
        self._http = http_client(
            Settings(),
            own=(parts.hostname,),
            named=True,
            ca_file=ca_file,
            headers=headers.items(),
            base_url=url,
            timeout=httpx.Timeout(_POLL_SECONDS + 15, connect=10),
        )

    def gate(
        self, image: str, *, environment: str, workload: str | None, wait: int, progress: Callable[[str], None]
    ) -> Answer:
        """Ask, and keep asking until there is a decision or ``wait`` seconds have passed.

        Raises RefusedError or UsageError for what the server says is the caller's fault, RemoteError for everything else.
        """
        ends = time.monotonic() + wait
        while True:
            left = max(0, int(ends - time.monotonic()))
            body = {"image": image, "wait_seconds": min(left, _POLL_SECONDS)}
            if environment:
                body["environment"] = environment
            if workload is not None:
                body["workload"] = workload
            status, document = self.post("/api/v1/gate", body)
            if status == httpx.codes.OK:
                return Answer(document, pending=False)
            if time.monotonic() >= ends:
                return Answer(document, pending=True)
            progress(f"pending: scan {clean_text(str(document.get('scan', '')), 100)}")
            time.sleep(min(max(0.2, _number(document.get("retry_after"))), 10, max(0.0, ends - time.monotonic())))

    def simulate(self, name: str, text: str, *, most: int, progress: Callable[[str], None]) -> Mapping[str, Any]:
        """What a policy would newly deny and release on the server's evidence, image after image until ``most`` were looked at.

        Raises as `gate`.
        """
        total: dict[str, Any] = {"newly_denied": [], "newly_released": [], "unchanged": 0, "examined": 0}
        cursor: object = None
        while total["examined"] < most:
            body: dict[str, Any] = {"text": text, "limit": min(_SIMULATED_AT_ONCE, most - total["examined"])}
            if isinstance(cursor, str):
                body["cursor"] = cursor
            _, document = self.post(f"/api/v1/policies/{quote(name, safe='')}/simulate", body)
            for member in ("newly_denied", "newly_released"):
                total[member] += _objects(document.get(member))
            examined = int(_number(document.get("examined"))) if document.get("examined") else 0
            total["unchanged"] += int(_number(document.get("unchanged"))) if document.get("unchanged") else 0
            total["examined"] += examined
            cursor = document.get("next_cursor")
            if not isinstance(cursor, str) or not examined:
                break
            progress(f"{total['examined']} images looked at")
        total["truncated"] = isinstance(cursor, str)
        return total

    def ready(self) -> bool:
        """Whether the server answers that it can work. Never raises."""
        try:
            return self._http.ask("GET", "/readyz", limit=_MAX_ANSWER, seconds=5).status == httpx.codes.OK
        except (httpx.HTTPError, RemoteError):
            return False

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """POST JSON, read a bounded JSON object back. Raises for every status but 200, 201 and 202."""
        try:
            answer = self._http.ask("POST", path, json=body, limit=_MAX_ANSWER, seconds=_ASK_SECONDS)
        except AnswerTooLarge as error:
            raise RemoteError("the server's answer is too large", reason="server_error") from error
        except httpx.HTTPError as error:
            raise RemoteError(
                f"cannot ask {self._url}: {error or type(error).__name__}", reason="server_unreachable"
            ) from error
        try:
            document = load_untrusted_json(answer.body, limit=_MAX_ANSWER, error=RemoteError)
        except RemoteError:
            document = None
        if not isinstance(document, dict):
            raise RemoteError(
                f"the server answered {answer.status} without a JSON object",
                reason="server_error",
                hint="is this a Dockwarden server?",
            )
        if answer.status not in (200, 201, 202):
            raise _problem(answer.status, document)
        return answer.status, document


def _problem(status: int, document: Mapping[str, Any]) -> RefusedError | UsageError | RemoteError:
    """An RFC 9457 problem as our own error."""
    message = str(document.get("detail") or document.get("title") or f"status {status}")[:500]
    reason, hint = str(document.get("reason") or "server_error")[:100], str(document.get("hint") or "")[:300]
    if status in (401, 403):
        return RefusedError(
            f"the server refused: {message}", reason=reason, hint=hint or "check DOCKWARDEN_TOKEN and its scopes"
        )
    kind = UsageError if 400 <= status < 500 and status not in (408, 429) else RemoteError
    return kind(f"the server said: {message}", reason=reason, hint=hint)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 1.0


def describe(answer: Answer) -> str:
    """The answer for a person: verdict first, then why, then what to do."""
    document = answer.document
    if answer.pending:
        return "PENDING  still being scanned when the wait ended; ask again with a longer --wait"
    shown = partial(clean_text, limit=400)
    word = answer.verdict.upper() + (" (could not be decided)" if answer.verdict == "deny" and answer.undecided else "")
    lines = [f"{word}  {shown(str(document.get('image') or document.get('subject') or ''))}"]
    for reason in _objects(document.get("reasons")):
        unknown = "unknown: " if reason.get("kind") == "incomplete" else ""
        action, rule, message = (shown(str(reason.get(name, ""))) for name in ("action", "rule", "message"))
        lines.append(f"  {action:5} {unknown}{rule}: {message}")
    changes = _objects(document.get("changes"))
    if changes:
        lines.append("  What to do:")
    for change in changes:
        action, target, detail = (shown(str(change.get(name, ""))) for name in ("action", "target", "detail"))
        lines.append(f"    {action} {target}{' ' if action == 'upgrade' else ': '}{detail}")
    return "\n".join(lines)


def describe_simulation(found: Mapping[str, Any]) -> str:
    """What a policy would do, for a person: who would be blocked, by which rule, whose it is."""
    shown = partial(clean_text, limit=300)
    lines = []
    for member, word in (("newly_denied", "NEWLY DENIED"), ("newly_released", "NEWLY RELEASED")):
        flips = _objects(found.get(member))
        lines.append(f"{word}  {len(flips)}")
        for flip in flips:
            image, project, environment = (
                shown(str(flip.get(name, ""))) for name in ("image", "project", "environment")
            )
            rules = flip.get("rules")
            named = ", ".join(shown(str(rule)) for rule in rules) if isinstance(rules, list) else ""
            where = f" in {environment}" if environment else ""
            lines.append(f"  {image}{where}  (project {project}) by {named or '-'}")
            reasons = flip.get("reasons")
            lines += [f"      {shown(str(reason))}" for reason in (reasons if isinstance(reasons, list) else [])[:3]]
    more = "; there are more: --most" if found.get("truncated") else ""
    lines.append(
        f"{found.get('unchanged', 0)} decisions would stay as they are, of {found.get('examined', 0)} images{more}"
    )
    return "\n".join(lines)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
