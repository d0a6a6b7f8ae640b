"""What a document says in an unusual way is judged like what it says in the usual one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.finding import CheckResult, Failed
from scanner.services import workloads
from scanner.workloads.base import NoFiles

DIGEST = "registry.example.com/a@sha256:" + "a" * 64


def results(source: str, text: str) -> dict[str, dict[str, CheckResult]]:
    """Every check's result by the name of the container."""
    found = catalog.workload_sources()[source].parse(text, "f")
    return {each.container: {one.check: one for one in workloads.check(each, None)} for each in found}


def failed(source: str, text: str, container: str) -> set[str]:
    return {name for name, one in results(source, text)[container].items() if isinstance(one.outcome, Failed)}


def compose(body: str, more: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"services:\n  w:\n    image: {DIGEST}\n{lines}\n{more}"


OTHER = "  other:\n    image: b\n"
COMPOSE = {  # the text, what stands beside it, the check that fails
    "a service on the host's network": (
        "network_mode: service:other",
        OTHER + "    network_mode: host",
        "network",
    ),
    "the processes of a service with the host's": ("pid: service:other", OTHER + "    pid: host", "pid"),
    "the shared memory of a service with the host's": ("ipc: service:other", OTHER + "    ipc: host", "ipc"),
    "the host's network by its name": ("networks: [h]", "networks: {h: {external: true, name: host}}", "network"),
    "a service on the host's network by its name": (
        "network_mode: service:other",
        OTHER + "    networks: [h]\nnetworks: {h: {external: true, name: host}}",
        "network",
    ),
    "the host's network by its old name": ("networks: [h]", "networks: {h: {external: {name: host}}}", "network"),
    "the host's network as the default": ("init: true", "networks: {default: {external: true, name: host}}", "network"),
}


@pytest.mark.parametrize("name", COMPOSE)
def test_a_service_that_uses_the_hosts_namespace_by_way_of_another(name: str) -> None:
    body, more, namespace = COMPOSE[name]
    assert f"host-{namespace}" in failed("compose", compose(body, more), "w")


@pytest.mark.parametrize("mode", ["service:w", "service:missing", "container:other"])
def test_a_namespace_that_is_not_known_to_be_the_hosts(mode: str) -> None:
    assert "host-network" not in failed("compose", compose(f"network_mode: {mode}"), "w")


def test_volumes_of_another_service_are_its_own() -> None:
    more = f"{OTHER}    volumes: ['/var/run/docker.sock:/s', 'data:/d']\n"
    assert "docker-socket" in failed("compose", compose("volumes_from: [other]", more), "w")
    (read, _) = catalog.workload_sources()["compose"].parse(compose("volumes_from: ['other:ro']", more), "f")
    assert [(each.target, each.read_only) for each in read.mounts] == [("/s", True), ("/d", True)]
    (read,) = catalog.workload_sources()["compose"].parse(compose("volumes_from: ['container:x:ro', w]"), "f")
    assert {each.volume_type for each in read.mounts} == {"volumes_from"}


def test_volumes_that_services_take_from_each_other_again_and_again_are_read_once() -> None:
    """Ten names in each of thirty services: without a bound, reading one service would never end."""
    names = [f"s{number}" for number in range(30)]
    every = "".join(f"  {name}:\n    image: b\n    volumes_from: [{', '.join(names[:10])}, {name}]\n" for name in names)
    more = every + "    volumes: ['/var/run/docker.sock:/s']\n"
    (read, *_) = catalog.workload_sources()["compose"].parse(compose("volumes_from: [s0, s29, 's29:ro']", more), "f")
    assert [(each.source, each.read_only) for each in read.mounts] == [
        ("/var/run/docker.sock", False),
        ("/var/run/docker.sock", True),
    ]
    chain = "".join(f"  s{n}:\n    image: b\n    volumes_from: [s{n + 1}]\n" for n in range(60))
    more = f"{chain}  s60:\n    image: b\n    volumes: ['/var/run/docker.sock:/s']\n"
    assert "docker-socket" in failed("compose", compose("volumes_from: [s0]", more), "w")


def test_volumes_that_containers_take_from_each_other_again_and_again_are_read_once() -> None:
    others = [{"sourceContainer": f"c{number}"} for number in range(20)]
    mount = [{"sourceVolume": "v", "containerPath": "/s"}]
    containers = [
        {"name": f"c{number}", "image": DIGEST, "volumesFrom": others, "mountPoints": mount if number == 19 else []}
        for number in range(20)
    ]
    volumes = [{"name": "v", "host": {"sourcePath": "/var/run/docker.sock"}}]
    text = json.dumps({"family": "f", "volumes": volumes, "containerDefinitions": containers})
    read = catalog.workload_sources()["ecs"].parse(text, "f")
    assert [len(each.mounts) for each in read] == [*[1] * 19, 2]


def test_a_variable_whose_name_is_a_number_of_thousands_of_digits_has_a_place() -> None:
    for text in (
        f"services:\n  w:\n    image: a\n    environment: ['{'9' * 5000}=x']\n",
        json.dumps({"services": {"w": {"image": "a", "environment": [f"{'9' * 5000}=x"]}}}),
    ):
        (read,) = catalog.workload_sources()["compose"].parse(text, "f")
        assert read.place(f"environment/{read.environment[0].name}").pointer == "/services/w/environment/0"


@pytest.mark.parametrize("options", ["{type: ext4, device: /dev/sda1}", "{type: none, o: 'rw, bind', device: //etc}"])
def test_a_volume_that_is_the_hosts_disk_is_no_volume(options: str) -> None:
    volumes = f"volumes: {{v: {{driver_opts: {options}}}}}"
    assert "sensitive-host-mounts" in failed("compose", compose("volumes: ['v:/v']", volumes), "w")


USELESS = ("{test: NONE}", "{test: 'exit 0'}", "{test: [CMD, 'true']}", "{test: 'curl x || true'}", "{disable: true}")


@pytest.mark.parametrize("test", USELESS)
def test_a_healthcheck_that_cannot_fail_is_none(test: str) -> None:
    assert "no-healthcheck" in failed("compose", compose(f"healthcheck: {test}"), "w")
    assert "no-healthcheck" not in failed("compose", compose("healthcheck: {test: curl -f http://localhost}"), "w")


@pytest.mark.parametrize(
    ("body", "check", "line"),
    [
        ("init: true\ndevice_cgroup_rules: ['a *:* rwm']", "host-devices", 5),
        ("init: true\npost_start: [{command: x, privileged: true}]", "privileged-container", 5),
        ("init: true\nuse_api_socket: true", "docker-socket", 5),
        ("init: true\npost_start:\n- {command: ls}\n- {command: app --password=hunter2x}", "secrets-in-arguments", 7),
        ("pre_stop:\n- command:\n  - app\n  - --password=hunter2x", "secrets-in-arguments", 7),
        ("pre_stop:\n- command: ls\n  environment:\n  - DB_PASSWORD=hunter2x", "secrets-in-environment", 7),
        ("init: true\nuser: '1000:00'", "run-as-root-group", 5),
        ("user: '1000:1000'\ngroup_add: [docker, 0]", "run-as-root-group", 5),
    ],
)
def test_the_line_is_that_of_the_setting(body: str, check: str, line: int) -> None:
    outcome = results("compose", compose(body))["w"][check].outcome
    assert isinstance(outcome, Failed)
    assert [each.line for each in outcome.evidence] == [line]


def inspected(name: str, identifier: str, **host: Any) -> dict[str, Any]:
    return {"Id": identifier, "Name": f"/{name}", "Config": {"Image": DIGEST}, "HostConfig": host}


def test_a_container_in_the_namespace_of_one_with_the_hosts() -> None:
    modes = ("NetworkMode", "PidMode", "IpcMode")
    found = [
        inspected("a", "1" * 64, **dict.fromkeys(modes, "host")),
        inspected("b", "2" * 64, **dict.fromkeys(modes, f"container:{'1' * 64}")),
        inspected("c", "3" * 64, NetworkMode="container:b", PidMode="container:c", IpcMode="container:unknown"),
    ]
    text = json.dumps(found)
    assert {"host-network", "host-pid", "host-ipc"} <= failed("docker", text, "b")
    assert failed("docker", text, "c") & {"host-network", "host-pid", "host-ipc"} == {"host-network"}


def test_a_swarm_service_without_labels_and_on_the_hosts_network() -> None:
    inner = {"Image": DIGEST, "Privileges": {"SELinuxContext": {"Disable": True}}}
    task = {"ContainerSpec": inner, "Networks": [{"Target": "host"}]}
    assert {"selinux-labels", "host-network"} <= failed(
        "swarm", json.dumps({"Spec": {"Name": "s", "TaskTemplate": task}}), "s"
    )


def test_volumes_of_a_task_definition_that_reach_the_host() -> None:
    volume = {"driver": "local", "driverOpts": {"type": "none", "o": "bind", "device": "/var/run"}}
    first = {"name": "a", "image": DIGEST, "mountPoints": [{"sourceVolume": "v", "containerPath": "/s"}]}
    second = {"name": "b", "image": DIGEST, "volumesFrom": [{"sourceContainer": "a", "readOnly": True}]}
    third = {"name": "c", "image": DIGEST, "volumesFrom": [{"sourceContainer": "missing"}, {"sourceContainer": "c"}]}
    volumes = [{"name": "v", "dockerVolumeConfiguration": volume}]
    text = json.dumps({"family": "f", "volumes": volumes, "containerDefinitions": [first, second, third]})
    assert "docker-socket" in failed("ecs", text, "a")
    assert "docker-socket" in failed("ecs", text, "b")
    assert "docker-socket" not in failed("ecs", text, "c")


def test_marathon_by_the_answer_of_its_api() -> None:
    check = {"protocol": "COMMAND", "command": {"value": "true"}}
    app = {"id": "/a", "container": {"docker": {"image": DIGEST}}, "healthChecks": [check]}
    assert workloads.source_of(json.dumps({"app": app}), "f").id == "marathon"
    assert "no-healthcheck" in failed("marathon", json.dumps({"app": app}), "a")
    with pytest.raises(UsageError, match="pods"):
        results("marathon", json.dumps({"id": "/g", "apps": [app], "pods": [{"id": "p"}]}))


def test_a_daemon_file_with_options_that_no_check_needs() -> None:
    text = '{"mtu": 1400, "max-concurrent-downloads": 3, "icc": true, "storage-opts": []}'
    (read,) = workloads.source_of(text, "daemon.json").parse(text)
    assert read.engine is not None
    assert read.engine.inter_container is True


POD = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s"},"spec":{"containers":[{"name":"%s","image":"b"}]}}'


def test_json_values_one_after_the_other() -> None:
    text = f"{POD % ('a', 'x')}\n\n{POD % ('b', 'y')} {POD % ('c', 'z')}\n"
    found = catalog.workload_sources()["kubernetes"].parse(text, "f")
    first = text.index('"image"') + 1
    assert [(each.unit, str(each.place("image"))) for each in found] == [
        ("a", f"f:1:{first}"),
        ("b", f"f:3:{first}"),
        ("c", f"f:3:{first + len(POD % ('b', 'y')) + 1}"),
    ]
    assert [each.place().document for each in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"apiVersion": "v1",\n "apiVersion": "v2"}', "f:3:2: duplicate key 'apiVersion'"),
        ('{"a": "\\u0000"}', "f:2:2: a NUL character"),
        ('{"a": {"b": 1}', "f:2:1: not YAML"),  # and no unrendered template, which the brackets of JSON look like
    ],
)
def test_a_broken_value_among_json_values_is_named(second: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        catalog.workload_sources()["kubernetes"].parse(f"{POD % ('a', 'x')}\n{second}", "f")
    assert message in str(refused.value)


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, image: b}]}
---
apiVersion: %s
kind: PodDisruptionBudget
metadata: {name: b, namespace: shop}
spec: {selector: %s}
"""
SELECTORS = {
    "{matchExpressions: [{key: app, operator: In, values: [web, api]}]}": True,
    "{matchExpressions: [{key: app, operator: Exists}, {key: x, operator: DoesNotExist}]}": True,
    "{matchLabels: {app: web}, matchExpressions: [{key: app, operator: NotIn, values: [web]}]}": False,
    "{matchExpressions: [{key: app, operator: Like, values: [web]}]}": False,
    "{matchLabels: {app: api}}": False,
    "{}": True,
    "null": False,
}


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_budget_covers_the_pods_that_its_selector_selects(selector: str) -> None:
    found = failed("kubernetes", DEPLOYMENT % ("policy/v1", selector), "a")
    assert ("disruption-budget" not in found) is SELECTORS[selector]
    if selector == "{}":
        assert "disruption-budget" in failed("kubernetes", DEPLOYMENT % ("policy/v1beta1", selector), "a")


def test_resources_of_a_whole_pod_are_those_of_its_containers() -> None:
    spec = "resources: {limits: {memory: 1Gi, cpu: 1}, requests: {memory: 1Gi, cpu: 1}}, containers: [%s]"
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {" + spec + "}"
    checks = {"memory-limit", "cpu-limit", "resource-requests"}
    assert not checks & failed("kubernetes", text % "{name: a, image: b}", "a")
    unlimited = text.replace("{memory: 1Gi, cpu: 1}, requests", "{cpu: 1}, requests")
    assert checks & failed("kubernetes", unlimited % "{name: a, image: b}", "a") == {"memory-limit"}
    own = catalog.workload_sources()["kubernetes"].parse(
        text % "{name: a, image: b, resources: {limits: {memory: 1Mi}}}", "f"
    )
    assert (own[0].memory, own[0].cpus) == (1 << 20, 1.0)


CUSTOM = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: a}
spec:
  replicatedJobs:
    - template:
        spec:
          template:
            spec: {containers: [{name: a, image: b, securityContext: {privileged: true}}]}
"""


