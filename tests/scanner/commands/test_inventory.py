"""``inventory push``: what runs is told to a server, once or repeatedly; a failure never looks like a report."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from scanner import __version__, catalog
from scanner.commands import _client, inventory
from scanner.config import Secret
from scanner.errors import RefusedError, UsageError
from tests.scanner.workloads import sins
from tests.servers import Dockwarden

OK = (200, {"source": {"contested": False}, "added": 0, "scans": []})
AWAY = (503, {"detail": "the database does not answer", "reason": "db_unavailable"})
TAKEN = (409, {"detail": "another agent reports this source: b docker", "reason": "another_agent", "hint": "--name"})
REFUSED = (401, {"detail": "the token is not valid", "reason": "unauthorized"})
COMMAND = [sys.executable, "-m", "scanner.cli", "inventory", "push"]


def push(
    *arguments: str, token: str = "", stdin: str = "", home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKWARDEN_TOKEN": token}
    return subprocess.run(
        [*COMMAND, *arguments, "--environment", "test"],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment,
        timeout=60,
        check=False,
    )


def workloads(server: Dockwarden, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.api("GET", "/api/v1/workloads?limit=200&environment=test").json()["items"]
    return [item for item in found if item["source_name"] == name]


@pytest.fixture(scope="module")
def token(server: Dockwarden) -> str:
    made = server.api("POST", "/api/v1/tokens", json={"name": "agent", "scopes": ["inventory"]})
    text: str = made.json()["token"]
    return text


def test_a_file_and_a_stream_are_reported(server: Dockwarden, token: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(sins.COMPOSE_BAD)
    done = push(f"compose:{file}", "--server", server.url, "--name", "shop", token=token)
    assert done.returncode == 0, done.stderr
    assert "1 workload reported; 1 added" in done.stderr
    again = push(f"compose:{file}", "--server", server.url, "--name", "shop", token=token)
    assert "nothing changed" in again.stderr
    done = push("kubernetes:-", "--server", server.url, "--name", "shop", token=token, stdin=sins.KUBERNETES_BAD)
    assert done.returncode == 0, done.stderr
    assert {item["source"] for item in workloads(server, "shop")} == {"compose", "kubernetes"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("kubernetes:-",), "{{ template }}", 2, "standard input"),
        (("vmware:x",), "", 2, "unknown source"),
        (("kubernetes:-", "--watch", "10"), "", 2, "standard input"),
        (("kubernetes:-", "--name", "x" * 300), sins.KUBERNETES_BAD, 2, "name"),
        # What a program leaves that fails halfway: taken for everything, it would make what runs look stopped.
        (("kubernetes:-",), "", 2, "no document"),
        (("kubernetes:-",), '{"apiVersion": "v1", "kind": "List", "items": []}', 2, "no workload"),
        (("kubernetes:-",), sins.KUBERNETES_BAD[:-20], 2, "in the middle of a line"),
    ],
)
def test_what_cannot_be_reported_is_said(
    server: Dockwarden, token: str, arguments: tuple[str, ...], stdin: str, code: int, said: str
) -> None:
    done = push(*arguments, "--server", server.url, token=token, stdin=stdin)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_token_of_another_scope_and_a_server_that_is_away_are_told_apart(server: Dockwarden) -> None:
    other = server.api("POST", "/api/v1/tokens", json={"name": "gate", "scopes": ["gate"]}).json()["token"]
    refused = push("kubernetes:-", "--server", server.url, token=other, stdin=sins.KUBERNETES_BAD)
    assert (refused.returncode, "inventory" in refused.stderr) == (2, True), refused.stderr
    away = push("kubernetes:-", "--server", "http://127.0.0.1:1", stdin=sins.KUBERNETES_BAD)
    assert away.returncode == 3, away.stderr


def test_watching_reports_what_changes_and_ends_with_a_signal(server: Dockwarden, token: str, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(sins.KUBERNETES_BAD)
    command = [*COMMAND, f"kubernetes:{file}", "--server", server.url, "--environment", "test", "--watch", "5"]
    environment = {**os.environ, "DOCKWARDEN_TOKEN": token}
    process = subprocess.Popen([*command, "--name", "watched"], env=environment)
    try:
        wait_until(lambda: len(workloads(server, "watched")) == 1)
        file.write_text("{{ not rendered }}")  # one broken report ends nothing, and takes nothing away
        time.sleep(6)
        file.write_text(sins.KUBERNETES_BAD + "---\n" + sins.KUBERNETES_BAD.replace("name: web", "name: other"))
        wait_until(lambda: len(workloads(server, "watched")) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


def wait_until(condition: Any) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.3)


class Scripted(BaseHTTPRequestHandler):
    """A server that gives the answers of a script, and has the bodies that it was sent."""

    answers: ClassVar[Iterator[tuple[int, dict[str, Any]]]]
    sent: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        self.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, document = next(self.answers)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


class Pauses(threading.Event):
    """An agent's flag to stop: pauses take no time, and between two reports the test may change something."""

    def __init__(self, *between: Callable[[], object]) -> None:
        super().__init__()
        self.between, self.taken = list(between), list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        self.taken.append(timeout or 0)
        if not self.between:
            self.set()
        else:
            self.between.pop(0)()
        return self.is_set()


