"""``/adapters/harbor/api/v1/*``: Harbor requests scans and their reports (pluggable scanner specification 1.0 to 1.2).

https://github.com/goharbor/pluggable-scanner-spec. Harbor's client waits 5 seconds for an answer, so a scan is only
recorded here. It follows no redirects: 302 with ``Refresh-After`` means "ask again". It fails its scan for good at any
other status, and reads the reason from ``{"error": {"message": …}}``.

The address may name an environment, whose policies then decide: ``/adapters/harbor/ENVIRONMENT/api/v1``.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import uuid
from typing import Annotated, Any

import orjson
from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictStr, ValidationError
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header

from scanner import catalog, queue
from scanner.config import Secret
from scanner.errors import NotFoundError, RefusedError, ScannerError, UsageError
from scanner.model.actor import Actor
from scanner.model.scan import Lane
from scanner.model.untrusted import load_untrusted_json
from scanner.model.validation import plain_message
from scanner.services import harbor, harbor_reports
from scanner.services.admissions import ENVIRONMENT
from web import doors
from web.auth import bad_token, bearer, permission, principal
from web.errors import status_of
from web.resources import resources
from web.security import read_body
from web.throttle import HARBOR

bp = Blueprint("harbor", __name__)

_LIMIT, _DEPTH = 64 << 10, 16
_ARTIFACTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_METADATA = "application/vnd.scanner.adapter.metadata+json; version={}"
_SCAN = "application/vnd.scanner.adapter.scan.response+json; version=1.0"
_ERROR = "application/vnd.scanner.adapter.error+json; version=1.0"
_V1_0 = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
_V1_1 = "application/vnd.security.vulnerability.report; version=1.1"
_RAW = "application/vnd.scanner.adapter.vuln.report.raw"
_SBOM = "application/vnd.security.sbom.report+json; version=1.0"
_PRODUCED = {"vulnerability": (_V1_1, _V1_0, _RAW), "sbom": (_SBOM,)}
_WRONG_TYPES = ("string_type", "dict_type", "list_type", "model_type", "model_attributes_type", "int_type")
_PROPERTY = "harbor.scanner-adapter/{}"


class _Part(BaseModel):
    """Unknown members are ignored: later versions of the specification add some."""

    model_config = ConfigDict(extra="ignore")


class _Registry(_Part):
    url: Annotated[StrictStr, Field(max_length=300)]
    authorization: Annotated[SecretStr, Field(max_length=harbor.CREDENTIALS_LENGTH)] | None = None


class _Artifact(_Part):
    repository: Annotated[StrictStr, Field(max_length=255)]
    digest: Annotated[StrictStr, Field(max_length=140)]
    tag: Annotated[StrictStr, Field(max_length=128)] | None = None
    mime_type: Annotated[StrictStr, Field(max_length=200)] | None = None


class _Parameters(_Part):
    sbom_media_types: list[StrictStr] | None = Field(None, max_length=10)


class _Capability(_Part):
    type: StrictStr
    produces_mime_types: list[StrictStr] | None = Field(None, max_length=10)
    parameters: _Parameters | None = None


class _ScanRequest(_Part):
    registry: _Registry
    artifact: _Artifact
    enabled_capabilities: list[_Capability] | None = Field(None, max_length=10)


def authenticate() -> Actor:
    """See `doors.authenticate`. The token comes as Harbor's registration says: Basic, Bearer or an API key."""
    return doors.authenticate("harbor", HARBOR, _token)


def _token() -> str:
    """The token in one of Harbor's three forms. With Basic it is the password; the user name is not used."""
    header = request.headers.get("Authorization", "")
    if not header:
        return request.headers.get("X-ScannerAdapter-API-Key", "").strip()
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return bearer(header)
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise bad_token() from None


