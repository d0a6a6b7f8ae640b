"""Exemptions: lists, states that time changes, and two who decide at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError, RefusedError, UsageError
from scanner.model.actor import Person
from scanner.store import exemptions
from scanner.store.schema import exemption
from scanner.store.session import Database, moment
from tests.scanner.store.together import together, transact

DORA, SAM, TOM = (Person(name, name) for name in ("dora", "sam", "tom"))


def request(session: Connection, project: str = "shop", **more: Any) -> exemptions.ExemptionView:
    given: dict[str, Any] = {
        "images": ["**"],
        "justification": "We never call it.",
        "expires_at": moment(session) + timedelta(days=20),
        "subject": "CVE-1",
        **more,
    }
    return exemptions.request(session, project, DORA, **given)


def test_lists_are_narrowed_and_paged(database: Database) -> None:
    with database.session() as session:
        now = moment(session)
        soon = request(session, expires_at=now + timedelta(days=2))
        approved = exemptions.approve(session, request(session, subject="CVE-2").id, SAM)
        rejected = exemptions.reject(session, request(session, rule="no-root", subject="").id, SAM)
        foreign = request(session, "bank")
        over = request(session, subject="CVE-3")
        session.execute(exemption.update().where(exemption.c.id == over.id).values(expires_at=now))
        for narrowed, expected in (
            ({}, {soon, approved, rejected, foreign, over}),
            ({"project": "bank"}, {foreign}),
            ({"subject": "CVE-2"}, {approved}),
            ({"ends_before": now + timedelta(days=3)}, {soon, over}),
            ({"states": ["requested"]}, {soon, foreign}),
            ({"states": ["approved", "rejected"]}, {approved, rejected}),
            ({"states": ["expired"]}, {over}),
        ):
            found = exemptions.list_exemptions(session, None, **narrowed).items  # type: ignore[arg-type]
            assert {each.id for each in found} == {each.id for each in expected}, narrowed
        assert [each.id for each in exemptions.list_exemptions(session, frozenset({"bank"})).items] == [foreign.id]
        counts = exemptions.counts(session, None)
        assert {name: number for name, number in counts.items() if number} == {
            "requested": 2,
            "approved": 1,
            "rejected": 1,
            "expired": 1,
        }
        assert sum(exemptions.counts(session, frozenset({"bank"})).values()) == 1
        paged, cursor = list[str](), None
        while True:
            page = exemptions.list_exemptions(session, None, cursor=cursor, limit=2)
            paged += [each.id for each in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert paged == [each.id for each in exemptions.list_exemptions(session, None).items]


def test_another_projects_exemption_does_not_exist(database: Database) -> None:
    with database.session() as session:
        found = request(session)
        for identifier, projects in ((found.id, frozenset({"bank"})), ("none", None)):
            with pytest.raises(NotFoundError, match="no such exemption"):
                exemptions.get(session, identifier, projects)


def test_what_would_cover_everything_or_for_ever_is_refused(database: Database) -> None:
    with database.session() as session:
        with pytest.raises(UsageError, match="needs a rule, a subject"):
            request(session, subject="")
        for days in (0, 367):
            with pytest.raises(UsageError) as refused:
                request(session, expires_at=moment(session) + timedelta(days=days))
            assert refused.value.field == "expires_at"


def test_a_request_is_decided_once_and_not_after_its_end(database: Database) -> None:
    with database.session() as session:
        decided = exemptions.approve(session, request(session).id, SAM)
        for work in (exemptions.approve, exemptions.reject):
            with pytest.raises(ConflictError, match="the exemption is approved"):
                work(session, decided.id, TOM)
        over = request(session, subject="CVE-3")
        session.execute(exemption.update().where(exemption.c.id == over.id).values(expires_at=moment(session)))
        with pytest.raises(ConflictError, match="the exemption is expired"):
            exemptions.approve(session, over.id, SAM)
        exemptions.revoke(session, decided.id, "dora")
        with pytest.raises(ConflictError, match="the exemption is revoked"):
            exemptions.revoke(session, decided.id, "dora")
        assert not exemptions.lapse(session, decided.id, "a fix is available"), "what has ended does not lapse"


def test_a_user_of_the_same_name_is_no_second_person(database: Database) -> None:
    """A deleted account that was created again has another id."""
    with database.session() as session:
        found = request(session)
        with pytest.raises(RefusedError) as refused:
            exemptions.reject(session, found.id, Person("another id", DORA.name))
    assert refused.value.reason == "four_eyes"


def test_of_two_who_decide_at_once_one_is_told(database: Database) -> None:
    identifier = transact(database, request).id
    work = (
        lambda s: exemptions.approve(s, identifier, SAM),
        lambda s: exemptions.reject(s, identifier, TOM),
    )
    results = together(2, lambda number: transact(database, work[number]))
    (refused,) = [each for each in results if isinstance(each, Exception)]
    (won,) = [each for each in results if isinstance(each, exemptions.ExemptionView)]
    assert isinstance(refused, ConflictError)
    with database.read() as session:
        assert exemptions.get(session, identifier).state == won.state