def test_pod_templates_of_custom_resources_are_found_wherever_they_are() -> None:
    outcome = results("kubernetes", CUSTOM)["a"]["privileged-container"].outcome
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].line == 9
    policy = CUSTOM.replace("jobset.x-k8s.io/v1alpha2", "kyverno.io/v1").replace("JobSet", "ClusterPolicy")
    assert results("kubernetes", policy) == {}, "a pattern of pods, and no pod"


def test_a_custom_resource_with_the_name_of_a_workload() -> None:
    job = CUSTOM.replace("jobset.x-k8s.io/v1alpha2", "batch.volcano.sh/v1alpha1").replace("JobSet", "Job")
    assert isinstance(results("kubernetes", job)["a"]["privileged-container"].outcome, Failed)
    for version in ("batch/v1", "''"):
        with pytest.raises(UsageError, match="needs a pod spec"):
            results("kubernetes", job.replace("batch.volcano.sh/v1alpha1", version))


@pytest.mark.parametrize(("kind", "right"), [("pod", "Pod"), ("Cronjob", "CronJob")])
def test_a_kind_in_the_wrong_case_is_not_skipped(kind: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"f:2:1: kind is '{kind}': write {right}"):
        results("kubernetes", f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}")


def test_the_root_group_among_further_groups_in_every_format() -> None:
    marathon = {"image": DIGEST, "parameters": [{"key": "group-add", "value": "root"}]}
    task = {"ContainerSpec": {"Image": DIGEST, "Groups": ["1", "00"]}}
    texts = {
        "docker": ("a", inspected("a", "1" * 64, GroupAdd=["root"])),
        "swarm": ("s", {"Spec": {"Name": "s", "TaskTemplate": task}}),
        "marathon": ("a", {"id": "/a", "container": {"docker": marathon}}),
    }
    for source, (name, text) in texts.items():
        assert "run-as-root-group" in failed(source, json.dumps(text), name), source


