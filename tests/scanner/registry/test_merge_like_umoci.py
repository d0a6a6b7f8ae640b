"""The merged view against the file system that umoci, which unpacks images, makes of the same layers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import ImageError
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants
from scanner.registry.manifest import OCI_CONFIG, OCI_MANIFEST
from scanner.registry.rootfs import merge
from tests.scanner.registry.archives import PLAIN, archive, directory, file, hardlink, read, symlink

pytestmark = pytest.mark.skipif(
    shutil.which("umoci") is None,
    reason="umoci is not installed: apt-get install umoci, to compare with another reader of layers",
)
EVERYTHING = ContentWants(("*",))
Tree = dict[str, tuple[str, bytes]]

_path = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map("/".join)
_part = st.one_of(
    st.builds(file, _path, st.binary(min_size=1, max_size=3)),
    st.builds(directory, _path),
    st.builds(symlink, _path, st.sampled_from(["a", "b/c", "/d", "../a", "nowhere"])),
    st.builds(
        lambda path, data: file(path, data) + hardlink(f"{path}-link", path), _path, st.binary(min_size=1, max_size=3)
    ),
    st.builds(lambda path: file("/".join([*path.split("/")[:-1], f".wh.{path[-1]}"])), _path),
    st.builds(lambda path: file(f"{path}/.wh..wh..opq"), _path),
)


def ours(fs: Rootfs) -> Tree:
    found: Tree = {}
    for path, placed in fs.files.items():
        entry = placed.entry
        if entry.type is FileType.SYMLINK:
            found[path] = ("link", entry.link.encode())
        elif entry.type is FileType.DIRECTORY:
            found[path] = ("directory", b"")
        else:
            layer, name = placed.origin or (placed.layer, path)
            found[path] = ("file", fs.layers[layer].contents[name])
    return found


def theirs(layers: list[bytes], work: Path) -> Tree | None:
    """The tree, or None where umoci refuses."""
    shutil.rmtree(work, ignore_errors=True)
    write_layout(layers, work / "layout")
    command = ["umoci", "unpack", "--rootless", "--image", f"{work / 'layout'}:t", str(work / "bundle")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    found: Tree = {}
    root = work / "bundle/rootfs"
    for path in (Path(place) / name for place, folders, names in os.walk(root) for name in (*folders, *names)):
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", os.fsencode(path.readlink()))
        else:
            found[str(path.relative_to(root))] = ("directory", b"") if path.is_dir() else ("file", path.read_bytes())
    return found


def write_layout(layers: list[bytes], place: Path) -> None:
    blobs = place / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        (blobs / Digest.of(data).hex).write_bytes(data)
        return {"mediaType": kind, "digest": Digest.of(data), "size": len(data)}

    diff_ids = [Digest.of(layer) for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(json.dumps(config).encode(), OCI_CONFIG),
        "layers": [put(layer, PLAIN) for layer in layers],
    }
    named = {
        **put(json.dumps(manifest).encode(), OCI_MANIFEST),
        "annotations": {"org.opencontainers.image.ref.name": "t"},
    }
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def test_the_same_tree(tmp_path: Path) -> None:
    """Layers without oddities of their own: about those two readers may differ, and we say so."""
    compared = 0

    @given(st.lists(st.lists(_part, max_size=5).map(lambda parts: archive(*parts)), min_size=1, max_size=4))
    @settings(max_examples=120, deadline=None, database=None, derandomize=True)
    def compare(layers: list[bytes]) -> None:
        nonlocal compared
        try:
            facts = [read(layer, wants=EVERYTHING) for layer in layers]
        except ImageError:
            return
        expected = None if any(f.oddities or _repeats(f.entries) for f in facts) else theirs(layers, tmp_path / "work")
        if expected is not None:
            compared += 1
            assert ours(merge(facts)) == expected

    compare()
    assert compared > 30


def _repeats(entries: tuple[object, ...]) -> bool:
    paths = [entry.path for entry in entries]  # type: ignore[attr-defined]
    return len(paths) != len(set(paths))
