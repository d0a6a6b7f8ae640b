"""Sample images and a small advisory database, built offline and reproducibly, for the demo and for tests.

Their programs do not run; they contain what scanners and checks examine. All secrets and vulnerabilities are invented.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scanner.advisories.trivydb import Advisory, build
from scanner.model.finding import Severity
from scanner.model.reference import Digest
from scanner.registry.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
_CREATED = "2026-11-01T12:00:00Z"

_OS_RELEASE = (
    b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian '
    b'GNU/Linux"\nVERSION_ID="12"\nVERSION="12 (bookworm)"\nID=debian\n'
)
_PASSWD = (
    b"root:x:0:0:root:/root:/bin/bash\n"
    b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    b"app:x:10001:10001::/srv/app:/usr/sbin/nologin\n"
)
_GROUP = b"root:x:0:\nnogroup:x:65534:\napp:x:10001:\n"
_LABELS = {
    "org.opencontainers.image.source": "https://git.example.com/shop/app",
    "org.opencontainers.image.version": "1.4.2",
}
_HEALTHCHECK = {"Test": ["CMD", "/srv/app/check"], "Interval": 30_000_000_000, "Timeout": 3_000_000_000}


@dataclass(frozen=True)
class File:
    """A file of a layer: content, permissions and owner."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Step:
    """One layer, and the instruction that created it."""

    instruction: str
    files: Mapping[str, File | bytes]


@dataclass(frozen=True)
class Sample:
    """An image. ``name``: repository and tag. ``about``: what it demonstrates."""

    name: str
    about: str
    steps: Sequence[Step]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        return self.name.partition(":")[0]

    @property
    def tag(self) -> str:
        return self.name.partition(":")[2]


def dpkg(packages: Mapping[str, str]) -> bytes:
    """A dpkg status file (deb-control(5)) with these packages and versions."""
    return "".join(
        f"Package: {name}\nStatus: install ok installed\nMaintainer: Debian\nArchitecture: amd64\nVersion: "
        f"{version}\nDescription: {name}\n\n"
        for name, version in packages.items()
    ).encode()


def debian(packages: Mapping[str, str]) -> Step:
    files: dict[str, File | bytes] = {
        "etc/os-release": _OS_RELEASE,
        "etc/debian_version": b"12.8\n",
        "etc/passwd": _PASSWD,
        "etc/group": _GROUP,
        "var/lib/dpkg/status": dpkg(packages),
        "var/lib/dpkg/info/format": b"1\n",  # Clair recognises the status file only if info/ exists beside it
        "bin/sh": File(b"#!sample\n", 0o755),
    }
    return Step("/bin/sh -c #(nop) ADD file:rootfs in / ", files)


_FIXED = {
    "base-files": "12.4+deb12u8",
    "libc6": "2.36-9+deb12u9",
    "libssl3": "3.0.15-1~deb12u1",
    "zlib1g": "1:1.2.13.dfsg-1",
}
_OLD = {**_FIXED, "libssl3": "3.0.9-1", "libxml2": "2.9.14+dfsg-1.2", "curl": "7.88.1-10"}
_APP = Step(
    "COPY app /srv/app # buildkit",
    {"srv/app/run": File(b"#!sample\n", 0o755), "srv/app/check": File(b"#!sample\n", 0o755)},
)
_RUN: Mapping[str, Any] = {
    "Entrypoint": ["/srv/app/run"],
    "WorkingDir": "/srv/app",
    "Labels": _LABELS,
    "Healthcheck": _HEALTHCHECK,
}
# Invented, but in the real format so that it is found. Split in two, so that secret scanners ignore this file.
_FAKE_KEY = b"AKIA" + b"Z7QDEMODEMO4W2XY"

