"""The Docker engine's door: which requests are judged, which are refused, and what happens without the server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scanner.cli import cli
from scanner.commands import docker_authz
from scanner.commands._engine_gate import EngineGate, Options, content_digests, keeps_images_in_containerd, serve
from scanner.commands._engine_requests import read
from scanner.errors import RefusedError, RemoteError, UsageError
from tests.scanner.registry.test_client import Handler, liar

GOOD, BAD = (f"registry.example.com/shop/{name}@sha256:{digit * 64}" for name, digit in (("good", "1"), ("bad", "2")))
JSON = {"Content-Type": "application/json"}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


CREATE = body({"Image": BAD, "Env": ["PASSWORD=hunter2"], "HostConfig": {"Privileged": True}})


class Engine:
    """An engine with two images, and a container of each."""

    def __init__(self) -> None:
        self.images = {"good": GOOD, "sha256:good": GOOD, GOOD: GOOD, "sha256:bad": BAD, BAD: BAD, "local": ""}
        self.containers: dict[str, Mapping[str, Any]] = {}
        self.volumes: dict[str, Mapping[str, Any]] = {}
        self.services: dict[str, Mapping[str, Any]] = {}

    def image(self, name: str) -> Mapping[str, Any] | None:
        found = self.images.get(name)
        return None if found is None else {"RepoDigests": [found] if found else []}

    def container(self, name: str) -> Mapping[str, Any] | None:
        if name in self.containers:
            return self.containers[name]
        if name not in ("good", "bad"):
            return None
        image = GOOD if name == "good" else BAD
        return {"Name": f"/{name}", "Image": f"sha256:{name}", "Config": {"Image": image}, "HostConfig": {}}

    def volume(self, name: str) -> Mapping[str, Any] | None:
        return self.volumes.get(name)

    def service(self, name: str) -> Mapping[str, Any] | None:
        return self.services.get(name)


def test_a_name_that_an_archive_gave_an_image_in_containerd_is_not_its_digest() -> None:
    """Docker 29 keeps images in containerd: ``docker load`` gives one any name, also that of an allowed image."""
    evil = "sha256:" + "e" * 64
    loaded = {"Id": evil, "RepoDigests": [GOOD, f"registry.example.com/shop/web@{evil}"]}
    own = [f"registry.example.com/shop/web@{evil}"]
    assert content_digests(loaded, in_containerd=True) == own
    assert content_digests({**loaded, "RepoDigests": [GOOD]}, in_containerd=True) == []
    assert content_digests({**loaded, "Descriptor": {"digest": evil}}, in_containerd=False) == own
    assert content_digests({**loaded, "Id": None}, in_containerd=True) == []
    pulled = {"Id": "sha256:" + "c" * 64, "RepoDigests": [GOOD]}
    assert content_digests(pulled, in_containerd=False) == [GOOD], "the older store: the ID is of the configuration"
    assert keeps_images_in_containerd({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]})
    for other in ({}, {"DriverStatus": None}, {"DriverStatus": [["Backing Filesystem", "extfs"]]}):
        assert not keeps_images_in_containerd(other)


def test_where_an_engine_keeps_its_images_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be restarted with another store; and what another thread forgets does not count for this call."""
    evil = "sha256:" + "e" * 64
    in_containerd = True
    asked: list[str] = []

    def answer(h: Handler) -> None:
        asked.append(h.path.rpartition("/")[2])
        if h.path.endswith("/json"):
            engine._kind = None  # another thread's call failed meanwhile
        driver = "io.containerd.snapshotter.v1" if in_containerd else "overlay2"
        found = {"ApiVersion": "1.44", "DriverStatus": [["driver-type", driver]], "Id": evil, "RepoDigests": [GOOD]}
        h.give(body=body(found), content_type="application/json")

    engine = docker_authz._Docker()
    with liar(answer) as there:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{there.host}")
        assert (engine.image("x") or {})["RepoDigests"] == []
        in_containerd = False
        assert (engine.image("x") or {})["RepoDigests"] == [GOOD]
        engine.container("x")
        assert engine._kind is None
        engine._kind = ("1.44", False, time.monotonic() - docker_authz._KIND_SECONDS - 1)
        in_containerd = True
        assert (engine.image("x") or {})["RepoDigests"] == []
        asked.clear()
        engine._kind = ("1.44", True, time.monotonic() + 3600)
        engine.image("x")
        assert asked == ["json"], "not with every call"


