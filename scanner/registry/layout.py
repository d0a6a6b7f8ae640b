"""An OCI image layout for an engine: exactly one image, with verified and uncompressed layers (same diff_ids).

Only the config's bytes come from the registry. The manifest is generated, so an engine never sees an unverified digest
(OCI image-spec, image-layout.md).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import orjson

from scanner.model.image import Image
from scanner.model.reference import Digest
from scanner.registry.blobs import BlobStore
from scanner.registry.excerpts import EngineFiles, blob_name
from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

_TAR = "application/vnd.oci.image.layer.v1.tar"


def lay_out(image: Image, store: BlobStore, destination: Path, files: EngineFiles | None = None) -> Path:
    """Create the layout at ``destination``, which must not exist, and return it. Raises KeyError for a missing blob.

    ``files``: the layers are the excerpts for an engine that reads these only, under names that are no digests.
    """
    blobs = destination / "blobs"
    for algorithm in ("sha256", "sha512"):
        (blobs / algorithm).mkdir(parents=True)
    config = store.path(image.config.digest)
    _place(config, blobs / image.config.digest.algorithm / image.config.digest.hex)
    layers = []
    for layer in image.layers:
        name = blob_name(layer.diff_id, files)
        source = store.path(name)
        _place(source, blobs / name.algorithm / name.hex)
        layers.append({"mediaType": _TAR, "digest": name, "size": source.stat().st_size})
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.config.digest, "size": config.stat().st_size},
            "layers": layers,
        },
        option=orjson.OPT_PASSTHROUGH_SUBCLASS,
        default=str,
    )
    digest = Digest.of(manifest)
    (blobs / digest.algorithm / digest.hex).write_bytes(manifest)
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest)}],
    }
    (destination / "index.json").write_bytes(orjson.dumps(index, option=orjson.OPT_PASSTHROUGH_SUBCLASS, default=str))
    (destination / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    return destination


def _place(source: Path, destination: Path) -> None:
    """Link or copy a blob. A hard link is cheap and safe, because the store never changes a blob."""
    with contextlib.suppress(FileExistsError):  # an image may contain the same layer twice
        try:
            os.link(source, destination)
        except FileExistsError:
            raise
        except FileNotFoundError:
            raise KeyError(source.name) from None
        except OSError:
            shutil.copyfile(source, destination)