SAMPLES = (
    Sample(
        "shop/good:1.4.2",
        "numeric user, healthcheck, no known vulnerabilities",
        (debian(_FIXED), _APP),
        {**_RUN, "User": "10001:10001"},
    ),
    Sample(
        "shop/vulnerable:1.4.1",
        "critical vulnerabilities that have a fix",
        (debian(_OLD), _APP),
        {**_RUN, "User": "10001:10001"},
    ),
    Sample(
        "shop/root-with-secret:latest",
        "runs as root, with cloud credentials in a layer",
        (
            debian(_FIXED),
            Step(
                "COPY . /srv/app # buildkit",
                {
                    "srv/app/run": File(b"#!sample\n", 0o755),
                    "root/.aws/credentials": b"[default]\naws_access_key_id = " + _FAKE_KEY + b"\n",
                },
            ),
        ),
        {"Entrypoint": ["/srv/app/run"], "Labels": _LABELS},
    ),
    Sample(
        "shop/mystery:0.1",
        "an unknown operating system",
        (
            Step(
                "COPY rootfs / # buildkit",
                {
                    "etc/os-release": b'ID=mystery\nVERSION_ID="0"\n',
                    "etc/passwd": _PASSWD,
                    "bin/app": File(b"#!sample\n", 0o755),
                },
            ),
        ),
        {**_RUN, "User": "10001:10001", "Entrypoint": ["/bin/app"]},
    ),
    Sample(
        "shop/aging:2.0.0",
        "a high vulnerability without a fix yet",
        (debian({**_FIXED, "libxml2": "2.9.14+dfsg-1.3~deb12u1"}), _APP),
        {**_RUN, "User": "10001:10001"},
    ),
)

ADVISORIES = (
    Advisory(
        "CVE-2026-90001",
        "debian 12",
        "openssl",
        Severity.CRITICAL,
        "openssl: made-up overflow in a parser",
        fixed="3.0.13-1~deb12u1",
        cvss=(9.8, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"),
    ),
    Advisory(
        "CVE-2026-90001",
        "debian 12",
        "libssl3",
        Severity.CRITICAL,
        "openssl: made-up overflow in a parser",
        fixed="3.0.13-1~deb12u1",
        cvss=(9.8, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"),
    ),
    Advisory(
        "CVE-2026-90002",
        "debian 12",
        "curl",
        Severity.HIGH,
        "curl: made-up credential leak on redirect",
        fixed="7.88.1-10+deb12u8",
        cvss=(7.5, "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"),
    ),
    Advisory("CVE-2026-90003", "debian 12", "libxml2", Severity.HIGH, "libxml2: made-up use after free, no fix yet"),
    Advisory("CVE-2026-90004", "debian 12", "zlib1g", Severity.LOW, "zlib: made-up and disputed", will_not_fix=True),
)


def build_advisories(destination: Path) -> Path:
    """Build the samples' advisory database with the current date. Returns its directory."""
    return build(ADVISORIES, destination, updated_at=datetime.now(UTC))


def build_layout(sample: Sample, destination: Path) -> Digest:
    """Write the sample as an OCI image layout. Returns its manifest's digest."""
    blobs = destination / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"digest": str(digest), "size": len(data)}

    plain = [layer(step.files) for step in sample.steps]
    layers = [{"mediaType": _GZIP, **put(gzip.compress(data, 6, mtime=0))} for data in plain]
    config = put(json.dumps(_config(sample, plain)).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, **config},
        "layers": layers,
    }
    described = {"mediaType": OCI_MANIFEST, **put(json.dumps(manifest).encode())}
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{**described, "annotations": {"org.opencontainers.image.ref.name": sample.tag}}],
    }
    (destination / "index.json").write_text(json.dumps(index))
    (destination / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return Digest(described["digest"])


def _config(sample: Sample, layers: Sequence[bytes]) -> dict[str, Any]:
    history: list[dict[str, Any]] = [{"created": _CREATED, "created_by": step.instruction} for step in sample.steps]
    if sample.config.get("User"):
        history.append({"created": _CREATED, "created_by": f"USER {sample.config['User']}", "empty_layer": True})
    return {
        "created": _CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], **sample.config},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]},
        "history": history,
    }


def layer(files: Mapping[str, File | bytes]) -> bytes:
    """The uncompressed tar of a layer. The same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for directory in sorted({str(parent) for path in files for parent in Path(path).parents if str(parent) != "."}):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for path, value in sorted(files.items()):
            file = value if isinstance(value, File) else File(value)
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.uid, info.gid = len(file.data), file.mode, file.uid, file.gid
            archive.addfile(info, io.BytesIO(file.data))
    return out.getvalue()
