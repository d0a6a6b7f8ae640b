"""Documents: every value knows its line, and what is hostile is refused at its line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from scanner import catalog
from scanner.errors import UsageError
from scanner.services import workload_documents, workloads
from scanner.workloads._documents import Document, parse
from scanner.workloads.base import Node

STREAMS = {
    "two documents": "a: 1\nb: {c: [1, 2]}\n---\n# a comment\nd:\n  - e: 1\n    f: 2\n  - g\n",
    "markers with content": "--- {a: 1, b: [x]}\n---  \n  c:\n   d: 1\n--- [1, 2]\n",
    "empty ones between": "---\n---\n# nothing\n---\na:\n  b: 1\n...\n---\nc: 1\n",
    "carriage returns": "a:\r\n  b: 1\r\n---\r\nc: {d: 1}\r\n",
    "a byte order mark": "\ufeffa: 1\nb: 2\n---\nc: 3\n",
    "anchors and merges": "x: &x {a: 1}\ny:\n  <<: *x\n  b: 2\n---\nz: &z\n  c: 1\nw: *z\n",
    "a directive": "%YAML 1.1\n---\na:\n  b: 1\n",
    "wide characters": 'ä: "😀"\nb:\n  - "ö": 1\n---\n"日本": {c: 1}\n',
    "block scalars": "a: |\n  --- not a marker\n  b: 1\nc: >-\n  text\n---\nd: 1\n",
    "more than are looked through": "a:\n" + "".join(f"- [{n}, {{b: {n}}}]\n" for n in range(40)),
    "more names than are looked through": "".join(f"k{n}: {{a/b: [{n}], ~: 1}}\n" for n in range(40)),
    "aliases in a list": "a: &a {b: {c: 1}}\nd: [*a, 1, *a]\ne: *a\n",
    "no end": "a: 1\n---\nb: 1",
}


def _pointers(node: Node) -> Iterator[str]:
    yield node.pointer
    if isinstance(node.value, dict):
        for _, member in node.members():
            yield from _pointers(member)
    elif isinstance(node.value, list):
        for item in node.items():
            yield from _pointers(item)


@pytest.mark.parametrize("name", STREAMS)
def test_a_place_is_where_the_parser_saw_it_in_the_whole_stream(name: str) -> None:
    text = STREAMS[name]
    whole = [node for node in yaml.compose_all(text, Loader=yaml.CSafeLoader) if node is not None]
    found = parse(text, "f")
    kept = [n for n, node in enumerate(whole) if not (isinstance(node, yaml.ScalarNode) and node.value == "")]
    assert [document.number for document in found] == kept
    for document in found:
        beside = Document(document.value, "f", document.number, composed=whole[document.number])
        pointers = list(_pointers(Node(document)))
        assert [document.place(each) for each in pointers] == [beside.place(each) for each in pointers]


_ALIASES = zip("abcdefg", "bcdefgh", strict=True)
_BOMB = "a: &a [x]\n" + "".join(f"{name}: &{name} [{', '.join([f'*{of}'] * 9)}]\n" for of, name in _ALIASES)
POD = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w"},\n "spec": {"containers": [%s]}}'
HOSTILE = {
    "a NUL in JSON": (POD % '{"name": "a\\u0000", "image": "b"}', "f:2:27: a NUL character"),
    "a NUL in YAML": ('a: 1\nb: ["x", "\\0"]', "f:2:10: a NUL character"),
    "a NUL in a key": ('{"a": 1,\n "b\\u0000": 1}', "f:2:2: a NUL character"),
    "half a surrogate pair in JSON": ('{"a":\n "\\ud800"}', "f:2:"),
    "half a surrogate pair as it is": ("a: 1\nb: \ud800", "f:2:4: half of a surrogate pair"),
    "a key twice": ("a: 1\nb: 2\na: 3", "f:3:1: duplicate key 'a'"),
    "a key twice in JSON": ('{"a": 1,\n "a": 2}', "f:2:2: duplicate key 'a'"),
    "aliases that expand each other": (
        _BOMB,
        "too many values",
    ),
    "an alias of itself": ("a: &a\n  b: *a\n", "f:1:4: nested deeper than 200 levels"),
    "depth": ("[" * 5000 + "]" * 5000, "f:1:"),
    "an unknown tag": ("a: 1\nb: !!python/object:os.system x", "f:2:4: unknown tag !!python/object:os.system"),
    "a template": ("a: 1\nb: {{ .Values.b }}\n", "f:2:5: an unrendered template"),
    "a template as a key": ("{{ range }}\na: 1\n", "f:1:"),
    "a tab": ("a:\n\tb: 1\n", "f:2:1: not YAML"),
    "an unclosed quote": ('a: 1\nb: "x\n', "f:3:1: not YAML"),
    "a directive of another version": ("%YAML 9.9\n---\na: 1\n", "f:"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused_at_its_line(name: str) -> None:
    text, told = HOSTILE[name]
    with pytest.raises(UsageError) as caught:
        parse(text, "f")
    assert told in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_another_encoding_is_said_to_be_none(encoding: str) -> None:
    with pytest.raises(UsageError, match=r"f:1:[0-9]+: not (UTF-8|YAML)"):
        parse("a: ä\n".encode(encoding), "f")


def test_data_that_looks_like_a_template_is_data() -> None:
    (found,) = parse('a: "{{ .Values.b }}"\nb: |\n  {{ c }}\n', "f")
    assert found.value == {"a": "{{ .Values.b }}", "b": "{{ c }}\n"}


LIST_OF_LISTS = """\
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: List
    items:
      - {apiVersion: v1, kind: Pod, metadata: {name: inner}, spec: {containers: [{name: a, image: b}]}}
  - apiVersion: v1
    kind: PodList
    items:
      - {metadata: {name: other}, spec: {containers: [{name: a, image: b}]}}
