"""The API is what its document says: generated requests, right and wrong, as several kinds of caller, every check."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig

from scanner import queue
from scanner.config import Secret, Settings
from scanner.store import accounts, policies, projects, registries
from tests.scanner.store import factories as make
from tests.web.api.test_gate import BAD, CLEAN, policy
from tests.web.conftest import KEY, SCOPES, Api, Worker
from web import create_app

# What a schema cannot say: a text that must be a valid policy, a workload, a reference within its length.
MEANING = {
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "400", "401", "403", "404", "409", "412", "413", "422", "428"]
    }
}
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 7,
        # 413: the body is bounded before it is read.
        "checks": {
            "negative_data_rejection": {
                "expected-statuses": ["400", "401", "403", "404", "406", "413", "415", "422", "428"]
            }
        },
        "operations": [
            {"include-operation-id": ["gate_ask", "scans_create"], "checks": MEANING},
            {
                "include-operation-id": [
                    "policies_put",
                    "policies_simulate",
                    "policies_simulate_workloads",
                    "policies_start_dry_run",  # a day of the last 90
                    "policies_validate",
                    "registries_create",
                    "registries_change",
                    "exemptions_create",  # an end within a year, something that it is about
                    "vex_create",  # a document that is OpenVEX
                    "users_create",  # a password that is not easily guessed
                    "users_set_password",
                    "account_change_password",
                    "hooks_create",  # a format that there is
                    "projects_create",  # an engine that there is
                    "projects_change",
                    "advisories_revoke",  # one thing, not none and not two
                    "trust_roots_put",  # a scheme that there is, and a document that it can read
                    "inventory_check",  # workloads that are some
                    "inventory_report",  # a source that there is, workloads that are some, generations in order
                    "audit_log_index",  # a time that there is
                    "audit_log_export",
                    "notifications_create_channel",  # a format that there is, with the fields that it has
                    "notifications_change_channel",
                    "notifications_subscribe",  # a time zone that there is, a condition that compiles
                    "notifications_change_subscription",
                ],
                "checks": MEANING,
            },
        ],
    }
)
EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


HOME = Path(tempfile.gettempdir()) / f"dockwarden-contract-{uuid.uuid4().hex}"
SETTINGS = Settings(
    home=HOME, secret_key=KEY, audit_key=KEY, rate_limits=False, database_url=Secret(f"sqlite:///{HOME}/d.db")
)
APP = create_app(SETTINGS, celery=queue.make_app(SETTINGS))  # opens nothing: `seeded` makes the database
schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", APP, config=CONFIG)


@dataclass(frozen=True)
class Seeded:
    everybody: dict[str, str]
    confined: dict[str, str]


@pytest.fixture(scope="module", autouse=True)
def seeded() -> Iterator[Seeded]:
    """Something to find: images, scans in several states, a policy, a registry, projects, tokens."""
    HOME.mkdir()
    database = APP.extensions["dockwarden"].database
    database.upgrade()
    with database.session() as session:
        policies.put(session, "all", policy(), "test")
        projects.create(session, "shop")
        registries.add(session, "registry.example.com", KEY)
        everybody = accounts.create_token(session, "everybody", SCOPES, KEY)[1].reveal()
        confined = accounts.create_token(session, "confined", SCOPES, KEY, projects=["shop"])[1].reveal()
    worker, api = Worker(database), Api(APP.test_client(), everybody)
    for found in (CLEAN, BAD):
        api("POST", "/scans", {"image": f"{make.REPOSITORY}@{found.digest}"})
        worker.finish(found)
    api("POST", "/scans", {"image": "a/queued:1"})
    while APP.extensions["dockwarden"].waiters.acquire(blocking=False):
        pass  # nobody waits here: whoever asks to gets 202, as on a busy server
    yield Seeded({"Authorization": f"Bearer {everybody}"}, {"Authorization": f"Bearer {confined}"})
    database.engine.dispose()
    shutil.rmtree(HOME)


def check(name: str) -> Any:
    return schemathesis.checks.CHECKS.get_one(name)


@schema.parametrize()
@EXAMPLES
def test_as_one_who_may_do_everything(seeded: Seeded, case: Any) -> None:
    case.call_and_validate(headers=seeded.everybody)


@schema.parametrize()
@settings(EXAMPLES, max_examples=5)
def test_as_one_confined_to_another_project(seeded: Seeded, case: Any) -> None:
    answer = case.call_and_validate(headers=seeded.confined, excluded_checks=[check("positive_data_acceptance")])
    assert "a/queued" not in answer.text
    assert make.REPOSITORY not in answer.text


@schema.parametrize()
@settings(EXAMPLES, max_examples=3)
def test_as_nobody(case: Any) -> None:
    answer = case.call()
    if case.operation.definition.raw["x-permission"] == "public":
        assert answer.status_code in (200, 404, 405)
    elif case.method != "OPTIONS":  # says which methods there are, as the document does
        assert answer.status_code in (401, 404, 405)
    case.validate_response(
        answer, excluded_checks=[check("positive_data_acceptance"), check("negative_data_rejection")]
    )
