"""Whatever bytes a database, a feed or an SBOM has, reading it ends with a value or with an error of ours, after a
bounded time.
"""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from scanner.advisories import bolt, database, feeds
from scanner.config import Limits
from scanner.errors import ScannerError, UsageError
from scanner.registry.attached import parse_sbom

QUICK = examples(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
TREE = {
    b"debian 12": {b"curl": {b"CVE-1": b"{}"}, b"openssl": {f"CVE-{n}".encode(): b"{}" * 40 for n in range(200)}},
    b"vulnerability": {b"CVE-1": b"{}"},
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("bolt") / "trivy.db"
    bolt.write(TREE, file)
    return file.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("generation") / "db"
    directory.mkdir()
    return directory


def reads(directory: Path, data: bytes) -> None:
    file = directory / "trivy.db"
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    for read in (database.known_answer, lambda path: database.Generation(path.parent.parent).holdings()):
        with contextlib.suppress(ScannerError):
            read(file)


@QUICK
@given(data=st.data())
def test_any_bytes_in_a_database(honest: bytes, place: Path, data: st.DataObject) -> None:
    made = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(2 * bolt.PAGE, len(made) - 8))
        made[start : start + 8] = data.draw(
            st.binary(min_size=8, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8])
        )
    reads(place, bytes(made))


@QUICK
@given(data=st.binary(max_size=300))
def test_any_bytes_for_a_database(place: Path, data: bytes) -> None:
    reads(place, data)
    reads(place, data.ljust(3 * bolt.PAGE, b"\0"))


def pages(*bodies: bytes, root: int = 2) -> bytes:
    """A file of these pages, the first of them number 2."""
    number = len(bodies) + 2
    meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, bolt.PAGE, 0, root, 0, 2**64 - 1, number, 1)
    meta += struct.pack("<Q", bolt._fnv1a(meta))
    head = (struct.pack("<QHHI", 0, 4, 0, 0) + meta).ljust(bolt.PAGE, b"\0")
    return head * 2 + b"".join(body.ljust(bolt.PAGE, b"\0") for body in bodies)


def branch(*children: int) -> bytes:
    elements = b"".join(struct.pack("<IIQ", 0, 0, child) for child in children)
    return struct.pack("<QHHI", 2, 1, len(children), 0) + elements


def buckets(*roots: int) -> bytes:
    """A leaf whose every value is a bucket with this root."""
    count, elements, data = len(roots), b"", b""
    for index, root in enumerate(roots):
        value = b"%04d" % index + struct.pack("<QQ", root, 0)
        elements += struct.pack("<IIII", 1, (count - index) * 16 + len(data), 4, 16)
        data += value
    return struct.pack("<QHHI", 2, 2, count, 0) + elements + data


@pytest.mark.parametrize(
    "made",
    [
        pages(branch(2)),
        pages(branch(*[2] * 200)),
        pages(branch(*[3] * 200), branch(*[2] * 200)),
        pages(*(branch(*[number + 3] * 200) for number in range(40)), buckets(2)),
        pages(buckets(*[2] * 100)),
        pages(branch(*[3] * 200), buckets(*[2] * 100)),
    ],
    ids=["itself", "many times itself", "each other", "a fan of forty levels", "buckets in themselves", "both"],
)
def test_pages_that_point_at_themselves_end(tmp_path: Path, made: bytes) -> None:
    """A fan of 200 and a depth of 32 are 200 to the 32nd pages, each of which is there."""
    file = tmp_path / "db" / "trivy.db"
    file.parent.mkdir()
    file.write_bytes(made)
    with pytest.raises(UsageError):
        database.known_answer(file)
    with pytest.raises(UsageError):
        everything(file)


def everything(file: Path) -> None:
    """Read three levels of buckets. Raises UsageError at the end, because none of these files holds anything."""
    with bolt.open_root_bucket(file) as root:
        for _, bucket in root.items():
            for _, below in bucket.items() if isinstance(bucket, bolt.Bucket) else ():
                list(below.items() if isinstance(below, bolt.Bucket) else ())
    raise UsageError("nothing is in it")


def test_values_that_lie_on_one_another_are_not_read(tmp_path: Path) -> None:
    """Each of them is nearly the whole page: together they are a thousand times the file."""
    elements = b"".join(struct.pack("<IIII", 0, 16, 0, 4000) for _ in range(200))
    (tmp_path / "trivy.db").write_bytes(pages(struct.pack("<QHHI", 2, 2, 200, 0) + elements))
    with bolt.open_root_bucket(tmp_path / "trivy.db") as root, pytest.raises(UsageError, match="damaged"):
        list(root.items())


@QUICK
@given(
    data=st.binary(max_size=200),
    kind=st.sampled_from(feeds.FEEDS),
    begin=st.sampled_from(
        [
            b"",
            b"cveID,dateAdded\n",
            b"cve,epss\n",
            b"{",
            b"\x1f\x8b",
            b"#model_version:x,score_date:2026-11-01T00:00:00+0000\ncve,epss\n",
        ]
    ),
)
def test_any_bytes_for_a_feed(place: Path, data: bytes, kind: str, begin: bytes) -> None:
    file = place / "feed"
    file.write_bytes(begin + data)
    assert feeds.recognise(file) in (None, "kev", "epss")
    with contextlib.suppress(ScannerError):
        assert feeds.parse(file, kind) is not None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["CycloneDX", "library", "complete", "SPDX-2.3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "components",
                    "packages",
                    "type",
                    "name",
                    "purl",
                    "licenses",
                    "license",
                    "compositions",
                    "aggregate",
                    "externalRefs",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", ["cyclonedx", "spdx"])
@QUICK
@given(
    found=st.dictionaries(st.sampled_from(["components", "packages", "compositions"]), values),
    raw=st.binary(max_size=60),
)
def test_any_bytes_for_an_sbom(kind: str, found: dict[str, object], raw: bytes) -> None:
    document = {"bomFormat": "CycloneDX", "spdxVersion": "SPDX-2.3", **found}
    for data in (json.dumps(document).encode(), raw):
        try:
            components = parse_sbom(data, kind, Limits()).components
        except ScannerError:
            continue  # any other error fails here
        assert all(isinstance(component.name, str) for component in components)


@pytest.mark.parametrize("kind", [None, "Library", "library ", 3, "platform", "firmware"])
def test_a_component_of_a_type_that_nobody_knows_is_listed(kind: object) -> None:
    document = {"bomFormat": "CycloneDX", "components": [{"type": kind, "name": "x", "version": "1"}]}
    assert [c.name for c in parse_sbom(json.dumps(document).encode(), "cyclonedx", Limits()).components] == ["x"]


@pytest.mark.parametrize("word", [None, "", "Complete", "partial", 1, ["complete"]])
def test_a_composition_in_a_word_that_there_is_not_is_partial(word: object) -> None:
    document = {"bomFormat": "CycloneDX", "components": [], "compositions": [{"aggregate": word}]}
    assert parse_sbom(json.dumps(document).encode(), "cyclonedx", Limits()).partial


def test_components_below_the_depth_that_is_read_are_refused() -> None:
    inner: dict[str, object] = {"type": "library", "name": "deep", "version": "1"}
    for _ in range(20):
        inner = {"type": "library", "name": "x", "version": "1", "components": [inner]}
    with pytest.raises(ScannerError, match="deeper"):
        parse_sbom(json.dumps({"bomFormat": "CycloneDX", "components": [inner]}).encode(), "cyclonedx", Limits())
