"""What the published schemas of SARIF and GitLab demand of the members that our reports have.

Written from the schemas' own rules, for the part that we use: SARIF 2.1.0 (OASIS) and GitLab's container scanning
report 15.2.1. A member that is not listed here is refused, so that a new one makes somebody look the rule up.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string", "minLength": 1}
SECONDS = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}"


def thing(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these members and no others."""
    members = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": members, "additionalProperties": False}


def many(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, **more}


_TOOL = thing({"id": TEXT, "name": TEXT, "version": TEXT, "vendor": thing({"name": TEXT})})
_LINK = {"type": "string", "pattern": "^(https?|ftp)://.+"}

GITLAB = thing(
    {
        "version": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
        "scan": thing(
            {
                "analyzer": _TOOL,
                "scanner": _TOOL,
                "type": {"enum": ["container_scanning", "container_scanning_for_registry"]},
                "start_time": {"type": "string", "pattern": SECONDS + "$"},
                "end_time": {"type": "string", "pattern": SECONDS + "$"},
                "status": {"enum": ["success", "failure"]},
            },
            {"messages": many(thing({"level": {"enum": ["info", "warn", "fatal"]}, "value": TEXT}))},
        ),
        "vulnerabilities": many(
            thing(
                {
                    "id": TEXT,
                    "identifiers": many(thing({"type": TEXT, "name": TEXT, "value": TEXT}, {"url": _LINK}), minItems=1),
                    "location": thing(
                        {
                            "dependency": thing(
                                {"package": thing({"name": {"type": "string"}}), "version": {"type": "string"}}
                            ),
                            "operating_system": TEXT,
                            "image": TEXT,
                        }
                    ),
                },
                {
                    "name": {"type": "string", "maxLength": 255},
                    "description": {"type": "string", "maxLength": 1048576},
                    "severity": {"enum": ["Info", "Unknown", "Low", "Medium", "High", "Critical"]},
                    "solution": {"type": "string", "maxLength": 7000},
                    "links": many(thing({"url": _LINK})),
                },
            )
        ),
    },
    {"remediations": {"type": "array", "maxItems": 0}},
)

_MESSAGE = thing({"text": {"type": "string"}})
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_BAG = {"type": "object", "properties": {"tags": many({"type": "string"}, uniqueItems=True)}}
_INDEX = {"type": "integer", "minimum": -1}

SARIF = thing(
    {
        "version": {"const": "2.1.0"},
        "runs": many(
            thing(
                {
                    "tool": thing(
                        {
                            "driver": thing(
                                {"name": {"type": "string"}},
                                {
                                    "version": {"type": "string"},
                                    "rules": many(
                                        thing(
                                            {"id": {"type": "string"}},
                                            {
                                                "shortDescription": _MESSAGE,
                                                "fullDescription": _MESSAGE,
                                                "helpUri": {"type": "string", "format": "uri"},
                                                "properties": _BAG,
                                            },
                                        ),
                                        uniqueItems=True,
                                    ),
                                },
                            )
                        }
                    )
                },
                {
                    "invocations": many(
                        thing(
                            {"executionSuccessful": {"type": "boolean"}},
                            {
                                "endTimeUtc": {"type": "string", "format": "date-time"},
                                "toolExecutionNotifications": many(
                                    thing(
                                        {"message": _MESSAGE},
                                        {"level": _LEVEL, "descriptor": thing({"id": {"type": "string"}})},
                                    )
                                ),
                            },
                        )
                    ),
                    "results": many(
                        thing(
                            {"message": _MESSAGE},
                            {
                                "ruleId": {"type": "string"},
                                "ruleIndex": _INDEX,
                                "level": _LEVEL,
                                "locations": many(
                                    thing(
                                        {},
                                        {
                                            "physicalLocation": thing(
                                                {
                                                    "artifactLocation": thing(
                                                        {"uri": {"type": "string", "format": "uri-reference"}}
                                                    )
                                                },
                                                {"region": thing({"startLine": {"type": "integer", "minimum": 1}})},
                                            ),
                                            "logicalLocations": many(
                                                thing(
                                                    {},
                                                    {
                                                        key: {"type": "string"}
                                                        for key in ("name", "fullyQualifiedName", "kind")
                                                    },
                                                ),
                                                uniqueItems=True,
                                            ),
                                        },
                                    )
                                ),
                                "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
                                "properties": _BAG,
                                "suppressions": many(
                                    thing(
                                        {"kind": {"enum": ["inSource", "external"]}},
                                        {
                                            "status": {"enum": ["accepted", "underReview", "rejected"]},
                                            "justification": {"type": "string"},
                                        },
                                    ),
                                    uniqueItems=True,
                                ),
                            },
                        )
                    ),
                    "properties": _BAG,
                },
            )
        ),
    },
    {"$schema": {"type": "string", "format": "uri"}},
)
