"""``/api/v1``: one module for each resource, discovered, and the OpenAPI document."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.openapi import OpenAPI

from scanner.errors import UsageError
from scanner.model.untrusted import load_untrusted_json
from scanner.plugins import PluginError
from web.api._members import description
from web.api.base import PREFIX
from web.auth import PUBLIC, permission
from web.security import BODY_LIMIT

document = Blueprint("openapi", __name__)
_PARAMETER = re.compile(r"<(?:[^<>:]+:)?([^<>:]+)>")


class StrictJson(DefaultJSONProvider):
    """Parses bodies with the strict loader: no duplicate members, no NaN, bounded depth. Raises UsageError (400)."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return load_untrusted_json(
            s.encode() if isinstance(s, str) else s,
            limit=(request.max_content_length if request else None) or BODY_LIMIT,
            error=UsageError,
            reason="bad_json",
        )


def install(app: OpenAPI) -> None:
    """Register all resources of this package.

    Raises PluginError for a module without ``api``, which would be ignored.
    """
    app.json = StrictJson(app)
    for info in pkgutil.iter_modules(__path__):
        if info.name == "base" or info.name.startswith("_"):
            continue
        api = getattr(importlib.import_module(f"{__name__}.{info.name}"), "api", None)
        if not isinstance(api, APIBlueprint):
            raise PluginError(f"web.api.{info.name} has no `api`")
        app.register_api(api)
    app.register_blueprint(document)
    spec = describe(app)
    app.extensions["openapi_json"] = orjson.dumps(spec)
    bodies = _with_bodies(app, spec)

    @app.before_request
    def check_body() -> None:
        """flask-openapi3 accepts a wrong media type or malformed JSON as an empty body, and a string as JSON.

        Refuse them.
        """
        if request.routing_exception is None and (request.endpoint, request.method) in bodies:
            # Also a guard against other sites: a browser sends this media type to another origin only after asking it
            # (CORS), and we never agree.
            if request.mimetype != "application/json":
                raise UsageError("send application/json", reason="unsupported_media_type")
            if not isinstance(request.get_json(), dict):
                raise UsageError("the body must be a JSON object", reason="invalid")


@document.get(f"{PREFIX}/openapi.json")
@permission(PUBLIC)
def openapi() -> Response:
    """The OpenAPI 3.1 document. Public, because it contains nothing about images."""
    return Response(current_app.extensions["openapi_json"], mimetype="application/json")


def describe(app: OpenAPI) -> dict[str, Any]:
    """Complete the document: each operation gets its permission (``x-permission``) and authentication methods."""
    spec: dict[str, Any] = app.api_doc
    for path, method, view in _operations(app):
        operation = spec["paths"].get(path, {}).get(method)
        if operation is not None:
            operation["x-permission"] = view.permission
            operation["security"] = [] if view.permission == PUBLIC else [{"token": []}, {"session": []}]
            for parameter in operation.get("parameters", []):
                parameter.setdefault("description", _place_text(parameter["name"], parameter["in"]))
    for name, schema in spec["components"]["schemas"].items():
        for member, value in schema.get("properties", {}).items():
            if text := value.get("description") or description(name, member):
                value["description"] = text
    return spec


# Parameters that mean the same in every operation. One with a meaning of its own is described in its model.
_PARAMETERS = {
    "limit": "The most items in one answer.",
    "cursor": "`next_cursor` of the previous answer, with the same filters. Without it: the first page.",
    "since": "Only entries since this time (RFC 3339).",
    "fixable": "`true`: only what has a fix. `false`: only what has none.",
    "digest": "Digest of the image.",
    "state": "Only items in this state.",
}


def _place_text(name: str, place: str) -> str:
    noun = name.removesuffix("_id").replace("_", " ")
    if name in _PARAMETERS:
        return _PARAMETERS[name]
    if place == "path":
        return f"Id of the {noun}." if name.endswith("_id") else f"The {noun}."
    return f"Only items with this {noun}."


def _operations(app: OpenAPI) -> list[tuple[str, str, Any]]:
    """(path as in the document, method in lower case, view) of every route of the API."""
    return [
        (_PARAMETER.sub(r"{\1}", rule.rule), method.lower(), app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(PREFIX)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]


def _with_bodies(app: OpenAPI, spec: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """The (endpoint, method) pairs of operations with a body."""
    return frozenset(
        (rule.endpoint, method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if "requestBody" in spec["paths"].get(_PARAMETER.sub(r"{\1}", rule.rule), {}).get(method.lower(), {})
    )
