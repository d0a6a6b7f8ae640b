"""The audit log: what anybody does to it shows, also when they may do everything to the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.model.audit import Action
from scanner.services import audit_anchors
from scanner.store import audit
from scanner.store.schema import audit_checkpoint, audit_log
from scanner.store.session import Database, moment
from tests.actors import person
from tests.scanner.store.together import together, transact

ALICE = person("alice", address="192.0.2.1")
KEY, OTHER = Secret("a" * 40), Secret("o" * 40)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, KEY)
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", audit_key=KEY)


@pytest.fixture
def written(database: Database) -> None:
    with database.session() as session:
        for number in range(5):
            audit.record(session, ALICE, Action.SCAN_CANCEL, str(number), detail={"before": number})


@pytest.fixture
def superuser(database: Database) -> Callable[..., None]:
    """Somebody with all rights on the database, who takes the triggers away first."""

    def run(*statements: str) -> None:
        with database.session() as session:
            for name in ("audit_log_immutable", "audit_log_kept"):
                session.execute(sa.text(f"DROP TRIGGER {name}" + ("" if database.is_sqlite else " ON audit_log")))
            for statement in statements:
                session.execute(sa.text(statement))

    return run


def verified(
    database: Database, key: Secret | None = KEY, noted: tuple[audit.Anchor, ...] = ()
) -> audit.ChainVerification:
    with database.read() as session:
        return audit.verify(session, key, noted)


def test_the_chain_does_not_fork(database: Database) -> None:
    together(10, lambda n: transact(database, lambda s: audit.record(s, ALICE, Action.SCAN_REQUEST, str(n))))
    assert verified(database) == audit.ChainVerification(10)


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_the_database_itself_refuses_to_change_it(database: Database, statement: str) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="only added to"), database.session() as session:
        session.execute(sa.text(statement))


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("statements", "bad"),
    [
        (["UPDATE audit_log SET actor = 'mallory' WHERE id = 2"], 2),
        (["UPDATE audit_log SET detail = '{}' WHERE id = 2"], 2),
        (["UPDATE audit_log SET address = '' WHERE id = 5"], 5),
        (["DELETE FROM audit_log WHERE id = 2"], 3),
        (["DELETE FROM audit_log WHERE id = 1"], 2),
        (
            [
                "UPDATE audit_log SET id = 14 WHERE id = 4",
                "INSERT INTO audit_log SELECT 4, at, actor, action, object, address, detail, previous, hash "
                "FROM audit_log WHERE id = 3",
            ],
            4,
        ),
        (
            [
                "UPDATE audit_log SET id = 9 WHERE id = 2",
                "UPDATE audit_log SET id = 2 WHERE id = 3",
                "UPDATE audit_log SET id = 3 WHERE id = 9",
            ],
            2,
        ),
    ],
    ids=["changed", "detail", "the last", "taken out", "the first", "put in", "reordered"],
)
def test_the_first_bad_entry_is_named(
    database: Database, superuser: Callable[..., None], statements: list[str], bad: int
) -> None:
    superuser(*statements)
    assert verified(database).broken == bad


@pytest.mark.usefixtures("written")
def test_who_has_the_database_but_not_the_key_forges_nothing(
    database: Database, superuser: Callable[..., None]
) -> None:
    """Everything after the change is chained anew, by the rules, without the key."""
    superuser("UPDATE audit_log SET actor = 'mallory' WHERE id = 3")
    with database.session() as session:
        previous = session.execute(sa.select(audit_log.c.hash).where(audit_log.c.id == 2)).scalar_one()
        for row in session.execute(sa.select(*audit_log.c).where(audit_log.c.id > 2).order_by(audit_log.c.id)).all():
            values = {name: getattr(row, name) for name in ("at", "actor", "action", "object", "address", "detail")}
            forged = audit._chain(previous, values, None)
            changed = audit_log.update().where(audit_log.c.id == row.id)
            session.execute(changed.values(previous=previous, hash=forged))
            previous = forged
    assert verified(database).broken == 3
    assert verified(database, OTHER).broken == 1


@pytest.mark.usefixtures("written")
def test_a_cut_end_shows_by_what_was_noted_elsewhere(
    database: Database, settings: Settings, superuser: Callable[..., None]
) -> None:
    assert audit_anchors.append_anchor(settings, database) is True
    assert audit_anchors.append_anchor(settings, database) is False  # nothing happened since
    noted = audit_anchors.read(settings)
    assert [anchor.seq for anchor in noted] == [5]
    assert verified(database, noted=noted) == audit.ChainVerification(5)
    superuser("DELETE FROM audit_log WHERE id > 3")
    assert verified(database).broken is None  # the chain alone does not tell
    cut = verified(database, noted=noted)
    assert (cut.broken, cut.entries) == (4, 3)
    assert "up to 5" in cut.why


@pytest.mark.usefixtures("written")
def test_an_old_copy_of_the_database_shows_too(
    database: Database, settings: Settings, superuser: Callable[..., None]
) -> None:
    audit_anchors.append_anchor(settings, database)
    superuser("DELETE FROM audit_log WHERE id > 3")
    with database.session() as session:  # and life goes on from the copy
        session.execute(sa.text("UPDATE audit_log SET id = id"))
        for number in range(4):
            audit.record(session, person("bob"), Action.SCAN_CANCEL, str(number))
    found = verified(database, noted=audit_anchors.read(settings))
    assert found.broken is not None
    assert found.broken >= 4


@pytest.mark.usefixtures("written")
def test_an_anchor_that_was_changed_is_not_believed(database: Database, settings: Settings) -> None:
    audit_anchors.append_anchor(settings, database)
    file = audit_anchors.anchor_file(settings)
    line = json.loads(file.read_text())
    for changes in ({"seq": 3}, {"hash": "0" * 64}, {"mac": "0" * 64}, {"more": 1}):
        file.write_text(json.dumps({**line, **changes}) + "\n")
        with pytest.raises(UsageError, match="line 1") as refused:
            audit_anchors.read(settings)
        assert refused.value.reason == "bad_anchor"
    file.write_text("not JSON\n")
    with pytest.raises(UsageError):
        audit_anchors.read(settings)
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="invalid MAC"):
        audit_anchors.read(replace(settings, audit_key=OTHER))


def test_anchors_that_cannot_be_written_are_told(database: Database, settings: Settings, written: None) -> None:
    elsewhere = replace(settings, audit_anchors=Path("/proc/no/such"))
    with pytest.raises(UsageError, match="cannot write the audit log's anchors"):
        audit_anchors.append_anchor(elsewhere, database)


def test_of_nothing_nothing_is_noted(database: Database, settings: Settings) -> None:
    assert audit_anchors.append_anchor(settings, database) is False
    assert audit_anchors.read(settings) == ()
    assert verified(database) == audit.ChainVerification(0)


def test_entries_are_found_by_who_what_and_when(database: Database) -> None:
    with database.session() as session:
        for actor, action, subject in (
            ("a", Action.POLICY_WRITE, "p"),
            ("a", Action.POLICY_ENABLE, "p"),
            ("b", Action.PROJECT_CREATE, "q"),
        ):
            audit.record(session, person(actor), action, subject)
    now = datetime.now(UTC)

    def found(**chosen: object) -> list[str]:
        with database.read() as session:
            return [entry.action for entry in audit.list_entries(session, audit.Filter(**chosen)).items]  # type: ignore[arg-type]

    assert found() == ["project.create", "policy.enable", "policy.write"]
    assert found(actor="a") == ["policy.enable", "policy.write"]
    assert found(action="policy") == ["policy.enable", "policy.write"]
    assert found(action="policy.write") == ["policy.write"]
    assert found(object="q") == ["project.create"]
    assert found(since=now + timedelta(hours=1)) == []
    assert len(found(since=now - timedelta(hours=1), until=now + timedelta(hours=1))) == 3


def test_an_export_can_be_verified_elsewhere(
    database: Database, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_BATCH", 2)
    with database.read() as session:
        lines = [json.loads(line) for line in audit.lines(session)]
    assert [line["id"] for line in lines] == [1, 2, 3, 4, 5]
    for before, line in pairwise(lines):
        assert line["previous"] == before["hash"]
        assert line["detail"] == {"before": line["id"] - 1}
    assert verified(database) == audit.ChainVerification(5)


# Pruned


def pruned(database: Database, limit: int = 100, key: Secret = KEY) -> int:
    """Everything that is there is old enough."""
    with Database(database.engine.url.render_as_string(hide_password=False), key).session() as session:
        return audit.prune(session, moment(session) + timedelta(days=1), limit)


@pytest.mark.usefixtures("written")
def test_a_pruned_log_verifies_and_goes_on(database: Database) -> None:
    assert pruned(database, 3) == 3
    assert verified(database) == audit.ChainVerification(2, pruned=3)
    with database.session() as session:
        audit.record(session, ALICE, Action.SCAN_REQUEST, "after")
    assert pruned(database) == 2, "the newest stays: the next is chained to it"
    assert verified(database) == audit.ChainVerification(1, pruned=5)
    assert pruned(database) == 0


@pytest.mark.usefixtures("written")
def test_only_what_is_old_enough_goes(database: Database) -> None:
    with database.session() as session:
        before = moment(session) - timedelta(hours=1)
        assert audit.prunable(session, before) == 0
        assert audit.prune(session, before, 100) == 0
        assert audit.prunable(session, moment(session) + timedelta(days=1)) == 4
    assert verified(database) == audit.ChainVerification(5)


@pytest.mark.usefixtures("written")
def test_anchors_of_pruned_entries_still_hold(database: Database, settings: Settings) -> None:
    audit_anchors.append_anchor(settings, database)
    with database.session() as session:
        audit.record(session, ALICE, Action.SCAN_REQUEST, "after")
    noted = audit_anchors.read(settings)
    for _ in range(2):
        pruned(database, 4)
        assert verified(database, noted=noted).broken is None
    wrong = (replace(noted[0], hash="0" * 64),)
    assert verified(database, noted=wrong).broken == 5


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_log WHERE id = 4",
        "DELETE FROM audit_log WHERE id = 5",
        "DELETE FROM audit_log WHERE id > 3",
        "DELETE FROM audit_checkpoint",
        "UPDATE audit_checkpoint SET entries = 2",
        "UPDATE audit_checkpoint SET seq = 4, hash = (SELECT hash FROM audit_log WHERE id = 4)",
    ],
)
def test_what_is_removed_by_hand_after_a_pruning_shows(
    database: Database, superuser: Callable[..., None], settings: Settings, statement: str
) -> None:
    audit_anchors.append_anchor(settings, database)
    assert pruned(database, 3) == 3
    superuser(statement)
    assert verified(database, noted=audit_anchors.read(settings)).broken is not None


@pytest.mark.usefixtures("written")
def test_a_checkpoint_of_ones_own_covers_nothing(database: Database) -> None:
    """The database lets entries go that a checkpoint covers; that it is signed shows in the verification."""
    with database.session() as session:
        values = {"id": 1, "seq": 2, "entries": 2, "until": moment(session), "mac": "0" * 64}
        last = session.execute(sa.select(audit_log.c.hash).where(audit_log.c.id == 2)).scalar_one()
        session.execute(audit_checkpoint.insert().values(**values, hash=last))
        session.execute(audit_log.delete().where(audit_log.c.id <= 2))
    assert "invalid MAC" in verified(database).why
    with pytest.raises(audit.BrokenChain):
        pruned(database)


@pytest.mark.usefixtures("written")
def test_a_log_that_was_changed_is_not_pruned(database: Database, superuser: Callable[..., None]) -> None:
    """It would remove the proof."""
    superuser("UPDATE audit_log SET actor = 'x' WHERE id = 2")
    with pytest.raises(audit.BrokenChain, match="entry 2"):
        pruned(database)
    assert verified(database).broken == 2


@pytest.mark.usefixtures("written")
def test_the_checkpoint_is_of_the_key(database: Database) -> None:
    with pytest.raises(audit.BrokenChain):
        pruned(database, key=OTHER)
    pruned(database, 3)
    assert verified(database, OTHER).broken == 3


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    "left", ["", "{", '{"se', '{"seq":5,"hash":"0ab', '{"seq":5,"hash":"00","at":"x","mac":"1"', "\0"]
)
def test_a_crash_in_the_middle_of_an_anchor_costs_that_anchor_only(
    database: Database, settings: Settings, left: str
) -> None:
    audit_anchors.append_anchor(settings, database)
    file, warnings = audit_anchors.anchor_file(settings), list[str]()
    with file.open("a") as out:
        out.write(left * (100 if left == "\0" else 1))
    assert [anchor.seq for anchor in audit_anchors.read(settings, warn=warnings.append)] == [5]
    with database.session() as session:
        audit.record(session, person("ada"), Action.SCAN_CANCEL, "x")
    assert audit_anchors.append_anchor(settings, database) is True
    noted = audit_anchors.read(settings, warn=warnings.append)
    assert [anchor.seq for anchor in noted] == [5, 6]
    assert verified(database, noted=noted).broken is None
    assert all(f"{file}, line 2: skipped" in warning for warning in warnings)
    assert bool(warnings) is bool(left)


def test_a_log_that_was_emptied_after_a_pruning_shows(
    database: Database, written: None, superuser: Callable[..., None]
) -> None:
    pruned(database, 3)
    superuser("DELETE FROM audit_log")
    found = verified(database)
    assert (found.broken, found.why) == (4, "the entries after the checkpoint were deleted")


def test_an_empty_file_of_anchors_is_begun(database: Database, settings: Settings, written: None) -> None:
    """As ``touch`` leaves it, with the rights that an administrator gave it."""
    file = audit_anchors.anchor_file(settings)
    file.parent.mkdir(parents=True)
    file.touch()
    assert audit_anchors.append_anchor(settings, database)
    assert [anchor.seq for anchor in audit_anchors.read(settings)] == [5]
    assert file.read_text().startswith("{")
