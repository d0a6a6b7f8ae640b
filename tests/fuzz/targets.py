"""One target for each reader of foreign bytes.

A reader refuses with an error of ours, or of the kinds that its docstring names; any other exception would end a
scan, a request or a worker's slot as "internal error", and is a find.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from scanner import catalog
from scanner.advisories import bolt, database, feeds
from scanner.checks import _passwd
from scanner.checks._dockerfile import read as read_dockerfile
from scanner.checks._history import read_history
from scanner.checks._secret_search import by_re2
from scanner.checks._secrets import SecretScanner, in_text
from scanner.checks.base import ImageSubject
from scanner.commands import _engine_requests
from scanner.config import Limits, Secret, Settings
from scanner.engines import clair, trivy
from scanner.errors import ScannerError, UsageError
from scanner.model.image import HistoryEntry, Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform, Reference
from scanner.model.untrusted import load_untrusted_json
from scanner.outbound import split_address
from scanner.policy import openvex
from scanner.policy.rules import parse_policy
from scanner.registry import tls
from scanner.registry.archive import open_archive
from scanner.registry.attached import parse_sbom
from scanner.registry.auth import parse_challenges
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.manifest import OCI_INDEX, OCI_MANIFEST, build_image, parse_config, parse_manifest
from scanner.registry.packages import package_databases
from scanner.registry.rootfs import concerns, merge
from scanner.registry.sources import LayoutSource
from scanner.registry.tar import TarReader, Visitor
from scanner.services import admissions, engine_calls, harbor, pulls
from scanner.trust import _pki, _receipts, _timestamp
from scanner.trust._cosign.document import parse_document as parse_cosign_document
from scanner.trust._cosign.document import parse_trust
from scanner.trust._cosign.forms import parse_bundle, parse_classic
from scanner.trust._notation.envelope import check_integrity, parse_envelope
from scanner.trust._tuf.documents import parse_document as parse_tuf
from tests.fuzz import doors, tokens
from tests.scanner.registry.archives import archive, file
from web.webhooks import formats as webhook_formats
from web.webhooks.base import PushEvent

LIMITS = replace(
    Limits(),
    layer_uncompressed=1 << 20,
    layer_compressed=1 << 20,
    ratio=50,
    ratio_after=64 << 10,
    file_size=1 << 18,
    layer_entries=500,
    image_uncompressed=1 << 20,
    special_header=1 << 14,
)
COSIGN_SIGNATURE = "dev.cosignproject.cosign/signature"


@dataclass(frozen=True)
class Target:
    """``read`` reads one input. ``also``: kinds of error that the reader's docstring names beside ours."""

    read: Callable[[bytes], object]
    is_json: bool = False
    also: tuple[type[Exception], ...] = ()

    def run(self, data: bytes) -> None:
        try:
            self.read(data)
        except (ScannerError, *self.also):
            return


def image_of(history: tuple[HistoryEntry, ...] = ()) -> Image:
    digest = Digest("sha256:" + "1" * 64)
    config = ImageConfig(digest, Platform("linux", "amd64"), (digest,), history=history)
    layer = Layer(0, digest, digest, "application/vnd.oci.image.layer.v1.tar", 10)
    return Image(Descriptor(OCI_MANIFEST, digest, 10), config, (layer,))


def manifest(data: bytes) -> object:
    return parse_manifest(data, Descriptor(OCI_MANIFEST, Digest.of(data), len(data)), LIMITS)


def index(data: bytes) -> object:
    return parse_manifest(data, Descriptor(OCI_INDEX, Digest.of(data), len(data)), LIMITS)


def image_manifest(data: bytes) -> object:
    """A manifest and its config, one behind the other."""
    head, _, tail = data.partition(b"\n--\n")
    found = parse_manifest(head, Descriptor("", Digest.of(head), len(head)), LIMITS)
    return build_image(found, parse_config(tail, Digest.of(tail), LIMITS))  # type: ignore[arg-type]


def config(data: bytes) -> object:
    found = parse_config(data, Digest.of(data), LIMITS)
    return read_history(found)


class _Everything(Visitor):
    def entry(self, entry: Any) -> bool:
        return bool(entry.size < 4096)

    def content(self, entry: Any, data: bytes) -> None:
        assert len(data) == entry.size


def tar(data: bytes) -> None:
    reader = TarReader(_Everything(), LIMITS)
    for start in range(0, len(data), 700):
        reader.feed(data[start : start + 700])
    reader.close()


