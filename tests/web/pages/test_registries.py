"""Registries and webhooks on pages: edited, rotated, removed; no reload repeats a form; what is refused keeps what
was typed.
"""

from __future__ import annotations

import base64
import html
import re
from urllib.parse import urlsplit

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Secret
from scanner.store import audit, deliveries, registries
from scanner.store.session import Database
from tests.web.conftest import KEY
from tests.web.pages.test_exemptions import Somebody
from tests.web.people import person
from tests.web.webhooks.test_receive import push, send
from web.webhooks import formats

HOST = "registry.example:5000"


@pytest.fixture
def admin(app: OpenAPI, database: Database) -> Somebody:
    person(database, "ada", "admin")
    return Somebody(app, "ada")


@pytest.fixture
def place(admin: Somebody) -> str:
    """The page of a registry that a form has just added."""
    answer = admin("/registries", host=HOST, username="robot", password="first-password")
    assert answer.status_code == 303
    return urlsplit(answer.headers["Location"]).path


def hooks(database: Database) -> tuple[deliveries.HookView, ...]:
    with database.read() as session:
        return deliveries.list_hooks(session, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"host": HOST}, "distribution"),
        ({"host": HOST, "harbor": "findings"}, "harbor"),
        ({"host": "ghcr.io"}, "ghcr"),
        ({"host": "docker.io"}, "dockerhub"),
        ({"host": "registry.gitlab.com"}, "gitlab"),
        ({"host": "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "username": "AWS", "password": "x"}, "ecr"),
        ({"host": "europe-docker.pkg.dev", "credentials": "gar", "machine_role": "1"}, "gar"),
    ],
)
def test_the_form_proposes_the_webhook_that_the_registry_sends(
    admin: Somebody, given: dict[str, str], expected: str
) -> None:
    seen = admin.see(urlsplit(admin("/registries", **given).headers["Location"]).path)
    selected = re.findall(r'<option value="([a-z]+)"[^>]* selected>', seen.partition('<select id="format"')[2])
    assert selected[:1] == [expected]


def test_a_role_to_assume_is_stored_shown_and_marked_if_it_is_none(admin: Somebody) -> None:
    role = "arn:aws:iam::210987654321:role/registries/pull"
    given = {"host": "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "credentials": "ecr", "machine_role": "1"}
    wrong = admin("/registries", **given, role_arn="pull")
    assert wrong.status_code == 422
    assert re.search(r'id="role_arn"[^>]* aria-invalid="true"', wrong.text)
    place = urlsplit(admin("/registries", **given, role_arn=role, external_id="team-42").headers["Location"]).path
    seen = admin.see(place)
    assert f'which assumes the role <span class="mono break">{role}</span>' in seen
    assert 'value="team-42"' in seen
    assert 'role <span class="break">registries/pull' in admin.see("/registries")


def secret_in(text: str) -> str:
    found = re.search(r"dwh_[A-Za-z0-9_-]{40,}", text)
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"host": "https://registry.example"}, "host"),
        ({"host": "registry.example", "ca_pem": "no certificate"}, "ca_pem"),
        ({"host": "registry.example", "aliases": "one two/three"}, "aliases"),
        ({"host": "registry.example", "username": "x\x01y"}, "username"),
    ],
)
def test_a_mistake_keeps_the_form_and_marks_the_field(admin: Somebody, given: dict[str, str], field: str) -> None:
    answer = admin("/registries", **{"username": "robot", "password": "typed-secret", **given})
    assert answer.status_code == 422
    assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', answer.text)
    assert answer.text.count('aria-invalid="true"') == 1
    assert given["host"] in answer.text
    assert "typed-secret" not in answer.text


def test_a_host_that_is_configured_already_comes_back_in_the_form(admin: Somebody, place: str) -> None:
    answer = admin("/registries", host=HOST)
    assert answer.status_code == 422
    assert "exists already" in answer.text
    assert f'value="{HOST}"' in answer.text


def test_credentials_are_rotated_and_never_shown(admin: Somebody, place: str, database: Database) -> None:
    identifier = place.split("/")[2]

    def stored() -> Secret | None:
        with database.read() as session:
            return registries.password(session, identifier, KEY)

    credentials = place.replace("/edit", "/credentials")
    assert admin(credentials, username="robot2", password="second-password").status_code == 303
    assert stored() == Secret("second-password")
    seen = admin.see(place)
    assert "robot2" in seen
    assert "second-password" not in seen
    assert admin(credentials, username="robot3", password="").status_code == 303  # the name alone
    assert stored() == Secret("second-password")
    assert admin(credentials, username="robot3", anonymous="1").status_code == 303
    assert stored() is None
    assert "Pulls are anonymous" in admin.see(place)


