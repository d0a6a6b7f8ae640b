"""Secrets in command lines: what is found, what is no secret, and that nothing of one is left."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from scanner import catalog
from scanner.model.secret_arguments import REDACTED, find_secrets, redact, without_secrets
from scanner.model.workload_audit import AuditReport
from scanner.policy.rules import default_policy
from scanner.reports.base import AuditSubject
from scanner.services import workload_documents, workloads

SECRET = "hunter2-Zq"
LINES = (
    ("--password=" + SECRET,),
    ("app", "--db-password", SECRET),
    ("app", "-password", SECRET),
    ("env", f"API_TOKEN={SECRET}", "app"),
    ("docker", "run", "-e", f"TOKEN={SECRET}", "x"),
    ("docker", "login", "-u", "me", "-p", SECRET),
    ("java", f"-Dspring.datasource.password={SECRET}", "-jar", "x.jar"),
    ("app", f"--dbPassword={SECRET}"),
    ("app", "--dsn", f"postgres://me:{SECRET}@db/shop"),
    ("sh", "-c", f"mysqldump -uroot -p{SECRET} shop | gzip > /x"),
    ("sh", "-c", f"export DB_PASSWORD='{SECRET} and more'; exec app"),
    ("sh", "-c", f'true && app --api-key "{SECRET}"'),
    ("sh", "-c", f"curl -fsS -u me:{SECRET} http://localhost/ || exit 1"),
    ("curl", "-H", f"Authorization: Bearer {SECRET}", "http://x"),
    ("redis-server", "--requirepass", SECRET),
    ("sshpass", "-p", SECRET, "ssh", "host"),
    ("app", f"--basic-auth=me:{SECRET}"),
    ("app", f"PASSWORD={SECRET} {SECRET}"),
    ("app", "ghp_" + SECRET.replace("-", "") * 4),
)
HARMLESS = (
    (),
    ("nginx", "-g", "daemon off;"),
    ("app", "--password-file=/run/secrets/x", "--token-ttl=3600", "--auth=jwt", "--max-tokens", "100"),
    ("app", "--password=$(PASSWORD)", "--token=${TOKEN}", "--secret=true", "--password", "--verbose"),
    ("sh", "-c", 'app --password="$(cat /run/secrets/x)" --token $TOKEN'),
    ("ingress", "--default-ssl-secret=shop/tls", "--secret", "shop/tls"),
    ("docker", "run", "-p", "8080:80", "nginx"),
    ("mysql", "-p", "shop"),
    ("cp", "-p", "a", "b"),
    ("app", "http://localhost:8080/a@b", "--monkey=banana", "--keyboard", "de"),
    ("app", "'" * 5000, "a=" * 5000, "--" * 5000),
)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_secret_is_found_and_nothing_of_it_is_left(words: tuple[str, ...]) -> None:
    assert find_secrets(words)
    told = redact(words)
    assert SECRET.partition("-")[0] not in " ".join(told)
    assert REDACTED in " ".join(told)
    # A server checks what it was sent: the finding must not end because the secret is gone.
    assert {each.name for each in find_secrets(told)} == {each.name for each in find_secrets(words)}
    assert redact(told) == told


def test_a_long_script_does_not_end_the_search_before_it() -> None:
    words = ("app", "--password", SECRET, "sh", "-c", f"app --token {SECRET} " + "x " * 6000)
    assert SECRET not in " ".join(redact(words))


@pytest.mark.parametrize("words", HARMLESS, ids=str)
def test_references_and_names_are_no_secrets(words: tuple[str, ...]) -> None:
    assert redact(words) == words


@pytest.mark.parametrize(
    ("source", "document"),
    [
        ("compose", f"services: {{web: {{image: a, command: [app, --password={SECRET}]}}}}"),
        ("kubernetes", "{{apiVersion: v1, kind: Pod, spec: {{containers: [{{image: a, args: [--token, {0}]}}]}}}}"),
        (
            "docker",
            '[{{"Name": "/a", "HostConfig": {{}}, '
            '"Config": {{"Image": "a", "Entrypoint": ["app", "--password", "{0}"]}}}}]',
        ),
        (
            "swarm",
            '[{{"Spec": {{"Name": "a", "TaskTemplate": {{"ContainerSpec": {{"Image": "a", '
            '"Args": ["--password={0}"]}}}}}}}}]',
        ),
        (
            "ecs",
            '{{"family": "a", "containerDefinitions": [{{"image": "a", "healthCheck": '
            '{{"command": ["CMD-SHELL", "curl -u a:{0} http://x || exit 1"]}}}}]}}',
        ),
        ("marathon", '{{"id": "/a", "cmd": "app --password {0}", "container": {{"docker": {{"image": "a"}}}}}}'),
    ],
)
def test_no_report_and_no_document_has_a_secret_of_a_command_line(source: str, document: str) -> None:
    text = document if source == "compose" else document.format(SECRET)
    (workload,) = catalog.workload_sources()[source].parse(text, "f")
    now = datetime(2026, 5, 1, tzinfo=UTC)
    policy = default_policy(catalog.known_names())
    report = workloads.decide(workload, workloads.check(workload, None), policy, now)
    assert any(reason.subject == "secrets-in-arguments" for reason in report.reasons)
    audit = AuditSubject(AuditReport(("f",), (report,), "default", now, "1"), {}, {}, show_all=True)
    for name, form in catalog.reports().items():
        if form.renders_audits:
            assert SECRET not in form.render_audit(audit), name
    sent = workload_documents.document(workload)
    assert SECRET not in json.dumps(sent)
    # An agent of another make sends the values: the server removes them before it stores anything.
    raw = {**sent, "command": ["app", f"--password={SECRET}"], "processes": [f"app --token {SECRET}"]}
    raw["probes"] = [{"kind": "liveness", "command": ["redis-cli", "-a", SECRET]}]
    stored = workload_documents.without_values(raw)
    assert SECRET not in json.dumps(stored)
    assert workload_documents.workload(workload_documents.encode(stored)).command == ("app", f"--password={REDACTED}")


def test_headers_of_a_probe_are_replaced_too() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\nspec: {containers: [{name: w, image: a, livenessProbe: "
        "{httpGet: {port: 80, httpHeaders: [{name: Authorization, value: Bearer hunter2x}]}}}]}\n"
    )
    (read,) = catalog.workload_sources()["kubernetes"].parse(text)
    assert without_secrets(read).probes[0].headers == (f"Authorization: Bearer {REDACTED}",)
    assert "hunter2x" not in str(workload_documents.without_values(read.facts()))
