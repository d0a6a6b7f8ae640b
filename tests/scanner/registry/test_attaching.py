"""Attestations beside an image in a real registry: both forms, replaced by the next push, others' kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scanner.config import Secret, Settings
from scanner.errors import ImageError, NotFoundError, RemoteError
from scanner.model.reference import Digest, Reference
from scanner.registry.attaching import OURS, Attestation, attach
from scanner.registry.auth import Credentials, CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.registry.manifest import OCI_INDEX, OCI_MANIFEST
from tests.servers import Registry

TYPE, AT = "https://slsa.dev/verification_summary/v1", datetime(2026, 11, 27, tzinfo=UTC)
_EMPTY = "application/vnd.oci.empty.v1+json"


def open_client(registry: Registry, settings: Settings) -> RegistryClient:
    given = {registry.host: Credentials(registry.username, Secret(registry.password))} if registry.username else {}
    ca_file = registry.authority.file if registry.authority else None
    access = Access(insecure=registry.authority is None, ca_file=ca_file, named=True)
    return RegistryClient(registry.host, settings, CredentialStore(settings, given, personal=False), access, tries=1)


def pushed(client: RegistryClient, name: str) -> Reference:
    """An image without layers."""
    config = client.push_blob(name, json.dumps({"name": name}).encode())
    body = {"mediaType": _EMPTY, "digest": str(config), "size": len(json.dumps({"name": name}))}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": body, "layers": []}).encode()
    client.push_manifest(name, "1", data, OCI_MANIFEST)
    return Reference(client.host, name, None, Digest.of(data))


def attestation(text: str, owner: str = "us") -> Attestation:
    return Attestation(TYPE, b'{"envelope": "%b"}' % text.encode(), b'{"bundle": "%b"}' % text.encode(), owner, AT)


def beside(client: RegistryClient, image: Reference) -> list[str]:
    """The envelopes under cosign's tag."""
    assert image.digest
    _, data = client.manifest(Reference(image.host, image.repository, f"sha256-{image.digest.hex}.att"))
    layers = json.loads(data)["layers"]
    return [client.blob(image, Digest(each["digest"]), 1000).decode() for each in layers]


def referring(client: RegistryClient, image: Reference) -> list[str]:
    """The bundles that refer to the image."""
    assert image.digest
    found = []
    for each in client.referrers(image, image.digest, "application/vnd.dev.sigstore.bundle.v0.3+json"):
        _, data = client.manifest(image.at(each.digest))
        manifest = json.loads(data)
        assert manifest["subject"]["digest"] == image.digest
        found.append(client.blob(image, Digest(manifest["layers"][0]["digest"]), 1000).decode())
    return found


@pytest.mark.parametrize("which", ["plain_registry", "registry"])
def test_the_next_push_replaces_ours_and_keeps_others(
    which: str, request: pytest.FixtureRequest, settings: Settings
) -> None:
    with open_client(request.getfixturevalue(which), settings) as client:
        image = pushed(client, f"attaching/{which}")
        attach(client, image, "others", [attestation("theirs", "others")])
        attach(client, image, "us", [attestation("old"), attestation("older")])
        attach(client, image, "us", [attestation("new")])
        attach(client, image, "us", [attestation("new")])  # again: nothing doubles
        assert beside(client, image) == ['{"envelope": "theirs"}', '{"envelope": "new"}']
        assert referring(client, image) == ['{"bundle": "theirs"}', '{"bundle": "new"}']
        attach(client, image, "us", [])
        assert beside(client, image) == ['{"envelope": "theirs"}']
        assert referring(client, image) == ['{"bundle": "theirs"}']


def test_what_is_not_there_stays_as_it_is(plain_registry: Registry, settings: Settings) -> None:
    with open_client(plain_registry, settings) as client:
        image = pushed(client, "attaching/nothing")
        attach(client, image, "us", [])
        with pytest.raises(NotFoundError):
            beside(client, image)
        with pytest.raises(NotFoundError):
            attach(client, image.at(Digest.of(b"another")), "us", [attestation("x")])


def test_somebody_elses_tag_is_not_replaced(plain_registry: Registry, settings: Settings) -> None:
    """A tag of that name that is an index, not attestations, is left alone."""
    with open_client(plain_registry, settings) as client:
        image = pushed(client, "attaching/foreign")
        assert image.digest
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
        client.push_manifest(image.repository, f"sha256-{image.digest.hex}.att", body, OCI_INDEX)
        with pytest.raises(ImageError, match="something else than attestations"):
            attach(client, image, "us", [attestation("x")])


def test_credentials_that_may_not_push_are_named(registry: Registry, settings: Settings, tmp_path: Path) -> None:
    assert registry.authority
    access = Access(ca_file=registry.authority.file, named=True)
    nobody = CredentialStore(settings, {registry.host: Credentials("ci", Secret("wrong"))}, personal=False)
    with (
        RegistryClient(registry.host, settings, nobody, access, tries=1) as client,
        pytest.raises(RemoteError) as refused,
    ):
        client.push_blob("attaching/refused", b"x")
    assert refused.value.reason == "registry_auth_refused"
    assert OURS.startswith("dev.dockwarden")
