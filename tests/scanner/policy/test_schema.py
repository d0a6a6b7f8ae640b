"""The JSON Schema accepts what the parser accepts, and explains every field."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from scanner import catalog
from scanner.policy.rules import default_policy
from scanner.policy.schema import HELP, policy_schema
from scanner.policy.starting_points import starting_points

HEAD = {"apiVersion": "dockwarden/v1", "kind": "Policy", "metadata": {"name": "x"}}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return policy_schema(catalog.known_names(), {name: check.title for name, check in catalog.checks().items()})


def accepts(schema: dict[str, Any], document: object) -> bool:
    return bool(jsonschema_rs.validator_for(schema).is_valid(document))


def test_every_field_is_explained(schema: dict[str, Any]) -> None:
    models = {"Policy": schema, **{name.lstrip("_"): each for name, each in schema["$defs"].items()}}
    fields = {f"{name}.{field}" for name, model in models.items() for field in model.get("properties", {})}
    assert fields == set(HELP)


def test_what_we_ship_is_valid(schema: dict[str, Any]) -> None:
    known = catalog.known_names()
    for text in (default_policy(known).text, *(each.text for each in starting_points(known))):
        assert accepts(schema, YAML(typ="safe", pure=True).load(text)), text


@pytest.mark.parametrize(
    "rule",
    [
        {"check": "root-user"},
        {"check": ["root-user", "dockle/CIS-DI-0001"]},
        {"tag": "secrets"},
        {"benchmark": ["cis-docker-1.6/4.1"]},
        {"vulnerability": {"severity": "critical"}, "grace": "72h"},
        {"vulnerability": {"severity": ["high"], "status": "will_not_fix", "engines": "all", "epss": 0.5}},
        {"signature": {"scheme": "cosign", "signers": ["somebody"], "require": 2}},
        {"when": "image.size > 1"},
    ],
)
def test_what_the_parser_accepts(schema: dict[str, Any], rule: dict[str, Any]) -> None:
    assert accepts(schema, {**HEAD, "rules": [{"id": "a", "action": "deny", **rule}]})


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"check": "root-users"},
        {"chek": "root-user"},
        {"check": "root-user", "when": "true"},
        {"vulnerability": {"severity": "fatal"}},
        {"vulnerability": {"severity": "high"}, "grace": "3 days"},
        {"signature": {"scheme": "pgp"}},
    ],
)
def test_what_the_parser_refuses(schema: dict[str, Any], rule: dict[str, Any]) -> None:
    assert not accepts(schema, {**HEAD, "rules": [{"id": "a", "action": "deny", **rule}]})
