"""``dockwarden gate``: an answer that fits on a screen, and errors that say what to set."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from scanner.commands._client import Answer, Client, describe
from scanner.config import Secret, Settings
from scanner.errors import RemoteError
from tests.servers import Authority, free_port
from tests.test_end_to_end import dockwarden


def reason(rule: str, subject: str, **more: Any) -> dict[str, Any]:
    return {
        "rule": rule,
        "kind": "violation",
        "action": "deny",
        "message": f"{subject} is there",
        "subject": subject,
        **more,
    }


def debian() -> dict[str, Any]:
    """The answer about a Debian image as it comes from a mirror: hundreds of vulnerabilities, a dozen checks."""
    reasons = [reason("fixable", f"CVE-2026-{number:04}") for number in range(40)]
    reasons += [reason("severe", f"CVE-2025-{number:04}", action="warn") for number in range(110)]
    reasons += [reason("hardening", name, action="warn") for name in ("healthcheck", "setuid-files", "sudo")]
    reasons += [reason(f"rule-{number}", f"check-{number}") for number in range(8)]
    reasons += [reason("accepted", "CVE-2024-1", kind="exempted"), reason("x", "trivy", kind="incomplete")]
    changes = [{"action": "upgrade", "target": f"package-{n}", "detail": "to 2.0 " * 40} for n in range(25)]
    return {"verdict": "deny", "undecided": False, "image": "r.example.com/a:1", "reasons": reasons, "changes": changes}


def test_a_debian_image_takes_ten_lines() -> None:
    lines = describe(Answer(debian(), pending=False)).splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 120
    assert lines[0] == "✕ DENY  r.example.com/a:1"
    assert "fixable: 40 findings: CVE-2026-0000, CVE-2026-0001, CVE-2026-0002, CVE-2026-0003 and 36 more" in lines[1]
    assert lines[1].startswith("  deny"), "what denies comes first"
    assert re.search(r"\d+ more reasons and 23 more changes \(--all shows them\)", lines[-1])


def test_all_of_it() -> None:
    text = describe(Answer(debian(), pending=False), show_all=True)
    assert "--all" not in text
    assert all(f"check-{number} is there" in text for number in range(8))
    assert text.count("- Upgrade") == 25
    assert "unknown: trivy is there" in text
    assert "accepted" in text


@pytest.mark.parametrize("broken", [{"kind": "new kind"}, {"kind": ["x"]}, {"action": "sing"}, {"rule": None}])
def test_a_reason_that_cannot_be_read_looks_no_better_than_it_is(broken: dict[str, Any]) -> None:
    document = {"verdict": "deny", "undecided": False, "image": "a", "reasons": [{**reason("r", "s"), **broken}]}
    text = describe(Answer(document, pending=False))
    assert text.startswith("✕ DENY  a\n  deny ")


@pytest.fixture
def secured(authority: Authority) -> Iterator[HTTPServer]:
    crt, key = authority.issue("gate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    with HTTPServer(ssl_context=context) as server:
        server.expect_request("/api/v1/gate").respond_with_json({"verdict": "allow", "undecided": False, "image": "a"})
        yield server


def test_a_private_authority(settings: Settings, secured: HTTPServer, authority: Authority, tmp_path: Path) -> None:
    where = {"DOCKWARDEN_SERVER": secured.url_for("").rstrip("/"), "DOCKWARDEN_TOKEN": "dw_x"}
    done = dockwarden(settings, "gate", "a/b:1", **where)
    assert (done.returncode, done.stdout) == (3, "")
    assert "TLS certificate is not trusted" in done.stderr
    assert "--ca-file" in done.stderr
    assert dockwarden(settings, "gate", "a/b:1", "--ca-file", str(authority.file), **where).returncode == 0
    assert dockwarden(settings, "gate", "a/b:1", **where, DOCKWARDEN_CA_FILE=str(authority.file)).returncode == 0
    assert "dw_x" not in done.stderr


@pytest.mark.parametrize(
    ("hosts", "days", "hint"),
    [
        (("gate.example.com",), 30, "use an address that the certificate is for"),
        (("localhost",), -1, "renew the certificate"),
    ],
    ids=["another name", "expired"],
)
def test_trusting_an_authority_is_no_remedy_for_another_name_or_time(
    settings: Settings, authority: Authority, hosts: tuple[str, ...], days: int, hint: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("refused", hosts, days))
    with HTTPServer(ssl_context=context) as server:
        where = {"DOCKWARDEN_SERVER": server.url_for("").rstrip("/"), "DOCKWARDEN_TOKEN": "dw_x"}
        done = dockwarden(settings, "gate", "a/b:1", "--ca-file", str(authority.file), **where)
    assert (done.returncode, f"hint: {hint}" in done.stderr) == (3, True), done.stderr


def test_a_server_that_does_not_answer(settings: Settings) -> None:
    done = dockwarden(settings, "gate", "a/b:1", DOCKWARDEN_SERVER=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 3
    assert "DOCKWARDEN_SERVER" in done.stderr
    assert "--ca-file" in done.stderr


@pytest.mark.parametrize("command", [["gate", "a/b:1"], ["policy", "simulate", "{policy}"]], ids=" ".join)
def test_what_is_not_set_is_named(
    settings: Settings, httpserver: HTTPServer, tmp_path: Path, command: list[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    head = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: x}\n"
    policy.write_text(head + "rules:\n  - {id: a, check: root-user, action: deny}\n")
    words = [word.format(policy=policy) for word in command]
    nowhere = dockwarden(settings, *words)
    assert (nowhere.returncode, "DOCKWARDEN_SERVER" in nowhere.stderr) == (2, True), nowhere.stderr
    httpserver.expect_request(re.compile(".*")).respond_with_json(
        {"title": "no", "reason": "not_signed_in"}, status=401
    )
    server = httpserver.url_for("").rstrip("/")
    unknown = dockwarden(settings, *words, "--server", server)
    assert (unknown.returncode, "DOCKWARDEN_TOKEN" in unknown.stderr) == (2, True), unknown.stderr
    assert "token create" in unknown.stderr
    wrong = dockwarden(settings, *words, "--server", server, DOCKWARDEN_TOKEN="dw_wrong")
    assert (wrong.returncode, "DOCKWARDEN_TOKEN" in wrong.stderr) == (2, True), wrong.stderr


@pytest.fixture
def asked(httpserver: HTTPServer) -> dict[str, str]:
    document = {"verdict": "allow", "undecided": False, "image": "a/b:1", "reasons": [], "changes": []}
    document["reports"] = {"sarif": "{}", "markdown": "# fine"}
    httpserver.expect_request("/api/v1/gate").respond_with_json(document)
    return {"DOCKWARDEN_SERVER": httpserver.url_for("").rstrip("/"), "DOCKWARDEN_TOKEN": "dw_x"}


def test_reports_for_a_pipeline(
    settings: Settings, httpserver: HTTPServer, asked: dict[str, str], tmp_path: Path
) -> None:
    sarif, output = tmp_path / "out.sarif", tmp_path / "out.md"
    done = dockwarden(
        settings, "gate", "a/b:1", "--report", f"sarif={sarif}", "--report", f"markdown={output}", **asked
    )
    assert (done.returncode, sarif.read_text(), output.read_text()) == (0, "{}\n", "# fine\n"), done.stderr
    assert "ALLOW" in done.stdout
    assert httpserver.log[0][0].get_json()["reports"] == ["sarif", "markdown"]


def test_a_report_that_the_server_left_out_is_no_success(settings: Settings, asked: dict[str, str]) -> None:
    done = dockwarden(settings, "gate", "a/b:1", "--format", "junit", **asked)
    assert (done.returncode, done.stdout) == (3, "")
    assert "junit" in done.stderr


def test_a_pending_answer_is_a_failed_report(settings: Settings, httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/api/v1/gate").respond_with_json({"scan": "x", "retry_after": 1}, status=202)
    where = {"DOCKWARDEN_SERVER": httpserver.url_for("").rstrip("/"), "DOCKWARDEN_TOKEN": "dw_x"}
    junit = tmp_path / "junit.xml"
    done = dockwarden(settings, "gate", "a/b:1", "--wait", "0", "--report", f"junit={junit}", **where)
    assert done.returncode == 4, done.stderr
    assert 'errors="1"' in junit.read_text()


def test_a_pending_answer_says_why_the_last_attempt_failed(httpserver: HTTPServer) -> None:
    waits = {"scan": "x", "state": "retry_wait", "message": "cannot reach registry.example.com", "retry_after": 0}
    httpserver.expect_ordered_request("/api/v1/gate").respond_with_json(waits, status=202)
    httpserver.expect_ordered_request("/api/v1/gate").respond_with_json(debian())
    told: list[str] = []
    client = Client(httpserver.url_for("").rstrip("/"), Secret("dw_x"), None)
    assert not client.gate("a/b:1", environment="", workload=None, wait=60, progress=told.append).pending
    assert told == ["pending: scan x; the last attempt failed: cannot reach registry.example.com"]


def test_too_many_new_images_are_asked_for_again_within_the_wait(settings: Settings, httpserver: HTTPServer) -> None:
    limited = {"reason": "rate_limited", "detail": "too many requests", "hint": "wait 3 seconds"}
    httpserver.expect_ordered_request("/api/v1/gate").respond_with_json(limited, status=429)
    httpserver.expect_ordered_request("/api/v1/gate").respond_with_json(debian())
    told: list[str] = []
    client = Client(httpserver.url_for("").rstrip("/"), Secret("dw_x"), None)
    ask = partial(client.gate, "a/b:1", environment="", workload=None, progress=told.append)
    assert not ask(wait=1).pending
    assert told == ["the server answered: too many requests; asking again"]
    httpserver.clear()
    httpserver.expect_request("/api/v1/gate").respond_with_json(limited, status=429)
    with pytest.raises(RemoteError, match="too many requests"):
        ask(wait=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [("sarif", "has no file"), ("sariff=x", "no report format"), ("sarif=missing/x", "cannot write")],
)
def test_a_wrong_report_option_is_named_before_the_server_is_asked(
    settings: Settings, asked: dict[str, str], httpserver: HTTPServer, value: str, message: str
) -> None:
    done = dockwarden(settings, "gate", "a/b:1", "--report", value, **asked)
    assert (done.returncode, message in done.stderr, httpserver.log) == (2, True, []), done.stderr
