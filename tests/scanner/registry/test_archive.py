"""Layouts and archives of every form: what is none is refused with what to do, what is hostile before it is read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from scanner.config import Limits, Settings
from scanner.errors import ImageError, LimitExceeded, NotFoundError, RemoteError, ScannerError, UsageError
from scanner.model.reference import Descriptor, Digest
from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from scanner.registry.sources import open_target
from tests.scanner.registry.archives import END, file

LAYER = file("name", b"content") + END
CONFIG = json.dumps(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(LAYER))]}}
).encode()
NAMES = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l/layer.tar"]}]
SAVED = {"c.json": CONFIG, "l/layer.tar": LAYER, "manifest.json": json.dumps(NAMES).encode()}
Member = tuple[str, bytes | str]


def archive(*members: Member) -> bytes:
    """A tar archive; a text in place of the bytes is where a link leads, a hard one when it begins with ``=``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as written:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                entry.size = len(data)
                written.addfile(entry, io.BytesIO(data))
            else:
                entry.type = tarfile.LNKTYPE if data.startswith("=") else tarfile.SYMTYPE
                entry.linkname = data.removeprefix("=")
                written.addfile(entry)
    return out.getvalue()


def saved(**changed: Any) -> bytes:
    """What ``docker save`` writes; ``manifest`` is another manifest.json, ``files`` are more files."""
    files: Mapping[str, bytes | str] = {**SAVED, **changed.get("files", {})}
    if "manifest" in changed:
        files = {**files, "manifest.json": json.dumps(changed["manifest"]).encode()}
    return archive(*files.items())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def architecture(target: str, settings: Settings) -> str:
    """The architecture of the one image at a target, after its layer was read through."""
    with open_target(target, settings) as source:
        image, _ = source.image(source.resolve())
        (layer,) = image.layers
        with source.open(Descriptor(layer.media_type, layer.digest, layer.size)) as data:
            assert data.read() == LAYER
        return image.config.platform.architecture


def of_archive(data: bytes, settings: Settings, **limits: Any) -> str:
    path = settings.home.parent / "image.tar"
    path.write_bytes(data)
    return architecture(f"archive:{path}", replace(settings, limits=replace(Limits(), **limits)))


@pytest.mark.parametrize(
    "data",
    [
        saved(),
        gzip.compress(saved()),
        saved(files={"l/layer.tar": "../other.tar", "other.tar": LAYER}),
        saved(files={"l/layer.tar": "=other.tar", "other.tar": LAYER}),
        archive(("./c.json", CONFIG), ("./l/layer.tar", LAYER), ("./manifest.json", SAVED["manifest.json"])),
    ],
    ids=["as saved", "gzipped", "a layer that is a link", "a layer that is a hard link", "names with a dot"],
)
def test_the_forms_that_docker_save_writes(data: bytes, settings: Settings) -> None:
    assert of_archive(data, settings) == "amd64"