class Server:
    """Answers as a server does; ``error`` is what it raises instead."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.error: Exception | None = None
        self.more: dict[str, Any] = {}

    def __call__(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(question)
        if self.error:
            raise self.error
        allowed = any("/bad" not in image for image in question["images"])
        return {"allowed": allowed, "message": "" if allowed else "denied by policy", **self.more}


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(server: Server, clock: Clock) -> EngineGate:
    return EngineGate(Options("host", "production"), Engine(), server, clock=clock, now=clock)


def call(method: str, uri: str, data: bytes | None = None, **headers: str) -> dict[str, Any]:
    """A call as the engine makes it."""
    sent: dict[str, Any] = {
        "User": "ada",
        "RequestMethod": method,
        "RequestUri": uri,
        "RequestHeaders": headers or JSON,
    }
    if data is not None:
        sent["RequestBody"] = base64.b64encode(data).decode()
    return sent


def why(gate: EngineGate, *asked: Any, **headers: str) -> str:
    """Why a call is refused; empty: it passes."""
    try:
        found = gate.concerns(call(*asked, **headers))
    except UsageError as error:
        return str(error)
    return gate.decide(found, "ada") if found else ""


def test_an_allowed_image_is_created_and_a_denied_one_is_not(gate: EngineGate, server: Server) -> None:
    assert why(gate, "POST", "/v1.41/containers/create?name=web", body({"Image": GOOD})) == ""
    assert why(gate, "POST", "/v1.41/containers/create?name=web", CREATE) == "denied by policy"
    question = server.asked[-1]
    assert (question["host"], question["environment"], question["name"]) == ("host", "production", "web")
    assert question["images"] == [BAD]
    assert question["workload"]["privileged"] is True
    assert "hunter2" not in json.dumps(question), "values of variables stay on the host"
    assert why(gate, "POST", "/v1.41/containers/create", CREATE) == "denied by policy"
    assert (server.asked[-1]["name"], server.asked[-1]["workload"]["name"]) == ("", "new"), "reasons begin with it"


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.41", "/v1.52"])
def test_every_version_of_the_api_is_judged(gate: EngineGate, prefix: str) -> None:
    assert why(gate, "POST", f"{prefix}/containers/create", CREATE)
    assert why(gate, "POST", f"{prefix}/containers/bad/start")
    assert why(gate, "POST", f"{prefix}/containers/good/start") == ""


def test_a_start_is_judged_by_what_the_container_is(gate: EngineGate, server: Server) -> None:
    assert why(gate, "POST", "/v1.41/containers/bad/start") == "denied by policy"
    assert why(gate, "POST", "/v1.41/containers/bad/restart?t=1") == "denied by policy"
    assert server.asked[0]["name"] == "bad"
    assert "no container none" in why(gate, "POST", "/v1.41/containers/none/start"), "it could be created meanwhile"
    assert "settings that come with the start" in why(gate, "POST", "/v1.24/containers/good/start", body({"Binds": []}))


@pytest.mark.parametrize("prefix", ["/v1.23", "/v1.9", "/v0.99"])
def test_a_start_before_its_settings_were_refused_by_the_engine(gate: EngineGate, prefix: str) -> None:
    """The engine reads a HostConfig from the body of such a start, and passes no body of more than 1 MiB on."""
    assert "older than 1.24" in why(gate, "POST", f"{prefix}/containers/good/start")
    assert "older than 1.24" in why(gate, "POST", f"{prefix}/containers/good/restart")


@pytest.mark.parametrize("query", ["checkpoint=c1", "checkpoint=c1&checkpoint-dir=/tmp/x", "checkpoint-dir=/tmp/x"])
def test_a_start_from_a_checkpoint_is_refused(gate: EngineGate, query: str) -> None:
    assert "checkpoint" in why(gate, "POST", f"/v1.41/containers/good/start?{query}")


@pytest.mark.parametrize(
    "more",
    [
        {"Privileged": True},
        {"Binds": ["/:/host"], "HostConfig": None},
        {"CapAdd": ["ALL"], "HostConfig": {}},
        {"Memory": 7, "HostConfig": {"Memory": 0}},
    ],
)
def test_settings_outside_of_the_host_config_are_refused(
    gate: EngineGate, server: Server, more: dict[str, Any]
) -> None:
    """Engines up to 24.0 use them: ``{"Image": …, "Privileged": true}`` makes a privileged container."""
    assert "outside of HostConfig" in why(gate, "POST", "/v1.41/containers/create", body({"Image": GOOD, **more}))
    assert server.asked == []
    plain = {"Image": GOOD, "Runtime": None, "Privileged": False}
    assert why(gate, "POST", "/containers/create", body(plain)) == "", "clients send what is not set"


def test_an_update_is_judged_with_what_it_changes(gate: EngineGate, server: Server) -> None:
    engine = gate.engine
    assert isinstance(engine, Engine)
    engine.containers["x"] = container_with(HostConfig={"Memory": 1 << 20, "PidsLimit": 100})
    update = "/v1.41/containers/x/update"
    assert why(gate, "POST", update, body({"Memory": 0, "PidsLimit": -1, "RestartPolicy": {"Name": "always"}})) == ""
    workload = server.asked[-1]["workload"]
    assert (workload["memory"], workload.get("pids_limit"), workload["restart"]) == (1 << 20, 0, "always")
    assert why(gate, "POST", "/containers/bad/update", body({"Memory": 1 << 30})) == "denied by policy"
    ending = body({"Memory": 0, "RestartPolicy": {"Name": "no"}})
    assert why(gate, "POST", "/containers/bad/update", ending) == "", "it ends the restarts of a denied container"
    assert why(gate, "POST", "/containers/good/update", body({"memory": 7})), "the engine would read it"
    assert why(gate, "POST", "/containers/good/update"), "its body is not there"


def test_a_local_image_is_known_by_its_repository_digest(gate: EngineGate, server: Server) -> None:
    assert why(gate, "POST", "/containers/create", body({"Image": "good"})) == ""
    assert server.asked[-1]["images"] == [GOOD]
    assert "no registry knows" in why(gate, "POST", "/containers/create", body({"Image": "local"}))
    assert why(gate, "POST", "/containers/create", body({"Image": "alpine:3"})) == ""
    assert server.asked[-1]["images"] == ["alpine:3"], "it is not here: the engine pulls it next"


def test_a_service_is_judged_by_the_name_that_its_nodes_pull(gate: EngineGate, server: Server) -> None:
    """``docker tag good registry/bad:1`` gives the denied name the digest of the good image, on this host alone."""
    engine = gate.engine
    assert isinstance(engine, Engine)
    name = "registry.example.com/shop/bad:1"
    engine.images[name] = GOOD
    service = body({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": name}}})
    assert why(gate, "POST", "/services/create", service) == "denied by policy"
    assert server.asked[-1]["images"] == [name]
    assert why(gate, "POST", "/containers/create", body({"Image": name})) == "", "a container runs what is here"


def container_with(**more: Any) -> dict[str, Any]:
    return {"Name": "/x", "Image": "sha256:good", "Config": {"Image": GOOD}, "HostConfig": {}, **more}


def test_the_images_that_a_container_mounts_are_sent_by_their_digests(gate: EngineGate, server: Server) -> None:
    engine = gate.engine
    assert isinstance(engine, Engine)
    engine.images["tool:1"] = BAD
    asked = {"Type": "image", "Source": "tool:1", "Target": "/tool"}
    there = {"Type": "image", "Name": "x", "Source": "/var/lib/docker/x", "Destination": "/tool", "RW": True}
    engine.containers["x"] = container_with(Mounts=[there], HostConfig={"Mounts": [asked]})
    why(gate, "POST", "/containers/x/start")
    assert [(mount["kind"], mount["source"]) for mount in server.asked[-1]["workload"]["mounts"]] == [("image", BAD)]


def test_the_mounts_of_a_request_are_judged_before_the_container_exists(gate: EngineGate, server: Server) -> None:
    host = {
        "Binds": ["/:/host:ro", "data:/data"],
        "Mounts": [
            {"Type": "image", "Source": "evil:1", "Target": "/image"},
            {"Type": "bind", "Source": "/etc", "Target": "/b", "ReadOnly": True},
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/c",
                "VolumeOptions": {"DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/root"}}},
            },
        ],
        "VolumesFrom": ["other"],
    }
    assert why(gate, "POST", "/v1.48/containers/create", body({"Image": GOOD, "HostConfig": host})) == ""
    mounts = server.asked[-1]["workload"]["mounts"]
    assert [(each["kind"], each.get("source"), each["target"]) for each in mounts] == [
        ("bind", "/", "/host"),
        ("volume", "data", "/data"),
        ("image", "evil:1", "/image"),
        ("bind", "/etc", "/b"),
        ("bind", "/root", "/c"),
        ("volume", "other", "*"),
    ]
    options = {"driverconfig": {"options": {"type": "none", "o": "bind", "device": "/root"}}}
    hidden = {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/c", "VolumeOptions": options}]}
    refused = why(gate, "POST", "/v1.48/containers/create", body({"Image": GOOD, "HostConfig": hidden}))
    assert "driverconfig" in refused, "Go would read it"


@pytest.mark.parametrize("flags", ["bind", "ro,bind", "rbind"])
def test_a_volume_that_binds_the_host_is_a_bind(gate: EngineGate, server: Server, flags: str) -> None:
    engine = gate.engine
    assert isinstance(engine, Engine)
    options = {"type": "none", "o": flags, "device": "/"}
    engine.volumes["data"] = {"Name": "data", "Driver": "local", "Mountpoint": "/var/lib/x", "Options": options}
    mount = {"Type": "volume", "Name": "data", "Source": "/var/lib/x", "Destination": "/host", "Driver": "local"}
    engine.containers["x"] = container_with(Mounts=[mount])
    why(gate, "POST", "/containers/x/start")
    assert [(each["kind"], each["source"]) for each in server.asked[-1]["workload"]["mounts"]] == [("bind", "/")]


def test_services_are_judged(gate: EngineGate, server: Server) -> None:
    def service(image: str, **more: Any) -> bytes:
        return body({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}, **more}})

    assert why(gate, "POST", "/v1.41/services/create", service(GOOD)) == ""
    assert why(gate, "POST", "/v1.41/services/create", service(BAD)) == "denied by policy"
    assert why(gate, "POST", "/v1.41/services/abc/update?version=7", service(BAD)) == "denied by policy"
    assert server.asked[-1]["workload"]["source"] == "swarm"
    plugin = body({"TaskTemplate": {"Runtime": "plugin", "PluginSpec": {"Remote": "x/y"}}})
    assert "runs as root" in why(gate, "POST", "/services/create", plugin)
    assert why(gate, "POST", "/services/create", body({"Name": "web"}))


def test_a_rollback_is_judged_by_the_former_settings(gate: EngineGate, server: Server) -> None:
    """The engine ignores the settings that come with it, so an allowed image there says nothing."""
    engine = gate.engine
    assert isinstance(engine, Engine)
    innocent = body({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": GOOD}}})
    former = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": BAD}}}
    engine.services["web"] = {"Spec": {}, "PreviousSpec": former}
    update = "/v1.41/services/web/update?version=7&rollback="
    assert why(gate, "POST", f"{update}previous", innocent) == "denied by policy"
    assert why(gate, "POST", update, innocent) == ""
    assert "rollback" in why(gate, "POST", f"{update}Previous", innocent)
    assert "twice" in why(gate, "POST", f"{update}&rollback=previous", innocent)
    assert "no former settings" in why(gate, "POST", "/services/new/update?rollback=previous", innocent)
    former["TaskTemplate"]["ContainerSpec"]["Image"] = GOOD  # type: ignore[index]
    assert why(gate, "POST", f"{update}previous", innocent) == ""


def test_a_swarm_is_joined_only_where_that_is_allowed(gate: EngineGate) -> None:
    """Its other managers start services here without a request to this engine."""
    opened = replace(gate, options=replace(gate.options, swarm=True))
    for path in ("init", "join"):
        assert "managers of a swarm" in why(gate, "POST", f"/v1.41/swarm/{path}", body({}))
        assert why(opened, "POST", f"/v1.41/swarm/{path}", body({})) == ""
    assert why(gate, "POST", "/v1.41/swarm/leave?force=1") == ""


def test_pulls_are_judged(gate: EngineGate, server: Server) -> None:
    no_body = {"Content-Type": "text/plain", "Content-Length": "0"}  # as Docker's client sends it

    def pull(query: str, **headers: str) -> str:
        return why(gate, "POST", f"/v1.41/images/create{query}", None, **(headers or no_body))

    assert pull(f"?fromImage={BAD.replace(':', '%3A')}") == "denied by policy"
    assert pull("?fromImage=registry.example.com/shop/good&tag=1") == ""
    assert server.asked[-1]["images"] == ["registry.example.com/shop/good:1"]
    tag = "sha256:" + "2" * 64
    assert pull(f"?fromImage=registry.example.com/shop/bad&tag={tag}") == "denied by policy"
    found = read("POST", f"/images/create?fromImage=a/b&tag=sha512:{'0' * 128}", {"Content-Length": "0"}, None)
    assert found is not None
    assert found.image == f"a/b@sha512:{'0' * 128}"
    assert pull("?fromSrc=-&repo=x") == "", "an import has no digest, and never starts"
    refused = {
        "every tag": "?fromImage=alpine",
        "twice": "?fromImage=good:1&fromImage=bad:1",
        "names no image": "",
        "in two ways": "?fromImage=good:1;fromImage=bad:1",
    }
    for message, query in refused.items():
        assert message in pull(query), query
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert "in a form" in pull("?fromImage=good:1", **form), "Go prefers the form's value"
    # Of two headers the engine passes the last one on, and reads the first; a chunked body has no header of its own.
    for hidden in ({"Content-Length": "20"}, {}, {"Content-Length": "0, 20"}):
        assert "has no body" in pull("?fromImage=good:1", **{"Content-Type": "text/plain"}, **hidden), hidden


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (None, {"Content-Length": "0", **JSON}),  # CVE-2024-41110
        (b"", {"Content-Length": "0", **JSON}),
        (None, JSON),
        (None, {"Transfer-Encoding": "chunked", **JSON}),
        (CREATE[:-9], JSON),
        (CREATE[:-9], {"Content-Length": str(len(CREATE)), **JSON}),
        (body({"Image": GOOD}), {"Content-Length": "7", **JSON}),
        (body({"Image": GOOD}), {"Content-Length": "-1", **JSON}),
        (body({"Image": GOOD}), {"Content-Length": "16", "content-length": "16"}),
        (body({"Image": GOOD}), {"Content-Type": "text/plain"}),
        (body({"Image": GOOD}) + CREATE, JSON),
        (b'{"Image": "' + GOOD.encode() + b'", "Image": "' + BAD.encode() + b'"}', JSON),
        (body({"Image": GOOD, "image": BAD}), JSON),
        (body({"image": BAD}), JSON),
        (body({"Image": GOOD, "hostconfig": {"Privileged": True}}), JSON),
        (body({"Image": GOOD, "HostConfig": {"privileged": True}}), JSON),
        (body({"Image": GOOD, "HostConfig": {"Mounts": [{"source": "/"}]}}), JSON),
        (body({"Image": GOOD, "HostConfig": []}), JSON),
        (body({"Image": GOOD, "HostConfig": {"Privile\u0261ed": True}, "\u017fhell": ["x"]}), JSON),
        (body({"Image": ""}), JSON),
        (body({"Image": [GOOD]}), JSON),
        (body([GOOD]), JSON),
        (b"null", JSON),
        (b"[" * 100_000, JSON),
    ],
)
def test_a_body_that_was_not_passed_on_or_reads_in_two_ways_is_refused(
    gate: EngineGate, server: Server, data: bytes | None, headers: dict[str, str]
) -> None:
    assert why(gate, "POST", "/v1.41/containers/create", data, **headers).startswith("Dockwarden refuses")
    assert server.asked == []


def test_a_chunked_body_that_is_there_is_judged(gate: EngineGate) -> None:
    assert why(gate, "POST", "/containers/create", CREATE, **JSON, **{"Transfer-Encoding": "chunked"})
    labels = body({"Image": GOOD, "Labels": {"image": "x", "Image": "y"}, "HostConfig": {"Sysctls": {"name": "1"}}})
    assert why(gate, "POST", "/containers/create", labels) == "", "names that people choose are not members"


@pytest.mark.parametrize(
    "uri",
    [
        "//containers/create",
        "/v1.41//containers/create",
        "/v1.41/containers//create",
        "/v1.41/containers%2fcreate",
        "/v1.41/%63ontainers/create",
        "/v1.41/./containers/create",
        "/v1.41/images/../containers/create",
        "/v1.41/Containers/Create",
        "/V1.41/containers/create",
        "/v1.41/v1.41/containers/create",
        "/v1/containers/create",
        "/v1.41/containers/create/",
        "/v1.41/containers/create;x",
        "/v1.41/containers\\create",
        "http://docker/v1.41/containers/create",
        "/containers/bad/start/",
        "/containers/bad/Start",
        "*",
        "",
    ],
)
def test_a_path_that_is_not_plain_is_refused(gate: EngineGate, uri: str) -> None:
    assert why(gate, "POST", uri, CREATE), uri


def test_what_is_never_let_through(gate: EngineGate) -> None:
    assert "privileged exec" in why(gate, "POST", "/containers/good/exec", body({"Cmd": ["sh"], "Privileged": True}))
    assert why(gate, "POST", "/containers/good/exec", body({"Cmd": ["sh"], "privileged": True}))
    assert why(gate, "POST", "/containers/good/exec")
    assert why(gate, "POST", "/containers/good/exec", body({"Cmd": ["sh"], "Privileged": False})) == ""
    for path in ("pull?remote=x", "create?name=x", "x/y/enable", "x/set", "x/upgrade?remote=y"):
        assert "runs as root" in why(gate, "POST", f"/v1.41/plugins/{path}"), path
    assert "does not know" in why(gate, "POST", "/v9.99/containers/launch")
    assert "method" in why(gate, "PATCH", "/containers/create", CREATE)
    assert "method" in why(gate, "post", "/containers/create", CREATE)


def test_builds(gate: EngineGate) -> None:
    assert why(gate, "POST", "/v1.41/build?t=x", **{"Content-Type": "application/x-tar"}) == ""
    assert why(gate, "POST", f'/build?cachefrom=["{BAD}"]') == "denied by policy"
    assert why(gate, "POST", f'/build?cachefrom=["{GOOD}","{BAD}"]') == "denied by policy"
    assert why(gate, "POST", "/build?cachefrom=%7B%7D")
    closed = replace(gate, options=replace(gate.options, builds=False))
    for path in ("/build?t=x", "/session", "/grpc"):
        assert "builds are not allowed" in why(closed, "POST", path), path


def test_what_concerns_nobody_is_not_asked_about(gate: EngineGate, server: Server) -> None:
    for method, uri in (
        ("GET", "/v1.41/containers/json?filters=%7B%7D"),
        ("HEAD", "/_ping"),
        ("DELETE", "/v1.41/containers/bad?force=1"),
        ("POST", "/v1.41/containers/bad/stop"),
        ("POST", "/v1.41/images/registry.example.com/shop/bad/push?tag=1"),
        ("POST", "/v1.41/networks/create"),
        ("PUT", "/v1.41/containers/bad/archive?path=/"),
        ("POST", "/auth"),
    ):
        assert why(gate, method, uri) == "", uri
    assert server.asked == []


# The server, and life without it


def test_an_answer_is_kept_while_it_is_valid(gate: EngineGate, server: Server, clock: Clock) -> None:
    for _ in range(5):
        assert why(gate, "POST", "/containers/create", CREATE) == "denied by policy"
    assert len(server.asked) == 1
    clock.time += 61
    why(gate, "POST", "/containers/create", CREATE)
    assert len(server.asked) == 2
    server.more = {"valid_until": "1970-01-01T00:18:00+00:00"}
    clock.time += 61
    why(gate, "POST", "/containers/create", CREATE)
    why(gate, "POST", "/containers/create", CREATE)
    assert len(server.asked) == 4, "an answer that has ended is not kept"
    why(gate, "POST", "/containers/create", body({"Image": BAD, "HostConfig": {}}))
    assert len(server.asked) == 5, "run otherwise, it is another question"


def test_one_that_is_pending_is_asked_again(gate: EngineGate, server: Server) -> None:
    server.more = {"pending": True, "allowed": False, "message": "it is being scanned"}
    for _ in range(3):
        assert why(gate, "POST", "/containers/create", body({"Image": GOOD}))
    assert len(server.asked) == 3


@pytest.mark.parametrize("error", [RemoteError("it does not answer"), RemoteError("503", reason="db_unavailable")])
def test_without_the_server_the_last_answer_counts_for_a_while(
    gate: EngineGate, server: Server, clock: Clock, error: Exception
) -> None:
    assert why(gate, "POST", "/containers/create", body({"Image": GOOD})) == ""
    assert why(gate, "POST", "/containers/create", CREATE)
    server.error = error
    clock.time += 3000
    assert why(gate, "POST", "/containers/create", body({"Image": GOOD})) == ""
    assert why(gate, "POST", "/containers/create", CREATE) == "denied by policy"
    assert "cannot be asked" in why(gate, "POST", "/containers/create", body({"Image": "other:1"}))
    clock.time += 700
    assert "cannot be asked" in why(gate, "POST", "/containers/create", body({"Image": GOOD}))
    opened = replace(gate, options=replace(gate.options, fail_open=True))
    assert why(opened, "POST", "/containers/create", body({"Image": "other:1"})) == ""
    server.error = RemoteError("the server answered: too many requests", reason="rate_limited")
    assert "too many requests" in why(opened, "POST", "/containers/create", body({"Image": "other:1"}))
    assert why(opened, "POST", "/plugins/pull?remote=x"), "what is never let through needs no server"


def test_a_server_that_refuses_us_is_not_away(gate: EngineGate, server: Server) -> None:
    assert why(gate, "POST", "/containers/create", body({"Image": GOOD})) == ""
    server.error = RefusedError("the token is not valid", reason="bad_token")
    opened = replace(gate, options=replace(gate.options, fail_open=True))
    assert "the token is not valid" in why(opened, "POST", "/containers/create", body({"Image": "other:1"}))


@pytest.mark.parametrize("answer", [{}, {"allowed": "yes"}, {"allowed": 1}, {"allowed": None, "valid_until": 7}])
def test_an_answer_that_says_nothing_denies(gate: EngineGate, answer: dict[str, Any]) -> None:
    gate.ask = lambda question: answer
    assert why(gate, "POST", "/containers/create", body({"Image": GOOD}))


def test_an_engine_that_does_not_answer_denies(gate: EngineGate, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        raise RemoteError("the Docker engine does not answer", reason="engine_unavailable")

    monkeypatch.setattr(gate.engine, "image", away)
    assert "could not find out" in why(gate, "POST", "/containers/create", body({"Image": GOOD}))
    monkeypatch.setattr(gate.engine, "image", lambda name: 1 / 0)
    assert "internal error" in why(gate, "POST", "/containers/create", body({"Image": GOOD}))


# The socket


@pytest.fixture
def listening(gate: EngineGate, tmp_path: Path) -> Iterator[str]:
    path, ready = str(tmp_path / "s"), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(gate, path, ready.set, stop)))
    thread.start()
    assert ready.wait(60)
    yield path
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


def sent(connection: socket.socket, path: str, document: Any) -> dict[str, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head_, _, rest = answer.partition(b"\r\n\r\n")
    length = int(head_.lower().rpartition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(rest) < length:
        rest += connection.recv(65536)
    found: dict[str, Any] = json.loads(rest)
    return found


def test_the_protocol(listening: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(listening)
        assert sent(connection, "/Plugin.Activate", b"") == {"Implements": ["authz"]}
        ask = "/AuthZPlugin.AuthZReq"
        assert sent(connection, ask, call("GET", "/v1.41/info")) == {"Allow": True}
        assert sent(connection, ask, call("POST", "/containers/create", body({"Image": GOOD}))) == {"Allow": True}
        denied = sent(connection, ask, call("POST", "/containers/create", CREATE))
        assert denied == {"Allow": False, "Msg": "denied by policy"}
        assert not sent(connection, ask, call("POST", "//containers/create", CREATE))["Allow"]
        assert sent(connection, "/AuthZPlugin.AuthZRes", call("POST", "/containers/create", CREATE)) == {"Allow": True}
        no_base64 = b'{"RequestMethod":"POST","RequestUri":"/x","RequestBody":"%"}'
        for broken in (b"", b"[]", b"{", b"null", b'{"RequestMethod": 7}', no_base64):
            assert not sent(connection, ask, broken).get("Allow"), broken
        assert "Err" in sent(connection, "/Plugin.Other", b"{}")


def test_the_socket_and_the_discovery_file(tmp_path: Path) -> None:
    path = tmp_path / "plugins" / "s"
    docker_authz._prepare(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        docker_authz._prepare(path)
        assert not path.exists(), "one that nobody answers on is left over from a former process"
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(path))
            alive.listen()
            with pytest.raises(UsageError, match="another process"):
                docker_authz._prepare(path)
    path.unlink()
    path.write_text("a file")
    with pytest.raises(UsageError, match="is no socket"):
        docker_authz._prepare(path)
    docker_authz._discover(tmp_path / "etc", path)
    found = json.loads((tmp_path / "etc" / "dockwarden.json").read_text())
    assert found == {"Name": "dockwarden", "Addr": f"unix://{path}"}


def test_without_a_server_it_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["docker-authz", "--socket", "/nonexistent/s"], env=dict(os.environ))
    assert isinstance(done.exception, UsageError) or done.exit_code == 2


def test_reading_alone_changes_nothing() -> None:
    assert read("GET", "//anything/../at%2fall", {}, None) is None
