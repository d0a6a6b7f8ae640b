"""The registry client against a real registry, and against one that lies, leads astray, floods and stalls."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from scanner.config import Limits, Secret, Settings
from scanner.errors import ImageError, LimitExceeded, NotFoundError, RefusedError, RemoteError, ScannerError, UsageError
from scanner.model.filesystem import LayerFacts
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.outbound import resolve, split_address
from scanner.registry.auth import Challenge, Credentials, CredentialStore, parse_challenges
from scanner.registry.client import Access, RegistryClient
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.sources import _Stream
from tests.scanner.registry.archives import GZIP, archive, file, pack
from tests.servers import Registry, free_port

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 2},
        "layers": [],
    }
).encode()
TYPE = "application/vnd.oci.image.manifest.v1+json"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        owner: Liar = self.server.owner  # type: ignore[attr-defined]
        owner.seen.append((self.path, self.headers.get("Authorization")))
        try:
            owner.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_DELETE = do_HEAD = do_GET

    def give(self, status: int = 200, body: bytes = b"", content_type: str = TYPE, **headers: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Liar:
    """A registry that answers as a test says, and remembers who asked with which credentials."""

    answer: Answer
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    host: str = ""


@contextmanager
def liar(answer: Answer) -> Iterator[Liar]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    owner = Liar(answer, host=f"127.0.0.1:{server.server_address[1]}")
    server.owner = owner  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()


def client(host: str, *, credentials: Credentials | None = None, **more: Any) -> RegistryClient:
    settings = Settings(limits=Limits(manifest=64 << 10, token=4096))
    store = CredentialStore(settings, {host: credentials} if credentials else {}, personal=False)
    defaults = {"access": Access(insecure=True), "sleep": lambda seconds: None}
    return RegistryClient(host, settings, store, **{**defaults, **more})


def reference(host: str, digest: Digest | None = None) -> Reference:
    return Reference(host, "shop/app", None if digest else "1", digest)


NAMED = Credentials("ci", Secret("correct horse"))
BASIC = "Basic " + base64.b64encode(b"ci:correct horse").decode()


def refusal(answer: Answer, digest: Digest | None = None) -> ScannerError:
    with liar(answer) as there, client(there.host) as asking, pytest.raises(ScannerError) as caught:
        asking.manifest(reference(there.host, digest))
    return caught.value


def test_a_tag_is_given_the_digest_of_the_bytes_received() -> None:
    with (
        liar(lambda h: h.give(body=MANIFEST, Docker_Content_Digest="sha256:" + "f" * 64)) as there,
        client(there.host) as asking,
    ):
        descriptor, data = asking.manifest(reference(there.host))
    assert (descriptor.digest, data) == (Digest.of(MANIFEST), MANIFEST)


def test_other_bytes_than_those_asked_for() -> None:
    assert refusal(lambda h: h.give(body=MANIFEST), Digest.of(b"other")).reason == "digest_mismatch"


def test_a_manifest_without_end() -> None:
    def endless(h: Handler) -> None:
        h.send_response(200)
        h.send_header("Content-Type", TYPE)
        h.end_headers()
        for _ in range(10_000):
            h.wfile.write(b" " * 65536)

    assert isinstance(refusal(endless), LimitExceeded)


def test_a_compressed_answer_that_nobody_asked_for() -> None:
    assert "compressed" in str(refusal(lambda h: h.give(body=b"\x1f\x8b", Content_Encoding="gzip")))


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (404, "not_found", NotFoundError),
        (401, "registry_auth_refused", RemoteError),
        (403, "registry_auth_refused", RemoteError),
        (400, "registry_error", RemoteError),
        (500, "registry_error", RemoteError),
        (429, "registry_rate_limited", RemoteError),
    ],
)
def test_what_a_status_means(status: int, reason: str, kind: type[ScannerError]) -> None:
    found = refusal(lambda h: h.give(status))
    assert (found.reason, type(found)) == (reason, kind)


def test_it_tries_again_as_long_as_asked_but_not_for_ever() -> None:
    waited: list[float] = []
    with (
        liar(lambda h: h.give(429, Retry_After="3600")) as there,
        client(there.host, sleep=waited.append) as asking,
        pytest.raises(RemoteError),
    ):
        asking.manifest(reference(there.host))
    assert len(waited) == 3
    assert all(seconds <= 24 for seconds in waited)


def test_a_tags_digest_is_asked_for_without_its_manifest() -> None:
    known, seen = Digest.of(MANIFEST), list[str | None]()

    def unchanged(h: Handler) -> None:
        seen.append(f"{h.command} {h.headers.get('If-None-Match')}")
        h.give(304 if h.headers.get("If-None-Match") else 200, ETag=f'"{known}"', Docker_Content_Digest=str(known))

    with liar(unchanged) as there, client(there.host) as asking:
        assert asking.tag_digest(reference(there.host)) == known
        assert asking.tag_digest(reference(there.host), known) == known
    assert seen == ["HEAD None", f'HEAD "{known}"']


@pytest.mark.parametrize("status", [200, 405])
def test_a_registry_without_digests_in_its_headers_is_asked_for_the_manifest(status: int) -> None:
    def silent(h: Handler) -> None:
        h.give(200, MANIFEST) if h.command == "GET" else h.give(status, Docker_Content_Digest="latest")

    with liar(silent) as there, client(there.host) as asking:
        assert asking.tag_digest(reference(there.host)) == Digest.of(MANIFEST)


def test_a_tag_that_is_gone_and_an_unasked_304_are_errors() -> None:
    with liar(lambda h: h.give(404)) as there, client(there.host) as asking, pytest.raises(NotFoundError):
        asking.tag_digest(reference(there.host))
    with liar(lambda h: h.give(304)) as there, client(there.host) as asking, pytest.raises(RemoteError):
        asking.tag_digest(reference(there.host))


def test_pages_of_names_follow_links_on_the_same_host_only_and_never_in_a_circle() -> None:
    links = {"n=100": "/v2/_catalog?n=100&last=b", "n=100&last=b": "https://elsewhere.example/v2/_catalog"}

    def pages(h: Handler) -> None:
        query = h.path.partition("?")[2]
        link = {"Link": f'<{links[query]}>; rel="next"'} if query in links else {}
        h.give(200, json.dumps({"repositories": ["a", 7, "b"]}).encode(), "application/json", **link)

    with liar(pages) as there, client(there.host) as asking:
        first = asking.catalog_page()
        assert first.names == ("a", "b")
        assert first.following == "/v2/_catalog?n=100&last=b"
        assert asking.catalog_page(first.following).following == ""
        links["n=100"] = "/v2/_catalog?n=100"
        assert asking.catalog_page().following == ""


def test_a_rate_limit_that_is_nearly_used_up_is_told() -> None:
    headers = {"RateLimit_Limit": "100", "RateLimit_Remaining": "3", "RateLimit_Reset": "17"}
    with liar(lambda h: h.give(200, MANIFEST, **headers)) as there, client(there.host) as asking:
        assert asking.advised_pause == 0
        asking.manifest(reference(there.host))
        assert asking.advised_pause == 17


def test_a_passing_fault_is_passed_over() -> None:
    calls: list[int] = []

    def flaky(h: Handler) -> None:
        calls.append(1)
        h.give(503) if len(calls) < 3 else h.give(body=MANIFEST)

    with liar(flaky) as there, client(there.host) as asking:
        assert asking.manifest(reference(there.host))[1] == MANIFEST


def test_manifests_are_not_redirected() -> None:
    assert (
        refusal(lambda h: h.give(302, Location="http://169.254.169.254/latest/meta-data/")).reason == "registry_error"
    )


def blob(there: Liar) -> bytes:
    with client(there.host, credentials=NAMED) as asking:
        return asking.blob(reference(there.host), Digest.of(b"x"), 1000)


def test_a_redirect_takes_no_credentials_along() -> None:
    with liar(lambda h: h.give(body=b"x")) as elsewhere:

        def guarded(h: Handler) -> None:
            if h.headers.get("Authorization"):
                h.give(307, Location=f"http://{elsewhere.host}/data")
            else:
                h.give(401, WWW_Authenticate='Basic realm="r"')

        with liar(guarded) as there:
            assert blob(there) == b"x"
        assert there.seen[-1][1] == BASIC
        assert elsewhere.seen == [("/data", None)]


def test_redirects_end() -> None:
    with liar(lambda h: h.give(302, Location=h.path)) as there, pytest.raises(RemoteError) as caught:
        blob(there)
    assert caught.value.reason == "redirect_refused"
    assert len(there.seen) <= 5


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/x",
        "http://[fe80::1]/x",
        "http://0.0.0.0/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://2852039166/x",
    ],
)
def test_a_redirect_to_where_nothing_of_ours_goes(target: str) -> None:
    with liar(lambda h: h.give(307, Location=target)) as there, pytest.raises((RefusedError, RemoteError)) as caught:
        blob(there)
    assert caught.value.reason in ("address_refused", "unknown_host")


def test_a_token_is_fetched_with_credentials_from_ones_own_realm_only() -> None:
    with liar(lambda h: h.give(body=b'{"token": "stolen"}')) as thief:

        def confused(h: Handler) -> None:
            good = h.headers.get("Authorization") == "Bearer stolen"
            # localhost is another name than 127.0.0.1, and so another host.
            realm = f'Bearer realm="http://localhost:{thief.host.rpartition(":")[2]}/token",service="s"'
            h.give(body=b"x") if good else h.give(401, WWW_Authenticate=realm)

        with liar(confused) as there:
            assert blob(there) == b"x"
    assert [credentials for _, credentials in thief.seen] == [None]


@pytest.mark.parametrize(
    ("trusted", "received"), [("localhost:PORT", BASIC), ("localhost", None), ("gitlab.example.com", None), ("", None)]
)
def test_a_configured_token_service_gets_the_credentials(trusted: str, received: str | None) -> None:
    """A GitLab is the token service of its registry, on another host."""
    with liar(lambda h: h.give(body=b'{"token": "good"}')) as service:
        port = service.host.rpartition(":")[2]

        def challenging(h: Handler) -> None:
            good = h.headers.get("Authorization") == "Bearer good"
            realm = f'Bearer realm="http://localhost:{port}/jwt/auth",service="container_registry"'
            h.give(body=b"x") if good else h.give(401, WWW_Authenticate=realm)

        way = Access(insecure=True, token_service=trusted.replace("PORT", port))
        with liar(challenging) as there, client(there.host, credentials=NAMED, access=way) as asking:
            assert asking.blob(reference(there.host), Digest.of(b"x"), 10) == b"x"
    assert [credentials for _, credentials in service.seen] == [received]


def test_a_token_is_kept_for_its_scope() -> None:
    def bearer(h: Handler) -> None:
        host = h.headers["Host"]
        if h.path.startswith("/token"):
            h.give(body=b'{"access_token": "t", "expires_in": 300}')
        elif h.headers.get("Authorization") == "Bearer t":
            h.give(body=b"x")
        else:
            h.give(
                401, WWW_Authenticate=f'Bearer realm="http://{host}/token",service="s",scope="repository:shop/app:pull"'
            )

    with liar(bearer) as there, client(there.host, credentials=NAMED) as asking:
        for _ in range(3):
            assert asking.blob(reference(there.host), Digest.of(b"x"), 10) == b"x"
    assert [path.partition("?")[0] for path, _ in there.seen].count("/token") == 1
    assert next(credentials for path, credentials in there.seen if path.startswith("/token")) == BASIC


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"no json", b'{"token": 5}', b'{"token": "a\\nb"}', b'{"token": "' + b"x" * 5000 + b'"}']
)
def test_a_token_that_is_none(body: bytes) -> None:
    def bearer(h: Handler) -> None:
        host = h.headers["Host"]
        h.give(body=body) if h.path.startswith("/token") else h.give(
            401, WWW_Authenticate=f'Bearer realm="http://{host}/token"'
        )

    with liar(bearer) as there, pytest.raises(RemoteError):
        blob(there)


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [(500, "", True), (429, "", True), (404, "", False), (403, "registry_auth_refused", False)],
)
def test_a_token_service_that_gives_none(status: int, reason: str, retryable: bool) -> None:
    def bearer(h: Handler) -> None:
        realm = f'Bearer realm="http://{h.headers["Host"]}/token"'
        h.give(status) if h.path.startswith("/token") else h.give(401, WWW_Authenticate=realm)

    with liar(bearer) as there, pytest.raises(RemoteError) as refused:
        blob(there)
    assert refused.value.retryable is retryable
    assert not reason or refused.value.reason == reason


@pytest.mark.parametrize(
    "realm", ["http://ann@r.example.com/token", "ftp://r.example.com/token", "no address", "http://["]
)
def test_a_realm_that_gets_nothing_of_ours(realm: str) -> None:
    with liar(lambda h: h.give(401, WWW_Authenticate=f'Bearer realm="{realm}"')) as there:
        with pytest.raises(RemoteError):
            blob(there)
        assert all(credentials is None for _, credentials in there.seen)


def test_an_identity_token_is_exchanged_for_an_access_token() -> None:
    """What ``docker login`` keeps of a registry whose token service speaks OAuth 2 (distribution-spec, oauth)."""
    forms: list[dict[str, list[str]]] = []

    def oauth(h: Handler) -> None:
        if h.path.startswith("/token"):
            forms.append(parse_qs(h.rfile.read(int(h.headers["Content-Length"])).decode()))
            h.give(body=b'{"access_token": "t"}')
        elif h.headers.get("Authorization") == "Bearer t":
            h.give(body=b"x")
        else:
            h.give(401, WWW_Authenticate=f'Bearer realm="http://{h.headers["Host"]}/token",service="s"')

    identity = Credentials("", Secret(""), Secret("refresh me"))
    with liar(oauth) as there, client(there.host, credentials=identity) as asking:
        assert asking.blob(reference(there.host), Digest.of(b"x"), 10) == b"x"
    (form,) = forms
    assert (form["grant_type"], form["refresh_token"], form["service"]) == (["refresh_token"], ["refresh me"], ["s"])


def test_nobody_at_an_address_is_tried_again_and_then_said() -> None:
    waited: list[float] = []
    with client(f"127.0.0.1:{free_port()}", sleep=waited.append) as asking, pytest.raises(RemoteError) as refused:
        asking.ping()
    assert refused.value.reason == "registry_unreachable"
    assert waited


def test_a_registry_that_speaks_no_tls_says_how_to_accept_that() -> None:
    store = CredentialStore(Settings(), {}, personal=False)
    with (
        liar(lambda h: h.give()) as there,
        RegistryClient(there.host, Settings(), store, Access(named=True)) as asking,
        pytest.raises(RemoteError) as refused,
    ):
        asking.ping()
    assert refused.value.reason == "tls_required"
    assert f"--insecure-registry {there.host}" in refused.value.hint


def test_a_registry_whose_certificate_nobody_vouches_for(registry: Registry) -> None:
    settings = Settings()
    store = CredentialStore(settings, {}, personal=False)
    with (
        RegistryClient(registry.host, settings, store, Access(named=True)) as asking,
        pytest.raises(RemoteError) as refused,
    ):
        asking.ping()
    assert (refused.value.reason, refused.value.hint) == ("tls_untrusted", "pass its CA certificate with --ca-file")


def test_a_registry_that_has_no_time_left_is_not_asked() -> None:
    with liar(lambda h: h.give(body=MANIFEST)) as there, client(there.host, ends=0.0) as asking:
        with pytest.raises(RemoteError) as refused:
            asking.manifest(reference(there.host))
        assert there.seen == []
    assert refused.value.reason == "registry_timeout"


def test_tags_come_over_several_pages_and_no_more_than_wanted() -> None:
    def tags(h: Handler) -> None:
        page = int(h.path.partition("last=")[2] or 0)
        names = json.dumps({"tags": [f"{page}a", f"{page}b", 3]}).encode()
        h.give(body=names, Link=f'</v2/shop/app/tags/list?last={page + 1}>; rel="next"')

    with liar(tags) as there, client(there.host) as asking:
        assert asking.tags("shop/app", 4) == ["0a", "0b", "1a", "1b"]
        assert len(asking.tags("shop/app")) == 200, "a list without end is read over 100 pages"


def test_a_page_of_referrers_that_was_announced_and_is_gone() -> None:
    def gone(h: Handler) -> None:
        if "page=" in h.path:
            h.give(404)
        else:
            link = f'</v2/shop/app/referrers/{SUBJECT}?page=1>; rel="next"'
            h.give(body=listing("a/b"), content_type="application/vnd.oci.image.index.v1+json", Link=link)

    with liar(gone) as there, client(there.host) as asking, pytest.raises(RemoteError, match="that it linked to"):
        asking.referrers(reference(there.host), SUBJECT)


def test_a_manifest_in_place_of_the_list_of_referrers() -> None:
    with liar(lambda h: h.give(body=MANIFEST)) as there, client(there.host) as asking, pytest.raises(ImageError):
        asking.referrers(reference(there.host), SUBJECT)


def test_a_wrong_password_is_said_without_saying_it() -> None:
    with liar(lambda h: h.give(401, WWW_Authenticate='Basic realm="r"')) as there, pytest.raises(RemoteError) as caught:
        blob(there)
    assert "refused our credentials" in str(caught.value)
    assert "correct horse" not in str(caught.value) + repr(caught.value) + repr(NAMED)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="a, b"', [Challenge("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://a/t",service=s, Basic realm=x',
            [Challenge("bearer", {"realm": "https://a/t", "service": "s"}), Challenge("basic", {"realm": "x"})],
        ),
        ('BEARER REALM="a\\"b"', [Challenge("bearer", {"realm": 'a"b'})]),
        ("", []),
        ("=,=,", []),
        ("Basic", [Challenge("basic", {})]),
        ("x" * 100_000, [Challenge("x" * 8192, {})]),
    ],
)
def test_challenges(header: str, found: list[Challenge]) -> None:
    assert parse_challenges(header) == found


def test_referrers_by_the_fallback_tag() -> None:
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": TYPE, "digest": "sha256:" + "1" * 64, "size": 3, "artifactType": "a/b"}],
        }
    ).encode()
    subject = Digest.of(b"subject")

    def fallback(h: Handler) -> None:
        h.give(body=index, content_type="application/vnd.oci.image.index.v1+json") if h.path.endswith(
            f"manifests/sha256-{subject.hex}"
        ) else h.give(404)

    with liar(fallback) as there, client(there.host) as asking:
        assert [d.artifact_type for d in asking.referrers(reference(there.host), subject)] == ["a/b"]
        assert asking.referrers(reference(there.host), subject, "c/d") == []
        assert asking.referrers(reference(there.host), Digest.of(b"another")) == []


def listing(*kinds: str) -> bytes:
    items = [
        {"mediaType": TYPE, "digest": str(Digest.of(f"{n}{kind}".encode())), "size": 3, "artifactType": kind}
        for n, kind in enumerate(kinds)
    ]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": items}
    return json.dumps(index).encode()


SUBJECT = Digest.of(b"subject")


def paged(pages: list[bytes], **more: str) -> Callable[[Handler], None]:
    """A registry that lists referrers page by page, as distribution-spec 1.1 allows."""

    def answer(h: Handler) -> None:
        number = int(h.path.partition("?page=")[2] or 0)
        headers = {"Link": f'<{more.get("base", "")}/v2/shop/app/referrers/{SUBJECT}?page={number + 1}>; rel="next"'}
        last = number == len(pages) - 1 and "endless" not in more
        h.give(
            body=pages[min(number, len(pages) - 1)],
            content_type="application/vnd.oci.image.index.v1+json",
            **({} if last else headers),
        )

    return answer


def test_every_page_of_referrers_is_read() -> None:
    pages = [listing(*["sbom"] * 64), listing(*["sbom"] * 100), listing("signature")]
    with liar(paged(pages)) as there, client(there.host) as asking:
        found = asking.referrers(reference(there.host), SUBJECT)
        assert [d.artifact_type for d in found].count("signature") == 1
        assert len(found) == 165
        assert len(asking.referrers(reference(there.host), SUBJECT, "signature")) == 1


@pytest.mark.parametrize("more", [{"endless": "yes"}, {"base": "http://localhost:9"}], ids=["no end", "elsewhere"])
def test_a_list_of_referrers_that_cannot_be_read_to_its_end_is_not_known(more: dict[str, str]) -> None:
    """What is not read could be a signature, so it is no answer that there is none."""
    with liar(paged([listing("sbom"), listing("sbom")], **more)) as there, client(there.host) as asking:
        with pytest.raises((LimitExceeded, RemoteError)):
            asking.referrers(reference(there.host), SUBJECT)
        assert len(there.seen) <= 101


def test_more_referrers_than_are_read() -> None:
    few = Settings(limits=Limits(referrers=10))

    def small_client(host: str) -> RegistryClient:
        return RegistryClient(host, few, CredentialStore(few, {}, personal=False), Access(insecure=True))

    with liar(paged([listing(*["sbom"] * 9), listing("sbom", "signature")])) as there:
        with small_client(there.host) as asking, pytest.raises(LimitExceeded):
            asking.referrers(reference(there.host), SUBJECT)
        with small_client(there.host) as asking:
            assert len(asking.referrers(reference(there.host), SUBJECT, "signature")) == 1, "the type comes first"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml"])
def test_a_web_page_in_place_of_referrers_is_a_registry_without_them(kind: str) -> None:
    def page(h: Handler) -> None:
        if h.path.endswith(f"manifests/sha256-{SUBJECT.hex}"):
            h.give(body=listing("a/b"), content_type="application/vnd.oci.image.index.v1+json")
        else:
            h.give(body=b"<!doctype html><title>Registry</title>", content_type=kind)

    with liar(page) as there, client(there.host) as asking:
        assert [d.artifact_type for d in asking.referrers(reference(there.host), SUBJECT)] == ["a/b"]


def test_a_web_page_in_place_of_a_later_page_of_referrers_is_not_known() -> None:
    """It may list the signature. The tag has none, and an empty answer would mean that the image is not signed."""

    def page(h: Handler) -> None:
        if "page=2" in h.path:
            h.give(body=b"<!doctype html><title>Sign in</title>", content_type="text/html")
        else:
            h.give(body=listing(), content_type="application/json", Link=f"<{h.path}?page=2>; rel=next")

    with (
        liar(page) as there,
        client(there.host) as asking,
        pytest.raises(RemoteError, match="sent a page of referrers as text/html"),
    ):
        asking.referrers(reference(there.host), SUBJECT)


@pytest.mark.parametrize("status", [400, 404, 405, 406])
def test_a_registry_that_does_not_know_the_call_is_one_without_it(status: int) -> None:
    def older(h: Handler) -> None:
        if h.path.endswith(f"manifests/sha256-{SUBJECT.hex}"):
            h.give(body=listing("a/b"), content_type="application/vnd.oci.image.index.v1+json")
        else:
            h.give(status)

    with liar(older) as there, client(there.host) as asking:
        assert [d.artifact_type for d in asking.referrers(reference(there.host), SUBJECT)] == ["a/b"]


NEXT = f"/v2/shop/app/referrers/{SUBJECT}?a=1;b=2,3&page=1"


@pytest.mark.parametrize(
    "link",
    [
        "<{next}>;rel=next",
        '<{next}>; REL="Next"',
        '<{next}>; title="a, b; <c>"; rel="last next"',
        '</v2/other>; rel="prev", <{next}>; rel="next"',
        f"<{{next}}>; {'b' * 90_000}; rel=next",  # not looked at from each of its characters, which takes minutes
        "<http://{host}{next}>; rel=next",
        "<https://{host}{next}>; rel=next",  # a registry behind a proxy that does not know how it is asked
    ],
)
def test_a_next_page_is_found_in_every_form_of_the_header(link: str) -> None:
    """A page that is not found could hold a signature."""

    def answer(h: Handler) -> None:
        headers = {} if "page=1" in h.path else {"Link": link.format(next=NEXT, host=h.headers["Host"])}
        kind = "application/vnd.oci.image.index.v1+json"
        h.give(body=listing("signature" if "page=1" in h.path else "sbom"), content_type=kind, **headers)

    with liar(answer) as there, client(there.host) as asking:
        found = asking.referrers(reference(there.host), SUBJECT)
    assert [d.artifact_type for d in found] == ["sbom", "signature"]


@pytest.mark.parametrize(
    ("link", "own"),
    [
        ("https://registry.example.com:443/x", True),
        ("https://REGISTRY.example.com/x", True),
        ("http://registry.example.com/x", True),
        ("/x", True),
        ("https://registry.example.com:8443/x", False),
        ("https://registry.example.com.evil.example/x", False),
        ("https://registry.example.com@evil.example/x", False),
    ],
)
def test_which_pages_are_the_registrys_own(link: str, own: bool) -> None:
    settings = Settings()
    with RegistryClient("registry.example.com", settings, CredentialStore(settings, {}, personal=False)) as asking:
        target = split_address(link, "https://registry.example.com")
        assert target is not None
        assert asking._is_own(target) is own


def test_tags_do_not_leave_the_host() -> None:
    with (
        liar(
            lambda h: h.give(body=b'{"tags": ["1", "2"]}', Link='<http://localhost:9/v2/x/tags/list>; rel="next"')
        ) as there,
        client(there.host) as asking,
    ):
        assert asking.tags("shop/app") == ["1", "2"]
    assert len(there.seen) == 1


def test_a_real_registry(registry: Registry, sample_layouts: Path) -> None:
    registry.push(f"oci:{sample_layouts / 'shop/good'}:1.4.2", "client/good:1")
    assert registry.authority is not None
    settings = Settings(ca_file=registry.authority.file)
    store = CredentialStore(
        settings, {registry.host: Credentials(registry.username, Secret(registry.password))}, personal=False
    )
    with RegistryClient(registry.host, settings, store) as asking:
        asking.ping()
        target = Reference.parse(f"{registry.host}/client/good:1")
        descriptor, data = asking.manifest(target)
        assert descriptor.digest.matches(data)
        assert asking.tags("client/good") == ["1"]
        assert asking.referrers(target, descriptor.digest) == []
        layer = json.loads(data)["layers"][0]
        with asking.stream_blob(
            target, Descriptor(layer["mediaType"], Digest(layer["digest"]), layer["size"])
        ) as chunks:
            assert Digest(layer["digest"]).matches(b"".join(chunks))
        with pytest.raises(NotFoundError, match="has no"):
            asking.manifest(Reference.parse(f"{registry.host}/client/good:nosuch"))
        with pytest.raises((ImageError, NotFoundError)):
            asking.blob(target, Digest.of(b"nosuch"), 10)


@pytest.mark.parametrize(
    ("address", "private", "loopback"),
    [
        ("169.254.169.254", True, True),
        ("::ffff:169.254.169.254", True, True),
        ("0.0.0.0", True, True),
        ("224.0.0.1", True, True),
        ("10.0.0.1", False, True),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("64:ff9b::a9fe:a9fe", True, True),
    ],
)
def test_addresses_that_are_refused(address: str, private: bool, loopback: bool) -> None:
    with pytest.raises(RefusedError) as caught:
        resolve(address, 443, Settings(allow_private_addresses=private, allow_loopback_addresses=loopback))
    assert caught.value.reason == "address_refused"


def config(tmp_path: Path, document: object) -> CredentialStore:
    file = tmp_path / "config.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return CredentialStore(Settings(docker_config=file))


AUTH = base64.b64encode(b"ann:pass:word").decode()


@pytest.mark.parametrize("key", ["r.example.com", "https://r.example.com", "https://r.example.com/v2/"])
def test_credentials_of_a_docker_config(tmp_path: Path, key: str) -> None:
    found = config(tmp_path, {"auths": {key: {"auth": AUTH}}}).find("r.example.com")
    assert found is not None
    assert (found.username, found.password.reveal()) == ("ann", "pass:word")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"username": "ann", "password": "secret"}, ("ann", "secret", "")),
        ({"identitytoken": "t"}, ("", "", "t")),
        ({"auth": AUTH, "identitytoken": "t"}, ("ann", "pass:word", "t")),
        ({}, None),
        ("text", None),
    ],
)
def test_other_forms_of_a_docker_config(tmp_path: Path, entry: object, found: tuple[str, str, str] | None) -> None:
    known = config(tmp_path, {"auths": {"r.example.com": entry}, "credHelpers": []}).find("r.example.com")
    told = known and (known.username, known.password.reveal(), known.identity_token.reveal())
    assert told == found


def test_credentials_of_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-tests"
    helper.write_text(
        '#!/bin/sh\nread server\n[ "$server" = r.example.com ] || exit 1\necho \'{"Username": "bob", '
        '"Secret": "s3"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = config(tmp_path, {"credHelpers": {"r.example.com": "tests"}}).find("r.example.com")
    assert found is not None
    assert (found.username, found.password.reveal()) == ("bob", "s3")
    assert config(tmp_path, {"credsStore": "tests"}).find("other.example.com") is None


@pytest.mark.parametrize(
    "document",
    [
        "{",
        [],
        {"auths": {"r.example.com": {"auth": "!!"}}},
        {"auths": {"r.example.com": {"auth": base64.b64encode(b"no colon").decode()}}},
        {"credHelpers": {"r.example.com": "../../bin/sh"}},
        {"credHelpers": {"r.example.com": "nosuchhelper"}},
    ],
)
def test_a_config_that_is_broken_is_said(tmp_path: Path, document: object) -> None:
    with pytest.raises(UsageError):
        config(tmp_path, document).find("r.example.com")


def test_no_config_is_nobody(tmp_path: Path) -> None:
    assert CredentialStore(Settings(docker_config=tmp_path / "nothing")).find("r.example.com") is None


LARGE = archive(*(file(f"data/{number}", random.Random(number).randbytes(500_000)) for number in range(5)))


def read_from(host: str) -> LayerFacts:
    """Read the layer as a scan does, which fetches a layer of this size in another thread."""
    layer = Descriptor(GZIP, Digest.of(pack(LARGE, GZIP)), len(pack(LARGE, GZIP)))
    with (
        client(host) as asking,
        asking.stream_blob(reference(host), layer) as chunks,
    ):
        return read_layer(
            _Stream(chunks),
            GZIP,
            digest=layer.digest,
            size=layer.size,
            diff_id=Digest.of(LARGE),
            limits=Limits(),
            wants=ContentWants(),
        )


def test_a_large_layer_is_fetched_in_another_thread() -> None:
    with liar(lambda h: h.give(body=pack(LARGE, GZIP))) as there:
        facts = read_from(there.host)
    assert [entry.path for entry in facts.entries] == [f"data/{number}" for number in range(5)]


def test_a_large_layer_that_breaks_off_is_a_fault_of_the_registry() -> None:
    def break_off(h: Handler) -> None:
        whole = pack(LARGE, GZIP)
        h.give(body=whole[: len(whole) // 2], Content_Length=str(len(whole)))
        h.close_connection = True

    with liar(break_off) as there, pytest.raises(RemoteError):
        read_from(there.host)
