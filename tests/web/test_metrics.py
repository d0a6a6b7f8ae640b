"""The documented metrics are those that the service answers, and rules and dashboard name no others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import yaml
from flask_openapi3.openapi import OpenAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"\bdockwarden_[a-z_]+\b")


@pytest.fixture
def answered(app: OpenAPI, api: Api) -> dict[str, set[str]]:
    """The samples' names of each metric, after a request."""
    api("GET", "/images")
    text = app.test_client().get("/metrics").text
    # ``_created`` is the client library's, for each histogram.
    families = {f.name: f for f in text_string_to_metric_families(text) if not f.name.endswith("_created")}
    return {name: {name, *(sample.name for sample in f.samples)} for name, f in families.items()}


def test_every_metric_is_documented_and_no_other(answered: dict[str, set[str]]) -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    assert set(re.findall(r"^\| `(dockwarden_\w+)` \|", text, re.M)) == set(answered)


def test_alert_rules_name_metrics_that_exist(answered: dict[str, set[str]]) -> None:
    document = yaml.safe_load((ROOT / "examples/prometheus/alerts.yaml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    known = set().union(*answered.values())
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert set(_NAME.findall(rule["expr"])) <= known, rule["alert"]
        assert _NAME.search(rule["expr"])
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_dashboard_names_metrics_that_exist(answered: dict[str, set[str]]) -> None:
    document = json.loads((ROOT / "examples/grafana/dockwarden.json").read_text())
    known = set().union(*answered.values())
    expressions = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    assert all(_NAME.search(one) and set(_NAME.findall(one)) <= known for one in expressions)
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_findings_are_exported_as_json_lines(api: Api, call: Callable[..., Api], worker: Worker) -> None:
    packages = [make.package(n) for n in (1, 2)]
    found = make.report(
        "app", packages=packages, vulnerabilities=[make.vulnerability(n, packages[n - 1]) for n in (1, 2)]
    )
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:1"})
    worker.finish(found)
    answer = api("GET", "/vulnerabilities/export")
    assert answer.mimetype == "application/x-ndjson"
    lines = [orjson.loads(line) for line in answer.data.splitlines()]
    assert [(line["package"], line["vulnerability"]) for line in lines] == [
        ("lib1", "CVE-2026-00001"),
        ("lib2", "CVE-2026-00002"),
    ]
    assert (lines[0]["repository"], lines[0]["tag"], lines[0]["digest"]) == (make.REPOSITORY, "1", found.digest)
    assert call("read", projects=["other"])("GET", "/vulnerabilities/export").data == b""
