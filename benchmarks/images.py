"""Three images as people have them, built from packages: a Debian base, Python packages on it, node modules on it.

    python -m benchmarks.images [--cache DIRECTORY]

Needs ``debootstrap`` (as root), ``pip`` and ``npm`` with their indexes. The layouts (OCI, gzip) are kept in the cache
and built again only if a list of packages here changes. Where a source cannot be reached, files of this machine stand
in for its layer, and the name of the image says so: such figures cannot be compared with those of another machine.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dockwarden" / "benchmarks"
_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_SUITE = "bookworm"
_PYTHON = [
    "numpy==2.2.6",
    "scipy==1.15.3",
    "pandas==2.2.3",
    "scikit-learn==1.6.1",
    "matplotlib==3.10.3",
    "sympy==1.14.0",
    "django==5.2.1",
    "flask==3.1.1",
    "fastapi==0.115.12",
    "sqlalchemy==2.0.41",
    "celery==5.5.2",
    "boto3==1.38.23",
    "requests==2.32.3",
    "pillow==11.2.1",
    "cryptography==45.0.3",
    "lxml==5.4.0",
    "jupyterlab==4.4.3",
    "networkx==3.4.2",
    "nltk==3.9.1",
]
_NODE = [
    "react@18.3.1",
    "react-dom@18.3.1",
    "typescript@5.8.3",
    "webpack@5.99.9",
    "eslint@8.57.1",
    "jest@29.7.0",
    "express@4.21.2",
    "lodash@4.17.21",
    "moment@2.30.1",
    "aws-sdk@2.1692.0",
    "@babel/core@7.27.1",
    "@babel/preset-env@7.27.2",
    "vite@6.3.5",
    "mongoose@8.15.0",
    "firebase-admin@12.7.0",
]
_STAND_IN_BYTES = 400 << 20


@dataclass(frozen=True)
class BuiltLayer:
    """A layer as it is in the cache. ``stand_in``: its files are this machine's, because the source was not there."""

    blob: Path
    digest: str
    diff_id: str
    size: int
    plain_size: int
    stand_in: bool


@dataclass(frozen=True)
class BuiltImage:
    """An image of the benchmarks, with its layout and its uncompressed size."""

    name: str
    layout: Path
    plain_size: int


@dataclass(frozen=True)
class _Recipe:
    """How a layer is made: ``build`` fills a directory, which becomes the root of the layer."""

    name: str
    packages: Sequence[str]
    build: Callable[[Path], None]
    stand_in: Path

    @property
    def key(self) -> str:
        return hashlib.sha256("\n".join((self.name, *self.packages)).encode()).hexdigest()[:16]


def _debian(root: Path) -> None:
    _run(["debootstrap", "--variant=minbase", _SUITE, str(root)])
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    for path in (root / "dev").iterdir():
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)


def _python(root: Path) -> None:
    target = root / "usr/local/lib/python3.11/site-packages"
    target.mkdir(parents=True)
    _run([sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", str(target), *_PYTHON])


def _node(root: Path) -> None:
    application = root / "srv/app"
    application.mkdir(parents=True)
    (application / "package.json").write_text('{"name": "app", "version": "1.0.0"}')
    _run(["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *_NODE], application)


def _run(command: Sequence[str], directory: Path | None = None) -> None:
    subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


_BASE = _Recipe("base", (_SUITE,), _debian, Path("/usr"))
_RECIPES = (
    _BASE,
    _Recipe("python", _PYTHON, _python, Path(sys.prefix) / "lib"),
    _Recipe("node", _NODE, _node, Path("/usr/lib/node_modules")),
)


def images(cache: Path = CACHE) -> tuple[BuiltImage, ...]:
    """Return the three images, built if they are not in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    layers = {recipe.name: _layer(recipe, cache) for recipe in _RECIPES}
    return tuple(_image(name, [layers["base"], *([layers[name]] if name != "base" else [])], cache) for name in layers)


def _layer(recipe: _Recipe, cache: Path) -> BuiltLayer:
    """Return a layer from the cache, or build it."""
    blob, notes = cache / f"{recipe.name}-{recipe.key}.tar.gz", cache / f"{recipe.name}-{recipe.key}.json"
    if not notes.exists():
        print(f"building the {recipe.name} layer …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            root, stand_in = Path(name) / "root", False
            root.mkdir()
            try:
                recipe.build(root)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{recipe.name}: files of this machine stand in ({error})", file=sys.stderr)
                shutil.rmtree(root)
                root, stand_in = recipe.stand_in, True
            partial = Path(name) / "layer.tar.gz"
            digest, diff_id, plain_size = _pack(root, partial)
            document = {
                "digest": digest,
                "diff_id": diff_id,
                "size": partial.stat().st_size,
                "plain_size": plain_size,
                "stand_in": stand_in,
            }
            partial.replace(blob)
            notes.write_text(json.dumps(document))
    return BuiltLayer(blob, **json.loads(notes.read_text()))


def _pack(root: Path, target: Path) -> tuple[str, str, int]:
    """Pack a directory as builders do: whole seconds, root's files, gzip at its usual level."""
    plain = target.with_suffix("")
    prefix = "" if root.name == "root" else str(root).lstrip("/") + "/"
    packed = 0
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(root):
            info = archive.gettarinfo(path, prefix + str(path.relative_to(root)))
            if info is None or not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
                continue
            if packed > _STAND_IN_BYTES and prefix:
                break
            info.mtime, info.uname, info.gname = int(info.mtime), "", ""
            packed += info.size
            if info.isfile():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    with plain.open("rb") as file:
        diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with gzip.GzipFile(target, "wb", 6, mtime=0) as compressed:
            shutil.copyfileobj(file, compressed, 1 << 20)
    size = plain.stat().st_size
    plain.unlink()
    with target.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest(), diff_id, size


def _walk(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names.sort()
        links = [name for name in names if (Path(directory) / name).is_symlink()]
        yield from (Path(directory) / name for name in sorted((*names, *files)) if name in links or name not in links)


def _image(name: str, layers: Sequence[BuiltLayer], cache: Path) -> BuiltImage:
    """Write an OCI layout whose blobs are hard links to the cached layers."""
    layout = cache / f"image-{name}"
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-11-01T12:00:00Z",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "User": "10001", "Entrypoint": ["/srv/app/run"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [
            {"created": "2026-11-01T12:00:00Z", "created_by": f"COPY layer{number} / # buildkit"}
            for number in range(len(layers))
        ],
    }

    def put(document: object) -> dict[str, object]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    for layer in layers:
        os.link(layer.blob, blobs / layer.digest.removeprefix("sha256:"))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, **put(config)},
        "layers": [{"mediaType": _GZIP_LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
    }
    described = {"mediaType": OCI_MANIFEST, **put(manifest)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    shown = name + (" (this machine's files)" if any(layer.stand_in for layer in layers) else "")
    return BuiltImage(shown, layout, sum(layer.plain_size for layer in layers))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the images of the benchmarks.")
    parser.add_argument("--cache", type=Path, default=CACHE)
    for image in images(parser.parse_args().cache):
        print(f"{image.name}: {image.plain_size / 1e6:.0f} MB, {image.layout}")


if __name__ == "__main__":
    main()
