"""Closed by default: no route that nobody thought of, none that the document does not know."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from tests.web.conftest import SCOPES, Api
from web import auth

# Routes that answer whoever asks. Each is here because it has been thought about.
PUBLIC = {
    "static",
    "health.alive",
    "health.ready",
    "health.metrics",
    "openapi.openapi",
    "webhooks.receive",
    "clair.notify",  # authenticates raw bytes itself
    "receipts.keys",  # public keys, which verifiers fetch without an account
    "receipts.keys_pem",
    "sign_in_page.home",
    "sign_in_page.form",
    "sign_in_page.enter",
    "sign_in_oidc_page.begin",
    "sign_in_oidc_page.back",
}
A_PATH = {"uuid": "00000000-0000-4000-8000-000000000000", "int": "1"}


def routes(app: OpenAPI) -> list[tuple[str, str, str]]:
    """(endpoint, method, a path that matches)."""
    return [
        (rule.endpoint, method, re.sub(r"<(?:(\w+):)?\w+>", lambda m: A_PATH.get(m[1] or "", "x"), rule.rule))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
    ]


def test_every_route_names_its_permission(app: OpenAPI) -> None:
    views = app.view_functions
    unnamed = [rule.endpoint for rule in app.url_map.iter_rules() if not hasattr(views[rule.endpoint], "permission")]
    assert unnamed == []
    public = {name for name, view in views.items() if view.permission == auth.PUBLIC}  # type: ignore[union-attr]
    assert public - PUBLIC == set()


def test_a_route_without_a_permission_is_closed_even_to_an_admin(app: OpenAPI, api: Api) -> None:
    view = app.view_functions["scans.index"]
    assert api("GET", "/scans").status_code == 200
    del view.permission  # type: ignore[union-attr]
    try:
        answer = api("GET", "/scans")
    finally:
        view.permission = "read"  # type: ignore[union-attr]
    assert answer.status_code == 403
    assert answer.json["reason"] == "closed"


def test_the_document_and_the_routes_are_the_same_set(app: OpenAPI, anonymous: Api) -> None:
    document = anonymous("GET", "/openapi.json").json
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    routed = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/v1/") and not rule.rule.endswith("openapi.json")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == routed
    for path, item in document["paths"].items():
        known = (*SCOPES, auth.SIGNED_IN, *((auth.PUBLIC,) if path.startswith("/api/v1/receipts/keys") else ()))
        assert all(operation["x-permission"] in known for operation in item.values()), path


def test_without_a_token_nothing_but_the_public_answers(app: OpenAPI, anonymous: Api) -> None:
    for endpoint, method, path in routes(app):
        if endpoint in PUBLIC:
            continue
        answer = anonymous.client.open(path, method=method, headers={"Accept": "application/json"})
        assert answer.status_code == 401, (endpoint, method)
        scheme = "Basic" if endpoint.startswith("harbor.") else "Bearer"  # what Harbor sends by default
        assert answer.headers["WWW-Authenticate"].startswith(scheme), endpoint


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_routes_and_no_other(app: OpenAPI, call: Callable[..., Api], scope: str) -> None:
    caller = call(scope)
    for endpoint, method, path in routes(app):
        needed = app.view_functions[endpoint].permission  # type: ignore[union-attr]
        if needed in (auth.PUBLIC, auth.SIGNED_IN):
            continue
        answer = caller.client.open(path, method=method, headers={"Authorization": f"Bearer {caller.token}"})
        # Some routes also ask who it is; only what is refused for want of the scope counts here.
        refused = answer.status_code == 403 and "required permission" in answer.text
        assert refused == (needed != scope), (endpoint, method, answer.status_code, answer.text[:200])


def test_every_answer_has_the_headers_a_browser_needs(app: OpenAPI, api: Api) -> None:
    for _, method, path in [*routes(app), ("", "GET", "/no/such/path"), ("", "TRACE", "/api/v1/scans")]:
        for headers in ({}, {"Authorization": f"Bearer {api.token}"}):
            answer = api.client.open(path, method=method, headers=headers)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'"), path
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["X-Request-Id"]
            if not path.startswith("/static"):
                assert answer.headers["Cache-Control"] == "no-store", path
                assert "Cookie" in answer.headers["Vary"]
            assert answer.status_code < 500, (method, path, answer.text[:300])
