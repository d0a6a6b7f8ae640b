"""KEV and EPSS: recognised by what they hold, refused with the line that is wrong, and never an answer nobody was
asked for.
"""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scanner.advisories import feeds
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model.finding import Vulnerability

EPSS = (
    "#model_version:v2025.03.14,score_date:2026-11-24T12:55:00+0000\n"
    "cve,epss,percentile\n"
    "CVE-2026-1000,0.91,0.99\n"
    "CVE-2026-1001,0.0004,0.1\n"
)
KEV = {
    "catalogVersion": "2026.11.24",
    "dateReleased": "2026-11-24T18:00:00.1234Z",
    "vulnerabilities": [{"cveID": "CVE-2026-1000"}],
}
KEV_CSV = "\ufeffcveID,vendorProject,dateAdded\nCVE-2026-1000,a,2026-11-20\nCVE-2026-1001,b,2026-11-22\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def file(directory: Path, text: str | bytes, name: str = "feed") -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def finding(name: str, *aliases: str) -> Vulnerability:
    return Vulnerability(name, "pkg:deb/debian/x@1", "x", "1", aliases=aliases)


def put(settings: Settings, source: Path) -> str | None:
    kind = feeds.recognise(source)
    if kind:
        feeds.import_file(settings, source, kind)
    return kind


@pytest.mark.parametrize(
    ("text", "kind", "version", "dated"),
    [
        (EPSS.encode(), "epss", "v2025.03.14", datetime(2026, 11, 24, 12, 55, tzinfo=UTC)),
        (gzip.compress(EPSS.encode()), "epss", "v2025.03.14", datetime(2026, 11, 24, 12, 55, tzinfo=UTC)),
        (json.dumps(KEV).encode(), "kev", "2026.11.24", datetime(2026, 11, 24, 18, 0, 0, 123400, tzinfo=UTC)),
        (KEV_CSV.encode(), "kev", "2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_each_form_is_recognised_and_dated(
    settings: Settings, tmp_path: Path, text: bytes, kind: str, version: str, dated: datetime
) -> None:
    assert put(settings, file(tmp_path, text)) == kind
    found = feeds.status(settings, kind)
    assert found is not None
    assert (found.source, found.version, found.updated_at) == (kind, version, dated)
    assert found.digest is not None


@pytest.mark.parametrize("text", [b"", b"PK\x03\x04", b"cve\n1", b"\x1f\x8bbroken", b"[1]"])
def test_what_is_neither_is_not_guessed_at(tmp_path: Path, text: bytes) -> None:
    assert feeds.recognise(file(tmp_path, text)) is None


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (EPSS.replace("0.91", "1.5"), "epss", "line 3"),
        (EPSS.replace("0.0004", "nan"), "epss", "line 4"),
        (EPSS.replace("CVE-2026-1001", "' OR 1"), "epss", "line 4"),
        (EPSS.partition("\n")[2], "epss", "score_date"),
        (EPSS.partition("CVE")[0], "epss", "has no entries"),
        (json.dumps({**KEV, "vulnerabilities": []}), "kev", "has no entries"),
        (json.dumps({**KEV, "vulnerabilities": [{"cveID": 7}]}), "kev", "entry 1"),
        (json.dumps({**KEV, "dateReleased": "yesterday"}), "kev", "no release date"),
        (json.dumps(KEV)[:-2], "kev", "JSON"),
        (KEV_CSV.replace("CVE-2026-1001", "x"), "kev", "line 3"),
        (KEV_CSV.replace("dateAdded", "added"), "kev", "dateAdded"),
        (gzip.compress(EPSS.encode())[:-9], "epss", "cannot be read"),
    ],
)
def test_a_broken_one_changes_nothing(
    settings: Settings, tmp_path: Path, text: str | bytes, kind: str, said: str
) -> None:
    put(settings, file(tmp_path, EPSS if kind == "epss" else json.dumps(KEV), "good"))
    before = feeds.status(settings, kind)
    with pytest.raises(UsageError, match=said):
        feeds.import_file(settings, file(tmp_path, text), kind)
    assert feeds.status(settings, kind) == before
    assert not list((settings.advisories_dir / "feeds" / kind).glob(".incoming*"))


def test_a_bomb_is_put_down(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_MAX_BYTES", 1 << 20)
    packed = gzip.compress(EPSS.encode() + b"CVE-2026-1001,0.5,0.5\n" * 100_000)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        feeds.import_file(settings, file(tmp_path, packed), "epss")


def test_two_generations_are_kept(settings: Settings, tmp_path: Path) -> None:
    for day in ("21", "22", "23", "24"):
        put(settings, file(tmp_path, EPSS.replace("11-24", f"11-{day}")))
    assert len(list((settings.advisories_dir / "feeds" / "epss").glob("*.db"))) == 2
    found = feeds.status(settings, "epss")
    assert found is not None
    assert f"{found.updated_at:%d}" == "24"


def test_what_was_not_looked_up_stays_unknown(settings: Settings, tmp_path: Path) -> None:
    items = [finding("CVE-2026-1000"), finding("CVE-2026-9999")]
    assert [(v.known_exploited, v.epss) for v in feeds.with_feed_values(settings, items)] == [
        (None, None),
        (None, None),
    ]
    put(settings, file(tmp_path, json.dumps(KEV)))
    assert [(v.known_exploited, v.epss) for v in feeds.with_feed_values(settings, items)] == [
        (True, None),
        (False, None),
    ]
    put(settings, file(tmp_path, EPSS))
    # A CVE that nobody has scored yet is unknown; it is not harmless.
    assert [(v.known_exploited, v.epss) for v in feeds.with_feed_values(settings, items)] == [
        (True, 0.91),
        (False, None),
    ]


def test_an_alias_is_the_same_flaw_and_no_cve_is_none_of_theirs(settings: Settings, tmp_path: Path) -> None:
    put(settings, file(tmp_path, json.dumps(KEV)))
    put(settings, file(tmp_path, EPSS))
    items = [finding("GHSA-aaaa", "CVE-2026-1001", "CVE-2026-1000"), finding("TEMP-0000-1")]
    assert [(v.known_exploited, v.epss) for v in feeds.with_feed_values(settings, items)] == [
        (True, 0.91),
        (False, 0.0),
    ]
