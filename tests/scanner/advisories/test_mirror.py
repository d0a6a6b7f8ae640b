"""Mirrors: a real registry with an artifact of trivy-db's kind, a real web server, and what either may get wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from scanner.advisories import database, feeds, mirror, sources, trivydb
from scanner.config import Settings
from scanner.demo import samples
from scanner.errors import ConflictError, RemoteError, ScannerError, UsageError
from tests.scanner.advisories.test_feeds import EPSS
from tests.servers import Authority, Registry

REPOSITORY = "mirror/trivy-db"


def archive(directory: Path, age_hours: float = 0, title: str = "trivy.db") -> bytes:
    """``db.tar.gz`` as trivy-db publishes it."""
    built = datetime.now(UTC) - timedelta(hours=age_hours)
    base = trivydb.build(samples.ADVISORIES, directory, updated_at=built)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        packed.add(base / "db" / "trivy.db", title)
        packed.add(base / "db" / "metadata.json", "metadata.json")
    return out.getvalue()


def push(
    registry: Registry, authority: Authority | None, data: bytes, media_type: str = mirror.DATABASE, **more: Any
) -> str:
    """Push an artifact with one layer, and give its reference."""
    import ssl

    context = ssl.create_default_context(cafile=authority.file) if authority else True
    with httpx.Client(
        base_url=f"{'https' if authority else 'http'}://{registry.host}",
        verify=context,
        trust_env=False,
        auth=(registry.username, registry.password) if registry.username else None,
    ) as client:
        layers = [_blob(client, data, media_type)] * more.get("times", 1)
        layers[0]["annotations"] = {"org.opencontainers.image.title": "../../../etc/cron.d/evil"}
        config = _blob(client, b"{}", "application/vnd.aquasec.trivy.config.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        }
        headers = {"Content-Type": str(manifest["mediaType"])}
        put = client.put(f"/v2/{REPOSITORY}/manifests/2", content=json.dumps(manifest), headers=headers)
        assert put.status_code == 201, put.text
    return f"{registry.host}/{REPOSITORY}:2"


def _blob(client: httpx.Client, data: bytes, media_type: str) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    begun = client.post(f"/v2/{REPOSITORY}/blobs/uploads/")
    place = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
    put = client.put(place, content=data)
    assert put.status_code == 201, put.text
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


@pytest.fixture
def settings(tmp_path: Path, plain_registry: Registry) -> Settings:
    return Settings(
        home=tmp_path / "home",
        insecure_registries=(plain_registry.host,),
        advisories_source=f"{plain_registry.host}/{REPOSITORY}:2",
    )


def test_a_mirror_behind_its_own_ca_and_a_password(registry: Registry, authority: Authority, tmp_path: Path) -> None:
    source = push(registry, authority, archive(tmp_path / "a"))
    credentials = tmp_path / "config.json"
    auth = {"username": registry.username, "password": registry.password}
    credentials.write_text(json.dumps({"auths": {registry.host: auth}}))
    bare = Settings(home=tmp_path / "home", advisories_source=source)
    with pytest.raises(RemoteError) as untrusted:
        sources.update(bare, sources.TRIVY)
    assert untrusted.value.reason == "tls_untrusted"
    with_ca = replace(bare, advisories_ca_file=authority.file)
    with pytest.raises(RemoteError) as refused:
        sources.update(with_ca, sources.TRIVY)
    assert refused.value.reason == "registry_auth_refused"
    assert sources.recorded_sources(with_ca)[sources.TRIVY].failures == 2
    full = replace(with_ca, registry_credentials=credentials)
    assert sources.update(full, sources.TRIVY)
    noted = sources.recorded_sources(full)[sources.TRIVY]
    assert (noted.origin, noted.failures, noted.failure) == (source, 0, "")
    assert database.status(full).digest is not None
    # A title is never a path.
    assert not list(tmp_path.rglob("*evil*"))


def test_what_we_have_is_not_fetched_again(settings: Settings, plain_registry: Registry, tmp_path: Path) -> None:
    push(plain_registry, None, archive(tmp_path / "a", 2))
    assert sources.update(settings, sources.TRIVY)
    first = database.current(settings)
    assert not sources.update(settings, sources.TRIVY)
    assert database.current(settings) == first
    push(plain_registry, None, archive(tmp_path / "b"))
    assert sources.update(settings, sources.TRIVY)
    assert database.current(settings) != first
    assert not list(settings.advisories_dir.glob(".download*"))


def damaged(kind: str, directory: Path) -> tuple[bytes, Mapping[str, Any]]:
    good = archive(directory)
    return {
        "another media type": (good, {"media_type": "application/vnd.oci.image.layer.v1.tar+gzip"}),
        "two layers": (good, {"times": 2}),
        "not an archive": (b"<html>sign in</html>", {}),
        "cut off": (good[: len(good) // 2], {}),
        "older": (archive(directory / "older", 48), {}),
        "answers nothing": (_empty(directory / "empty"), {}),
    }[kind]


def _empty(directory: Path) -> bytes:
    base = trivydb.build((), directory)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name in ("trivy.db", "metadata.json"):
            packed.add(base / "db" / name, name)
    return out.getvalue()


@pytest.mark.parametrize(
    "kind", ["another media type", "two layers", "not an archive", "cut off", "older", "answers nothing"]
)
def test_a_bad_update_keeps_the_old_one_and_says_so(
    settings: Settings, plain_registry: Registry, tmp_path: Path, kind: str
) -> None:
    push(plain_registry, None, archive(tmp_path / "good", 1))
    sources.update(settings, sources.TRIVY)
    before = database.status(settings)
    data, more = damaged(kind, tmp_path / "bad")
    push(plain_registry, None, data, **more)
    with pytest.raises(ScannerError):
        sources.update(settings, sources.TRIVY)
    assert database.status(settings) == before
    noted = sources.recorded_sources(settings)[sources.TRIVY]
    assert noted.failures == 1
    assert noted.failure
    assert noted.next_check > noted.failed > 0
    assert noted.origin == settings.advisories_source


def test_nobody_is_asked_who_was_not_configured(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert sources.due(settings) == ()
    assert sources.due(replace(settings, kev_source="https://mirror.example.com/kev.json")) == ("kev",)


def test_the_next_time_is_spread(settings: Settings, plain_registry: Registry, tmp_path: Path) -> None:
    push(plain_registry, None, archive(tmp_path / "a"))
    sources.update(settings, sources.TRIVY)
    noted = sources.recorded_sources(settings)[sources.TRIVY]
    assert sources.due(settings) == ()
    assert 0.9 * 6 * 3600 <= noted.next_check - noted.checked <= 1.1 * 6 * 3600 + 5
    assert sources.due(settings, noted.next_check + 1) == (sources.TRIVY,)


def test_two_updates_of_different_sources_are_both_noted(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)

    def note(name: str) -> None:
        for number in range(25):
            sources.note(settings, sources.Source(name, checked=float(number + 1)))

    threads = [threading.Thread(target=note, args=(name,)) for name in sources.SOURCES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: source.checked for name, source in sources.recorded_sources(settings).items()} == dict.fromkeys(
        sources.SOURCES, 25.0
    )
    assert {file.name for file in settings.advisories_dir.iterdir()} == {"sources.json", ".sources.lock"}


@pytest.mark.parametrize("place", ["/dev/null", "/dev/zero", "pipe", "empty", "nowhere"])
def test_a_database_is_imported_from_a_file_with_something_in_it(tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match=r"is not a regular file|is empty|there is no file"):
        sources.import_file(Settings(home=tmp_path), tmp_path / place)


def test_one_updater_at_a_time(settings: Settings) -> None:
    settings.advisories_dir.mkdir(parents=True)
    with database.only_one(settings.advisories_dir, ".update-trivy-db"), pytest.raises(ConflictError):
        sources.update(settings, sources.TRIVY)


def test_a_java_index_comes_by_itself_and_stays(settings: Settings, plain_registry: Registry, tmp_path: Path) -> None:
    push(plain_registry, None, archive(tmp_path / "a"))
    sources.update(settings, sources.TRIVY)
    java = tmp_path / "java"
    trivydb.empty_java_database(java)
    with (java / "trivy-java.db").open("ab") as file:
        file.write(b"\0" * 4096)  # so that it is told apart from the one that we make
    packed = tmp_path / "javadb.tar.gz"
    with tarfile.open(packed, "w:gz") as out:
        for name in ("trivy-java.db", "metadata.json"):
            out.add(java / name, name)
    database.import_file(settings, packed)
    kept = (java / "trivy-java.db").read_bytes()
    assert (database.current(settings).directory / "java-db" / "trivy-java.db").read_bytes() == kept
    database.import_file(settings, trivydb.build(samples.ADVISORIES, tmp_path / "b") / "db")
    assert (database.current(settings).directory / "java-db" / "trivy-java.db").read_bytes() == kept


@pytest.fixture
def by_url(tmp_path: Path, httpserver: HTTPServer) -> Settings:
    place = f"{httpserver.host}:{httpserver.port}"
    return Settings(home=tmp_path / "home", insecure_registries=(place,), epss_source=httpserver.url_for("/epss.csv"))


def test_a_feed_under_a_url(by_url: Settings, httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request("/epss.csv").respond_with_data(EPSS, headers={"ETag": '"one"'})
    httpserver.expect_ordered_request("/epss.csv", headers={"If-None-Match": '"one"'}).respond_with_data("", 304)
    assert sources.update(by_url, "epss")
    assert not sources.update(by_url, "epss")
    httpserver.check()
    found = feeds.status(by_url, "epss")
    assert found is not None
    assert found.version == "v2025.03.14"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (302, "", {"Location": "http://169.254.169.254/latest"}),
        (500, "", {}),
        (200, "<html>sign in</html>", {}),
    ],
)
def test_a_url_that_answers_something_else(
    by_url: Settings, httpserver: HTTPServer, status: int, body: str, headers: dict[str, str]
) -> None:
    httpserver.expect_request("/epss.csv").respond_with_data(body, status, headers)
    with pytest.raises(ScannerError):
        sources.update(by_url, "epss")
    assert feeds.status(by_url, "epss") is None
    assert sources.recorded_sources(by_url)["epss"].failures == 1


@pytest.mark.parametrize("url", ["http://mirror.example.com/epss.csv", "https://me:secret@mirror.example.com/epss.csv"])
def test_an_address_that_is_not_asked(tmp_path: Path, url: str) -> None:
    settings = Settings(home=tmp_path / "home", epss_source=url)
    with pytest.raises(UsageError):
        sources.update(settings, "epss")
    assert "secret" not in sources.recorded_sources(settings)["epss"].failure
