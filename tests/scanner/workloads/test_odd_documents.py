"""Odd and hostile documents of each source: refused at their line, or judged as what would run. Never skipped."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.finding import Failed
from scanner.model.workload import Workload
from scanner.services.workloads import check
from scanner.workloads import _documents
from tests.scanner.workloads.sins import BAD

PLACE = re.compile(r"f:\d+:\d+: ")
SOURCES = sorted(BAD)
_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


def read(source: str, text: str | bytes) -> tuple[Workload, ...]:
    return catalog.workload_sources()[source].parse(text, "f")


def failed(workload: Workload) -> set[str]:
    return {each.check for each in check(workload, None) if isinstance(each.outcome, Failed)}


def as_yaml(source: str) -> str:
    return yaml.safe_dump(yaml.safe_load(BAD[source]), sort_keys=False)


# Kinds of text that say the same as the document itself.
SAME: dict[str, Callable[[str], str | bytes]] = {
    "a byte order mark": lambda text: "\ufeff" + text,
    "a byte order mark in bytes": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "markers around it": lambda text: f"---\n{text}...\n---\n",
    "empty documents beside it": lambda text: f"---\n---\n# nothing\n---\n{text}---\nnull\n---\n~\n",
    "a comment and a directive": lambda text: f"# a comment\n%YAML 1.1\n---\n{text}",
    "no newline at its end": lambda text: text.rstrip("\n"),
    "as JSON": lambda text: json.dumps(yaml.safe_load(text)),
    "as JSON with spaces": lambda text: "\n\t " + json.dumps(yaml.safe_load(text), indent="\t") + "\r\n",
}
# Kinds of text that no runtime reads, each beside a good document: none of them may be left out.
REFUSED: dict[str, tuple[Callable[[str], str | bytes], str]] = {
    "UTF-16": (lambda text: text.encode("utf-16"), "f:1:1: not UTF-8 text"),
    "Latin 1": (lambda text: text.encode() + b"# caf\xe9\n", r"f:\d+:6: not UTF-8 text"),
    "a control character": (lambda text: f"{text}---\na: b\x07\n", r"f:\d+:5: .*U\+0007"),
    "a NUL": (lambda text: f'{text}---\na: "\\0"\n', r"f:\d+:4: a NUL character"),
    "a tab as indentation": (lambda text: f"{text}---\na:\n\tb: 1\n", r"f:\d+:1: "),
    "a template": (lambda text: f"{text}---\n{{{{ if .Values.x }}}}\na: 1\n", r"f:\d+:2: an unrendered template"),
    "a key twice": (lambda text: f"{text}---\na: 1\nb: 2\na: 3\n", r"f:\d+:1: duplicate key 'a'"),
    "an alias bomb": (lambda text: f"{text}---\n{_BOMB}", r"f:\d+:\d+: too many values"),
    "an alias of nothing": (lambda text: f"{text}---\na: *x\n", r"f:\d+:4: "),
    "an alias inside of itself": (lambda text: f"{text}---\na: &x [*x]\n", r"f:\d+:\d+: "),
    "deep nesting": (lambda text: f"{text}---\na: {'[' * 300}{']' * 300}\n", r"f:\d+:\d+: nested deeper"),
    "an unknown tag": (lambda text: f"{text}---\na: !!python/object:os.system x\n", r"f:\d+:4: unknown tag !!python"),
    "a binary value": (lambda text: f"{text}---\na: !!binary aGk=\n", r"f:\d+:4: unknown tag !!binary"),
    "a merge of text": (lambda text: f"{text}---\n<<: x\n", r"f:\d+:\d+: << needs a mapping"),
    "a list as key": (lambda text: f"{text}---\n? [a]\n: b\n", r"f:\d+:3: a key must be text"),
    "no document of its kind": (lambda text: f"{text}---\njust text\n", r"f:\d+:\d+: "),
    "a list of lists": (lambda text: f"{text}---\n[[[]]]\n", r"f:\d+:\d+: "),
    "an end in the middle": (lambda text: json.dumps(yaml.safe_load(text))[:-3], r"f:\d+:\d+: "),
    "a key twice in JSON": (lambda text: text + '---\n{"a": 1, "a": 2}\n', r"f:\d+:10: duplicate key 'a'"),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", SAME)
def test_another_way_to_write_a_document_is_the_same_document(source: str, kind: str) -> None:
    expected = read(source, BAD[source])
    found = read(source, SAME[kind](as_yaml(source)))
    assert [each.facts() for each in found] == [each.facts() for each in expected]
    assert all(each.place("privileged").line for each in found)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_runtime_reads_is_refused_at_its_place(source: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_documents, "_MAX_VALUES_PER_DOCUMENT", 2000)  # counting to 500,000 takes a second
    change, told = REFUSED[kind]
    with pytest.raises(UsageError, match=told):
        read(source, change(as_yaml(source)))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("text", ["", " \n", "---\n", "---\n---\n...\n", "# nothing\n", "null\n", "\ufeff"])
def test_an_empty_text_is_no_clean_one(source: str, text: str) -> None:
    with pytest.raises(UsageError, match="f: it contains no document"):
        read(source, text)


WRONG = (None, [], {}, [None], [[]], [{}], {"x": 1}, "x", "", 3, -1, 1.5, 10**30, float("inf"), True, "2001-01-01")


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield (key,)
        if isinstance(child, dict | list):
            yield from ((key, *rest) for rest in _places(child))


@pytest.mark.parametrize("source", SOURCES)
def test_a_wrong_type_at_any_level_is_refused_at_its_place_or_read(source: str) -> None:
    """Nothing is left out: a document that is read has as many workloads as before."""
    document = yaml.safe_load(BAD[source])
    lost: list[Any] = []
    misplaced: list[Any] = []
    for path in _places(document):
        for value in WRONG:
            changed = copy.deepcopy(document)
            holder = changed
            for step in path[:-1]:
                holder = holder[step]
            holder[path[-1]] = value
            try:
                found = read(source, json.dumps(changed).replace("Infinity", "1e999"))
            except UsageError as error:
                if not PLACE.match(str(error)):
                    misplaced.append((path, value, str(error)))
            else:
                if not found:
                    lost.append((path, value))
    assert (lost, misplaced) == ([], [])


def pod(body: str = "", context: str = "", image: str = "b:1") -> str:
    """A pod whose settings begin at line 3, and whose container's settings at line 7."""
    return (
        f"apiVersion: v1\nkind: Pod\nspec:\n  {body or 'restartPolicy: Always'}\n  containers:\n"
        f"  - name: a\n    image: {image}\n    {context or 'tty: false'}\n"
    )


