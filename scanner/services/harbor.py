"""Harbor's pluggable scanner: a Harbor requests scans and asks for their reports.

Only a registry that an administrator named as a Harbor may. The address in a request selects that registry and nothing
else: how it is reached is what was configured. The credentials that come with a request are used for its scan only.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import orjson
from sqlalchemy.engine import Connection

from scanner.config import Secret, Settings
from scanner.errors import ImageError, NotFoundError, RefusedError, ScannerError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.model.untrusted import clean_text
from scanner.reports.json import parse_decision
from scanner.services import break_glass, gate, projects
from scanner.services import scans as scan_use_cases
from scanner.services._fields import invalid
from scanner.services.door_calls import Call
from scanner.services.harbor_reports import HarborReport
from scanner.services.registries import ALIAS
from scanner.store import audit, harbor, images, registries, scans
from scanner.store import break_glass as stored_break_glass
from scanner.store.session import moment

CREDENTIALS_LENGTH = 16 << 10  # a bearer token of Harbor's has about 2 KiB
# Harbor asks again after each 302, without an end of its own: its `src/pkg/scan/job.go` arms its
# time-out anew with each answer. So every scan ends here.
DEADLINE = timedelta(hours=2)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_PORTS = {"https": 443, "http": 80}
_SOONEST, _LATEST = 2, 30  # seconds. Harbor reads them as int8
_SOURCE = "harbor"


@dataclass(frozen=True)
class RegistryAuthorization:
    """What a request says for pulling: a user name and a password, or a bearer ``token``."""

    username: str = ""
    password: Secret = Secret("")
    token: Secret = Secret("")


@dataclass(frozen=True)
class ScanOrder:
    """A scan as Harbor requests it. ``authorization``: an ``Authorization`` header for the registry; may be empty."""

    url: str  # of the registry, as Harbor names it
    repository: str
    digest: str
    tag: str = ""  # empty: Harbor names only the digest
    authorization: Secret = Secret("")


@dataclass(frozen=True)
class PendingScan:
    """The scan has not ended. ``seconds``: when to ask again."""

    seconds: int


def parse_authorization(header: Secret) -> RegistryAuthorization:
    """Parse the registry's ``Authorization`` header. Raises UsageError, without the value."""
    text = header.reveal()
    scheme, _, value = text.strip().partition(" ")
    value = value.strip()
    # Before anything is decoded. The message never contains the value, because it is logged and sent back.
    if len(text) > CREDENTIALS_LENGTH:
        raise _refused_field("registry.authorization", "it is too long")
    if scheme.lower() == "bearer" and _TOKEN.fullmatch(value):
        return RegistryAuthorization(token=Secret(value))
    if scheme.lower() == "basic":
        try:
            name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise _refused_field("registry.authorization", "it is not base64 of name:password") from None
        if colon and name.isprintable() and password.isprintable():
            return RegistryAuthorization(name, Secret(password))
    raise _refused_field("registry.authorization", "it is neither Basic nor Bearer credentials")


def registry_of_url(session: Connection, actor: Actor, url: str) -> registries.RegistryView:
    """Return the registry that the address in a request names: its host or an alias, if it may request scans.

    Raises UsageError for an address, RefusedError(reason="not_a_harbor") for a host that nobody named as a Harbor.
    """
    host = host_of(url)
    for each in registries.list_registries(session):
        # The holder of the adapter's token can send any address. Without this condition, a request could point the
        # scanner at an internal host and send it the registry's stored credentials.
        if host in (each.host, *each.aliases) and actor.sees(each.project) and each.harbor != "off":
            return each
    raise RefusedError(
        f"{clean_text(host, 100)} is not configured as a Harbor",
        reason="not_a_harbor",
        hint="in Dockwarden, under Registries, add this host (or an alias) and allow Harbor to request scans",
    )


