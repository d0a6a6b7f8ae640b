"""GitLab trigger: a pipeline is started with fixed variables whose values expand to nothing."""

from __future__ import annotations

import json

import pytest
from pytest_httpserver import HTTPServer

from scanner.config import Secret, Settings
from scanner.notify.base import DeliveryError, Target
from scanner.notify.gitlab_trigger import GitLabTrigger
from tests.scanner.notify.receivers import event, message

TOKEN = "glptt-a-secret-token"


def target(httpserver: HTTPServer) -> Target:
    values = {"url": httpserver.url_for(""), "project": "shop/cart", "ref": "main"}
    return Target(Settings(), values, {"token": Secret(TOKEN)})


def test_a_pipeline_is_started(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v4/projects/shop/cart/trigger/pipeline", "POST").respond_with_json({"id": 1}, 201)
    told = message(event("", subject="registry.example.com/bases/debian:12", headline="newer: $CI_JOB_TOKEN"))
    assert GitLabTrigger().deliver(told, target(httpserver)).status == "201"
    (request, _), *_ = httpserver.log
    assert request.environ["REQUEST_URI"] == "/api/v4/projects/shop%2Fcart/trigger/pipeline", "one segment, no token"
    body = json.loads(request.data)
    assert (body["token"], body["ref"]) == (TOKEN, "main")
    assert body["variables"]["DOCKWARDEN_SUBJECTS"] == "registry.example.com/bases/debian:12"
    assert body["variables"]["DOCKWARDEN_TITLE"] == "newer: $$CI_JOB_TOKEN"


def test_an_end_starts_nothing(httpserver: HTTPServer) -> None:
    GitLabTrigger().deliver(message(event("", resolved=True)), target(httpserver))
    assert httpserver.log == []


def test_a_refusal_is_an_error(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/v4/projects/shop/cart/trigger/pipeline").respond_with_json({"message": "404"}, 404)
    with pytest.raises(DeliveryError) as refused:
        GitLabTrigger().deliver(message(), target(httpserver))
    assert TOKEN not in f"{refused.value}{refused.value.answer}"
