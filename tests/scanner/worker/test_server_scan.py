"""What a worker learns of an image's base: from the store, and from registries that are configured, from no other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.config import Secret, Settings
from scanner.model.lineage import BASE_DIGEST, BASE_NAME, BaseImage
from scanner.model.reference import Digest
from scanner.registry.auth import Credentials
from scanner.registry.cloud import access
from scanner.registry.cloud.base import CloudAccess, Surroundings, Token
from scanner.store import registries
from scanner.store.session import Database
from scanner.worker.server_scan import known_base, registry_access
from tests.scanner.store import factories as make
from tests.servers import Registry, need

KEY = Secret("0" * 64)


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database("sqlite:///:memory:")
    made.upgrade()
    yield made
    made.engine.dispose()


def base_of(database: Database, settings: Settings, name: str, digest: str) -> BaseImage | None:
    image = replace(make.image("app"), annotations=((BASE_NAME, name), (BASE_DIGEST, digest)))
    return known_base(settings, database, KEY, "default")(image)


def push(registry: Registry, layout: Path, name: str) -> Digest:
    command = [
        need("skopeo", "skopeo"),
        "copy",
        "-q",
        "--preserve-digests",
        "--dest-tls-verify=false",
        "--digestfile",
        "/dev/stdout",
    ]
    done = subprocess.run(
        [*command, f"oci:{layout}", f"docker://{registry.host}/{name}"], capture_output=True, text=True, check=True
    )
    return Digest(done.stdout.strip())


def test_a_configured_registry_is_asked_what_the_tag_names_now(
    database: Database, settings: Settings, plain_registry: Registry, sample_layouts: Path
) -> None:
    digest = push(plain_registry, sample_layouts / "shop/good", "bases/good:1")
    name = f"{plain_registry.host}/bases/good:1"
    unasked = base_of(database, settings, name, digest)
    assert unasked is not None
    assert unasked.outdated is None, "it is not configured: nobody connects to it"
    with database.session() as session:
        registries.add(session, plain_registry.host, KEY, insecure=True)
    current = base_of(database, settings, name, digest)
    assert current is not None
    assert current.outdated is False
    push(plain_registry, sample_layouts / "shop/vulnerable", "bases/good:1")
    replaced = base_of(database, settings, name, digest)
    assert replaced is not None
    assert replaced.outdated


@pytest.mark.parametrize("name", ["127.0.0.1:1/x:1", "registry.example.com/x:1", "localhost/x"])
def test_a_name_that_leads_nowhere_costs_nothing(database: Database, settings: Settings, name: str) -> None:
    found = base_of(database, settings, name, Digest.of(b"x"))
    assert found is not None
    assert found.newest is None


def test_a_registry_that_does_not_answer_costs_nothing(database: Database, settings: Settings) -> None:
    with database.session() as session:
        registries.add(session, "127.0.0.1:1", KEY, insecure=True)
    found = base_of(database, settings, "127.0.0.1:1/x:1", Digest.of(b"x"))
    assert found is not None
    assert found.newest is None


def test_a_cloud_registrys_credentials_are_obtained_when_they_are_used(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    asked: list[CloudAccess] = []

    def client(wanted: CloudAccess, around: Surroundings) -> Token:
        asked.append(wanted)
        return Token(Credentials("AWS", Secret("the-password")), 60)

    monkeypatch.setattr(access, "_CLIENTS", {"ecr": client})
    with database.session() as session:
        registries.add(session, host, KEY, username="AKID", password=Secret("the-key"), credentials="ecr")
    # The setting is for registries without TLS; a cloud's token is not sent to one.
    way, store = registry_access(replace(settings, insecure_registries=(host,)), database, KEY, host)
    assert not way.insecure
    assert asked == []
    assert store.find(host) == Credentials("AWS", Secret("the-password"))
    assert store.find(host) == Credentials("AWS", Secret("the-password"))
    assert [(one.kind, one.host, one.username, one.password.reveal()) for one in asked] == [
        ("ecr", host, "AKID", "the-key")
    ]
    assert "the-key" not in f"{asked}"
    with database.session() as session:
        registries.add(session, "registry.example.com", KEY, token_service="gitlab.example.com")
    assert registry_access(settings, database, KEY, "registry.example.com")[0].token_service == "gitlab.example.com"
    # Credentials that came with a request are used instead.
    sent = Credentials("robot", Secret("sent"))
    assert registry_access(settings, database, KEY, host, credentials=sent)[1].find(host) == sent
    assert store.find("other.example.com") is None
