"""Keys of receipts in a real PKCS#11 token: SoftHSM2."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute

from scanner.config import Secret, Settings
from scanner.errors import RemoteError, UsageError
from scanner.model.actor import SERVICE
from scanner.services import receipts as use_cases
from scanner.store import audit, receipts
from scanner.store.session import Database
from scanner.trust import _receipts as signing
from scanner.trust._pkcs11 import Token, is_reference
from scanner.trust._pki import load_public_key
from scanner.trust.base import SignatureRefused
from tests.databases import migrated_url
from tests.scanner.trust.test_receipts import facts
from tests.servers import need

KEY = Secret("a secret key for tests, long enough")
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "pin-7203"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """A token of SoftHSM2. Its library reads the configuration once a process, so there is one for all tests."""
    program = need("softhsm2-util", "softhsm2")
    directory = tmp_path_factory.mktemp("softhsm")
    (directory / "tokens").mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(configuration))
        arguments = ("--init-token", "--free", "--label", "receipts of shop", "--pin", PIN, "--so-pin", PIN)
        subprocess.run([program, *arguments], check=True, capture_output=True)
        yield Token(MODULE, "receipts of shop", Secret(PIN))


@pytest.fixture
def signer(settings: Settings, token: Token) -> use_cases.Signer:
    return use_cases.Signer(
        replace(
            settings,
            receipt_pkcs11_module=token.module,
            receipt_pkcs11_token=token.label,
            receipt_pkcs11_pin=token.pin,
        ),
        KEY,
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(migrated_url("sqlite", tmp_path))
    yield found
    found.engine.dispose()


def test_a_key_of_the_token_signs_and_is_never_given_out(token: Token) -> None:
    reference, public_pem = token.create()
    public = serialization.load_pem_public_key(public_pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert is_reference(reference)
    assert reference.reveal().startswith("pkcs11:token=receipts%20of%20shop;id=%")
    assert PIN not in reference.reveal()
    public.verify(token.sign(reference, b"said"), b"said", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(token.sign(reference, b"said"), b"other", ec.ECDSA(hashes.SHA256()))
    with pkcs11.lib(str(MODULE)).get_token(token_label=token.label).open(user_pin=PIN) as session:
        (private,) = (
            key
            for key in session.get_objects({Attribute.ID: token._id(reference)})
            if isinstance(key, pkcs11.PrivateKey)
        )
        assert private[Attribute.EXTRACTABLE] is False
        with pytest.raises(pkcs11.PKCS11Error):
            _ = private[Attribute.VALUE]


def test_a_receipt_that_a_token_signed_is_verified_like_any_other(token: Token) -> None:
    private, key_id, public_pem = signing.create_key(token)
    (payload, *_) = signing.statements(facts()).values()
    envelope = signing.sign(payload, private, token)
    (signed,) = signing.parse(envelope.encode())
    expected = signing.ExpectedReceipt(facts().issued_at, environment=facts().environment)
    found = signing.verify(signed, [load_public_key(public_pem)], expected)
    assert found is not None
    assert found.keyid == key_id
    _, _, foreign = signing.create_key()
    with pytest.raises(SignatureRefused):
        signing.verify(signed, [load_public_key(foreign)], expected)
    with pytest.raises(UsageError, match="none is configured"):
        signing.sign(payload, private)


def test_a_deleted_key_signs_no_more(token: Token) -> None:
    reference, _ = token.create()
    token.destroy(reference)
    token.destroy(reference)
    with pytest.raises(RemoteError, match="NoSuchKey") as error:
        token.sign(reference, b"said")
    assert error.value.reason == "token_unavailable"
    assert "rotate-key" in error.value.hint


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"pin": Secret("wrong-pin-9")}, "RECEIPT_PKCS11_PIN"),
        ({"label": "another"}, "no token has the label"),
        ({"module": Path("/nonexistent/module.so")}, "docs/receipts.md"),
    ],
)
def test_a_token_that_cannot_be_used_says_why_and_tells_no_pin(
    token: Token, changed: dict[str, object], hint: str
) -> None:
    wrong = replace(token, **changed)  # type: ignore[arg-type]
    with pytest.raises(RemoteError) as error:
        wrong.create()
    assert error.value.reason == "token_unavailable"
    assert hint in error.value.hint
    assert not error.value.retryable
    assert "pin-" not in f"{error.value}{error.value.hint}{wrong!r}"


def test_a_key_of_another_token_is_refused_by_name(token: Token) -> None:
    reference, _ = token.create()
    with pytest.raises(UsageError, match="is in the PKCS#11 token 'receipts of shop', not in 'other'"):
        replace(token, label="other").sign(reference, b"said")
    with pytest.raises(UsageError, match="not a PKCS#11 URI"):
        token.sign(Secret("pkcs11:token=receipts%20of%20shop"), b"said")


@pytest.mark.parametrize(
    ("module", "label", "missing"), [(None, "shop", "_PKCS11_MODULE"), (MODULE, "", "_PKCS11_TOKEN")]
)
def test_half_a_configuration_names_the_missing_setting(
    settings: Settings, module: Path | None, label: str, missing: str
) -> None:
    with pytest.raises(UsageError, match=missing):
        Token.of(replace(settings, receipt_pkcs11_module=module, receipt_pkcs11_token=label))
    assert Token.of(settings) is None


def test_the_next_key_is_created_in_the_token_and_former_ones_are_deleted_from_it(
    database: Database, signer: use_cases.Signer, settings: Settings, token: Token
) -> None:
    plain = use_cases.Signer(settings, KEY)
    with database.session() as session:
        use_cases.published_keys(session, plain, SERVICE)  # before the token was configured
        second = use_cases.rotate_key(session, signer, SERVICE, overlap_hours=0)
        reference = receipts.private_key(session, second.id, KEY)
        assert is_reference(reference)
        assert token.sign(reference, b"said")
        third = use_cases.rotate_key(session, signer, SERVICE, overlap_hours=0)
        revoked = receipts.private_key(session, third.id, KEY)
        use_cases.revoke_key(session, signer, SERVICE, third.key_id)
        assert token.sign(reference, b"said"), "the one before signs again"
        use_cases.rotate_key(session, signer, SERVICE, overlap_hours=0)
        use_cases._signing_key(session, signer, SERVICE)
        told = [dict(entry.detail) for entry in audit.list_entries(session).items if "token" in entry.detail]
    assert {detail["token"] for detail in told} == {"receipts of shop"}
    for former in (revoked, reference):
        with pytest.raises(RemoteError, match="NoSuchKey"):
            token.sign(former, b"said")


def test_a_token_that_is_gone_keeps_no_key_from_being_revoked(
    database: Database, signer: use_cases.Signer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with database.session() as session:
        (made,) = use_cases.published_keys(session, signer, SERVICE)
        gone = use_cases.Signer(replace(signer.settings, receipt_pkcs11_pin=Secret("wrong-pin-9")), KEY)
        use_cases._destroy(session, gone, made.id)
        assert use_cases.revoke_key(session, use_cases.Signer(settings, KEY), SERVICE, made.key_id) == 0
        assert all(key.revoked_at for key in receipts.keys(session) if key.id == made.id)
    assert "was not deleted from its token" in caplog.text
    assert "pin-9" not in caplog.text
