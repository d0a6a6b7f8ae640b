"""What a target names: of an index the images alone, whatever it calls them; of a layout or archive the image that
is meant.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from scanner.config import Settings
from scanner.errors import ImageError, NotAnImage, NotFoundError, UsageError
from scanner.model.reference import Platform
from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from scanner.registry.sources import Source, open_target
from tests.scanner.registry.archives import END, file
from tests.servers import Registry

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
UNKNOWN = {"os": "unknown", "architecture": "unknown"}
NOTES = {"vnd.docker.reference.type": "attestation-manifest"}


class Layout:
    """An OCI layout that is written piece by piece."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.settings = Settings(home=directory / "home")

    def blob(self, data: bytes, kind: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.directory / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data), **more}

    def document(self, document: Any, kind: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(document).encode(), kind, **more)

    def image(self, architecture: str, config_type: str = OCI_CONFIG, **more: Any) -> dict[str, Any]:
        layer = file("name", architecture.encode()) + END
        config = {
            "os": "linux",
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.document(config, config_type),
            "layers": [self.blob(gzip.compress(layer), GZIP)],
        }
        return self.document(manifest, OCI_MANIFEST, **more)

    def artifact(self, **more: Any) -> dict[str, Any]:
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.document({}, OCI_CONFIG),
            "layers": [self.document({}, "application/vnd.in-toto+json")],
        }
        return self.document(manifest, OCI_MANIFEST, **more)

    def listing(self, *items: dict[str, Any]) -> None:
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(items)}
        (self.directory / "index.json").write_text(json.dumps(document))

    def index(self, *items: dict[str, Any]) -> None:
        self.listing(self.document({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(items)}, OCI_INDEX))

    def chosen(self, platform: Platform | None = None, *, every: bool = False, tag: str = "") -> tuple[list[str], int]:
        """The architectures to examine, and how many children are left out."""
        with open_target(f"oci:{self.directory}{tag and ':' + tag}", self.settings) as source:
            images, skipped = source.children(source.resolve(), platform, every)
            return [architecture(source, d) for d in images], len(skipped)


def architecture(source: Source, descriptor: Any) -> str:
    return source.image(descriptor)[0].config.platform.architecture


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_an_artifact_without_platform_is_left_out(layout: Layout) -> None:
    layout.index(
        layout.image("amd64", platform={"os": "linux", "architecture": "amd64"}),
        layout.artifact(artifactType="application/vnd.example"),
        layout.artifact(platform=UNKNOWN, annotations=NOTES),
    )
    assert layout.chosen(every=True) == (["amd64"], 2)


@pytest.mark.parametrize(
    "disguise",
    [
        {"platform": UNKNOWN},
        {"platform": {"os": "linux", "architecture": "arm64"}, "annotations": NOTES},
        {"platform": {"os": "linux", "architecture": "arm64"}, "artifactType": "application/vnd.example"},
        {},
    ],
)
def test_an_image_that_the_index_calls_an_attestation_is_judged(layout: Layout, disguise: dict[str, Any]) -> None:
    """A runtime chooses by platform and runs what is there: an index must not be able to hide an image from us."""
    layout.index(
        layout.image("amd64", platform={"os": "linux", "architecture": "amd64"}), layout.image("arm64", **disguise)
    )
    assert layout.chosen(every=True) == (["amd64", "arm64"], 0)


def test_an_image_with_a_config_of_another_type_is_not_left_out(layout: Layout) -> None:
    platform = {"os": "linux", "architecture": "arm64"}
    layout.index(
        layout.image("amd64", platform={"os": "linux", "architecture": "amd64"}),
        layout.image("arm64", "application/x", platform=platform),
    )
    with pytest.raises(ImageError) as caught:
        layout.chosen(every=True)
    assert caught.value.reason == "unsupported_media_type", "not_an_image would let the whole index pass a pull gate"


DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
ARCHIVE = file("name", b"x") + END
RUN_BY_SOME = {
    "a config without a type": (OCI_MANIFEST, "", GZIP, gzip.compress(ARCHIVE)),
    "a config that old registries sent": (OCI_MANIFEST, "application/octet-stream", GZIP, gzip.compress(ARCHIVE)),
    "a layer that old registries sent": (OCI_MANIFEST, OCI_CONFIG, "application/octet-stream", ARCHIVE),
    "another layer type of Docker": (OCI_MANIFEST, OCI_CONFIG, "application/vnd.docker.x", ARCHIVE),
    "an attestation that is an archive": (OCI_MANIFEST, OCI_CONFIG, "application/vnd.in-toto+json", ARCHIVE),
    "a signature that is gzip": (OCI_MANIFEST, OCI_CONFIG, "application/vnd.dev.cosign.x", gzip.compress(ARCHIVE)),
    "an SBOM that is xz": (OCI_MANIFEST, OCI_CONFIG, "text/spdx", lzma.compress(ARCHIVE)),
    "a plug-in": (DOCKER, "application/vnd.docker.plugin.v1+json", GZIP, gzip.compress(ARCHIVE)),
    "a chart in a Docker manifest": (DOCKER, "application/vnd.cncf.helm.config.v1+json", "application/x", ARCHIVE),
}


@pytest.mark.parametrize("name", RUN_BY_SOME)
@pytest.mark.parametrize("in_index", [False, True])
def test_what_some_runtime_would_run_is_no_artifact(layout: Layout, name: str, in_index: bool) -> None:
    """A pull gate lets artifacts pass, and an index is judged without them: their types must not hide an image."""
    manifest_type, config_type, layer_type, layer = RUN_BY_SOME[name]
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": layout.document({}, config_type),
        "layers": [layout.blob(layer, layer_type)],
    }
    hidden = layout.document(manifest, manifest_type, **({"platform": UNKNOWN} if in_index else {}))
    layout.index(layout.image("amd64"), hidden) if in_index else layout.listing(hidden)
    with pytest.raises(ImageError) as caught:
        layout.chosen(every=True)
    assert caught.value.reason == "unsupported_media_type"


def test_the_layers_of_an_artifact_have_the_content_that_it_declares(layout: Layout) -> None:
    layer = layout.document([], "application/vnd.in-toto+json")
    (layout.directory / "blobs" / layer["digest"].replace(":", "/")).write_text("{}")
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layout.document({}, OCI_CONFIG)}
    layout.listing(layout.document({**manifest, "layers": [layer]}, OCI_MANIFEST))
    with pytest.raises(ImageError) as caught:
        layout.chosen(every=True)
    assert caught.value.reason == "digest_mismatch"


def test_a_missing_child_with_a_platform_is_an_image_whatever_its_annotations_say(layout: Layout) -> None:
    """It could be pushed later, and a runtime that selects by platform would run it."""
    gone = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "7" * 64, "size": 7}
    arm = {"os": "linux", "architecture": "arm64"}
    layout.index(layout.image("amd64"), {**gone, "platform": arm, "annotations": NOTES})
    with pytest.raises(ImageError, match="missing"):
        layout.chosen(every=True)


def test_an_attestation_that_is_not_there_is_left_out_and_an_image_is_not(layout: Layout) -> None:
    gone = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "7" * 64, "size": 7}
    image = layout.image("amd64", platform={"os": "linux", "architecture": "amd64"})
    layout.index(image, {**gone, "platform": UNKNOWN, "annotations": NOTES})
    assert layout.chosen(every=True) == (["amd64"], 1)
    layout.index(image, {**gone, "platform": {"os": "linux", "architecture": "arm64"}})
    with pytest.raises(ImageError, match="missing"):
        layout.chosen(every=True)


def test_an_index_of_artifacts_is_not_an_image(layout: Layout) -> None:
    layout.index(layout.artifact(), layout.artifact(platform=UNKNOWN))
    with pytest.raises(NotAnImage):
        layout.chosen(every=True)


def test_a_single_image_of_another_platform_is_refused_with_its_own(layout: Layout) -> None:
    layout.listing(layout.image("arm64"))
    assert layout.chosen() == (["arm64"], 0)
    assert layout.chosen(ARM64) == (["arm64"], 0)
    with pytest.raises(NotFoundError, match="linux/arm64, not for linux/amd64") as refused:
        layout.chosen(AMD64)
    assert "--platform linux/arm64" in refused.value.hint


def test_children_that_do_not_say_their_platform_are_asked(layout: Layout) -> None:
    layout.index(layout.image("amd64"), layout.image("arm64"))
    assert layout.chosen(ARM64)[0] == ["arm64"]
    with pytest.raises(NotFoundError) as refused:
        layout.chosen(Platform("linux", "s390x"))
    assert refused.value.hint == "use --platform with one of: linux/amd64, linux/arm64"


