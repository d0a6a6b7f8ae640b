"""The fields of a registry: every place that has to know a field knows it, so that none is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.commands.registry import registry as command
from scanner.model import registry
from scanner.model.registry import NAMES, RegistryChanges, RegistryFields
from scanner.store import schema
from web.api import registries as api

TEMPLATES = Path(__file__).parents[3] / "web/templates"


def test_a_field_can_be_held_and_changed() -> None:
    assert tuple(RegistryChanges.__annotations__) == NAMES
    assert registry.values(RegistryFields()) == {name: getattr(RegistryFields(), name) for name in NAMES}
    assert set(NAMES) <= set(schema.registry.c.keys())


@pytest.mark.parametrize(
    "model", [api.RegistryIn, api.RegistryChange, api.RegistryOut], ids=lambda model: model.__name__
)
def test_the_api_has_every_field(model: type[api.RegistrySettings]) -> None:
    assert set(NAMES) <= set(model.model_fields)


def test_the_api_keeps_bounds_where_values_come_in() -> None:
    change = api.RegistryChange.model_json_schema()["properties"]
    assert (
        change["ca_pem"]["anyOf"][0]["maxLength"]
        == api.RegistryIn.model_json_schema()["properties"]["ca_pem"]["maxLength"]
    )
    assert "required" not in api.RegistryChange.model_json_schema()
    assert set(api.RegistryOut.model_json_schema()["required"]) == set(api.RegistryOut.model_fields)
    assert "password" not in api.RegistryOut.model_fields


def test_the_commands_have_every_field() -> None:
    offered = {
        name: {option.name for option in command.commands[name].params} for name in ("add", "edit", "credentials")
    }
    assert set(NAMES) - {"ca_pem"} <= offered["add"]
    assert set(NAMES) - {"ca_pem"} <= offered["edit"] | offered["credentials"]


def test_the_forms_have_every_field() -> None:
    """Both pages take them from one template."""
    page = (TEMPLATES / "registry_fields.html").read_text("utf-8")
    assert [name for name in NAMES if f'name="{name}"' not in page] == []
    for template in ("registries.html", "registry_edit.html"):
        text = (TEMPLATES / template).read_text("utf-8")
        assert "fields.credentials(" in text
        assert "fields.connection(" in text


def test_a_change_keeps_the_rest_and_text_of_a_list_is_no_list() -> None:
    before = RegistryFields(username="scan", aliases=("a.example",))
    after = registry.changed_fields(before, {"aliases": ["b.example", "c.example"], "insecure": True})
    assert (after.aliases, after.insecure, after.username) == (("b.example", "c.example"), True, "scan")
    assert registry.changes({"username": "x", "host": "evil.example", "id": "1"}) == {"username": "x"}
    assert registry.changed_fields(before, registry.anonymous()).username == ""
