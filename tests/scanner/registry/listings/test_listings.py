"""The own lists of registries: the documented requests, page after page, and hostile answers that become errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import NotFoundError, RefusedError, RemoteError, ScannerError
from scanner.registry.auth import Credentials
from scanner.registry.cloud.base import CloudAccess
from scanner.registry.listings.base import Api, Listing, ListingRequest, Place
from tests.scanner.registry.cloud.fakes import SECRET, hostile
from tests.scanner.registry.cloud.test_google import FILE as ACCOUNT

LISTINGS = catalog.listings()
ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
PACKAGES = "/v1/projects/shop-prod/locations/europe/repositories"
BEARER = {"Authorization": f"Bearer {SECRET}"}
ANY_PATH = re.compile("^/")
Answer = tuple[Any, dict[str, str]]


def credentials(username: str) -> Credentials:
    return Credentials(username, Secret(SECRET))


@dataclass(frozen=True)
class Case:
    """What is asked, what the fake answers by request line, and the names that follow."""

    asked: ListingRequest
    answers: Mapping[str, Answer]
    names: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)


def named(*names: str, member: str = "name", **more: Any) -> list[dict[str, Any]]:
    return [{member: name, **more} for name in names]


CASES = {
    "harbor": Case(
        ListingRequest("harbor.example", credentials("robot$ci")),
        {
            "GET /api/v2.0/repositories?page=1&page_size=100": (
                named("library/app", "shop/cart"),
                {"X-Total-Count": "103", "Link": '</api/v2.0/repositories?page=2&page_size=100>; rel="next"'},
            ),
            "GET /api/v2.0/repositories?page=2&page_size=100": (named("shop/a/b"), {"X-Total-Count": "103"}),
        },
        ("library/app", "shop/cart", "shop/a/b"),
        {"Authorization": "Basic cm9ib3QkY2k6" + "czNjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU="},
    ),
    "quay": Case(
        ListingRequest("quay.io", credentials("$oauthtoken"), namespaces=("shop", "infra")),
        {
            "GET /api/v1/repository?namespace=shop&public=true": (
                {"repositories": named("cart", namespace="shop"), "next_page": "gAAA"},
                {},
            ),
            "GET /api/v1/repository?namespace=shop&public=true&next_page=gAAA": ({"repositories": named("pay")}, {}),
            "GET /api/v1/repository?namespace=infra&public=true": ({"repositories": []}, {}),
        },
        ("shop/cart", "shop/pay"),
        BEARER,
    ),
    "dockerhub": Case(
        ListingRequest("docker.io", credentials("Acme"), namespaces=("library", "shop")),
        {
            "POST /v2/auth/token": ({"access_token": SECRET}, {}),
            "GET /v2/namespaces/shop/repositories?page=1&page_size=100": (
                {"next": "HERE/v2/namespaces/shop/repositories?page=2", "results": named("cart")},
                {},
            ),
            "GET /v2/namespaces/shop/repositories?page=2&page_size=100": ({"next": None, "results": named("pay")}, {}),
            "GET /v2/namespaces/acme/repositories?page=1&page_size=100": ({"next": "", "results": named("own")}, {}),
        },
        ("shop/cart", "shop/pay", "acme/own"),
        BEARER,
    ),
    "ghcr": Case(
        ListingRequest("ghcr.io", credentials("Octo"), namespaces=("shop",)),
        {
            "GET /orgs/shop/packages?package_type=container&per_page=100&page=1": (
                named("Cart", "team/pay"),
                {"Link": '<HERE/organizations/1/packages?page=2>; rel="next"'},
            ),
            "GET /orgs/shop/packages?package_type=container&per_page=100&page=2": (named("last"), {}),
            "GET /users/octo/packages?package_type=container&per_page=100&page=1": (named("own"), {}),
        },
        ("shop/cart", "shop/team/pay", "shop/last", "octo/own"),
        BEARER,
    ),
    "gitlab": Case(
        ListingRequest("registry.gitlab.com", credentials("ci")),
        {
            "GET /api/v4/projects?membership=true&order_by=id&sort=asc&pagination=keyset&per_page=100&id_after=0": (
                [{"id": 3}, {"id": 7, "container_registry_access_level": "disabled"}, {"id": 9}, {"id": 11}],
                {"Link": '<HERE/api/v4/projects?id_after=11>; rel="next"'},
            ),
            "GET /api/v4/projects/3/registry/repositories?page=1&per_page=100": (
                named("shop/cart", "shop/cart/base", member="path"),
                {"Link": '<HERE/api/v4/projects/3/registry/repositories?page=2>; rel="next"'},
            ),
            "GET /api/v4/projects/3/registry/repositories?page=2&per_page=100": (named("shop/x", member="path"), {}),
            # 9 answers 404: its registry is off.
            "GET /api/v4/projects/11/registry/repositories?page=1&per_page=100": (named("shop/y", member="path"), {}),
            "GET /api/v4/projects?membership=true&order_by=id&sort=asc&pagination=keyset&per_page=100&id_after=11": (
                [],
                {},
            ),
        },
        ("shop/cart", "shop/cart/base", "shop/x", "shop/y"),
        {"PRIVATE-TOKEN": SECRET},
    ),
    "ecr": Case(
        ListingRequest(ECR_HOST, cloud=CloudAccess("ecr", ECR_HOST, "AKIDEXAMPLE00000", Secret(SECRET))),
        {
            'POST / {"registryId": "123456789012", "maxResults": 1000}': (
                {"repositories": named("shop/cart", member="repositoryName"), "nextToken": "t+/="},
                {},
            ),
            'POST / {"registryId": "123456789012", "maxResults": 1000, "nextToken": "t+/="}': (
                {"repositories": named("base", member="repositoryName")},
                {},
            ),
        },
        ("shop/cart", "base"),
        {"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories"},
    ),
    "gar": Case(
        ListingRequest("europe-docker.pkg.dev", credentials("oauth2accesstoken"), namespaces=("shop-prod",)),
        {
            f"GET {PACKAGES}?pageSize=1000": (
                {
                    "repositories": [
                        {"name": f"{PACKAGES[4:]}/images", "format": "DOCKER"},
                        {"name": f"{PACKAGES[4:]}/jars", "format": "MAVEN"},
                        {"name": "projects/other-one/locations/europe/repositories/x", "format": "DOCKER"},
                    ]
                },
                {},
            ),
            f"GET {PACKAGES}/images/packages?pageSize=1000": (
                {"packages": named(f"{PACKAGES[4:]}/images/packages/team%2Fcart"), "nextPageToken": "n"},
                {},
            ),
            f"GET {PACKAGES}/images/packages?pageSize=1000&pageToken=n": (
                {"packages": named(f"{PACKAGES[4:]}/images/packages/pay")},
                {},
            ),
        },
        ("shop-prod/images/team/cart", "shop-prod/images/pay"),
        BEARER,
    ),
}


@pytest.fixture
def api(httpserver: HTTPServer) -> Iterator[Api]:
    found = Api(Settings(), httpserver.url_for("").rstrip("/"), here=("localhost", "127.0.0.1"))
    yield found
    found.close()


def line_of(request: Request) -> str:
    query = request.query_string.decode()
    body = request.get_data().decode() if request.path == "/" else ""
    return f"{request.method} {request.path}{'?' if query else ''}{query}{' ' if body else ''}{body}"


def serve(server: HTTPServer, answer: Callable[[Request], Response]) -> None:
    for method in ("GET", "POST"):
        server.expect_request(ANY_PATH, method=method).respond_with_handler(answer)


def whole(listing: Listing, api: Api, asked: ListingRequest, most: int = 20) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    position = ""
    for _ in range(most):
        found = listing.read(api, asked, position)
        names += found.names
        position = found.following
        if not position:
            return names
    raise AssertionError("the list does not end")


@pytest.mark.parametrize("name", CASES)
def test_a_list_is_read_page_by_page_with_the_documented_requests(name: str, httpserver: HTTPServer, api: Api) -> None:
    case, seen = CASES[name], list[str]()
    here = httpserver.url_for("").rstrip("/")

    def answer(request: Request) -> Response:
        line = line_of(request)
        seen.append(line)
        if line not in case.answers:
            return Response("{}", 404)
        if request.method == "GET" or name == "ecr":
            assert {header: request.headers.get(header) for header in case.headers} == case.headers
        document, headers = case.answers[line]
        shown = {header: value.replace("HERE", here) for header, value in headers.items()}
        return Response(json.dumps(document).replace("HERE", here), headers=shown)

    serve(httpserver, answer)
    assert whole(LISTINGS[name], api, case.asked) == case.names
    assert set(case.answers) <= set(seen), "a page was not asked for"
    assert api.requests == len(seen)


BAD_SHAPES = {
    "a text": '"x"',
    "a number": "1",
    "null": "null",
    "texts": '["a", "b"]',
    "entries without names": "[{}]",
    "members of other types": '{"repositories": "x", "results": {"a": 1}, "packages": [1]}',
    "a name that is a number": '{"repositories": [{"name": 7, "repositoryName": 7}], "results": [{"name": 7}]}',
}


# An empty list is their answer for no repositories.
FINE = {("gitlab", "a list"), ("harbor", "a list"), ("ghcr", "a list")}
HOSTILE = [(name, what) for name in CASES for what in (*hostile(), *BAD_SHAPES) if (name, what) not in FINE]


@pytest.mark.parametrize(("name", "what"), HOSTILE)
def test_a_hostile_answer_is_an_error_without_a_secret(name: str, what: str, httpserver: HTTPServer, api: Api) -> None:
    given = hostile().get(what)
    serve(httpserver, lambda request: given if given is not None else Response(BAD_SHAPES[what]))
    api.token = Secret("token")
    with pytest.raises((RemoteError, NotFoundError)) as refused:
        whole(LISTINGS[name], api, CASES[name].asked)
    assert SECRET not in f"{refused.value}{refused.value.hint}"


@pytest.mark.parametrize("name", ["harbor", "dockerhub", "ghcr", "gitlab"])
def test_a_link_to_another_host_is_refused_and_never_followed(name: str, httpserver: HTTPServer, api: Api) -> None:
    elsewhere = "http://evil.example/next"
    document: Any = {"results": named("a"), "next": elsewhere} if name == "dockerhub" else [{"name": "a/b", "id": 1}]

    def answer(request: Request) -> Response:
        return Response(json.dumps(document), headers={"Link": f'<{elsewhere}>; rel="next"'})

    serve(httpserver, answer)
    api.token = Secret("token")
    with pytest.raises(RemoteError, match="another host") as refused:
        LISTINGS[name].read(api, CASES[name].asked, "")
    assert refused.value.reason == "redirect_refused"
    assert not refused.value.retryable


@pytest.mark.parametrize("name", ["harbor", "quay", "dockerhub", "ecr"])
def test_too_many_names_or_a_page_that_follows_itself_are_refused(name: str, httpserver: HTTPServer, api: Api) -> None:
    many = [{"name": f"a/{n}", "repositoryName": f"a{n}"} for n in range(1001)]
    document: Any = many if name == "harbor" else {"repositories": many, "results": many}
    serve(httpserver, lambda request: Response(json.dumps(document)))
    api.token = Secret("token")
    with pytest.raises(RemoteError, match="more than 1000 repositories"):
        LISTINGS[name].read(api, CASES[name].asked, "")


def test_a_page_that_follows_itself_is_refused(httpserver: HTTPServer, api: Api) -> None:
    document = {"repositories": named("a", member="repositoryName"), "nextToken": "t"}
    serve(httpserver, lambda request: Response(json.dumps(document)))
    with pytest.raises(RemoteError, match="followed by itself"):
        LISTINGS["ecr"].read(api, CASES["ecr"].asked, "t")


LIMITS = {
    "429 with a time": Response("{}", 429, {"Retry-After": "17"}),
    "GitHub's 403": Response("{}", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "17"}),
    "GitHub's secondary limit": Response("{}", 403, {"Retry-After": "17"}),
    "AWS": Response('{"__type": "ThrottlingException"}', 400, {"Retry-After": "17"}),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_no_refusal_and_says_how_long(what: str, httpserver: HTTPServer, api: Api) -> None:
    serve(httpserver, lambda request: LIMITS[what])
    with pytest.raises(RemoteError) as limited:
        LISTINGS["ghcr"].read(api, CASES["ghcr"].asked, "")
    assert (limited.value.reason, limited.value.retry_after) == ("registry_rate_limited", 17)


def test_a_limit_that_comes_near_asks_for_a_pause(httpserver: HTTPServer, api: Api) -> None:
    headers = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "9"}
    serve(httpserver, lambda request: Response("[]", headers=headers))
    LISTINGS["ghcr"].read(api, CASES["ghcr"].asked, "")
    assert api.pause == 9


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("ghcr", ListingRequest("ghcr.io")),
        ("gitlab", ListingRequest("registry.gitlab.com")),
        ("quay", ListingRequest("quay.io")),
        ("dockerhub", ListingRequest("docker.io", namespaces=("library",))),
        ("ecr", ListingRequest(ECR_HOST, credentials("AWS"))),
        ("gar", ListingRequest("europe-docker.pkg.dev", credentials("oauth2accesstoken"))),
        ("gar", ListingRequest("europe-docker.pkg.dev", credentials("_json_key"), namespaces=("shop-prod",))),
    ],
)
def test_without_what_a_list_needs_no_request_is_sent(name: str, asked: ListingRequest, api: Api) -> None:
    with pytest.raises(RemoteError) as refused:
        LISTINGS[name].read(api, asked, "")
    assert (refused.value.reason, api.requests) == ("listing_refused", 0)


def test_a_refused_namespace_does_not_hide_the_others(httpserver: HTTPServer, api: Api) -> None:
    def answer(request: Request) -> Response:
        allowed = request.args.get("namespace") == "infra"
        return Response(json.dumps({"repositories": named("x")}), 200 if allowed else 403)

    serve(httpserver, answer)
    asked = ListingRequest("quay.io", namespaces=("shop", "infra"))
    assert whole(LISTINGS["quay"], api, asked) == ("infra/x",)
    with pytest.raises(RemoteError) as refused:
        whole(LISTINGS["quay"], api, ListingRequest("quay.io", namespaces=("shop", "team")))
    assert refused.value.reason == "listing_refused"


def test_a_gcr_host_lists_the_repository_of_its_name(httpserver: HTTPServer, api: Api) -> None:
    at = "projects/shop-prod/locations/europe/repositories"

    def answer(request: Request) -> Response:
        if request.path.endswith("/packages"):
            return Response(json.dumps({"packages": named(f"{at}/eu.gcr.io/packages/cart")}))
        return Response(json.dumps({"repositories": named(f"{at}/eu.gcr.io", f"{at}/images")}))

    serve(httpserver, answer)
    asked = ListingRequest("eu.gcr.io", credentials("oauth2accesstoken"), namespaces=("shop-prod",))
    assert whole(LISTINGS["gar"], api, asked) == ("shop-prod/cart",)


def service_account(email: str) -> CloudAccess:
    return CloudAccess("gar", "europe-docker.pkg.dev", password=Secret(json.dumps(ACCOUNT | {"client_email": email})))


def test_without_a_pattern_the_project_of_the_service_account_is_listed(httpserver: HTTPServer, api: Api) -> None:
    asked_for: list[str] = []

    def answer(request: Request) -> Response:
        asked_for.append(request.path)
        return Response("{}")  # the form of an empty list

    serve(httpserver, answer)
    asked = ListingRequest(
        "europe-docker.pkg.dev",
        credentials("oauth2accesstoken"),
        service_account("ci@shop-prod.iam.gserviceaccount.com"),
    )
    assert whole(LISTINGS["gar"], api, asked) == ()
    assert asked_for == ["/v1/projects/shop-prod/locations/europe/repositories"]


@pytest.mark.parametrize(
    "cloud",
    [
        service_account("ci@example.com"),
        CloudAccess("gar", "europe-docker.pkg.dev", password=Secret("no key file")),
        CloudAccess("gar", "europe-docker.pkg.dev", machine_role=True),
    ],
    ids=["an address of another domain", "no key file", "a role"],
)
def test_a_service_account_that_names_no_project_needs_a_pattern(cloud: CloudAccess, api: Api) -> None:
    asked = ListingRequest("europe-docker.pkg.dev", credentials("oauth2accesstoken"), cloud)
    with pytest.raises(RemoteError, match="name a project"):
        whole(LISTINGS["gar"], api, asked)


@pytest.mark.parametrize("following", [7, ["x"], {}])
def test_a_next_page_that_is_no_text_is_refused(following: object, httpserver: HTTPServer, api: Api) -> None:
    at = "projects/shop-prod/locations/europe/repositories"

    def answer(request: Request) -> Response:
        if request.path.endswith("/packages"):
            return Response(json.dumps({"packages": named(f"{at}/images/packages/cart"), "nextPageToken": following}))
        return Response(json.dumps({"repositories": named(f"{at}/images")}))

    serve(httpserver, answer)
    asked = ListingRequest("europe-docker.pkg.dev", credentials("oauth2accesstoken"), namespaces=("shop-prod",))
    with pytest.raises(RemoteError, match="no text"):
        whole(LISTINGS["gar"], api, asked)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("quay", {"repositories": named("x"), "next_page": 7}),
        ("quay", {"repositories": named("x"), "next_page": "x" * 5000}),
        ("ecr", {"repositories": named("x", member="repositoryName"), "nextToken": {"a": 1}}),
    ],
)
def test_a_next_page_of_another_shape_is_refused(name: str, document: object, httpserver: HTTPServer, api: Api) -> None:
    serve(httpserver, lambda request: Response(json.dumps(document)))
    asked = replace(CASES[name].asked, namespaces=("shop",))
    with pytest.raises(RemoteError, match="no text"):
        whole(LISTINGS[name], api, asked)


def test_a_robot_of_quay_lists_its_own_namespace(httpserver: HTTPServer, api: Api) -> None:
    seen = list[str]()

    def answer(request: Request) -> Response:
        seen.append(request.args.get("namespace", ""))
        return Response(json.dumps({"repositories": named("cart")}))

    serve(httpserver, answer)
    assert whole(LISTINGS["quay"], api, ListingRequest("quay.io", credentials("shop+robot"))) == ("shop/cart",)
    assert seen == ["shop"]


def test_an_empty_repository_of_google_has_no_packages(httpserver: HTTPServer, api: Api) -> None:
    at = "projects/shop-prod/locations/europe/repositories"

    def answer(request: Request) -> Response:
        packages = request.path.endswith("/packages")
        return Response("{}" if packages else json.dumps({"repositories": named(f"{at}/images", format="DOCKER")}))

    serve(httpserver, answer)
    asked = ListingRequest("europe-docker.pkg.dev", credentials("oauth2accesstoken"), namespaces=("shop-prod",))
    assert whole(LISTINGS["gar"], api, asked) == ()


def test_a_stored_position_that_is_no_page_is_refused(httpserver: HTTPServer, api: Api) -> None:
    with pytest.raises(RemoteError, match="no number"):
        LISTINGS["harbor"].read(api, ListingRequest("harbor.example.com"), "seven")
    serve(httpserver, lambda request: Response("[]", 403 if "Authorization" in request.headers else 200))
    assert LISTINGS["harbor"].read(api, ListingRequest("harbor.example.com"), "2").names == ()


HARBOR = {"realm": "https://r.example/service/token", "service": "harbor-registry"}
GITLAB = {"realm": "https://git.example/jwt/auth", "service": "container_registry"}
ORIGINS = [
    (Place("ghcr.io", "https://ghcr.io"), {"ghcr": "https://api.github.com"}),
    (Place("docker.io", "https://registry-1.docker.io"), {"dockerhub": "https://hub.docker.com"}),
    (Place("quay.io", "https://quay.io"), {"quay": "https://quay.io"}),
    (Place("registry.gitlab.com", "https://registry.gitlab.com"), {"gitlab": "https://gitlab.com"}),
    (Place(ECR_HOST, f"https://{ECR_HOST}"), {"ecr": "https://api.ecr.eu-west-1.amazonaws.com"}),
    (Place("us-docker.pkg.dev", "https://us-docker.pkg.dev"), {"gar": "https://artifactregistry.googleapis.com"}),
    (Place("r.example", "https://r.example"), {}),
    (Place("r.example", "https://r.example", **HARBOR), {"harbor": "https://r.example"}),
    (Place("r.example", "https://r.example", service="harbor-registry"), {}),
    (Place("r.example", "https://r.example", realm="https://r.example/v2/auth"), {"quay": "https://r.example"}),
    (Place("r.example", "https://r.example", realm="https://evil.example/v2/auth"), {}),
    # GitLab gets the token only if it is the registry's host, or the token service that was configured.
    (Place("r.example", "https://r.example", **GITLAB), {}),
    (Place("r.example", "https://r.example", "git.example", **GITLAB), {"gitlab": "https://git.example"}),
    (Place("r.example", "https://r.example", "git.example:8443", **GITLAB), {}),
    (Place("git.example:5050", "https://git.example:5050", **GITLAB), {"gitlab": "https://git.example"}),
    (Place("git.example:5050", "https://git.example:5050", realm="http://git.example/jwt/auth"), {}),
    (Place("git.example:5050", "https://git.example:5050", realm="https://u@git.example/jwt/auth"), {}),
    (Place("r.example", "https://r.example", realm="https://[bad/jwt/auth"), {}),
]


@pytest.mark.parametrize(("place", "expected"), ORIGINS)
def test_an_api_is_on_a_host_that_an_administrator_or_the_manual_names(
    place: Place, expected: Mapping[str, str]
) -> None:
    found = {name: listing.origin(place) for name, listing in LISTINGS.items()}
    assert {name: origin for name, origin in found.items() if origin is not None} == expected


def test_an_api_connects_to_its_own_host_only(httpserver: HTTPServer, api: Api) -> None:
    api.origin = f"http://localhost:{httpserver.port + 1}"
    with pytest.raises(RefusedError):
        api.get("/", {}, {})


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=lambda listing: listing.id)
def test_a_list_says_what_it_is(listing: Listing) -> None:
    for text in (listing.title, listing.found_by, listing.reads, listing.needs, type(listing).__doc__):
        assert text
    assert listing.manual.startswith("https://")


def test_an_error_is_a_scanner_error_whatever_the_password_is(api: Api) -> None:
    asked = ListingRequest("ghcr.io", Credentials("a", Secret("two\nlines " + SECRET)), namespaces=("shop",))
    with pytest.raises(ScannerError) as refused:
        LISTINGS["ghcr"].read(api, asked, "")
    assert SECRET not in f"{refused.value}"
