"""Storage over the API: what takes how much room, for how long it is kept, and asking for a pruning."""

from __future__ import annotations

from scanner.config import Settings
from scanner.model.actor import SERVICE
from scanner.services import retention
from scanner.store import jobs
from scanner.store.session import Database
from tests.web.conftest import Api


def test_what_takes_room_and_a_pruning_as_a_job(api: Api, settings: Settings, database: Database) -> None:
    before = api("GET", "/storage").json
    assert before["last_pruning"] is None
    assert before["total_bytes"] > 0
    assert {"setting": "DOCKWARDEN_RETENTION_DECISIONS", "kept": "400d"} in before["kept"]
    assert {"audit_log", "scan", "finding"} <= {table["table"] for table in before["tables"]}
    assert "dockwarden_table_bytes{" not in api.client.get("/metrics").text
    asked = api("POST", "/storage/prune")
    assert asked.status_code == 202
    assert asked.json["state"] == "queued"
    assert api("POST", "/storage/prune").json["id"] == asked.json["id"], "one at a time"
    with database.session() as session:
        held = jobs.claim(session, "w", {jobs.RETENTION: None}, 60)
    assert held
    retention.Pruning(settings, database, held, SERVICE, rest=lambda seconds: None).run()
    after = api("GET", "/storage").json
    assert (after["last_pruning"]["state"], after["last_pruning"]["removed"]) == ("done", [])
    assert after["measured_at"]
    metrics = api.client.get("/metrics").text
    assert 'dockwarden_table_bytes{table="scan"}' in metrics
    assert "dockwarden_pruning_failed 0.0" in metrics
    assert [e["action"] for e in api("GET", "/audit-log").json["items"]].count("retention.request") == 2
