"""``dockwarden receipt``: signed decisions: create, verify without a server, and manage the keys that sign them.

Exit codes of ``create`` and ``verify``: 0 the image passed; 1 it is denied, or the receipt is refused or missing; 2 bad
input; 3 undecided, or the registry could not be read; 4 (create) the scan has not finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.commands._console import (
    FILE,
    Exit,
    check_output,
    complain,
    database_at_head,
    pass_settings,
    rfc3339,
    server_options,
    tell,
    wait_option,
    write,
)
from scanner.config import Settings, secret_key
from scanner.errors import ImageError, RemoteError, UsageError
from scanner.files import read_whole
from scanner.model.actor import COMMAND_LINE
from scanner.model.plurals import number_of
from scanner.model.reference import Digest, Reference
from scanner.model.untrusted import clean_text

if TYPE_CHECKING:
    from scanner.trust._cosign.verification import FoundSignature
    from scanner.trust._pki import PublicKey
    from scanner.trust._receipts import ExpectedReceipt, VerifiedReceipt

_TRIES = 2  # a user is waiting


@click.group()
def receipt() -> None:
    """Receipts: signed decisions that others enforce without asking the server."""


@receipt.command("create")
@click.argument("image")
@server_options("gate and read")
@click.option(
    "--environment", default="", help="Environment in which the image will run. The receipt is valid only there."
)
@wait_option("a pending scan")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "bundle", "dsse"]),
    default="json",
    show_default=True,
    help="json: both attestations with their state; bundle: a sigstore bundle; dsse: an envelope.",
)
@click.option(
    "--predicate",
    type=click.Choice(["summary", "decision"]),
    default="summary",
    show_default=True,
    help="For bundle and dsse: the SLSA Verification Summary, or the decision with its reasons.",
)
@click.option("-o", "--output", type=FILE, help="Write to a file instead of stdout.")
@pass_settings
def create(
    settings: Settings,
    image: str,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    environment: str,
    wait: int,
    format_: str,
    predicate: str,
    output: Path | None,
) -> Exit:
    """Ask a server for a receipt (a signed decision) for IMAGE.

    An image that is not scanned yet is scanned first. A denied image gets a receipt too: its result is FAILED.
    """
    from scanner.commands import _client

    # Before the server is asked: a receipt is recorded there even if it cannot be written here.
    check_output(output)
    reference = Reference.parse(image)
    client = _client.of(settings, server, token, ca_file)
    answer = client.gate(image, environment=environment, workload=None, wait=wait, progress=tell)
    if answer.pending:
        tell("PENDING  the scan has not finished; try again, or with a longer --wait")
        return Exit.PENDING
    digest = answer.document.get("digest")
    # A decision without evidence is not signed: the receipt would state that an image was judged which nobody saw.
    if not isinstance(digest, str) or answer.document.get("evidence") is None:
        complain("there is no decision to sign: the scan ended without evidence", hint=f"dockwarden gate {image}")
        return Exit.UNDECIDED
    asked = {"repository": reference.name, "environment": environment}
    path = f"/api/v1/images/{digest}/receipt"
    found = client.get(path, {name: value for name, value in asked.items() if value})
    if format_ == "json":
        text = json.dumps(found, indent=2)
    else:
        text = json.dumps(_attestation(found, format_, predicate))
    write(text, output)
    result, until = clean_text(str(found.get("result")), 20), clean_text(str(found.get("valid_until")), 40)
    tell(f"{result}  {image}, valid until {until}")
    if found.get("result") == "PASSED":
        return Exit.OK
    # An older server does not send the member: without it, the safer code.
    return Exit.UNDECIDED if found.get("undecided") is not False else Exit.DENIED


def _attestation(found: object, form: str, predicate: str) -> object:
    """One attestation of the server's answer. Raises RemoteError if it has none of this type."""
    from scanner.services.receipts import SHORT_NAMES

    items = found.get("attestations") if isinstance(found, dict) else None
    for each in items if isinstance(items, list) else []:
        if isinstance(each, dict) and each.get("predicate_type") == SHORT_NAMES[predicate]:
            return each.get("envelope" if form == "dsse" else "bundle")
    raise RemoteError("the server's answer has no such attestation", reason="server_error")


