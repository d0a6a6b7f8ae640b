"""GitHub dispatch: workflows are started with what happened, within GitHub's limits, and never by an end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from scanner.config import Secret, Settings
from scanner.model.notification import EventKind
from scanner.notify.base import DeliveryError, Target
from scanner.notify.github_dispatch import GitHubDispatch, payload_of
from tests.scanner.notify.receivers import event, message

NEWER = event(
    "",
    kind=EventKind.BASE_NEWER,
    subject="registry.example.com/bases/debian:12",
    headline="registry.example.com/bases/debian:12 has a newer image: rebuild 1 image; 2 findings go, 0 come",
    data={"rebuild": [{"repository": "registry.example.com/shop/cart", "tag": "1"}], "rebuild_count": 1},
)


def target(httpserver: HTTPServer) -> Target:
    values = {"url": httpserver.url_for(""), "repository": "shop/cart"}
    return Target(Settings(), values, {"token": Secret("a-secret-token")})


def test_workflows_are_started_with_what_to_rebuild(httpserver: HTTPServer) -> None:
    httpserver.expect_oneshot_request("/repos/shop/cart/dispatches", "POST").respond_with_data("", 204)
    assert GitHubDispatch().deliver(message(NEWER), target(httpserver)).status == "204"
    (request, _), *_ = httpserver.log
    assert request.headers["Authorization"] == "Bearer a-secret-token"
    body = json.loads(request.data)
    assert body["event_type"] == "dockwarden"
    assert body["client_payload"]["events"][0]["data"]["rebuild"][0]["repository"] == "registry.example.com/shop/cart"


def test_an_end_starts_nothing(httpserver: HTTPServer) -> None:
    GitHubDispatch().deliver(message(event("", resolved=True)), target(httpserver))
    assert httpserver.log == []


@pytest.mark.parametrize(("status", "retryable"), [(404, True), (422, False), (302, False), (500, True)])
def test_a_refusal_is_an_error_without_the_token(httpserver: HTTPServer, status: int, retryable: bool) -> None:
    httpserver.expect_request("/repos/shop/cart/dispatches").respond_with_data("no", status)
    with pytest.raises(DeliveryError) as refused:
        GitHubDispatch().deliver(message(NEWER), target(httpserver))
    assert refused.value.retryable is retryable
    assert "a-secret-token" not in f"{refused.value}{refused.value.answer}"


@pytest.mark.parametrize(
    "data", [{"rebuild": [{"repository": "r" * 500}] * 100}, {"text": "é" * 200}, {"rebuild": ["x" * 70_000]}]
)
def test_the_payload_stays_within_the_limit(data: dict[str, Any]) -> None:
    payload = payload_of(message(*[event(f"image {n}", data=data) for n in range(100)]))
    assert len(json.dumps(payload)) < 65_535
    assert len(payload) <= 10
    assert payload["events"]
    assert payload["count"] == 100
