"""The document of a Notation trust root: a trust policy in its standard format, and the trust stores that it names.

Format: trust-store-trust-policy.md. The document has two members: ``trustpolicy`` and ``stores`` (PEM certificates by
type:name).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from cryptography import x509
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from scanner.trust._documents import UnsoundTrust, load_document, validate_model
from scanner.trust._pki import certificates_pem, load_certificates
from scanner.trust.base import SignatureRefused

_STORE = re.compile(r"(ca|signingAuthority|tsa):[A-Za-z0-9_.-]{1,100}")
_SUBJECT = "x509.subject:"
_REQUIRED = ("C", "ST", "O")
_SCOPE = re.compile(r"[A-Za-z0-9.\[\]:-]+/[a-z0-9._/-]+")


class Validation(StrEnum):
    """The validations that a level can switch. Integrity is not among them: it is always enforced."""

    AUTHENTICITY = "authenticity"
    TIMESTAMP = "authenticTimestamp"
    EXPIRY = "expiry"
    REVOCATION = "revocation"


class Action(StrEnum):
    ENFORCE = "enforce"
    LOG = "log"
    SKIP = "skip"


_LEVELS: Mapping[str, Mapping[Validation, Action]] = {
    "strict": dict.fromkeys(Validation, Action.ENFORCE),
    "permissive": {**dict.fromkeys(Validation, Action.LOG), Validation.AUTHENTICITY: Action.ENFORCE},
    "audit": dict.fromkeys(Validation, Action.LOG),
    "skip": dict.fromkeys(Validation, Action.SKIP),
}


def _certificates(value: str) -> str:
    return certificates_pem(load_certificates(value))


def _store(value: str) -> str:
    if not _STORE.fullmatch(value):
        raise ValueError("not a trust store: write ca:NAME, signingAuthority:NAME or tsa:NAME")
    return value


_Pem = Annotated[str, AfterValidator(_certificates)]
_StoreName = Annotated[str, AfterValidator(_store)]
_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _SignatureVerification(_StrictModel):
    level: Literal["strict", "permissive", "audit", "skip"]
    override: dict[Literal["integrity", "authenticity", "authenticTimestamp", "expiry", "revocation"], Action] = Field(
        default_factory=dict
    )
    verifyTimestamp: Literal["always", "afterCertExpiry"] = "always"

    @model_validator(mode="after")
    def _is_consistent(self) -> _SignatureVerification:
        if self.override and self.level == "skip":
            raise UnsoundTrust("level skip verifies nothing, so override must be empty")
        for name, action in self.override.items():
            if name == "integrity":
                raise UnsoundTrust("integrity cannot be overridden")
            # The specification allows to log these failures, but not to skip the check itself.
            if action is Action.SKIP and name != "revocation":
                raise UnsoundTrust(f"{name} cannot be skipped, only revocation can")
        return self


class _TrustPolicy(_StrictModel):
    name: _Text
    registryScopes: tuple[_Text, ...] = Field(min_length=1, max_length=1000)
    signatureVerification: _SignatureVerification
    trustStores: tuple[_StoreName, ...] = Field((), max_length=50)
    trustedIdentities: tuple[_Text, ...] = Field((), max_length=100)

    @model_validator(mode="after")
    def _is_consistent(self) -> _TrustPolicy:
        if "*" in self.registryScopes and len(self.registryScopes) > 1:
            raise UnsoundTrust("registryScopes: '*' must be the only one")
        for scope in self.registryScopes:
            if scope != "*" and not _SCOPE.fullmatch(scope):
                raise UnsoundTrust(f"registryScopes: {scope[:100]!r} is not '*' or registry/repository without a tag")
        if self.signatureVerification.level == "skip":
            return self
        if not self.trustStores or not self.trustedIdentities:
            raise UnsoundTrust("trustStores and trustedIdentities are required unless the level is skip")
        _identities(self.trustedIdentities)
        return self


class _TrustPolicyDocument(_StrictModel):
    version: Literal["1.0"]
    trustPolicies: tuple[_TrustPolicy, ...] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _is_consistent(self) -> _TrustPolicyDocument:
        names = [policy.name for policy in self.trustPolicies]
        scopes = [scope for policy in self.trustPolicies for scope in policy.registryScopes]
        if len(set(names)) != len(names):
            raise UnsoundTrust("two trust policies have the same name")
        # Which of two policies would apply must not depend on their order.
        if len(set(scopes)) != len(scopes):
            raise UnsoundTrust("a registry scope is in two trust policies")
        return self


class Document(_StrictModel):
    """The members of a Notation trust document. See docs/signatures.md."""

    trustpolicy: _TrustPolicyDocument
    stores: dict[_StoreName, tuple[_Pem, ...]] = Field(default_factory=dict, max_length=50)
    scope: str = Field("", max_length=500)


Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Policy:
    """The trust policy that applies to one repository. ``identities`` None: every certificate of the trust stores."""

    name: str
    actions: Mapping[Validation, Action]
    skip: bool  # the level "skip": nothing is verified, and nothing counts as signed
    stores: tuple[str, ...]  # type:name
    identities: tuple[Attributes, ...] | None
    timestamp_always: bool  # also while the signer's certificate is valid


@dataclass(frozen=True)
class NotationTrust:
    """A parsed document."""

    document: Document
    stores: Mapping[str, tuple[x509.Certificate, ...]]

    def policy_for(self, name: str) -> Policy:
        """Return the policy with the repository in its scopes, otherwise the global one (scope ``*``).

        Raises SignatureRefused(reason="policy") if there is neither: without a policy nothing is trusted.
        """
        repository = self.document.scope or name
        policies = self.document.trustpolicy.trustPolicies
        found = next((p for p in policies if repository in p.registryScopes), None) or next(
            (p for p in policies if "*" in p.registryScopes), None
        )
        if found is None:
            raise SignatureRefused(f"no trust policy applies to {repository[:200]}", reason="policy")
        verification = found.signatureVerification
        overrides = {Validation(name): action for name, action in verification.override.items() if name != "integrity"}
        skip = verification.level == "skip"
        return Policy(
            name=found.name,
            actions={**_LEVELS[verification.level], **overrides},
            skip=skip,
            stores=found.trustStores,
            identities=() if skip else _identities(found.trustedIdentities),
            timestamp_always=verification.verifyTimestamp == "always",
        )

    def certificates(self, policy: Policy, kind: str) -> tuple[x509.Certificate, ...]:
        """The certificates of the policy's stores of one type.

        A ``ca`` store never serves for a ``signingAuthority``, nor the other way round: the two schemes trust
        different claims.
        """
        named = [name for name in policy.stores if name.partition(":")[0] == kind]
        return tuple(certificate for name in named for certificate in self.stores.get(name, ()))


def parse_document(data: bytes, where: str) -> Mapping[str, Any]:
    """See ``TrustScheme.parse_trust``. A bare ``trustpolicy.json`` becomes a document without stores."""
    value = load_document(data, where)
    if "trustPolicies" in value:
        value = {"trustpolicy": value}
    return validate_model(Document, value, where).model_dump(mode="json", exclude_defaults=True)


def parse_trust(document: Mapping[str, Any]) -> NotationTrust:
    """The policies and certificates of a valid document. Raises UsageError."""
    # A scan asks for each image; parsing the certificates costs more than verifying one signature.
    return _trust(json.dumps(document, sort_keys=True))


@lru_cache(maxsize=64)
def _trust(text: str) -> NotationTrust:
    document = validate_model(Document, json.loads(text), "the trust root")
    stores = {name: tuple(c for pem in pems for c in load_certificates(pem)) for name, pems in document.stores.items()}
    return NotationTrust(document, stores)


def _identities(values: tuple[str, ...]) -> tuple[Attributes, ...] | None:
    """Parse the identities; None for ``*``.

    Raises UnsoundTrust for one with too few attributes, or two that overlap.
    """
    if "*" in values:
        if len(values) > 1:
            raise UnsoundTrust("trustedIdentities: '*' must be the only one")
        return None
    found = []
    for value in values:
        if not value.startswith(_SUBJECT):
            raise UnsoundTrust(f"trustedIdentities: {value[:100]!r} does not begin with {_SUBJECT}")
        attributes = parse_name(value.removeprefix(_SUBJECT))
        missing = [name for name in _REQUIRED if name not in attributes]
        if missing:
            raise UnsoundTrust(f"trustedIdentities: {value[:100]!r} lacks {', '.join(missing)}")
        found.append(attributes)
    # Overlapping identities are forbidden by the specification: the narrower one would have no effect.
    for i, one in enumerate(found):
        if any(i != j and one.items() <= other.items() for j, other in enumerate(found)):
            raise UnsoundTrust("trustedIdentities: two of them overlap")
    return tuple(found)


def parse_name(text: str) -> dict[str, str]:
    """Parse the attributes of a distinguished name (RFC 4514).

    Names are never compared as text: a value may contain ``, CN=…``. Raises UnsoundTrust for an invalid name, a
    repeated attribute, or a multi-valued one.
    """
    found: dict[str, str] = {}
    for part in _split(text, ","):
        name, equals, value = part.partition("=")
        name = name.strip().upper()
        # Both are in use for the state or province; certificates print as either.
        name = "ST" if name == "S" else name
        if not equals or not re.fullmatch(r"[A-Z][A-Z0-9-]*|[0-9]+(\.[0-9]+)*", name) or len(_split(part, "+")) > 1:
            raise UnsoundTrust(f"not a distinguished name: {text[:100]!r}")
        if name in found:
            raise UnsoundTrust(f"the attribute {name} occurs twice in {text[:100]!r}")
        found[name] = _unescape(value)
        # An empty value would match every certificate without the attribute.
        if not found[name]:
            raise UnsoundTrust(f"the attribute {name} is empty in {text[:100]!r}")
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split at every separator that is neither escaped nor quoted."""
    parts, current, escaped, quoted = [], "", False, False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            parts.append(current)
            current = ""
            continue
        current += character
    return [*parts, current]


def _unescape(value: str) -> str:
    value = value.strip(" ") if not value.endswith("\\ ") else value.lstrip(" ")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    raw = re.sub(
        rb"\\([0-9A-Fa-f]{2}|.)",
        lambda match: bytes.fromhex(match[1].decode()) if len(match[1]) == 2 else match[1],
        value.encode(),
        flags=re.DOTALL,
    )
    return raw.decode("utf-8", "replace")
