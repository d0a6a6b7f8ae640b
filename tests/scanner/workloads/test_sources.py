"""Every source: the same sins come out of each format, at the line that says them, and no document breaks a reader."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import catalog
from scanner.errors import UsageError
from scanner.services.workloads import source_of
from scanner.workloads import base
from tests.scanner.workloads.sins import BAD, UNSAYABLE

SINS = {
    "image": "registry.example.com/shop/web:latest",
    "user": "0",
    "privileged": True,
    "network_mode": "host",
    "pid_mode": "host",
    "ipc_mode": "host",
    "cap_add": ("SYS_ADMIN",),
    "seccomp": "Unconfined",
}
LINES = {  # the word that stands on the line a finding must name
    "privileged": ("privileged", "Privileged"),
    "cap_add": ("SYS_ADMIN", "add:", '"add"', "CapAdd", "CapabilityAdd", "cap_add", "parameters"),
    "mounts": ("volumes", "volumeMounts", "Mounts", "mountPoints"),
    "environment": ("env", "Env", "environment"),
}


@pytest.mark.parametrize("source", BAD)
def test_the_same_sins_come_out_of_every_format(source: str) -> None:
    (workload,) = catalog.workload_sources()[source].parse(BAD[source], "file")
    for field, value in SINS.items():
        if field not in UNSAYABLE.get(source, ()):
            found = getattr(workload, field)
            assert (found.partition("@")[0] if field == "image" else found) == value, field
    assert [(m.kind, m.source) for m in workload.mounts] == [("bind", "/var/run/docker.sock")]
    assert [(v.name, v.value) for v in workload.environment] == [("DB_PASSWORD", "not-a-real-one")]
    assert "not-a-real-one" not in repr(workload)


@pytest.mark.parametrize("source", BAD)
@pytest.mark.parametrize("field", LINES)
def test_a_finding_names_the_line_to_change(source: str, field: str) -> None:
    (workload,) = catalog.workload_sources()[source].parse(BAD[source], "file")
    if field in UNSAYABLE.get(source, ()):
        return
    place = workload.place(field)
    assert place.file == "file"
    assert place.line is not None
    line = BAD[source].splitlines()[place.line - 1]
    assert any(word in line for word in LINES[field]), (place, line)


@pytest.mark.parametrize("source", BAD)
def test_a_document_is_recognised_by_its_own_source_alone(source: str) -> None:
    assert source_of(BAD[source], "file").id == source


@pytest.mark.parametrize("source", catalog.workload_sources())
@pytest.mark.parametrize(
    "text", ["", "just text", "[]", "{}", "3", "null", "a: 1\nb: 2", '{"apiVersion": 3}', "[[[]]]", "\ufeff"]
)
def test_what_is_no_such_document_is_refused_with_its_file(source: str, text: str) -> None:
    if text == "[]" and source in ("docker", "swarm", "ecs", "marathon"):
        assert catalog.workload_sources()[source].parse(text, "the-file") == ()
        return
    with pytest.raises(UsageError, match="the-file"):
        catalog.workload_sources()[source].parse(text, "the-file")


KEYS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "template",
        "containers",
        "image",
        "name",
        "items",
        "services",
        "volumes",
        "ports",
        "environment",
        "deploy",
        "HostConfig",
        "Config",
        "Spec",
        "TaskTemplate",
        "ContainerSpec",
        "containerDefinitions",
        "family",
        "id",
        "container",
        "docker",
        "apps",
        "groups",
        "Mounts",
        "securityContext",
        "resources",
        "limits",
        "networks",
        "healthcheck",
        "command",
        "user",
        "labels",
        "extends",
        "include",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_no_document_breaks_a_source(value: object) -> None:
    _read_by_all(json.dumps(value))


@given(st.text(max_size=60) | st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_a_source(text: str | bytes) -> None:
    _read_by_all(text)


def _read_by_all(text: str | bytes) -> None:
    for source in catalog.workload_sources().values():
        with contextlib.suppress(UsageError):
            source.parse(text, "file")


@pytest.mark.parametrize("source", BAD)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_broken_part_of_a_document_is_refused_or_read(source: str, data: st.DataObject) -> None:
    document = yaml.safe_load(BAD[source])
    holder, key = data.draw(st.sampled_from(list(_places(document))))
    holder[key] = data.draw(VALUES)
    with contextlib.suppress(UsageError):
        for workload in catalog.workload_sources()[source].parse(json.dumps(document), "file"):
            assert workload.place("privileged", "image").file == "file"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(child, dict | list):
            yield from _places(child)


@pytest.mark.parametrize("source", BAD)
def test_a_directory_is_read_only_where_its_tools_take_one(source: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD[source])
    os.mkfifo(tmp_path / "pipe.yaml")
    found = catalog.workload_sources()[source]
    if found.directories:
        assert len(found.load(str(tmp_path), bytes)) == 1
        return
    with pytest.raises(UsageError, match=str(tmp_path)):
        found.load(str(tmp_path), bytes)
    if source == "compose":
        (tmp_path / "a.yaml").rename(tmp_path / "docker-compose.yml")
        assert len(found.load(str(tmp_path), bytes)) == 1


@pytest.mark.parametrize("source", BAD)
@pytest.mark.parametrize("file", ["/dev/zero", "/dev/null", "/proc/self/mem"])
def test_a_device_is_no_document(source: str, file: str) -> None:
    with pytest.raises(UsageError, match=file):
        catalog.workload_sources()[source].load(file, bytes)


def test_a_directory_of_too_much_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubernetes = catalog.workload_sources()["kubernetes"]
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(BAD["kubernetes"])
    monkeypatch.setattr(base, "MAX_BYTES", 2 * len(BAD["kubernetes"]))
    with pytest.raises(UsageError, match="of manifests"):
        kubernetes.load(str(tmp_path), bytes)
    monkeypatch.setattr(base, "_MAX_FILES", 2)
    with pytest.raises(UsageError, match="more than 2 files or directories"):
        kubernetes.load(str(tmp_path), bytes)


HOST_ROOT = {"type": "none", "o": "bind", "device": "/"}
DRIVER = {"DriverConfig": {"Options": HOST_ROOT}}
REQUEST = {
    "Type": "volume",
    "Source": "data",
    "Target": "/h",
    "VolumeOptions": {"DriverConfig": {"Options": HOST_ROOT}},
}
VOLUME = {"Name": "data", "Driver": "local", "Mountpoint": "/var/lib/x", "Options": HOST_ROOT}


def inspected(**host: Any) -> dict[str, Any]:
    mount = {"Type": "volume", "Name": "data", "Source": "/var/lib/x", "Destination": "/h", "Driver": "local"}
    return {"Name": "/x", "Config": {"Image": "app"}, "HostConfig": host, "Mounts": [mount]}


@pytest.mark.parametrize(
    ("source", "document"),
    [
        ("docker", [inspected(), VOLUME]),
        ("docker", inspected(Mounts=[REQUEST])),
        ("swarm", {"ID": "1", "Spec": {"TaskTemplate": {"ContainerSpec": {"Image": "app", "Mounts": [REQUEST]}}}}),
        (
            "compose",
            {
                "services": {"web": {"image": "app", "volumes": ["data:/h"]}},
                "volumes": {"data": {"driver_opts": HOST_ROOT}},
            },
        ),
    ],
    ids=["docker volume", "docker", "swarm", "compose"],
)
def test_a_volume_that_binds_a_path_of_the_host_is_a_bind(source: str, document: Any) -> None:
    """Mounted under the harmless name of a volume, the host's root would pass the checks of mounts."""
    (workload,) = catalog.workload_sources()[source].parse(json.dumps(document))
    assert [(mount.kind, mount.source, mount.target) for mount in workload.mounts] == [("bind", "/", "/h")]


def test_a_volume_without_bind_options_stays_a_volume() -> None:
    document = [inspected(), {**VOLUME, "Options": {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/data"}}]
    (workload,) = catalog.workload_sources()["docker"].parse(json.dumps(document))
    assert [(mount.kind, mount.source) for mount in workload.mounts] == [("volume", "data")]


def test_the_mount_parameter_of_marathon_is_that_of_docker_run() -> None:
    values = (
        "type=bind,source=/var/run/docker.sock,target=/s,readonly",
        "type=image,src=registry.example.com/tool:1,dst=/t",
        "type=volume,source=v,target=/v,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/etc",
    )
    parameters = [{"key": "mount", "value": each} for each in values]
    app = {"id": "/a", "container": {"type": "DOCKER", "docker": {"image": "own:1", "parameters": parameters}}}
    (found,) = catalog.workload_sources()["marathon"].parse(json.dumps(app))
    assert [(each.kind, each.source, each.target, each.read_only) for each in found.mounts] == [
        ("bind", "/var/run/docker.sock", "/s", True),
        ("image", "registry.example.com/tool:1", "/t", False),
        ("bind", "/etc", "/v", False),
    ]
    assert [use.image for use in found.images] == ["own:1", "registry.example.com/tool:1"]