@pytest.mark.parametrize(
    ("data", "kind", "reason", "words"),
    [
        (b"", UsageError, None, "empty or not a tar archive"),
        (bytes(10240), UsageError, None, "empty or not a tar archive"),
        (b"no archive at all" * 100, UsageError, "malformed_archive", "is not a tar archive"),
        (saved()[:600] + b"x" * 600, ImageError, "malformed_archive", ""),
        (gzip.compress(saved())[:-20], ImageError, "malformed_archive", "broken gzip"),
        (b"\x1f\x8b" + b"x" * 100, ImageError, "malformed_archive", "broken gzip"),
        (archive(("a", b"b")), UsageError, None, "neither a docker save archive nor an OCI layout"),
        (archive(*SAVED.items(), ("c.json", b"{}")), ImageError, "malformed_archive", "is in the archive twice"),
        (saved(manifest=[]), ImageError, "malformed_archive", "lists no image"),
        (saved(manifest={}), ImageError, "malformed_archive", "lists no image"),
        (saved(manifest=["x"]), ImageError, "malformed_archive", "lists no image"),
        (saved(manifest=NAMES * 2), UsageError, None, "has 2 images"),
        (saved(manifest=[{"Layers": []}]), ImageError, "malformed_archive", "names no config"),
        (saved(manifest=[{"Config": "c.json", "Layers": [1]}]), ImageError, "malformed_archive", "names no config"),
        (
            saved(manifest=[{"Config": "c.json", "Layers": ["l/layer.tar"] * 999}]),
            ImageError,
            "malformed_archive",
            "too many layers",
        ),
        (saved(manifest=[{"Config": "/etc/passwd"}]), ImageError, "unsafe_archive", "outside the archive"),
        (saved(manifest=[{"Config": "../c.json"}]), ImageError, "unsafe_archive", "outside the archive"),
        (saved(manifest=[{"Config": "gone.json"}]), ImageError, "malformed_archive", "gone.json is missing"),
        (saved(files={"c.json": "gone"}), ImageError, "malformed_archive", "c.json is missing"),
        (saved(files={"c.json": "a", "a": "b", "b": CONFIG}), ImageError, "malformed_archive", "c.json is missing"),
    ],
)
def test_what_is_no_image(
    data: bytes, kind: type[ScannerError], reason: str | None, words: str, settings: Settings
) -> None:
    with pytest.raises(kind) as refused:
        of_archive(data, settings)
    assert words in str(refused.value)
    assert reason is None or refused.value.reason == reason


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (saved(), {"manifest": 20}),
        (saved(), {"layer_compressed": 100}),
        (saved(manifest=[NAMES[0]] * 3), {"index_manifests": 2}),
        (gzip.compress(saved()), {"image_uncompressed": 1000}),
        (gzip.compress(saved(files={"zeros": bytes(1 << 20)})), {"ratio": 2, "ratio_after": 1000}),
    ],
    ids=["a long manifest.json", "a large layer", "many images", "a large archive", "a bomb"],
)
def test_an_archive_beyond_a_limit_is_refused(data: bytes, limits: dict[str, Any], settings: Settings) -> None:
    with pytest.raises(LimitExceeded):
        of_archive(data, settings, **limits)


def test_nothing_is_left_of_a_gzipped_archive(settings: Settings) -> None:
    of_archive(gzip.compress(saved()), settings)
    assert list(settings.work_dir.iterdir()) == []


