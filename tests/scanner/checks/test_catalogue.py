"""The catalogue: every item of the benchmarks and of the lessons has a check of ours, or a reason; every check is
found by what it names.
"""

from __future__ import annotations

import json
import re

import pytest

from scanner import catalog
from scanner.checks import _catalogue, _peers
from scanner.checks.base import Check
from scanner.policy.rules import parse_policy

CHECKS = list(catalog.checks().values())
CATALOGUES = {
    "cis": {**_catalogue.CIS, **_catalogue.CIS_RUN},
    "dockle": _catalogue.DOCKLE,
    "trivy": {**_catalogue.TRIVY, **_catalogue.KSV},
    "pss": _catalogue.PSS,
    "kubesec": _peers.KUBESEC,
    "article": _catalogue.ARTICLE,
}
POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: one}
rules:
  - id: it
    %s
    action: warn
"""


@pytest.mark.parametrize(("name", "items"), CATALOGUES.items())
def test_no_item_is_without_an_answer(name: str, items: dict[str, str]) -> None:
    for item, reason in items.items():
        ours = [check.id for check in CHECKS if item in getattr(check, name, ())]
        assert ours or reason, f"{item} has neither a check nor a reason"
        assert "not checked yet" not in reason


def test_the_catalogues_are_whole() -> None:
    assert len(_catalogue.CIS) == 12
    assert len(_catalogue.DOCKLE) == 11 + 6 + 3
    assert len(_catalogue.TRIVY) == 28
    assert len(_catalogue.CIS_RUN) == 18 + 32 + 2 + 9
    assert len(_catalogue.PSS) == 19
    assert len(_peers.KUBESEC) == 23


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_check_names_items_that_there_are(check: Check) -> None:
    assert set(check.dockle) <= set(_catalogue.DOCKLE)
    assert set(check.trivy) <= {*_catalogue.TRIVY, *_catalogue.KSV}
    assert set(check.article) <= set(_catalogue.ARTICLE)
    assert set(getattr(check, "kubesec", ())) <= set(_peers.KUBESEC)
    # "5.13" is about containers, and the image's check of the same name judges whether they could
    assert set(check.cis) <= {*_catalogue.CIS, *_catalogue.CIS_RUN}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_a_policy_selects_it_by_id_tag_and_benchmark(check: Check) -> None:
    selectors = [
        f"check: {check.id}",
        *(f"tag: {tag}" for tag in check.tags),
        *(f"benchmark: {name}" for name in check.benchmarks),
    ]
    for selector in selectors:
        policy = parse_policy(POLICY % selector, known=catalog.known_names())
        assert check.id in policy.checks["it"], selector


def test_no_cell_of_the_page_is_empty() -> None:
    page = _catalogue.render("markdown", catalog.checks())
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > len(CHECKS) * 2 + 80
    for row in rows:
        assert all(cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]), row


def test_the_same_for_programs_and_terminals() -> None:
    listed = json.loads(_catalogue.render("json", catalog.checks()))
    assert [item["id"] for item in listed] == [check.id for check in CHECKS]
    assert all(item["looks_at"] and item["cannot_see"] and item["remedy"] and item["severity"] for item in listed)
    (root,) = [item for item in listed if item["id"] == "root-user"]
    assert {"cis-docker-1.6/4.1", "dockle/CIS-DI-0001", "trivy/DS-0002"} <= set(root["benchmarks"])
    text = _catalogue.render("table", catalog.checks())
    assert all(check.id in text and check.title in text for check in CHECKS)