@receipt.command("verify")
@click.argument("target", metavar="FILE|IMAGE")
@click.option(
    "--key",
    "keys",
    type=FILE,
    required=True,
    multiple=True,
    help="Public keys: the JSON of /api/v1/receipts/keys, or PEM (may be repeated).",
)
@click.option("--image", help="For a FILE: the image that the receipt must be for: host/repo@sha256:… or a digest.")
@click.option(
    "--environment",
    default="",
    help="Environment that the receipt must be for. Default: a receipt without environment.",
)
@click.option("--platform", default="", metavar="OS/ARCH", help="Platform that the receipt must be for.")
@click.option("--repository", default="", help="host/repo in the receipt, if the image was copied from there.")
@click.option("--at", "now", callback=rfc3339, metavar="TIME", help="Verify as of this RFC 3339 time instead of now.")
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for the registry.")
@click.option("--insecure-registry", multiple=True, metavar="HOST", help="Use plain HTTP for this registry.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@pass_settings
def verify(
    settings: Settings,
    target: str,
    keys: tuple[Path, ...],
    image: str | None,
    environment: str,
    platform: str,
    repository: str,
    now: datetime,
    ca_file: Path | None,
    insecure_registry: tuple[str, ...],
    format_: str,
) -> Exit:
    """Verify a receipt: a FILE, or the receipts that are attached to an IMAGE. No Dockwarden server is asked.

    The newest receipt for the image and environment counts: it revokes the former ones. A receipt for one environment
    admits to no other.
    """
    from scanner.trust import _receipts as receipts

    trusted = tuple(key for file in keys for key in receipts.load_keys(_bytes(file, "the key"), str(file)))
    expected = receipts.ExpectedReceipt(now, repository=repository, environment=environment, platform=platform)
    problem = ""
    if Path(target).is_file():
        if image:
            expected = _expect(expected, image)
        signed: Sequence[FoundSignature] = receipts.parse(_bytes(Path(target), "the receipt"))
        refused: list[ImageError] = []
    else:
        # A mistyped file name must not become a request to a registry.
        if target.startswith(("/", ".")) or target.endswith(".json"):
            raise UsageError(f"there is no file {target[:200]!r}")
        if image:
            raise UsageError("--image can only be used with a FILE", hint="an IMAGE as TARGET is the image itself")
        registries = settings.insecure_registries + insecure_registry
        own = replace(settings, insecure_registries=registries, ca_file=ca_file or settings.ca_file)
        expected, signed, refused, problem = _beside(own, target, expected)
    return _judge(signed, refused, trusted, expected, problem, format_)


def _bytes(file: Path, what: str) -> bytes:
    from scanner.trust._receipts import MAX_RECEIPT

    return read_whole(file, MAX_RECEIPT, what)


def _expect(expected: ExpectedReceipt, image: str) -> ExpectedReceipt:
    """Add the image of ``--image``: a digest, or a reference with one."""
    if image.startswith("sha256:"):
        return replace(expected, digest=_digest(image))
    reference = Reference.parse(image)
    if reference.digest is None:
        raise UsageError("--image needs a digest", hint="write host/repo@sha256:…; a tag can move")
    return replace(expected, digest=reference.digest, repository=expected.repository or reference.name)


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ImageError as error:
        raise UsageError(f"{error}", hint=error.hint) from error


def _beside(
    settings: Settings, image: str, expected: ExpectedReceipt
) -> tuple[ExpectedReceipt, Sequence[FoundSignature], list[ImageError], str]:
    """Fetch the attestations beside an image. The last value: why some could not be read, or ""."""
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access, RegistryClient
    from scanner.trust import cosign
    from scanner.trust._state import NoState
    from scanner.trust.base import TrustJob

    reference = Reference.parse(image)
    credentials = CredentialStore(settings)
    access = Access(reference.host in settings.insecure_registries, settings.ca_file, named=True)
    with RegistryClient(reference.host, settings, credentials, access, tries=_TRIES) as client:
        # The tag is resolved once. From here only the digest counts.
        descriptor, _ = client.manifest(reference)
        job = TrustJob(
            reference=reference.at(descriptor.digest),
            roots=(),
            now=expected.now,
            state=NoState(),
            settings=settings,
            descriptor=descriptor,
            fetch=client,
        )
        found = cosign.find(job)
    own = replace(expected, digest=descriptor.digest, repository=expected.repository or reference.name)
    statements = [each for each in found.items if each.statement]
    return own, statements, list(found.refused), found.why_unknown[1]


def _judge(
    signed: Sequence[FoundSignature],
    refused: list[ImageError],
    trusted: tuple[PublicKey, ...],
    expected: ExpectedReceipt,
    problem: str,
    format_: str,
) -> Exit:
    from scanner.trust import _receipts as receipts
    from scanner.trust.base import SignatureRefused

    accepted: list[VerifiedReceipt] = []
    for each in signed:
        try:
            found = receipts.verify(each, trusted, expected)
        except SignatureRefused as error:
            refused.append(error)
            continue
        if found is not None:
            accepted.append(found)
    if problem:  # what could not be read may be a newer receipt that refuses
        return _answer(None, f"not every attestation could be read: {problem}", "unknown", format_, Exit.UNDECIDED)
    if not accepted:
        missing = SignatureRefused("there is no receipt of Dockwarden", reason="missing")
        worst = next(
            (error for step in _STEPS for error in refused if error.reason == step), refused[0] if refused else missing
        )
        return _answer(None, f"{worst}", worst.reason, format_, Exit.DENIED)
    try:
        newest = receipts.decide(accepted, expected.now)
    except SignatureRefused as error:
        return _answer(None, f"{error}", error.reason, format_, Exit.DENIED)
    code = Exit.OK if newest.passed else Exit.UNDECIDED if newest.undecided else Exit.DENIED
    return _answer(newest, "", "", format_, code)


# Of several refused attestations, the one that passed most steps explains best what is wrong.
_STEPS = ("platform", "environment", "future", "payload", "malformed")


def _answer(found: VerifiedReceipt | None, text: str, reason: str, format_: str, code: Exit) -> Exit:
    result = ("PASSED" if found.passed else "FAILED") if found else "UNKNOWN" if code is Exit.UNDECIDED else "REFUSED"
    if format_ == "json":
        shown: dict[str, object] = {"result": result, "reason": reason, "detail": text}
        if found:
            shown |= {
                "repository": found.repository,
                "digest": found.digest,
                "environment": found.environment,
                "project": found.project,
                "platforms": found.platforms,
                "verdict": found.verdict,
                "undecided": found.undecided,
                "policy": found.policy,
                "reasons": found.reasons,
                "issued_at": found.issued_at.isoformat(),
                "valid_until": found.valid_until.isoformat(),
                "key_id": found.keyid,
                "predicate_type": found.predicate_type,
            }
        click.echo(json.dumps(shown, indent=2))
        return code
    if found is None:
        click.echo(f"{result}  {text} ({reason})")
        return code
    lines = [
        f"{result}  {found.repository}@{found.digest}",
        f"  environment  {found.environment or 'none named'}",
        f"  project      {found.project}",
        f"  platforms    {', '.join(found.platforms) or 'unknown'}",
        f"  policy       {found.policy}",
        f"  issued       {found.issued_at:%Y-%m-%d %H:%M:%S} UTC",
        f"  valid until  {found.valid_until:%Y-%m-%d %H:%M:%S} UTC",
        f"  key          {found.keyid}",
        *(f"  - {reason}" for reason in list(dict.fromkeys(found.reasons))[:10]),
    ]
    click.echo("\n".join(lines))
    return code


@receipt.command("keys")
@click.option("--format", "format_", type=click.Choice(["table", "jwks", "pem"]), default="table", show_default=True)
@pass_settings
def keys(settings: Settings, format_: str) -> None:
    """List the keys of this installation, or write the public ones for verifiers.

    The first key is created if there is none. A server publishes the same at /api/v1/receipts/keys.
    """
    from scanner.services import receipts as use_cases
    from scanner.store import receipts as store

    signer = use_cases.Signer(settings, secret_key(settings))
    with database_at_head(settings).session() as session:
        public = use_cases.published_keys(session, signer, COMMAND_LINE)
        every = store.keys(session)
    if format_ == "jwks":
        click.echo(json.dumps({"keys": use_cases.jwks(public)}, indent=2))
    elif format_ == "pem":
        click.echo("".join(key.public_pem for key in use_cases.signing_first(public)), nl=False)
    else:
        signing = use_cases.signing_first(public)[0].id
        for key in every:
            begins = datetime.fromtimestamp(key.signs_from, UTC)
            state = "revoked" if key.revoked_at else "signs" if key.id == signing else "former"
            if not key.revoked_at and begins > datetime.now(UTC):
                state = f"signs from {begins:%Y-%m-%d %H:%M} UTC on"
            shown = "published" if any(key.id == one.id for one in public) else "not published"
            click.echo(f"{key.key_id}  {state}, {shown}, created {key.created_at:%Y-%m-%d}")


@receipt.command("rotate-key")
@click.option(
    "--overlap",
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Hours that the new key is published before it signs. 0: it signs at once.",
)
@pass_settings
def rotate_key(settings: Settings, overlap: float) -> None:
    """Create the next signing key. The current key stays published until its last receipt expires.

    With DOCKWARDEN_RECEIPT_KMS_KEY, no key is created: the one that it names now is tried, and signs from then on.
    """
    from scanner.services import receipts as use_cases

    signer = use_cases.Signer(settings, secret_key(settings))
    database = database_at_head(settings)
    fetched = use_cases.fetch_key(signer)  # before the transaction: a service may take seconds
    with database.session() as session:
        made = use_cases.rotate_key(session, signer, COMMAND_LINE, overlap_hours=overlap, fetched=fetched)
    if fetched is not None:
        tell(f"took {fetched.address}")
    begins = datetime.fromtimestamp(made.signs_from, UTC)
    tell(f"key {made.key_id[:16]} signs from {begins:%Y-%m-%d %H:%M} UTC on; fetch the keys again in every verifier")


@receipt.command("revoke-key")
@click.argument("key_id")
@pass_settings
def revoke_key(settings: Settings, key_id: str) -> None:
    """Revoke the key KEY_ID (its first characters), which others may have. Its receipts are replaced.

    Verifiers that have the public key accept its receipts until it is removed there.
    """
    from scanner.services import receipts as use_cases

    signer = use_cases.Signer(settings, secret_key(settings))
    with database_at_head(settings).session() as session:
        count = use_cases.revoke_key(session, signer, COMMAND_LINE, key_id)
    tell(f"the key is revoked, and {number_of(count, 'receipt')} with it; remove it from every verifier now")