PROBES = "livenessProbe: {exec: {command: [/bin/true]}}, readinessProbe: {exec: {command: [sh, -c, %s]}}"


def test_probes_that_cannot_fail_are_none() -> None:
    def probed(command: str) -> Any:
        containers = f"[{{name: a, image: b, {PROBES % command}}}]"
        text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: {containers}}}"
        return results("kubernetes", text)["a"]["no-healthcheck"].outcome

    outcome = probed("test -f /ready")
    assert isinstance(outcome, Failed)
    assert [each.message for each in outcome.evidence] == [
        "Pod/p · a: liveness probe: the healthcheck can never fail: /bin/true"
    ]
    assert len(probed("exit 0").evidence) == 2


@pytest.mark.parametrize(
    ("replicas", "unavailable", "stops_all"),
    [(3, "3", True), (3, "4", True), (3, "100%", True), (3, "2", False), (3, "99%", False), (1, "1", False)],
)
def test_an_update_of_kubernetes_that_stops_all_at_once(replicas: int, unavailable: str, stops_all: bool) -> None:
    strategy = f"strategy: {{rollingUpdate: {{maxUnavailable: {unavailable}}}}}"
    text = (DEPLOYMENT % ("policy/v1", "{}")).replace("replicas: 2", f"replicas: {replicas}\n  {strategy}")
    assert ("update-strategy" in failed("kubernetes", text, "a")) is stops_all


