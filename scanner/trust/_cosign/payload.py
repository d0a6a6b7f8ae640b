"""What is signed: cosign's simple signing payload, and in-toto statements in DSSE envelopes.

Nothing here is trusted before the signature over its bytes is verified. After that, the payload must be about this
image.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._pki import decode_base64
from scanner.trust.base import SignatureRefused

SIMPLE_SIGNING_TYPE = "cosign container image signature"
IN_TOTO = "application/vnd.in-toto+json"
SIGNATURE_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
# Bounds of the predicate fields that policies can query: a predicate comes from a build, and may be arbitrarily large.
MAX_PAYLOAD, MAX_ENVELOPE = 1 << 20, 32 << 20
# Scalars of a predicate that rules can use: their number, and the length of path, value and nesting.
_MAX_FIELDS, _MAX_PATH, _MAX_VALUE, _MAX_LEVELS = 500, 200, 500, 10
# Of one statement and of one envelope.
_MAX_SUBJECTS, _MAX_SIGNATURES = 1000, 10


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope (github.com/secure-systems-lab/dsse, protocol.md)."""

    payload_type: str
    payload: bytes  # the bytes that were signed, of ``payload_type``
    signatures: tuple[bytes, ...]

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that are signed (PAE).

        Never the bare payload: a signature could then be presented for another payload type.
        """
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)


@dataclass(frozen=True)
class Statement:
    """An in-toto statement about the image.

    ``fields``: scalar values of the predicate by dotted path. ``truncated``: some fields were left out.
    """

    predicate_type: str
    fields: tuple[tuple[str, str], ...]
    annotations: Mapping[str, Any]
    truncated: bool = False


def parse_envelope(value: object) -> Envelope:
    """The envelope of a JSON value. Raises SignatureRefused(reason="malformed")."""
    item = members(value, "the envelope")
    payload_type, signatures = item.get("payloadType"), item.get("signatures")
    # The payload type is signed. A signature over another type of document must not be read as a statement.
    if payload_type != IN_TOTO:
        raise SignatureRefused(
            f"not an in-toto statement: the envelope's payload type is {clean_text(str(payload_type), 100)}",
            reason="malformed",
        )
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MAX_SIGNATURES:
        raise SignatureRefused(f"the envelope has no signatures, or more than {_MAX_SIGNATURES}", reason="malformed")
    found = tuple(
        decode_base64(members(s, "a signature of the envelope").get("sig"), "the envelope's signature")
        for s in signatures
    )
    return Envelope(IN_TOTO, decode_base64(item.get("payload"), "the envelope's payload"), found)


def check_simple_signing(payload: bytes, digest: Digest) -> Mapping[str, Any]:
    """Return the claims (``optional``) of a simple signing payload about ``digest``.

    Raises SignatureRefused: malformed, payload. ``critical.identity.docker-reference`` is not compared: cosign writes
    the name that the image was pushed under, and an image is often copied to another registry afterwards.
    """
    document = members(_load(payload, MAX_PAYLOAD), "the payload")
    critical = members(document.get("critical"), "critical")
    if critical.get("type") != SIMPLE_SIGNING_TYPE:
        raise SignatureRefused(
            f"the signed payload is of type {clean_text(str(critical.get('type')), 100)!r}", reason="payload"
        )
    signed = members(critical.get("image"), "critical.image").get("docker-manifest-digest")
    # The digest, not the name: cosign signatures stay valid when an image is copied to another registry.
    if signed != str(digest):
        raise SignatureRefused(f"the signature is for another image: {clean_text(str(signed), 100)}", reason="payload")
    optional = document.get("optional")
    return {} if optional is None else members(optional, "optional")


def check_statement(payload: bytes, digest: Digest) -> Statement:
    """Return the in-toto statement about ``digest``. Raises SignatureRefused: malformed, payload."""
    document = members(_load(payload, MAX_ENVELOPE), "the statement")
    kind, predicate_type = document.get("_type"), document.get("predicateType")
    if kind not in _STATEMENTS or not isinstance(predicate_type, str) or not predicate_type:
        raise SignatureRefused("the signed payload is not an in-toto statement", reason="malformed")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or len(subjects) > _MAX_SUBJECTS:
        raise SignatureRefused("the statement has no list of subjects", reason="malformed")
    digests = [members(members(s, "a subject").get("digest"), "a subject's digest") for s in subjects]
    if not any(item.get(digest.algorithm) == digest.hex for item in digests):
        raise SignatureRefused("the statement is about another image", reason="payload")
    fields, truncated = flatten(document.get("predicate"))
    own = [s for s, d in zip(subjects, digests, strict=True) if d.get(digest.algorithm) == digest.hex]
    annotations = own[0].get("annotations") if isinstance(own[0].get("annotations"), dict) else {}
    return Statement(clean_text(predicate_type, 300), fields, annotations, truncated)


def check_annotations(claims: Mapping[str, Any], wanted: tuple[tuple[str, str], ...]) -> None:
    """Check that the signed claims have every wanted annotation with exactly that value.

    Raises SignatureRefused(reason="annotations").
    """
    for name, value in wanted:
        if claims.get(name) != value:
            shown = clean_text(str(claims.get(name, "nothing")), 100)
            raise SignatureRefused(f"the annotation {name} is {shown}, not {value}", reason="annotations")


def flatten(predicate: object) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Return the scalar values of a predicate by dotted path, and whether some were left out.

    Breadth first, so that the values near the top are kept if the predicate is larger than the limits.
    """
    found: list[tuple[str, str]] = []
    queue: deque[tuple[str, object, int]] = deque([("", predicate, 0)])
    cut = False
    while queue and len(found) < _MAX_FIELDS:
        path, value, level = queue.popleft()
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            if level < _MAX_LEVELS and len(queue) + len(found) + len(value) <= 4 * _MAX_FIELDS:
                queue.extend((f"{path}.{name}" if path else str(name), inner, level + 1) for name, inner in items)
            else:
                cut = True  # a huge list is left out, and the values beside it are kept
        elif value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if len(path) <= _MAX_PATH and len(text) <= _MAX_VALUE:
                found.append((clean_text(path, _MAX_PATH), clean_text(text, _MAX_VALUE)))
            else:
                cut = True
    # A member name may contain a dot, so two paths can read the same. Nobody can tell which one a policy means: drop
    # both.
    times = Counter(path for path, _ in found)
    kept = tuple(item for item in found if times[item[0]] == 1)
    return kept, cut or bool(queue) or len(kept) < len(found)


def members(value: object, what: str) -> Mapping[str, Any]:
    """Return the object. Raises SignatureRefused(reason="malformed") if ``value`` is not one."""
    if not isinstance(value, dict):
        raise SignatureRefused(f"{what} is not an object", reason="malformed")
    return value


def _load(data: bytes, limit: int) -> object:
    return load_untrusted_json(data, limit=limit, error=SignatureRefused, reason="malformed")
