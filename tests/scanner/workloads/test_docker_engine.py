"""A real Docker engine: containers of every sin are audited as they run, and the services of a real swarm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scanner.config import Settings
from tests.scanner.workloads.engine_sins import EVERYWHERE, GOOD, IMAGE, MACHINE, SINS, archive
from tests.servers import free_port
from tests.test_end_to_end import dockwarden

_UNENCRYPTED, _ENCRYPTED = "shop-plain", "shop-encrypted"


@pytest.fixture(scope="module")
def engine(dockerd: str) -> Iterator[Any]:
    import docker

    client = docker.DockerClient(base_url=dockerd, timeout=120)
    client.api.import_image_from_data(archive(), repository="shop/web", tag="latest", changes=['CMD ["/pause"]'])
    made = [
        client.containers.run(IMAGE, ["/pause"], name=name, detach=True, **{**GOOD, **sin.options})
        for name, sin in SINS.items()
    ]
    yield client
    for container in made:
        container.remove(force=True)
    client.images.remove(IMAGE, force=True)
    client.close()


def _audit(settings: Settings, dockerd: str, target: str) -> dict[str, dict[str, str]]:
    """Of each workload its checks' outcomes."""
    done = dockwarden(settings, "audit", target, "--format", "json", DOCKER_HOST=dockerd)
    assert done.returncode in (0, 1, 3), done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["audit"]["workloads"]
    return {each["workload"]["name"]: {c["check"]: c["outcome"]["kind"] for c in each["checks"]} for each in found}


def test_each_sin_is_found_in_the_container_that_has_it_and_in_no_other(
    settings: Settings, engine: Any, dockerd: str
) -> None:
    found = _audit(settings, dockerd, "docker")
    assert any(name.startswith("docker engine") for name in found), "the engine itself is audited as well"
    failed = {
        name: {check for check, outcome in checks.items() if outcome == "failed"} for name, checks in found.items()
    }
    assert {name: failed[name] - MACHINE - EVERYWHERE for name in SINS} == {
        name: set(sin.checks) for name, sin in SINS.items()
    }
    assert all(failed[name] >= EVERYWHERE for name in SINS)


def test_the_value_of_a_secret_is_in_no_report(settings: Settings, engine: Any, dockerd: str) -> None:
    for format_ in ("json", "table", "sarif"):
        done = dockwarden(settings, "audit", "docker", "--format", format_, DOCKER_HOST=dockerd)
        assert "DB_PASSWORD" in done.stdout
        assert "not-a-real-one" not in done.stdout + done.stderr


def test_a_saved_inspect_says_the_same_as_the_engine(
    settings: Settings, engine: Any, dockerd: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    saved = tmp_path_factory.mktemp("saved") / "inspect.json"
    saved.write_text(json.dumps([engine.api.inspect_container(name) for name in SINS], indent=2))
    asked, read = _audit(settings, dockerd, "docker"), _audit(settings, dockerd, f"docker:{saved}")
    # Only the running engine knows which processes run inside.
    assert all({**asked[name], "ssh-server-inside": ""} == {**read[name], "ssh-server-inside": ""} for name in SINS)


def test_the_services_of_a_swarm(settings: Settings, engine: Any, dockerd: str) -> None:
    done = dockwarden(settings, "audit", "swarm", DOCKER_HOST=dockerd)
    assert (done.returncode, "not a swarm manager" in done.stderr) == (2, True), done.stderr
    from docker.types import EndpointSpec, Resources

    engine.swarm.init(advertise_addr="127.0.0.1", listen_addr=f"127.0.0.1:{free_port()}")
    try:
        for name, options in ((_UNENCRYPTED, {}), (_ENCRYPTED, {"encrypted": "true"})):
            engine.networks.create(name, driver="overlay", options=options)
        bad = {"networks": [_UNENCRYPTED], "env": ["DB_PASSWORD=not-a-real-one"], "user": "0"}
        good = {"networks": [_ENCRYPTED], "user": "10001:10001", "resources": Resources(mem_limit=32 << 20)}
        for name, options in (("bad", bad), ("good", good)):
            engine.services.create(IMAGE, ["/pause"], name=name, endpoint_spec=EndpointSpec(mode="dnsrr"), **options)
        found = _audit(settings, dockerd, "swarm")
        sins = ("unencrypted-overlay", "secrets-in-environment", "runs-as-root", "memory-limit")
        assert [found["bad"][check] for check in sins] == ["failed"] * 4
        assert [found["good"][check] for check in sins] == ["passed"] * 4
        own = next(checks for name, checks in _audit(settings, dockerd, "docker").items() if "engine" in name)
        assert own["engine-swarm-autolock"] == own["engine-swarm-networks"] == "failed"
    finally:
        for service in engine.services.list():
            service.remove()
        engine.swarm.leave(force=True)