@pytest.mark.parametrize(
    ("update", "stops_all"),
    [
        ("parallelism: 0", True),
        ("parallelism: 2", True),
        ("parallelism: 2, order: start-first", False),
        ("parallelism: 1", False),
    ],
)
def test_an_update_of_a_stack_that_stops_all_at_once(update: str, stops_all: bool) -> None:
    text = compose(f"deploy: {{replicas: 2, update_config: {{{update}}}}}")
    assert ("update-strategy" in failed("compose", text, "w")) is stops_all


@pytest.mark.parametrize(("mode", "single"), [("", True), ("mode: replicated", True), ("mode: global", False)])
def test_defaults_of_a_stack(mode: str, single: bool) -> None:
    found = failed("swarm", compose(f"deploy: {{{mode}}}"), "w")
    assert ("single-replica" in found) is single
    assert "unencrypted-overlay" in found, "the default network of a stack is an overlay network without encryption"


CLIMBING = ("../../var/run/docker.sock", "./../var/run/docker.sock", "~/../../run/docker.sock", "../../var/run")


@pytest.mark.parametrize("source", CLIMBING)
def test_a_relative_path_that_climbs_to_the_socket_is_the_socket(source: str) -> None:
    assert "docker-socket" in failed("compose", compose(f"volumes: ['{source}:/s']"), "w")
    long = f"volumes: [{{type: bind, source: '{source}', target: /s}}]"
    assert "docker-socket" in failed("compose", compose(long), "w")


