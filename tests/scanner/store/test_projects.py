"""Projects: ``default`` is always there, a pattern has one owner, and a change of patterns moves what they match."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from scanner.errors import ConflictError
from scanner.services import inventory as inventory_cases
from scanner.store import inventory, projects
from scanner.store.schema import listing, running_workload
from scanner.store.session import Database
from tests.actors import ownerless
from tests.scanner.store import factories as make
from tests.scanner.store import recorded


def scanned(database: Database, repository: str, project: str) -> None:
    recorded.record(database, make.report(repository.rpartition("/")[2], repository=repository), project=project)


def test_default_is_there_before_and_after_its_first_change(database: Database) -> None:
    with database.session() as session:
        assert [view.name for view in projects.list_projects(session, None)] == [projects.DEFAULT]
        assert projects.update(session, projects.DEFAULT, description="the rest").description == "the rest"
        again = projects.update(session, projects.DEFAULT)
        assert [(view.name, view.description) for view in projects.list_projects(session, None)] == [
            ("default", "the rest")
        ]
        assert again.created_at is not None, "an update without a change leaves it as it is"


def test_a_name_and_a_pattern_have_one_owner(database: Database) -> None:
    with database.session() as session:
        projects.create(session, "shop", patterns=["registry.example.com/shop/**"])
        with pytest.raises(ConflictError) as name:
            projects.create(session, "shop")
        projects.create(session, "bank")
        with pytest.raises(ConflictError) as pattern:
            projects.update(session, "bank", patterns=["registry.example.com/shop/**"])
        assert "shop" in str(name.value)
        assert "project 'shop'" in str(pattern.value)
        assert projects.update(
            session, "shop", patterns=["registry.example.com/shop/**"], groups=["b", "a", "a"]
        ).groups
        assert projects.get(session, "bank").patterns == ()


def test_a_new_pattern_moves_images_and_workloads(database: Database) -> None:
    cart, other = "registry.example.com/shop/cart", "registry.example.com/tools/lint"
    scanned(database, cart, projects.DEFAULT)
    scanned(database, other, projects.DEFAULT)
    running = [
        {"name": name, "image": f"{repository}:1", "source": "kubernetes", "kind": "Pod"}
        for name, repository in (("cart", cart), ("lint", other))
    ]
    said = inventory_cases.Snapshot("production", "kubernetes", "cluster", 1, running)
    inventory_cases.report(database, ownerless("agent", "inventory"), said, "trivy")
    with database.session() as session:
        projects.create(session, "shop", patterns=["registry.example.com/shop/*"])
    with database.read() as session:
        owners = dict(session.execute(sa.select(listing.c.repository, listing.c.project)).all())
        workloads = dict(session.execute(sa.select(running_workload.c.name, running_workload.c.project)).all())
        of_shop = inventory.facets(session, frozenset({"shop"}))
        nobodys = inventory.facets(session, frozenset({"bank"}))
        figures = inventory.figures(session)
    assert owners == {cart: "shop", other: projects.DEFAULT}
    assert workloads == {"cart": "shop", "lint": projects.DEFAULT}
    assert of_shop["image"] == {cart: 1}
    assert of_shop["environment"] == {"production": 1}
    assert not any(nobodys.values())
    assert sum(figures.values()) == 2
    assert {environment for environment, _ in figures} == {"production"}
