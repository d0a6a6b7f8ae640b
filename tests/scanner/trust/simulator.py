"""A Notary repository in memory, honest unless a test makes it otherwise: every document may be changed before or
after it is signed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID, ObjectIdentifier

GUN = "registry.example/team/app"
NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)
DAY = timedelta(days=1)
OLD, NEW, OTHER = ("sha256:" + hashlib.sha256(text).hexdigest() for text in (b"old", b"new", b"other"))

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Edit = Callable[[dict[str, Any]], None]


def canonical(value: Any) -> bytes:
    """The signed bytes, written apart from the code under test; for values without control characters."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode())
        return b"{" + b",".join(canonical(name) + b":" + canonical(value[name]) for name in names) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, str):
        return b'"' + value.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
    return json.dumps(value).encode()


@cache
def private(name: str) -> ec.EllipticCurvePrivateKey:
    """The same key for the same name, a run long."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def private_rsa(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class SimKey:
    """A key pair as a document lists it: bare, or wrapped in certificates."""

    key: Private
    certificates: bytes = b""
    listed_as: str = ""  # an id that is not its own

    @property
    def kind(self) -> str:
        family = "rsa" if isinstance(self.key, rsa.RSAPrivateKey) else "ecdsa"
        return family + ("-x509" if self.certificates else "")

    @property
    def entry(self) -> dict[str, Any]:
        public = self.certificates or self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {"keytype": self.kind, "keyval": {"private": None, "public": base64.b64encode(public).decode()}}

    @property
    def id(self) -> str:
        return self.listed_as or hashlib.sha256(canonical(self.entry)).hexdigest()

    def sign(self, content: bytes) -> dict[str, str]:
        if isinstance(self.key, rsa.RSAPrivateKey):
            value = self.key.sign(content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
            method = "rsapss"
        else:
            r, s = decode_dss_signature(self.key.sign(content, ec.ECDSA(hashes.SHA256())))
            value, method = r.to_bytes(32) + s.to_bytes(32), "ecdsa"
        return {"keyid": self.id, "method": method, "sig": base64.b64encode(value).decode()}


def bare(name: str) -> SimKey:
    return SimKey(private(name))


@dataclass(frozen=True)
class Template:
    """A certificate to be. The defaults are those of a good root certificate, signed by itself."""

    name: str = GUN
    issuer: str = ""
    authority: bool = False
    path_length: int | None = None
    begins: timedelta = -2 * DAY
    ends: timedelta = 3650 * DAY
    usages: tuple[ObjectIdentifier, ...] = ()
    cert_sign: bool | None = None
    critical: bool = False  # with a critical extension that nobody knows

    def make(self, key: Private, signer: Private | None = None) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder()
            .subject_name(named(self.name))
            .issuer_name(named(self.issuer or self.name))
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(NOW + self.begins)
            .not_valid_after(NOW + self.ends)
            .add_extension(x509.BasicConstraints(self.authority, self.path_length), critical=True)
        )
        if self.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.usages), critical=False)
        if self.cert_sign is not None:
            usage = x509.KeyUsage(True, False, False, False, False, self.cert_sign, False, False, False)
            builder = builder.add_extension(usage, critical=True)
        if self.critical:
            unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
            builder = builder.add_extension(unknown, critical=True)
        return builder.sign(signer or key, hashes.SHA256())


@cache
def certified(name: str, template: Template = Template()) -> SimKey:
    """A root key in a certificate of its own signing."""
    return SimKey(private(name), pem(template.make(private(name))))


def entry(digest: str) -> dict[str, Any]:
    return {"hashes": {"sha256": base64.b64encode(bytes.fromhex(digest[7:])).decode()}, "length": 527}


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000001Z")


def meta(data: bytes) -> dict[str, Any]:
    found = {"sha256": hashlib.sha256(data).digest(), "sha512": hashlib.sha512(data).digest()}
    return {"hashes": {name: base64.b64encode(value).decode() for name, value in found.items()}, "length": len(data)}


@dataclass
class Sim:
    """Change its members, then ``publish``.

    ``edits`` change what is signed, ``signers`` who signs, ``bytes_after`` the signed file before its parent names
    it, ``served`` what the server gives instead.
    """

    version: int = 1
    root_version: int = 1
    root_keys: Sequence[SimKey] = ()
    roles: dict[str, list[SimKey]] = field(default_factory=dict)
    thresholds: dict[str, int] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)  # role -> tag -> digest
    delegations: dict[str, tuple[list[SimKey], list[str] | None]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    ends: dict[str, timedelta] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)
    signers: dict[str, list[SimKey]] = field(default_factory=dict)
    bytes_after: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    served: dict[str, bytes | None] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.root_keys = self.root_keys or [certified("root")]
        for name in ("targets", "snapshot", "timestamp"):
            self.roles.setdefault(name, [bare(name)])
        self.tags.setdefault("targets", {"v1": OLD})

    def delegate(self, name: str, *people: str, paths: list[str] | None = None, tags: Mapping[str, str] = {}) -> Sim:
        """``targets/<name>`` to these people's keys; published where it has tags."""
        self.delegations[f"targets/{name}"] = ([bare(person) for person in people], [""] if paths is None else paths)
        if tags:
            self.tags[f"targets/{name}"] = dict(tags)
        return self

    def _role(self, name: str, keys: Sequence[SimKey]) -> dict[str, Any]:
        return {"keyids": [key.id for key in keys], "threshold": self.thresholds.get(name, 1)}

    def _file(self, name: str, kind: str, body: dict[str, Any], keys: Sequence[SimKey]) -> bytes:
        signed = {
            "_type": kind,
            "version": self.versions.get(name, self.version),
            "expires": stamp(NOW + self.ends.get(name, 10 * DAY)),
            **body,
        }
        if name in self.edits:
            self.edits[name](signed)
        content = canonical(signed)
        signatures = [key.sign(content) for key in self.signers.get(name, list(keys))]
        data = json.dumps({"signed": signed, "signatures": signatures}, ensure_ascii=False).encode()
        return self.bytes_after.get(name, lambda same: same)(data)

    def root(self, also: Sequence[SimKey] = ()) -> bytes:
        """The root document; ``also`` sign it, as the keys of the root before do in a rotation."""
        keys = [*self.root_keys, *(key for role in self.roles.values() for key in role)]
        body = {
            "consistent_snapshot": False,
            "keys": {key.id: key.entry for key in keys},
            "roles": {
                "root": self._role("root", self.root_keys),
                **{n: self._role(n, k) for n, k in self.roles.items()},
            },
        }
        self.versions["root"] = self.root_version
        return self._file("root", "Root", body, [*self.root_keys, *also])

    def publish(self, root: bytes | None = None) -> dict[str, bytes | None]:
        """Every file by the name under which it is asked for."""
        files: dict[str, bytes | None] = {"root": root or self.root()}
        assert files["root"]
        listed = {"root": meta(files["root"])}
        for name in ("targets", *self.delegations):
            if name != "targets" and name not in self.tags:
                continue
            keys = self.roles["targets"] if name == "targets" else self.delegations[name][0]
            data = self._file(name, "Targets", self._targets(name), keys)
            files[f"{name}.{hashlib.sha256(data).hexdigest()}"] = data
            if name not in self.hidden:
                listed[name] = meta(data)
        snapshot = self._file("snapshot", "Snapshot", {"meta": listed}, self.roles["snapshot"])
        files[f"snapshot.{hashlib.sha256(snapshot).hexdigest()}"] = snapshot
        files["timestamp"] = self._file(
            "timestamp", "Timestamp", {"meta": {"snapshot": meta(snapshot)}}, self.roles["timestamp"]
        )
        return {**files, **self.served}

    def _targets(self, name: str) -> dict[str, Any]:
        children = {n: d for n, d in self.delegations.items() if n.rpartition("/")[0] == name}
        keys = {key.id: key.entry for people, _ in children.values() for key in people}
        roles = []
        for child, (people, paths) in children.items():
            roles.append({"name": child, "paths": paths, **self._role(child, people)})
        return {
            "targets": {tag: entry(digest) for tag, digest in self.tags.get(name, {}).items()},
            "delegations": {"keys": keys, "roles": roles},
        }
