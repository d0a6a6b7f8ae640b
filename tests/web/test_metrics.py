"""The documented metrics are those that the service answers, and rules and dashboard name no others."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from flask_openapi3.openapi import OpenAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.scanner.store import factories as make
from tests.servers import need
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


# Series of ten minutes and more, by the alert that they must raise; and those of an installation in good order.
BUILD = {'dockwarden_build_info{instance="a", job="dockwarden"}': "1x400"}
WELL = {
    **BUILD,
    'dockwarden_oldest_queued_seconds{instance="a", job="dockwarden"}': "5x400",
    'dockwarden_scans{lane="push", state="dead"}': "3x400",
    'dockwarden_advisories_age_seconds{source="trivy-db"}': "3600x400",
    'dockwarden_advisories_update_failures{source="trivy-db"}': "0x400",
    "dockwarden_notification_oldest_pending_seconds": "10x400",
    'dockwarden_request_seconds_count{rule="/api/v1/gate", status="200"}': "0+600x400",
    'dockwarden_request_seconds_count{rule="/api/v1/gate", status="500"}': "0x400",
    'dockwarden_request_seconds_bucket{rule="/api/v1/gate", status="200", le="0.01"}': "0+600x400",
    'dockwarden_request_seconds_bucket{rule="/api/v1/gate", status="200", le="+Inf"}': "0+600x400",
    'dockwarden_workloads{environment="prod", verdict="deny"}': "0x400",
    "dockwarden_pruning_failed": "0x400",
}
SLOW = 'dockwarden_request_seconds_bucket{rule="/api/v1/gate", status="200", le="0.01"}'
ILL: dict[str, dict[str, str] | None] = {
    "DockwardenDown": None,
    "DockwardenDatabaseUnavailable": BUILD,
    "DockwardenQueueStuck": {'dockwarden_oldest_queued_seconds{instance="a", job="dockwarden"}': "1000x400"},
    "DockwardenScansGivenUp": {'dockwarden_scans{lane="push", state="dead"}': "3x170 4x200"},
    "DockwardenAdvisoriesStale": {'dockwarden_advisories_age_seconds{source="trivy-db"}': "200000x400"},
    "DockwardenAdvisoriesUpdateFails": {'dockwarden_advisories_update_failures{source="trivy-db"}': "3x400"},
    "DockwardenNotificationsLate": {"dockwarden_notification_oldest_pending_seconds": "2000x400"},
    "DockwardenErrors": {'dockwarden_request_seconds_count{rule="/api/v1/gate", status="500"}': "0+60x400"},
    "DockwardenGateSlow": {SLOW: "0+300x400", SLOW.replace("0.01", "5"): "0+600x400"},
    "DockwardenDeniedWorkloads": {'dockwarden_workloads{environment="prod", verdict="deny"}': "2x400"},
    "DockwardenPruningFails": {"dockwarden_pruning_failed": "1x400"},
}


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = need("promtool", "prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_prometheus_reads_the_alert_rules() -> None:
    done = _promtool("check", "rules", "--lint-fatal", str(ROOT / "examples/prometheus/alerts.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_raised_by_what_it_is_for_and_none_in_good_order(tmp_path: Path) -> None:
    """Prometheus itself evaluates the rules, for three hours."""
    document = yaml.safe_load((ROOT / "examples/prometheus/alerts.yaml").read_text())
    assert set(ILL) == {rule["alert"] for group in document["groups"] for rule in group["rules"]}

    def case(name: str, series: dict[str, str], firing: Sequence[str]) -> dict[str, Any]:
        samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in firing]
        firing_now = 'count by (alertname) (ALERTS{alertstate="firing"})'
        return {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": one, "values": values} for one, values in series.items()],
            "promql_expr_test": [{"expr": firing_now, "eval_time": "3h", "exp_samples": samples}],
        }

    tests = [case("in good order", WELL, [])]
    for alert, series in ILL.items():
        if series is None:
            tests.append(case(alert, {}, [alert]))
        else:
            tests.append(case(alert, BUILD if series is BUILD else WELL | series, [alert]))
    whole = {"rule_files": [str(ROOT / "examples/prometheus/alerts.yaml")], "evaluation_interval": "1m", "tests": tests}
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump(whole))
    done = _promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


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
