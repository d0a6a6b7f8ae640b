"""Tar archives written byte by byte, so that a test can say exactly what is wrong with one."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace

import zstandard

from scanner.config import Limits
from scanner.model.filesystem import LayerFacts, Rootfs
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.rootfs import merge

PLAIN = "application/vnd.oci.image.layer.v1.tar"
GZIP = PLAIN + "+gzip"
ZSTD = PLAIN + "+zstd"
POSIX, GNU = b"ustar\x0000", b"ustar  \0"
END = bytes(1024)
SMALL = replace(
    Limits(),
    layer_uncompressed=8 << 20,
    layer_compressed=1 << 20,
    ratio=20,
    ratio_after=64 << 10,
    layer_entries=100,
    file_size=1 << 20,
)


def octal(value: int, width: int) -> bytes:
    return f"{value:0{width - 1}o}".encode() + b"\0"


def base256(value: int, width: int) -> bytes:
    data = bytearray(value.to_bytes(width, "big", signed=True))
    data[0] |= 0x80
    return bytes(data)


def header(
    name: bytes | str,
    kind: str = "0",
    size: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    link: bytes | str = b"",
    magic: bytes = POSIX,
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
    fields: Mapping[int, bytes] | None = None,
) -> bytes:
    """One header block with a right checksum. ``fields`` overwrites bytes at offsets before it is computed."""
    raw, target = (text.encode() if isinstance(text, str) else text for text in (name, link))
    block = bytearray(512)
    for offset, data in {
        0: raw[:100],
        100: octal(mode, 8),
        108: octal(uid, 8),
        116: octal(0, 8),
        124: octal(size, 12),
        136: octal(1_600_000_000, 12),
        148: b" " * 8,
        156: kind.encode("latin-1"),
        157: target[:100],
        257: magic,
        329: octal(device[0], 8),
        337: octal(device[1], 8),
        345: prefix,
        **(fields or {}),
    }.items():
        block[offset : offset + len(data)] = data
    return sealed(bytes(block)) if not fields or 148 not in fields else bytes(block)


def sealed(block: bytes) -> bytes:
    """The block with the checksum that it ought to have."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + f"{sum(blank):06o}".encode() + b"\0 " + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes | str, data: bytes = b"", kind: str = "0", **more: object) -> bytes:
    return header(name, kind, len(data), **more) + padded(data)  # type: ignore[arg-type]


def directory(name: str, **more: object) -> bytes:
    return header(name, "5", **{"mode": 0o755, **more})  # type: ignore[arg-type]


def symlink(name: str, target: str) -> bytes:
    return header(name, "2", link=target)


def hardlink(name: str, target: str, **more: object) -> bytes:
    return header(name, "1", link=target, **more)  # type: ignore[arg-type]


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(str(length)) + len(key) + len(value) + 3 != length:
        length = len(str(length)) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax(kind: str = "x", /, **records: bytes | str) -> bytes:
    """An extended header; underscores in a keyword stand for dots."""
    body = b"".join(
        record(key.replace("__", ".").encode(), value.encode() if isinstance(value, str) else value)
        for key, value in records.items()
    )
    return file("PaxHeaders/x", body, kind)


def gnu_long(name: bytes, kind: str = "L") -> bytes:
    return file("././@LongLink", name + b"\0", kind, magic=GNU)


def archive(*parts: bytes) -> bytes:
    return b"".join(parts) + END


def pack(plain: bytes, media_type: str) -> bytes:
    if media_type == GZIP:
        return gzip.compress(plain, 6, mtime=0)
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain) if media_type == ZSTD else plain


def read(
    plain: bytes,
    *,
    media_type: str = PLAIN,
    transported: bytes | None = None,
    wants: ContentWants | None = None,
    limits: Limits | None = None,
    **more: object,
) -> LayerFacts:
    """The facts of a layer whose uncompressed bytes are ``plain``."""
    sent = pack(plain, media_type) if transported is None else transported
    arguments: dict[str, object] = {"digest": Digest.of(sent), "size": len(sent), "diff_id": Digest.of(plain), **more}
    return read_layer(
        io.BytesIO(sent), media_type, limits=limits or Limits(), wants=wants or ContentWants(), **arguments
    )  # type: ignore[arg-type]


def rootfs(*layers: bytes) -> Rootfs:
    """The merged file system of layers given as the parts of their archives."""
    return merge([read(archive(layer)) for layer in layers])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