@bp.get("/adapters/harbor/api/v1/metadata")
@bp.get("/adapters/harbor/<environment>/api/v1/metadata")
@permission("harbor", authenticate=authenticate)
def metadata(environment: str = "") -> Response:
    """Say who scans, and what."""
    _environment(environment)
    capabilities: list[dict[str, Any]] = [
        {"type": kind, "consumes_mime_types": _ARTIFACTS, "produces_mime_types": produced}
        for kind, produced in _PRODUCED.items()
    ]
    capabilities[1]["additional_attributes"] = {"sbom_media_types": list(harbor_reports.SBOM_FORMATS)}
    document = {"scanner": harbor_reports.SCANNER, "capabilities": capabilities, "properties": _properties()}
    version = "1.0" if "version=1.0" in request.headers.get("Accept", "").replace(" ", "") else "1.1"
    return Response(orjson.dumps(document), content_type=_METADATA.format(version))


def _properties() -> dict[str, str]:
    found = {
        _PROPERTY.format("scanner-type"): "os-package-vulnerability",
        # Basic: the token that "Bearer" would bring ends after half an hour, maybe before a queued scan begins.
        _PROPERTY.format("registry-authorization-type"): "Basic",
    }
    engines = catalog.engines_of(resources().settings.engine)
    try:
        advisories = [engine.advisories(resources().settings) for engine in engines]
    except ScannerError:
        return found  # in a distributed installation only the workers may have the engine
    for name, moments in (
        ("vulnerability-database-updated-at", [each.updated_at for each in advisories]),
        ("vulnerability-database-next-update-at", [each.next_update for each in advisories]),
    ):
        if oldest := min((moment for moment in moments if moment), default=None):
            found[_PROPERTY.format(name)] = oldest.isoformat().replace("+00:00", "Z")
    return found


@bp.post("/adapters/harbor/api/v1/scan")
@bp.post("/adapters/harbor/<environment>/api/v1/scan")
@permission("harbor", authenticate=authenticate)
def scan(environment: str = "") -> Response:
    """Record a scan. 202 with its id."""
    _environment(environment)
    data = load_untrusted_json(read_body(_LIMIT), limit=_LIMIT, depth=_DEPTH, error=UsageError, reason="bad_request")
    try:
        asked = _ScanRequest.model_validate(data)
    except ValidationError as error:
        return _invalid(error)
    if wrong := _refuse_unsupported(asked):
        return wrong
    sent, artifact = asked.registry.authorization, asked.artifact
    credentials = Secret(sent.get_secret_value()) if sent else Secret("")
    order = harbor.ScanOrder(asked.registry.url, artifact.repository, artifact.digest, artifact.tag or "", credentials)
    settings, key = resources().settings, resources().secret_key
    try:
        ticket = resources().database.uncrossed(
            lambda session: harbor.request(session, principal(), order, settings, key)
        )
    except RefusedError as error:
        # The administrator of the Harbor sees only a failed scan. The page Enforcement shows the administrator of
        # Dockwarden that a host is missing under Registries.
        doors.recorder().note(principal(), harbor.refused_call(order.url, order.repository, f"{error}\n{error.hint}"))
        raise
    queue.enqueue(resources().celery, ticket.scan_id, Lane.PUSH)
    return Response(orjson.dumps({"id": ticket.scan_id}), 202, content_type=_SCAN)


def _refuse_unsupported(asked: _ScanRequest) -> Response | None:
    """What the metadata does not offer."""
    if asked.artifact.mime_type and asked.artifact.mime_type not in _ARTIFACTS:
        return _error(501, "artifacts of this type are not scanned; an index is scanned image by image")
    for each in asked.enabled_capabilities or ():
        if each.type not in _PRODUCED:
            return _error(422, "enabled_capabilities: there is no such type; it is vulnerability or sbom")
        if set(each.produces_mime_types or ()) - set(_PRODUCED[each.type]):
            return _error(501, "enabled_capabilities: reports of this type are not produced")
        media_types = each.parameters.sbom_media_types if each.parameters else None
        if set(media_types or ()) - set(harbor_reports.SBOM_FORMATS):
            return _error(422, f"sbom_media_types: one of {', '.join(harbor_reports.SBOM_FORMATS)}")
    return None