def service(body: str, image: str = "b:1") -> str:
    return f"services:\n  w:\n    image: {image}\n    {body}\n"


def inspected(host: str = "{}", config: str = '{"Image": "b:1"}', more: str = "") -> str:
    return f'[{{"Name": "/x",\n"Config": {config},\n"HostConfig": {host}{more}}}]'


def swarm(container: str, task: str = "") -> str:
    return f'[{{"ID": "1", "Spec": {{"Name": "s", "TaskTemplate": {{"ContainerSpec":\n{container}{task}}}}}}}]'


def task(container: str = "", more: str = "", image: str = '"b:1"') -> str:
    inner = f'{{"name": "a", "image": {image}{", " + container if container else ""}}}'
    return f'{{"family": "f", "containerDefinitions": [\n{inner}]{", " + more if more else ""}}}'


def app(docker: str = "", more: str = "", image: str = '"b:1"') -> str:
    inner = f'{{"image": {image}{", " + docker if docker else ""}}}'
    return f'{{"id": "/a", "container": {{"type": "DOCKER", "docker":\n{inner}}}{", " + more if more else ""}}}'


TOKEN = "{name: t, projected: {sources: [{serviceAccountToken: %s}]}}"
PRIVILEGED = "privileged-container"
ROOT = "runs-as-root"
NETWORK = "host-network"
# Source, document, and what it comes to: the error, or a check that fails.
VALUES: list[tuple[str, str, str]] = [
    # sigs.k8s.io/yaml reads YAML 1.1; the API server's decoder takes no text for a boolean and no boolean for text.
    ("kubernetes", pod(context="securityContext: {privileged: yes}"), PRIVILEGED),
    ("kubernetes", pod(context="securityContext: {privileged: ON}"), PRIVILEGED),
    ("kubernetes", pod(context='securityContext: {privileged: "true"}'), "f:8:23: .*must be true or false"),
    ("kubernetes", pod(context="securityContext: {privileged: 1}"), "f:8:23: .*must be true or false"),
    ("kubernetes", pod(context='securityContext: {runAsUser: "0"}'), "f:8:23: .*must be a whole number"),
    ("kubernetes", pod(context="securityContext: {runAsUser: 0.0}"), ROOT),
    ("kubernetes", pod(context="securityContext: {runAsUser: 00}"), ROOT),
    ("kubernetes", pod(context="securityContext: {runAsUser: 0x0}"), ROOT),
    ("kubernetes", pod(context="securityContext: {runAsUser: .nan}"), "f:8:23: .*must be a whole number"),
    ("kubernetes", pod(context=f"securityContext: {{runAsUser: {10**30}}}"), "f:8:23: .*64 bits"),
    ("kubernetes", pod(context='securityContext: {runAsNonRoot: "false"}'), "f:8:23: .*must be true or false"),
    ("kubernetes", pod("hostNetwork: yes"), NETWORK),
    ("kubernetes", pod('hostNetwork: "yes"'), "f:4:3: .*must be true or false"),
    ("kubernetes", pod("securityContext: {runAsUser: 1000}", "securityContext: {runAsUser: 0}"), ROOT),
    ("kubernetes", pod("securityContext: []"), "f:4:3: .*must be a mapping"),
    ("kubernetes", pod("volumes: [data]"), "f:4:13: .*must be a mapping"),
    ("kubernetes", pod("volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}]"), "f:4:13: .*more than one type"),
    (
        "kubernetes",
        pod(f"automountServiceAccountToken: false\n  volumes: [{TOKEN % '{path: t}'}]"),
        "service-account-token",
    ),
    ("kubernetes", pod(context="securityContext: {capabilities: {add: SYS_ADMIN}}"), "f:8:38: .*must be a list"),
    ("kubernetes", pod(context="securityContext: {capabilities: {add: [1]}}"), "f:8:44: .*must be text"),
    ("kubernetes", pod(context="<<: {securityContext: {privileged: true}}"), PRIVILEGED),
    ("kubernetes", pod(image="no"), "f:7:5: .*image must be text: write it in quotes"),
    ("kubernetes", pod(image="1.10"), "f:7:5: .*image must be text: write it in quotes"),
    ("kubernetes", pod(image="~"), "f:6:5: .*has no image"),
    ("kubernetes", pod(image="!!binary aGk="), "f:7:12: unknown tag !!binary"),
    ("kubernetes", pod(image="'{{ .Values.image }}'"), "f:7:5: .*unrendered template"),
    ("kubernetes", pod().replace("kind: Pod", "kind: pod"), "f:2:1: .*write Pod"),
    ("kubernetes", "apiVersion: v1\nkind: List\n", "f:1:1: .*List without items"),
    ("kubernetes", "apiVersion: v1\nkind: PodList\nmetadata: {continue: x}\nitems: []\n", "f:1:1: .*one page"),
    # compose-go casts text to booleans and numbers, and refuses what its schema calls a string.
    ("compose", service('privileged: "yes"'), PRIVILEGED),
    ("compose", service("privileged: ${X:-on}"), PRIVILEGED),
    ("compose", service("privileged: 1"), "f:4:5: .*must be true or false"),
    ("compose", service("privileged: ${X}"), "f:4:5: .*is empty: set its variable"),
    ("compose", service("user: 0"), "f:4:5: .*must be text: write it in quotes"),
    ("compose", service("user: 1e3"), "f:4:5: .*must be text: write it in quotes"),
    ("compose", service('user: "0:0"'), ROOT),
    ("compose", service("user: 0:0"), ROOT),
    ("compose", service("user: !override root"), ROOT),
    ("compose", service("<<: {user: root}"), ROOT),
    ("compose", service('user: "5"\n    post_start: [{command: x, user: root}]'), ROOT),
    ("compose", service("network_mode: [host]"), "f:4:5: .*must be text"),
    ("compose", service("pid: true"), "f:4:5: .*must be text"),
    ("compose", service("cap_add: SYS_ADMIN"), "f:4:5: .*must be a list"),
    ("compose", service("mem_limit: .nan"), "f:4:5: .*is not a size"),
    ("compose", service("deploy: {resources: {limits: {cpus: .inf}}}"), "f:4:35: .*must be a number"),
    ("compose", service("privileged: !maybe true"), "f:4:17: unknown tag !maybe"),
    ("compose", service("init: true", image="1.10"), "f:3:5: .*image must be text"),
    ("compose", service("init: true", image="${IMAGE}"), "f:3:5: .*is empty: set its variable"),
    ("compose", service("volumes: ['~/.ssh:/s']"), "sensitive-host-mounts"),
    ("compose", service("volumes: ['${HOME}:/s']"), "f:4:15: .*nothing before the colon"),
    ("compose", service("network_mode: ${MODE:?set it}"), "f:4:5: needs the variable MODE"),
    ("compose", service("cap_add: ['${CAPABILITY?}']"), "f:4:15: needs the variable CAPABILITY"),
    ("compose", service("environment: {PASSWORD: '${PASSWORD:?}'}\n    privileged: true"), PRIVILEGED),
    ("compose", "services: {}\n", "f:1:1: .*is empty"),
    ("docker", inspected('{"Privileged": "true"}'), "f:3:16: .*must be true or false"),
    ("docker", inspected('{"Privileged": NaN}'), "f:3:16: .*must be true or false"),
    ("docker", inspected('{"NetworkMode": 1}'), "f:3:16: .*must be text"),
    ("docker", inspected('{"CapAdd": "ALL"}'), "f:3:16: .*must be a list"),
    ("docker", inspected('{"Memory": 1e400}'), "f:3:16: .*whole number"),
    ("docker", inspected('{"Memory": -1}'), "memory-limit"),
    ("docker", inspected('{"PidsLimit": -1}'), "pids-limit"),
    ("docker", inspected('{"Binds": ["/:/h"]}'), "sensitive-host-mounts"),
    ("docker", inspected("[]"), "f:1:2: .*not output of docker inspect"),
    ("docker", inspected(config='{"Image": "b", "User": 0}'), "f:2:26: .*must be text"),
    ("docker", inspected(config='{"Image": "b", "User": "0:5"}'), ROOT),
    ("docker", inspected(config="{}"), "f:2:1: .*has no Image"),
    ("docker", inspected(config='{"Image": true}'), "f:2:12: .*must be text"),
    ("docker", inspected(more=', "Mounts": ["/"]'), "f:3:30: .*must be a mapping"),
    ("docker", inspected(more='}, {"a": 1'), "f:3:20: .*not output of docker inspect"),
    ("swarm", swarm('{"Image": "b", "User": 0}'), "f:2:16: .*must be text"),
    ("swarm", swarm('{"Image": "b", "User": "0:0"}'), ROOT),
    ("swarm", swarm('{"Image": 1.1}'), "f:2:2: .*must be text"),
    ("swarm", swarm("{}"), "f:1:53: .*has no Image"),
    ("swarm", swarm("null"), "f:1:36: .*has no ContainerSpec"),
    ("swarm", swarm('{"Image": "b", "CapabilityAdd": "ALL"}'), "f:2:16: .*must be a list"),
    ("swarm", swarm('{"Image": "b", "ReadOnly": "true"}'), "f:2:16: .*must be true or false"),
    ("swarm", swarm('{"Image": "b", "Privileges": []}'), "f:2:16: .*must be a mapping"),
    ("swarm", swarm('{"Image": "b"}', ', "Networks": [3]'), "f:2:30: .*must be a mapping"),
    ("swarm", swarm('{"Image": "b"}', ', "Networks": [{"Target": "host"}]'), NETWORK),
    ("swarm", swarm('{"Image": "b"}', ', "Resources": {"Limits": {"MemoryBytes": "1g"}}'), "f:2:42: .*whole number"),
    ("ecs", task('"privileged": "true"'), "f:2:31: .*must be true or false"),
    ("ecs", task('"user": 0'), "f:2:31: .*must be text"),
    ("ecs", task('"user": "00"'), ROOT),
    ("ecs", task(more='"networkMode": "HOST"'), "f:2:33: .*write one of none, bridge"),
    ("ecs", task(more='"pidMode": true'), "f:2:33: .*must be text"),
    ("ecs", task(more='"networkMode": "host"'), NETWORK),
    ("ecs", task('"memory": -1'), "memory-limit"),
    ("ecs", task('"memory": "x"'), "f:2:31: .*is not a size"),
    ("ecs", task('"cpu": -1'), "f:2:31: .*is not a number of CPU units"),
    ("ecs", task('"linuxParameters": {"capabilities": {"add": "ALL"}}'), "f:2:68: .*must be a list"),
    ("ecs", task(image="1.1"), "f:2:15: .*must be text"),
    ("ecs", task(image="null"), "f:2:1: .*has no image"),
    ("ecs", task('"mountPoints": ["v"]'), "f:2:47: .*must be a mapping"),
    ("ecs", '{"services": [{"serviceName": "s", "taskDefinition": "f:1"}]}', "unread-workload"),
    ("ecs", '{"failures": [{"arn": "x"}], "services": []}', "f:1:2: .*are not empty"),
    ("marathon", app('"privileged": "true"'), "f:2:18: .*must be true or false"),
    ("marathon", app('"parameters": [{"key": "privileged", "value": "yes"}]'), PRIVILEGED),
    ("marathon", app('"parameters": [{"key": "user", "value": 0}]'), ROOT),
    ("marathon", app('"parameters": ["user=0"]'), "f:2:33: .*must be a mapping"),
    ("marathon", app('"parameters": {"user": "0"}'), "f:2:18: .*must be a list"),
    ("marathon", app('"parameters": [{"key": "publish", "value": "x:y:z:1"}]'), "f:2:18: .*is not a port"),
    ("marathon", app(more='"networks": [{"mode": "HOST"}]'), "f:2:34: .*write one of container"),
    ("marathon", app(), NETWORK),
    ("marathon", app(more='"mem": 1e999'), "f:2:20: .*must be a number"),
    ("marathon", app(more='"mem": -1'), "memory-limit"),
    ("marathon", app(image="1.1"), "f:2:2: .*must be text"),
    ("marathon", '{"id": "/a", "container": {"type": "DOCKER"}}', "f:1:14: .*image is missing"),
    ("marathon", '{"id": "/a", "container": {}}', "f:1:1: .*runs nothing"),
    ("marathon", '{"id": "/g", "apps": [], "container": {}}', "f:1:26: .*beside apps"),
]


@pytest.mark.parametrize(
    ("source", "text", "expected"), VALUES, ids=[f"{n}-{each[0]}" for n, each in enumerate(VALUES)]
)
def test_an_odd_value_is_refused_or_judged_as_the_runtime_reads_it(source: str, text: str, expected: str) -> None:
    if expected.startswith("f:"):
        with pytest.raises(UsageError, match=expected):
            read(source, text)
    else:
        (found,) = read(source, text)
        assert expected in failed(found)


@pytest.mark.parametrize(
    ("token", "more"), [("{path: t, audience: vault}", ""), ("{path: t}", "serviceAccountName: web")]
)
def test_a_token_that_is_meant_for_somebody_is_no_default(token: str, more: str) -> None:
    body = f"automountServiceAccountToken: false\n  volumes: [{TOKEN % token}]\n  {more or 'priority: 1'}"
    (found,) = read("kubernetes", pod(body))
    assert "service-account-token" not in failed(found)


def test_each_source_has_odd_values_of_ten_kinds() -> None:
    number = {source: sum(1 for each in VALUES if each[0] == source) for source in SOURCES}
    assert min(number.values()) >= 10, number
