"""The layout that an engine is given."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from scanner.config import Limits
from scanner.model.image import Image
from scanner.model.reference import Descriptor, Digest
from scanner.registry.blobs import BlobStore
from scanner.registry.layout import lay_out
from scanner.registry.manifest import OCI_CONFIG, OCI_MANIFEST, Manifest, build_image, parse_config
from tests.scanner.registry.archives import GZIP, archive, directory, file, pack

LAYERS = [archive(directory("etc"), file("etc/passwd", b"x")), archive(file("a", b"1"))]
CONFIG = json.dumps(
    {
        "architecture": "amd64",
        "os": "linux",
        "unknown": 1,
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer) for layer in (*LAYERS, LAYERS[1])]},
    }
).encode()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", 1 << 20)


def image() -> Image:
    packed = [pack(layer, GZIP) for layer in (*LAYERS, LAYERS[1])]
    layers = tuple(Descriptor(GZIP, Digest.of(data), len(data)) for data in packed)
    config = Descriptor(OCI_CONFIG, Digest.of(CONFIG), len(CONFIG))
    manifest = Manifest(Descriptor(OCI_MANIFEST, Digest.of(b"manifest"), 8), config, layers)
    return build_image(manifest, parse_config(CONFIG, config.digest, Limits()))


def filled(store: BlobStore) -> BlobStore:
    for data in (CONFIG, *LAYERS):
        store.put(data)
    return store


def test_holds_the_config_as_it_was_and_plain_layers(store: BlobStore, tmp_path: Path) -> None:
    place = lay_out(image(), filled(store), tmp_path / "layout")
    (found,) = json.loads((place / "index.json").read_bytes())["manifests"]
    manifest_bytes = (place / "blobs/sha256" / Digest(found["digest"]).hex).read_bytes()
    assert Digest(found["digest"]).matches(manifest_bytes)
    assert found["size"] == len(manifest_bytes)
    manifest = json.loads(manifest_bytes)
    assert manifest["config"] == {"mediaType": OCI_CONFIG, "digest": Digest.of(CONFIG), "size": len(CONFIG)}
    assert [layer["digest"] for layer in manifest["layers"]] == [Digest.of(layer) for layer in (*LAYERS, LAYERS[1])]
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    for item in (manifest["config"], *manifest["layers"]):
        data = (place / "blobs/sha256" / Digest(item["digest"]).hex).read_bytes()
        assert (Digest.of(data), len(data)) == (item["digest"], item["size"])
    assert json.loads((place / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_costs_no_copy(store: BlobStore, tmp_path: Path) -> None:
    place = lay_out(image(), filled(store), tmp_path / "layout")
    digest = Digest.of(LAYERS[0])
    assert (place / "blobs/sha256" / digest.hex).samefile(store.path(digest))


def test_what_is_not_in_the_store_is_said(store: BlobStore, tmp_path: Path) -> None:
    store.put(CONFIG)
    with pytest.raises(KeyError):
        lay_out(image(), store, tmp_path / "layout")


@pytest.mark.skipif(
    shutil.which("skopeo") is None,
    reason="skopeo is not installed: apt-get install skopeo, to have another reader look at the layout",
)
def test_another_reader_agrees(store: BlobStore, tmp_path: Path) -> None:
    place = lay_out(image(), filled(store), tmp_path / "layout")
    told = subprocess.run(
        ["skopeo", "inspect", "--config", "--raw", f"oci:{place}"], capture_output=True, check=True
    ).stdout
    assert told.rstrip(b"\n") == CONFIG
    subprocess.run(
        ["skopeo", "copy", "-q", "--insecure-policy", f"oci:{place}", f"dir:{tmp_path / 'copy'}"], check=True
    )
    assert Digest.of((tmp_path / "copy" / Digest.of(LAYERS[0]).hex).read_bytes()) == Digest.of(LAYERS[0])
