"""Enforcement: the points that ask for decisions (admission, pull gate, Harbor): use, denials, set-up and all calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.services import break_glass as use_cases
from scanner.services import receipts as receipt_cases
from scanner.services.admissions import Outcome
from scanner.store import admissions, break_glass, receipts
from web.auth import everywhere, permission, principal
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.pages.forms import RefusedForm, attempt, showable, whole_number
from web.resources import resources

bp = Blueprint("enforcement_page", __name__)
NAVIGATION = NavigationItem(60, "enforcement_page.index", "Enforcement", "audit")


@dataclass(frozen=True)
class Door:
    """What the page says of a door. ``setup``: commands to copy, with ``{server}``."""

    id: str
    title: str
    about: str
    calls: str  # name of what it decides about, for the list
    setup: str
    page: str  # of the documentation


DOORS = (
    Door(
        "kubernetes",
        "Kubernetes admission",
        "An API server asks before it stores an object that starts containers.",
        "admission requests",
        "dockwarden token create my-cluster --scope admission --days 365 > token\n"
        "dockwarden admission kubernetes --manifests --url {server} --token-file token --ca-file CA.pem"
        " | kubectl apply -f -",
        "docs/admission.md",
    ),
    Door(
        "registry",
        "Pull gate",
        "A proxy in front of a registry asks before it serves a manifest.",
        "pulls",
        "dockwarden token create my-registry --scope pull --days 365\n"
        "auth_request: {server}/adapters/registry/authorize?registry=HOST\n"
        "# nginx: examples/nginx/registry.conf, Traefik: examples/traefik/dynamic.yaml",
        "docs/pull-gate.md",
    ),
    Door(
        "docker",
        "Docker engines",
        "An engine asks before it creates or starts a container, deploys a service or pulls an image.",
        "requests",
        "dockwarden token create my-host --scope admission --days 365\n"
        "DOCKWARDEN_TOKEN=TOKEN dockwarden docker-authz --server {server} --environment NAME\n"
        "# systemd: examples/docker/dockwarden-authz.service, then dockerd --authorization-plugin=dockwarden",
        "docs/docker-authz.md",
    ),
    Door(
        "harbor",
        "Harbor",
        "A Harbor requests scans, shows their reports and refuses images by them.",
        "reports",
        "dockwarden token create my-harbor --scope harbor --days 365\n"
        "dockwarden registry add HARBOR-HOST --harbor findings\n"
        "# in Harbor, Administration, Interrogation Services, Scanners, New Scanner:\n"
        "Endpoint: {server}/adapters/harbor    Authorization: Bearer    Token: TOKEN\n"
        "# then in each project, Configuration: Prevent vulnerable images from running, severity Critical",
        "docs/harbor.md",
    ),
)


RECEIPTS_SETUP = (
    "dockwarden registry credentials HOST --username NAME    # the password is asked for; the user may push\n"
    "dockwarden registry edit HOST --write-receipts\n"
    "curl -o keys.pem {server}/api/v1/receipts/keys.pem\n"
    "# with this key: examples/kyverno/receipt.yaml, examples/policy-controller/receipt.yaml, or cosign"
)


@bp.get("/enforcement")
@permission("audit")
def index() -> str:
    """List calls, newest first, filtered by enforcement point, outcome and namespace."""
    return _page()


@bp.post("/enforcement/break-glass")
@permission("gate")
def break_glass_begin() -> Response:
    """Let a digest through in an emergency."""
    everywhere()
    # The reason is one line of text everywhere; its field has two rows, so some people type two.
    given = {name: " ".join(request.form.get(name, "").split()) for name in ("digest", "reason", "hours")}

    def begin() -> object:
        hours = float(whole_number(given["hours"]))
        with resources().database.session() as session:
            settings = resources().settings
            return use_cases.begin(session, settings, principal(), given["digest"], given["reason"], hours)

    try:
        attempt(begin)
    except RefusedForm as refused:
        return make_response(_page(given, refused.problems, refused.fields), 422)
    return redirect(url_for("enforcement_page.index"), 303)  # type: ignore[return-value]


@bp.post("/enforcement/break-glass/<uuid:break_glass_id>/end")
@permission("gate")
def break_glass_end(break_glass_id: UUID) -> Response:
    """End one before its time."""
    everywhere()
    with resources().database.session() as session:
        use_cases.end(session, resources().settings, principal(), str(break_glass_id))
    return redirect(url_for("enforcement_page.index"), 303)  # type: ignore[return-value]


def _page(values: Mapping[str, str] | None = None, problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    everywhere()
    asked = request.args
    door, outcome, namespace = asked.get("door", ""), asked.get("outcome", ""), asked.get("namespace", "").strip()[:253]
    door = door if door in {each.id for each in DOORS} else ""
    outcome = outcome if outcome in set(Outcome) else ""
    with resources().database.read() as session:
        found = admissions.list_reviews(
            session, door=door, outcome=outcome, namespace=namespace, cursor=asked.get("cursor"), limit=PAGE_SIZE
        )
        use = admissions.of_doors(session, [each.id for each in DOORS])
        receipt_use = receipts.use(session)
        trouble = receipt_cases.signing_trouble(session, resources().settings)
        glasses = break_glass.list_overrides(session)
    template = "enforcement_list.html" if request.headers.get("HX-Request") else "enforcement.html"
    return page(
        template,
        found=found,
        doors=DOORS,
        glasses=glasses,
        may_break=use_cases.may(resources().settings, principal()),
        values=showable(values) or {"digest": asked.get("digest", "")[:140], "reason": "", "hours": "1"},
        problems=problems,
        wrong=wrong,
        use=use,
        receipts=receipt_use,
        trouble=trouble,
        receipts_setup=RECEIPTS_SETUP,
        door=door,
        outcome=outcome,
        namespace=namespace,
        outcomes=list(Outcome),
        server=resources().settings.public_url or request.host_url.rstrip("/"),
        here=here,
    )
