"""A client of OCI registries (distribution-spec 1.1) that trusts no answer.

https unless a host is configured as insecure. Redirects are followed by hand: at most three, for blobs only, without
credentials on another host. Every body is bounded while it is read. Bytes are compared with the requested digest.
Retries honour ``Retry-After`` within limits.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx

from scanner.config import Secret, Settings
from scanner.errors import ImageError, LimitExceeded, NotFoundError, RemoteError, ScannerError
from scanner.model import pull_proof
from scanner.model.reference import DOCKER_HUB, Descriptor, Digest, Reference
from scanner.model.untrusted import clean_text, load_untrusted_json, network_reason
from scanner.outbound import (
    USUAL_PORTS,
    AnswerTooLarge,
    OpenAnswer,
    certificate_hint,
    http_client,
    split_address,
    tls_error,
)
from scanner.registry import politeness
from scanner.registry.auth import Authenticator, Challenge, CredentialStore, parse_challenges
from scanner.registry.manifest import ACCEPT, ImageIndex, parse_manifest

# Measured against rate-limited registries: four tries within 20 s pauses; a scan that fails is retried as a whole.
_TRIES = 4
_MAX_WAIT = 20.0
_READ_SECONDS = 30.0
_MAX_TAGS, _MAX_PAGES = 100_000, 100
_REFERRERS, _NO_SUCH_CALL = "referrers", (400, 405, 406, 501)


@dataclass(frozen=True)
class Access:
    """How one registry may be accessed. ``named``: the user named it on the command line, so any address is allowed.

    ``proof_key``: signs our own pulls for the pull gate in front of the registry; see ``model.pull_proof``.
    ``token_service``: a host that gets the registry's credentials too, see `Authenticator`.
    """

    insecure: bool = False
    ca_file: Path | None = None
    named: bool = False
    proof_key: Secret = Secret("")
    token_service: str = ""


@dataclass(frozen=True)
class Names:
    """One page of a list. ``following``: the path of the next page; empty: this is the last one."""

    names: tuple[str, ...]
    following: str = ""


@dataclass
class RegistryClient:
    """One registry host. Close it, or use it in a ``with``.

    ``advised_pause``: the seconds to wait before the next request, from the last answer's rate limit headers.
    """

    host: str
    settings: Settings
    credentials: CredentialStore
    access: Access = field(default_factory=Access)
    sleep: Callable[[float], None] = time.sleep  # replaced by tests, so that a retry does not wait
    tries: int = _TRIES  # in all, the first included
    ends: float = float("inf")  # time.monotonic() value after which no request starts or continues

    def __post_init__(self) -> None:
        # docker.io is the name in references; its API answers at another host.
        address = "registry-1.docker.io" if self.host == DOCKER_HUB else self.host
        self._base = f"{'http' if self.access.insecure else 'https'}://{address}"
        self._http = http_client(
            self.settings,
            own=(urlsplit(self._base).hostname or "",),
            named=self.access.named,
            ca_file=self.access.ca_file or self.settings.ca_file,
        )
        self.advised_pause = 0.0
        self._auth = Authenticator(
            self.host,
            self.credentials,
            self._http,
            self.settings.limits.token,
            insecure=self.access.insecure,
            token_service=self.access.token_service,
        )

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]:
        """Fetch the manifest or index by the reference's digest, or else by its tag.

        The descriptor's digest is computed from the received bytes. Raises NotFoundError, RemoteError,
        ImageError(reason="digest_mismatch").
        """
        name = reference.digest or reference.tag
        response, data = self._read_document(
            f"/v2/{reference.repository}/manifests/{name}",
            _scope(reference),
            self.settings.limits.manifest,
            {"Accept": ", ".join(ACCEPT)},
            what=str(reference),
        )
        if reference.digest is not None and not reference.digest.matches(data):
            raise ImageError(
                f"{self.host} sent content that does not match {reference.digest}", reason="digest_mismatch"
            )
        # Without parameters such as a charset, which some registries append.
        media_type = response.headers.get("Content-Type", "").split(";")[0].strip()
        return Descriptor(media_type, reference.digest or Digest.of(data), len(data)), data

    def tag_digest(self, reference: Reference, known: Digest | None = None) -> Digest:
        """Return the digest that a tag names now, by HEAD. It is the registry's claim: nothing is downloaded.

        ``known`` is sent as an ETag (distribution-spec registries use the digest as ETag): an answer 304 returns it.
        A registry that names no digest is asked for the manifest. Raises as `manifest`.
        """
        headers = {"Accept": ", ".join(ACCEPT), **({"If-None-Match": f'"{known}"'} if known else {})}
        path, ends = f"/v2/{reference.repository}/manifests/{reference.tag}", self._document_ends()
        opened = self._open(
            path, _scope(reference), headers, what=str(reference), redirects=0, tries_end=ends, ends=ends, method="HEAD"
        )
        try:
            with opened as answer:
                if answer.status == httpx.codes.NOT_MODIFIED and known is not None:
                    return known
                return Digest(answer.headers.get("Docker-Content-Digest", ""))
        except ImageError:  # no digest in the answer
            pass
        except RemoteError as error:
            if error.reason != "method_refused":
                raise
        return self.manifest(reference)[0].digest

    def blob(self, reference: Reference, digest: Digest, limit: int) -> bytes:
        """Fetch a small blob as a whole. Raises the errors of ``manifest``, and LimitExceeded."""
        _, data = self._read_document(
            f"/v2/{reference.repository}/blobs/{digest}",
            _scope(reference),
            limit,
            {},
            what=f"blob {digest.short}",
            redirects=self.settings.limits.redirects,
        )
        if not digest.matches(data):
            raise ImageError(f"{self.host} sent content that does not match {digest}", reason="digest_mismatch")
        return data

    @contextmanager
    def stream_blob(
        self, reference: Reference, descriptor: Descriptor, seconds: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Stream a blob, for at most ``seconds`` (default: ``limits.fetch_seconds``).

        The bytes are not verified here; ``BlobStore.writer`` does that.
        """
        path = f"/v2/{reference.repository}/blobs/{descriptor.digest}"
        with self._open(
            path,
            _scope(reference),
            {},
            what=f"blob {descriptor.digest.short}",
            redirects=self.settings.limits.redirects,
            tries_end=self._document_ends(),
            ends=min(self.ends, time.monotonic() + (seconds or self.settings.limits.fetch_seconds)),
        ) as answer:
            yield self._chunks(answer, descriptor.size)

    def _chunks(self, answer: OpenAnswer, size: int) -> Iterator[bytes]:
        try:
            # one byte more than declared, so that the digest check reports the mismatch
            yield from answer.chunks(size + 1)
        except AnswerTooLarge:
            raise ImageError(
                f"{self.host} sent more than the {size} bytes that the manifest declares", reason="digest_mismatch"
            ) from None
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def referrers(self, reference: Reference, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        """List what refers to ``digest`` (distribution-spec, listing referrers), by the API or else the tag
        ``sha256-<hex>``.

        Reads every page. Raises LimitExceeded for more than ``limits.referrers`` of the type: the rest could contain
        a signature.
        """
        found: list[Descriptor] = []
        path, pages = f"/v2/{reference.repository}/referrers/{digest}", set[str]()
        while path:
            # A hostile registry could link pages in a circle.
            if path in pages or len(pages) >= _MAX_PAGES:
                raise LimitExceeded(f"{self.host}: the list of referrers does not end")
            pages.add(path)
            try:
                answer, data = self._read_document(
                    path, _scope(reference), self.settings.limits.manifest, {"Accept": ACCEPT[0]}, what=_REFERRERS
                )
            except NotFoundError:
                # A missing later page may hold the newest signature, so this is no end of the list.
                if found or len(pages) > 1:
                    raise RemoteError(f"{self.host} is missing a page of referrers that it linked to") from None
                return self._tagged_referrers(reference, digest, artifact_type)
            # A server without this API may answer with a web page instead of 404.
            kind = answer.headers.get("Content-Type", "").partition(";")[0]
            if kind.strip() and "json" not in kind.lower():
                if len(pages) > 1:  # as above: what that page would list stays unknown
                    raise RemoteError(f"{self.host} sent a page of referrers as {clean_text(kind, 60)}")
                return self._tagged_referrers(reference, digest, artifact_type)
            found += self._referrers_in(data, artifact_type)
            if len(found) > self.settings.limits.referrers:
                raise LimitExceeded(f"{self.host}: more than {self.settings.limits.referrers} referrers")
            path = self._next_page(answer, path)
        return found

    def _tagged_referrers(self, reference: Reference, digest: Digest, artifact_type: str) -> list[Descriptor]:
        """Read the referrers tag, the fallback for registries without the API (distribution-spec, referrers tag
        schema).
        """
        # 64 characters, as the specification truncates: a tag may have 128, a sha512 digest has that many alone.
        fallback = Reference(reference.host, reference.repository, f"{digest.algorithm}-{digest.hex[:64]}")
        try:
            _, data = self.manifest(fallback)
        except NotFoundError:
            return []
        return self._referrers_in(data, artifact_type)

    def _referrers_in(self, data: bytes, artifact_type: str) -> list[Descriptor]:
        """The referrers in an index. It may have more entries than the index of an image."""
        limits = replace(self.settings.limits, index_manifests=self.settings.limits.referrers)
        index = parse_manifest(data, Descriptor(ACCEPT[0], Digest.of(data), len(data)), limits)
        if not isinstance(index, ImageIndex):
            raise ImageError("the referrers are not an index")
        return [d for d in index.manifests if not artifact_type or d.artifact_type == artifact_type]

    def _next_page(self, answer: OpenAnswer, path: str) -> str:
        """Return the path of the next page (RFC 8288, ``Link``), or an empty string.

        Raises RemoteError if it is on another host: the referrers there would stay unknown.
        """
        link = answer.link("next")
        if not link:
            return ""
        target = split_address(link, self._base + path)
        if target is None or not self._is_own(target):
            raise RemoteError(
                f"{self.host} links to further pages on another host", reason="redirect_refused", retryable=False
            )
        return target.path + (f"?{target.query}" if target.query else "")

    def _is_own(self, target: SplitResult) -> bool:
        """Whether an address is the registry's own. The host may be in capitals, and the usual port may be named."""
        base = urlsplit(self._base)
        # The scheme is not compared: behind a proxy that ends TLS, registries write http. Only path and query are used.
        ports = [each.port or USUAL_PORTS.get(each.scheme) for each in (target, base)]
        usual = target.port is None and base.port is None
        return target.hostname == base.hostname and (usual or ports[0] == ports[1])

    def tags(self, repository: str, most: int = _MAX_TAGS) -> list[str]:
        """List the tags of a repository. Stops after 100 pages, or when ``most`` are known."""
        path = f"/v2/{repository}/tags/list?n={min(most, 1000)}"
        return self._names(path, f"repository:{repository}:pull", "tags", repository, most)

    def tags_page(self, repository: str, path: str = "", size: int = 100) -> Names:
        """Return one page of a repository's tags. ``path``: `Names.following` of the page before."""
        path = path or f"/v2/{repository}/tags/list?n={size}"
        return self._page(path, f"repository:{repository}:pull", "tags", repository)

    def catalog_page(self, path: str = "", size: int = 100) -> Names:
        """Return one page of the repositories that our credentials can see. ``path``: as in `tags_page`."""
        return self._page(path or f"/v2/_catalog?n={size}", "registry:catalog:*", "repositories", "the catalog")

    def catalog(self, most: int) -> list[str]:
        """List the repositories that our credentials can see. Stops when ``most`` are known."""
        return self._names(
            f"/v2/_catalog?n={min(most, 1000)}", "registry:catalog:*", "repositories", "the catalog", most
        )

    def _names(self, path: str, scope: str, member: str, what: str, most: int) -> list[str]:
        found: list[str] = []
        for _ in range(_MAX_PAGES):
            page = self._page(path, scope, member, what)
            found.extend(page.names)
            path = page.following
            if not path or len(found) >= most:
                break
        return found

    def _page(self, path: str, scope: str, member: str, what: str) -> Names:
        answer, data = self._read_document(path, scope, 1 << 20, {}, what=what)
        document = load_untrusted_json(data, limit=1 << 20, error=RemoteError)
        names = document.get(member) if isinstance(document, dict) else None
        link = answer.link("next")
        target = split_address(link, self._base + path) if link else None
        following = ""
        # Our credentials go along, so a page on another host is not asked for.
        if target is not None and self._is_own(target):
            following = target.path + (f"?{target.query}" if target.query else "")
        kept = tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
        # A page that links to itself would never end.
        return Names(kept, following if following != path else "")

    @property
    def address(self) -> str:
        """The address of the registry, without a path."""
        return self._base

    def challenge(self) -> Challenge | None:
        """Return the Bearer challenge to a request without credentials, or None. Raises RemoteError."""
        ends = self._document_ends()
        try:
            with self._http.open(
                "GET", f"{self._base}/v2/", seconds=ends - time.monotonic(), read_seconds=_READ_SECONDS
            ) as answer:
                self.advised_pause = politeness.advised_pause(answer.headers, time.time())
                if answer.status == 429:
                    raise self._refusal(429, "the registry", answer)
                found = [one for text in answer.headers.get_list("WWW-Authenticate") for one in parse_challenges(text)]
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return next((one for one in found if one.scheme == "bearer"), None)

    def ping(self) -> None:
        """``GET /v2/``. Raises if the host is not a registry, or denies access."""
        self._read_document("/v2/", "", self.settings.limits.token, {}, what="the registry")

    def push_blob(self, repository: str, data: bytes) -> Digest:
        """Upload a small blob, unless the registry has it (distribution-spec, pushing a blob monolithically)."""
        digest = Digest.of(data)
        scope = f"repository:{repository}:pull,push"
        what = f"blob {digest.short}"
        if self._send("HEAD", f"/v2/{repository}/blobs/{digest}", scope, what=what, accepted=(200, 404))[0] == 200:
            return digest
        start = f"/v2/{repository}/blobs/uploads/"
        _, headers = self._send("POST", start, scope, what="an upload", accepted=(202,))
        location = split_address(headers.get("Location", ""), self._base + start)
        # An answer never chooses where we connect to: an upload goes to the registry itself.
        if location is None or not self._is_own(location):
            raise RemoteError(f"{self.host} sends uploads to another host", reason="redirect_refused", retryable=False)
        path = f"{location.path}?{location.query}{'&' if location.query else ''}digest={digest}"
        self._send("PUT", path, scope, data, "application/octet-stream", what=what, accepted=(201,))
        return digest

    def push_manifest(self, repository: str, name: str, data: bytes, media_type: str) -> httpx.Headers:
        """Upload a manifest or index under a tag or its digest. Returns the answer's headers."""
        path = f"/v2/{repository}/manifests/{name}"
        scope = f"repository:{repository}:pull,push"
        return self._send("PUT", path, scope, data, media_type, what=f"the manifest {name}", accepted=(201,))[1]

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete a manifest. Returns False if the registry does not delete; True also if it does not exist."""
        path, scope = f"/v2/{repository}/manifests/{digest}", f"repository:{repository}:delete"
        refused = (400, 401, 403, 405)
        status, _ = self._send("DELETE", path, scope, what="a manifest", accepted=(202, 200, 404, *refused))
        return status not in refused

    def _send(
        self,
        method: str,
        path: str,
        scope: str,
        content: bytes = b"",
        media_type: str = "",
        *,
        what: str,
        accepted: tuple[int, ...],
    ) -> tuple[int, httpx.Headers]:
        """Send one writing request; returns status and headers. Not repeated, except once to answer a challenge: the
        caller repeats the whole.
        """
        ends = self._document_ends()
        for attempt in range(2):
            authorization = self._auth.header(scope)
            headers = {"Authorization": authorization} if authorization else {}
            if media_type:
                headers["Content-Type"] = media_type
            if self.access.proof_key:
                headers[pull_proof.HEADER] = pull_proof.make(self.access.proof_key.reveal(), self.host, time.time())
            left = ends - time.monotonic()
            try:
                with self._http.open(
                    method,
                    self._base + path,
                    headers=headers,
                    content=content,
                    seconds=left,
                    read_seconds=_READ_SECONDS,
                ) as response:
                    if response.status == 401 and attempt == 0 and self._auth.answer(response, scope):
                        continue
                    if response.status not in accepted:
                        raise self._refusal(response.status, what, response)
                    return response.status, response.headers
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
        raise AssertionError("unreachable")

    def _read_document(
        self, path: str, scope: str, limit: int, headers: dict[str, str], *, what: str, redirects: int = 0
    ) -> tuple[OpenAnswer, bytes]:
        """Read a whole document. All tries and the reading share ``limits.document_seconds``."""
        ends = self._document_ends()
        with self._open(path, scope, headers, what=what, redirects=redirects, tries_end=ends, ends=ends) as answer:
            try:
                return answer, answer.body(limit)
            except AnswerTooLarge:
                raise LimitExceeded(f"{self.host}: {what} is larger than {limit} bytes") from None
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error

    def _document_ends(self) -> float:
        return min(self.ends, time.monotonic() + self.settings.limits.document_seconds)

    @contextmanager
    def _open(
        self,
        path: str,
        scope: str,
        headers: dict[str, str],
        *,
        what: str,
        redirects: int,
        tries_end: float,
        ends: float,
        method: str = "GET",
    ) -> Iterator[OpenAnswer]:
        """Yield a successful answer with an unread body. Authenticates, follows redirects, and retries as allowed.

        No try begins after ``tries_end``; the answer is read until ``ends``.
        """
        url, hops, challenged = self._base + path, 0, False
        tries = 0
        while True:
            tries += 1
            # Only the registry itself gets the Authorization header, never the storage service that it redirects to.
            ours = self._is_own(urlsplit(url)) and urlsplit(url).scheme == urlsplit(self._base).scheme
            authorization = self._auth.header(scope) if ours else None
            sent = {**headers, **({"Authorization": authorization} if authorization else {})}
            if ours and self.access.proof_key:
                sent[pull_proof.HEADER] = pull_proof.make(self.access.proof_key.reveal(), self.host, time.time())
            with ExitStack() as stack:
                left = tries_end - time.monotonic()
                if left <= 0:
                    raise RemoteError(f"{self.host} did not answer in time for {what}", reason="registry_timeout")
                try:
                    opened = self._http.open(
                        method,
                        url,
                        headers=sent,
                        seconds=ends - time.monotonic(),
                        header_seconds=left,
                        read_seconds=_READ_SECONDS,
                    )
                    response = stack.enter_context(opened)
                except httpx.HTTPError as error:
                    fault = self._unreachable(error)
                    if not fault.retryable or not self._may_wait(tries, None, tries_end):
                        raise fault from error
                    continue
                status = response.status
                if ours:
                    self.advised_pause = politeness.advised_pause(response.headers, time.time())
                if status in (200, 206) or (status == 304 and "If-None-Match" in headers):
                    # ``Accept-Encoding: identity`` was sent. Decompressing here would hash other bytes than the digest
                    # covers.
                    if response.encoding != "identity":
                        raise RemoteError(
                            f"{self.host} sent a compressed answer although none was requested", retryable=False
                        )
                    yield response
                    return
                # Once: a registry that repeats its challenge has refused the token that we just got.
                if status == 401 and ours and not challenged:
                    challenged = True
                    if self._auth.answer(response, scope):
                        continue
                if status in (301, 302, 303, 307, 308) and redirects:
                    hops += 1
                    url = self._next(url, response, hops, redirects)
                    continue
                if (status == 429 or status >= 500) and self._may_wait(
                    tries, response.headers.get("Retry-After"), tries_end
                ):
                    continue
                raise self._refusal(status, what, response)

    def _next(self, url: str, response: OpenAnswer, hops: int, redirects: int) -> str:
        parts = split_address(response.headers.get("Location", ""), url)
        if hops > redirects or parts is None or (parts.scheme == "http" and not self.access.insecure):
            raise RemoteError(
                f"{self.host} redirects too often or to plain HTTP", reason="redirect_refused", retryable=False
            )
        return parts.geturl()

    def _may_wait(self, tries: int, retry_after: str | None, tries_end: float) -> bool:
        """Wait before the next try. Returns False if no further try is allowed, by number or by time."""
        requested = politeness.retry_after(retry_after, time.time()) or 0.0
        # Jitter: many workers that were limited at the same moment must not return at the same moment.
        pause = min(_MAX_WAIT, max(requested, 0.5 * 2**tries)) * random.uniform(0.8, 1.2)
        if tries >= self.tries or time.monotonic() + pause >= tries_end:
            return False
        self.sleep(pause)
        return True

    def _refusal(self, status: int, what: str, response: OpenAnswer) -> ScannerError:
        # Registries that do not know the call answer it so. As in go-containerregistry, the tag is read then.
        if status == 404 or (what == _REFERRERS and status in _NO_SUCH_CALL):
            return NotFoundError(f"{self.host} has no {what}", hint="check repository and tag")
        if status in (401, 403):
            known = self._auth.used_credentials
            message = f"{self.host} refused {'our credentials' if known else 'access without credentials'} for {what}"
            return RemoteError(
                message, reason="registry_auth_refused", hint=f"docker login {self.host}", retryable=False
            )
        if status == 429:
            return RemoteError(
                f"{self.host} is limiting our requests",
                reason="registry_rate_limited",
                retry_after=politeness.retry_after(response.headers.get("Retry-After"), time.time()),
            )
        if status == 405:
            return RemoteError(f"{self.host} refuses this method for {what}", reason="method_refused", retryable=False)
        return RemoteError(f"{self.host} answered {status} for {what}", retryable=status >= 500)

    def _unreachable(self, error: httpx.HTTPError) -> RemoteError:
        cause = tls_error(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteError(
                f"{self.host}: its certificate is not trusted: {cause.verify_message}",
                reason="tls_untrusted",
                hint=certificate_hint(cause, "pass its CA certificate with --ca-file"),
                retryable=False,
            )
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
            return RemoteError(
                f"{self.host} uses plain HTTP",
                reason="tls_required",
                hint=f"use --insecure-registry {self.host} to accept that",
                retryable=False,
            )
        if isinstance(error, httpx.TimeoutException):
            return RemoteError(f"{self.host} did not answer in time", reason="registry_timeout")
        return RemoteError(f"cannot reach {self.host}: {network_reason(error)}", reason="registry_unreachable")


def _scope(reference: Reference) -> str:
    return f"repository:{reference.repository}:pull"
