"""Writes the seeds of the corpora: ``python -m tests.fuzz.corpora``.

A seed is a small good input, so that changes of it reach deep.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scanner.advisories import bolt
from scanner.model.reference import Digest
from scanner.trust._receipts import Facts, jwk, new_key, public_of, statements
from tests.kubernetes_objects import deployment, pod, review
from tests.scanner.registry.archives import archive, directory, file, hardlink, header, pax, symlink
from tests.scanner.trust.certificates import TimestampAuthority

TESTS = Path(__file__).parents[1]
FUZZ, DATA = TESTS / "data" / "fuzz", TESTS / "data"
D = "sha256:" + "1" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI = "application/vnd.oci.image."
ENGINE_CONTAINER = {
    "Image": "registry.example.com/shop/web:1",
    "Env": ["A=b"],
    "Labels": {"Image": "x"},
    "HostConfig": {
        "Privileged": True,
        "Binds": ["/:/host"],
        "Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}],
    },
}
ENGINE_SERVICE = {
    "Name": "web",
    "TaskTemplate": {"ContainerSpec": {"Image": "registry.example.com/shop/web:1", "Mounts": []}, "Networks": []},
}
CONFIG = {
    "created": "2026-01-02T03:04:05.678901234Z",
    "author": "a",
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "config": {
        "User": "app:app",
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["-v"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "Shell": ["/bin/sh", "-c"],
        "OnBuild": ["RUN x"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 5, "Retries": 3},
    },
    "rootfs": {"type": "layers", "diff_ids": [D]},
    "history": [
        {"created_by": "/bin/sh -c curl https://x/y | sh", "created": "2026-01-02T03:04:05Z"},
        {"created_by": "ENV A=b", "empty_layer": True},
    ],
}


WORKLOAD = {"name": "web", "image": "a/b:1", "source": "docker", "mounts": [], "environment": []}
NOTATION_TRUST = {
    "trustpolicy": {
        "version": "1.0",
        "trustPolicies": [
            {
                "name": "p",
                "registryScopes": ["*"],
                "signatureVerification": {"level": "strict"},
                "trustStores": ["ca:acme"],
                "trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme"],
            }
        ],
    }
}
_PRIVATE = new_key()
PUBLIC_PEM = public_of(_PRIVATE)[1]
JWK = jwk(PUBLIC_PEM)
COMPOSE_SMALL = "services: {web: {image: 'a/b:1', ports: ['80:80'], volumes: ['/:/host'], labels: {team: shop}}}"
SNAPSHOT = {"environment": "production", "source": "kubernetes", "name": "cluster", "generation": 1}
CLAIMS = {  # of an ID token and of a push by Pub/Sub
    "iss": "https://idp.example.com",
    "aud": "dockwarden",
    "sub": "1",
    "nonce": "nonce",
    "exp": 1767315600,
    "iat": 1767312000,
    "nbf": 1767312000,
    "email": "pusher@example.com",
    "email_verified": True,
    "groups": ["a"],
}
PROVIDER_KEY = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "e": "AQAB", "n": "u" * 342 + "w"}
_NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
RECEIPT = Facts(
    "registry.example.com/shop/app",
    Digest(D),
    "shop",
    "production",
    {"verdict": "deny", "policy": "p", "policy_version": 1, "reasons": [{"kind": "violation", "message": "m"}]},
    (("linux/amd64", D),),
    ({"name": "trivy"},),
    "https://dockwarden.example.com",
    "1",
    _NOW,
    _NOW + datetime.timedelta(hours=1),
)


def engine_call(uri: str, document: Any = None) -> dict[str, Any]:
    """A call of a Docker engine to its authorization plugin."""
    body = {"RequestBody": base64.b64encode(json.dumps(document).encode()).decode()} if document else {}
    headers = {"Content-Type": "application/json"}
    return {"User": "ada", "RequestMethod": "POST", "RequestUri": uri, "RequestHeaders": headers, **body}


def descriptor(kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": OCI + kind, "digest": D, "size": 10, **more}


MANIFEST = {
    "schemaVersion": 2,
    "mediaType": OCI + "manifest.v1+json",
    "config": descriptor("config.v1+json"),
    "layers": [descriptor("layer.v1.tar+gzip", annotations={"a": "b"})],
    "subject": descriptor("manifest.v1+json"),
    "artifactType": "a/b",
    "annotations": {"a": "b"},
}
INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI + "index.v1+json",
    "manifests": [
        descriptor(
            "manifest.v1+json",
            platform={"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]},
            artifactType="a/b",
        )
    ],
}
PASSWD = (
    b"root:x:0:0:root:/root:/bin/bash\n"
    b"app:x:1000:1000::/home/app:/sbin/nologin\n"
    b"+::::::\n"
    b"+@group\n"
    b"toor::0:0::/:/bin/sh\n"
)
DPKG = (
    b"Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\n\nPackage: "
    b"x\nStatus: deinstall ok config-files\n\n"
)
OS_RELEASE = b'ID=debian\nVERSION_ID="12"\nID_LIKE="a b"\nPRETTY_NAME="Debian"\n'
SHADOW = b"root:$6$a$b:19000:0:99999:7:::\napp:!:1::::::\nfree::1::::::\n"
FETCHED = b"""RUN git clone https://x/y && y/i.sh && git -C y checkout 0123456789abcdef
--
ENV BASH_ENV=/e
--
RUN coproc curl https://x/i; bash <&"${COPROC[0]}"; exec 3< <(curl https://x/i); bash <&3
--
RUN mkfifo p; curl https://x/i > p & sh p; curl https://x/y-1.tgz | tar -xzC /opt --strip-components=1; cd /opt/y-1; ./i
--
RUN pip install -r https://x/r; npx https://x/y; cargo install --git https://x/y; xargs -a i -I{} sh -c '{}'
"""
# Shapes of private keys, with nothing in them.
KEY_SHAPE = b"-----BEGIN " + b"PRIVATE KEY-----\n" + b"MIIA" * 16 + b"\n-----END " + b"PRIVATE KEY-----\n"
DER_SHAPE = bytes.fromhex("3042020100300506032b6570043600") + bytes(53)

HISTORY = rb"""/bin/sh -c apt-get update && apt-get install -y curl=7.0 # buildkit
--
RUN /bin/bash -eo pipefail -c "curl -fsSL https://x.example/i.sh | bash -s -- --yes" # buildkit
--
COPY --chown=app:app file:abc in /srv
--
|1 A=b /bin/sh -c set -e; for i in 1 2; do wget -qO- "http://x/$i" | sha256sum -c -; done; cat <<'EOF' > /etc/x
EOF
--
ENV PASSWORD=hunter2secret AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY
"""
POLICY = b"""apiVersion: dockwarden/v1
kind: Policy
metadata: {name: production, description: x}
match: {images: ["registry.example.com/shop/**"], environments: [production]}
incomplete: deny
advisories: {max_age: 48h}
rules:
  - {id: critical, vulnerability: {severity: [critical], fixable: true}, grace: 72h, action: deny}
  - {id: not-root, check: root-user, action: deny}
  - {id: signed, signature: {scheme: [cosign], signers: [team]}, action: deny}
  - {id: big, when: 'image.size > 1500000000', action: warn}
