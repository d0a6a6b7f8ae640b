"""Around every request: bounds, errors that tell nothing, logs without secrets, health, metrics."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from flask_openapi3.openapi import OpenAPI
from sqlalchemy import text

from scanner import queue
from scanner.config import Secret, Settings
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker
from web import create_app, logs
from web.api import _members
from web.api.base import Model
from web.health import _disk


def test_a_body_without_an_announced_length_is_bounded_too(api: Api) -> None:
    answer = api.client.post(
        "/api/v1/gate",
        input_stream=io.BytesIO(b'{"image": "' + b"a" * (2 << 20) + b'"}'),
        environ_overrides={"wsgi.input_terminated": True, "CONTENT_TYPE": "application/json"},
        headers={"Authorization": f"Bearer {api.token}"},
    )
    assert answer.status_code == 413


def test_what_is_ours_to_mend_tells_nothing(
    app: OpenAPI, api: Api, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with database.session() as session:
        session.exec_driver_sql("DROP TABLE listing")
    with caplog.at_level(logging.ERROR):
        answer = api("GET", "/images")
    assert (answer.status_code, answer.mimetype) == (500, "application/problem+json")
    assert "listing" not in answer.text
    assert "Traceback" not in answer.text


def test_a_bug_is_logged_with_the_id_that_the_caller_is_told(
    app: OpenAPI, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    view = app.view_functions["images.index"]

    def broken() -> None:
        password = "canary-local"
        raise ZeroDivisionError(password[:0] + "inner words")

    broken.permission, broken.authenticate = view.permission, view.authenticate  # type: ignore[attr-defined,union-attr]
    app.view_functions["images.index"] = broken  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        answer = api("GET", "/images")
    assert answer.status_code == 500
    assert "inner words" not in answer.text
    (record,) = [r for r in caplog.records if r.exc_info]
    assert record.request_id == answer.json["request_id"] == answer.headers["X-Request-Id"]  # type: ignore[attr-defined]


def test_a_database_that_is_away_is_503_and_never_an_answer(settings: Settings) -> None:
    away = replace(settings, database_url=Secret("postgresql+psycopg://nobody@/none?host=/no/such/directory"))
    client = create_app(away, celery=queue.make_app(settings)).test_client()
    headers = {"Authorization": "Bearer dw_x"}
    pinned = f"{make.REPOSITORY}@sha256:{'1' * 64}"
    answers = [
        client.get("/api/v1/images", headers=headers),
        client.post("/api/v1/gate", json={"image": pinned}, headers=headers),
        client.post("/webhooks/distribution", data="{}"),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json["reason"] == "db_unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_ready_says_what_is_missing_and_names_nothing(anonymous: Api) -> None:
    answer = anonymous.client.get("/readyz")
    checks = answer.json["checks"]
    assert checks["database"] == {"ok": True, "reason": ""}
    assert checks["advisories"]["ok"] is False
    assert answer.json["status"] in ("degraded", "unavailable")


def test_a_disk_that_is_nearly_full_is_told(app: OpenAPI, settings: Settings) -> None:
    own = app.extensions["dockwarden"]
    settings.home.mkdir(exist_ok=True)
    assert _disk(own).ok
    full = _disk(own, least=1 << 62)
    assert (full.ok, full.needed, full.reason) == (False, False, "disk_full")
    assert "Free some space" in full.explanation
    assert _disk(replace(own, settings=replace(settings, home=settings.home / "none"))).ok, "nothing is kept there"


def test_a_database_that_is_not_migrated_is_not_ready(settings: Settings, tmp_path: Path) -> None:
    fresh = replace(settings, database_url=Secret(f"sqlite:///{tmp_path / 'new.db'}"))
    answer = create_app(fresh, celery=queue.make_app(settings)).test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["checks"]["database"]["reason"] == "db_not_at_head"
    assert "has no schema yet" in answer.json["checks"]["database"]["detail"]
    assert "dockwarden db upgrade" in answer.json["checks"]["database"]["detail"]


def test_a_schema_of_another_version_is_503_and_says_what_to_do(app: OpenAPI, api: Api, database: Database) -> None:
    with database.session() as session:
        session.execute(text("ALTER TABLE api_token RENAME COLUMN name TO former_name"))
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    answer = api("GET", "/images")
    assert (answer.status_code, answer.json["reason"]) == (503, "db_not_at_head")
    assert "9999" in answer.json["detail"]
    assert "install that version" in answer.json["hint"]


def test_metrics_count_scans_and_requests_and_name_no_image(api: Api, worker: Worker) -> None:
    api("POST", "/scans", {"image": "secret.example/shop/cart:1"})
    api("POST", "/scans", {"image": "secret.example/shop/other:1"})
    worker.claim()
    text = api.client.get("/metrics").text
    assert 'dockwarden_scans{lane="push",state="queued"} 1.0' in text
    assert 'dockwarden_scans{lane="push",state="running"} 1.0' in text
    assert 'dockwarden_request_seconds_count{method="POST",rule="/api/v1/scans",status="202"} 2.0' in text
    assert "secret.example" not in text


def test_a_request_id_is_taken_over_only_if_it_is_fit_for_a_log(anonymous: Api) -> None:
    for sent, kept in (("build-2026.11.24", True), ("short", False), ("x" * 65, False), ("a b c d e f g", False)):
        answer = anonymous("GET", "/healthz", headers={"X-Request-Id": sent})
        assert (answer.headers["X-Request-Id"] == sent) is kept


@pytest.fixture
def written(settings: Settings) -> Iterator[io.StringIO]:
    """What is logged when logging is set up as a server does; undone afterwards."""
    root, text = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(replace(settings, log_json=True, log_level="DEBUG"))
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(text)
    yield text
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_log_line_names_the_rule_and_never_a_secret(api: Api, written: io.StringIO) -> None:
    api("POST", "/webhooks/distribution/canary-in-path?token=canary-in-query")
    api("POST", "/registries", {"host": "r.example.com", "username": "u", "password": "canary-password"})
    api("POST", "/users", {"name": "ada", "password": "canary-password", "role": "nobody"})
    api.client.get("/api/v1/images", headers={"Authorization": "Bearer canary-token"})
    text = written.getvalue()
    assert "canary" not in text
    assert api.token not in text
    lines = [json.loads(line) for line in text.splitlines() if '"request"' in line]
    assert [(line["rule"], line["status"]) for line in lines] == [
        ("/webhooks/<format_id>/<path_token>", 401),
        ("/api/v1/registries", 201),
        ("/api/v1/users", 422),
        ("/api/v1/images", 401),
    ]
    assert lines[1]["principal"] == "token test"
    assert all(re.fullmatch(r"[0-9a-f]{16}", line["request_id"]) for line in lines)


def test_a_member_that_is_named_as_a_secret_is_not_written(written: io.StringIO) -> None:
    logging.getLogger("web").warning("x", extra={"password": "canary", "api_token": "canary", "token_id": "t1"})
    try:
        secret = "canary-local"
        raise ValueError("broken" + secret[:0])
    except ValueError:
        logging.getLogger("web").exception("with\nnewline \x1b[31m")
    text = written.getvalue()
    assert "canary" not in text
    first, second = (json.loads(line) for line in text.splitlines())
    assert (first["password"], first["token_id"]) == ("***", "t1")
    assert second["exception"][0]["exc_type"] == "ValueError"


def test_no_two_schemas_of_the_api_share_a_name() -> None:
    """OpenAPI keeps one schema a name: a second model of that name would be described as the first."""
    models = dict(_models(Model))
    names = [model.__name__ for model in models.values()]
    assert sorted(names) == sorted(set(names))


def test_every_operation_and_parameter_is_described(api: Api) -> None:
    document = api("GET", "/openapi.json").json
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert all(one.get("summary") for one in operations)
    parameters = [each for one in operations for each in one.get("parameters", [])]
    assert {each["name"] for each in parameters if not each.get("description")} == set()
    assert "next_cursor" in document["info"]["description"]


def test_every_member_of_every_schema_is_described(api: Api) -> None:
    schemas = api("GET", "/openapi.json").json["components"]["schemas"]
    members = {
        (name, each): value for name, one in schemas.items() for each, value in one.get("properties", {}).items()
    }
    assert [member for member, value in members.items() if not value.get("description")] == []
    from_tables = [each for each, value in members.items() if value["description"] == _members.description(*each)]
    assert _members.unused(from_tables) == [], "describe it once: in the table, or where the member is defined"


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/scans", {"image": "x y"}, "/image: must be an image reference"),
        ("POST", "/registries", {"host": "https://x"}, "/host: must be host[:port]"),
        ("GET", "/components?version=%3E%3E1", None, "/version: must be a version range"),
        ("GET", "/images?limit=0", None, "/limit: must be greater than or equal to 1"),
        ("GET", "/nothing", None, "there is nothing at this address"),
    ],
)
def test_an_error_is_read_by_a_person(api: Api, method: str, path: str, body: Any, expected: str) -> None:
    answer = api(method, path, body)
    assert answer.mimetype == "application/problem+json"
    assert str(answer.json["detail"]).startswith(expected)
    assert "[A-Za-z0-9]" not in answer.text, "a pattern"


def _models(base: type[Model]) -> Iterator[tuple[str, type[Model]]]:
    for model in base.__subclasses__():
        yield f"{model.__module__}.{model.__qualname__}", model
        yield from _models(model)
