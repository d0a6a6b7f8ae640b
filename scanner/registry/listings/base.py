"""The contract of a registry's own list, and the only way to it.

An API is on the registry's own host, on the token service that an administrator trusts with the credentials, or on the
documented host of a public registry. No answer chooses where a request goes: a position is a number or an opaque token,
and a link to another host is refused. Answers are bounded in size, time and number.
"""

from __future__ import annotations

import base64
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import NotFoundError, RemoteError
from scanner.model.untrusted import load_untrusted_json
from scanner.outbound import Answer, AnswerTooLarge, http_client, plain_name, split_address
from scanner.registry import politeness
from scanner.registry.auth import Credentials
from scanner.registry.client import Names
from scanner.registry.cloud.base import CloudAccess, error_code

PAGE = 100  # entries asked for at a time; most of these APIs give no more
MOST_NAMES = 1000  # of one answer
_MAX_ANSWER, _SECONDS = 4 << 20, 30.0
_MAX_POSITION = 200_000  # it is stored with the job
# Groups that a list is asked about one by one.
_GROUPS_MOST = 50
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "RESOURCE_EXHAUSTED"})
_DENIED = re.compile(r"AccessDenied|UnrecognizedClient|InvalidSignature|ExpiredToken|IncompleteSignature", re.ASCII)
REFUSED = "listing_refused"  # the API is there, but not for these credentials


@dataclass(frozen=True)
class Place:
    """What is known of a registry. ``realm`` and ``service`` are what its challenge says; empty: it was not asked.

    ``base``: its address, without a path. ``token_service``: the host that an administrator trusts with the
    credentials.
    """

    host: str
    base: str
    token_service: str = ""
    realm: str = ""
    service: str = ""

    @property
    def realm_parts(self) -> SplitResult:
        """The address of the token service that the challenge names; empty parts for anything else."""
        found = split_address(self.realm)
        return found if found is not None and not found.username else SplitResult("", "", "", "", "")


@dataclass(frozen=True)
class ListingRequest:
    """With what a list is asked for.

    ``namespaces``: the first parts of repositories that the administrator selected (``shop`` of ``shop/**``).
    ``cloud``: the credentials of a cloud, from which `credentials` are obtained.
    """

    host: str
    credentials: Credentials | None = field(default=None, repr=False)
    cloud: CloudAccess | None = field(default=None, repr=False)
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListingAnswer:
    """A successful answer. ``document`` is what it holds, ``has_next`` whether its Link header names a next page."""

    document: Any
    headers: Mapping[str, str]
    has_next: bool