def host_of(url: str) -> str:
    """The host and port of a registry's address, without the scheme's own port. Raises UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused_field("registry.url", "it is not an address") from None
    # `https://harbor.example.com@attacker/` and similar forms are read differently by different parsers, so every
    # address with more than a host is refused.
    extra = parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/")
    host = (parts.hostname or "").lower()
    host += "" if port in (None, _PORTS.get(parts.scheme)) else f":{port}"
    if parts.scheme not in _PORTS or extra or len(url) > 300 or not re.fullmatch(ALIAS, host, re.ASCII):
        raise _refused_field("registry.url", "write https://HOST[:PORT]")
    return host


def request(session: Connection, actor: Actor, order: ScanOrder, settings: Settings, key: Secret) -> scans.Ticket:
    """Record a scan that a Harbor requests. The caller enqueues it after the transaction.

    Raises UsageError(reason="invalid") naming the field, RefusedError(reason="not_a_harbor").
    """
    registry = registry_of_url(session, actor, order.url)
    reference = _reference(registry.host, order)
    if order.authorization:
        parse_authorization(order.authorization)
    try:
        project = scan_use_cases.project_of(session, actor, None, reference)
    except NotFoundError:
        raise RefusedError("the token has no access to this repository's project", reason="not_a_harbor") from None
    asked = ScanRequest(
        target=str(reference),
        engine=projects.engine_for(session, project, settings.engine),
        lane=Lane.PUSH,
        project=project,
        requested_by=actor.name,
        source=_SOURCE,
    )
    ticket = harbor.request(session, asked, actor.token_id, order.authorization, key)
    detail = {"scan": ticket.scan_id, "project": project, "door": _SOURCE}
    audit.record(session, actor, Action.SCAN_REQUEST, asked.target, detail=detail)
    return ticket


def _reference(host: str, order: ScanOrder) -> Reference:
    try:
        digest = Digest(order.digest)
    except ImageError:
        raise _refused_field("artifact.digest", "it is not a digest such as sha256:…") from None
    tag = f":{order.tag}" if order.tag else ""
    try:
        reference = Reference.parse(f"{host}/{order.repository}{tag}@{digest}")
    except UsageError as error:
        raise _refused_field("artifact.repository", f"{error}") from None
    # A repository such as `a:b` or `host/x` would be parsed as another reference than the one that Harbor means.
    if (reference.host, reference.repository) != (host, order.repository):
        raise _refused_field("artifact.repository", "it is not the name of a repository")
    return reference


def report(
    session: Connection, actor: Actor, scan_id: str, environment: str, settings: Settings
) -> HarborReport | PendingScan:
    """Return what the report of a scan is made of, or when to ask again.

    A decision that is outdated is renewed, so run it in ``Database.uncrossed``. Raises NotFoundError for a scan of
    another token, ScannerError(reason="no_report") for one that ended without evidence or does not end.
    """
    scan = harbor.get(session, scan_id, actor.token_id, actor.projects)
    reference = Reference.parse(scan.request.target)
    if not scan.state.terminal:
        age = moment(session) - scan.created_at
        if age < DEADLINE:
            return PendingScan(max(_SOONEST, min(_LATEST, int(age.total_seconds() / 4))))
        raise _without_report(f"not scanned within {DEADLINE}: see the page Scans, and whether a worker runs")
    # An error, not an empty report: Harbor shows an empty report as an image without vulnerabilities.
    if scan.state is not ScanState.DONE or scan.report_id is None or reference.digest is None:
        raise _without_report(scan.message or scan.reason or f"the scan is {scan.state}")
    question = gate.GateRequest(reference, environment, actor.projects)
    document = question.recorded(session, reference.digest)
    if document is None or document["evidence"] is None:
        raise _without_report("there is no decision about this image")
    glass = stored_break_glass.in_force(session, [reference.digest])
    # Only a denial is changed. For an allowed image the person's name would be noise in every report.
    if glass is not None and document["verdict"] == "deny":
        document = break_glass.apply_override(document, glass)
    registry = registries.find(session, reference.host)
    return HarborReport(
        reference,
        images.evidence(session, Digest(document["evidence"]).hex),
        parse_decision(orjson.dumps(document)),
        findings=registry is not None and registry.harbor == "findings",
        let_through=glass is not None,
        link=f"{settings.public_url.rstrip('/')}/images/{reference.digest}" if settings.public_url else "",
    )


def expire(session: Connection, actor: Actor, scan_id: str) -> None:
    """Cancel a scan that is past its deadline, so that its credentials are erased. Nothing if it has ended."""
    scan = harbor.get(session, scan_id, actor.token_id, actor.projects)
    if not scan.state.terminal and moment(session) - scan.created_at >= DEADLINE:
        scan_use_cases.cancel(session, actor, scan.id)


def target(session: Connection, actor: Actor, scan_id: str) -> str:
    """Return the image reference of a scan that this actor's token requested. Raises NotFoundError."""
    return harbor.get(session, scan_id, actor.token_id, actor.projects).request.target


def _without_report(message: str) -> ScannerError:
    return ScannerError(f"Dockwarden has no report: {clean_text(message, 500)}", reason="no_report")


def call(report: HarborReport, environment: str) -> Call:
    """The record of a report, for the page Enforcement. A denial that Harbor does not learn of is only audited."""
    outcome, mode = {"allow": "allowed", "warn": "warned"}.get(report.decision.verdict, "denied"), "enforce"
    if outcome == "denied" and not report.blocks:
        outcome, mode = "audited", "audit"
    message = "\n".join(clean_text(reason.message, 300) for reason in report.denying[:3])
    return _call(report.reference, mode, environment, outcome, str(report.decision.verdict), message)


def failed_call(target: str, environment: str, message: str) -> Call:
    """The record of a scan that ended without a report: Harbor then refuses the image."""
    return _call(Reference.parse(target), "enforce", environment, "denied", "unknown", message)


def _call(reference: Reference, mode: str, environment: str, outcome: str, verdict: str, message: str) -> Call:
    digest = str(reference.digest or "")
    image = {"image": clean_text(str(reference), 300), "container": "", "digest": digest, "verdict": verdict}
    name = clean_text(f"{reference.repository}@{digest[:19]}", 253)
    return Call("harbor", "", "report", "image", reference.host, name, mode, environment, outcome, (image,), message)


def refused_call(url: str, repository: str, message: str) -> Call:
    """The record of a request that was refused, so that a wrong set-up shows on the page Enforcement."""
    host, name = clean_text(urlsplit(url).netloc if url.isascii() else "", 253), clean_text(repository, 253)
    return Call("harbor", "", "scan", "image", host, name, "enforce", "", "denied", (), message)


def _refused_field(field: str, message: str) -> UsageError:
    return invalid(field, f"{field}: {message}")
