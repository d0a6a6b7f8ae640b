"""The pages in a real Chromium: a person's way from signing in to a decision, without a violation of the CSP or of
accessibility.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.conftest import ARTEFACTS
from tests.servers import Dockwarden, Registry
from tests.web.pages.test_journeys import write

WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
PAGES = (
    "/overview",
    "/images",
    "/vulnerabilities",
    "/packages",
    "/packages?q=lib",
    "/scans",
    "/policies",
    "/registries",
    "/events",
    "/audit-log",
    "/enforcement",
    "/exemptions",
    "/exemptions/new",
    "/policies/new",
    "/advisories",
    "/settings",
    "/settings/people",
    "/settings/projects",
    "/settings/tokens",
    "/account",
)


@pytest.fixture(scope="module")
def decided(server: Dockwarden, plain_registry: Registry, sample_layouts: Path) -> str:
    """The server with sample images in it. Returns the digest of the denied one."""
    server.api("POST", "/api/v1/registries", json={"host": plain_registry.host, "insecure": True})
    digest = ""
    for name, tag in (("good", "1.4.2"), ("vulnerable", "1.4.1"), ("mystery", "0.1")):
        plain_registry.push(f"oci:{sample_layouts / 'shop' / name}:{tag}", f"shop/{name}:{tag}")
        answer = server.api(
            "POST", "/api/v1/gate", json={"image": f"{plain_registry.host}/shop/{name}:{tag}", "wait_seconds": 60}
        )
        assert answer.status_code == 200, answer.text
        digest = answer.json()["digest"] if name == "vulnerable" else digest
    return digest


@pytest.fixture(params=["light", "dark"])
def person(browser: Any, server: Dockwarden, decided: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Somebody who has signed in; whatever the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if complains(message) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    sign_in(page, server)
    yield page
    context.close()
    assert complaints == []


def complains(message: Any) -> bool:
    """Errors and warnings, but for the browser's note that a page was an answer of status 4xx, which some tests ask
    for.
    """
    return message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text


def sign_in(page: Any, server: Dockwarden) -> None:
    page.goto(server.url + "/")
    page.get_by_label("API token").fill(server.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/overview")


def open_images(person: Any) -> None:
    person.get_by_role("navigation", name="Main").get_by_role("link", name="Images").click()


def test_from_signing_in_to_the_reason(person: Any) -> None:
    open_images(person)
    person.get_by_role("link", name="shop/vulnerable:1.4.1").first.click()
    person.get_by_role("heading", name="Why").wait_for()
    assert person.get_by_text("Denied", exact=True).first.is_visible()
    assert "CVE-2026-90001" in person.get_by_role("listitem").filter(has_text="fixable-criticals").first.inner_text()
    person.get_by_role("link", name="CVE-2026-90001").first.click()
    person.get_by_role("heading", name="Affected images", exact=True).wait_for()
    assert person.get_by_role("link", name="shop/vulnerable:1.4.1").first.is_visible()


def test_who_has_a_package_takes_two_clicks_and_a_name(person: Any) -> None:
    person.get_by_role("navigation", name="Main").get_by_role("link", name="Packages").click()
    person.get_by_label("Package name or purl").fill("libssl")
    person.get_by_role("link", name="shop/vulnerable:1.4.1").first.click()
    person.get_by_role("heading", name="Why").wait_for()


def test_the_list_is_searched_as_one_types(person: Any) -> None:
    open_images(person)
    person.get_by_label("Search repository, tag or digest").fill("mystery")
    person.get_by_role("link", name="shop/good:1.4.2").wait_for(state="detached")
    assert person.get_by_role("link", name="shop/mystery:0.1").is_visible()
    assert "q=mystery" in person.url
    person.get_by_label("Search repository, tag or digest").fill("nothing of the kind")
    person.get_by_role("heading", name="No matching image").wait_for()


def test_what_is_typed_before_the_scripts_are_there_is_searched_too(person: Any) -> None:
    late: list[Any] = []
    person.route("**/htmx.min.js*", lambda route: late.append(route))
    open_images(person)
    person.get_by_label("Search repository, tag or digest").fill("mystery")
    for script in late:
        script.continue_()
    person.get_by_role("link", name="shop/good:1.4.2").wait_for(state="detached")
    assert late
    assert "q=mystery" in person.url
    person.unroute_all()


def test_asking_for_a_scan_shows_how_it_goes(person: Any, plain_registry: Registry) -> None:
    open_images(person)
    person.get_by_label("Scan an image").fill(f"{plain_registry.host}/shop/good:1.4.2")
    person.get_by_role("button", name="Scan now").click()
    person.get_by_role("link", name="Show the image").wait_for(timeout=30_000)


def test_a_typing_error_is_told_in_words(person: Any) -> None:
    open_images(person)
    person.get_by_label("Scan an image").fill("Not An Image!")
    person.get_by_role("button", name="Scan now").click()
    field = person.get_by_label("Scan an image")
    expect(field).to_be_focused()
    expect(field).to_have_value("Not An Image!")
    assert "not an image reference" in person.locator(".wrong-field").inner_text()


def test_somebody_chooses_how_it_looks(person: Any) -> None:
    for theme in ("Dark", "Light", "System"):
        person.locator("summary", has_text="token").click()
        person.get_by_role("button", name=theme).click()
        person.wait_for_url("**/overview*")
        wanted = None if theme == "System" else theme.lower()
        assert person.locator("html").get_attribute("data-theme") == wanted


@pytest.mark.parametrize("size", WIDTHS)
def test_every_page_is_accessible_and_fits(person: Any, server: Dockwarden, decided: str, size: str) -> None:
    width, height = WIDTHS[size]
    person.set_viewport_size({"width": width, "height": height})
    tabs = [f"/images/{decided}?tab={tab}" for tab in ("vulnerabilities", "checks", "components", "layers", "history")]
    registry = server.api("GET", "/api/v1/registries").json()["items"][0]["id"]
    for path in (*PAGES, *tabs, f"/registries/{registry}"):
        person.goto(server.url + path)
        name = path.strip("/").replace(decided, "one").replace(registry, "one").replace("?tab=", "-").replace("/", "-")
        theme = person.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
        person.screenshot(path=str(ARTEFACTS / f"{name}-{size}-{theme}.png"), full_page=True)
        assert person.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the screen"
        found = axe(person)
        assert found == [], f"{path}: {found}"


def axe(page: Any) -> list[str]:
    """What axe-core finds against the page, as its rules and places."""
    cdp = page.context.new_cdp_session(page)
    # The page's own policy allows no foreign script: axe runs in an isolated world of the debugger.
    frame = cdp.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = cdp.send("Page.createIsolatedWorld", {"frameId": frame})["executionContextId"]
    source = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    cdp.send("Runtime.evaluate", {"expression": source, "contextId": world})
    answer = cdp.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run().then(r => JSON.stringify(r.violations))",
            "contextId": world,
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    return [f"{v['id']} at {[n['target'] for n in v['nodes']][:3]}" for v in json.loads(answer["result"]["value"])]


def test_a_policy_is_written_tried_and_changed(person: Any, server: Dockwarden) -> None:
    name = "written-" + person.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    person.goto(server.url + "/policies/new")
    field = person.locator("#text")  # what the form sends; the editor stands in its place
    start = field.input_value().replace("name: production", f"name: {name}")
    write(person, start.replace("check: root-user", "chek: root-user"))
    person.get_by_role("button", name="Line 25, column 5").click()
    assert person.locator(".cm-activeLine").inner_text().strip() == "chek: root-user"
    person.get_by_role("button", name="Save and enable").click()
    assert "chek: root-user" in field.input_value()  # nothing typed is lost
    strict = start.replace("[production]", "[nowhere]").replace("72h", "0h")
    write(person, strict.replace("root-user", "healthcheck"))
    person.get_by_text("The policy is valid").wait_for()
    person.get_by_role("button", name="Dry run").click()
    person.get_by_role("heading", name=f"Dry run of {name}").wait_for()
    assert axe(person) == []
    person.get_by_role("button", name="Save and enable").click()
    person.get_by_role("heading", name=f"Save {name}?").wait_for()  # images are newly denied
    person.get_by_role("button", name="Save anyway").click()
    person.get_by_role("heading", name="Current text").wait_for()
    person.get_by_role("link", name="Edit").click()
    write(person, strict)
    person.get_by_role("button", name="Save and enable").click()
    changed = person.get_by_role("heading", name="Changes from version 1 to version 2")
    anyway = person.get_by_role("button", name="Save anyway")
    changed.or_(anyway).first.wait_for()
    if anyway.is_visible():  # other tests' images on this server may be newly denied
        anyway.click()
    changed.wait_for()
    assert "check: healthcheck" in person.locator(".diff .removed").inner_text()
    assert axe(person) == []
    person.get_by_role("button", name="Disable").click()
    person.get_by_role("button", name="Enable").wait_for()


def test_what_is_not_to_be_believed(person: Any, server: Dockwarden) -> None:
    person.goto(server.url + "/advisories")
    assert "Vulnerabilities (Trivy)" in person.inner_text("main")
    person.get_by_label("Engine", exact=True).fill("trivy")
    person.get_by_label("Engine version").fill("9.9.9")
    person.get_by_label("Reason").fill("a build that nobody made")
    person.get_by_role("button", name="Revoke").click()
    row = person.get_by_role("row").filter(has_text="trivy 9.9.9").filter(has_text="Lift revocation")
    assert "a build that nobody made" in row.first.inner_text()
    row.first.get_by_role("button", name="Lift revocation").click()
    assert "revocation lifted" in person.get_by_role("row").filter(has_text="trivy 9.9.9").first.inner_text()
    person.get_by_role("button", name="Re-match all images").click()
    assert "Re-match of all images" in person.inner_text("main")


def test_a_form_survives_the_end_of_its_session(person: Any, server: Dockwarden) -> None:
    person.goto(server.url + "/images?q=shop")
    person.get_by_label("Save these filters as").fill("kept")
    person.context.clear_cookies()
    person.get_by_role("button", name="Save view").click()
    person.get_by_role("heading", name="Your session has ended").wait_for()
    assert axe(person) == []
    with person.context.expect_page() as opened:
        person.get_by_role("link", name="Sign in in a new tab").click()
    sign_in(opened.value, server)
    opened.value.close()
    person.get_by_role("button", name="Submit again").click()
    person.wait_for_url("**/images?q=shop")
    person.get_by_role("link", name="kept", exact=True).wait_for()
    person.get_by_role("button", name="Delete view kept").click()


def test_a_form_that_is_too_large_is_not_sent(person: Any, server: Dockwarden) -> None:
    """The server would refuse it unread, and what was typed would be lost."""
    person.goto(server.url + "/trust")
    person.get_by_label("Name").first.fill("large")
    person.locator("#document").evaluate("field => { field.value = 'x'.repeat(1100000) }")
    person.get_by_role("button", name="Add trust root").click()
    person.get_by_text("Nothing was sent. Shorten the longest text").wait_for()
    assert axe(person) == []
    assert len(person.locator("#document").input_value()) == 1100000
    person.locator("#document").fill("no key at all")
    person.get_by_role("button", name="Add trust root").click()
    person.locator("#problems").wait_for()
    assert person.locator("#document").input_value() == "no key at all"


def test_nobody_sees_anything_without_signing_in(server: Dockwarden, decided: str) -> None:
    for path in (
        "/images",
        f"/images/{decided}",
        "/scans",
        "/policies",
        "/registries",
        "/vulnerabilities/CVE-2026-90001",
    ):
        answer = httpx.get(server.url + path, headers={"Accept": "text/html"}, trust_env=False)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/sign-in"), path


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "//[",
        "/\\evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "\\\\evil.example",
    ],
)
def test_signing_in_leads_nowhere_else(server: Dockwarden, target: str) -> None:
    answer = httpx.post(
        server.url + "/sign-in",
        data={"token": server.token, "next": target},
        headers={"Sec-Fetch-Site": "same-origin"},
        trust_env=False,
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == "/overview"


def test_a_wrong_token_is_refused_in_words(server: Dockwarden) -> None:
    answer = httpx.post(
        server.url + "/sign-in", data={"token": "dw_wrong"}, headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False
    )
    assert answer.status_code == 401
    assert "the token is not valid" in answer.text


def test_a_form_without_its_token_changes_nothing(server: Dockwarden) -> None:
    with httpx.Client(
        base_url=server.url, trust_env=False, headers={"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    ) as client:
        client.post("/sign-in", data={"token": server.token})
        answer = client.post("/registries", data={"host": "forged.example"})
        assert answer.status_code == 403
        assert "forged.example" not in client.get("/registries").text
