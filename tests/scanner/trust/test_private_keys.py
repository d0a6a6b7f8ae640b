"""A private key in a trust root: refused by its member's name in every scheme; nothing of it is stored or told."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scanner import catalog
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.services import trust_roots
from scanner.store.session import Database
from tests.scanner.trust.certificates import AUTHORITY, certify, ec_key, pem, rsa_key
from tests.scanner.trust.test_cosign import SEEN, SIGSTORE, STAMPED
from tests.scanner.trust.test_notation import trust

KEY = ec_key("pasted")
SECRET = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
BODY = "".join(SECRET.splitlines()[1:-1])
CA = pem(certify({"CN": "ca"}, KEY, AUTHORITY))
NOTARY = {"mode": "root_keys", "pem": [pem(KEY)], "server": "https://n.example", "ca": CA, "signers": ["alice"]}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "cosign": {**SEEN, **STAMPED, "keys": {"a": pem(KEY)}, "annotations": {"env": "prod"}},
    "notation": {**trust(), "scope": "registry.example/app"},
    "notary-v1": NOTARY,
}
ROOTED = {"keys": {"a": pem(KEY)}, "trusted_root": SIGSTORE.trusted_root()}


def texts(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every text in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    if isinstance(value, str):
        yield at
    for name, item in items:
        yield from texts(item, (*at, name))


PLACES = [
    (scheme, place)
    for scheme, document in (*DOCUMENTS.items(), ("cosign", ROOTED))
    for place in texts(json.loads(json.dumps(document)))
    if document is not ROOTED or place[0] == "trusted_root"
]


def pasted(scheme: str, place: tuple[Any, ...], text: str, *, after: bool) -> str:
    base = ROOTED if place[0] == "trusted_root" else DOCUMENTS[scheme]
    document = copy.deepcopy(json.loads(json.dumps(base)))
    *above, last = place
    inner = document
    for name in above:
        inner = inner[name]
    inner[last] = inner[last] + text if after else text
    return json.dumps(document)


@pytest.mark.parametrize(("scheme", "place"), PLACES, ids=lambda value: str(value))
@pytest.mark.parametrize("after", [True, False], ids=["after", "alone"])
@pytest.mark.parametrize("text", [SECRET, BODY], ids=["PEM", "base64"])
def test_a_private_key_in_any_member_is_refused(scheme: str, place: tuple[Any, ...], after: bool, text: str) -> None:
    document = pasted(scheme, place, ("\n" if after else "") + text, after=after)
    with pytest.raises(UsageError) as caught:
        catalog.schemes()[scheme].parse_trust(document.encode(), "trust.json")
    told = f"{caught.value} {caught.value.hint}"
    assert "this is a private key" in str(caught.value)
    assert ".".join(map(str, place)) in told
    assert BODY[:20] not in told
    assert BODY[-20:] not in told


@pytest.mark.parametrize("scheme", DOCUMENTS)
@pytest.mark.parametrize(
    "given",
    [
        SECRET.encode(),
        CA.encode() + SECRET.encode(),
        pem(KEY).encode() + SECRET.encode(),
        BODY.encode(),
        SECRET.encode("utf-16"),
        KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        base64.b64decode(BODY).hex().encode(),
    ],
    ids=["PEM", "after a certificate", "after a public key", "base64", "UTF-16", "DER", "hex"],
)
def test_a_private_key_in_place_of_a_document_is_refused(scheme: str, given: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.schemes()[scheme].parse_trust(given, "trust")
    assert "this is a private key" in str(caught.value)
    assert BODY[:20] not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("scheme", DOCUMENTS)
def test_nothing_of_it_is_stored(scheme: str, tmp_path: Path) -> None:
    database = Database.of(Settings(home=tmp_path))
    database.upgrade()
    with pytest.raises(UsageError), database.session() as session:
        trust_roots.write(session, "team", scheme, CA + SECRET, (), COMMAND_LINE)
    with database.session() as session:
        trust_roots.write(session, "team", scheme, json.dumps(DOCUMENTS[scheme]), (), COMMAND_LINE)
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or BODY[:40].encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("scheme", "place", "given", "label"),
    [
        ("cosign", ("keys", "a"), pem(KEY) + CA, "CERTIFICATE"),
        ("cosign", ("keys", "a"), CA, "CERTIFICATE"),
        ("cosign", ("fulcio", 0), CA + pem(KEY), "PUBLIC KEY"),
        ("cosign", ("rekor_keys", 0), CA, "CERTIFICATE"),
        ("cosign", ("tsa", 0), pem(KEY), "PUBLIC KEY"),
        ("notation", ("stores", "ca:acme", 0), CA + pem(KEY), "PUBLIC KEY"),
        ("notary-v1", ("pem", 0), CA, "CERTIFICATE"),
        ("notary-v1", ("ca",), CA + pem(KEY), "PUBLIC KEY"),
    ],
)
def test_a_block_that_does_not_belong_there_is_named(
    scheme: str, place: tuple[Any, ...], given: str, label: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.schemes()[scheme].parse_trust(pasted(scheme, place, given, after=False).encode(), "trust.json")
    assert f"it contains a block BEGIN {label}" in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "place"), [("cosign", ("keys", "a")), ("notation", ("stores", "ca:acme", 0)), ("notary-v1", ("ca",))]
)
def test_of_pem_only_the_blocks_are_kept(scheme: str, place: tuple[Any, ...]) -> None:
    kept = catalog.schemes()[scheme].parse_trust(
        pasted(scheme, place, "\nBag Attributes: hunter2\n", after=True).encode(), "trust.json"
    )
    assert "hunter2" not in json.dumps(kept)


def test_a_bare_seed_is_not_told() -> None:
    """Raw key bytes look like any word, so a word that could be some is not repeated."""
    seed = base64.b64encode(rsa_key().private_numbers().d.to_bytes(256)[:32]).decode()
    for scheme in DOCUMENTS:
        with pytest.raises(UsageError) as caught:
            catalog.schemes()[scheme].parse_trust(seed.encode(), "trust")
        assert seed not in str(caught.value)
