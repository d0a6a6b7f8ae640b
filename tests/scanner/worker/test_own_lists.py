"""Polls and imports read a registry's own list: which one it has, what is done without it, and which one was used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret, Settings
from scanner.model.actor import COMMAND_LINE
from scanner.model.scan import ScanState
from scanner.services import reconciliation as use_cases
from scanner.store import jobs, reconciliation, registries, tags
from scanner.store.reconciliation import ListBy
from scanner.store.session import Database
from scanner.worker import reconciliation as slices
from scanner.worker.own_lists import is_repository, namespaces
from tests.databases import migrated_url
from tests.scanner.worker.test_reconciliation import run_slices

KEY = Secret("a secret key for tests, long enough")
DIGEST = "sha256:" + "1" * 64
LIST = "/api/v2.0/repositories"


@dataclass
class Harbor:
    """A registry that says that it is a Harbor. ``listed``: pages of its list; ``catalog``: of ``/v2/_catalog``."""

    listed: Callable[[int], Response]
    catalog: tuple[str, ...] | None = None
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        self.asked.append(request.path)
        if request.path == "/v2/":
            realm = f'Bearer realm="http://{request.host}/service/token",service="harbor-registry"'
            return Response("", 401, {"WWW-Authenticate": realm})
        if request.path == LIST:
            return self.listed(int(request.args["page"]))
        if request.path == "/v2/_catalog":
            names = self.catalog
            return Response("", 401) if names is None else Response(json.dumps({"repositories": names}))
        repository = request.path[4:].partition("/tags/")[0].partition("/manifests/")[0]
        if repository in self.denied:
            return Response("", 401)
        if "/manifests/" in request.path:
            return Response("", headers={"Docker-Content-Digest": DIGEST})
        found = self.tags.get(repository)
        return Response("", 404) if found is None else Response(json.dumps({"tags": found}))


def pages(*pages: tuple[str, ...], **more: Any) -> Callable[[int], Response]:
    def answer(number: int) -> Response:
        names = [{"name": name} for name in pages[number - 1]]
        following = {"Link": f'<{LIST}?page={number + 1}>; rel="next"'} if number < len(pages) else {}
        return Response(json.dumps(names), headers=following, **more)

    return answer


@dataclass
class Polled:
    database: Database
    settings: Settings
    registry_id: str
    host: str

    def work(self, job_id: str, slices_most: int = 30) -> jobs.JobView:
        return run_slices(self.settings, self.database, job_id, slices_most)

    def poll(self, slices_most: int = 30) -> jobs.JobView:
        with self.database.session() as session:
            found = use_cases.poll(session, COMMAND_LINE, self.registry_id)
        return self.work(found.id, slices_most)

    def view(self) -> reconciliation.PollView:
        with self.database.read() as session:
            return reconciliation.get(session, self.registry_id)

    def know(self, *names: str) -> None:
        """Enter repositories into the tag ledger."""
        with self.database.session() as session:
            for name in names:
                tags.note(session, f"{self.host}/{name}", "1", DIGEST, "webhook:harbor")


@pytest.fixture
def polled(
    settings: Settings, tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Polled]:
    monkeypatch.setattr(slices, "_GRACE_SECONDS", 0.0)
    database = Database(migrated_url("sqlite", tmp_path))
    host = f"localhost:{httpserver.port}"
    with database.session() as session:
        registry_id = registries.add(session, host, KEY, insecure=True).id
    yield Polled(database, replace(settings, secret_key=KEY), registry_id, host)
    database.engine.dispose()


def serve(server: HTTPServer, there: Harbor) -> Harbor:
    for method in ("GET", "HEAD"):
        server.expect_request(re.compile("^/"), method=method).respond_with_handler(there)
    return there


def test_the_own_list_is_read_and_what_only_the_ledger_has_follows(polled: Polled, httpserver: HTTPServer) -> None:
    there = Harbor(pages(("shop/a", "shop/b"), ("shop/c", "shop/hidden")), ("shop/x",), denied=frozenset({"shop/gone"}))
    there.tags = dict.fromkeys(("shop/a", "shop/b", "shop/c", "shop/hidden", "shop/unlisted", "shop/x"), ("1",))
    serve(httpserver, there)
    polled.know("shop/b", "shop/unlisted", "shop/gone", "shop/deleted")
    done = polled.poll()
    assert done.state is ScanState.DONE
    former = "2 former repositories not shown by the registry"
    assert done.message == f"5 tags in 5 repositories; 3 tags seen for the first time; {former}"
    view = polled.view()
    assert (view.listed_by.id, view.listed_by.title, view.listed_by.note) == ("harbor", "the API of Harbor", "")
    assert view.problems == ()
    assert "/v2/_catalog" not in there.asked
    assert there.asked.count("/v2/shop/b/tags/list") == 1, "a repository was walked twice"


REFUSALS = {
    "refused": (Response("", 403), "does not list repositories for us"),
    "not there": (Response("", 404), "has no such list"),
    "empty": (Response("[]"), "it lists no repository"),
}


@pytest.mark.parametrize("what", REFUSALS)
@pytest.mark.parametrize("catalog", [("shop/a",), None])
def test_without_its_own_list_the_next_source_is_used_and_named(
    what: str, catalog: tuple[str, ...] | None, polled: Polled, httpserver: HTTPServer
) -> None:
    answer, reason = REFUSALS[what]
    serve(httpserver, Harbor(lambda page: answer, catalog, {"shop/a": ("1",)}))
    polled.know("shop/a")
    assert polled.poll().message == "1 tag in 1 repository"
    view = polled.view()
    assert view.listed_by.id == ("catalog" if catalog else "known")
    assert reason in view.listed_by.note
    assert view.problems == (), "a list that is not offered is no error"


def choose(polled: Polled, list_by: ListBy) -> None:
    with polled.database.session() as session:
        use_cases.change(session, COMMAND_LINE, polled.registry_id, list_by=list_by)


@pytest.mark.parametrize(
    ("list_by", "message", "listed_by"),
    [
        (ListBy.AUTO, "2 tags in 2 repositories", "harbor"),
        (ListBy.OWN, "2 tags in 2 repositories", "harbor"),
        (ListBy.CATALOG, "1 tag in 1 repository", "catalog"),
        (ListBy.KNOWN, "1 tag in 1 repository", "known"),
    ],
)
def test_an_administrator_chooses_the_list(
    polled: Polled, httpserver: HTTPServer, list_by: ListBy, message: str, listed_by: str
) -> None:
    there = Harbor(pages(("shop/a",)), ("shop/b",), dict.fromkeys(("shop/a", "shop/b", "shop/c"), ("1",)))
    serve(httpserver, there)
    polled.know("shop/c")
    choose(polled, list_by)
    assert polled.poll().message.startswith(message)
    assert (polled.view().listed_by.id, polled.view().listed_by.note) == (listed_by, "")
    assert (LIST in there.asked, "/v2/_catalog" in there.asked) == (listed_by == "harbor", listed_by == "catalog")


@pytest.mark.parametrize(
    ("answer", "list_by", "problem"),
    [
        (Response("", 403), ListBy.OWN, "does not list repositories for us"),
        (Response("", 404), ListBy.OWN, "has no such list"),
        (Response("", 404), ListBy.CATALOG, "refused"),
    ],
)
def test_no_other_list_is_used_than_the_chosen_one(
    polled: Polled, httpserver: HTTPServer, answer: Response, list_by: ListBy, problem: str
) -> None:
    there = serve(httpserver, Harbor(lambda page: answer, None, {"shop/a": ("1",)}))
    polled.know("shop/a")
    choose(polled, list_by)
    done = polled.poll()
    assert done.state is ScanState.FAILED
    assert problem in done.message
    assert "/v2/shop/a/tags/list" not in there.asked
    assert (LIST in there.asked, "/v2/_catalog" in there.asked) == (list_by is ListBy.OWN, list_by is ListBy.CATALOG)


def test_a_chosen_list_without_repositories_is_empty(polled: Polled, httpserver: HTTPServer) -> None:
    serve(httpserver, Harbor(pages(()), ("shop/a",), {"shop/a": ("1",)}))
    choose(polled, ListBy.OWN)
    assert polled.poll().message == "0 tags in 0 repositories"


def test_a_registry_without_a_list_of_its_own_says_so(polled: Polled, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v2/").respond_with_data("")
    choose(polled, ListBy.OWN)
    done = polled.poll()
    assert (done.state, done.reason) == (ScanState.FAILED, "no_own_list")
    assert "has no list of its own" in done.message


def test_another_list_makes_the_next_poll_the_first(polled: Polled, httpserver: HTTPServer) -> None:
    """It may show repositories that the former one did not: their tags are no lost pushes."""
    serve(httpserver, Harbor(pages(("shop/a",)), ("shop/b",), dict.fromkeys(("shop/a", "shop/b"), ("1",))))
    polled.poll()
    assert polled.view().baseline_at is not None
    choose(polled, ListBy.AUTO)
    assert polled.view().baseline_at is not None
    choose(polled, ListBy.CATALOG)
    assert polled.view().baseline_at is None


def test_an_unusable_list_is_an_error_that_is_shown_and_the_catalogue_is_used(
    polled: Polled, httpserver: HTTPServer
) -> None:
    elsewhere = Response('[{"name": "shop/a"}]', headers={"Link": '<http://evil.example/>; rel="next"'})
    serve(httpserver, Harbor(lambda page: elsewhere, ("shop/a",), {"shop/a": ("1",)}))
    polled.know("shop/a")
    assert polled.poll().message == "1 tag in 1 repository; 1 error"
    (problem,) = polled.view().problems
    assert "links to further pages on another host" in problem
    assert polled.view().baseline_at is None, "an incomplete poll is no baseline"


@pytest.mark.parametrize("names", [("shop/a",), ("shop/a", "../etc")])
def test_a_list_without_end_fails_the_poll_and_says_why(
    names: tuple[str, ...], polled: Polled, httpserver: HTTPServer
) -> None:
    there = serve(httpserver, Harbor(pages(*[names] * 99), tags={"shop/a": ("1",)}))
    failed = polled.poll()
    assert (failed.state, failed.message) == (ScanState.FAILED, "the API of Harbor does not end")
    assert there.asked.count(LIST) == 2


def test_a_limit_holds_the_poll_until_it_may_continue(polled: Polled, httpserver: HTTPServer) -> None:
    there = Harbor(lambda page: Response("", 429, {"Retry-After": "60"}), ("shop/x",), {"shop/a": ("1",)})
    serve(httpserver, there)
    polled.know("shop/a")
    held = polled.poll(slices_most=1)
    assert held.state is ScanState.QUEUED
    assert held.parameters["held"]
    there.listed = pages(("shop/a",))
    assert polled.work(held.id).message == "1 tag in 1 repository"
    assert polled.view().listed_by.id == "harbor"


def test_an_import_counts_and_queues_each_repository_of_the_list_once(polled: Polled, httpserver: HTTPServer) -> None:
    serve(httpserver, Harbor(pages(("shop/a",), ("shop/b",)), tags={"shop/a": ("1", "2"), "shop/b": ("1",)}))
    polled.know("shop/b")
    with polled.database.session() as session:
        counted = use_cases.start_import(session, COMMAND_LINE, polled.registry_id, dry_run=True)
    assert polled.work(counted.id).message.startswith("3 tags in 2 repositories")
    with polled.database.session() as session:
        started = use_cases.start_import(session, COMMAND_LINE, polled.registry_id)
    polled.work(started.id, slices_most=8)
    with polled.database.read() as session:
        view = use_cases.last_import(session, COMMAND_LINE, polled.registry_id)
    assert view is not None
    assert (view.phase, view.repositories, view.tags, view.queued) == ("scanning", 2, 3, 3)
    assert view.listed_by.id == "harbor"


def test_the_first_part_of_a_pattern_names_a_namespace() -> None:
    patterns = ("shop/**", "team/app", "shop/x", "sh*p/x", "**", "app", "../x", "UP/x", "/x")
    assert namespaces(patterns) == ("shop", "team")


@pytest.mark.parametrize("name", ["", "../etc", "a b", "a:1", "a@" + DIGEST, "UPPER", "a//b", "http://x/y", "a\n"])
def test_a_name_that_is_no_repository_is_left_out(name: str) -> None:
    assert not is_repository("registry.example", name)
