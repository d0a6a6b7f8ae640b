"""The ways that people go, in a real Chromium, at both widths: each ends with what they came for.

Pictures are kept as artefacts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner.config import Secret
from scanner.model.scan import ScanRequest
from scanner.services import dry_runs, inventory
from scanner.store import jobs, registries, scans
from scanner.store.session import Database
from tests.actors import ownerless
from tests.conftest import ARTEFACTS
from tests.reports_factory import engine, image_report, report, simple, vulnerability
from tests.scanner.workloads import sins
from tests.servers import Dockwarden, Registry, free_port, wait_for
from tests.web.conftest import KEY, Worker
from tests.web.people import PASSWORD, person

CRITICAL = "CVE-2026-4242"
IMAGE = "registry.example.com/shop/cart:1"
POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: shop}
rules:
  - {id: flaws, vulnerability: {severity: [critical]}, action: %s}
"""
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}


@dataclass
class Browsers:
    """A browser for each person, of one width. Whatever the browsers complain of is kept."""

    browser: Any
    address: str
    width: str
    complaints: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def sign_in(self, name: str) -> Any:
        size = dict(zip(("width", "height"), WIDTHS[self.width], strict=True))
        context = self.browser.new_context(viewport=size)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.address + "/")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/overview")
        return page

    def keep(self, page: Any, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        page.wait_for_load_state()  # text can be there before the style sheet
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        page.screenshot(path=str(ARTEFACTS / f"journey-{name}-{self.width}.png"), full_page=True)


class Clicks:
    """A person who only clicks and types: counts the clicks. An address is typed at the beginning alone."""

    def __init__(self, page: Any) -> None:
        self.page, self.count = page, 0

    def on(self, role: Any, name: str, *, within: Any = None, exact: bool = True) -> None:
        self.count += 1
        (within or self.page).get_by_role(role, name=name, exact=exact).first.click()


@pytest.fixture(params=WIDTHS)
def browsers(
    browser: Any, address: str, database: Database, worker: Worker, request: pytest.FixtureRequest
) -> Iterator[Browsers]:
    for name, role in (("dora", "developer"), ("sam", "security")):
        person(database, name, role, member_of=["default"])
    with database.session() as session:
        scans.request(session, ScanRequest(IMAGE, source="webhook:distribution"))
    worker.finish(simple(vulnerability(CRITICAL, "openssl")))
    made = Browsers(browser, address, request.param)
    yield made
    for context in made.contexts:
        context.close()
    assert made.complaints == []


def test_triage_of_a_new_critical(browsers: Browsers) -> None:
    page = browsers.sign_in("sam")
    page.get_by_role("region", name="New critical and high vulnerabilities").get_by_role("link", name=CRITICAL).click()
    page.get_by_role("heading", name="Affected images by project").wait_for()
    browsers.keep(page, "triage")
    page.get_by_role("link", name="shop/cart").click()
    page.get_by_role("heading", name="What to do").wait_for()
    assert page.get_by_text("openssl to 2.0").first.is_visible() or page.get_by_text("openssl").first.is_visible()


def test_an_exemption_is_asked_for_and_approved(browsers: Browsers) -> None:
    dora = browsers.sign_in("dora")
    dora.goto(browsers.address + "/images?verdict=deny")
    dora.get_by_role("link", name="shop/cart").click()
    dora.get_by_role("link", name="Request exemption").first.click()
    assert dora.get_by_label("Vulnerability or check").input_value() == CRITICAL
    dora.get_by_label("Justification").fill("The flaw is in a command that we never call.")
    dora.get_by_role("button", name="Request exemption").click()
    dora.get_by_text("Another person must decide").wait_for()
    browsers.keep(dora, "exemption")
    sam = browsers.sign_in("sam")
    sam.get_by_role("link", name="1 request to review").click()
    sam.get_by_role("link", name=CRITICAL).click()
    sam.get_by_role("button", name="Approve").click()
    sam.get_by_text("Approved by").wait_for()
    browsers.keep(sam, "exemption-approved")


def write(page: Any, text: str) -> None:
    """Replace the editor's text."""
    page.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(text)


def finish_dry_run(database: Database) -> None:
    with database.session() as session:
        job = jobs.claim(session, "test-worker", {jobs.DRY_RUN: None}, 600)
    assert job
    dry_runs.Examination(database, job).run()


def test_a_policy_is_changed_after_a_dry_run(browsers: Browsers, database: Database) -> None:
    page = browsers.sign_in("sam")
    page.goto(browsers.address + "/policies/new")
    page.locator(".cm-content").wait_for()
    write(page, POLICY % "warn")
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("It starts when a worker is free").wait_for()
    finish_dry_run(database)
    page.get_by_text("1 of 1").wait_for()
    page.get_by_role("columnheader", name="Newly allowed").wait_for()
    browsers.keep(page, "dry-run")
    page.get_by_role("button", name="Save and enable").click()
    page.get_by_role("heading", name="Current text").wait_for()
    page.get_by_role("link", name="Edit").click()
    page.locator(".cm-content").wait_for()
    write(page, POLICY % "deny")
    page.get_by_role("button", name="Save and enable").click()
    page.get_by_role("heading", name="Save shop?").wait_for()
    finish_dry_run(database)
    page.get_by_role("columnheader", name="Newly denied").wait_for()
    browsers.keep(page, "save-question")
    page.get_by_role("button", name="Save anyway").click()
    page.get_by_role("heading", name="Changes from version 1 to version 2").wait_for()


def test_the_editor_completes_explains_and_marks(browsers: Browsers) -> None:
    page = browsers.sign_in("sam")
    page.goto(browsers.address + "/policies/new?start=signed-only")
    page.locator(".cm-content").click()
    page.keyboard.press("Control+End")
    # Inserted, not typed: on a loaded machine the text may not be parsed yet, and then Enter does not indent.
    page.keyboard.insert_text("- id: more\n  ")
    page.keyboard.type("che")
    page.locator(".cm-tooltip-autocomplete").get_by_text("check", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.type("ck: root-us")
    page.locator(".cm-tooltip-autocomplete").get_by_text("root-user", exact=True).wait_for()
    browsers.keep(page, "editor-completion")
    page.keyboard.press("Escape")
    page.locator(".cm-lint-marker-error").first.wait_for()
    page.locator("#problems").get_by_role("button").first.wait_for()
    page.locator(".cm-line").get_by_text("max_age").hover()
    page.locator(".cm-help").wait_for()


def test_who_is_affected(browsers: Browsers) -> None:
    page = browsers.sign_in("dora")
    page.goto(browsers.address + "/vulnerabilities")
    page.keyboard.press("/")
    page.keyboard.type("2026-4242")
    page.wait_for_url("**q=2026-4242*")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name=CRITICAL).click()
    page.get_by_role("link", name="shop/cart:1").wait_for()
    assert [url for url in asked if "q=" in url] == [], "a list that is replaced during a click loses the click"
    browsers.keep(page, "affected")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert "shop/cart" in download.value.path().read_text()


def test_a_newcomer_connects_a_registry(
    browser: Any, server: Dockwarden, sample_layouts: Path, tmp_path: Path, httpserver: HTTPServer
) -> None:
    """From an empty registry to the first message: every value comes from the pages, as a newcomer would copy it."""
    messages: list[str] = []

    def receive(request: Request) -> Response:
        messages.append(request.get_data(as_text=True))
        return Response("ok")

    httpserver.expect_request("/hooks/team").respond_with_handler(receive)
    own = Registry(tmp_path / "registry", port=free_port())
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = Browsers(browser, server.url, "wide", contexts=[context])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    with ExitStack() as stack:
        stack.callback(context.close)
        page.goto(server.url + "/")
        page.get_by_label("API token").fill(server.token)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/overview")
        # Where the message will go.
        page.goto(server.url + "/notifications/channels/new?format=mattermost")
        page.get_by_label("Name", exact=True).fill("team chat")
        page.get_by_label("Webhook URL").fill(httpserver.url_for("/hooks/team"))
        page.get_by_role("button", name="Add channel").click()
        page.get_by_role("link", name="Subscribe this channel").click()
        page.get_by_label("An image is denied, or no longer denied").check()
        page.get_by_label("Minutes to collect events with the same cause").fill("0")
        page.get_by_role("button", name="Subscribe", exact=True).click()
        page.get_by_text("team chat").first.wait_for()
        # The registry, and its webhook.
        page.goto(server.url + "/registries")
        page.get_by_label("Host", exact=True).fill(own.host)
        page.get_by_label("Use plain HTTP without TLS").check()
        page.get_by_role("button", name="Add registry").click()
        page.goto(server.url + "/registries")
        row = page.get_by_role("row").filter(has_text=own.host).first
        row.get_by_role("link", name="Edit").click()
        page.get_by_role("button", name="Add webhook").click()
        snippet = page.get_by_label("Configuration").inner_text()
        page.get_by_text("Waiting for the first event").first.wait_for()
        made.keep(page, "newcomer-snippet")
        (endpoint,) = yaml.safe_load(snippet)["notifications"]["endpoints"]
        own.notifications = [{"url": endpoint["url"], "authorization": endpoint["headers"]["Authorization"][0]}]
        own.start()
        stack.callback(own.stop)
        own.push(f"oci:{sample_layouts / 'shop/vulnerable'}:1.4.1", "newcomer/vulnerable:1")
        page.get_by_role("status").get_by_text("Received").first.wait_for()
        # The verdict, and the message about it.
        wait_for(lambda: any("newcomer/vulnerable" in text for text in messages), "the chat", server.home / "log", 60)
        page.goto(f"{server.url}/images?q={own.host}")
        page.get_by_role("link").filter(has_text="newcomer/vulnerable").first.click()
        page.get_by_text("Denied").first.wait_for()
        made.keep(page, "newcomer-verdict")
    assert made.complaints == []


def test_from_a_new_critical_to_the_corrected_yaml(browsers: Browsers, database: Database) -> None:
    manifest = "\n".join(
        line.partition("image: ")[0] + f"image: {IMAGE}" if "image: " in line else line
        for line in sins.KUBERNETES_BAD.splitlines()
    )
    documents = inventory.parse("kubernetes", [("cart.yaml", manifest)])
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster-1", 1, documents)
    inventory.report(database, ownerless("agent", "inventory"), snapshot, "trivy")
    page = browsers.sign_in("sam")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("region", name="New critical and high vulnerabilities").get_by_role("link", name=CRITICAL).click()
    page.get_by_text("1 of 1 affected image runs in production").wait_for()  # who runs it stands first
    browsers.keep(page, "who-runs-it")
    page.get_by_role("table", name="Running workloads with it").get_by_role("link", name="web").click()
    page.get_by_role("heading", name="How it is run").wait_for()
    row = page.get_by_role("row").filter(has_text="readOnlyRootFilesystem").first
    assert "cart.yaml:" in row.inner_text()
    row.get_by_role("button", name="Copy").click()
    row.get_by_text("Copied").wait_for()
    browsers.keep(page, "corrected-yaml")
    corrected = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
    assert "readOnlyRootFilesystem" in str(corrected)


def test_any_image_is_compared_with_three_clicks(browsers: Browsers, database: Database, worker: Worker) -> None:
    other = "registry.example.com/payments/ledger:7"
    with database.session() as session:
        scans.request(session, ScanRequest(other, source="webhook:distribution"))
    worker.finish(report(image_report([engine([vulnerability("CVE-2026-9", "zlib")])], seed="ledger")))
    page = browsers.sign_in("dora")
    page.goto(browsers.address + "/images")
    clicks = Clicks(page)
    clicks.on("link", "shop/cart:1", exact=False)
    clicks.on("link", "Compare")
    page.wait_for_url("**/compare")  # loaded: its scripts listen to the key
    page.keyboard.press("/")
    page.keyboard.type("ledger")
    clicks.on("link", "payments/ledger:7", exact=False)
    assert clicks.count <= 3
    page.get_by_role("heading", name="Worse").wait_for()
    browsers.keep(page, "compared")


def test_findings_are_narrowed_sorted_and_every_tab_is_in_reach(browsers: Browsers) -> None:
    page = browsers.sign_in("dora")
    page.goto(browsers.address + "/images")
    page.get_by_role("link", name="shop/cart:1").click()
    page.wait_for_url("**/images/sha256*")
    current = page.get_by_role("navigation", name="Main").get_by_role("link", name="Images")
    assert page.evaluate(_WITHIN, current.element_handle()), "the current item of the menu cannot be seen"
    page.keyboard.press("/")
    page.keyboard.type("nothing of the kind")
    page.get_by_role("heading", name="No vulnerability matches").wait_for()
    page.get_by_role("link", name="Clear filters").click()
    page.get_by_role("table", name="Vulnerabilities by package").wait_for()
    tabs = page.get_by_role("navigation", name="Evidence").get_by_role("link")
    for number in range(tabs.count()):
        assert page.evaluate(_WITHIN, tabs.nth(number).element_handle()), tabs.nth(number).inner_text()
    tabs.filter(has_text="Layers").click()
    page.get_by_role("link", name="layer 0:").click()
    page.get_by_text("diff_id").wait_for()
    browsers.keep(page, "layers")


_WITHIN = "e => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth; }"


# Text that could not be read on white paper, and grounds that are not white: the elements with their colours.
_UNREADABLE = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (text) => {
    const linear = (c) => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = channels(text).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor, parts = channels(colour);
      if (parts.length < 4 || parts[3] > 0.5) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body, body *")) {
    if (!element.checkVisibility() || element.closest("svg, canvas")) continue;
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const back = ground(element), colour = getComputedStyle(element).color;
    const contrast = (Math.max(light(back), light(colour)) + 0.05) / (Math.min(light(back), light(colour)) + 0.05);
    if (light(back) >= 0.8 && (!own || contrast >= 4.5)) continue;
    found.push(`${element.tagName}.${element.className} ${colour} on ${back}`);
  }
  return [...new Set(found)];
}"""


@pytest.mark.parametrize("choice", ["system", "own"])
def test_paper_is_black_on_white_whatever_the_screen_is(
    browser: Any, address: str, database: Database, worker: Worker, choice: str
) -> None:
    """``system``: the system prefers dark. ``own``: the system is light, and the person has chosen dark."""
    person(database, "sam", "security")
    with database.session() as session:
        scans.request(session, ScanRequest(IMAGE, source="webhook:distribution"))
    worker.finish(simple(vulnerability(CRITICAL, "openssl")))
    made = Browsers(browser, address, "wide")
    page = made.sign_in("sam")
    if choice == "own":
        page.locator(".who > summary").click()
        page.get_by_role("button", name="Dark", exact=True).click()
        page.locator("html[data-theme=dark]").wait_for()
    with ExitStack() as stack:
        for context in made.contexts:
            stack.callback(context.close)
        for path in ("/overview", "/images", "/vulnerabilities/" + CRITICAL, "/policies/new"):
            page.emulate_media(media="screen", color_scheme="dark" if choice == "system" else "light")
            page.goto(address + path)
            assert page.evaluate(_UNREADABLE), f"{path} is not dark on the screen"
            page.emulate_media(media="print", color_scheme="dark" if choice == "system" else "light")
            assert page.evaluate(_UNREADABLE) == [], path
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_who_has_a_package_in_three_clicks(browsers: Browsers) -> None:
    page = browsers.sign_in("dora")
    clicks = Clicks(page)
    clicks.on("link", "Packages", within=page.get_by_role("navigation", name="Main"))
    page.wait_for_url("**/packages")
    page.keyboard.press("/")
    page.keyboard.type("openssl")
    image = page.get_by_role("table", name="Images with the package").get_by_role("link", name="shop/cart:1")
    image.wait_for()
    assert clicks.count <= 3
    # The list was loaded after the page: its long names, too, may break after a part and nowhere else.
    page.wait_for_function("link => link.querySelector('wbr')", arg=image.element_handle())
    assert (image.text_content() or "").endswith("/shop/cart:1")
    browsers.keep(page, "who-has-it")


def test_a_password_is_rotated_in_four_clicks(browsers: Browsers, database: Database) -> None:
    person(database, "ann", "admin")
    with database.session() as session:
        registries.add(session, "registry.example.com", KEY, username="puller", password=Secret("former"))
    page = browsers.sign_in("ann")
    clicks = Clicks(page)
    clicks.on("link", "Registries", within=page.get_by_role("navigation", name="Main"))
    page.wait_for_url("**/registries")
    browsers.keep(page, "registries")
    row = page.get_by_role("row").filter(has_text="registry.example.com")
    clicks.on("link", "Edit", within=row, exact=False)
    page.wait_for_url("**/edit*")
    page.get_by_label("New password").focus()
    page.keyboard.type("next")
    browsers.keep(page, "rotate-password")
    clicks.on("button", "Save credentials")
    page.get_by_role("status").get_by_text("Credentials saved").wait_for()
    browsers.keep(page, "password-rotated")
    assert clicks.count <= 4
    with database.read() as session:
        registry = registries.find(session, "registry.example.com")
        assert registry
        stored = registries.password(session, registry.id, KEY)
        assert stored
        assert stored.reveal() == "next"
