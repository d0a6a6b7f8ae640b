"""``GET /adapters/registry/authorize``: a proxy in front of a registry asks whether a request may reach it.

For nginx ``auth_request``, Traefik ``forwardAuth``, Caddy ``forward_auth`` and Envoy ``ext_authz``. 200: it may. 403:
it may not, with the error body of the OCI distribution-spec, which is also in the header ``X-Dockwarden-Error``,
because nginx throws a subrequest's body away. 401: the proxy's own token is wrong.

https://nginx.org/en/docs/http/ngx_http_auth_request_module.html
https://doc.traefik.io/traefik/middlewares/http/forwardauth/
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, request

from scanner.config import keys_of
from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.model import pull_proof
from scanner.model.actor import Actor
from scanner.model.untrusted import clean_text
from scanner.services import pulls
from scanner.services.admissions import ENVIRONMENT
from scanner.services.doors import DoorResult, denial_message
from web import doors
from web.auth import permission, principal
from web.resources import resources
from web.throttle import PULL

bp = Blueprint("registry_gate", __name__)

_HEADER_LENGTH = 1500  # nginx reads the head of an answer into 4 KiB
# Frameworks of Java, .NET and Ruby take these for the method: a POST that passes could be served as a GET.
_OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
_URIS, _METHODS = ("X-Original-URI", "X-Forwarded-Uri"), ("X-Original-Method", "X-Forwarded-Method")
_NOT_DECIDED = "Dockwarden could not decide about this pull, so it is denied: {}. Try again, and see Dockwarden's log."


def authenticate() -> Actor:
    """See `doors.authenticate`."""
    return doors.authenticate("pull", PULL)


@bp.get("/adapters/registry/authorize")
@bp.get("/adapters/registry/authorize/<path_token>")
@permission("pull", authenticate=authenticate)
def authorize(path_token: str = "") -> Response:
    """Judge the request that the headers describe. ``?registry=HOST`` names the registry behind the proxy."""
    asked = request.args
    strict = asked.get("strict", "") in ("1", "true", "yes", "on")
    try:
        uri, method = _one(_URIS), _one(_METHODS) or "GET"
        if uri is None:
            raise _refused_request(f"the proxy sends neither {_URIS[0]} nor {_URIS[1]}")
        _check_pairs()
    except UsageError as error:
        return _denial_response(403, str(error))
    return _answer(uri, method, asked.get("registry", ""), asked.get("environment", ""), strict)


@bp.route(
    "/adapters/registry/authorize/<path_token>/<registry>/<path:original>",
    methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
)
@permission("pull", authenticate=authenticate)
def check(path_token: str, registry: str, original: str) -> Response:
    """As Envoy asks: the original path behind a prefix of ours, with the original method.

    ``registry`` is ``HOST``, or ``HOST,ENVIRONMENT``, or ``HOST,ENVIRONMENT,strict``.
    """
    host, environment, strict = (*registry.split(",", 2), "", "")[:3]
    # The path was unescaped once. A "?" in it would end the path here, and not in the registry: escaped, it is refused.
    uri = quote(f"/{original}", safe="/:@+=!$&'()*~")
    return _answer(uri, request.method, host, environment, strict == "strict")


def _one(names: tuple[str, ...]) -> str | None:
    """The header that the proxy set. None: there is none.

    Proxies pass on what a client sends beside their own: where two say different things, one of them is forged.
    """
    found = {request.headers[name] for name in names if name in request.headers}
    if len(found) > 1:
        raise _refused_request(f"the headers {' and '.join(names)} contradict each other")
    return found.pop() if found else None


def _check_pairs() -> None:
    """A method without the URI of its pair is a client's: a proxy that sends neither method nor pair has reads judged.

    Raises UsageError(reason="bad_pull").
    """
    for uri, method in zip(_URIS, _METHODS, strict=True):
        if method in request.headers and uri not in request.headers:
            raise _refused_request(f"there is {method} without {uri}")


def _refused_request(message: str) -> UsageError:
    return UsageError(f"Dockwarden does not let this request through: {message}", reason="bad_pull")


def _answer(uri: str, method: str, registry: str, environment: str, strict: bool) -> Response:
    """Judge a pull. Whatever goes wrong is a denial with a sentence that says what."""
    ends = time.monotonic() + resources().settings.pull_wait_seconds
    try:
        if found := [name for name in _OVERRIDES if name in request.headers]:
            raise _refused_request(f"the registry may take another method for it: there is {found[0]}")
        pull = pulls.parse(method, uri)
        # Before the registry is looked up: a push or a list needs no decision, and so no query.
        if pull.kind is pulls.Kind.OTHER:
            return Response(status=200)
        if not ENVIRONMENT.fullmatch(environment):
            raise _refused_request("the environment is not a name of lower-case letters, digits, '.', '_' and '-'")
        with resources().database.read() as session:
            place = pulls.GatedRegistry(pulls.registry_of(session, principal(), registry), environment, strict)
        if _is_own(place.host):
            return Response(status=200)
        judged = pulls.decide(pull, place, doors.door("pull", _client()), principal(), ends=ends)
    except UsageError as error:
        return _denial_response(403, str(error))
    except ScannerError as error:
        reason = str(error) if isinstance(error, RemoteError) else error.reason
        logging.getLogger(__name__).error("a pull could not be decided", extra={"reason": error.reason})
        return _denial_response(403, _NOT_DECIDED.format(reason))
    except Exception:
        # A stage boundary: what a proxy makes of a 500 is the proxy's to decide, and the client would learn nothing.
        logging.getLogger(__name__).exception("a pull broke")
        return _denial_response(403, _NOT_DECIDED.format("an internal error"))
    return _verdict_response(pull, place, judged, uri)


def _is_own(host: str) -> bool:
    """Whether our own scanner pulls: it must see an image before the image can be allowed."""
    keys = [key.reveal() for key in keys_of(resources().secret_key)]
    return pull_proof.holds(keys, host, request.headers.get(pull_proof.HEADER, ""), time.time())


def _client() -> str:
    """The address of the client, as the proxy says. A client can forge it where the proxy appends to its headers."""
    named = request.headers.get("X-Real-IP") or request.headers.get("X-Forwarded-For", "").partition(",")[0]
    return named.strip()


def _verdict_response(pull: pulls.Pull, place: pulls.GatedRegistry, judged: DoorResult | None, uri: str) -> Response:
    if judged is None:
        return Response(status=200)
    allowed, public_url = judged.allowed, resources().settings.public_url
    message = "" if allowed else denial_message([judged], public_url).replace("\n", "; ")
    # For display only. A client can send these headers itself, so nothing is decided by them.
    doors.recorder().note(principal(), pulls.call(pull, place, judged, message, client=_client()))
    if judged.missing:
        return _denial_response(404, f"the registry has no manifest {pull.name}", "MANIFEST_UNKNOWN")
    if not allowed:
        response = _denial_response(403, message, detail=_detail(judged, public_url))
        if judged.pending:
            response.headers["Retry-After"] = "30"
        return response
    response = Response(status=200)
    if judged.digest and pull.kind is pulls.Kind.MANIFEST:
        response.headers["X-Dockwarden-Digest"] = judged.digest
        if ":" not in pull.name:
            # The tag may move before the registry is asked. A proxy that asks for this instead serves what was judged.
            query = uri.partition("?")[2]
            path = f"/v2/{pull.repository}/manifests/{judged.digest}"
            response.headers["X-Dockwarden-Uri"] = f"{path}?{query}" if query.isprintable() and query else path
    if judged.verdict == "warn":
        response.headers["X-Dockwarden-Warning"] = clean_text(judged.first, 250).encode("ascii", "replace").decode()
    return response


def _detail(judged: DoorResult, public_url: str) -> dict[str, Any]:
    document = judged.document or {"digest": None, "reasons": [], "policy": ""}
    detail = {"digest": judged.digest or document["digest"], "policy": document["policy"]}
    detail |= {"reasons": document["reasons"] or [judged.problem]}
    if public_url and document["digest"]:
        detail["link"] = f"{public_url.rstrip('/')}/images/{document['digest']}"
    return detail


def _denial_response(status: int, message: str, code: str = "DENIED", detail: dict[str, Any] | None = None) -> Response:
    """The error body of the distribution-spec, also as a header in ASCII.

    nginx accepts only 200, 401 and 403 from `auth_request`; the header set in its configuration tells it apart.
    """
    error: dict[str, Any] = {"code": code, "message": message} | ({"detail": detail} if detail else {})
    text = json.dumps({"errors": [error]}, separators=(",", ":"))
    if len(text) > _HEADER_LENGTH:
        text = json.dumps({"errors": [{"code": code, "message": message[:250]}]}, separators=(",", ":"))
    nginx = _URIS[0] in request.headers
    response = Response(text, 403 if nginx else status, mimetype="application/json")
    response.headers["X-Dockwarden-Error"] = text
    response.headers["X-Dockwarden-Status"] = str(status)
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return response
