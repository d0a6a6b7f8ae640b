"""Layers made of everything that a tar archive can hold and no builder writes: read or refused, and what is read
makes sense.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import catalog
from scanner.checks.base import ImageSubject
from scanner.errors import ImageError
from scanner.model.filesystem import FileType, LayerFacts, Rootfs
from scanner.model.finding import Incomplete
from scanner.registry.rootfs import concerns, merge
from scanner.scanning.pipeline import outcome_of
from tests.scanner.checks.factory import subject
from tests.scanner.registry.archives import (
    GNU,
    archive,
    directory,
    file,
    gnu_long,
    hardlink,
    header,
    pax,
    read,
    symlink,
)

REASONS = {"malformed_archive", "unsafe_archive", "limit_exceeded"}

_part = st.sampled_from(
    ["a", "b", "etc", "bin", "..", ".", "", ".wh.a", ".wh.etc", ".wh..wh..opq", "passwd", "x" * 120, "caf\u00e9"]
)
_plain = st.lists(
    st.sampled_from(["a", "b", "c", "etc", "bin", "passwd", "caf\u00e9", "loop"]), min_size=1, max_size=3
).map("/".join)
_name = st.one_of(
    _plain,
    _plain,
    _plain,
    _plain,
    st.lists(_part, min_size=1, max_size=4).map("/".join),
    st.sampled_from(
        ["/etc/passwd", "../../etc/passwd", "a/../../b", "/", "./", "etc/passwd", "var/lib/dpkg/status", "a/" * 300]
    ),
)
_raw = st.one_of(
    _name.map(lambda name: name.encode()),
    st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"\0", b"\xff")),
)
_link = st.one_of(_name, st.sampled_from(["../../../../etc/shadow", "/proc/self/root", "a", "a/b", "loop", "etc"]))
_data = st.binary(max_size=30)


def _members() -> st.SearchStrategy[bytes]:
    mode = st.sampled_from([0o644, 0o4755, 0o2755, 0o777, 0o1777, 0])
    return st.one_of(
        st.builds(lambda name, data, mode: file(name[:100], data, mode=mode), _raw, _data, mode),
        st.builds(lambda name: directory(name[:100]), _name),
        st.builds(lambda name, link: symlink(name[:100], link[:100] or "a"), _name, _link),
        st.builds(lambda name, link: hardlink(name[:100], link[:100]), _name, _link),
        st.builds(lambda: symlink("loop", "loop2") + symlink("loop2", "loop")),
        st.builds(lambda name, kind: header(name[:100], kind, device=(8, 1)), _name, st.sampled_from("346S7gV")),
        st.builds(lambda name, data: file("x", data, kind="S", magic=GNU), _name, _data),
        st.builds(lambda name, data: pax(path=name or "p") + file("short", data), _name, _data),
        st.builds(lambda name, data: gnu_long(name) + file("short", data, magic=GNU), _raw, _data),
        st.builds(lambda name: pax(linkpath=name or "p") + symlink("s", "t"), _name),
        st.builds(
            lambda size: pax(GNU__sparse__major="1", GNU__sparse__realsize=str(size)) + file("sparse", b"x"),
            st.integers(0, 1 << 40),
        ),
        st.builds(lambda name: file(name[:80] + "/.wh..wh..opq") + file(f".wh.{name[:80]}"), _name),
    )


_layer = st.lists(_members(), max_size=7).map(lambda members: archive(*members))


def refused_or_read(data: bytes) -> LayerFacts | None:
    try:
        return read(data)
    except ImageError as error:
        said = error
    assert said.reason in REASONS
    assert str(said).isprintable()
    return None


@given(st.lists(_layer, min_size=1, max_size=3))
@settings(deadline=None, max_examples=250)
def test_what_is_read_makes_sense(layers: list[bytes]) -> None:
    facts = [found for data in layers if (found := refused_or_read(data)) is not None]
    rootfs = merge(facts)
    for placed in (*rootfs, *(hidden for hidden, _ in rootfs.hidden)):
        parts = placed.entry.path.split("/")
        assert not {"", ".", ".."} & set(parts), "a path leads out, or has two spellings"
        assert not parts[-1].startswith(".wh."), "a whiteout is no file"
    for path, placed in rootfs.files.items():
        above = path.rpartition("/")[0]
        assert path == placed.entry.path
        assert not above or rootfs.files[above].entry.type is FileType.DIRECTORY, "everything stands in a directory"
    for hidden, by in rootfs.hidden:
        assert hidden.layer < by, "only a later layer hides"
    assert_links_stay_inside(rootfs)
    assert all(concern.detail.isprintable() for concern in concerns(rootfs, None))


def assert_links_stay_inside(rootfs: Rootfs) -> None:
    for path in (*rootfs.files, "loop", "a/b/c", "../../etc/passwd", "/etc/passwd"):
        found = rootfs.follow(path)
        assert found is None or not (found.startswith("/") or ".." in found.split("/"))
        data = rootfs.content(path)
        assert data is None or any(data in layer.contents.values() for layer in rootfs.layers)


@given(st.lists(_layer, min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_no_check_breaks_on_them(layers: list[bytes]) -> None:
    facts = [found for data in layers if (found := refused_or_read(data)) is not None]
    given_ = subject(*facts, history=[f"RUN /bin/sh -c layer {n}" for n in range(len(facts))], user="app")
    image = ImageSubject(given_.image, merge(facts), reference=given_.reference)
    for check in catalog.image_checks().values():
        outcome = outcome_of(check, image)
        assert not (isinstance(outcome, Incomplete) and outcome.reason == "check_failed"), f"{check.id}: {outcome}"


_MANY = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
import io
from dataclasses import replace
from scanner.config import Limits
from scanner.errors import ImageError
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.rootfs import merge
from tests.scanner.registry.archives import END, PLAIN, header, sealed
import hashlib

class Endless(io.RawIOBase):
    def __init__(self, count):
        self.count, self.number, self.rest = count, 0, b""
    def read(self, size=-1):
        made = [self.rest]
        length = len(self.rest)
        while length < size and self.number <= self.count:
            block = END if self.number == self.count else one(self.number)
            self.number += 1
            made.append(block)
            length += len(block)
        data = b"".join(made)
        self.rest = data[size:]
        return data[:size]

template = bytearray(header("d/" + "0" * 10))
def one(number):
    template[2:12] = b"%010d" % number
    return sealed(bytes(template))

count = int(sys.argv[1])
total, digest = 0, hashlib.sha256()
stream = Endless(count)
while data := stream.read(1 << 20):
    digest.update(data); total += len(data)
name = Digest("sha256:" + digest.hexdigest())
try:
    limits = replace(Limits(), layer_compressed=1 << 40)
    facts = read_layer(
        Endless(count), PLAIN, digest=name, size=total, diff_id=name, limits=limits, wants=ContentWants()
    )
    print(json.dumps({"refused": "", "entries": len(facts.entries), "files": len(merge([facts]).files)}))
except ImageError as error:
    print(json.dumps({"refused": error.reason}))
"""


@pytest.mark.long
@pytest.mark.parametrize(("count", "refused"), [(900_000, ""), (1_000_001, "limit_exceeded")])
def test_millions_of_entries(count: int, refused: str, tmp_path: Path) -> None:
    """In bounded memory: what is too many is refused when it is one too many, not when all of it has been kept."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(count), str(3 << 30)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-1000:]
    found = json.loads(done.stdout)
    assert found["refused"] == refused
    assert refused or found["entries"] == count
