"""``GET /bases``: which images to rebuild on the newest image of their base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from scanner.store import base_watch
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.web.conftest import Api, Worker

BASE = base_watch.Name("registry.example.com/bases/debian", "12", "default")
FLAWS = [make.vulnerability(n, make.package(n)) for n in (1, 2)]
_APP = make.report("app", packages=[make.package(1), make.package(2)], vulnerabilities=FLAWS)
APP = replace(_APP, images=(replace(_APP.images[0], base=BaseImage("labels", BASE.reference, Digest.of(b"old base"))),))


@pytest.fixture(autouse=True)
def scanned(api: Api, worker: Worker, database: Database) -> None:
    api("POST", "/scans", {"image": f"{make.REPOSITORY}:1"})
    worker.finish(APP)


def asked(database: Database, comparison: base_watch.Comparison | None = None) -> None:
    """The registry says that the base's tag names a newer image."""
    with database.session() as session:
        one = base_watch.get(session, BASE)
        assert one
        base_watch.record_answer(session, one, str(Digest.of(b"new base")), (), 3600)
        if comparison:
            base_watch.record_comparison(session, one, None, comparison=comparison)


def test_before_the_registry_was_asked(api: Api) -> None:
    (base,) = api("GET", "/bases").json["items"]
    assert (base["repository"], base["tag"], base["project"]) == (BASE.repository, "12", "default")
    assert (base["state"], base["digest"], base["changes"], base["images"]) == ("unknown", None, None, 1)


def test_what_to_rebuild_and_what_that_changes(api: Api, database: Database) -> None:
    asked(database, base_watch.Comparison({"critical": 2, "low": 21}, {"high": 1}))
    (base,) = api("GET", "/bases").json["items"]
    assert (base["state"], base["rebuild_count"]) == ("newer", 1)
    assert base["rebuild"] == [
        {"repository": make.REPOSITORY, "tag": "1", "digest": APP.digest, "base": Digest.of(b"old base")}
    ]
    assert base["changes"] == {"gone": {"critical": 2, "low": 21}, "come": {"high": 1}, "problem": ""}
