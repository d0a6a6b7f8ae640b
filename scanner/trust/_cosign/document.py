"""The document of a cosign trust root: which keys and identities to trust, validated once and parsed into keys and
certificates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from scanner.errors import UsageError
from scanner.model.pem import PUBLIC_KEY, pem_blocks, refuse_private_key
from scanner.trust._cosign.authorities import Authorities, Authority, Log
from scanner.trust._cosign.identity import Identity, Text
from scanner.trust._documents import UnsoundTrust, load_document, validate_model
from scanner.trust._pki import (
    PublicKey,
    certificates_pem,
    key_id,
    load_certificates,
    load_public_key,
    public_key_pem,
)

if TYPE_CHECKING:
    from sigstore.models import TrustedRoot


def _key(value: str) -> str:
    return public_key_pem(load_public_key(value))


def _certificates(value: str) -> str:
    return certificates_pem(load_certificates(value))


_KeyPem = Annotated[str, AfterValidator(_key)]
_CertificatesPem = Annotated[str, AfterValidator(_certificates)]


_MEMBER = re.compile(rb"^[A-Za-z_]+ *:", re.MULTILINE)  # a member of a YAML document


class Document(BaseModel):
    """The members of a cosign trust document. See docs/signatures.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: dict[Text, _KeyPem] = Field(default_factory=dict, max_length=50)
    identities: tuple[Identity, ...] = Field((), max_length=50)
    threshold: int = Field(1, ge=1, le=50, strict=True)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=50)
    tlog: Literal["required", "ignored"] | None = None
    rekor_keys: tuple[_KeyPem, ...] = Field((), max_length=20)
    fulcio: tuple[_CertificatesPem, ...] = Field((), max_length=20)
    ctfe_keys: tuple[_KeyPem, ...] = Field((), max_length=20)
    tsa: tuple[_CertificatesPem, ...] = Field((), max_length=20)
    trusted_root: Literal["bundled"] | dict[str, Any] | None = None

    @model_validator(mode="after")
    def _names_a_signer(self) -> Document:
        if not self.keys and not self.identities:
            raise UnsoundTrust("names no signer: give keys or identities")
        if self.trusted_root is not None and (self.fulcio or self.rekor_keys or self.ctfe_keys or self.tsa):
            raise UnsoundTrust("give trusted_root, or fulcio, rekor_keys, ctfe_keys and tsa; not both")
        # Own logs with the bundled public Fulcio would mix two instances: a certificate of one, checked against logs of
        # the other.
        if self.identities and not self.fulcio and (self.rekor_keys or self.ctfe_keys or self.tsa):
            raise UnsoundTrust("own logs or timestamp authorities need an own certificate authority: fulcio is missing")
        if isinstance(self.trusted_root, dict):
            from scanner.trust._cosign.instance import load_root

            # Read now, so that a broken trusted_root.json is refused when it is added, and not at the first scan.
            load_root(json.dumps(self.trusted_root))
        return self


@dataclass(frozen=True)
class CosignTrust:
    """A parsed document.

    ``keys``: pairs of name and key; two names for one key are one signer. ``threshold``: number of different signers
    that must have signed. ``root``: sigstore's own form, if the document has it.
    """

    keys: tuple[tuple[str, PublicKey], ...]
    identities: tuple[Identity, ...]
    threshold: int
    annotations: tuple[tuple[str, str], ...]  # which the signature must carry
    log_required: bool  # an entry in the transparency log must be there and valid
    keyless_log_required: bool  # the same, for signatures by identities only
    authorities: Authorities
    root: TrustedRoot | None


def parse_document(data: bytes, where: str) -> Mapping[str, Any]:
    """See ``TrustScheme.parse_trust``. A file of PEM public keys becomes a document with keys named after the file."""
    if b"-----BEGIN " in data and not data.lstrip().startswith(b"{") and not _MEMBER.search(data):
        refuse_private_key(data, where)
        value: Mapping[str, Any] = {"keys": _keys_by_name(data.decode("utf-8", "replace"), where)}
    else:
        value = load_document(data, where)
    return validate_model(Document, value, where).model_dump(mode="json", exclude_defaults=True)


def _keys_by_name(text: str, where: str) -> Mapping[str, str]:
    try:
        blocks = pem_blocks(text, PUBLIC_KEY, "a PEM public key")
    except ValueError as error:
        raise UsageError(f"{where}: {error}", hint="see docs/signatures.md") from None
    name = PurePath(where).stem or "key"
    return {name if len(blocks) == 1 else f"{name}-{index}": block for index, block in enumerate(blocks, 1)}


@lru_cache(maxsize=64)
def _trust(text: str) -> CosignTrust:
    document = validate_model(Document, json.loads(text), "the trust root")
    root, authorities = None, _own_authorities(document)
    if document.trusted_root is not None or (document.identities and not document.fulcio):
        # Imported only here: the library is large, and most trust roots are keys.
        from scanner.trust._cosign.instance import authorities_of, bundled_root, load_root

        given = document.trusted_root
        # The bundled root, without the network: a verifier that fetches its own trust on demand trusts the network.
        root = load_root(json.dumps(given) if isinstance(given, dict) else bundled_root())
        authorities = authorities_of(root)
    # A document that names logs expects entries in them; one with bare keys works without a log, as ``cosign --key``
    # does.
    names_logs = bool(document.rekor_keys) or document.trusted_root is not None
    required = document.tlog == "required" or (document.tlog is None and names_logs)
    return CosignTrust(
        keys=tuple((name, load_public_key(pem)) for name, pem in sorted(document.keys.items())),
        identities=document.identities,
        threshold=document.threshold,
        annotations=tuple(sorted(document.annotations.items())),
        log_required=required,
        # The instance of sigstore that counts where the document names none has logs too. Its timestamps alone prove
        # a time, but a signature that no log shows is not what its identities are trusted for.
        keyless_log_required=required or (document.tlog is None and root is not None),
        authorities=authorities,
        root=root,
    )


def parse_trust(document: Mapping[str, Any]) -> CosignTrust:
    """The keys and certificates of a valid document. Raises UsageError."""
    return _trust(json.dumps(document, sort_keys=True))


def _own_authorities(document: Document) -> Authorities:
    return Authorities(
        fulcio=tuple(Authority(load_certificates(pem)) for pem in document.fulcio),
        rekor=_by_id(document.rekor_keys),
        ctfe=_by_id(document.ctfe_keys),
        tsa=tuple(Authority(load_certificates(pem)) for pem in document.tsa),
    )


def _by_id(pems: tuple[str, ...]) -> dict[str, Log]:
    return {key_id(key): Log(key) for key in map(load_public_key, pems)}
