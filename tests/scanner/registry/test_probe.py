"""What a probe asks and what it makes of the answers, right and wrong: doing no harm, following nobody, believing
nothing unclear.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from scanner.config import Secret, Settings
from scanner.model.finding import Incomplete
from scanner.model.posture import Access, RegistryFacts
from scanner.registry.auth import Credentials, CredentialStore
from scanner.registry.client import Access as Way
from scanner.registry.probe import NO_DIGEST, _product, probe
from tests.scanner.registry.test_client import Liar, liar


def ask(answer: Callable[[Any], None], repository: str = "shop/app", **more: Any) -> tuple[RegistryFacts, Liar]:
    methods: list[str] = []

    def noted(handler: Any) -> None:
        methods.append(f"{handler.command} {handler.path}")
        answer(handler)

    with liar(noted) as there:
        store = CredentialStore(
            Settings(), more.pop("given", None) and {there.host: more.pop("credentials")}, personal=False
        )
        facts = probe(
            there.host, Settings(), store, Way(insecure=True, named=True), repository, seconds=more.pop("seconds", 20.0)
        )
        there.seen = [(method, None) for method in methods]
        return facts, there


def error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "pull", "push", "delete"),
    [
        (200, b"{}", Access.ALLOWED, "unclear_answer", Access.ALLOWED),
        (202, b"", "unclear_answer", Access.ALLOWED, Access.ALLOWED),
        (401, error("UNAUTHORIZED"), Access.REFUSED, Access.REFUSED, Access.REFUSED),
        (403, error("DENIED"), Access.REFUSED, Access.REFUSED, Access.REFUSED),
        (404, error("NAME_UNKNOWN"), Access.ALLOWED, "unclear_answer", Access.ALLOWED),
        (404, error("MANIFEST_UNKNOWN"), Access.ALLOWED, "unclear_answer", Access.ALLOWED),
        (404, b"<html>not found</html>", Access.REFUSED, "unclear_answer", "unclear_answer"),
        (405, error("UNSUPPORTED"), "unclear_answer", Access.REFUSED, Access.REFUSED),
        (301, b"", "unclear_answer", "unclear_answer", "unclear_answer"),
        (429, b"", "unclear_answer", "unclear_answer", "unclear_answer"),
        (500, b'{"errors": 7}', "unclear_answer", "unclear_answer", "unclear_answer"),
    ],
)
def test_answers_about_access(status: int, body: bytes, pull: Any, push: Any, delete: Any) -> None:
    facts, _ = ask(lambda h: h.give(status, body) if "/shop/app/" in h.path else h.give(200, b"{}"))
    for found, expected in ((facts.access.pull, pull), (facts.access.push, push), (facts.access.delete, delete)):
        if isinstance(expected, Access):
            assert found is expected
        else:
            assert isinstance(found, Incomplete)
            assert found.reason == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"repositories": ["a/b"]}', Access.ALLOWED),
        (200, b'{"repositories": []}', Access.ALLOWED),
        (200, b'{"repositories": null}', Access.ALLOWED),
        (200, b"<html>", None),
        (200, b"[]", None),
        (401, b"", Access.REFUSED),
        (404, b"", Access.REFUSED),
        (500, b"", None),
    ],
)
def test_answers_about_the_catalog(status: int, body: bytes, expected: Access | None) -> None:
    facts, _ = ask(lambda h: h.give(status, body) if "_catalog" in h.path else h.give(404, error("NAME_UNKNOWN")))
    assert facts.access.catalog is expected if expected else isinstance(facts.access.catalog, Incomplete)


def test_without_a_repository_a_refusal_tells_of_one_door_only() -> None:
    def bearer(h: Any) -> None:
        realm = f'Bearer realm="http://{h.headers["Host"]}/token",service="s"'
        h.give(200, b'{"token": "anybody"}') if h.path.startswith("/token") else h.give(401, WWW_Authenticate=realm)

    facts, _ = ask(bearer, "")
    assert isinstance(facts.access.pull, Incomplete)
    assert facts.access.push is Access.REFUSED
    facts, _ = ask(lambda h: h.give(401, WWW_Authenticate='Basic realm="x"'), "")
    assert facts.access.pull is Access.REFUSED
    facts, _ = ask(lambda h: h.give(200, b"{}") if h.path == "/v2/" else h.give(404, error("NAME_UNKNOWN")), "")
    assert (facts.access.pull, facts.access.delete) == (Access.ALLOWED, Access.ALLOWED)


def test_the_token_that_anybody_gets_is_used() -> None:
    def bearer(h: Any) -> None:
        given = h.headers.get("Authorization")
        if h.path.startswith("/token"):
            h.give(200, json.dumps({"token": "pull-only"}).encode())
        elif given == "Bearer pull-only" and h.command == "GET":
            h.give(200, b'{"tags": ["1"]}')
        else:
            h.give(401, WWW_Authenticate=f'Bearer realm="http://{h.headers["Host"]}/token",service="s"')

    facts, there = ask(bearer)
    assert (facts.access.pull, facts.access.push, facts.access.delete) == (
        Access.ALLOWED,
        Access.REFUSED,
        Access.REFUSED,
    )
    asked = [path for path, _ in there.seen if path.startswith("GET /token")]
    assert any("scope=repository%3Ashop%2Fapp%3Apull%2Cpush" in path for path in asked)
    assert any("scope=registry%3Acatalog%3A%2A" in path for path in asked)


def test_an_upload_is_cancelled_where_it_was_begun_and_nowhere_else() -> None:
    def here(h: Any) -> None:
        h.give(202, Location="/v2/shop/app/blobs/uploads/1?_state=x") if h.command == "POST" else h.give(401)

    _, there = ask(here)
    assert "DELETE /v2/shop/app/blobs/uploads/1?_state=x" in [path for path, _ in there.seen]
    with liar(lambda h: h.give(200)) as stranger:
        for location in (f"http://{stranger.host}/v2/x", "http://[::1/", "//169.254.169.254/x", "http://a\\@b/", ""):
            _, there = ask(lambda h, to=location: h.give(202, Location=to) if h.command == "POST" else h.give(401))
            deleted = [path for path, _ in there.seen if path.startswith("DELETE")]
            assert deleted == [f"DELETE /v2/shop/app/manifests/{NO_DIGEST}"], location
        assert stranger.seen == []


def test_nothing_is_deleted_but_what_cannot_be() -> None:
    _, there = ask(lambda h: h.give(200, b'{"repositories": ["shop/app"], "tags": ["1"]}'))
    changing = [path for path, _ in there.seen if not path.startswith("GET")]
    assert changing == ["POST /v2/shop/app/blobs/uploads/", f"DELETE /v2/shop/app/manifests/{NO_DIGEST}"]


@pytest.mark.parametrize("name", ["../../x", "a/../b", "A", "x?y", "x y", "x" * 300, "a\r\nb"])
def test_a_catalog_names_no_paths(name: str) -> None:
    body = json.dumps({"repositories": [name]}).encode()
    facts, there = ask(lambda h: h.give(200, body), "")
    assert facts.access.repository == ""
    assert all("dockwarden-probe/does-not-exist" in path for path, _ in there.seen if "/manifests/" in path)


def test_an_answer_without_end() -> None:
    def endless(h: Any) -> None:
        h.send_response(200)
        h.end_headers()
        for _ in range(10_000):
            h.wfile.write(b"x" * 65536)

    facts, _ = ask(endless)
    assert isinstance(facts.access.catalog, Incomplete)
    assert isinstance(facts.access.pull, Incomplete)


def test_drips_end_with_the_time_that_was_given() -> None:
    def drip(h: Any) -> None:
        h.send_response(200)
        h.end_headers()
        for _ in range(1000):
            h.wfile.write(b".")
            h.wfile.flush()
            time.sleep(0.02)

    facts, _ = ask(drip, seconds=1.0)
    for found in (facts.hsts, facts.challenges, facts.access.catalog, facts.access.pull, facts.digest, facts.software):
        assert isinstance(found, Incomplete)


def test_texts_from_the_registry_are_cleaned_and_cut() -> None:
    def answer(h: Any) -> None:
        h.give(401, WWW_Authenticate='Basic realm="' + "\x1b[31m" + "r" * 5000 + '"')

    facts, _ = ask(answer)
    assert not isinstance(facts.challenges, Incomplete)
    (challenge,) = facts.challenges
    assert "\x1b" not in challenge.realm
    assert len(challenge.realm) <= 310


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("Nexus/3.1.2 (OSS)", ("Nexus", "3.1.2")),
        ("nginx", ("nginx", "")),
        ("", ("", "")),
        ("Nexus", ("Nexus", "")),
        ("Harbor/2.9", ("Harbor", "2.9")),
    ],
)
def test_what_it_says_it_is(server: str, said: tuple[str, str]) -> None:
    assert _product(httpx.Headers({"Server": server})) == said


def test_the_password_goes_to_questions_that_need_it_only() -> None:
    credentials = Credentials("ci", Secret("correct horse"))
    authorized: list[str] = []

    def answer(h: Any) -> None:
        if h.headers.get("Authorization", "").startswith("Basic"):
            authorized.append(f"{h.command} {h.path}")
            h.give(200, b'{"repositories": ["shop/app"], "tags": []}')
        else:
            h.give(401, WWW_Authenticate='Basic realm="x"')

    facts, _ = ask(answer, "", given=True, credentials=credentials)
    assert facts.access.repository == "shop/app"
    assert authorized == ["GET /v2/_catalog?n=1", "GET /v2/shop/app/tags/list?n=1"]
    assert "correct horse" not in repr(facts)
