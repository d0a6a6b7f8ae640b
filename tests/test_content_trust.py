"""Signing with the real clients turns the service's decision from deny to allow; taking the signer out turns it
back.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from scanner.config import Settings
from tests.notary_lab import NotaryLab
from tests.servers import Authority, Dockwarden, Registry
from tests.test_end_to_end import dockwarden

POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {{name: signed-by-alice}}
match: {{images: ["{scope}"]}}
rules:
  - id: signed
    signature: {{scheme: notary-v1, signers: [{signer}]}}
    action: deny
"""


def decision(server: Dockwarden, image: str) -> dict[str, Any]:
    """Scan anew, and what the gate says then."""
    asked = server.api("POST", "/api/v1/scans", json={"image": image, "force": True})
    assert asked.status_code == 202, asked.text
    ends = time.monotonic() + 90
    while True:
        scan = server.api("GET", asked.headers["Location"]).json()
        if scan["state"] == "done":
            break
        assert scan["state"] in ("queued", "running", "retry_wait"), scan
        assert time.monotonic() < ends, scan
        time.sleep(0.2)
    answer = server.api("POST", "/api/v1/gate", json={"image": f"{image.rpartition(':')[0]}@{scan['digest']}"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_decision_follows_the_signature(
    server: Dockwarden, sample_layouts: Path, authority: Authority, dockerd: str, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry", authority).start()
    lab = NotaryLab(tmp_path / "notary", authority).start()
    try:
        _follow(server, sample_layouts, authority, dockerd, registry, lab, tmp_path)
    finally:
        lab.stop()
        registry.stop()


def _follow(
    server: Dockwarden, layouts: Path, authority: Authority, dockerd: str, registry: Registry, lab: NotaryLab, tmp: Path
) -> None:
    gun = f"{registry.host}/team/app"
    image, scope, ca = f"{gun}:1", f"{registry.host}/team/**", authority.file.read_text()
    admin, alice, bob = (lab.person(name, dockerd, registry.host) for name in ("admin", "alice", "bob"))
    registry.push(f"oci:{layouts / 'shop/good'}", "team/app:1")
    added = server.api("POST", "/api/v1/registries", json={"host": registry.host, "ca_pem": ca})
    assert added.status_code in (200, 201), added.text

    for person in (alice, bob):
        person.docker("trust", "key", "generate", person.name, "--dir", str(tmp))
        admin.docker("trust", "signer", "add", "--key", str(tmp / f"{person.name}.pub"), person.name, gun)
    shown = json.loads(admin.docker("trust", "inspect", gun))[0]
    root = next(key for key in shown["AdministrativeKeys"] if key["Name"] == "Root")["Keys"][0]["ID"]

    # Whom a policy names must be known: a typo would deny for ever.
    written = {"text": POLICY.format(scope=scope, signer="alice")}
    early = server.api("PUT", "/api/v1/policies/signed-by-alice", json=written)
    assert early.status_code == 422
    assert "line 7, column 36" in early.text
    assert "there is no signer 'alice'" in early.text
    document = {"mode": "cert_ids", "ids": [root], "server": lab.url, "ca": ca, "signers": ["alice", "bob"]}
    made = server.api(
        "PUT", "/api/v1/trust-roots/team", json={"scheme": "notary-v1", "scope": [scope], "document": document}
    )
    assert made.status_code == 201, made.text
    typo = server.api(
        "PUT", "/api/v1/policies/signed-by-alice", json={"text": POLICY.format(scope=scope, signer="alcie")}
    )
    assert "did you mean 'alice'" in typo.text
    assert server.api("PUT", "/api/v1/policies/signed-by-alice", json=written).status_code == 201

    before = decision(server, image)
    assert (before["verdict"], before["undecided"]) == ("deny", False)
    assert "not signed as required by one of alice" in before["reasons"][0]["message"]

    alice.docker("pull", image)
    alice.docker("trust", "sign", image)
    bob.docker("trust", "sign", image)
    signed = decision(server, image)
    assert signed["verdict"] == "allow", signed["reasons"]
    (reason,) = signed["reasons"]
    assert reason["kind"] == "satisfied"
    assert "alice (key " in reason["message"]
    assert "role targets/alice, until 20" in reason["message"]
    assert "trusted by team" in reason["message"]
    assert signed["valid_until"]
    stored = server.api("GET", f"/api/v1/images/{signed['digest']}/signatures").json()["items"]
    assert {item["verification"]["status"] for item in stored if item["verification"]["scheme"] == "notary-v1"} == {
        "verified"
    }

    # The command line says the same, without the service.
    (tmp / "trust.json").write_text(json.dumps(document))
    told = dockwarden(
        Settings(home=tmp / "home"),
        "trust",
        "inspect",
        image,
        "--ca-file",
        str(authority.file),
        "--trust",
        f"notary-v1={tmp / 'trust.json'}",
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "✓ verified" in told.stdout
    assert "alice" in told.stdout

    admin.notary("delegation", "remove", "-p", "-y", gun, "targets/alice")
    after = decision(server, image)
    assert (after["verdict"], after["undecided"]) == ("deny", False)
    assert "not signed as required by one of alice" in after["reasons"][0]["message"]

    lab.stop()
    unknown = decision(server, image)
    assert (unknown["verdict"], unknown["undecided"]) == ("deny", True)
    assert unknown["reasons"][0]["slug"] == "signature_unknown"
    refused = server.api("DELETE", "/api/v1/trust-roots/team")
    assert refused.status_code == 204, "no policy in force names the root itself"
