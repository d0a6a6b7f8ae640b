"""Every check of a container: a workload that fails it, one that passes, and where the finding is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scanner import catalog
from scanner.checks.base import ContainerCheck, EngineCheck
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed
from scanner.model.workload import EngineFacts, Network, Workload
from scanner.services.workloads import check
from tests.scanner.checks.factory import subject

CONTAINER_CHECKS = {n: c for n, c in catalog.workload_checks().items() if isinstance(c, ContainerCheck)}
ENGINE_CHECKS = {n: c for n, c in catalog.workload_checks().items() if isinstance(c, EngineCheck)}


def pod(
    spec: str = "",
    container: str = "",
    *,
    kind: str = "Deployment",
    image: str = "app:1.2",
    top: str = "",
    more: str = "",
) -> Workload:
    """One container of a manifest; the arguments are YAML in flow style, without braces."""
    body = f"{{containers: [{{name: app, image: '{image}', {container}}}], {spec}}}"
    text = (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\n"
        + (
            f"spec: {body}\n"
            if kind == "Pod"
            else f"spec: {{{top}template: {{metadata: {{labels: {{app: web}}}}, spec: {body}}}}}\n"
        )
        + more
    )
    return catalog.workload_sources()["kubernetes"].parse(text, "web.yaml")[0]


def service(text: str, *, image: str = "app:1.2", more: str = "") -> Workload:
    """A Compose service, its members as YAML in flow style."""
    return catalog.workload_sources()["compose"].parse(
        f"services:\n  web: {{image: '{image}', {text}}}\n{more}", "c.yaml"
    )[0]


def container(**host: Any) -> Workload:
    """A container as docker inspect prints it."""
    config = host.pop("Config", {})
    found = {
        "Name": "/web",
        "Config": {"Image": "app:1.2", **config},
        "HostConfig": host,
        "AppArmorProfile": "docker-default",
    }
    return catalog.workload_sources()["docker"].parse(json.dumps([found]), "i.json")[0]


def swarm(
    spec: dict[str, Any] | None = None, task: dict[str, Any] | None = None, inner: dict[str, Any] | None = None
) -> Workload:
    """A Swarm service."""
    template = {"ContainerSpec": {"Image": "app:1.2", **(inner or {})}, **(task or {})}
    found = {"Spec": {"Name": "web", "TaskTemplate": template, **(spec or {})}}
    return catalog.workload_sources()["swarm"].parse(json.dumps([found]), "s.json")[0]


def task(family: str = "LINUX", **own: Any) -> Workload:
    """A container of an ECS task definition."""
    found = {
        "family": "web",
        "runtimePlatform": {"operatingSystemFamily": family},
        "containerDefinitions": [{"name": "web", "image": "app:1.2", **own}],
    }
    return catalog.workload_sources()["ecs"].parse(json.dumps(found), "t.json")[0]


def app(own: dict[str, Any] | None = None, **docker: Any) -> Workload:
    """An app of Marathon."""
    found = {"id": "/web", "container": {"docker": {"image": "app:1.2", **docker}}, **(own or {})}
    return catalog.workload_sources()["marathon"].parse(json.dumps(found), "m.json")[0]


BUDGET = (
    "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b, namespace: shop}\nspec: "
    "{selector: {matchLabels: {app: web}}}\n"
)
CASES: dict[str, tuple[list[Workload], list[Workload]]] = {  # check id -> (workloads that fail, workloads that pass)
    "privileged-container": (
        [
            pod(container="securityContext: {privileged: true}"),
            service("privileged: true"),
            container(Privileged=True),
            service("post_start: [{command: x, privileged: true}]"),
        ],
        [pod(), service(""), container(Privileged=False)],
    ),
    "added-capabilities": (
        [
            pod(container="securityContext: {capabilities: {add: [NET_RAW]}}"),
            service("cap_add: [sys_admin]"),
            container(CapAdd=["CAP_SYS_PTRACE"]),
            service("cap_add: [ALL]"),
        ],
        [pod(container="securityContext: {capabilities: {add: [CHOWN]}}"), service("cap_add: [NET_RAW]")],
    ),
    "kept-capabilities": (
        [
            pod(),
            service("cap_drop: [NET_RAW]"),
            pod(container="securityContext: {capabilities: {drop: [ALL], add: [CHOWN]}}"),
            pod(container="securityContext: {privileged: true, capabilities: {drop: [ALL]}}"),
        ],
        [
            pod(container="securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}"),
            service("cap_drop: [all]"),
        ],
    ),
    "privilege-escalation": (
        [pod(), service(""), service("security_opt: ['no-new-privileges:false']")],
        [
            pod(container="securityContext: {allowPrivilegeEscalation: false}"),
            service("security_opt: ['no-new-privileges']"),
            service("security_opt: ['no-new-privileges:true']"),
            swarm(inner={"Privileges": {"NoNewPrivileges": True}}),
        ],
    ),
    "runs-as-root": (
        [
            pod(container="securityContext: {runAsUser: 0}"),
            service("user: root"),
            service("user: '0:0'"),
            container(Config={"User": "00"}),
            service("user: '4294967296'"),
        ],
        [pod("securityContext: {runAsNonRoot: true}"), service("user: '10001'")],
    ),
    "run-as-non-root-unset": (
        [pod(), pod(container="securityContext: {runAsNonRoot: false}", spec="securityContext: {runAsNonRoot: true}")],
        [pod("securityContext: {runAsNonRoot: true}"), pod("hostUsers: false")],
    ),
    "run-as-user-zero": (
        [pod("securityContext: {runAsUser: 0}"), pod(container="securityContext: {runAsUser: 0}")],
        [pod()],
    ),
    "run-as-root-group": (
        [service("user: '5:0'"), pod(container="securityContext: {runAsUser: 5}")],
        [service("user: '5:5'"), pod(container="securityContext: {runAsUser: 5, runAsGroup: 5}")],
    ),
    "host-network": (
        [pod("hostNetwork: true"), service("network_mode: host"), container(NetworkMode="host")],
        [pod(), service(""), container(NetworkMode="bridge")],
    ),
    "host-pid": ([pod("hostPID: true"), service("pid: host"), container(PidMode="host")], [pod(), service("")]),
    "host-ipc": (
        [
            app({"container": {"docker": {"image": "a"}, "linuxInfo": {"ipcInfo": {"mode": "SHARE_PARENT"}}}}),
            pod("hostIPC: true"),
            service("ipc: host"),
            container(IpcMode="host"),
        ],
        [pod(), service("ipc: shareable")],
    ),
    "host-uts": ([service("uts: host"), container(UTSMode="host")], [pod(), service("")]),
    "host-user-namespace": ([service("userns_mode: host"), container(UsernsMode="host")], [service("")]),
    "windows-host-process": (
        [
            pod("securityContext: {windowsOptions: {hostProcess: true}}"),
            pod(container="securityContext: {windowsOptions: {hostProcess: true}}"),
        ],
        [pod()],
    ),
    "seccomp-off": (
        [
            app({"container": {"docker": {"image": "a"}, "linuxInfo": {"seccomp": {"unconfined": True}}}}),
            pod("securityContext: {seccompProfile: {type: Unconfined}}"),
            service("security_opt: ['seccomp:unconfined']"),
            container(SecurityOpt=["seccomp=unconfined"]),
        ],
        [pod(), service("security_opt: ['seccomp=./profile.json']")],
    ),
    "seccomp-unset": (
        [pod()],
        [
            pod("securityContext: {seccompProfile: {type: RuntimeDefault}}"),
            pod(container="securityContext: {seccompProfile: {type: Localhost, localhostProfile: a.json}}"),
        ],
    ),
    "apparmor-profile": (
        [
            service("security_opt: ['apparmor=unconfined']"),
            pod(container="securityContext: {appArmorProfile: {type: Unconfined}}"),
        ],
        [pod(), container(), pod(container="securityContext: {appArmorProfile: {type: RuntimeDefault}}")],
    ),
    "selinux-labels": (
        [
            service("security_opt: ['label=disable']"),
            pod("securityContext: {seLinuxOptions: {type: spc_t}}"),
            pod(container="securityContext: {seLinuxOptions: {user: root}}"),
        ],
        [
            pod(container="securityContext: {seLinuxOptions: {type: container_t, level: 's0:c1'}}"),
            service("security_opt: ['label=level:s0']"),
        ],
    ),
    "proc-mount": (
        [
            pod(container="securityContext: {procMount: Unmasked}"),
            service("security_opt: ['systempaths=unconfined']"),
            container(MaskedPaths=[]),
        ],
        [pod(), container(MaskedPaths=["/proc/kcore"])],
    ),
    "proc-mount-restricted": ([pod("hostUsers: false", "securityContext: {procMount: Unmasked}")], [pod()]),
    "unsafe-sysctls": (
        [
            pod("securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}"),
            service("sysctls: ['kernel.msgmax=1']"),
        ],
        [
            pod("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}"),
            service("sysctls: {net.ipv4.tcp_syncookies: 1}"),
        ],
    ),
    "host-path-volumes": (
        [pod("volumes: [{name: x, hostPath: {path: /x}}]")],
        [pod("volumes: [{name: x, emptyDir: {}}]")],
    ),
    "volume-types": (
        [pod("volumes: [{name: x, nfs: {server: s, path: /}}]")],
        [pod("volumes: [{name: x, configMap: {name: c}}, {name: z}]")],
    ),
    "host-ports": (
        [pod(container="ports: [{containerPort: 80, hostPort: 80}]")],
        [pod(container="ports: [{containerPort: 80}]")],
    ),
    "probe-hosts": (
        [
            pod(container="livenessProbe: {httpGet: {host: 10.0.0.1, port: 80}}"),
            pod(container="lifecycle: {preStop: {tcpSocket: {host: h, port: 1}}}"),
        ],
        [pod(container="livenessProbe: {httpGet: {port: 80}}")],
    ),
    "memory-limit": (
        [container(Memory=-1), pod(), service(""), container(Memory=0)],
        [
            pod(container="resources: {limits: {memory: 1Gi}}"),
            service("mem_limit: 1g"),
            service("deploy: {resources: {limits: {memory: 1G}}}"),
        ],
    ),
    "cpu-limit": (
        [container(NanoCpus=-1), container(CpuShares=-1), pod(), service(""), container(NanoCpus=0)],
        [
            pod(container="resources: {requests: {cpu: 1}}"),
            service("cpus: 0.5"),
            service("cpu_shares: 10"),
            container(NanoCpus=10**9),
        ],
    ),
    "pids-limit": (
        [service(""), container(PidsLimit=None), container(PidsLimit=-1)],
        [service("pids_limit: 100"), container(PidsLimit=5)],
    ),
    "resource-requests": (
        [pod()],
        [
            pod(container="resources: {requests: {cpu: 1, memory: 1Gi}}"),
            pod(container="resources: {limits: {cpu: 1, memory: 1Gi}}"),
        ],
    ),
    "ulimits": ([service("ulimits: {nofile: 5}")], [service("")]),
    "cgroup-parent": ([service("cgroup_parent: m-executor-abcd")], [service("")]),
    "writable-root-filesystem": (
        [pod(), service(""), container(ReadonlyRootfs=False)],
        [pod(container="securityContext: {readOnlyRootFilesystem: true}"), service("read_only: true")],
    ),
    "docker-socket": (
        [
            service("volumes: ['/var/run/docker.sock:/s:ro']"),
            service("volumes: ['/var/run:/run2']"),
            service("volumes: ['/:/host']"),
            service("volumes: ['/var/../run/docker.sock:/x']"),
            pod(
                "volumes: [{name: s, hostPath: {path: /run/containerd/containerd.sock}}]",
                "volumeMounts: [{name: s, mountPath: /s}]",
            ),
            service("use_api_socket: true"),
        ],
        [service("volumes: ['/srv/docker.sock.d:/x']"), service("volumes: ['run:/run']")],
    ),
    "sensitive-host-mounts": (
        [
            service("volumes: ['/etc:/e']"),
            service("volumes: ['/:/h:ro']"),
            service("volumes: ['d:/d']", more="volumes: {d: {driver_opts: {o: bind, type: none, device: /etc}}}\n"),
        ],
        [service("volumes: ['/srv/data:/d', '/etc/localtime:/etc/localtime:ro']"), service("volumes: ['d:/d']")],
    ),
    "shared-mount-propagation": (
        [
            service("volumes: ['/a:/b:rshared']"),
            pod(
                "volumes: [{name: s, hostPath: {path: /a}}]",
                "volumeMounts: [{name: s, mountPath: /s, mountPropagation: Bidirectional}]",
            ),
        ],
        [service("volumes: ['/a:/b:rslave']")],
    ),
    "host-devices": (
        [
            service("devices: ['/dev/sda:/dev/sda']"),
            service("device_cgroup_rules: ['a *:* rwm']"),
            service("gpus: all"),
            service("deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}"),
            container(DeviceRequests=[{"Driver": "nvidia", "Capabilities": [["gpu"]]}]),
            task(resourceRequirements=[{"type": "GPU", "value": "1"}]),
            app({"gpus": 1}),
            app(parameters=[{"key": "device-cgroup-rule", "value": "a *:* rwm"}]),
        ],
        [service(""), app({"gpus": 0}), task(resourceRequirements=[{"type": "InferenceAccelerator", "value": "x"}])],
    ),
    "host-cgroup-namespace": (
        [
            service("cgroup: host"),
            container(CgroupnsMode="host"),
            app(parameters=[{"key": "cgroupns", "value": "host"}]),
        ],
        [service("cgroup: private"), container(CgroupnsMode="private"), service(""), pod()],
    ),
    "anonymous-volumes": ([service("volumes: ['/data']")], [service("volumes: ['data:/data']")]),
    "database-storage": (
        [
            service("", image="postgres:17.6"),
            service("volumes: ['/var/lib/mysql']", image="mysql:8.4"),
            service("volumes: ['x:/somewhere']", image="bitnami/mongodb:8.0"),
        ],
        [
            service("volumes: ['d:/var/lib/postgresql/data']", image="postgres:17.6"),
            service("volumes: ['d:/var/lib/postgresql']", image="postgres:17.6"),
        ],
    ),
    "unneeded-writable-mounts": (
        [service("volumes: ['./conf:/etc/app']")],
        [service("volumes: ['./conf:/etc/app:ro', 'data:/d']")],
    ),
    "published-ports": (
        [
            service("ports: ['80:80']"),
            service("ports: ['0.0.0.0:80:80']"),
            service("ports: [8080]"),
            container(PortBindings={"80/tcp": [{"HostIp": "", "HostPort": "80"}]}),
        ],
        [service("ports: ['127.0.0.1:80:80']"), service("expose: [80]")],
    ),
    "open-ports": ([container(PublishAllPorts=True)], [service("ports: ['80:80']")]),
    "privileged-host-ports": ([service("ports: ['443:8443']")], [service("ports: ['8443:443']")]),
    "default-bridge": ([service("network_mode: bridge"), container(NetworkMode="bridge")], [service("")]),
    "unencrypted-overlay": (
        [
            service("networks: [n]", more="networks: {n: {driver: overlay}}\n"),
            Workload("w", "a", "swarm", networks=(Network("n", "overlay", False),)),
        ],
        [service("networks: [n]", more="networks: {n: {driver: overlay, driver_opts: {encrypted: ''}}}\n")],
    ),
    "ssh-server-inside": (
        [
            service("command: /usr/sbin/sshd -D"),
            service("ports: ['2222:22']"),
            service("entrypoint: [sh, -c, 'dropbear -F']"),
        ],
        [service("command: [ssh-keygen]")],
    ),
    "logging-driver": (
        [
            service(""),
            service("logging: {driver: json-file}"),
            service("logging: {driver: none}"),
            container(LogConfig={"Type": "json-file", "Config": {}}),
        ],
        [
            service("logging: {driver: json-file, options: {max-size: 10m}}"),
            service("logging: {driver: local}"),
            service("logging: {driver: syslog}"),
        ],
    ),
    "no-healthcheck": (
        [
            pod(),
            pod(container="livenessProbe: {exec: {command: [x]}}"),
            service("healthcheck: {disable: true}"),
            service("healthcheck: {test: ['NONE']}"),
        ],
        [
            pod(container="livenessProbe: {exec: {command: [x]}}, readinessProbe: {exec: {command: [x]}}"),
            service("healthcheck: {test: /check}"),
        ],
    ),
    "restart-retries": (
        [service("restart: always"), service("restart: 'on-failure:9'"), container(RestartPolicy={"Name": "always"})],
        [service("restart: 'on-failure:5'")],
    ),
    "no-restart": (
        [service(""), container(RestartPolicy={"Name": "no"})],
        [service("restart: 'on-failure:5'"), service("restart: 'no'")],
    ),
    "update-strategy": (
        [
            pod(top="strategy: {type: Recreate}, "),
            swarm(),
            swarm(spec={"UpdateConfig": {"Parallelism": 0}}),
            swarm(spec={"UpdateConfig": {"Parallelism": 1, "FailureAction": "continue"}}),
        ],
        [pod(), swarm(spec={"UpdateConfig": {"Parallelism": 1}})],
    ),
    "rollback-strategy": (
        [swarm(), swarm(spec={"UpdateConfig": {"Parallelism": 1, "FailureAction": "pause"}})],
        [swarm(spec={"RollbackConfig": {"Parallelism": 1}})],
    ),
    "min-ready-seconds": ([pod()], [pod(top="minReadySeconds: 5, ")]),
    "disruption-budget": ([pod(top="replicas: 3, ")], [pod(top="replicas: 3, ", more=BUDGET)]),
    "single-replica": ([pod(), swarm(spec={"Mode": {"Replicated": {"Replicas": 1}}})], [pod(top="replicas: 2, ")]),
    "mutable-image-tag": (
        [pod(image="app"), pod(image="app:latest"), pod(image="app:1"), service("", image="app:main")],
        [
            pod(image="app@sha256:" + "a" * 64),
            pod(image="app:1.2"),
            pod(image="app:20260101"),
            pod(image="app:deadbeef"),
        ],
    ),
    "image-pull-policy": (
        [pod(), pod(image="app:latest", container="imagePullPolicy: IfNotPresent")],
        [pod(container="imagePullPolicy: Always"), pod(image="app@sha256:" + "a" * 64), pod(image="app:latest")],
    ),
    "secrets-in-environment": (
        [
            service("environment: {DB_PASSWORD: hunter2x}"),
            service("environment: ['URL=postgres://u:hunter2x@db/x']"),
            pod(container="env: [{name: X, value: '-----BEGIN RSA PRIVATE KEY-----'}]"),
            service("environment: {API_KEY: abcdefgh}"),
        ],
        [
            service("environment: {DB_PASSWORD_FILE: /run/secrets/x, DB_PASSWORD: '', TOKEN: '${T}'}"),
            pod(container="env: [{name: P_PASSWORD, valueFrom: {secretKeyRef: {name: a, key: b}}}]"),
            service("environment: {KEYBOARD: de, AUTHOR: me, MONKEY: banana}"),
        ],
    ),
    "secrets-in-arguments": (
        [
            service("command: app --password=hunter2x"),
            service("command: [app, --db-password, hunter2x]"),
            service("entrypoint: [sh, -c, 'mysqldump -uroot -phunter2x shop']"),
            service("healthcheck: {test: [CMD, curl, -u, 'me:hunter2x', 'http://localhost/']}"),
            pod(container="args: ['--dsn=postgres://u:hunter2x@db/x']"),
            pod(container="command: [env, TOKEN=hunter2x, app]"),
            pod(container="livenessProbe: {exec: {command: [redis-cli, -a, hunter2x, ping]}}"),
            pod(container="lifecycle: {preStop: {exec: {command: [redis-cli, -a, hunter2x, save]}}}"),
            pod(container="lifecycle: {postStart: {httpGet: {httpHeaders: [{name: X-Api-Key, value: hunter2x}]}}}"),
            service("post_start: [{command: ls}, {command: redis-cli -a hunter2x ping}]"),
            service("pre_stop: [{command: [redis-cli, -a, hunter2x, save]}]"),
            swarm(inner={"Args": ["--requirepass", "hunter2x"]}),
            container(Config={"Cmd": ["app", "--apiKey=hunter2x"]}),
        ],
        [
            service("command: app --password-file=/run/secrets/x --auth=jwt --max-tokens=100"),
            service("entrypoint: [sh, -c, 'app --token $$TOKEN --password=\"$$(cat /run/secrets/x)\"']"),
            pod(container="args: ['--password=$(PASSWORD)', '--tls-secret', 'shop/tls']"),
            pod(container="command: [docker, run, -p, '8080:80', nginx]"),
            pod(),
        ],
    ),
    "service-account-token": (
        [pod(), pod("serviceAccountName: app")],
        [
            pod("automountServiceAccountToken: false"),
            pod("serviceAccountName: app, automountServiceAccountToken: true"),
        ],
    ),
    "default-namespace": (
        [
            catalog.workload_sources()["kubernetes"].parse(
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}"
            )[0]
        ],
        [pod()],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_check_fails_and_passes_where_it_should(name: str) -> None:
    each = CONTAINER_CHECKS[name]
    bad, good = CASES[name]
    for number, workload in enumerate(bad):
        outcome = each.examine(workload, None)
        assert isinstance(outcome, Failed), (number, workload, outcome)
        assert all(evidence.message.startswith(workload.name) for evidence in outcome.evidence)
    for number, workload in enumerate(good):
        assert isinstance(each.examine(workload, None), Passed), (number, workload, each.examine(workload, None))


def test_every_check_of_a_container_has_its_cases() -> None:
    """Or a test of its own beside this one."""
    there = set(CONTAINER_CHECKS)
    own = {name for name in there if Path(__file__).with_name(f"test_{name.replace('-', '_')}.py").is_file()}
    assert (set(CASES) - there, there - set(CASES) - own) == (set(), set())


@pytest.mark.parametrize("name", CASES)
def test_a_failure_brings_the_remedy_in_the_sources_own_language(name: str) -> None:
    for workload in CASES[name][0]:
        outcome = CONTAINER_CHECKS[name].examine(workload, None)
        assert isinstance(outcome, Failed)
        assert outcome.remedy == CONTAINER_CHECKS[name].remedies.get(workload.source, "")


@pytest.mark.parametrize("each", CONTAINER_CHECKS.values(), ids=lambda c: c.id)
def test_a_check_of_containers_does_not_concern_the_engine(each: ContainerCheck) -> None:
    assert isinstance(each.examine(Workload("e", "", "docker", engine=EngineFacts("e")), None), NotApplicable)


@pytest.mark.parametrize("each", ENGINE_CHECKS.values(), ids=lambda c: c.id)
def test_what_an_engine_does_not_tell_never_passes(each: EngineCheck) -> None:
    facts = EngineFacts("engine", swarm_active=True)
    outcome = each.examine(Workload("engine", "", "docker", engine=facts), None)
    assert isinstance(outcome, Incomplete | NotApplicable | Passed), outcome
    # Their facts are given by swarm_active itself.
    if each.id not in (
        "engine-swarm-networks",
        "engine-swarm-unneeded",
    ):
        assert not isinstance(outcome, Passed)


ENGINES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "engine-rootless": ({"rootless": False}, {"rootless": True}),
    "engine-inter-container-traffic": ({"inter_container": True}, {"inter_container": False}),
    "engine-log-level": ({"log_level": "debug"}, {"log_level": "info"}),
    "engine-iptables": ({"iptables": False}, {"iptables": True}),
    "engine-insecure-registries": ({"insecure_registries": ("r:5000",)}, {"insecure_registries": ()}),
    "engine-storage-driver": ({"storage_driver": "aufs"}, {"storage_driver": "overlay2"}),
    "engine-tls": (
        {"tcp_hosts": ("tcp://0.0.0.0:2375",), "tls_verify": False},
        {"tcp_hosts": ("tcp://0.0.0.0:2376",), "tls_verify": True},
    ),
    "engine-default-ulimits": ({"default_ulimits": ()}, {"default_ulimits": ("nofile",)}),
    "engine-userns-remap": ({"userns_remap": False}, {"userns_remap": True}),
    "engine-cgroup-parent": ({"cgroup_parent": "x"}, {"cgroup_parent": ""}),
    "engine-authorization": ({"authorization_plugins": ()}, {"authorization_plugins": ("dockwarden",)}),
    "engine-central-logging": ({"logging_driver": "json-file"}, {"logging_driver": "syslog"}),
    "engine-no-new-privileges": ({"no_new_privileges": False}, {"no_new_privileges": True}),
    "engine-live-restore": ({"live_restore": False}, {"live_restore": True}),
    "engine-userland-proxy": ({"userland_proxy": True}, {"userland_proxy": False}),
    "engine-seccomp": ({"seccomp": "unconfined"}, {"seccomp": "builtin"}),
    "engine-experimental": ({"experimental": True}, {"experimental": False}),
    "engine-unused-images": ({"images": 100, "containers": 2}, {"images": 5, "containers": 2}),
    "engine-stopped-containers": (
        {"containers": 100, "containers_running": 2},
        {"containers": 5, "containers_running": 2},
    ),
    "engine-swarm-unneeded": ({"swarm_active": True, "swarm_nodes": 1}, {"swarm_active": False}),
    "engine-swarm-managers": ({"swarm_active": True, "swarm_managers": 4}, {"swarm_active": True, "swarm_managers": 3}),
    "engine-swarm-autolock": (
        {"swarm_active": True, "swarm_autolock": False},
        {"swarm_active": True, "swarm_autolock": True},
    ),
    "engine-swarm-certificates": (
        {"swarm_active": True, "node_certificate_days": 365.0},
        {"swarm_active": True, "node_certificate_days": 2.0},
    ),
    "engine-swarm-networks": (
        {"swarm_active": True, "overlay_networks": (Network("n", "overlay", False),)},
        {"swarm_active": True, "overlay_networks": (Network("n", "overlay", True),)},
    ),
}


@pytest.mark.parametrize("name", ENGINE_CHECKS)
def test_a_check_of_the_engine_fails_and_passes_where_it_should(name: str) -> None:
    bad, good = ENGINES[name]
    for facts, kind in ((bad, Failed), (good, Passed)):
        workload = Workload("engine", "", "docker", engine=EngineFacts("engine", **facts))
        assert isinstance(ENGINE_CHECKS[name].examine(workload, None), kind), facts


def test_no_secret_of_a_workload_stands_in_a_finding() -> None:
    workload = service("environment: {DB_PASSWORD: hunter2x}")
    assert "hunter2x" not in repr(check(workload, None))


@pytest.mark.parametrize(
    ("accounts", "kind"),
    [
        (None, "incomplete"),
        (Incomplete("rootfs_unread", "a layer could not be read"), "incomplete"),
        (NotApplicable("the image has no passwd"), "passed"),
        (Passed(), "passed"),
        (Failed((Evidence("uid 0", name="app"),)), "failed"),
        (Failed((Evidence("uid 0", name="toor2"),)), "passed"),
    ],
)
def test_a_user_by_name_is_judged_by_the_accounts_of_its_image(accounts: Outcome | None, kind: str) -> None:
    stored = {} if accounts is None else {"extra-root-accounts": accounts}
    found = CONTAINER_CHECKS["runs-as-root"].examine_container(service("user: app"), replace(subject(), results=stored))
    assert found.kind == kind


def test_a_user_by_name_is_unknown_without_its_image() -> None:
    assert isinstance(CONTAINER_CHECKS["runs-as-root"].examine_container(service("user: app"), None), Incomplete)


@pytest.mark.parametrize(("name", "kind"), [("1000", "failed"), ("1001", "passed")])
def test_a_user_by_number_may_be_the_name_of_a_root_account(name: str, kind: str) -> None:
    """Docker looks for the name first."""
    stored = {"extra-root-accounts": Failed((Evidence("uid 0", name=name),))}
    image = replace(subject(), results=stored)
    found = CONTAINER_CHECKS["runs-as-root"].examine_container(service("user: '1000'"), image)
    assert found.kind == kind


def test_a_gpu_alone_is_a_low_finding() -> None:
    check = CONTAINER_CHECKS["host-devices"]
    gpu, both = service("gpus: all"), service("gpus: all, devices: [/dev/sda]")
    severities = [outcome.severity for each in (gpu, both) if isinstance(outcome := check.examine(each, None), Failed)]
    assert severities == ["low", None]


@pytest.mark.parametrize(
    "workload",
    [task("WINDOWS_SERVER_2022_CORE"), service("platform: windows/amd64"), replace(container(), os="windows")],
    ids=lambda each: each.source,
)
def test_windows_containers_get_no_findings_of_linux(workload: Workload) -> None:
    names = ("runs-as-root", "writable-root-filesystem", "kept-capabilities", "privilege-escalation", "pids-limit")
    results = {each.check: each.outcome for each in check(workload, None)}
    assert {type(results[name]) for name in (*names, "apparmor-profile", "run-as-root-group")} == {NotApplicable}
    assert isinstance(results["memory-limit"], Failed)  # what holds for every container still does


def test_what_was_not_read_fails_one_check_and_passes_none() -> None:
    unread = replace(pod(), unread="names an image, and how it is run is not known")
    results = {each.check: each.outcome for each in check(unread, None)}
    assert isinstance(results.pop("unread-workload"), Failed)
    assert {type(each) for each in results.values()} == {NotApplicable}
    assert isinstance(CONTAINER_CHECKS["privileged-container"].examine(unread, None), NotApplicable)
