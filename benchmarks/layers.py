"""How much processor time our reading of a layer takes, against what people do otherwise, interleaved in one run.

``python -m benchmarks.layers [DIRECTORY] [--rounds N]`` packs DIRECTORY (default: this Python's installation) into
one gzip layer and reads it with

* ours: both digests, the strict walk, the facts, wanted contents, but no secrets by content (those are a check's);
* ``gzip -dc | tar -t``: lists names, verifies neither digest;
* Go's ``archive/tar`` over ``compress/gzip`` without digests, if a ``go`` is on PATH: the floor of most scanners.

Prints the medians of user plus system seconds (children included) and the ratios. Only ratios of one run mean
anything.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scanner.config import Limits
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants, read_layer

_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_GO = """package main

import ("archive/tar"; "compress/gzip"; "io"; "os")

func main() {
	f, _ := os.Open(os.Args[1])
	z, err := gzip.NewReader(f)
	if err != nil { panic(err) }
	for t := tar.NewReader(z); ; {
		if _, err := t.Next(); err == io.EOF { return } else if err != nil { panic(err) }
	}
}
"""


def pack(directory: Path, target: Path) -> tuple[Digest, Digest, int]:
    """One layer as builders write it: whole seconds, so that few files need a pax header.

    Our own files: the standard library may.
    """

    def whole_seconds(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime = int(info.mtime)
        return info

    plain = target.with_suffix("")
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(directory, arcname="opt", filter=whole_seconds)
    with plain.open("rb") as source, gzip.open(target, "wb", compresslevel=6) as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    sums = []
    for path in (target, plain):
        with path.open("rb") as file:
            sums.append(Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest()))
    return sums[0], sums[1], plain.stat().st_size


def ours(layer: Path, digest: Digest, diff_id: Digest) -> int:
    with layer.open("rb") as stream:
        facts = read_layer(
            stream,
            _GZIP_LAYER,
            digest=digest,
            size=layer.stat().st_size,
            diff_id=diff_id,
            limits=Limits(),
            wants=ContentWants(),
        )
    return len(facts.entries)


def seconds(action: Callable[[], object]) -> float:
    """User plus system time of this process and of the children that ended meanwhile."""

    def spent() -> float:
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in usage)

    before = spent()
    action()
    return spent() - before


def shell(command: str, *arguments: str) -> None:
    subprocess.run(["sh", "-c", command, "sh", *arguments], check=True, stdout=subprocess.DEVNULL)


def go_walker(directory: Path) -> Path | None:
    if shutil.which("go") is None:
        return None
    (directory / "walk.go").write_text(_GO)
    binary = directory / "walk"
    subprocess.run(["go", "build", "-o", str(binary), str(directory / "walk.go")], check=True)
    return binary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(sys.base_prefix))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        layer = work / "layer.tar.gz"
        digest, diff_id, size = pack(options.directory, layer)
        entries = ours(layer, digest, diff_id)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: ours(layer, digest, diff_id),
            "gzip -dc | tar -t": lambda: shell('gzip -dc "$1" | tar -tf -', str(layer)),
        }
        if walker := go_walker(work):
            ways["go archive/tar"] = lambda: subprocess.run([walker, layer], check=True)
        times: dict[str, list[float]] = {way: [] for way in ways}
        started = time.monotonic()
        for _ in range(options.rounds):
            for way, action in ways.items():
                times[way].append(seconds(action))
        print(
            f"{layer.stat().st_size >> 20} MiB gzip, {size >> 20} MiB tar, {entries} entries, {options.rounds} rounds"
        )
        median = {way: statistics.median(values) for way, values in times.items()}
        for way, value in median.items():
            print(f"{way:>18}: {value:6.2f} cpu-s   ours / it = {median['ours'] / value:.2f}")
        print(
            f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB, "
            f"{time.monotonic() - started:.0f} s in all"
        )


if __name__ == "__main__":
    main()
