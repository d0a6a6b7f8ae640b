"""Receipts: the current decision about an image, signed, so that others can enforce it without asking this server.

Only a current decision is signed, never a pending or missing one. A receipt ends with its decision, after 24 hours at
the latest. A newer one for the same image, repository and environment revokes it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy.engine import Connection

from scanner import __version__, catalog
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, NotFoundError, ScannerError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.reference import Digest, Reference
from scanner.model.scan import ScanReport, ScanState
from scanner.services import _fields as fields
from scanner.services import decisions, gate
from scanner.store import audit, images, jobs
from scanner.store import receipts as store
from scanner.store.session import Database, epoch, moment, take_lock
from scanner.trust import _receipts as signing
from scanner.trust._kms import services as kms
from scanner.trust._kms.base import KmsKey
from scanner.trust._pkcs11 import Token, is_reference
from scanner.trust._pki import key_id as key_id_of
from scanner.trust._pki import load_public_key

log = logging.getLogger(__name__)

ENVIRONMENT = r"^([a-z0-9]([a-z0-9._-]*[a-z0-9])?)?$"
ENVIRONMENT_LENGTH = 64
_ENVIRONMENT_HINT = "lower-case letters, digits, and . _ - between them, such as production"
OVERLAP_HOURS = 24.0  # a new key is published this long before it signs, so that verifiers can fetch it
_LEFT = 0.25  # a receipt with less than this part of its life left is renewed when it is asked for
# A decision may be made again while its receipt is signed outside the transaction.
_TRIES = 3
_MOST_OTHERS = 20  # current receipts of an image for environments that no policy names
# An advisory lock; see `scanner.store.audit`.
_LOCK = 0x0D0C4A0D21
# Seconds until workers try again to sign after a failure, doubled each time. A service that refuses its key does so
# until an administrator changes its rights. A try in every round would only fill the logs.
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_LOOKED_AT = 200  # jobs
MARGIN = 1 / 3  # a receipt in a registry is renewed when this part of its life is left
RESTED = "rested"  # the parameter of a job that did not try to sign, because of the pause
FORMS = ("bundle", "dsse")
SHORT_NAMES = {"summary": signing.SUMMARY, "decision": signing.DECISION}
environment_type = signing.environment_type


@dataclass(frozen=True)
class Signer:
    """What signing needs. ``key`` decrypts the private keys."""

    settings: Settings
    key: Secret

    @property
    def life(self) -> float:
        """Seconds that a receipt holds at the most."""
        return self.settings.receipt_hours * 3600

    @property
    def token(self) -> Token | None:
        """The PKCS#11 token in which new keys are created; None: they are stored in the database.

        Raises UsageError for half a configuration, or for two.
        """
        found = Token.of(self.settings)
        if found is not None and self.settings.receipt_kms_key:
            message = "DOCKWARDEN_RECEIPT_KMS_KEY and DOCKWARDEN_RECEIPT_PKCS11_MODULE are both set"
            raise UsageError(message, hint="set only the one in which new keys are")
        return found

    @property
    def verifier(self) -> str:
        """The URI of this installation in receipts."""
        return self.settings.public_url.rstrip("/") or "urn:dockwarden:verifier"


@dataclass(frozen=True)
class Draft:
    """A receipt that a key management service must sign. ``address``: of the key there.

    ``about``: digest, repository and environment.
    """

    about: tuple[str, str, str]
    statements: Mapping[str, bytes]  # the bytes to sign, by predicate type
    issued: datetime
    until: datetime  # when the receipt expires
    key_id: str
    address: str
    public_pem: str


@dataclass(frozen=True)
class SignedDraft:
    """A draft with its envelopes by predicate type."""

    draft: Draft
    envelopes: Mapping[str, str]


class SignatureNeeded(ScannerError):
    """A key management service must sign this draft, outside of the transaction: it may take seconds, and SQLite has
    one writer.
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__("the receipt must be signed by a key management service", reason="signature_needed")
        self.draft = draft


def sign_drafts(signer: Signer, drafts: Sequence[Draft]) -> list[SignedDraft]:
    """Have drafts signed by the service that holds their key. Raises RemoteError, UsageError."""
    found = []
    for address in dict.fromkeys(draft.address for draft in drafts):
        own = [draft for draft in drafts if draft.address == address]
        payloads = [payload for draft in own for payload in draft.statements.values()]
        key = KmsKey(address, own[0].public_pem)
        signatures = iter(kms.sign(signer.settings, key, [signing.signed_bytes(payload) for payload in payloads]))
        for draft in own:
            envelopes = {kind: signing.enveloped(text, next(signatures)) for kind, text in draft.statements.items()}
            found.append(SignedDraft(draft, envelopes))
    return found