"""


def test_a_list_of_lists_is_read_whole() -> None:
    found = catalog.workload_sources()["kubernetes"].parse(LIST_OF_LISTS, "f")
    assert [(each.unit, each.place("image").line) for each in found] == [("inner", 7), ("other", 11)]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("{apiVersion: v1, kind: Pod, metadata: {name: w}, spec: {containers: [{name: a}]}}", "f:6:70: .*has no image"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: w}, spec: {}}", "f:6:.*has no containers"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: w}}", "f:6:.*is missing"),
        ("{apiVersion: v1, kind: Pod, spec: {containers: {name: a}}}", "f:6:.*must be a list"),
        ("just text", "f:6:.*is not a Kubernetes object"),
        ("{a: 1}", "f:6:.*is not a Kubernetes object"),
    ],
)
def test_one_broken_part_refuses_the_file_so_that_none_is_skipped(broken: str, told: str) -> None:
    good = "{apiVersion: v1, kind: Pod, metadata: {name: w}, spec: {containers: [{name: a, image: b}]}}"
    text = f"apiVersion: v1\nkind: List\nitems:\n  - {good}\n---\n{broken}\n---\n{good}\n"
    with pytest.raises(UsageError, match=told):
        catalog.workload_sources()["kubernetes"].parse(text, "f")


WINDOWS_AND_SIDECARS = """\
apiVersion: v1
kind: Pod
metadata: {name: w, namespace: shop}
spec:
  os: {name: windows}
  initContainers:
    - {name: proxy, image: a/proxy:1, restartPolicy: Always}
    - {name: set-up, image: a/set-up:1}
  containers: [{name: app, image: a/app:1}]
  ephemeralContainers: [{name: debug, image: a/debug:1, securityContext: {privileged: true}}]
"""


def test_every_kind_of_container_is_read_and_a_windows_pod_known() -> None:
    found = catalog.workload_sources()["kubernetes"].parse(WINDOWS_AND_SIDECARS, "f")
    assert {each.container: each.container_kind for each in found} == {
        "proxy": "sidecar",
        "set-up": "init",
        "app": "container",
        "debug": "ephemeral",
    }
    for each in found:
        outcomes = {result.check: result.outcome.kind for result in workloads.check(each, None)}
        assert outcomes["runs-as-root"] == "not-applicable"
        assert outcomes["privileged-container"] == ("failed" if each.container == "debug" else "passed")


@pytest.mark.parametrize("amount", ["9e999", "9" * 400, 2**70, "1e400Ei", -(2**80), "999999999999Ei"])
def test_a_number_without_end_is_the_largest(amount: object) -> None:
    limits = json.dumps({"limits": {"memory": amount, "cpu": amount}})
    text = POD % f'{{"name": "a", "image": "b", "resources": {limits}, "securityContext": {{"runAsGroup": 1}}}}'
    (found,) = catalog.workload_sources()["kubernetes"].parse(text, "f")
    assert found.memory is not None
    assert abs(found.memory) < 2**63
    sent = workload_documents.encode(workload_documents.document(found))
    assert workload_documents.workload(sent).memory == found.memory


@pytest.mark.parametrize("user", ["²", "٣", "+-5", "0" * 5000, "-1"])
def test_a_user_in_strange_digits_is_judged(user: str) -> None:
    text = json.dumps({"services": {"web": {"image": "a", "user": user}}})
    (found,) = catalog.workload_sources()["compose"].parse(text, "f")
    outcomes = {result.check: result.outcome for result in workloads.check(found, None)}
    number = {"-1": "passed", "0" * 5000: "failed"}
    assert outcomes["runs-as-root"].kind == number.get(user, "incomplete"), "a name may have any uid"


def test_a_name_in_a_list_is_found_whether_the_positions_are_recorded_or_looked_up() -> None:
    """A merge key changes the order of the values, so the positions of such a document are looked up in its text."""
    pod = """\
{extra}apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  containers:
    - name: app
      image: web
      env:
        - {{name: LEVEL, value: info}}
        - {{name: DB_PASSWORD, value: hunter22}}
      securityContext:{merge}
        capabilities:
          add: [CHOWN, CAP_SYS_ADMIN]
"""
    source = catalog.workload_sources()["kubernetes"]
    (recorded,) = source.parse(pod.format(extra="", merge=""), "f")
    (merged,) = source.parse(pod.format(extra="x: &x {a: 1}\n", merge="\n        <<: *x"), "f")
    for names in (("environment/DB_PASSWORD",), ("cap_add/SYS_ADMIN",), ("mounts", "environment/1"), ("mounts",)):
        found, beside = recorded.place(*names), merged.place(*names)
        assert found.pointer == beside.pointer
        assert found.line is not None and beside.line is not None
        assert beside.line - found.line == (2 if "cap_add" in names[0] else 1)
    assert str(recorded.place("environment/DB_PASSWORD")) == "f:10:11"
    assert str(recorded.place("cap_add/SYS_ADMIN")) == "f:13:24"
