"""Trust roots: public, validated by their scheme, versioned; and what policies may name of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from scanner.store.session import Database
from tests.scanner.trust.simulator import Sim, certified, private
from tests.web.conftest import Api

PINNED = {
    "scheme": "notary-v1",
    "scope": ["registry.example.com/shop/**"],
    "document": {"mode": "cert_ids", "ids": ["a" * 64]},
}
POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: signed}
rules:
  - id: signed
    signature: {scheme: %s, signers: [%s]}
    action: deny
"""


def secret() -> str:
    key = private("web")
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def test_written_read_edited_removed(api: Api) -> None:
    assert api("GET", "/trust-roots").json["items"] == []
    made = api("PUT", "/trust-roots/team", PINNED)
    assert (made.status_code, made.json["version"]) == (201, 1)
    etag = made.headers["ETag"]
    assert api("PUT", "/trust-roots/team", PINNED).status_code == 428
    assert api("PUT", "/trust-roots/team", PINNED, headers={"If-Match": '"7"'}).status_code == 412
    same = api("PUT", "/trust-roots/team", PINNED, headers={"If-Match": etag})
    assert (same.status_code, same.json["version"]) == (200, 1), "nothing changed"
    edited = api("PUT", "/trust-roots/team", {**PINNED, "document": "tofu"}, headers={"If-Match": etag})
    assert (edited.json["version"], edited.json["document"]) == (2, {"mode": "tofu"})
    assert api("GET", "/trust-roots/team").headers["ETag"] != etag
    assert api("DELETE", "/trust-roots/team").status_code == 204
    assert api("GET", "/trust-roots/team").status_code == 404
    assert api("DELETE", "/trust-roots/team").status_code == 404
    again = api("PUT", "/trust-roots/team", PINNED)
    assert (again.status_code, again.json["version"]) == (201, 3), "versions are never used twice"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a scheme that is none": ({**PINNED, "scheme": "pgp"}, "there is no signature scheme"),
    "a field that is none": ({**PINNED, "document": {"mode": "tofu", "idz": []}}, "unknown field 'idz'"),
    "a mode that is none": ({**PINNED, "document": {"mode": "hope"}}, "mode: 'hope' is not a mode"),
    "an id that is none": ({**PINNED, "document": {"mode": "cert_ids", "ids": ["A" * 64]}}, "ids: "),
    "nothing pinned": ({**PINNED, "document": {"mode": "cert_ids", "ids": []}}, "ids: a list of strings"),
    "no CA": ({**PINNED, "document": {"mode": "ca", "pem": "x"}}, "not PEM certificates"),
    "no key": ({**PINNED, "document": {"mode": "root_keys", "pem": ["x"]}}, "not a public key"),
    "no root": ({**PINNED, "document": {"mode": "root_json", "root_json": "{}"}}, "root_json: "),
    "a server without TLS": ({**PINNED, "document": {"mode": "tofu", "server": "http://notary.example"}}, "https://"),
    "a server with a password": (
        {**PINNED, "document": {"mode": "tofu", "server": "https://a:b@notary.example"}},
        "https://",
    ),
    "a private key": ({**PINNED, "document": secret()}, "private key"),
    "a private key inside": ({**PINNED, "document": {"mode": "root_keys", "pem": [secret()]}}, "private key"),
    "a word": ({**PINNED, "document": "trustme"}, "nor a key id nor 'tofu'"),
    "half a character": ({**PINNED, "document": "\ud800"}, ""),
    "no pattern": ({**PINNED, "scope": ["a b"]}, "not a pattern"),
    "an open brace": ({**PINNED, "document": "{"}, "JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(api: Api, name: str) -> None:
    body, words = BAD[name]
    answer = api("PUT", "/trust-roots/team", body)
    assert answer.status_code in (400, 422), answer.text
    assert words in answer.text
    assert "BEGIN PRIVATE" not in answer.text
    assert api("GET", "/trust-roots").json["items"] == []


@pytest.mark.parametrize("given", ["ids", "keys", "root"])
def test_what_a_person_has_at_hand_is_understood(api: Api, given: str) -> None:
    root = certified("root")
    public = private("root").public_key()
    texts = {
        "ids": (root.certificates.decode(), {"mode": "cert_ids", "ids": [root.id]}),
        "keys": (
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
            {"mode": "root_keys"},
        ),
        "root": (Sim().root().decode(), {"mode": "root_json"}),
    }
    text, expected = texts[given]
    made = api("PUT", "/trust-roots/team", {"scheme": "notary-v1", "document": text})
    assert made.status_code == 201, made.text
    assert made.json["document"].items() >= expected.items()
    again = api("PUT", "/trust-roots/other", {"scheme": "notary-v1", "document": made.json["document"]})
    assert again.json["document"] == made.json["document"], "what is stored is accepted again"


def test_policies_name_signers_that_there_are(api: Api) -> None:
    def write(scheme: str, signer: str) -> Any:
        return api("PUT", "/policies/signed", {"text": POLICY % (scheme, signer)})

    refused = write("notary-v1", "alice")
    assert refused.status_code == 422
    assert "line 6, column 36" in refused.text
    assert "add a trust root first" in refused.text
    document = {"mode": "tofu", "signers": ["alice"]}
    api("PUT", "/trust-roots/team", {"scheme": "notary-v1", "document": document})
    assert "did you mean 'alice'" in write("notary-v1", "alicf").text
    assert write("cosign", "alice").status_code == 422, "she signs by another scheme"
    assert write("notary-v1", "team").status_code == 201
    in_use = api("DELETE", "/trust-roots/team")
    assert (in_use.status_code, in_use.json["reason"]) == (409, "in_use")
    api("PUT", "/policies/signed/enabled", {"enabled": False})
    assert api("DELETE", "/trust-roots/team").status_code == 204


def test_a_root_that_names_no_signers_lets_policies_name_any(api: Api) -> None:
    api("PUT", "/trust-roots/team", {"scheme": "notary-v1", "document": "tofu"})
    assert api("PUT", "/policies/signed", {"text": POLICY % ("notary-v1", "anybody")}).status_code == 201


def test_only_those_who_write_policies_change_them(api: Api, make_token: Callable[..., str]) -> None:
    reader = Api(api.client, make_token("read"))
    assert reader("GET", "/trust-roots").status_code == 200
    assert reader("PUT", "/trust-roots/team", PINNED).status_code == 403
    of_one_project = Api(api.client, make_token("policy", projects=("shop",)))
    assert of_one_project("PUT", "/trust-roots/team", PINNED).status_code == 403, "it is everybody's"


def test_every_change_is_in_the_audit_log(api: Api, database: Database) -> None:
    api("PUT", "/trust-roots/team", PINNED)
    api("DELETE", "/trust-roots/team")
    actions = [item["action"] for item in api("GET", "/audit-log").json["items"]]
    assert {"trust_root.write", "trust_root.remove"} <= set(actions)