@pytest.mark.parametrize("source", ["..", "../run", "../../var", "./var/run/docker.sock", "../conf/docker.sock.d"])
def test_a_relative_path_of_the_project_is_no_socket(source: str) -> None:
    assert not failed("compose", compose(f"volumes: ['{source}:/s']"), "w") & {"docker-socket", "sensitive-host-mounts"}


def test_a_relative_path_that_climbs_to_the_root_is_absolute(tmp_path: Path) -> None:
    """Only where the file is known to lie: a file that was sent to a server may lie anywhere."""
    file = tmp_path / "compose.yaml"
    up = "../" * len(tmp_path.parts)
    file.write_text(compose(f"volumes: ['{up}etc:/e', '../x:/x']"))
    compose_source = catalog.workload_sources()["compose"]
    (read,) = compose_source.load(str(file), lambda: b"")
    assert [each.source for each in read.mounts] == ["/etc", "../x"]
    (sent,) = compose_source.parse(file.read_text(), str(file))
    assert [each.source for each in sent.mounts] == [f"{up}etc", "../x"]


@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_a_socket_that_is_given_as_a_file_is_a_socket(kind: str) -> None:
    more = f"{kind}: {{s: {{file: /var/run/docker.sock}}, t: {{file: ./t.txt}}}}"
    assert "docker-socket" in failed("compose", compose(f"{kind}: [s, t]", more), "w")
    assert "docker-socket" not in failed("compose", compose(f"{kind}: [t]", more), "w")