"""
KUBERNETES = b"""apiVersion: v1
kind: Pod
metadata: {name: a, labels: {a: b}}
spec:
  hostNetwork: true
  securityContext: {runAsUser: 1000}
  containers:
    - name: a
      image: registry.example.com/a:1
      securityContext: {privileged: false, capabilities: {add: [NET_ADMIN]}, seccompProfile: {type: RuntimeDefault}}
      resources: {limits: {memory: 64Mi, cpu: 100m}}
      ports: [{containerPort: 80, hostPort: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: b}
spec: {template: {spec: {containers: [{name: b, image: b}], volumes: [{name: v, hostPath: {path: /}}]}}}
"""
COMPOSE = b"""services:
  web:
    image: ${IMAGE:-registry.example.com/web:1}
    ports: ["127.0.0.1:80:80/tcp", {target: 443, published: "443"}]
    volumes: ["./a:/b:ro", {type: bind, source: /, target: /host}]
    cap_add: [SYS_ADMIN]
    user: "1000:1000"
    mem_limit: 64m
    healthcheck: {test: [CMD, "true"], interval: 1m30s}
    extends: {service: base}
  base: &x {privileged: true, security_opt: ["no-new-privileges:true"], environment: {A: b}}
"""
ECS = {
    "family": "a",
    "networkMode": "host",
    "containerDefinitions": [
        {
            "name": "a",
            "image": "a:1",
            "privileged": True,
            "user": "0",
            "memory": 128,
            "portMappings": [{"containerPort": 80}],
        }
    ],
}
CYCLONEDX = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "metadata": {"component": {"type": "container", "name": "a"}},
    "components": [
        {
            "type": "library",
            "bom-ref": "a",
            "name": "a",
            "version": "1",
            "purl": "pkg:npm/a@1",
            "licenses": [{"license": {"id": "MIT"}}],
            "components": [],
        },
        {"type": "operating-system", "name": "debian", "version": "12"},
    ],
    "compositions": [{"aggregate": "complete"}],
}
SPDX = {
    "spdxVersion": "SPDX-2.3",
    "SPDXID": "SPDXRef-DOCUMENT",
    "name": "a",
    "packages": [
        {
            "SPDXID": "SPDXRef-a",
            "name": "a",
            "versionInfo": "1",
            "licenseConcluded": "MIT",
            "primaryPackagePurpose": "LIBRARY",
            "externalRefs": [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:npm/a@1"}
            ],
        }
    ],
    "relationships": [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-a"}
    ],
}
VEX = {
    "@context": "https://openvex.dev/ns/v0.2.0",
    "@id": "https://x/1",
    "author": "a",
    "timestamp": "2026-01-02T03:04:05Z",
    "version": 1,
    "statements": [
        {
            "vulnerability": {"name": "CVE-2026-1", "aliases": ["GHSA-1"]},
            "status": "not_affected",
            "justification": "component_not_present",
            "products": [{"@id": "pkg:oci/a@sha256%3A11", "subcomponents": [{"@id": "pkg:npm/a@1"}]}],
        }
    ],
}
KEV = {
    "title": "CISA Catalog",
    "catalogVersion": "2026.01.02",
    "dateReleased": "2026-01-02T03:04:05Z",
    "count": 1,
    "vulnerabilities": [
        {
            "cveID": "CVE-2026-0001",
            "dateAdded": "2026-01-02",
            "dueDate": "2026-01-23",
            "knownRansomwareCampaignUse": "Known",
        }
    ],
}
EPSS = (
    b"#model_version:v2026.01.01,score_date:2026-01-02T00:00:00+0000\n"
    b"cve,epss,percentile\n"
    b"CVE-2026-0001,0.5,0.9\n"
    b"CVE-2026-0002,1e-05,0.1\n"
)
EVENTS = {
    "events": [
        {
            "id": "1",
            "timestamp": "2026-01-02T03:04:05.6Z",
            "action": "push",
            "target": {
                "mediaType": OCI + "manifest.v1+json",
                "digest": D,
                "size": 10,
                "repository": "shop/app",
                "tag": "1",
                "url": "https://registry.example.com/v2/shop/app/manifests/" + D,
            },
            "request": {"id": "2", "host": "registry.example.com", "method": "PUT", "useragent": "a"},
            "actor": {"name": "ci"},
            "source": {"addr": "a:5000", "instanceID": "b"},
        }
    ]
}
TUF = {
    "signed": {
        "_type": "Root",
        "version": 1,
        "expires": "2030-01-01T00:00:00Z",
        "consistent_snapshot": False,
        "keys": {"a" * 64: {"keytype": "ecdsa", "keyval": {"public": "AAAA", "private": None}}},
        "roles": {
            name: {"keyids": ["a" * 64], "threshold": 1} for name in ("root", "targets", "snapshot", "timestamp")
        },
    },
    "signatures": [{"keyid": "a" * 64, "method": "ecdsa", "sig": "AAAA"}],
}
TRUST = {
    "keys": {"team": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
}


HARBOR_SCAN = {
    "registry": {"url": "https://registry.example.com", "authorization": "Basic cm9ib3QkczpzZWNyZXQ="},
    "artifact": {
        "repository": "shop/cart",
        "digest": D,
        "tag": "1.4.2",
        "mime_type": "application/vnd.oci.image.manifest.v1+json",
    },
    "enabled_capabilities": [
        {
            "type": "sbom",
            "produces_mime_types": ["application/vnd.security.sbom.report+json; version=1.0"],
            "parameters": {"sbom_media_types": ["application/spdx+json"]},
        }
    ],
}


def dumps(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def base64url(document: Any) -> bytes:
    return base64.urlsafe_b64encode(dumps(document)).rstrip(b"=")


def tarred(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archived:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archived.addfile(member, io.BytesIO(data))
    data = out.getvalue()
    return data[: -(-len(data.rstrip(b"\0")) // 512) * 512] + bytes(1024)


def certificate() -> tuple[x509.Certificate, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(begin.replace(year=2036))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.DNSName("a.example.com"), x509.RFC822Name("a@b.c")]), critical=False
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return builder.sign(key, hashes.SHA256()), public


def database() -> bytes:
    path = FUZZ / ".bolt"
    bolt.write(
        {b"debian 12": {b"bash": {b"CVE-1": b"{}"}}, b"vulnerability": {b"CVE-1": b'{"Title":"x"}'}},
        path,
    )
    data = path.read_bytes()
    path.unlink()
    return data


def recorded(wanted: str) -> bytes:
    """The smallest recorded signature of a kind."""
    found = [
        data
        for path in (DATA / "trust" / "keyed").rglob("*")
        if path.is_file() and (data := path.read_bytes()) and _is(data, wanted)
    ]
    return min(found, key=len)


def _is(data: bytes, wanted: str) -> bool:
    if wanted == "cose":
        return data.startswith(b"\xd2")
    try:
        document = json.loads(data)
    except ValueError:
        return False
    return isinstance(document, dict) and wanted in document


def seeds() -> dict[str, list[bytes]]:
    made, public = certificate()
    pem, der = made.public_bytes(serialization.Encoding.PEM), made.public_bytes(serialization.Encoding.DER)
    plain = archive(
        directory("etc"),
        file("etc/passwd", PASSWD),
        symlink("link", "etc"),
        hardlink("hard", "etc/passwd"),
        pax(path="long/" * 30 + "name", mtime="1.5") + file("x", b"y"),
        header("dev", "3", device=(1, 3)),
        file("etc/os-release", OS_RELEASE),
    )
    small = archive(file("a", b"b"), file("etc/passwd", PASSWD))
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": "1" * 64}}],
        "predicateType": "x",
        "predicate": {"a": [1]},
    }
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(dumps(statement)).decode(),
        "signatures": [{"sig": "AAAA"}],
    }
    saved = {
        "c.json": dumps(CONFIG),
        "l.tar": small,
        "manifest.json": dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]),
    }
    layout = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": dumps(INDEX),
        "blobs/sha256/" + "1" * 64: dumps(MANIFEST),
    }
    rekor = {
        "SignedEntryTimestamp": "AAAA",
        "Payload": {"body": "AAAA", "integratedTime": 1, "logIndex": 1, "logID": "1" * 64},
    }
    entry = {
        "logIndex": "1",
        "logId": {"keyId": "AAAA"},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": "1",
        "inclusionPromise": {"signedEntryTimestamp": "AAAA"},
        "canonicalizedBody": "AAAA",
        "inclusionProof": {
            "logIndex": "1",
            "rootHash": "AAAA",
            "treeSize": "2",
            "hashes": ["AAAA"],
            "checkpoint": {"envelope": "a\n2\nAAAA\n\n"},
        },
    }
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "dsseEnvelope": envelope,
        "verificationMaterial": {
            "certificate": {"rawBytes": base64.b64encode(der).decode()},
            "tlogEntries": [entry],
            "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]},
        },
    }
    clair = (DATA / "clair/vulnerability_report.json").read_bytes()
    examples = TESTS.parent / "examples" / "trust"
    return {
        "manifest": [dumps(MANIFEST)],
        "index": [dumps(INDEX)],
        "image_manifest": [dumps({**MANIFEST, "subject": None}) + b"\n--\n" + dumps(CONFIG)],
        "config": [dumps(CONFIG)],
        "tar": [plain],
        "layer_plain": [plain],
        "layer_gzip": [gzip.compress(plain, mtime=0), gzip.compress(small, mtime=0) + gzip.compress(b"", mtime=0)],
        "layer_zstd": [b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstandard.ZstdCompressor(write_checksum=True).compress(plain)],
        "layer_in_gzip": [plain, small + file("stargz.index.json", b"{}") + bytes(1024)],
        "layer_in_zstd": [plain],
        "docker_save": [tarred(saved), tarred(layout)],
        "system_files": [PASSWD, DPKG, OS_RELEASE, SHADOW, b"P:musl\nV:1.2\nA:x86_64\n\nP:b\nV:1\n\n"],
        "history": [HISTORY, FETCHED],
        "secrets": [
            KEY_SHAPE.hex().encode(),
            base64.b64encode(gzip.compress(KEY_SHAPE, mtime=0)),
            base64.b64encode(base64.b64encode(gzip.compress(KEY_SHAPE, mtime=0))),
            DER_SHAPE,
            base64.b64encode(DER_SHAPE),
        ],
        "bolt": [database()],
        "advisories_archive": [
            archive(file("trivy.db", b"x"), file("metadata.json", b"{}")),
            gzip.compress(archive(file("trivy-java.db", b"x"), file("metadata.json", b"{}")), 1, mtime=0),
        ],
        "kev": [
            dumps(KEV),
            b"cveID,dateAdded,dueDate\nCVE-2026-0001,2026-01-02,2026-01-23\n",
            gzip.compress(dumps(KEV), mtime=0),
        ],
        "epss": [EPSS, gzip.compress(EPSS, mtime=0)],
        "trivy_report": [(DATA / "hostile/reports/E00_ok.json").read_bytes()],
        "clair_report": [re.sub(rb'("manifest_hash": *)"[^"]*"', rb'\1"' + D.encode() + b'"', clair)],
        "cyclonedx": [dumps(CYCLONEDX)],
        "spdx": [dumps(SPDX)],
        "jws": [recorded("protected")],
        "cose": [recorded("cose")],
        "cosign_attestation": [dumps(envelope)],
        "cosign_annotations": [pem, dumps(rekor), dumps({"SignedRFC3161Timestamp": "AAAA"})],
        "cosign_bundle": [recorded("verificationMaterial"), dumps(bundle)],
        "cosign_trust": [
            dumps({**TRUST, "keys": {"team": public.decode()}}),
            (examples / "cosign-keys.yaml").read_bytes(),
            (examples / "cosign-keyless.yaml").read_bytes(),
        ],
        "tuf": [dumps(TUF)],
        "certificates": [pem, pem * 2],
        "der_certificate": [der],
        "public_key": [public],
        "timestamp": [TimestampAuthority().token(b"message", datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))],
        "tls_answer": [
            b"\x16\x03\x03\x00\x2e\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\x00\xc0\x2f\x00" + b"\x0e\0\0\0",
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ],
        "webhook": [dumps(EVENTS)],
        "vex": [dumps(VEX)],
        "policy": [POLICY],
        "reference": [
            b"registry.example.com:5000/shop/app:1.2@" + D.encode(),
            b"app",
            b"linux/arm64/v8",
            b"[::1]:5000/a",
            b'Bearer realm="https://a/t",service="s"',
            b"http://a\\@b/",
            D.encode(),
        ],
        "workload": [KUBERNETES, COMPOSE, dumps(ECS)],
        "harbor_request": [
            b"https://harbor.example.com:8443/\nBasic cm9ib3QkczpzZWNyZXQ=",
            b"http://core:8080\nBearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln",
            b"https://robot:x@[::1]:443/v2/?a#b\nBasic %%%",
        ],
        "pull": [
            f"GET /v2/shop/cart/manifests/{D}".encode(),
            b"HEAD /v2/shop/cart/manifests/1.4.2?ns=docker.io",
            f"GET /v2/shop/cart/blobs/{D}".encode(),
            b"GET /v2/shop/../cart/manifests//%2f",
        ],
        "engine_request": [dumps(ENGINE_CONTAINER), dumps(ENGINE_SERVICE)],
        "door_admission": [
            dumps(review(pod("registry.example.com/a:1"), "UPDATE", old=pod("registry.example.com/a:2"))),
            dumps(review(deployment("registry.example.com/a@" + D))),
            dumps(review(pod("registry.example.com/a:1", volumes=[{"name": "t", "image": {"reference": "a/b:1"}}]))),
        ],
        "door_engine": [
            dumps({"host": "h", "operation": "image pull", "name": "web", "images": ["a/b:1", f"a/b@{D}"]}),
            dumps({"host": "h", "operation": "container start", "images": ["a/b:1"], "workload": WORKLOAD}),
        ],
        "door_pull": [
            f"GET /v2/shop/cart/manifests/{D}\nX-Forwarded-Uri: /v2/shop/cart/manifests/{D}".encode(),
            b"HEAD /v2/shop/cart/manifests/1.4.2?ns=docker.io\nX-Forwarded-Method: HEAD\nX-Real-IP: 10.0.0.1",
            f"GET /v2/shop/cart/blobs/{D}\nX-Original-Method: GET".encode(),
            f"GET /v2/%3F/../shop/cart/manifests/{D}".encode(),
            f"GET /repository/docker/v2/shop/cart/manifests/{D}".encode(),
        ],
        "door_harbor": [dumps(HARBOR_SCAN)],
        "docker_plugin": [
            dumps(engine_call("/containers/web/update", {"Memory": 1 << 30, "RestartPolicy": {"Name": "always"}})),
            dumps(engine_call("/services/web/update?version=7&rollback=previous", ENGINE_SERVICE)),
            dumps(engine_call("/v1.41/containers/create", ENGINE_CONTAINER)),
            dumps(engine_call("/services/create", ENGINE_SERVICE)),
            dumps(engine_call("/v1.47/containers/web/start")),
            dumps(engine_call("/images/create?fromImage=a/b&tag=1")),
        ],
        "inventory": [
            dumps({**SNAPSHOT, "documents": [{"file": "deployment.yaml", "text": KUBERNETES.decode()}]}),
            dumps({**SNAPSHOT, "source": "compose", "documents": [{"text": COMPOSE_SMALL}]}),
            dumps({**SNAPSHOT, "workloads": [WORKLOAD]}),
        ],
        "id_token": [b".".join([base64url({"alg": "RS256", "kid": "one"}), base64url(CLAIMS), b"c2lnbmF0dXJl"])],
        "token_claims": [
            dumps(CLAIMS),
            dumps({**CLAIMS, "aud": ["other", "dockwarden"], "azp": "dockwarden"}),
            dumps({**CLAIMS, "iss": "https://accounts.google.com"}),
        ],
        "token_keys": [dumps({"keys": [PROVIDER_KEY]})],
        "receipt": [
            dumps({"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": [{"sig": "AAAA"}]}),
            dumps({"attestations": [{"envelope": {"payload": "e30=", "signatures": []}}]}),
        ],
        "receipt_statement": list(statements(RECEIPT).values()),
        "receipt_keys": [dumps({"keys": [JWK]})],
        "trust_root": [
            dumps({"keys": {"release": PUBLIC_PEM}, "threshold": 1}),
            dumps({"mode": "cert_ids", "ids": ["ab" * 32], "server": "https://notary.example.com"}),
            dumps(NOTATION_TRUST),
            PUBLIC_PEM.encode(),
        ],
        "engine_call": [
            dumps({"host": "h", "operation": "container create", "name": "web", "images": ["a/b:1"], "workload": None}),
        ],
        "admission_review": [
            dumps(review(pod("registry.example.com/a:1"), "UPDATE", old=pod("registry.example.com/a:2"))),
            dumps(review(deployment("registry.example.com/a@" + D))),
        ],
    }


def main() -> None:
    for name, items in seeds().items():
        (FUZZ / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(items):
            (FUZZ / name / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    main()
