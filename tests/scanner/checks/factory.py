"""Images for checks, made of what matters to a test and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scanner.checks.base import ImageSubject
from scanner.model.filesystem import ContentMatch, FileEntry, FileType, LayerFacts, Oddity
from scanner.model.image import HistoryEntry, Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform, Reference
from scanner.registry.rootfs import merge

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:10001:10001::/srv/app:/usr/sbin/nologin\n"


def entry(
    path: str,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 10,
    kind: FileType = FileType.FILE,
    **more: Any,
) -> FileEntry:
    return FileEntry(path, kind, mode, uid, gid, size, **more)


def layer(
    *entries: FileEntry,
    contents: Mapping[str, bytes] | None = None,
    whiteouts: Sequence[str] = (),
    matches: Sequence[ContentMatch] = (),
    oddities: Sequence[Oddity] = (),
    seed: str = "",
) -> LayerFacts:
    """A layer of these entries; a file of ``contents`` is an entry too."""
    given = dict(contents or {})
    made = tuple(entry(path, size=len(data)) for path, data in given.items())
    identity = Digest.of(repr((entries, sorted(given), whiteouts, seed)).encode())
    return LayerFacts(identity, 1024, (*entries, *made), tuple(whiteouts), (), given, tuple(oddities), tuple(matches))


def subject(
    *layers: LayerFacts,
    reference: str | None = "registry.example.com/shop/app:1.0",
    history: Sequence[str] | None = None,
    size: int = 1_000_000,
    **config: Any,
) -> ImageSubject:
    """An image of these layers (one with a passwd, when none is given), with members of its config."""
    facts = layers or (layer(contents={"etc/passwd": PASSWD}),)
    lines = history if history is not None else [f"COPY layer{i} / # buildkit" for i in range(len(facts))]
    entries = tuple(
        HistoryEntry(line, layer=i if i < len(facts) else None, empty_layer=i >= len(facts))
        for i, line in enumerate(lines)
    )
    made = tuple(
        Layer(
            i,
            Digest.of(f"layer {i}".encode()),
            f.diff_id,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            size,
            created_by=lines[i] if i < len(lines) else "",
        )
        for i, f in enumerate(facts)
    )
    configuration = ImageConfig(
        Digest.of(b"config"), Platform("linux", "amd64"), tuple(f.diff_id for f in facts), history=entries, **config
    )
    image = Image(
        Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"manifest"), 100), configuration, made
    )
    return ImageSubject(image, merge(facts), reference=Reference.parse(reference) if reference else None)


def unreadable(**config: Any) -> ImageSubject:
    """An image whose layers could not be read."""
    return replace(subject(**config), rootfs=None, rootfs_reason="layer 0 is truncated")


def broken_subjects() -> Mapping[str, ImageSubject]:
    """Images of which a check of files or users can know nothing."""
    return {"layers unreadable": unreadable(user="app", history=())}


def built_by(*lines: str, **more: Any) -> ImageSubject:
    """An image whose history is these lines as a builder writes them; an instruction that makes a layer has one of
    its own.

    The first layer is a root file system that a line ahead of them imported.
    """
    makes_layer = [not line.removeprefix("/bin/sh -c #(nop)").lstrip().startswith(_NO_LAYER) for line in lines]
    facts = [layer(contents={"etc/passwd": PASSWD})]
    facts += [
        layer(entry(f"layer{n}"), seed=line)
        for n, (line, makes) in enumerate(zip(lines, makes_layer, strict=True))
        if makes
    ]
    made = subject(*facts, **more)
    entries = [HistoryEntry("/bin/sh -c #(nop) ADD file:0123456789 in / ", layer=0)]
    number = 0
    for line, makes in zip(lines, makes_layer, strict=True):
        number += makes
        entries.append(HistoryEntry(line, layer=number if makes else None, empty_layer=not makes))
    layers = tuple(
        replace(one, created_by=next(e.created_by for e in entries if e.layer == one.index))
        for one in made.image.layers
    )
    config = replace(made.image.config, history=tuple(entries))
    return replace(made, image=replace(made.image, config=config, layers=layers))


_NO_LAYER = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "USER",
    "EXPOSE",
    "LABEL",
    "ARG",
    "MAINTAINER",
    "HEALTHCHECK",
    "VOLUME",
    "SHELL",
    "STOPSIGNAL",
)


def without_history() -> ImageSubject:
    """An image whose history was taken out: legal, and nothing is known of its build."""
    return subject(history=())