@bp.get("/adapters/harbor/api/v1/scan/<scan_id>/report")
@bp.get("/adapters/harbor/<environment>/api/v1/scan/<scan_id>/report")
@permission("harbor", authenticate=authenticate)
def report(scan_id: str, environment: str = "") -> Response:
    """Answer with a report, 302 while the scan runs, or 500 if it ended without evidence."""
    _environment(environment)
    try:
        identifier = str(uuid.UUID(scan_id))
    except ValueError:
        raise NotFoundError("there is no such scan") from None
    database, settings, actor = resources().database, resources().settings, principal()
    try:
        found = database.uncrossed(lambda session: harbor.report(session, actor, identifier, environment, settings))
    except ScannerError as error:
        if error.reason == "no_report":
            _note_failure(identifier, environment, str(error))
        raise
    if isinstance(found, harbor.PendingScan):
        return Response(status=302, headers={"Refresh-After": str(found.seconds)})
    wanted = _media_type(request.headers.get("Accept", ""))
    if wanted is None:
        return _error(501, "reports of this type are not produced; see the metadata")
    # A "+" that was not escaped is a space in a query.
    media_type = request.args.get("sbom_media_type", "").replace(" ", "+")
    if wanted == _SBOM and media_type not in harbor_reports.SBOM_FORMATS:
        return _error(400, f"sbom_media_type: one of {', '.join(harbor_reports.SBOM_FORMATS)}")
    doors.recorder().note(actor, harbor.call(found, environment))
    if wanted == _SBOM:
        return Response(harbor_reports.sbom(found, media_type), content_type=_SBOM)
    if wanted == _RAW:
        return Response(harbor_reports.raw(found), content_type=_RAW)
    version = "1.0" if wanted == _V1_0 else "1.1"
    return Response(harbor_reports.vulnerabilities(found, version=version), content_type=wanted)


def _note_failure(scan_id: str, environment: str, message: str) -> None:
    actor = principal()

    def end(session: Any) -> str:
        harbor.expire(session, actor, scan_id)
        return harbor.target(session, actor, scan_id)

    target = resources().database.uncrossed(end)
    doors.recorder().note(actor, harbor.failed_call(target, environment, message))


def _media_type(accept: str) -> str | None:
    """The type of report that is asked for, by its type and version. 1.1 if any will do; None: one that is not made."""
    # Names of types are read in any case of letters, and "q=0" excludes a type (RFC 9110, sections 8.3.1 and 12.4.2).
    for part in accept.lower().split(",")[:20]:
        name, options = parse_options_header(part)
        if re.fullmatch(r"0(\.0{0,3})?", options.get("q", "")):
            continue
        if name in ("", "*/*", "application/json", "application/*"):
            return _V1_1
        for known in (_V1_1, _V1_0, _RAW, _SBOM):
            own, its = parse_options_header(known)
            version = its.get("version")  # None: of the raw report, which has no versions
            if name == own and version in (None, options.get("version", version)):
                return known
    return None


def _environment(name: str) -> None:
    if not ENVIRONMENT.fullmatch(name):
        raise NotFoundError("there is no such environment")


def _invalid(error: ValidationError) -> Response:
    """400 for a wrong type, 422 for a wrong value, as the specification has it. Sent values are not repeated."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return _error(400 if first["type"] in _WRONG_TYPES else 422, f"{place}: {plain_message(first)}")


def _error(status: int, message: str, reason: str = "") -> Response:
    document = {"error": {"message": message}} | ({"reason": reason} if reason else {})
    return Response(orjson.dumps(document), status, content_type=_ERROR)


@bp.errorhandler(ScannerError)
def _error_response(error: ScannerError) -> Response:
    """Answer in the form that Harbor shows to its users."""
    status = status_of(error)
    if status >= 500 and error.reason != "no_report":
        logging.getLogger(__name__).error("a request of Harbor failed", extra={"reason": error.reason})
    # Harbor shows the text to its users. The text of an internal error can name hosts and files of this installation.
    known = status < 500 or error.reason == "no_report"
    text = str(error) if known else "Dockwarden could not do this: see its log"
    response = _error(status, f"{text} ({error.hint})" if known and error.hint else text, error.reason)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="dockwarden"'
    return response


@bp.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Response:
    return _error(error.code or 500, error.description or error.name)
