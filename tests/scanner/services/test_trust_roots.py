"""Trust roots: what an earlier version stored, and patterns that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scanner.config import Secret
from scanner.errors import ConflictError, UsageError
from scanner.model.actor import COMMAND_LINE, SERVICE
from scanner.services import policies, trust_roots
from scanner.store import audit, trust
from scanner.store.session import Database
from tests.databases import migrated_url
from tests.scanner.trust.certificates import ec_key, pem

KEY = Secret("a key that chains the audit log, long enough")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(migrated_url("sqlite", tmp_path), KEY)


def store(database: Database, name: str, document: dict[str, Any]) -> None:
    """As an earlier version did, which looked at nothing."""
    with database.session() as session:
        trust.put(session, name, "cosign", document, ["**"], "ada")


def test_a_private_key_that_was_stored_is_erased(database: Database, tmp_path: Path) -> None:
    key = ec_key("stored")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = pem(key)
    store(database, "newest", {"keys": {"release": private}})
    store(database, "former", {"keys": {"release": private}})
    store(database, "former", {"keys": {"release": public}})
    store(database, "gone", {"keys": {"release": private}})
    store(database, "good", {"keys": {"release": public}})
    with database.session() as session:
        trust.remove(session, "gone")
        assert trust_roots.erase_private_keys(session, SERVICE) == ("newest",)
    with database.session() as session:
        assert trust_roots.erase_private_keys(session, SERVICE) == ()
        assert [(root.name, root.version) for root in trust.list_roots(session)] == [("former", 2), ("good", 1)]
        erased = {entry.object: entry.detail for entry in audit.list_entries(session, limit=20).items}
        assert erased == {
            "newest": {"erased": [1], "removed": True},
            "former": {"erased": [1], "removed": False},
            "gone": {"erased": [1], "removed": False},
        }
        assert audit.verify(session, KEY).broken is None
        again = trust_roots.write(session, "newest", "cosign", public, [], COMMAND_LINE)
        assert again.version == 2
    database.engine.dispose()
    body = private.splitlines()[1][:40].encode()
    assert all(body not in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


@pytest.mark.parametrize("pattern", ["a*" * 40, "a" * 301, "a b", "x/\n**", "é/**", "?" * 40])
def test_a_scope_that_is_no_pattern_is_refused(database: Database, pattern: str) -> None:
    with database.session() as session, pytest.raises(UsageError, match="not a pattern") as refused:
        trust_roots.write(session, "root", "cosign", pem(ec_key("a")), [pattern], COMMAND_LINE)
    assert refused.value.field == "scope"


POLICY = """\
apiVersion: dockwarden/v1
kind: Policy
metadata: {name: signed}
rules:
  - {id: not-root, check: root-user, action: deny}
  - {id: by-release, signature: {scheme: cosign, signers: [release]}, action: deny}
"""


def test_a_root_that_a_policy_names_stays(database: Database) -> None:
    """Without it, the policy would deny every image, and nobody who removes a root expects that."""
    public = pem(ec_key("a"))
    with database.session() as session:
        for name in ("release", "other"):
            trust_roots.write(session, name, "cosign", public, [], COMMAND_LINE)
        policies.write(session, COMMAND_LINE, "signed", POLICY, if_version=None)
        with pytest.raises(ConflictError, match="by-release") as refused:
            trust_roots.remove(session, "release", COMMAND_LINE)
        assert refused.value.reason == "in_use"
        trust_roots.remove(session, "other", COMMAND_LINE)
        assert [root.name for root in trust.list_roots(session)] == ["release"]
        assert trust_roots.depends_on_notary(session) == ()