Watch = Callable[..., tuple[Pauses, list[dict[str, Any]]]]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Watch a file, with these answers of the server and, between the reports, these texts of the file."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = tmp_path / "web.yaml"
        file.write_text(sins.KUBERNETES_BAD)

        def watched(*answers: tuple[int, dict[str, Any]], texts: Sequence[str] = ()) -> Any:
            Scripted.answers, Scripted.sent = iter(answers), []
            client = _client.Client(f"http://127.0.0.1:{server.server_port}", Secret("dw_x"))
            agent = inventory._Agent(client, f"kubernetes:{file}", "test", "shop", 60)
            steps = [partial(file.write_text, each) for each in texts] or [lambda: None] * (len(answers) - 1)
            agent._stop = pauses = Pauses(*steps)
            agent.watch(60)
            return pauses, Scripted.sent

        yield watched
        server.shutdown()
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_an_outage_is_written_once_and_its_end_too(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    pauses, sent = watch(OK, OK, AWAY, AWAY, AWAY, OK, OK)
    assert capsys.readouterr().err.splitlines() == [
        "1 workload reported; nothing changed",
        "dockwarden: the server answered: the database does not answer",
        "the last report stays; trying again with growing pauses, up to 10 minutes",
        "reported again after 3 failed tries: 1 workload reported; nothing changed",
    ]
    assert pauses.taken == [60, 60, 60, 120, 240, 60, 60]
    assert {(each["every_seconds"], len(each["workloads"])) for each in sent} == {(60, 1)}
    assert {each["agent"] for each in sent} == {f"{socket.gethostname()} kubernetes:{sent[0]['agent'].split(':')[1]}"}


def test_what_cannot_be_read_in_between_is_no_report(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is being written is not whole, and what it does not contain yet was not stopped."""
    _, sent = watch(OK, OK, texts=["", "kind: [", "a: &a [*a]", sins.KUBERNETES_BAD])
    assert [len(each["workloads"]) for each in sent] == [1, 1]
    assert "reported again after 3 failed tries" in capsys.readouterr().err


def test_an_agent_that_is_newer_than_the_server_says_so(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    told = f"if the server is older than this agent ({__version__}), update it; this server is 1.0"
    for status, reason in ((404, "not_found"), (400, "invalid")):
        with pytest.raises(UsageError) as caught:
            watch((status, {"detail": "unknown field", "reason": reason, "hint": "this server is 1.0"}))
        assert caught.value.hint == told
    watch((400, {"detail": "not a workload", "reason": "bad_workload", "hint": "this server is 1.0"}), OK)
    assert told in capsys.readouterr().err


def test_two_agents_that_report_one_source_are_named_by_both(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    contested = (200, {"source": {"contested": True, "refused_agent": "c docker"}})
    watch(TAKEN, TAKEN, contested, contested)
    said = capsys.readouterr().err
    assert said.count("another agent reports this source: b docker") == 1
    assert said.count("warning: another agent reports this source and was refused: c docker") == 1


def test_a_token_that_is_refused_later_ends_the_agent_with_what_to_do(watch: Watch) -> None:
    with pytest.raises(RefusedError) as refused:
        watch(OK, AWAY, REFUSED)
    assert "expired, was revoked or was replaced" in refused.value.hint
    with pytest.raises(RefusedError) as refused:
        watch(REFUSED)
    assert "DOCKWARDEN_TOKEN" in refused.value.hint


def test_a_mistake_ends_an_agent_that_has_not_reported_yet(watch: Watch) -> None:
    missing = (404, {"detail": "there is no such path", "reason": "not_found"})
    with pytest.raises(UsageError):
        watch(missing)
    pauses, _ = watch(OK, missing, OK)  # a proxy's answer while the server is replaced
    assert len(pauses.taken) == 3


def test_the_kubernetes_example_reads_only_and_is_run_well() -> None:
    text = (Path(__file__).parents[3] / "examples/kubernetes/inventory.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    rules = next(d for d in documents if d["kind"] == "ClusterRole")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list"}
    assert not {"secrets", "configmaps", "*"} & {resource for rule in rules for resource in rule["resources"]}
    from scanner.services import workloads as services

    for workload in catalog.workload_sources()["kubernetes"].parse(text, "inventory.yaml"):
        failed = {r.check for r in services.check(workload, None) if r.outcome.kind == "failed"}
        dangerous = {c.id for c in catalog.workload_checks().values() if "workload-danger" in c.tags}
        assert not failed & dangerous, json.dumps(sorted(failed))


def test_what_runs_is_listed_with_the_checks_that_failed(server: Dockwarden, token: str, tmp_path: Path) -> None:
    reader = server.api("POST", "/api/v1/tokens", json={"name": "reader", "scopes": ["read"]}).json()["token"]

    def listed(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scanner.cli", "inventory", "list", "--server", server.url, *arguments]
        environment = {**os.environ, "DOCKWARDEN_TOKEN": reader}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    image = "registry.example.com/lists/web:1.4@sha256:"
    for environment, digit in (("test", "a"), ("other", "b")):
        file = tmp_path / f"{environment}.yaml"
        file.write_text(yaml.safe_dump({"services": {f"web-{environment}": {"image": image + digit * 64}}}))
        command = [*COMMAND, f"compose:{file}", "--environment", environment, "--server", server.url]
        environ = {**os.environ, "DOCKWARDEN_TOKEN": token}
        subprocess.run([*command, "--name", "lists"], env=environ, timeout=60, check=True, capture_output=True)
    done = listed("--check", "digest-differs-elsewhere", "--environment", "other")
    assert done.returncode == 0, done.stderr
    assert "other  web-other  registry.example.com/lists/web:1.4@sha256:bbb" in done.stdout
    assert "digest-differs-elsewhere" in done.stdout
    assert "web-test" not in done.stdout
    found = json.loads(listed("--format", "json", "--most", "1").stdout)
    assert (len(found["items"]), found["more"]) == (1, True)
    assert listed("--environment", "nowhere").stdout == "No workload matches.\n"
    assert listed("--check", "no-such-check").returncode == 2


def test_an_audit_knows_what_the_server_knows(server: Dockwarden, token: str, tmp_path: Path) -> None:
    """The digest that another environment runs under the same tag is a finding, at its line."""
    gate = server.api("POST", "/api/v1/tokens", json={"name": "gate", "scopes": ["gate"]}).json()["token"]
    image = "registry.example.com/joined/web:1.4@sha256:"
    running, file = tmp_path / "running.yaml", tmp_path / "compose.yaml"
    running.write_text(yaml.safe_dump({"services": {"web": {"image": image + "a" * 64}}}))
    file.write_text(f"services:\n  web:\n    user: '1000'\n    image: {image + 'b' * 64}\n")
    assert push(f"compose:{running}", "--server", server.url, "--name", "joined", token=token).returncode == 0
    command = [sys.executable, "-m", "scanner.cli", "audit", f"compose:{file}", "--format", "json"]

    def audited(*arguments: str) -> dict[str, Any]:
        environ = {**os.environ, "DOCKWARDEN_TOKEN": gate}
        done = subprocess.run([*command, *arguments], env=environ, timeout=60, check=False, capture_output=True)
        assert done.stdout, done.stderr
        (workload,) = json.loads(done.stdout)["audit"]["workloads"]
        return {each["check"]: each["outcome"] for each in workload["checks"]}

    asked = audited("--server", server.url, "--wait", "0", "--environment", "staging")
    outcome = asked["digest-differs-elsewhere"]
    assert outcome["kind"] == "failed"
    assert (outcome["evidence"][0]["path"], outcome["evidence"][0]["line"]) == (str(file), 4)
    alone = audited()
    assert alone["digest-differs-elsewhere"]["kind"] == "not-applicable"
    assert {**asked, "digest-differs-elsewhere": 0} == {**alone, "digest-differs-elsewhere": 0}