def layer(kind: str) -> Callable[[bytes], object]:
    media_type = "application/vnd.oci.image.layer.v1.tar" + kind

    def read(data: bytes) -> object:
        wants = ContentWants(("etc/*", "*.json"), SecretScanner())
        digest = Digest.of(data)
        return read_layer(
            io.BytesIO(data), media_type, digest=digest, size=len(data), diff_id=digest, limits=LIMITS, wants=wants
        )

    return read


def packed(compress: Callable[[bytes], bytes], kind: str) -> Callable[[bytes], object]:
    """A broken archive inside a whole stream: the reader behind the decompressor is reached."""
    read = layer(kind)
    return lambda data: read(compress(data))


def saved(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.tar"
        path.write_bytes(data)
        settings = Settings(home=Path(directory), limits=LIMITS)
        layout, close = open_archive(path, settings)
        try:
            source = LayoutSource(layout, settings, "fuzz", None)
            manifests, _ = source.children(source.resolve(), None, every=True)
            for descriptor in manifests:
                image, _ = source.image(descriptor)
                for one in image.layers:
                    with source.open(Descriptor(one.media_type, one.digest, one.size)) as stream:
                        stream.read(100)
        finally:
            close()


def system_files(data: bytes) -> None:
    """The same bytes as every file of the system that we read ourselves, and every image check over them."""
    paths = (
        "etc/passwd",
        "etc/group",
        "etc/shadow",
        "etc/os-release",
        "etc/debian_version",
        "var/lib/dpkg/status",
        "lib/apk/db/installed",
        "var/lib/rpm/rpmdb.sqlite",
        "etc/sudoers",
    )
    plain = archive(*(file(path, data[:100_000]) for path in paths))
    facts = read_layer(
        io.BytesIO(plain),
        "application/vnd.oci.image.layer.v1.tar",
        digest=Digest.of(plain),
        size=len(plain),
        diff_id=Digest.of(plain),
        limits=Limits(),
        wants=_wants(),
    )
    rootfs = merge([facts])
    _passwd.accounts(rootfs)
    _passwd.groups(rootfs)
    _passwd.passwords(rootfs)
    package_databases(rootfs)
    tuple(concerns(rootfs, None))
    subject = ImageSubject(image_of(), rootfs, "", None, ())
    for check in catalog.image_checks().values():
        check.examine(replace(subject, parameters=check.parameters))


@cache
def _wants() -> ContentWants:
    return ContentWants(tuple({p for check in catalog.image_checks().values() for p in check.wants}), SecretScanner())


def history(data: bytes) -> None:
    text = data.decode("utf-8", "replace").replace("\0", "")
    image = image_of(tuple(HistoryEntry(created_by=line) for line in text.split("\n--\n")[:20]))
    subject = ImageSubject(image, None, "not read", None, ())
    for check in catalog.image_checks().values():
        check.examine(replace(subject, parameters=check.parameters))
    in_text(text)


def secrets(data: bytes) -> None:
    """Both ways to select files find the same."""
    for path in ("srv/app/data", "srv/app/.env"):
        assert SecretScanner(by_re2).search(path, data) == SecretScanner().search(path, data)


def bbolt(data: bytes) -> None:
    budget = [2000]

    def walk(bucket: bolt.Bucket) -> None:
        for key, value in bucket.items():
            budget[0] -= 1
            if budget[0] < 0:
                return
            bucket.get(key)
            if isinstance(value, bolt.Bucket):
                walk(value)

    walk(bolt.root_of(data))


def feed(kind: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        with tempfile.NamedTemporaryFile() as out:
            out.write(data)
            out.flush()
            feeds.recognise(Path(out.name))
            feeds.parse(Path(out.name), kind)

    return read


def advisories_archive(data: bytes) -> None:
    """An archive of a mirror, unpacked: the database in it is another target."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for part in ("db", "java-db"):
            (directory / part).mkdir()
        archived = directory / "archive"
        archived.write_bytes(data)
        database._unpack(archived, directory)


def tls_answer(data: bytes) -> object:
    stream = io.BytesIO(data)
    return tls.read_answer(stream.read)


def certificates(data: bytes) -> None:
    for certificate in _pki.load_certificates(data):
        _read_certificate(certificate)


def der_certificate(data: bytes) -> None:
    _read_certificate(_pki.load_der_certificate(data))


def _read_certificate(certificate: Any) -> None:
    with suppress(*tls._UNREADABLE):  # whom the probe asks: the chain is Incomplete then
        tls.certificate_fact(certificate)
    _pki.is_authority(certificate, 0)
    _pki.certificates_pem([certificate])
    _pki.issued_by(certificate, certificate)


def public_key(data: bytes) -> None:
    _pki.key_id(_pki.load_public_key(data))


def timestamp(data: bytes) -> object:
    return _timestamp.verify_timestamp(data, b"message", ())


def envelope(media_type: str) -> Callable[[bytes], None]:
    return lambda data: check_integrity(parse_envelope(data, media_type))


def cosign_attestation(data: bytes) -> None:
    _material(parse_classic(data, {}, attestation=True))


def cosign_annotations(data: bytes) -> None:
    """Every annotation of a classic signature holds the same bytes."""
    text = data.decode("utf-8", "replace")
    names = ("certificate", "chain", "bundle", "rfc3161timestamp")
    annotations = {f"dev.sigstore.cosign/{name}": text for name in names}
    _material(parse_classic(b"{}", {COSIGN_SIGNATURE: "AAAA", **annotations}, attestation=False))


def cosign_bundle(data: bytes) -> None:
    _material(parse_bundle(data))


def _material(signed: Any) -> None:
    """Each is read when a step of the verification needs it, and each may refuse."""
    for name in ("certificate", "chain", "entries", "timestamps"):
        try:
            part = getattr(signed.material, name)
            _ = part() if callable(part) else part
        except ScannerError:
            continue


def cosign_trust(data: bytes) -> object:
    return parse_trust(parse_cosign_document(data, "trust"))


def tuf(data: bytes) -> None:
    for kind in ("root", "targets", "snapshot", "timestamp"):
        try:
            parse_tuf(data, kind, kind, 1 << 20)
        except ScannerError:
            continue


def reference(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for read in (Reference.parse, Platform.parse, Digest):
        try:
            read(text)
        except ScannerError:
            continue
    parse_challenges(text)
    split_address(text, "https://registry.example.com/v2/")


def workload(data: bytes) -> None:
    for source in catalog.workload_sources().values():
        try:
            source.parse(data)
        except ScannerError:
            continue


def webhook(data: bytes) -> object:
    """Every format reads the same bytes; what one refuses another may take."""
    found = []
    for form in webhook_formats().values():
        with suppress(ScannerError):
            found += [event.identity for event in form.parse(data) if isinstance(event, PushEvent)]
    return found


def admission_review(data: bytes) -> None:
    document = load_untrusted_json(data, limit=1 << 20, depth=64, error=UsageError)
    admissions.refusal(document, "no")
    admissions.containers_of(admissions.parse_review(document))


def pull(data: bytes) -> None:
    """A method and a URI, as a proxy passes them on."""
    method, _, uri = data.decode("latin-1").partition(" ")
    found = pulls.parse(method, uri)
    if found.kind is not pulls.Kind.OTHER:
        with suppress(ScannerError):
            Reference.parse(f"registry.example.com/{found.repository}:{found.name}")


def harbor_request(data: bytes) -> None:
    """A registry's address and its credentials, as a Harbor sends them, each in a line."""
    url, _, authorization = data.decode("utf-8", "replace").partition("\n")
    with suppress(ScannerError):
        host = harbor.host_of(url)
        assert host.isascii() and not set(host) & set("/@?# ")
    with suppress(ScannerError):
        harbor.parse_authorization(Secret(authorization))


def engine_request(data: bytes) -> None:
    """The body of a container's creation, then of a service's, as a Docker engine passes them on."""
    for path in ("/v1.41/containers/create", "/services/create"):
        with suppress(ScannerError):
            ask = _engine_requests.read("POST", path, {"Content-Type": "application/json"}, data)
            assert ask is not None and ask.document is not None and ask.image
            with suppress(ScannerError):
                catalog.workload_sources()[ask.source].parse(json.dumps(ask.document), "the request")


def engine_call(data: bytes) -> None:
    engine_calls.parse(load_untrusted_json(data, limit=1 << 20, error=UsageError))


def receipt(data: bytes) -> None:
    for signed in _receipts.parse(data):
        _receipts.verify(signed, (_RECEIPT_KEY,), _receipts.ExpectedReceipt(_NOW))


def receipt_statement(data: bytes) -> object:
    """A statement that the holder of a trusted key signed: whatever it holds, it is read or refused."""
    (signed,) = _receipts.parse(_receipts.sign(data, _RECEIPT_PRIVATE).encode())
    found = _receipts.verify(signed, (_RECEIPT_KEY,), _receipts.ExpectedReceipt(_NOW, environment="production"))
    return found and _receipts.decide([found], _NOW)


def trust_root(data: bytes) -> None:
    """The document of a trust root, as a person uploads it; one that is accepted is accepted again, and usable."""
    for scheme in catalog.schemes().values():
        with suppress(ScannerError):
            document = scheme.parse_trust(data, "trust")
            scheme.parse_trust(json.dumps(document).encode(), "trust")
            scheme.signers(document)


_RECEIPT_PRIVATE = _receipts.new_key()
_RECEIPT_KEY = _pki.load_public_key(_receipts.public_of(_RECEIPT_PRIVATE)[1])
_NOW = datetime(2026, 1, 2, tzinfo=UTC)

TARGETS: Mapping[str, Target] = {
    "door_admission": Target(doors.admit, is_json=True),
    "door_engine": Target(doors.authorize_engine, is_json=True),
    "door_pull": Target(doors.authorize_pull),
    "door_harbor": Target(doors.request_scan, is_json=True),
    "docker_plugin": Target(doors.plugin, is_json=True),
    "inventory": Target(doors.report_inventory, is_json=True),
    "id_token": Target(tokens.id_token),
    "token_claims": Target(tokens.token_claims, is_json=True),
    "token_keys": Target(tokens.token_keys, is_json=True),
    "receipt": Target(receipt, is_json=True),
    "receipt_statement": Target(receipt_statement, is_json=True),
    "receipt_keys": Target(lambda data: _receipts.load_keys(data, "keys"), is_json=True),
    "trust_root": Target(trust_root, is_json=True),
    "pull": Target(pull),
    "harbor_request": Target(harbor_request),
    "engine_request": Target(engine_request, is_json=True),
    "engine_call": Target(engine_call, is_json=True),
    "manifest": Target(manifest, is_json=True),
    "index": Target(index, is_json=True),
    "image_manifest": Target(image_manifest),
    "config": Target(config, is_json=True),
    "tar": Target(tar),
    "layer_plain": Target(layer("")),
    "layer_gzip": Target(layer("+gzip")),
    "layer_zstd": Target(layer("+zstd")),
    "layer_in_gzip": Target(packed(lambda data: gzip.compress(data, 1), "+gzip")),
    "layer_in_zstd": Target(packed(lambda data: zstandard.ZstdCompressor().compress(data), "+zstd")),
    "docker_save": Target(saved),
    "system_files": Target(system_files),
    "history": Target(history),
    "secrets": Target(secrets),
    "bolt": Target(bbolt),
    "advisories_archive": Target(advisories_archive),
    "kev": Target(feed(feeds.KEV)),
    "epss": Target(feed(feeds.EPSS)),
    "trivy_report": Target(lambda data: trivy.read_report(data, image_of(), LIMITS), is_json=True),
    "clair_report": Target(lambda data: clair.read_report(data, image_of(), LIMITS), is_json=True),
    "cyclonedx": Target(lambda data: parse_sbom(data, "cyclonedx", LIMITS), is_json=True),
    "spdx": Target(lambda data: parse_sbom(data, "spdx", LIMITS), is_json=True),
    "jws": Target(envelope("application/jose+json"), is_json=True),
    "cose": Target(envelope("application/cose")),
    "cosign_attestation": Target(cosign_attestation, is_json=True),
    "cosign_annotations": Target(cosign_annotations, is_json=True),
    "cosign_bundle": Target(cosign_bundle, is_json=True),
    "cosign_trust": Target(cosign_trust, is_json=True, also=(ValueError,)),
    "tuf": Target(tuf, is_json=True),
    "certificates": Target(certificates, also=(ValueError,)),
    "der_certificate": Target(der_certificate, also=(ValueError,)),
    "public_key": Target(public_key, also=(ValueError,)),
    "timestamp": Target(timestamp),
    "tls_answer": Target(tls_answer),
    "webhook": Target(webhook, is_json=True),
    "vex": Target(openvex.parse, is_json=True),
    "policy": Target(lambda data: parse_policy(data.decode("utf-8", "replace"), known=catalog.known_names())),
    "reference": Target(reference),
    "workload": Target(workload),
    "dockerfile": Target(lambda data: read_dockerfile(data.decode("utf-8", "replace"), "Dockerfile")),
    "admission_review": Target(admission_review, is_json=True),
}
