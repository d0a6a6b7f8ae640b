"""A reader of OpenVEX 0.2.0 documents: statements about vulnerabilities in products.

``exempted`` applies the statements. A document with an unreadable statement is refused as a whole, because a later
statement can revoke an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from scanner.errors import UsageError
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.model.vex import VexStatement, VexStatus

LIMIT = 1 << 20  # bytes of a document
# A document of 1 MiB can contain many products per statement; each becomes a row.
_MOST_STATEMENTS, _MOST_PRODUCTS = 5_000, 20_000
_CONTEXTS = tuple(f"https://openvex.dev/ns{version}" for version in ("", "/v0.2.0", "/v0.2.1", "/v0.2.2"))
# OpenVEX 0.2.0, "Status Justifications".
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)


@dataclass(frozen=True)
class VexDocument:
    """A document: author, statements and timestamp."""

    id: str
    author: str
    version: str
    statements: tuple[VexStatement, ...]


def parse(data: bytes) -> VexDocument:
    """Read a document. Raises UsageError(reason="bad_vex") with the location of the error."""
    found = load_untrusted_json(data, limit=LIMIT, error=UsageError, reason="bad_vex")
    document = _object(found, "the document")
    if document.get("@context") not in _CONTEXTS:
        raise _refused_document(
            "@context", "not an OpenVEX 0.2 document", hint=f"it begins with @context {_CONTEXTS[1]}"
        )
    stated = document.get("statements")
    if not isinstance(stated, list) or not stated:
        raise _refused_document("statements", "must not be empty")
    if len(stated) > _MOST_STATEMENTS:
        raise _refused_document("statements", f"more than {_MOST_STATEMENTS}")
    author = _text(document, "author", "author", 400)
    when = _moment(document.get("timestamp"), "timestamp")
    statements = [one for number, item in enumerate(stated) for one in _statements(item, number, author, when)]
    # Counted after products were multiplied out: 5,000 statements of 5,000 products each fit into 1 MiB by short
    # names.
    if len(statements) > _MOST_PRODUCTS:
        raise _refused_document("statements", f"more than {_MOST_PRODUCTS} products")
    identifier = clean_text(str(document.get("@id") or ""), 1000)
    return VexDocument(identifier, author, clean_text(str(document.get("version") or ""), 64), tuple(statements))


def _statements(item: Any, number: int, author: str, when: datetime | None) -> Iterator[VexStatement]:
    """Return one statement for each product, because subcomponents restrict only their own product."""
    place = f"statements/{number}"
    statement = _object(item, place)
    status = statement.get("status")
    if status not in list(VexStatus):
        raise _refused_document(f"{place}/status", "not one of " + ", ".join(VexStatus))
    justification = str(statement.get("justification") or "")
    # OpenVEX 0.2.0: an affected product has an action statement (what to do) where the others have an impact statement.
    own = statement.get("action_statement") if status == VexStatus.AFFECTED else None
    impact = clean_text(str(own or statement.get("impact_statement") or ""), 2000)
    if justification and justification not in JUSTIFICATIONS:
        raise _refused_document(
            f"{place}/justification", "not one of OpenVEX's", hint=", ".join(sorted(JUSTIFICATIONS))
        )
    # OpenVEX 0.2.0 requires one of the two for `not_affected`. An impact statement alone is kept, but hides nothing
    # (`exempted.not_affected`).
    if status == VexStatus.NOT_AFFECTED and not justification and not impact:
        raise _refused_document(f"{place}/justification", "not_affected needs a justification")
    products = statement.get("products")
    if not isinstance(products, list) or not products:
        raise _refused_document(f"{place}/products", "must not be empty: a statement names its products")
    stated_at = _moment(statement.get("timestamp"), f"{place}/timestamp") or when
    for index, entry in enumerate(products):
        named = f"{place}/products/{index}"
        product = _object(entry, named)
        parts = [] if (given := product.get("subcomponents")) is None else given
        if not isinstance(parts, list):
            raise _refused_document(f"{named}/subcomponents", "not a list")
        yield VexStatement(
            vulnerability=_vulnerability(statement.get("vulnerability"), place),
            products=_names(product, named),
            status=VexStatus(status),
            justification=justification,
            impact=impact,
            author=author,
            timestamp=stated_at,
            subcomponents=tuple(
                name
                for position, part in enumerate(parts)
                for name in _names(_object(part, f"{named}/subcomponents/{position}"), named)
            ),
        )


def _vulnerability(value: Any, place: str) -> str:
    name = value.get("name") or value.get("@id") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name.strip() or len(name) > 128:
        raise _refused_document(f"{place}/vulnerability", "has no name")
    # `@id` may be a URL of the vulnerability, whose last part is the CVE.
    return clean_text(name.rpartition("/")[2].strip(), 128)


def _names(component: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return the identifiers of a product: purls and image digests."""
    identifiers = component.get("identifiers")
    hashes = component.get("hashes")
    given = [component.get("@id")]
    given += [identifiers.get("purl")] if isinstance(identifiers, Mapping) else []
    given += [f"sha256:{hashes.get('sha-256')}"] if isinstance(hashes, Mapping) and hashes.get("sha-256") else []
    names = [clean_text(name.strip(), 1000) for name in given if isinstance(name, str) and name.strip()]
    if not names:
        raise _refused_document(place, "has no @id, purl or hash")
    # A purl of an image contains its digest as version. Evidence is matched by digest.
    digests = [
        unquote(n.partition("?")[0].rpartition("@")[2]) for n in names if n.startswith(("pkg:oci/", "pkg:docker/"))
    ]
    return tuple(dict.fromkeys([*names, *(d for d in digests if d.startswith("sha256:"))]))


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refused_document(place, "not a JSON object")
    return value


def _text(document: Mapping[str, Any], name: str, place: str, limit: int) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _refused_document(place, "is missing")
    return clean_text(value, limit)


def _moment(value: Any, place: str) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise _refused_document(place, "not a time (RFC 3339)") from error
    if found.tzinfo is None:
        raise _refused_document(place, "has no time zone")
    return found


def _refused_document(place: str, what: str, hint: str = "") -> UsageError:
    return UsageError(f"{place}: {what}", reason="bad_vex", hint=hint or "see https://openvex.dev (version 0.2.0)")