def issue(
    database: Database, signer: Signer, actor: Actor, digest: str, *, repository: str = "", environment: str = ""
) -> store.ReceiptView:
    """Return the receipt for the current decision, signed now if there is none that still holds.

    An outdated decision is made again first, as the gate does. ``repository`` may be empty if the image is known in
    one only. Raises NotFoundError (reason ``not_decided`` without a decision), UsageError, and as `sign_drafts`.
    """
    ready: SignedDraft | None = None
    for _ in range(_TRIES):

        def work(session: Connection, ready: SignedDraft | None = ready) -> store.ReceiptView | Draft:
            try:
                return _issue(session, signer, actor, digest, repository, environment, ready)
            except SignatureNeeded as needed:
                # Not raised further: the transaction keeps a decision that was made again, which the draft is about.
                return needed.draft

        found = database.uncrossed(work)
        if isinstance(found, store.ReceiptView):
            return found
        (ready,) = sign_drafts(signer, [found])
    raise ConflictError("the decision changed while it was signed", reason="not_decided", hint="ask again in a moment")


def _issue(
    session: Connection,
    signer: Signer,
    actor: Actor,
    digest: str,
    repository: str,
    environment: str,
    ready: SignedDraft | None,
) -> store.ReceiptView:
    fields.check_pattern("environment", environment, ENVIRONMENT, ENVIRONMENT_LENGTH, _ENVIRONMENT_HINT)
    repository = _repository(session, actor, digest, repository)
    reference = Reference.parse(f"{repository}@{digest}")
    answer = gate.GateRequest(reference, environment, actor.projects).recorded(session, Digest(digest))
    active = decisions.enabled_policies(session, catalog.known_names())
    named = {name for one in active for name in one.policy.environments}
    found = store.in_force(session, digest, repository, environment if environment in named else "")
    if answer is None or found is None:
        raise _undecided_error()
    if environment and environment not in named:
        _require_room(store.environments(session, digest, repository) - named, environment)
    return sign(session, signer, actor, found, environment, ready=ready)


def _require_room(others: Collection[str], environment: str) -> None:
    """Raise ConflictError if an image has too many receipts for environments that no policy names.

    A reader chooses such a name freely. Each receipt is signed, kept, and written beside the image in its registry,
    where hundreds would hide its signatures from clients that read only some referrers.
    """
    if environment not in others and len(others) >= _MOST_OTHERS:
        raise ConflictError(
            f"this image has receipts for {len(others)} environments that no policy names",
            reason="too_many_environments",
            hint="ask for an environment that a policy names, or wait until one of them has ended",
        )


def _repository(session: Connection, actor: Actor, digest: str, named: str) -> str:
    known = store.repositories(session, digest, actor.projects)
    if named in known:
        return named
    if named or not known:
        raise _undecided_error()
    if len(known) > 1:
        message = f"the image is known in {len(known)} repositories"
        hint = "name one as ?repository=, such as " + known[0]
        raise UsageError(message, reason="ambiguous_repository", hint=hint, field="repository")
    return known[0]


def _undecided_error() -> NotFoundError:
    return NotFoundError(
        "there is no decision about this image to sign", reason="not_decided", hint="scan it, or ask the gate, first"
    )


