"""One badly run container, and one well run, as each source writes them: the same facts must come out of all six."""

from __future__ import annotations

import json
from typing import Any

DIGEST = "sha256:" + "ab" * 32

KUBERNETES_BAD = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  template:
    metadata: {labels: {app: web}}
    spec:
      hostNetwork: true
      hostPID: true
      hostIPC: true
      containers:
        - name: app
          image: registry.example.com/shop/web:latest
          securityContext:
            privileged: true
            runAsUser: 0
            capabilities:
              add: [SYS_ADMIN]
            seccompProfile: {type: Unconfined}
          env:
            - name: DB_PASSWORD
              value: not-a-real-one
          volumeMounts:
            - name: sock
              mountPath: /var/run/docker.sock
      volumes:
        - name: sock
          hostPath: {path: /var/run/docker.sock}
"""

COMPOSE_BAD = """\
services:
  web:
    image: registry.example.com/shop/web:latest
    privileged: true
    user: "0"
    cap_add: [SYS_ADMIN]
    security_opt: ["seccomp=unconfined"]
    network_mode: host
    pid: host
    ipc: host
    environment:
      DB_PASSWORD: not-a-real-one
    volumes:
      - /var/run/docker.sock:/var/run/docker.sock
"""

DOCKER_BAD: list[dict[str, Any]] = [
    {
        "Id": "c" * 64,
        "Name": "/web",
        "Image": DIGEST,
        "AppArmorProfile": "docker-default",
        "State": {"StartedAt": "2026-01-02T03:04:05Z"},
        "Config": {
            "Image": "registry.example.com/shop/web:latest",
            "User": "0",
            "Env": ["DB_PASSWORD=not-a-real-one"],
            "Labels": {},
        },
        "HostConfig": {
            "Privileged": True,
            "CapAdd": ["CAP_SYS_ADMIN"],
            "CapDrop": None,
            "SecurityOpt": ["seccomp=unconfined"],
            "NetworkMode": "host",
            "PidMode": "host",
            "IpcMode": "host",
            "Memory": 0,
            "NanoCpus": 0,
            "PidsLimit": None,
            "ReadonlyRootfs": False,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {}},
        },
        "Mounts": [
            {
                "Type": "bind",
                "Source": "/var/run/docker.sock",
                "Destination": "/var/run/docker.sock",
                "RW": True,
                "Propagation": "rprivate",
            }
        ],
        "NetworkSettings": {"Networks": {"host": {"NetworkID": "h" * 64}}},
    }
]

SWARM_BAD: list[dict[str, Any]] = [
    {
        "ID": "s",
        "Spec": {
            "Name": "web",
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": f"registry.example.com/shop/web:latest@{DIGEST}",
                    "User": "0",
                    "Env": ["DB_PASSWORD=not-a-real-one"],
                    "CapabilityAdd": ["CAP_SYS_ADMIN"],
                    "Privileges": {"Seccomp": {"Mode": "unconfined"}},
                    "Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/var/run/docker.sock"}],
                },
                "Networks": [{"Target": "net1"}],
            },
            "Mode": {"Replicated": {"Replicas": 1}},
        },
    },
    {"Name": "shop", "Id": "net1", "Driver": "overlay", "IPAM": {}, "Options": {}},
]

ECS_BAD: dict[str, Any] = {
    "family": "web",
    "networkMode": "host",
    "pidMode": "host",
    "ipcMode": "host",
    "containerDefinitions": [
        {
            "name": "app",
            "image": "registry.example.com/shop/web:latest",
            "user": "0",
            "privileged": True,
            "dockerSecurityOptions": ["seccomp:unconfined"],
            "linuxParameters": {"capabilities": {"add": ["SYS_ADMIN"]}},
            "environment": [{"name": "DB_PASSWORD", "value": "not-a-real-one"}],
            "mountPoints": [{"sourceVolume": "sock", "containerPath": "/var/run/docker.sock"}],
        }
    ],
    "volumes": [{"name": "sock", "host": {"sourcePath": "/var/run/docker.sock"}}],
}

MARATHON_BAD: dict[str, Any] = {
    "id": "/shop/web",
    "instances": 1,
    "mem": 128,
    "networks": [{"mode": "host"}],
    "env": {"DB_PASSWORD": "not-a-real-one"},
    "container": {
        "type": "DOCKER",
        "docker": {
            "image": "registry.example.com/shop/web:latest",
            "privileged": True,
            "parameters": [
                {"key": "user", "value": "0"},
                {"key": "cap-add", "value": "SYS_ADMIN"},
                {"key": "security-opt", "value": "seccomp=unconfined"},
                {"key": "pid", "value": "host"},
                {"key": "ipc", "value": "host"},
            ],
        },
        "volumes": [{"containerPath": "/var/run/docker.sock", "hostPath": "/var/run/docker.sock", "mode": "RW"}],
    },
}

BAD = {
    "kubernetes": KUBERNETES_BAD,
    "compose": COMPOSE_BAD,
    "docker": json.dumps(DOCKER_BAD, indent=2),
    "swarm": json.dumps(SWARM_BAD, indent=2),
    "ecs": json.dumps(ECS_BAD, indent=2),
    "marathon": json.dumps(MARATHON_BAD, indent=2),
}
# What a source has no word for: a Swarm service is never privileged and never in the host's pid or ipc namespace.
UNSAYABLE = {"swarm": frozenset(("privileged", "network_mode", "pid_mode", "ipc_mode"))}
