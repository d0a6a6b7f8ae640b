"""Migrations: the schema they make is the schema of the code, they go down as they went up, and data survives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import RemoteError, UsageError
from scanner.model.decision import Verdict
from scanner.model.lineage import BaseImage
from scanner.model.reference import Digest
from scanner.store import base_watch, gate, images, inventory, listings, receipts, reconciliation, registries, scans
from scanner.store.schema import image_blob, image_stack, metadata, running_workload, scan
from scanner.store.session import Database
from tests.databases import BACKENDS, empty_url
from tests.scanner.store import factories

SECRET = Secret("a secret key for tests, long enough")


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(empty_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


def test_the_migrations_make_what_the_code_expects(database: Database) -> None:
    database.upgrade()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_there_is_one_head_and_every_revision_says_what_it_does() -> None:
    revisions = list(ScriptDirectory(str(Path(__file__).parents[1] / "migrations")).walk_revisions())
    assert sum(not revision.nextrev for revision in revisions) == 1
    assert all(revision.doc for revision in revisions)


def test_a_database_that_is_not_at_head_is_refused(database: Database) -> None:
    with pytest.raises(UsageError) as refused:
        database.check_head()
    assert refused.value.reason == "db_not_at_head"
    assert "db upgrade" in refused.value.hint
    database.upgrade()
    database.check_head()
    database.upgrade()  # again: nothing to do, no harm
    database.downgrade("base")
    with pytest.raises(UsageError):
        database.check_head()


def test_down_with_data_leaves_nothing_and_up_again_works(database: Database) -> None:
    database.upgrade()
    _fill(database)
    database.downgrade("base")
    with database.read() as session:
        assert set(sa.inspect(session).get_table_names()) <= {"alembic_version"}
    database.upgrade()
    database.check_head()
    _fill(database)


def test_what_was_recorded_is_there_after_an_upgrade(database: Database) -> None:
    """Holds for every later revision: each is applied to a database that is in use."""
    database.upgrade()
    digest = _fill(database)
    database.downgrade("0001")
    database.upgrade()
    with database.read() as session:
        assert listings.newest_report(session, digest, None)[1].digest == digest
        assert len(scans.list_scans(session, None).items) == 1


def test_images_that_were_recorded_before_are_known_as_bases(database: Database) -> None:
    database.upgrade()
    digest = _fill(database)
    with database.read() as session:
        before = session.execute(sa.select(*image_stack.c)).all()
    database.downgrade("0007")
    database.upgrade()
    with database.read() as session:
        assert session.execute(sa.select(*image_stack.c)).all() == before
        assert before[0].subject == digest


def test_blobs_of_images_that_were_recorded_before_are_known(database: Database) -> None:
    database.upgrade()
    digest = _fill(database)
    with database.read() as session:
        before = session.execute(sa.select(*image_blob.c).order_by(image_blob.c.blob)).all()
    database.downgrade("0021")
    database.upgrade()
    with database.read() as session:
        assert session.execute(sa.select(*image_blob.c).order_by(image_blob.c.blob)).all() == before
    assert {row.subject for row in before} == {digest}
    assert len(before) == 2, "a config and a layer"


def test_bases_of_images_that_were_recorded_before_are_watched(database: Database) -> None:
    database.upgrade()
    found = factories.report("built on something")
    base = BaseImage("labels", "registry.example.com/bases/debian:12", Digest.of(b"base"))
    found = replace(found, images=(replace(found.images[0], base=base),))
    with database.session() as session:
        scans.request(session, factories.request(force=True))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])
    database.downgrade("0026")
    database.upgrade()
    with database.read() as session:
        (one,) = base_watch.list_watched(session, None).items
    assert one.watch.name == base_watch.Name("registry.example.com/bases/debian", "12", "default")
    assert [image.base for image in one.images] == [Digest.of(b"base")]


def test_a_registry_survives_receipts_and_takes_none_until_it_is_set(database: Database) -> None:
    """Down with keys and receipts, and up again: the registry keeps its values, and writing is off."""
    database.upgrade()
    with database.session() as session:
        registries.add(session, "registry.example.com", SECRET, username="ci", write_receipts=True)
        receipts.add_key(session, 1, "a" * 64, "PEM", Secret("private"), SECRET, 0.0)
        found = receipts.InForce("sha256:" + "1" * 64, "registry.example.com/a", "", "default", 1, "", "{}", None)
        made: dict[str, Any] = {"verdict": "allow", "undecided": False, "policy": "p", "key_id": "a" * 64}
        receipts.add(session, found, "", issued_at=factories.NOW, valid_until=1.0, envelopes={"a": "{}"}, **made)
        receipts.request_push(session, found.digest, found.repository)
    database.downgrade("0030")
    database.upgrade()
    with database.session() as session:
        (kept,) = registries.list_registries(session)
        assert (kept.host, kept.username, kept.write_receipts) == ("registry.example.com", "ci", False)
        assert receipts.keys(session) == ()
        assert receipts.of_image(session, found.digest, None) == ()


def test_a_registrys_polls_survive_the_choice_of_a_list(database: Database) -> None:
    """Down to a version without the choice, and up again: the best list that answers, and the rest as it was."""
    database.upgrade()
    with database.session() as session:
        registry = registries.add(session, "registry.example.com", SECRET)
        reconciliation.put_settings(session, registry.id, 900, ["shop/**"], [], reconciliation.ListBy.KNOWN)
    database.downgrade("0037")
    database.upgrade()
    with database.session() as session:
        kept = reconciliation.get(session, registry.id)
        assert (kept.seconds, kept.include, kept.list_by) == (900, ("shop/**",), reconciliation.ListBy.AUTO)


def test_a_clouds_secret_does_not_become_a_password(database: Database) -> None:
    """Down to a version that would send it to the registry, and up again: the registry is anonymous, others keep it."""
    database.upgrade()
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    with database.session() as session:
        secret = Secret("a-secret")
        registries.add(session, host, SECRET, username="AKIDEXAMPLE00000", password=secret, credentials="ecr")
        plain = registries.add(session, "registry.example.com", SECRET, username="ci", password=secret)
    database.downgrade("0032")
    database.upgrade()
    with database.session() as session:
        cloud, kept = registries.list_registries(session)
        assert (cloud.host, cloud.credentials, cloud.username, cloud.has_password) == (host, "static", "", False)
        assert (kept.username, registries.password(session, plain.id, SECRET)) == ("ci", secret)


def test_keys_that_assume_a_role_are_not_used_without_it(database: Database) -> None:
    """Down to a version that would use the key itself, which may be allowed much more than the role."""
    database.upgrade()
    host, key = "123456789012.dkr.ecr.eu-west-1.amazonaws.com", {"username": "AKIDEXAMPLE00000", "credentials": "ecr"}
    other = host.replace("eu", "us")
    with database.session() as session:
        secret, role = Secret("a-secret"), "arn:aws:iam::210987654321:role/pull"
        registries.add(session, host, SECRET, password=secret, role_arn=role, **key)  # type: ignore[arg-type]
        registries.add(session, other, SECRET, password=secret, **key)  # type: ignore[arg-type]
    database.downgrade("0034")
    database.upgrade()
    with database.session() as session:
        assuming, kept = registries.list_registries(session)
        assert (assuming.credentials, assuming.username, assuming.has_password) == ("static", "", False)
        assert (kept.credentials, kept.has_password, kept.role_arn, kept.external_id) == ("ecr", True, "", "")


def test_a_verdict_that_one_platform_gave_an_index_goes(database: Database) -> None:
    database.upgrade()
    whole = _fill(database)
    found = factories.report("one platform")
    found = replace(found, subject=replace(found.subject, digest=Digest.of(b"an index")), tag="2")
    with database.session() as session:
        scans.request(session, factories.request("h/r:2"))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        # As it was recorded then: the platform decided for the index.
        session.execute(scan.update().where(scan.c.id == held.scan_id).values(platform="linux/amd64"))
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])
    database.downgrade("0015")
    database.upgrade()
    with database.read() as session:
        assert gate.current_decision(session, found.digest, "", None, None) is None
        assert gate.current_decision(session, whole, "", None, None) is not None
        assert [item.digest for item in listings.list_images(session, None).items] == [whole]
        assert images.evidence(session, factories.evidence(found).hex) == found, "the evidence stays"


def test_a_database_that_does_not_answer_is_a_fault_of_ours_to_name() -> None:
    with pytest.raises(RemoteError) as refused:
        Database("postgresql://nobody@/none?host=/nonexistent").revision()
    assert refused.value.reason == "db_unavailable"


def _fill(database: Database) -> str:
    found = factories.report(packages=[factories.package(1)])
    with database.session() as session:
        scans.request(session, factories.request())
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])
        _run(session, found.digest)
    return found.digest


def _run(session: Connection, digest: str) -> None:
    """A workload, where the database has reached the revision that knows some."""
    if not sa.inspect(session).has_table("running_workload"):
        return
    where = inventory.lock_source(session, "production", "kubernetes", "cluster")
    judged = inventory.WorkloadDecision(
        "default",
        "h/r",
        "1",
        digest,
        False,
        0,
        Verdict.ALLOW,
        False,
        "",
        False,
        (),
        (),
        b"",
        "",
        "{}",
        factories.NOW,
        None,
    )
    one = inventory.NewWorkload("web", "0" * 64, b"{}", "shop", "Deployment", "", "h/r:1", judged)
    inventory.replace(session, where, 1, "0" * 64, "agent", [one], [])


def test_images_that_were_mounted_before_count_as_running(database: Database) -> None:
    database.upgrade()
    digest = _fill(database)
    mounted = [{"image": "h/r:1", "repository": "h/r", "tag": "1", "digest": digest}]
    with database.session() as session:
        session.execute(running_workload.update().values(digest="", mounted=mounted))
    database.downgrade("0039")
    database.upgrade()
    with database.read() as session:
        assert inventory.running_in(session, [digest], None) == {digest: {"production": 1}}


def test_what_runs_is_forgotten_below_the_revision_that_knows_it(database: Database) -> None:
    database.upgrade()
    digest = _fill(database)
    database.downgrade("0017")
    database.upgrade()
    with database.session() as session:
        assert inventory.list_workloads(session, None).items == ()
        assert listings.newest_report(session, digest, None)[1].digest == digest
        _run(session, digest)
        assert [row.name for row in inventory.list_workloads(session, None).items] == ["web"]
