"""What examining an image costs: reading every layer and running every check, against what listing the same layers
costs otherwise.

``python -m benchmarks.checks [--rounds N] [--profile]`` makes two images of what this machine has (system files as
the base they share, this environment's Python packages, a node application: Playwright's driver) and measures,
interleaved in one run,

* ours: decompress, both digests, the strict walk, wanted contents, secrets by content, the merged view, every check;
* ``gzip -dc | tar -t`` on the same layers, which verifies nothing;
* Go's ``archive/tar`` over ``compress/gzip``, without digests and with both, where a ``go`` is on PATH: what a
  scanner in Go must do.

Goals: at most 1.0 of the first; at most 0.6 of the walk with both digests. Then the second image: it must read its
own layers and no byte of the base's. Only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import pstats
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.layers import seconds, shell
from scanner import catalog
from scanner.checks.base import ImageSubject
from scanner.config import Limits, Settings
from scanner.model.filesystem import LayerFacts
from scanner.model.image import HistoryEntry, Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.registry.blobs import BlobStore
from scanner.registry.facts import FactsCache
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.rootfs import merge
from scanner.scanning import pipeline

_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_GO = """package main

import ("archive/tar"; "compress/gzip"; "crypto/sha256"; "io"; "os")

func main() {
	for _, name := range os.Args[2:] {
		f, _ := os.Open(name)
		var source io.Reader = f
		if os.Args[1] == "hash" { source = io.TeeReader(f, sha256.New()) }
		z, err := gzip.NewReader(source)
		if err != nil { panic(err) }
		var t io.Reader = z
		if os.Args[1] == "hash" { t = io.TeeReader(z, sha256.New()) }
		for r := tar.NewReader(t); ; {
			_, err := r.Next()
			if err == io.EOF { break }
			if err != nil { panic(err) }
		}
		io.Copy(io.Discard, t)
	}
}
"""


@dataclass(frozen=True)
class Part:
    """A layer made of directories, and the instruction that made it."""

    name: str
    line: str
    trees: tuple[tuple[Path, str], ...]


def parts() -> dict[str, Part]:
    site = Path(next(p for p in sys.path if p.endswith("-packages")))
    driver = site / "playwright" / "driver" / "package"
    return {
        "base": Part(
            "base",
            "/bin/sh -c #(nop) ADD file:0123 in / ",
            ((Path("/usr/bin"), "usr/bin"), (Path("/usr/share"), "usr/share"), (Path("/etc"), "etc")),
        ),
        "python": Part(
            "python",
            "RUN /bin/sh -c pip install --no-cache-dir -r requirements.txt # buildkit",
            ((site, "usr/lib/python3/dist-packages"),),
        ),
        "node": Part("node", "COPY . /srv/app # buildkit", ((driver, "srv/app/node_modules/playwright-core"),)),
    }


def pack(part: Part, directory: Path, limit: int = 260 << 20) -> tuple[Path, Digest, Digest]:
    """One gzip layer, of at most so many bytes of files."""
    plain, packed = directory / f"{part.name}.tar", directory / f"{part.name}.tar.gz"
    left = limit

    def taken(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal left
        info.mtime, info.uid, info.gid, info.uname, info.gname = int(info.mtime), 0, 0, "", ""
        if "/playwright/driver/" in info.name or not (info.isreg() or info.isdir() or info.issym()) or info.size > left:
            return None
        left -= info.size
        return info

    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT, dereference=False) as tar:
        for tree, name in part.trees:
            with contextlib.suppress(PermissionError):
                tar.add(tree, arcname=name, filter=taken)
    with packed.open("wb") as sink:
        subprocess.run(["gzip", "-6", "-n", "-c", str(plain)], stdout=sink, check=True)
    sums = [Digest.of(path.read_bytes()) for path in (packed, plain)]
    plain.unlink()
    return packed, sums[0], sums[1]


def image(name: str, layers: list[tuple[Part, Path, Digest, Digest]]) -> Image:
    made = tuple(
        Layer(n, digest, diff_id, _GZIP_LAYER, path.stat().st_size, created_by=part.line)
        for n, (part, path, digest, diff_id) in enumerate(layers)
    )
    history = tuple(HistoryEntry(layer.created_by, layer=layer.index) for layer in made)
    config = ImageConfig(
        Digest.of(name.encode()),
        Platform("linux", "amd64"),
        tuple(layer.diff_id for layer in made),
        user="10001",
        history=history,
    )
    return Image(
        Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(name.encode() + b"m"), 1), config, made
    )


def read(files: dict[Digest, Path], what: Image, wants: ContentWants) -> list[LayerFacts]:
    found = []
    for layer in what.layers:
        with files[layer.digest].open("rb") as stream:
            found.append(
                read_layer(
                    stream,
                    layer.media_type,
                    digest=layer.digest,
                    size=layer.size,
                    diff_id=layer.diff_id,
                    limits=Limits(),
                    wants=wants,
                )
            )
    return found


def check(what: Image, facts: list[LayerFacts]) -> int:
    subject = ImageSubject(what, merge(facts), secrets=())
    return sum(pipeline.outcome_of(one, subject).kind != "passed" for one in catalog.image_checks().values())


@dataclass
class Files:
    """What ``pipeline.read_layers`` asks of a source; counts the bytes that it hands out."""

    files: dict[Digest, Path]
    given: list[Digest] = field(default_factory=list)

    def open(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[object]:
        self.given.append(descriptor.digest)
        return self.files[descriptor.digest].open("rb")


def second_image(files: dict[Digest, Path], first: Image, second: Image, home: Path) -> None:
    settings = Settings(home=home)
    store = pipeline.LayerStore(
        BlobStore(settings.blobs_dir, settings.blob_store_bytes), FactsCache(home / "facts"), settings.limits
    )
    source = Files(files)
    times = []
    for what in (first, second):
        source.given.clear()
        times.append(
            seconds(
                lambda what=what: pipeline.read_layers(
                    source, what, store, lambda _: None, pipeline.Deadline.after(600)
                )
            )
        )  # type: ignore[misc,arg-type]
        read_bytes = sum(files[digest].stat().st_size for digest in source.given)
        print(f"  {read_bytes / 1e6:7.1f} MB read of {what.size / 1e6:.1f} MB in {times[-1]:.2f} cpu-s")
    own = {layer.digest for layer in second.layers} - {layer.digest for layer in first.layers}
    print("  the second image reads only its own layers:", "yes" if set(source.given) == own else "NO")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where our time goes instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        packed = {key: (part, *pack(part, work)) for key, part in parts().items()}
        files = {digest: path for _, path, digest, _ in packed.values()}
        first, second = (
            image("first", [packed["base"], packed["python"]]),
            image("second", [packed["base"], packed["node"]]),
        )
        whole = image("whole", list(packed.values()))
        paths = [str(path) for path in files.values()]
        facts = read(files, whole, pipeline.wants())
        print(
            f"{whole.size >> 20} MiB gzip, {sum(f.uncompressed_size for f in facts) >> 20} MiB tar, "
            f"{sum(len(f.entries) for f in facts)} entries"
        )
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(lambda: check(whole, read(files, whole, pipeline.wants())))
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return
        plain = ContentWants(pipeline.wants().patterns)
        ways: dict[str, Callable[[], object]] = {
            "ours: all": lambda: check(whole, read(files, whole, pipeline.wants())),
            "of it: read, no secrets": lambda: read(files, whole, plain),
            "of it: checks": lambda: check(whole, facts),
            "gzip -dc | tar -t": lambda: shell('for f; do gzip -dc "$f" | tar -tf -; done', *paths),
        }
        if shutil.which("go"):
            (work / "walk.go").write_text(_GO)
            subprocess.run(["go", "build", "-o", str(work / "walk"), str(work / "walk.go")], check=True)
            for label, mode in (("go tar", "walk"), ("go tar, both sha256", "hash")):
                ways[label] = lambda mode=mode: subprocess.run([work / "walk", mode, *paths], check=True)  # type: ignore[misc]
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, action in ways.items():
                times[way].append(seconds(action))
        median = {way: statistics.median(values) for way, values in times.items()}
        for way, value in median.items():
            print(f"{way:>24}: {value:6.2f} cpu-s   ours / it = {median['ours: all'] / value:.2f}")
        print("two images on one base:")
        second_image(files, first, second, work / "home")


if __name__ == "__main__":
    main()