class Listing(ABC):
    """One kind of registry with an API that lists repositories.

    ``title`` names the list for people; ``found_by``: how the registry is recognised; ``reads``: the documented
    requests; ``needs``: what the credentials need; ``manual``: where the requests are documented.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    found_by: ClassVar[str]
    reads: ClassVar[str]
    needs: ClassVar[str]
    manual: ClassVar[str]

    @abstractmethod
    def origin(self, place: Place) -> str | None:
        """Return the API's address without a path. None: the registry is no such one, or it is not known yet.

        It gets the credentials, so it follows from the host and the token service that an administrator configured.
        """

    @abstractmethod
    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """Return one page of repositories, without the host. ``position``: `Names.following` of the page before.

        Raises RemoteError, NotFoundError.
        """

    def read(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """Return one page, after checks that no API needs to pass but every hostile answer must."""
        found = self.page(api, asked, position)
        if len(found.names) > MOST_NAMES:
            raise api.unusable(f"a page with more than {MOST_NAMES} repositories")
        if found.following and (found.following == position or len(found.following) > _MAX_POSITION):
            raise api.unusable("a page that is followed by itself, or by too many")
        return found


class Api:
    """The API of one registry: a client that connects to this host only.

    ``pause``: the seconds to wait before the next request, from the last answer. ``token``: a place for a token that a
    list obtains for its next pages.
    """

    def __init__(
        self, settings: Settings, origin: str, *, ca_file: Path | None = None, here: Iterable[str] = ()
    ) -> None:
        """``here``: hosts that an administrator chose; only they may be on this machine."""
        parts = urlsplit(origin)
        self.settings, self.host, self.origin = settings, parts.netloc, origin
        self._name = plain_name(parts.hostname or "")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._http = http_client(
            settings,
            own=here,
            allowed=lambda name, other: (plain_name(name), other) == (self._name, port),
            ca_file=ca_file or settings.ca_file,
        )
        self.pause, self.requests = 0.0, 0
        self.token = Secret("")

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> ListingAnswer:
        """Send a GET. Raises RemoteError, NotFoundError."""
        return self._ask("GET", path, headers, params=query)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ListingAnswer:
        """Send a POST. Raises as `get`."""
        return self._ask("POST", path, headers, content=body)

    def unusable(self, what: str) -> RemoteError:
        """An answer that is not as documented."""
        return RemoteError(f"{self.host} sent {what}", reason="registry_list_unusable", retryable=False)

    def entries(self, document: object, member: str = "") -> list[Mapping[str, Any]]:
        """Return the objects of a list, or of the list in a member."""
        found = document.get(member) if member and isinstance(document, dict) else None if member else document
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise self.unusable("no list of repositories")
        return found

    def text(self, entry: Mapping[str, Any], member: str) -> str:
        """Return a member that must be a text."""
        found = entry.get(member)
        if not isinstance(found, str) or not found:
            raise self.unusable(f"an entry without {member}")
        return found

    def follows(self, link: object) -> bool:
        """Whether an answer has a next page. Its address is not used; one on another host is refused."""
        if link is None or link == "":
            return False
        target = split_address(link, self.origin) if isinstance(link, str) else None
        if target is None or plain_name(target.hostname or "") != self._name:
            raise RemoteError(
                f"{self.host} links to further pages on another host", reason="redirect_refused", retryable=False
            )
        return True

    def _ask(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> ListingAnswer:
        self.requests += 1
        sent = {"Accept": "application/json", **headers}
        try:
            with self._http.open(method, self.origin + path, headers=sent, seconds=_SECONDS, **more) as opened:
                link = opened.link("next")
                answer = Answer(opened.status, opened.headers, opened.body(_MAX_ANSWER), opened.url)
        except AnswerTooLarge:
            raise self.unusable(f"more than {_MAX_ANSWER} bytes") from None
        except httpx.HTTPError as error:
            # Neither the message nor the cause: for an invalid header they quote its value, a secret.
            raise RemoteError(
                f"{self.host} did not answer ({type(error).__name__})", reason="registry_unreachable"
            ) from None
        self.pause = politeness.advised_pause(answer.headers, time.time())
        if answer.status != httpx.codes.OK:
            raise self._refusal(answer)
        try:
            document = load_untrusted_json(answer.body, limit=_MAX_ANSWER, error=RemoteError)
        except RemoteError as error:
            raise self.unusable(f"an answer that cannot be read: {error}") from None
        return ListingAnswer(document, answer.headers, self.follows(link))

    def _refusal(self, answer: Answer) -> RemoteError | NotFoundError:
        status, code = answer.status, error_code(answer)
        wait = politeness.retry_after(answer.headers.get("Retry-After"), time.time())
        # GitHub limits by 403 as well as by 429, and AWS by 400.
        spent = answer.headers.get("X-RateLimit-Remaining", "").strip() == "0"
        if status == 429 or code in _THROTTLED or (status == 403 and (spent or wait is not None)):
            return RemoteError(
                f"{self.host} is limiting our requests",
                reason="registry_rate_limited",
                retry_after=wait or self.pause or None,
            )
        if status in (404, 405, 501):
            return NotFoundError(f"{self.host} has no such list")
        if status in (401, 403) or _DENIED.match(code):
            return self.refused(f"it answered {status}{f' ({code})' if code else ''}")
        if 300 <= status < 400:
            # Not followed: it would lead the credentials elsewhere.
            return RemoteError(
                f"{self.host} redirects the request for its list", reason="redirect_refused", retryable=False
            )
        return RemoteError(f"{self.host} answered {status} for its list", retryable=status >= 500)

    def refused(self, why: str) -> RemoteError:
        """The API does not list for these credentials."""
        return RemoteError(f"{self.host} does not list repositories for us: {why}", reason=REFUSED, retryable=False)


def basic(credentials: Credentials | None) -> dict[str, str]:
    """Return the header for a user name and password; empty without credentials."""
    if credentials is None or not credentials.username:
        return {}
    pair = f"{credentials.username}:{credentials.password.reveal()}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def number(api: Api, position: str) -> int:
    """Return the number of a page, from 1."""
    if not position:
        return 1
    if not (position.isascii() and position.isdecimal() and len(position) < 8):
        raise api.unusable("a position that is no number")
    return int(position)


def by_group(
    api: Api,
    position: str,
    groups: Callable[[], Sequence[str]],
    read: Callable[[str, str], Names],
    *,
    most: int = _GROUPS_MOST,
) -> Names:
    """Return one page of a list that an API gives by group only: a namespace, a project.

    A group that is refused is left out, with an empty page: each page is one request. Raises the refusal of the last
    one if all were refused.
    """
    if position:
        left, inner, answered = json.loads(position)
    else:
        left, inner, answered = list(groups())[:most], "", False
    if not left:
        return Names(())
    try:
        found = read(left[0], inner)
        answered = True
    except (NotFoundError, RemoteError) as error:
        refused = not isinstance(error, RemoteError) or error.reason == REFUSED
        if not refused or (len(left) == 1 and not answered):
            raise
        found = Names(())
    if not found.following:
        left = left[1:]
    return Names(found.names, json.dumps([left, found.following, answered]) if left else "")


def list_table(listings: Iterable[Listing]) -> str:
    """Return the table of all lists in Markdown, for the manual."""
    head = "| list | recognised by | requests | credentials |\n|---|---|---|---|\n"
    rows = (f"| [{one.title}]({one.manual}) | {one.found_by} | {one.reads} | {one.needs} |" for one in listings)
    return head + "\n".join(rows) + "\n"
