"""OpenVEX documents: read whole, or refused with the place that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scanner.errors import UsageError
from scanner.model.vex import VexStatus
from scanner.policy import openvex

DIGEST = "sha256:" + "a" * 64
DOCUMENT: dict[str, Any] = {
    "@context": "https://openvex.dev/ns/v0.2.0",
    "@id": "https://example.com/vex/1",
    "author": "Example security",
    "timestamp": "2026-11-01T10:00:00Z",
    "version": 1,
    "statements": [
        {
            "vulnerability": {"name": "CVE-2026-1"},
            "products": [{"@id": "pkg:deb/debian/lib1@1.1", "subcomponents": []}],
            "status": "not_affected",
            "justification": "vulnerable_code_not_in_execute_path",
        }
    ],
}


def changed(statement: dict[str, Any] | None = None, **members: Any) -> bytes:
    stated = [{**DOCUMENT["statements"][0], **(statement or {})}]
    return json.dumps({**DOCUMENT, "statements": stated, **members}).encode()


def test_a_document_is_read_into_statements() -> None:
    found = openvex.parse(changed())
    assert (found.id, found.author, found.version) == ("https://example.com/vex/1", "Example security", "1")
    (statement,) = found.statements
    assert statement.vulnerability == "CVE-2026-1"
    assert statement.products == ("pkg:deb/debian/lib1@1.1",)
    assert statement.status is VexStatus.NOT_AFFECTED
    assert statement.timestamp is not None


def test_an_image_is_known_by_its_digest_and_narrowed_to_its_parts() -> None:
    product = {
        "@id": f"pkg:oci/cart@{DIGEST.replace(':', '%3A')}?repository_url=registry.example.com",
        "subcomponents": [{"@id": "pkg:deb/debian/lib1@1.1"}],
    }
    (statement,) = openvex.parse(changed({"products": [product]})).statements
    assert DIGEST in statement.products
    assert statement.subcomponents == ("pkg:deb/debian/lib1@1.1",)


@pytest.mark.parametrize(
    ("vulnerability", "name"),
    [
        ("CVE-2026-2", "CVE-2026-2"),
        ({"@id": "https://nvd.nist.gov/vuln/detail/CVE-2026-2"}, "CVE-2026-2"),
        ({"name": "GHSA-x", "aliases": ["CVE-2026-2"]}, "GHSA-x"),
    ],
)
def test_a_vulnerability_is_named_in_several_ways(vulnerability: object, name: str) -> None:
    (statement,) = openvex.parse(changed({"vulnerability": vulnerability})).statements
    assert statement.vulnerability == name


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"{", ""),
        (b"[]", "the document"),
        (changed(**{"@context": "https://evil.example"}), "@context"),
        (changed(author=""), "author"),
        (changed(timestamp="yesterday"), "timestamp"),
        (changed(timestamp="2026-11-01T10:00:00"), "timestamp"),
        (changed(statements=[]), "statements"),
        (changed(statements={"a": 1}), "statements"),
        (changed(statements=[1]), "statements/0"),
        (changed(statements=[DOCUMENT["statements"][0]] * 5001), "statements"),
        (changed({"status": "safe"}), "statements/0/status"),
        (changed({"justification": ""}), "statements/0/justification"),
        (changed({"justification": "trust me"}), "statements/0/justification"),
        (changed({"products": []}), "statements/0/products"),
        (changed({"products": [{}]}), "statements/0/products/0"),
        (changed({"products": [{"@id": "pkg:a/b", "subcomponents": [{}]}]}), "statements/0/products/0"),
        (changed({"products": [{"@id": "pkg:a/b", "subcomponents": {}}]}), "statements/0/products/0/subcomponents"),
        (changed({"products": [{"@id": "pkg:a/b"}] * 20_001}), "statements: more than"),
        (changed({"vulnerability": {}}), "statements/0/vulnerability"),
        (changed({"vulnerability": "x" * 200}), "statements/0/vulnerability"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_read(data: bytes, place: str) -> None:
    with pytest.raises(UsageError) as refused:
        openvex.parse(data)
    assert refused.value.reason == "bad_vex"
    assert str(refused.value).startswith(place)


def test_the_text_of_a_statement_is_that_of_its_status() -> None:
    """An affected product has an action statement in OpenVEX. Ignored, what to do was shown nowhere."""
    texts = {"impact_statement": "what it does", "action_statement": "what to do"}
    for status, said in (("affected", "what to do"), ("fixed", "what it does"), ("not_affected", "what it does")):
        (statement,) = openvex.parse(changed({"status": status, **texts})).statements
        assert statement.impact == said
    (older,) = openvex.parse(changed({"status": "affected", "impact_statement": "what it does"})).statements
    assert older.impact == "what it does"
