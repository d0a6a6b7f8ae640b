"""Receipts: signed decisions that others enforce without asking this server.

A receipt is two in-toto statements about one image, each in a DSSE envelope: a SLSA Verification Summary
(https://slsa.dev/spec/v1.0/verification_summary), which other tools know, and our own predicate with policy, reasons
and evidence. Both say for which repository, environment, project and platforms the decision holds, and when it ends.
A receipt for an environment has the summary a second time, under a predicate type of that environment.

No I/O and no clock: values, keys and the time come in; bytes or a verdict go out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scanner.config import Secret
from scanner.errors import ImageError, UsageError
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._cosign.forms import parse_bundle, parse_classic
from scanner.trust._cosign.payload import IN_TOTO, Envelope, members
from scanner.trust._cosign.verification import FoundSignature
from scanner.trust._pkcs11 import Token, is_reference
from scanner.trust._pki import PublicKey, key_id, load_public_key, verify_signature
from scanner.trust.base import SignatureRefused

SUMMARY = "https://slsa.dev/verification_summary/v1"
DECISION = "urn:dockwarden:decision:v1"
PREDICATES = (SUMMARY, DECISION)
# Followed by an environment. cosign and Kyverno demand that each attestation of the type they ask for meets the policy.
# So an image with receipts for production and for staging could never meet a policy for production by SUMMARY.
_IN_ENVIRONMENT = "urn:dockwarden:receipt:v1:"
STATEMENT = "https://in-toto.io/Statement/v1"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_RECEIPT = 1 << 20
# Envelopes of one file, and keys to verify with.
_MAX_LINES, _MAX_KEYS = 50, 20
_REASONS = 50  # a decision about a bad image can have thousands; the rest is counted
_SKEW = timedelta(seconds=60)  # how far the clock of the verifier may be behind
_VERDICTS = {"allow": "PASSED", "warn": "PASSED", "deny": "FAILED"}


@dataclass(frozen=True)
class Facts:
    """What a receipt states. ``decision``: the gate's answer as JSON. ``engines``: those of the evidence, each once.

    ``platforms``: each judged image of the subject as (platform, digest). ``verifier``: URI of this installation.
    """

    repository: str
    digest: Digest
    project: str
    environment: str
    decision: Mapping[str, Any]
    platforms: tuple[tuple[str, str], ...]
    engines: tuple[Mapping[str, Any], ...]
    verifier: str
    version: str  # of Dockwarden
    issued_at: datetime
    valid_until: datetime

    @property
    def result(self) -> str:
        """PASSED or FAILED. A verdict that this version does not know does not pass."""
        return _VERDICTS.get(str(self.decision.get("verdict")), "FAILED")


def statements(facts: Facts) -> dict[str, bytes]:
    """Return the receipt's statements (https://in-toto.io/Statement/v1) as JSON, by predicate type."""
    predicates = {SUMMARY: _summary(facts), DECISION: _decision(facts)}
    if facts.environment:
        predicates[environment_type(facts.environment)] = predicates[SUMMARY]
    subject = [{"name": facts.repository, "digest": {facts.digest.algorithm: facts.digest.hex}}]
    return {
        kind: orjson.dumps({"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate})
        for kind, predicate in predicates.items()
    }


def environment_type(environment: str) -> str:
    """Return the predicate type of summaries for one environment; without an environment, of all summaries."""
    return _IN_ENVIRONMENT + environment if environment else SUMMARY


def _summary(facts: Facts) -> dict[str, Any]:
    """The predicate of the Verification Summary. SLSA allows further members of the form ``<vendor>_<name>``."""
    policy = facts.decision
    name, version = str(policy.get("policy") or "default"), policy.get("policy_version") or 0
    return {
        "verifier": {"id": facts.verifier, "version": {"dockwarden": facts.version}},
        "timeVerified": _time(facts.issued_at),
        "resourceUri": f"{facts.repository}@{facts.digest}",
        "policy": {"uri": f"urn:dockwarden:policy:{name}:{version}", "digest": _digest(policy.get("policy_digest"))},
        "inputAttestations": [{"uri": "urn:dockwarden:evidence", "digest": _digest(policy.get("evidence"))}],
        "verificationResult": facts.result,
        "verifiedLevels": ["DOCKWARDEN_POLICY" if facts.result == "PASSED" else "FAILED"],
        "slsaVersion": "1.0",
        "dockwarden_environment": facts.environment,
        "dockwarden_project": facts.project,
        "dockwarden_platforms": [platform for platform, _ in facts.platforms],
        "dockwarden_verdict": policy.get("verdict"),
        "dockwarden_validUntil": _time(facts.valid_until),
    }


def _decision(facts: Facts) -> dict[str, Any]:
    found = facts.decision
    reasons = [each for each in found.get("reasons") or () if isinstance(each, dict)]
    named = ("rule", "kind", "action", "message", "subject", "count", "exemption", "slug")
    return {
        "result": facts.result,
        "verdict": found.get("verdict"),
        "undecided": bool(found.get("undecided")),
        "repository": facts.repository,
        "digest": str(facts.digest),
        "platforms": [{"platform": platform, "digest": digest} for platform, digest in facts.platforms],
        "project": facts.project,
        "environment": facts.environment,
        "policy": {
            "name": found.get("policy"),
            "version": found.get("policy_version"),
            "digest": _digest(found.get("policy_digest")),
        },
        "evidence": {"digest": _digest(found.get("evidence"))},
        "engines": list(facts.engines),
        "reasons": [{name: each.get(name) for name in named} for each in reasons[:_REASONS]],
        "reasonsTotal": len(reasons),
        "decidedAt": found.get("decided_at"),
        "issuedAt": _time(facts.issued_at),
        "validUntil": _time(facts.valid_until),
        "verifier": {"id": facts.verifier, "version": {"dockwarden": facts.version}},
    }


def _digest(text: object) -> dict[str, str]:
    algorithm, _, value = str(text or "").partition(":")
    return {algorithm: value} if value else {}


def _time(at: datetime) -> str:
    """RFC 3339 in UTC with seconds: the only form that the policy languages of other tools all read."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# Keys and signatures


def create_key(token: Token | None = None) -> tuple[Secret, str, str]:
    """Create a key, in a token if one is given. Returns what `sign` needs, and id and PEM of the public half.

    The first is the private key as PEM, or its address in the token. Raises as `Token`.
    """
    if token is None:
        private = new_key()
        return private, *public_of(private)
    address, public_pem = token.create()
    return address, key_id(load_public_key(public_pem)), public_pem


def new_key() -> Secret:
    """Create an ECDSA P-256 key, as PEM (PKCS#8)."""
    form = serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP256R1())
    return Secret(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode())


def _private(pem: Secret) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.reveal().encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a key that signs receipts is ECDSA P-256")
    return key


def public_of(pem: Secret) -> tuple[str, str]:
    """Return id (hex SHA-256 of the public key in DER) and PEM of a private key's public half."""
    key = _private(pem).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key_id(key), key.public_bytes(serialization.Encoding.PEM, form).decode()


def sign(payload: bytes, private: Secret, token: Token | None = None) -> str:
    """Return a DSSE envelope (github.com/secure-systems-lab/dsse) with one signature, as JSON.

    ``private``: see `create_key`; not the address of a key in a key management service, which signs `signed_bytes`.
    Raises UsageError if it is in a token and none is given, and as `Token`.
    """
    signed = signed_bytes(payload)
    if not is_reference(private):
        signature = _private(private).sign(signed, ec.ECDSA(hashes.SHA256()))
    elif token is not None:
        signature = token.sign(private, signed)
    else:
        raise UsageError(
            "the key that signs receipts is in a PKCS#11 token, and none is configured",
            reason="token_unavailable",
            hint="set DOCKWARDEN_RECEIPT_PKCS11_MODULE and _TOKEN, or: dockwarden receipt rotate-key --overlap 0",
        )
    return enveloped(payload, signature)


def signed_bytes(payload: bytes) -> bytes:
    """Return what is signed for a statement: its type and the statement (DSSE, PAE)."""
    return Envelope(IN_TOTO, payload, ()).signed_bytes


def enveloped(payload: bytes, signature: bytes) -> str:
    """Return a DSSE envelope as JSON."""
    envelope = {
        "payloadType": IN_TOTO,
        "payload": base64.b64encode(payload).decode(),
        # No key id: sigstore-go compares it with an SSH fingerprint of its own, and refuses every other.
        "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
    }
    return orjson.dumps(envelope).decode()


def bundle_of(envelope: str, public_pem: str) -> str:
    """Return the envelope as a sigstore bundle v0.3 whose signer is a key (protobuf-specs, sigstore_bundle.proto)."""
    # cosign and sigstore-go write this hint: base64 of the SHA-256 of the public key in DER.
    hint = base64.b64encode(bytes.fromhex(key_id(load_public_key(public_pem)))).decode()
    found: dict[str, Any] = orjson.loads(envelope)
    # protobuf's JSON form of an envelope; sigstore-go refuses a bundle with further members in a signature.
    return orjson.dumps(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": found,
        }
    ).decode()


def jwk(public_pem: str) -> dict[str, str]:
    """Return a public key as a JSON Web Key (RFC 7517, RFC 7518 section 6.2)."""
    key = load_public_key(public_pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    x, y = (base64.urlsafe_b64encode(part.to_bytes(32, "big")).rstrip(b"=").decode() for part in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": key_id(key), "use": "sig", "alg": "ES256"}


def load_keys(data: bytes, where: str) -> tuple[PublicKey, ...]:
    """Load public keys: PEM, or the JSON of ``/api/v1/receipts/keys``. Raises UsageError."""
    text = data.decode("utf-8", "replace")
    try:
        if text.lstrip().startswith("{"):
            document = load_untrusted_json(data, limit=MAX_RECEIPT, error=UsageError)
            listed = document.get("keys") if isinstance(document, dict) else None
            found = tuple(_of_jwk(each) for each in listed) if isinstance(listed, list) else ()
        else:
            end = "-----END PUBLIC KEY-----"
            blocks = [part + end for part in text.split(end)[:-1]]
            found = tuple(load_public_key(block) for block in blocks) or (load_public_key(text),)
    except ValueError as error:
        raise UsageError(f"{where}: {error}", hint="curl SERVER/api/v1/receipts/keys > keys.json") from error
    if not 0 < len(found) <= _MAX_KEYS:
        raise UsageError(f"{where}: no public key, or more than {_MAX_KEYS}")
    return found


def _of_jwk(item: object) -> PublicKey:
    if not isinstance(item, dict) or (item.get("kty"), item.get("crv")) != ("EC", "P-256"):
        raise ValueError("a key of a kind that signs no receipts: it must be EC P-256")
    if "d" in item:
        raise ValueError("this is a private key, not a public one")
    numbers = []
    for name in ("x", "y"):
        raw = base64.urlsafe_b64decode(str(item.get(name, "")) + "==")
        if len(raw) != 32:
            raise ValueError(f"the member {name} of a key is not 32 bytes")
        numbers.append(int.from_bytes(raw, "big"))
    return ec.EllipticCurvePublicNumbers(numbers[0], numbers[1], ec.SECP256R1()).public_key()


# Verification


@dataclass(frozen=True)
class ExpectedReceipt:
    """What a receipt must be about. Empty: not compared, except ``environment``, which always is.

    A receipt without environment does not open an environment, and one for an environment opens no other: otherwise a
    receipt for development would admit the image to production.
    """

    now: datetime
    digest: Digest | None = None
    repository: str = ""  # empty: any
    environment: str = ""
    platform: str = ""


@dataclass(frozen=True)
class VerifiedReceipt:
    """An authentic receipt for what was expected. ``passed``: it admits the image, if it has not ended."""

    predicate_type: str
    repository: str
    digest: str
    environment: str
    project: str
    platforms: tuple[str, ...]
    verdict: str
    passed: bool
    undecided: bool  # denied only because evidence was missing
    policy: str
    reasons: tuple[str, ...]
    issued_at: datetime
    valid_until: datetime
    keyid: str


def parse(data: bytes) -> tuple[FoundSignature, ...]:
    """Parse a receipt file: a sigstore bundle, a DSSE envelope, one of these per line, or the API's answer.

    Raises UsageError if it is none of these. Nothing is verified.
    """
    if len(data) > MAX_RECEIPT:
        raise UsageError(f"a receipt has at most {MAX_RECEIPT} bytes")
    try:
        documents = [load_untrusted_json(data, limit=MAX_RECEIPT, error=UsageError)]
    except UsageError:
        lines = [line for line in data.splitlines() if line.strip()]
        if not 1 < len(lines) <= _MAX_LINES:
            raise
        documents = [load_untrusted_json(line, limit=MAX_RECEIPT, error=UsageError) for line in lines]
    found = [item for document in documents for item in _signatures_of(document)]
    if not found:
        raise _no_receipt()
    return tuple(found)


def _signatures_of(document: object) -> Iterable[FoundSignature]:
    if not isinstance(document, dict):
        raise _no_receipt()
    if isinstance(document.get("attestations"), list):  # the API's answer
        items = document["attestations"][:_MAX_LINES]
        return [one for item in items if isinstance(item, dict) for one in _signatures_of(item.get("envelope"))]
    raw = json.dumps(document).encode()  # orjson refuses large numbers and lone surrogates
    try:
        if "dsseEnvelope" in document:
            return [parse_bundle(raw)]
        if "payload" in document:
            return [parse_classic(raw, {}, attestation=True)]
    except SignatureRefused as error:
        raise UsageError(f"the receipt cannot be read: {error}", reason="bad_receipt") from error
    raise _no_receipt()


def _no_receipt() -> UsageError:
    hint = "give a file of: dockwarden receipt create IMAGE -o receipt.json"
    text = "this is no receipt: neither a sigstore bundle nor a DSSE envelope"
    return UsageError(text, reason="bad_receipt", hint=hint)


def verify(signed: FoundSignature, keys: Sequence[PublicKey], expected: ExpectedReceipt) -> VerifiedReceipt | None:
    """Verify one signature and compare the statement with what is expected. None: it is not a receipt.

    Its end is not checked here: a newer receipt revokes an older one even after it has ended (see `decide`).
    Raises SignatureRefused, with the failed step as its reason: signature, malformed, payload, environment, platform,
    future.
    """
    # 1. The signature, over type and payload (PAE). Anything else that an attacker added does not count.
    keyid = next(
        (key_id(key) for key in keys for s in signed.signatures if verify_signature(key, s, signed.signed_bytes)), ""
    )
    if not keyid:
        raise SignatureRefused("the receipt was not signed with this key")
    # 2. The statement, strictly as we write it.
    loaded = load_untrusted_json(signed.payload, limit=MAX_RECEIPT, error=SignatureRefused, reason="malformed")
    document = members(loaded, "the statement")
    kind = document.get("predicateType")
    if kind not in PREDICATES:
        return None
    if document.get("_type") != STATEMENT or not signed.statement:
        raise SignatureRefused("the signed payload is not an in-toto statement v1", reason="malformed")
    found = _read_receipt(str(kind), document, keyid)
    # 3. It is about this image, under the name and for the use that the decision was made for.
    if expected.digest is not None and found.digest != str(expected.digest):
        raise SignatureRefused(f"the receipt is about another image: {found.digest}", reason="payload")
    if expected.repository and found.repository != expected.repository:
        raise SignatureRefused(f"the receipt is about another repository: {found.repository}", reason="payload")
    if found.environment != expected.environment:
        text = f"environment {found.environment}" if found.environment else "no environment"
        raise SignatureRefused(f"the receipt is for {text}", reason="environment")
    if expected.platform and expected.platform not in found.platforms:
        judged = ", ".join(found.platforms) or "none"
        raise SignatureRefused(f"the receipt covers the platforms {judged}", reason="platform")
    # 4. Not from the future: a receipt dated ahead would revoke every later one.
    if found.issued_at > expected.now + _SKEW:
        raise SignatureRefused(f"the receipt begins in the future, at {_time(found.issued_at)}", reason="future")
    return found


def decide(receipts: Sequence[VerifiedReceipt], now: datetime) -> VerifiedReceipt:
    """Return the receipt that counts: the newest. Of two of the same second, the one that refuses.

    Raises SignatureRefused(reason="expired") if it has ended, and (reason="ambiguous") if they are about several
    images. An older one that has not ended is revoked by it.
    """
    # A file can hold any. The newest would speak for an image that another receipt in the file denies.
    if len({(each.repository, each.digest) for each in receipts}) > 1:
        raise SignatureRefused("the receipts are about several images; name one with --image", reason="ambiguous")
    newest = max(receipts, key=lambda each: (each.issued_at, not each.passed, each.predicate_type == DECISION))
    if newest.valid_until <= now:
        raise SignatureRefused(f"the receipt ended at {_time(newest.valid_until)}", reason="expired")
    return newest


def _read_receipt(kind: str, document: Mapping[str, Any], keyid: str) -> VerifiedReceipt:
    subjects, predicate = document.get("subject"), members(document.get("predicate"), "the predicate")
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise SignatureRefused("a receipt has exactly one subject", reason="malformed")
    subject = members(subjects[0], "the subject")
    digests = members(subject.get("digest"), "the subject's digest")
    if len(digests) != 1:
        raise SignatureRefused("the subject of a receipt has exactly one digest", reason="malformed")
    ((algorithm, value),) = digests.items()
    try:
        digest = Digest(f"{algorithm}:{value}")
    except ImageError as error:
        raise SignatureRefused(f"the subject of the receipt: {error}", reason="malformed") from error
    summary = kind == SUMMARY
    prefix = "dockwarden_" if summary else ""
    verdict = _text(predicate, prefix + "verdict")
    result = _text(predicate, "verificationResult" if summary else "result")
    reasons = predicate.get("reasons") if not summary else ()
    platforms = predicate.get(prefix + "platforms")
    listed = platforms if isinstance(platforms, list) else []
    policy = members(predicate.get("policy"), "policy")
    return VerifiedReceipt(
        kind,
        _text(subject, "name"),
        str(digest),
        _text(predicate, prefix + "environment"),
        _text(predicate, prefix + "project"),
        tuple(clean_text(str(p.get("platform") if isinstance(p, dict) else p), 100) for p in listed[:100]),
        verdict,
        # Both must agree: unknown is never clean.
        result == "PASSED" and _VERDICTS.get(verdict) == "PASSED",
        predicate.get("undecided") is True,
        clean_text(str(policy.get("uri") if summary else _policy(policy)), 200),
        tuple(
            clean_text(str(each.get("message")), 300)
            for each in (reasons if isinstance(reasons, list) else [])[:_REASONS]
            if isinstance(each, dict) and each.get("kind") in ("violation", "incomplete")
        ),
        _moment(predicate, "timeVerified" if summary else "issuedAt"),
        _moment(predicate, prefix + "validUntil"),
        keyid,
    )


def _policy(policy: Mapping[str, Any]) -> str:
    """Name and version. The built-in policy has no version."""
    return f"{policy.get('name')} version {policy.get('version')}" if policy.get("version") else str(policy.get("name"))


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or len(text) > 1000:
        raise SignatureRefused(f"the receipt's member {name} is not a text", reason="malformed")
    return clean_text(text, 1000)


def _moment(value: Mapping[str, Any], name: str) -> datetime:
    try:
        return datetime.strptime(_text(value, name), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise SignatureRefused(f"the receipt's member {name} is not a time", reason="malformed") from error