@pytest.mark.parametrize("where", ["nowhere.tar", "."])
def test_a_path_that_is_no_file(where: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        architecture(f"archive:{tmp_path / where}", settings)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout of one image, tagged 1.0."""
    place = tmp_path / "layout"
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        (place / "blobs" / "sha256" / Digest.of(data).hex).write_bytes(data)
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    layers = [blob(LAYER, "application/vnd.oci.image.layer.v1.tar")]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob(CONFIG, OCI_CONFIG), "layers": layers}
    named = {"annotations": {"org.opencontainers.image.ref.name": "1.0"}}
    listed(place, {**blob(json.dumps(manifest).encode(), OCI_MANIFEST), **named})
    return place


def listed(layout: Path, *items: Any) -> None:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(items)}
    (layout / "index.json").write_text(json.dumps(document))


def test_a_layout_and_its_tag(layout: Path, settings: Settings) -> None:
    assert architecture(f"oci:{layout}", settings) == "amd64"
    assert architecture(f"oci:{layout}:1.0", settings) == "amd64"
    with pytest.raises(NotFoundError, match=r"no image '2\.0'") as refused:
        architecture(f"oci:{layout}:2.0", settings)
    assert "1.0" in refused.value.hint


def test_a_layout_in_an_archive(layout: Path, settings: Settings) -> None:
    files = [(str(path.relative_to(layout)), path.read_bytes()) for path in layout.rglob("*") if path.is_file()]
    assert of_archive(archive(*files), settings) == "amd64"


def both_forms(layout: Path, saved_images: object, *more: Member) -> bytes:
    files = [(str(path.relative_to(layout)), path.read_bytes()) for path in layout.rglob("*") if path.is_file()]
    return archive(*files, ("manifest.json", json.dumps(saved_images).encode()), *more)


OTHER = ("other.json", json.dumps({**json.loads(CONFIG), "architecture": "arm64"}).encode())
OWN = {"Config": f"blobs/sha256/{Digest.of(CONFIG).hex}", "Layers": [f"blobs/sha256/{Digest.of(LAYER).hex}"]}


@pytest.mark.parametrize("images", [[OWN], [{**OWN, "Config": "c.json"}], []])
def test_both_forms_of_one_image(images: object, layout: Path, settings: Settings) -> None:
    assert of_archive(both_forms(layout, images, ("c.json", CONFIG)), settings) == "amd64"


@pytest.mark.parametrize("images", [[{**OWN, "Config": "other.json"}], [OWN, {**OWN, "Config": "other.json"}]])
def test_two_forms_of_different_images_are_refused(images: object, layout: Path, settings: Settings) -> None:
    """containerd would load one, Docker's own store the other."""
    with pytest.raises(ImageError, match=r"manifest\.json lists the image 'other\.json'"):
        of_archive(both_forms(layout, images, OTHER), settings)


def test_a_form_behind_a_link_counts(layout: Path, settings: Settings) -> None:
    files = [(str(path.relative_to(layout)), path.read_bytes()) for path in layout.rglob("*") if path.is_file()]
    images = ("images.json", json.dumps([{**OWN, "Config": "other.json"}]).encode())
    with pytest.raises(ImageError, match="lists the image"):
        of_archive(archive(*files, OTHER, images, ("manifest.json", "images.json")), settings)


@pytest.mark.parametrize(
    "members",
    [
        [("m.json", "c.json"), ("m.json", b"[]")],
        [("m.json", b"[]"), ("m.json", "c.json")],
        [("m.json", "a"), ("m.json", "b")],
    ],
)
def test_a_name_twice_is_refused_also_for_links(members: list[Member], settings: Settings) -> None:
    with pytest.raises(ImageError, match=r"m\.json is in the archive twice"):
        of_archive(archive(*SAVED.items(), *members), settings)


@pytest.mark.parametrize("member", ["config", "layers", "LAYERS"])
def test_members_in_another_case_are_refused(member: str, settings: Settings) -> None:
    """Docker, written in Go, would read them."""
    with pytest.raises(ImageError, match="upper or lower case"):
        of_archive(saved(manifest=[{**NAMES[0], member: "other"}]), settings)


def test_an_index_with_a_member_in_another_case_is_refused(layout: Path, settings: Settings) -> None:
    document = json.loads((layout / "index.json").read_bytes())
    (layout / "index.json").write_text(json.dumps({**document, "Manifests": []}))
    with pytest.raises(ImageError, match="upper or lower case"):
        architecture(f"oci:{layout}", settings)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (archive(("index.json", b"{}")), "no oci-layout"),
        (archive(("repositories", b"{}"), ("a/layer.tar", LAYER)), "save it again"),
        (archive(("image/index.json", b"{}"), ("image/oci-layout", b"{}")), "its layout is in image/"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 600, "compressed with zstd"),
        (b"\xfd7zXZ\0" + b"x" * 600, "compressed with xz"),
    ],
)
def test_the_hint_says_what_an_archive_lacks(data: bytes, hint: str, settings: Settings) -> None:
    with pytest.raises(UsageError) as refused:
        of_archive(data, settings)
    assert hint in refused.value.hint


@pytest.mark.parametrize("name", ["index.json", "blobs/sha256", "blobs/sha256/FIRST"])
def test_a_link_in_a_layout_is_not_followed(name: str, layout: Path, settings: Settings, tmp_path: Path) -> None:
    """It would read the host's files into the image."""
    first = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"].partition(":")[2]
    path = layout / name.replace("FIRST", first)
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    with pytest.raises(ImageError, match="is a link") as refused:
        architecture(f"oci:{layout}", settings)
    assert refused.value.reason == "malformed_archive"


def test_a_layout_that_lists_no_image(layout: Path, settings: Settings) -> None:
    listed(layout)
    with pytest.raises(ImageError, match="lists no image") as refused:
        architecture(f"oci:{layout}", settings)
    assert refused.value.reason == "nothing_to_scan"


