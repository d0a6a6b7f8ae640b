"""RFC 3161 timestamps: proof that a trusted authority saw these bytes at a time.

Parsed with asn1crypto, which accepts attribute sets in the order that authorities write them. The signed attributes are
then encoded again as DER (RFC 5652 section 5.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from asn1crypto import algos, cms, core, tsp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.trust._path import build_path
from scanner.trust._pki import certificate_key, load_der_certificate, valid_at
from scanner.trust.base import SignatureRefused

MAX_TIMESTAMP = 64 << 10
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Timestamp:
    """The bytes existed at some time between ``earliest`` and ``latest``.

    ``authority``: the subject of its certificate.
    """

    earliest: datetime
    latest: datetime
    authority: str


def verify_timestamp(token: bytes, message: bytes, anchors: Sequence[x509.Certificate]) -> Timestamp:
    """Verify a TimeStampResp or bare TimeStampToken over ``message``, by an authority below ``anchors``.

    Raises SignatureRefused(reason="timestamp").
    """
    if len(token) > MAX_TIMESTAMP:
        raise SignatureRefused("the timestamp is too large", reason="timestamp")
    try:
        return _verify(token, message, anchors)
    except SignatureRefused as error:
        raise (
            error if error.reason == "timestamp" else _refused_timestamp(str(error))
        ) from error  # a certificate inside it
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        # asn1crypto raises these for bytes that are not a timestamp. It parses lazily, so they come from anywhere
        # below.
        raise SignatureRefused("the timestamp cannot be read", reason="timestamp") from error


def _verify(token: bytes, message: bytes, anchors: Sequence[x509.Certificate]) -> Timestamp:
    signed = _signed_data(token)
    content = signed["encap_content_info"]
    if content["content_type"].native != "tst_info":
        raise _refused_timestamp("its content is not a timestamp")
    encoded: bytes = content["content"].contents
    info = tsp.TSTInfo.load(encoded, strict=True)
    imprint = info["message_imprint"]
    _check_digest(
        imprint["hash_algorithm"]["algorithm"].native,
        imprint["hashed_message"].native,
        message,
        "it is for other bytes",
    )
    # RFC 3161 2.4.2: exactly one signer, so that it is clear which certificate must be checked.
    if len(signed["signer_infos"]) != 1:
        raise _refused_timestamp("it must have one signer")
    signer = signed["signer_infos"][0]
    certificates = (
        [load_der_certificate(item.chosen.dump()) for item in signed["certificates"]] if signed["certificates"] else []
    )
    certificate = _signer_certificate(signer, [*certificates, *anchors])
    _check_signature(signer, certificate, encoded)
    time: datetime = info["gen_time"].native
    _check_purpose(certificate)
    # A trust root may name the signing certificate itself. Then there is no chain to build, only its own validity.
    if certificate not in anchors or not valid_at(certificate, time):
        try:
            build_path(certificate, certificates, anchors, time, ExtendedKeyUsageOID.TIME_STAMPING)
        except SignatureRefused as error:
            raise _refused_timestamp(str(error)) from error
    accuracy = _accuracy(info)
    # An interval, because the authority claims no more. The signer's certificate must be valid at both ends.
    return Timestamp(time - accuracy, time + accuracy, certificate.subject.rfc4514_string())


def _signed_data(token: bytes) -> cms.SignedData:
    """Return the signed data of a bare token (Notation) or of a whole response (RFC 3161 section 2.4.2)."""
    info = cms.ContentInfo.load(token, strict=True) if _is_token(token) else _granted_token(token)
    if info["content_type"].native != "signed_data":
        raise _refused_timestamp("it is not signed")
    return info["content"]


def _is_token(token: bytes) -> bool:
    first = core.Sequence.load(token, strict=True)
    return isinstance(first[0], core.ObjectIdentifier)


def _granted_token(token: bytes) -> cms.ContentInfo:
    response = tsp.TimeStampResp.load(token, strict=True)
    if response["status"]["status"].native not in ("granted", "granted_with_mods"):
        raise _refused_timestamp("the authority did not grant the request")
    return response["time_stamp_token"]


def _signer_certificate(signer: cms.SignerInfo, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    wanted = signer["sid"]
    for certificate in certificates:
        parsed = _asn1(certificate)
        if wanted.name == "issuer_and_serial_number":
            same = (
                parsed.issuer == wanted.chosen["issuer"]
                and certificate.serial_number == wanted.chosen["serial_number"].native
            )
        else:
            same = parsed.key_identifier == wanted.chosen.native
        if same:
            return certificate
    raise _refused_timestamp("its signer's certificate is missing")


def _asn1(certificate: x509.Certificate) -> cms.Certificate:
    return cms.Certificate.load(certificate.public_bytes(Encoding.DER))


def _check_signature(signer: cms.SignerInfo, certificate: x509.Certificate, content: bytes) -> None:
    attributes = signer["signed_attrs"]
    values = {item["type"].native: item["values"] for item in attributes}
    # RFC 5652 sections 11.1 and 11.2: these have one value each. Of several, two verifiers could take different ones.
    single = len(values) == len(attributes) and all(len(values[n]) == 1 for n in ("content_type", "message_digest"))
    if not single or values["content_type"][0].native != "tst_info":
        raise _refused_timestamp("its attributes are not those of a timestamp")
    digest = signer["digest_algorithm"]["algorithm"].native
    _check_digest(digest, values["message_digest"][0].native, content, "its digest is for other content")
    _check_certificate_attribute(values, certificate)
    # RFC 5652 section 5.4: the signature covers the attributes as SET OF in DER, not the [0] in the message.
    signed = cms.CMSAttributes(list(attributes)).dump(force=True)
    received = b"\x31" + attributes.dump()[1:]  # as written: authorities that do not sort their set sign it unsorted
    key, signature = certificate_key(certificate), signer["signature"].native
    algorithm: algos.SignedDigestAlgorithm = signer["signature_algorithm"]
    for candidate in (signed, received):
        if _verifies(key, signature, candidate, algorithm, digest):
            return
    raise _refused_timestamp("its signature does not verify")


def _check_certificate_attribute(values: dict[str, cms.SetOfAny], certificate: x509.Certificate) -> None:
    """Compare ESSCertID(v2), the signed digest of the signer's certificate (RFC 5816).

    Without it, another certificate with the same key could be substituted.
    """
    der = _asn1(certificate).dump()
    if "signing_certificate_v2" in values:
        first = values["signing_certificate_v2"][0]["certs"][0]
        name, found = first["hash_algorithm"]["algorithm"].native, first["cert_hash"].native
        _check_digest(name, found, der, "it names another certificate")
    elif "signing_certificate" in values:
        found = values["signing_certificate"][0]["certs"][0]["cert_hash"].native
        if hashlib.sha1(der).digest() != found:  # noqa: S324 - the form of RFC 3161, beside a signature that is not SHA-1
            raise _refused_timestamp("it names another certificate")
    else:
        raise _refused_timestamp("it does not name its certificate")


def _verifies(key: object, signature: bytes, data: bytes, algorithm: algos.SignedDigestAlgorithm, digest: str) -> bool:
    kind = algorithm.signature_algo
    name = digest if algorithm["algorithm"].native in ("rsassa_pkcs1v15", "ecdsa") else algorithm.hash_algo
    chosen = _HASHES.get(name)
    if chosen is None:
        raise _refused_timestamp(f"it uses the hash {name}, which is not accepted")
    try:
        if isinstance(key, rsa.RSAPublicKey) and kind == "rsassa_pkcs1v15":
            key.verify(signature, data, padding.PKCS1v15(), chosen)
        elif isinstance(key, rsa.RSAPublicKey) and kind == "rsassa_pss":
            key.verify(signature, data, padding.PSS(padding.MGF1(chosen), padding.PSS.AUTO), chosen)
        elif isinstance(key, ec.EllipticCurvePublicKey) and kind == "ecdsa":
            key.verify(signature, data, ec.ECDSA(chosen))
        else:
            raise _refused_timestamp("the type of its key does not match its signature")
    except InvalidSignature:
        return False
    return True


def _check_purpose(certificate: x509.Certificate) -> None:
    """RFC 3161 section 2.3: exactly one extended key usage, critical, id-kp-timeStamping."""
    usages = [item for item in certificate.extensions if item.oid == x509.ExtendedKeyUsage.oid]
    alone = [ExtendedKeyUsageOID.TIME_STAMPING]
    if not usages or not usages[0].critical or list(usages[0].value) != alone:
        raise _refused_timestamp("its certificate must be for timestamping only")


def _check_digest(name: str, found: bytes, data: bytes, message: str) -> None:
    if name not in _HASHES:
        raise _refused_timestamp(f"it uses the hash {name}, which is not accepted")
    if hashlib.new(name, data).digest() != found:
        raise _refused_timestamp(message)


def _accuracy(info: tsp.TSTInfo) -> timedelta:
    value = info["accuracy"].native
    if not value:
        return timedelta()
    return timedelta(
        seconds=value["seconds"] or 0, milliseconds=value["millis"] or 0, microseconds=value["micros"] or 0
    )


def _refused_timestamp(why: str) -> SignatureRefused:
    return SignatureRefused(f"the timestamp is not acceptable: {why}", reason="timestamp")