def sign(
    session: Connection,
    signer: Signer,
    actor: Actor,
    found: store.InForce,
    environment: str,
    margin: float = _LEFT,
    *,
    ready: SignedDraft | None = None,
) -> store.ReceiptView:
    """Return a receipt for this decision: the current one if it holds for long enough, or a new one.

    ``ready``: a draft of this receipt, signed by a key management service. Raises SignatureNeeded if such a service
    must sign, and ``ready`` is not what would be signed now.
    """
    take_lock(session, _LOCK)  # two at once would both sign, and the second would revoke the first
    now = moment(session)
    ends = min(now.timestamp() + signer.life, found.valid_until or float("inf"))
    known = store.current(session, found.digest, found.repository, environment)
    if known is not None and known.decision_id == found.decision_id:
        left = known.valid_until - now.timestamp()
        # The second condition: a new receipt would not hold longer either, so asking again and again signs nothing
        # new.
        if left > 0 and (left > margin * signer.life or ends - known.valid_until < 1):
            return known
    # Receipts have whole seconds, and the newest counts: one of the same second would not revoke the former.
    issued = now.replace(microsecond=0)
    former = [
        each.issued_at for each in store.of_image(session, found.digest, None) if _is_current(each, found, environment)
    ]
    after_former = max((each + timedelta(seconds=1) for each in former), default=issued)
    until = datetime.fromtimestamp(int(ends), UTC)
    # A draft is some seconds old. Its statements are compared below with those that are written now for its times.
    if ready is not None and ready.draft.until <= until and (not former or ready.draft.issued >= after_former):
        issued, until = ready.draft.issued, ready.draft.until
    else:
        issued = max(issued, after_former)
    if until <= issued:
        raise ConflictError("the decision is about to expire", reason="not_decided", hint="ask again in a moment")
    own = _signing_key(session, signer, actor)
    document: dict[str, Any] = orjson.loads(found.document)
    evidence = images.evidence(session, found.report_id)
    facts = signing.Facts(
        found.repository,
        Digest(found.digest),
        found.project,
        environment,
        document,
        tuple((str(item.image.platform), str(item.image.digest)) for item in evidence.images),
        _engines(evidence),
        signer.verifier,
        __version__,
        issued,
        until,
    )
    statements = signing.statements(facts)
    private = store.private_key(session, own.id, signer.key)
    if kms.is_address(private.reveal()):
        about = (found.digest, found.repository, environment)
        draft = Draft(about, statements, issued, until, own.key_id, private.reveal(), own.public_pem)
        if ready is None or ready.draft != draft:
            raise SignatureNeeded(draft)
        envelopes = dict(ready.envelopes)
    else:
        token = signer.token
        envelopes = {kind: signing.sign(text, private, token) for kind, text in statements.items()}
    made = store.add(
        session,
        found,
        environment,
        verdict=document["verdict"],
        undecided=bool(document.get("undecided")),
        policy=str(document.get("policy") or "")[:64],
        key_id=own.key_id,
        issued_at=issued,
        valid_until=until.timestamp(),
        envelopes=envelopes,
    )
    detail = {
        "repository": made.repository,
        "environment": environment,
        "verdict": made.verdict,
        "valid_until": until.isoformat(),
        "key": own.key_id[:16],
    }
    audit.record(session, actor, Action.RECEIPT_ISSUE, made.digest, detail=detail)
    # Only noted here. A worker writes to the registry, so the answer to the client does not wait for it and a refusal
    # there loses no receipt.
    # Not for an environment that no policy names: a reader chooses it freely, and verifiers that require *every*
    # attestation to pass would refuse the image because of it.
    if environment == found.environment:
        store.request_push(session, made.digest, made.repository)
    return made


def _is_current(each: store.ReceiptView, found: store.InForce, environment: str) -> bool:
    return (each.repository, each.environment) == (found.repository, environment)


def _engines(found: ScanReport) -> tuple[dict[str, Any], ...]:
    """The engines of the evidence, each once, with binary and advisories."""
    seen: dict[tuple[str, str, str], dict[str, Any]] = {}
    for engine in (engine for image in found.images for engine in image.engines):
        status = engine.advisories
        seen[engine.engine, engine.version, status.id] = {
            "name": engine.engine,
            "version": engine.version,
            "binary": str(engine.binary or ""),
            "advisories": {
                "id": status.id,
                "version": status.version,
                "updatedAt": status.updated_at.isoformat() if status.updated_at else None,
                "digest": str(status.digest or ""),
            },
        }
    return tuple(seen.values())


@dataclass(frozen=True)
class SigningTrouble:
    """Why receipts are not signed for registries at present. ``failures``: tries in a row, the first at ``since``."""

    reason: str
    message: str
    failures: int
    since: datetime
    next_try: datetime


def unsigned(session: Connection, settings: Settings, *, limit: int = 20) -> tuple[store.InForce, ...]:
    """Return decisions for which a registry lacks a receipt, or has one that ends soon."""
    return store.without_receipt(session, MARGIN * settings.receipt_hours * 3600, limit=limit)


def signing_trouble(session: Connection, settings: Settings) -> SigningTrouble | None:
    """Return why the last tries of the workers to sign receipts failed, or None. Also None if none is to be signed.

    Failures from before the newest key count no more: it is tried at once.
    """
    if not unsigned(session, settings, limit=1):
        return None
    newest_key = max((key.created_at for key in store.keys(session)), default=None)
    now, failed = moment(session), list[tuple[datetime, jobs.JobView]]()
    for each in jobs.list_jobs(session, (jobs.RECEIPTS,), limit=_LOOKED_AT):
        if each.parameters.get(RESTED) or each.state is ScanState.CANCELLED or each.finished_at is None:
            continue  # it did not try
        if each.finished_at > now:
            continue  # the clock was set back since: the pause would last as long
        if each.state is ScanState.DONE or (newest_key is not None and each.finished_at < newest_key):
            break
        failed.append((each.finished_at, each))
    if not failed:
        return None
    ended, last = failed[0]
    pause = min(_FIRST_PAUSE * 2 ** min(len(failed) - 1, 20), _LONGEST_PAUSE)
    return SigningTrouble(last.reason, last.message, len(failed), failed[-1][0], ended + timedelta(seconds=pause))