def test_a_layout_of_platforms_without_names(layout: Layout) -> None:
    layout.listing(
        layout.image("amd64", platform={"os": "linux", "architecture": "amd64"}),
        layout.image("arm64", platform={"os": "linux", "architecture": "arm64"}),
    )
    assert layout.chosen(ARM64)[0] == ["arm64"]
    assert layout.chosen(AMD64)[0] == ["amd64"]
    assert sorted(layout.chosen(every=True)[0]) == ["amd64", "arm64"]


def test_a_layout_of_an_image_and_its_attestation(layout: Layout) -> None:
    layout.listing(layout.image("arm64"), layout.artifact(platform=UNKNOWN, annotations=NOTES))
    assert layout.chosen() == (["arm64"], 1)


def test_one_name_for_several_platforms(layout: Layout) -> None:
    name = {"annotations": {"org.opencontainers.image.ref.name": "1.4"}}
    other = {"annotations": {"org.opencontainers.image.ref.name": "1.5"}}
    layout.listing(layout.image("amd64", **name), layout.image("arm64", **name), layout.image("s390x", **other))
    assert layout.chosen(ARM64, tag="1.4")[0] == ["arm64"]
    assert layout.chosen(tag="1.5")[0] == ["s390x"]
    with pytest.raises(UsageError, match="has 3 images") as refused:
        layout.chosen(ARM64)
    assert "1.4" in refused.value.hint


def saved(layout: Layout, target: Path, index: object) -> Path:
    """A ``docker save`` archive that holds an index.json beside the manifest.json that names the image."""
    layer = file("etc/os-release", b"ID=alpine\n") + END
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        "config.json": config,
        "layer.tar": layer,
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["layer.tar"]}]).encode(),
    }
    with tarfile.open(target, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target


@pytest.mark.parametrize("manifests", [None, []])
def test_an_index_that_lists_nothing_beside_a_good_manifest(layout: Layout, tmp_path: Path, manifests: object) -> None:
    archive = saved(layout, tmp_path / "saved.tar", {"schemaVersion": 2, "manifests": manifests})
    with open_target(f"archive:{archive}", layout.settings) as source:
        (found,), _ = source.children(source.resolve(), AMD64, every=False)
        assert architecture(source, found) == "amd64"


def test_a_layer_of_docker_save_that_begins_with_a_skippable_frame(layout: Layout, tmp_path: Path) -> None:
    frame = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + b"skipped!"
    layer = frame + zstandard.ZstdCompressor().compress(file("a", b"b") + END)
    archive = tmp_path / "zstd.tar"
    plain = file("a", b"b") + END
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
    }
    with tarfile.open(archive, "w") as out:
        for name, data in {
            "c.json": json.dumps(config).encode(),
            "l": layer,
            "manifest.json": b'[{"Config": "c.json", "Layers": ["l"]}]',
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    settings = replace(layout.settings)
    with open_target(f"archive:{archive}", settings) as source:
        image, _ = source.image(source.resolve())
        assert image.layers[0].media_type.endswith("tar.zstd")


def test_an_event_that_comes_late_does_not_move_the_tag_back(plain_registry: Registry, sample_layouts: Path) -> None:
    settings = Settings(insecure_registries=(plain_registry.host,))
    name = f"{plain_registry.host}/sources/late"
    digests = []
    for sample, tag in (("good", "1.4.2"), ("vulnerable", "1.4.1")):
        plain_registry.push(f"oci:{sample_layouts / 'shop' / sample}:{tag}", "sources/late:1")
        with open_target(f"{name}:1", settings) as source:
            digests.append(source.resolve().digest)
    with open_target(f"{name}:1@{digests[0]}", settings) as source:
        assert source.resolve().digest == digests[0]
        assert source.reference.tag is None, "the registry says that the tag names the second image"
    with open_target(f"{name}:1@{digests[1]}", settings) as source:
        source.resolve()
        assert source.reference.tag == "1"
    with open_target(f"{name}:gone@{digests[0]}", settings) as source:
        source.resolve()
        assert source.reference.tag == "gone", "the registry does not say: what the event says is kept"