def test_credentials_of_a_cloud(admin: Somebody, database: Database) -> None:
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    key = {"credentials": "ecr", "username": "AKIDEXAMPLE00000", "password": "the-secret-key"}
    answer = admin("/registries", host=host, **{**key, "username": "wrong"})
    assert answer.status_code == 422
    assert re.search(r'name="username"[^>]*value="wrong"[^>]*aria-invalid="true"', answer.text)
    assert re.search(r'<option value="ecr" selected>Amazon ECR', answer.text)
    page = urlsplit(admin("/registries", host=host, **key).headers["Location"]).path
    seen = admin.see(page)
    assert "Pulls use a token of Amazon ECR, obtained with the stored secret" in seen
    assert "the-secret-key" not in seen
    credentials = page.replace("/edit", "/credentials")
    assert admin(page, aliases="a.example").status_code == 303  # the connection's form leaves the credentials
    assert admin(credentials, credentials="ecr", username=key["username"], password="").status_code == 303
    refused = admin(page, insecure="1")
    assert (refused.status_code, "uses TLS only" in refused.text) == (422, True)
    assert admin(credentials, credentials="ecr", machine_role="1").status_code == 303
    assert "the identity of the workers&#39; machine" in admin.see(page)
    assert "machine's identity" in html.unescape(admin.see("/registries"))
    with database.read() as session:
        found = registries.find(session, host)
    assert found is not None
    assert (found.machine_role, found.username, found.has_password) == (True, "", False)
    wrong = admin(credentials, credentials="gar", machine_role="1")
    assert re.search(r'name="credentials"[^>]*aria-invalid="true"', wrong.text)
    assert admin(credentials, anonymous="1").status_code == 303
    assert "Pulls are anonymous" in admin.see(page)


def test_a_token_service_is_named_with_the_password(admin: Somebody, place: str) -> None:
    credentials = place.replace("/edit", "/credentials")
    given = {"username": "robot", "token_service": "gitlab.example.com"}
    answer = admin(credentials, **given)
    assert answer.status_code == 422
    assert re.search(r'name="token_service"[^>]*value="gitlab.example.com"[^>]*aria-invalid="true"', answer.text)
    assert admin(credentials, **given, password="third-password").status_code == 303
    assert 'value="gitlab.example.com"' in admin.see(place)


def test_the_connection_is_edited_and_a_mistake_keeps_what_was_typed(admin: Somebody, place: str) -> None:
    assert admin(place, aliases="localhost:5000\nregistry:5000", insecure="1").status_code == 303
    assert "localhost:5000" in admin.see(place)
    answer = admin(place, aliases="kept.example:1", ca_pem="not a certificate")
    assert answer.status_code == 422
    assert "kept.example:1" in answer.text
    assert re.search(r'name="ca_pem"[^>]*aria-invalid="true"', answer.text)
    body = base64.b64encode(b"0" * 60).decode()
    pasted = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
    answer = admin(place, aliases="kept.example:1", ca_pem=pasted)
    assert (answer.status_code, "private key" in answer.text) == (422, True)
    assert body not in answer.text, "a private key is not shown again"
    with_both = admin.see(place)
    assert "registry:5000" in with_both
    assert "robot" in with_both  # the connection's form leaves the credentials


def test_a_secret_is_shown_once_and_a_reload_makes_no_second_webhook(
    admin: Somebody, place: str, database: Database
) -> None:
    answer = admin(place.replace("/edit", "/webhook"), format="distribution")
    assert answer.status_code == 303
    assert "dwh_" not in answer.text
    assert "dwh_" not in answer.headers["Set-Cookie"]
    first = admin.see(place)
    assert "This is shown once" in first
    assert secret_in(first)
    assert "notifications:" in first
    assert "dwh_" not in admin.see(place)
    assert len(hooks(database)) == 1


@pytest.mark.parametrize("format_", list(formats()))
def test_each_format_has_a_snippet_to_copy_and_waits_for_its_first_event(
    admin: Somebody, place: str, format_: str
) -> None:
    form = formats()[format_]
    answer = admin(place.replace("/edit", "/webhook"), format=format_, sender=form.sender_example)
    assert answer.status_code == 303
    seen = admin.see(place)
    secret = secret_in(seen)
    shown = re.search(r'id="snippet"[^>]*>(.*?)</pre>', seen, re.DOTALL)
    assert shown is not None
    address = f"http://localhost/webhooks/{format_}"
    assert html.unescape(shown[1]) == form.configured(address, form.header, secret, form.sender_example)
    assert form.address(address, secret) in shown[1]
    assert secret in shown[1]
    assert 'data-copy="snippet"' in seen
    assert "Waiting for the first event…" in seen