def test_a_layout_of_more_manifests_than_allowed(layout: Path, settings: Settings) -> None:
    (item,) = json.loads((layout / "index.json").read_text())["manifests"]
    listed(layout, *[item] * 4)
    with pytest.raises(LimitExceeded, match="4 manifests, more than 3"):
        architecture(f"oci:{layout}", replace(settings, limits=replace(Limits(), index_manifests=3)))


def test_a_blob_that_is_not_what_its_name_says(layout: Path, settings: Settings) -> None:
    (layout / "blobs" / "sha256" / Digest.of(CONFIG).hex).write_bytes(b"x" * len(CONFIG))
    with pytest.raises(ImageError) as refused:
        architecture(f"oci:{layout}", settings)
    assert refused.value.reason == "digest_mismatch"


def test_an_index_inside_an_index_is_not_an_image(layout: Path, settings: Settings) -> None:
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    (layout / "blobs" / "sha256" / Digest.of(data).hex).write_bytes(data)
    listed(layout, {"mediaType": OCI_INDEX, "digest": str(Digest.of(data)), "size": len(data)})
    with pytest.raises(ImageError, match="an index inside an index"):
        architecture(f"oci:{layout}", settings)


def test_a_config_beyond_its_limit_is_not_fetched(layout: Path, settings: Settings) -> None:
    with pytest.raises(LimitExceeded, match="the config is too large"):
        architecture(f"oci:{layout}", replace(settings, limits=replace(Limits(), config=10)))


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("oci:", "write oci:PATH"),
        ("archive:", "write archive:PATH"),
        ("docker:", "write docker:NAME"),
        ("oci:/nowhere/at/all", "write oci:DIR[:TAG]; DIR is an OCI image layout"),
        ("oci:/nowhere/at/all:1.0", "write oci:DIR[:TAG]; DIR is an OCI image layout"),
        ("/", "write oci:/"),
        ("./image.tar", "write archive:./image.tar"),
    ],
)
def test_what_is_no_target_says_how_to_write_it(target: str, hint: str, settings: Settings) -> None:
    with pytest.raises(UsageError) as refused:
        architecture(target, settings)
    assert refused.value.hint == hint


def test_a_directory_without_a_layout(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"it has no index\.json"):
        architecture(f"oci:{tmp_path}", settings)


@pytest.fixture
def engine(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> HTTPServer:
    """What a Docker engine answers to the client library; a real one is asked in tests/test_end_to_end.py."""
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{httpserver.port}")
    httpserver.expect_request("/version").respond_with_json({"ApiVersion": "1.44"})
    httpserver.expect_request("/v1.44/images/app:1/json").respond_with_json({"Id": "sha256:1", "RepoTags": ["app:1"]})
    httpserver.expect_request("/v1.44/images/app:1/get").respond_with_handler(lambda request: Response(saved()))
    return httpserver


@pytest.mark.usefixtures("engine")
def test_an_image_of_the_local_engine(settings: Settings) -> None:
    assert architecture("docker:app:1", settings) == "amd64"
    assert list(settings.work_dir.iterdir()) == []


@pytest.mark.usefixtures("engine")
def test_an_image_of_the_local_engine_beyond_the_limit(settings: Settings) -> None:
    with pytest.raises(LimitExceeded, match="app:1 is larger than 100 bytes"):
        architecture("docker:app:1", replace(settings, limits=replace(Limits(), image_uncompressed=100)))
    assert list(settings.work_dir.iterdir()) == []


def test_an_image_that_the_local_engine_does_not_have(engine: HTTPServer, settings: Settings) -> None:
    engine.expect_request("/v1.44/images/other:1/json").respond_with_json({"message": "No such image"}, status=404)
    with pytest.raises(NotFoundError, match="no image 'other:1'"):
        architecture("docker:other:1", settings)


def test_an_engine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody'}")
    with pytest.raises(RemoteError) as refused:
        architecture("docker:app:1", settings)
    assert refused.value.reason == "engine_unreachable"