def state(session: Connection, found: store.ReceiptView) -> str:
    """Return ``current``, ``superseded`` (a newer decision or receipt replaces it) or ``ended``."""
    if found.superseded_at is not None:
        return "superseded"
    if found.valid_until <= epoch(session):
        return "ended"
    return "current" if store.is_in_force(session, found) else "superseded"


def bundles(session: Connection, found: store.ReceiptView) -> dict[str, str]:
    """Return the receipt's sigstore bundles by predicate type."""
    pems = {key.key_id: key.public_pem for key in store.keys(session)}
    return {kind: signing.bundle_of(text, pems[found.key_id]) for kind, text in found.envelopes.items()}


def render_attestation(session: Connection, found: store.ReceiptView, form: str, predicate: str) -> str:
    """Return one attestation of a receipt as a file: ``form`` is bundle or dsse, ``predicate`` a key of SHORT_NAMES."""
    if predicate not in SHORT_NAMES:
        raise fields.invalid("predicate", "use one of " + ", ".join(SHORT_NAMES))
    if form not in FORMS:
        raise fields.invalid("format", "use one of " + ", ".join(FORMS))
    kind = SHORT_NAMES[predicate]
    return found.envelopes[kind] if form == "dsse" else bundles(session, found)[kind]


def record_push(session: Connection, actor: Actor, push: store.PushView, attestations: int, note: str) -> None:
    """Record that an image's receipts were written to its registry. ``note``: what the registry did not do."""
    store.end_push(session, push, note)
    detail = {"repository": push.repository, "attestations": attestations}
    audit.record(session, actor, Action.RECEIPT_PUSH, push.digest, detail=detail)


# Keys


def _signing_key(session: Connection, signer: Signer, actor: Actor) -> store.KeyView:
    """Return the newest key whose time has come, and erase those before it. The first one is created on first use."""
    usable = _usable(session)
    if not usable:
        return _create(session, signer, actor, epoch(session))
    # A private key that signs no more is only a risk. Its public key stays, for receipts that still hold.
    for former in usable[1:]:
        _destroy(session, signer, former.id)
        store.erase_key(session, former.id)
    return usable[0]


def _usable(session: Connection) -> list[store.KeyView]:
    """Return the keys that may sign now, the newest first."""
    now = epoch(session)
    return [each for each in store.keys(session) if not each.revoked_at and not each.erased and each.signs_from <= now]


def _destroy(session: Connection, signer: Signer, identifier: str) -> None:
    """Delete a key in its token. A token that is gone must not keep a key from being revoked: that is only logged.

    A key in a key management service was created by its administrator, who alone deletes it.
    """
    try:
        private = store.private_key(session, identifier, signer.key)
        if is_reference(private) and (token := signer.token) is not None:
            token.destroy(private)
    except ScannerError as error:
        log.warning("a former key of receipts was not deleted from its token: %s", error)


def _create(
    session: Connection, signer: Signer, actor: Actor, signs_from: float, fetched: KmsKey | None = None
) -> store.KeyView:
    """Create the next key, or take ``fetched`` of a key management service."""
    token, detail = signer.token, {"signs_from": datetime.fromtimestamp(signs_from, UTC).isoformat()}
    if fetched is not None:
        private, public = Secret(fetched.address), fetched.public_pem
        key_id = key_id_of(load_public_key(public))
        detail["kms"] = fetched.address
    elif signer.settings.receipt_kms_key:
        # Only a command of an administrator takes a key: this may run for a stranger who reads the public keys, and in
        # a transaction, where no service is asked.
        raise ConflictError(
            "no key of the key management service signs receipts yet",
            reason="no_signing_key",
            hint="run: dockwarden receipt rotate-key",
        )
    else:
        private, key_id, public = signing.create_key(token)
        if token is not None:
            detail["token"] = token.label
    number = max((each.number for each in store.keys(session)), default=0) + 1
    store.add_key(session, number, key_id, public, private, signer.key, signs_from)
    made = next(each for each in store.keys(session) if each.number == number)
    audit.record(session, actor, Action.RECEIPT_KEY_CREATE, made.key_id, detail=detail)
    return made


