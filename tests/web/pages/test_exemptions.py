"""Asking, deciding and ending on pages: nobody decides about their own, and nothing typed is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.store import exemptions
from scanner.store.session import Database
from tests.web.pages.test_policies import Form
from tests.web.people import PASSWORD, person

ASKED = {
    "project": "shop",
    "images": "registry.example.com/shop/cart",
    "subject": "CVE-2026-1",
    "rule": "",
    "purl": "",
    "justification": "The flaw is in a command that we never call.",
}


class Somebody(Form):
    """A person who has signed in with a password."""

    def __init__(self, app: OpenAPI, name: str) -> None:
        self.client = app.test_client()
        self.headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        answer = self.client.post("/sign-in", data={"name": name, "password": PASSWORD}, headers=self.headers)
        assert answer.status_code == 303
        page = self.client.get("/exemptions", headers=self.headers).text
        self.csrf = page.partition('name="csrf_token" value="')[2].partition('"')[0]

    def see(self, path: str) -> str:
        return self.client.get(path, headers=self.headers).text


@pytest.fixture
def people(app: OpenAPI, database: Database) -> dict[str, Somebody]:
    for name, role in (("dora", "developer"), ("sam", "security"), ("sue", "security"), ("eve", "developer")):
        person(database, name, role, member_of=[{"eve": "other"}.get(name, "shop")])
    return {name: Somebody(app, name) for name in ("dora", "sam", "sue", "eve")}


def ask(who: Somebody, **changes: str) -> str:
    until = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
    answer = who("/exemptions", **{**ASKED, "until": until, **changes})
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"]


def test_a_second_person_decides(people: dict[str, Somebody]) -> None:
    place = ask(people["dora"])
    assert "Another person must decide" not in people["sam"].see(place)
    assert "Approve" in people["sam"].see(place)
    assert people["dora"](f"{place}/approve").status_code == 403
    assert people["sam"](f"{place}/approve", note="Until the next release.").status_code == 303
    seen = people["dora"].see(place)
    assert "Approved" in seen
    assert "Until the next release." in seen
    assert people["dora"](f"{place}/revoke").status_code == 303
    assert "Revoked" in people["dora"].see(place)


def test_nobody_decides_about_their_own(people: dict[str, Somebody]) -> None:
    place = ask(people["sam"])
    assert "You cannot approve your own request" in people["sam"].see(place)
    assert people["sam"](f"{place}/approve").status_code == 403
    assert people["sue"](f"{place}/reject", note="No.").status_code == 303
    assert "Rejected" in people["sam"].see(place)


def test_another_project_is_not_there(people: dict[str, Somebody]) -> None:
    place = ask(people["dora"])
    answer = people["eve"].client.get(place, headers=people["eve"].headers)
    assert answer.status_code == 404
    assert "CVE-2026-1" not in answer.text
    assert "CVE-2026-1" not in people["eve"].see("/exemptions")
    assert "there is no such project" in people["eve"]("/exemptions", **{**ASKED, "until": "2026-12-30"}).text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"justification": "short"}, "justification"),
        ({"subject": ""}, "a rule or a subject is required"),
        ({"until": "2020-01-01"}, "within a year"),
        ({"until": "someday"}, "is not a date"),
        ({"images": "../../etc"}, "images"),
    ],
)
def test_what_is_refused_comes_back(people: dict[str, Somebody], changes: dict[str, str], message: str) -> None:
    answer = people["dora"]("/exemptions", **{**ASKED, "until": "2027-01-01", **changes})
    assert answer.status_code == 422
    assert message in answer.text
    assert changes.get("justification", ASKED["justification"]) in answer.text


def test_the_list_and_its_states(people: dict[str, Somebody], database: Database) -> None:
    place = ask(people["dora"])
    assert "Requested" in people["sam"].see("/exemptions?state=requested")
    assert "No approved exemptions" in people["sam"].see("/exemptions?state=approved")
    people["sam"](f"{place}/approve")
    (row,) = people["sam"].client.get("/exemptions?format=json", headers=people["sam"].headers).get_json()
    assert (row["state"], row["decided_by"]) == ("approved", "sam")
    with database.read() as session:
        assert exemptions.counts(session, None)["approved"] == 1
    assert "1 request waits" not in people["sam"].see("/overview")


def test_the_form_is_filled_from_the_address(people: dict[str, Somebody]) -> None:
    seen = people["dora"].see("/exemptions/new?subject=CVE-2026-9&images=r.example.com/a&project=shop&rule=<x>")
    assert 'value="CVE-2026-9"' in seen
    assert "r.example.com/a</textarea>" in seen
    assert "&lt;x&gt;" in seen


def test_a_refused_note_comes_back_as_typed(people: dict[str, Somebody]) -> None:
    place = ask(people["dora"])
    for action in ("approve", "reject"):
        page = people["sam"](f"{place}/{action}", note="Until \x07 the next release.")
        assert page.status_code == 422
        assert 'id="problems"' in page.text
        assert 'aria-invalid="true" aria-describedby="problems">Until \x07 the next release.</textarea>' in page.text
    assert people["sam"](f"{place}/approve", note="x" * 2001).status_code == 422


def test_a_line_break_is_one_character(people: dict[str, Somebody]) -> None:
    """The field lets a person type 2000 characters, and a browser sends each of its line breaks as two."""
    lines = "\r\n".join(["x" * 99] * 20)
    place = ask(people["dora"], justification=lines)
    assert people["sam"](f"{place}/approve", note=lines).status_code == 303


def test_a_decision_that_came_too_late_shows_the_other(people: dict[str, Somebody]) -> None:
    place = ask(people["dora"])
    assert people["sam"](f"{place}/approve").status_code == 303
    late = people["sue"](f"{place}/reject", note="No.")
    assert late.status_code == 409
    assert "Approved by" in late.text