@pytest.mark.parametrize(
    ("constraint", "os"),
    [
        ("node.platform.os == windows", "windows"),
        ("node.platform.OS==Windows", "windows"),
        ("node.platform.os != linux", "windows"),
        ("node.labels.os == windows-2022", "windows"),
        ("node.platform.os != windows", ""),
        ("node.platform.os == linux", ""),
        ("node.labels.os != windows", ""),
        ("node.hostname == windows", ""),
        ("windows", ""),
    ],
)
def test_a_service_of_a_swarm_is_on_windows_if_only_windows_is_allowed(constraint: str, os: str) -> None:
    sources = catalog.workload_sources()
    stack = compose(f"deploy: {{placement: {{constraints: ['node.role == worker', '{constraint}']}}}}")
    task = {"ContainerSpec": {"Image": DIGEST}, "Placement": {"Constraints": [constraint]}}
    inspected = json.dumps([{"ID": "i", "Spec": {"Name": "w", "TaskTemplate": task, "Mode": {"Replicated": {}}}}])
    assert [each.os for text in (stack, inspected) for each in sources["swarm"].parse(text, "f")] == [os, os]
    # docker compose ignores it, and docker stack ignores the platform: neither may switch checks off.
    assert [each.os for each in sources["compose"].parse(stack, "f")] == [""]
    assert [each.os for each in sources["swarm"].parse(compose("platform: windows/amd64"), "f")] == [""]


@pytest.mark.parametrize(("systems", "os"), [(["windows"], "windows"), (["windows", "linux"], ""), ([], "")])
def test_a_service_of_an_image_for_windows_is_on_windows(systems: list[str], os: str) -> None:
    placement = {"Platforms": [{"Architecture": "amd64", "OS": each} for each in systems]}
    task = {"ContainerSpec": {"Image": DIGEST}, "Placement": placement}
    text = json.dumps([{"ID": "i", "Spec": {"Name": "w", "TaskTemplate": task, "Mode": {"Replicated": {}}}}])
    assert [each.os for each in catalog.workload_sources()["swarm"].parse(text, "f")] == [os]


@pytest.mark.parametrize(
    ("constraint", "os"),
    [
        (["os", "LIKE", "windows"], "windows"),
        (["os", "CLUSTER", "Windows"], "windows"),
        ({"fieldName": "os", "operator": "IS", "value": "windows"}, "windows"),
        (["os", "LIKE", "windows|linux"], ""),
        (["os", "UNLIKE", "windows"], ""),
        (["hostname", "LIKE", "windows.*"], ""),
        (["os", "UNIQUE"], ""),
    ],
)
def test_an_app_is_on_windows_if_only_windows_is_allowed(constraint: Any, os: str) -> None:
    app = {"id": "/w", "container": {"docker": {"image": DIGEST}}, "constraints": [["rack", "GROUP_BY"], constraint]}
    (read,) = catalog.workload_sources()["marathon"].parse(json.dumps(app), "f")
    assert read.os == os


def test_a_command_among_health_checks_of_several_kinds_is_searched() -> None:
    checks = [{"protocol": "HTTP"}, {"protocol": "COMMAND", "command": {"value": "redis-cli -a hunter2x ping"}}]
    app = {"id": "/w", "container": {"docker": {"image": DIGEST}}, "healthChecks": checks}
    assert "secrets-in-arguments" in failed("marathon", json.dumps(app), "w")


def test_a_hook_with_a_user_of_its_own_is_judged() -> None:
    body = 'user: "1000:1000"\npost_start:\n  - {command: a}\n  - command: b\n    user: %s'
    found = results("compose", compose(body % "root"))["w"]["runs-as-root"].outcome
    assert isinstance(found, Failed)
    assert [(each.message, each.line) for each in found.evidence] == [("w: the hook post_start runs as root", 8)]
    assert "run-as-root-group" in failed("compose", compose(body % '"5:0"'), "w")
    assert results("compose", compose(body % "app"))["w"]["runs-as-root"].outcome.kind == "incomplete"
    assert results("compose", compose(body % '"5:5"'))["w"]["runs-as-root"].outcome.kind == "passed"


def test_what_a_later_file_resets_is_gone_and_a_tag_in_a_single_file_has_its_meaning() -> None:
    source = catalog.workload_sources()["compose"]
    base = source.documents("services: {a: {image: b, user: root}, c: {image: d, privileged: true}}", "1")
    over = source.documents("services: {a: {user: !reset null, pid: !override host}, c: !reset null}", "2")
    (found,) = source.read((*base, *over), NoFiles())
    assert (found.container, found.user, found.pid_mode) == ("a", None, "host")
    (single,) = source.parse("services: {a: {image: b, user: !reset root, privileged: !override true}}", "f")
    assert (single.user, single.privileged) == (None, True)