def test_waiting_turns_to_received(admin: Somebody, app: OpenAPI, place: str, database: Database) -> None:
    admin(place.replace("/edit", "/webhook"), format="distribution")
    secret = secret_in(admin.see(place))
    (hook,) = hooks(database)
    part = f"{place.replace('/edit', '')}/webhooks/{hook.id}/received"
    assert "every 2s" in admin.see(part)
    assert send(app, push(HOST), secret).status_code == 202
    seen = admin.see(part)
    assert "Received" in seen
    assert re.search(r"just now|\d+ seconds? ago", seen)
    assert "every 2s" not in seen
    assert "Waiting" not in admin.see(place)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"format": "gar"}, "sender"),
        ({"format": "gar", "sender": "not an address"}, "sender"),
        ({"format": "ecr", "sender": "arn:aws:s3:eu-west-1:123456789012:x"}, "sender"),
        ({"format": "harbor", "sender": "somebody@example.com"}, "sender"),
        ({"format": "quay", "header": "X-Secret"}, "header"),
        ({"format": "ghcr", "header": "X-Secret"}, "header"),
    ],
)
def test_what_a_format_cannot_check_is_refused(
    admin: Somebody, place: str, database: Database, given: dict[str, str], field: str
) -> None:
    answer = admin(place.replace("/edit", "/webhook"), **given)
    assert answer.status_code == 422
    assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', answer.text)
    assert hooks(database) == ()


def test_the_secret_of_another_session_opens_nothing(admin: Somebody, app: OpenAPI, place: str) -> None:
    answer = admin(place.replace("/edit", "/webhook"), format="distribution")
    name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
    other = Somebody(app, "ada")
    other.client.set_cookie(name, value)
    assert "dwh_" not in other.see(place)


def test_two_secrets_are_valid_while_one_is_rotated(
    admin: Somebody, app: OpenAPI, place: str, database: Database
) -> None:
    admin(place.replace("/edit", "/webhook"), format="distribution")
    old = secret_in(admin.see(place))
    (hook,) = hooks(database)
    act = f"{place.replace('/edit', '')}/webhooks/{hook.id}"
    assert admin(f"{act}/rotate").status_code == 303
    new = secret_in(admin.see(place))
    assert new != old
    assert "Finish rotation" in admin.see(place)
    assert [send(app, push(HOST), secret).status_code for secret in (old, new)] == [202, 202]
    refused = admin(f"{act}/rotate")  # the registry's own secret must not be pushed out
    assert refused.status_code == 422
    assert "finish the rotation first" in refused.text
    assert admin(f"{act}/finish").status_code == 303
    assert [send(app, push(HOST), secret).status_code for secret in (old, new)] == [401, 202]


def test_a_rotation_is_taken_back(admin: Somebody, app: OpenAPI, place: str, database: Database) -> None:
    admin(place.replace("/edit", "/webhook"), format="distribution")
    old = secret_in(admin.see(place))
    act = f"{place.replace('/edit', '')}/webhooks/{hooks(database)[0].id}"
    admin(f"{act}/rotate")
    new = secret_in(admin.see(place))
    assert admin(f"{act}/take-back").status_code == 303
    assert [send(app, push(HOST), secret).status_code for secret in (old, new)] == [202, 401]
    assert admin(f"{act}/take-back").status_code == 422


def test_a_registry_goes_after_its_webhooks(admin: Somebody, app: OpenAPI, place: str, database: Database) -> None:
    admin(place.replace("/edit", "/webhook"), format="distribution")
    secret = secret_in(admin.see(place))
    assert send(app, push(HOST), secret).status_code == 202
    act = f"{place.replace('/edit', '')}/webhooks/{hooks(database)[0].id}"
    remove = place.replace("/edit", "/remove")
    assert "this registry has webhooks" in admin(remove).text
    assert admin(f"{act}/disable").status_code == 303
    assert send(app, push(HOST), secret).status_code == 401
    assert admin(f"{act}/enable").status_code == 303
    assert admin(f"{act}/remove").status_code == 303
    assert hooks(database) == ()
    assert admin(remove).status_code == 303
    assert HOST not in admin.see("/registries").partition("Latest events")[0]
    with database.read() as session:
        actions = [
            entry.action for entry in audit.list_entries(session).items if entry.action.startswith(("reg", "webhook"))
        ]
    assert actions == [
        "registry.remove",
        "webhook.remove",
        "webhook.enable",
        "webhook.disable",
        "webhook.create",
        "registry.create",
    ]


def test_another_registrys_webhook_is_not_reached_through_this_one(
    admin: Somebody, place: str, database: Database
) -> None:
    admin(place.replace("/edit", "/webhook"), format="distribution")
    other = urlsplit(admin("/registries", host="other.example").headers["Location"]).path
    act = f"{other.replace('/edit', '')}/webhooks/{hooks(database)[0].id}/remove"
    assert admin(act).status_code == 404
    assert len(hooks(database)) == 1


def test_an_unknown_format_and_an_impossible_header_come_back(admin: Somebody, place: str) -> None:
    for given, field in (
        ({"format": "carrier-pigeon"}, "format"),
        ({"format": "distribution", "header": "a b"}, "header"),
    ):
        answer = admin(place.replace("/edit", "/webhook"), **given)
        assert answer.status_code == 422
        assert re.search(rf'name="{field}"[^>]*aria-invalid="true"', answer.text)