def published_keys(session: Connection, signer: Signer, actor: Actor) -> list[store.KeyView]:
    """Return the keys that verifiers should trust, the newest first: the next one, the one that signs, and former ones
    while a receipt that they signed can still hold.

    Creates the first key: who sets up a verifier does so before the first receipt.
    """
    known = [each for each in store.keys(session) if not each.revoked_at]
    if not known:
        take_lock(session, _LOCK)
        _signing_key(session, signer, actor)
        known = [each for each in store.keys(session) if not each.revoked_at]
    now, found = epoch(session), list[store.KeyView]()
    for key in known:
        # A key's last receipt can be signed just before its successor begins, and then holds for one life.
        followed = found[-1].signs_from if found else None
        if followed is not None and followed + signer.life <= now:
            break
        found.append(key)
    return found


def jwks(found: Sequence[store.KeyView]) -> list[dict[str, str]]:
    """Return keys as JSON Web Keys."""
    return [signing.jwk(key.public_pem) for key in found]


def signing_first(found: Sequence[store.KeyView]) -> list[store.KeyView]:
    """Sort published keys for tools that read only the first one of a file: the key that signs now."""
    now = datetime.now(UTC).timestamp()
    return sorted(found, key=lambda key: (key.signs_from > now, -key.number))


def fetch_key(signer: Signer) -> KmsKey | None:
    """Return the key that ``receipt_kms_key`` leads to now; None if it is not set. Asks the service, so it runs before
    the transaction of `rotate_key`. Raises RemoteError, UsageError.
    """
    return kms.fetch_key(signer.settings) if signer.settings.receipt_kms_key and not signer.token else None


def rotate_key(
    session: Connection,
    signer: Signer,
    actor: Actor,
    *,
    overlap_hours: float = OVERLAP_HOURS,
    fetched: KmsKey | None = None,
) -> store.KeyView:
    """Create the next key, or take ``fetched`` (see `fetch_key`). It is published at once and signs after the overlap.

    The present key stays published until its last receipt has ended. Raises ConflictError while a next key waits, and
    for a fetched key that is known already.
    """
    actor.require_every_project()
    if not 0 <= overlap_hours <= 720:
        raise fields.invalid("overlap", "the overlap is 0 to 720 hours")
    take_lock(session, _LOCK)
    now = epoch(session)
    waiting = [each for each in store.keys(session) if not each.revoked_at and each.signs_from > now]
    if waiting:
        begins = datetime.fromtimestamp(waiting[0].signs_from, UTC)
        raise ConflictError(f"a new key waits already; it signs from {begins:%Y-%m-%d %H:%M} UTC on", reason="rotating")
    if fetched is not None:
        _require_new(session, fetched)
    if fetched is None or _usable(session):
        _signing_key(session, signer, actor)
    else:
        overlap_hours = 0  # there is no key yet that could sign meanwhile
    return _create(session, signer, actor, now + overlap_hours * 3600, fetched)


def _require_new(session: Connection, fetched: KmsKey) -> None:
    key_id = key_id_of(load_public_key(fetched.public_pem))
    known = next((each for each in store.keys(session) if each.key_id == key_id), None)
    if known is not None:
        raise ConflictError(
            f"the key {fetched.address} {'was revoked' if known.revoked_at else 'is in use, or was'}",
            reason="key_known",
            hint="create a new key or version in the service, set DOCKWARDEN_RECEIPT_KMS_KEY if its name changes, "
            "and rotate again",
        )


def revoke_key(session: Connection, signer: Signer, actor: Actor, key_id: str) -> int:
    """Revoke a key that others may have: it is not published any more, and its receipts are superseded.

    ``key_id``: its first characters, at least 8. Returns the number of receipts. Another key signs at once.
    """
    actor.require_every_project()
    take_lock(session, _LOCK)
    found = [each for each in store.keys(session) if len(key_id) >= 8 and each.key_id.startswith(key_id.lower())]
    # An ambiguous beginning is refused: revoking the wrong key cannot be undone.
    if len(found) != 1 or found[0].revoked_at:
        raise NotFoundError("there is no such key", hint="list the keys: dockwarden receipt keys")
    _destroy(session, signer, found[0].id)
    count = store.revoke_key(session, found[0].id)
    audit.record(session, actor, Action.RECEIPT_KEY_REVOKE, found[0].key_id, detail={"receipts": count})
    try:
        _signing_key(session, signer, actor)
    except ScannerError as error:
        # A token or service without a next key must not keep a leaked one valid.
        log.warning("the key of receipts was revoked, and there is no other yet: %s", error)
    return count
