"""What is left out of a layer for Trivy changes no answer, and a Trivy that was not compared gets everything."""

from __future__ import annotations

import json
import mmap
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scanner.config import Settings
from scanner.demo import samples
from scanner.demo.samples import File, Sample, Step
from scanner.engines import _trivy_files, trivy
from scanner.engines.base import EngineJob
from scanner.engines.trivy import TrivyEngine
from scanner.errors import EngineError
from scanner.model.filesystem import FileEntry, FileType
from scanner.model.finding import EngineReport
from scanner.model.scan import ScanRequest
from scanner.registry.excerpts import Part
from scanner.scanning.pipeline import files_for, local_services, run
from tests.reports_factory import image_report

# The analyzers and handlers that the rules were compared with.
ANALYZERS = """
analyzer buildinfo/content_manifest buildinfo/dockerfile config/ansible/ansible config/azurearm/azurearm
config/cloudformation/cloudformation config/config config/dockerfile/docker config/helm/helm config/json/json
config/k8s/k8s config/terraform/terraform config/terraformplan/json/json config/terraformplan/snapshot/snapshot
config/yaml/yaml config_analyzer crypto/crypto executable/executable fs imgconf/apk/apk imgconf/dockerfile/dockerfile
imgconf/secret/secret language/analyze language/c/conan/conan language/conda/environment/environment
language/conda/meta/meta language/dart/pub/pubspec language/dotnet/deps/deps language/dotnet/nuget/nuget
language/dotnet/nuget/nuspec language/dotnet/packagesprops/packagesprops language/elixir/mix/mix
language/golang/binary/binary language/golang/mod/mod language/java/gradle/lockfile language/java/gradle/pom
language/java/jar/jar language/java/pom/pom language/java/sbt/lockfile language/julia/pkg/pkg language/nodejs/bun/bun
language/nodejs/license/license language/nodejs/npm/npm language/nodejs/pkg/pkg language/nodejs/pnpm/pnpm
language/nodejs/yarn/yarn language/php/composer/composer language/php/composer/vendor language/python/packaging/egg
language/python/packaging/packaging language/python/pip/pip language/python/pipenv/pipenv
language/python/poetry/poetry language/python/pylock/pylock language/python/uv/uv language/ruby/bundler/bundler
language/ruby/gemspec/gemspec language/rust/binary/binary language/rust/cargo/cargo language/swift/cocoapods/cocoapods
language/swift/swift/swift licensing/license os/alpine/alpine os/amazonlinux/amazonlinux os/const os/debian/debian
os/redhatbase/alma os/redhatbase/centos os/redhatbase/fedora os/redhatbase/oracle os/redhatbase/redhatbase
os/redhatbase/rocky os/release/release os/ubuntu/esm os/ubuntu/ubuntu pkg/apk/apk
pkg/bottlerocket_inventory/bottlerocket_inventory pkg/dpkg/copyright pkg/dpkg/dpkg pkg/dpkg/scanner pkg/rpm/archive
pkg/rpm/rpm pkg/rpm/rpmqa rapidfort/rapidfort repo/apk/apk sbom/sbom secret/secret
"""
# One path at least for each analyzer that reads files by their path.
READ = """
etc/os-release usr/lib/os-release x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/os-release etc/system-release
usr/lib/system-release etc/debian_version etc/redhat-release etc/lsb-release etc/alpine-release etc/apk/repositories
var/lib/ubuntu-advantage/status.json lib/apk/db/installed usr/lib/apk/db/installed var/lib/dpkg/status
var/lib/dpkg/available var/lib/dpkg/status.d/base var/lib/dpkg/status.d/some.1 var/lib/dpkg/status.d/some.py
var/lib/dpkg/info/x.md5sums usr/share/doc/x/copyright usr/lib/sysimage/rpm/Packages var/lib/rpm/Packages
usr/lib/sysimage/rpm/Packages.db var/lib/rpm/rpmdb.sqlite usr/share/rpm/rpmdb.sqlite
var/lib/rpmmanifest/container-manifest-2 root/buildinfo/content_manifests/x.json root/buildinfo/Dockerfile-x-1.1
root/buildinfo/Dockerfile.py usr/share/buildinfo/x.json
x86_64-bottlerocket-linux-gnu/sys-root/usr/share/bottlerocket/application-inventory.json
a/conan.lock a/environment.yml a/environment.yaml a/envs/b/conda-meta/c-1-d.json a/envs/b/conda-meta/c-1-d.json.py
a/pubspec.lock a/b.deps.json a/packages.lock.json a/packages.config a/Directory.Packages.props a/b.packages.props
a/mix.lock a/go.mod a/go.sum a/vendor/b/LICENSE a/vendor/b/license.md a/b.gradle.lockfile a/x.jar a/x.WAR a/x.ear
a/x.par a/pom.xml a/build.sbt.lock a/Project.toml a/Manifest.toml a/bun.lock a/node_modules/b/package.json
a/package.json a/package-lock.json a/pnpm-lock.yaml a/yarn.lock a/.yarn/cache/b.zip a/composer.lock a/composer.json
a/installed.json a/b.egg a/b.egg-info a/b.egg-info/PKG-INFO a/b.egg-info/METADATA a/EGG-INFO/PKG-INFO
a/b-1.dist-info/METADATA a/b-1.dist-info/LICENSE.md a/b-1.dist-info/licenses/COPYING.html a/requirements.txt
a/Pipfile.lock a/poetry.lock a/pyproject.toml a/pylock.toml a/pylock.b.toml a/uv.lock a/Gemfile.lock
a/specifications/b.gemspec a/specifications/b.gemspec.js a/Cargo.lock a/Cargo.toml a/Podfile.lock a/Package.resolved
a/.spdx-b.spdx a/b.spdx.json a/b.cdx a/b.cdx.json a/b.rpm a/b.exe a/b.pem a/b.key
unknown a/unknown.lock a/unknown.json a/b.PY
"""
UNREAD = """
usr/lib/python3/a.py a/node_modules/b/index.d.ts a/b.min.js.map usr/share/locale/de/LC_MESSAGES/x.mo usr/lib/libx.so.1.2
usr/share/man/man1/x.1 usr/share/man/man1/x.1.gz var/lib/apt/lists/mirror.example.com_dists_stable_main_Packages
"""
PROGRAMS = Path(__file__).parents[2] / "data/programs"


def part(path: str, mode: int = 0o644) -> Part:
    return _trivy_files.FILES.part(FileEntry(path, FileType.FILE, mode, 0, 0, 1))


@pytest.mark.parametrize("path", READ.split())
def test_what_an_analyzer_reads_is_kept_whatever_its_mode_is(path: str) -> None:
    assert part(path) is Part.ALL
    known = path != "unknown"  # a program, in all likelihood
    assert part(path, 0o755) is (Part.ALL if known else Part.PROGRAM)


@pytest.mark.parametrize("path", UNREAD.split())
def test_what_no_analyzer_reads_is_left_out(path: str) -> None:
    assert part(path) is Part.NOTHING


@pytest.mark.parametrize("path", ["usr/bin/x", "usr/lib/libx.so", "usr/lib/libx.so.1", "a.py"])
@pytest.mark.parametrize("mode", [0o755, 0o100, 0o010, 0o001])
def test_what_can_be_executed_is_looked_into(path: str, mode: int) -> None:
    assert part(path, mode) is Part.PROGRAM


def test_the_analyzers_of_this_trivy_are_known(settings: Settings) -> None:
    """A new Trivy: compare what its analyzers require with the rules, then name its version and its analyzers."""
    binary = trivy.find_trivy(settings)
    assert TrivyEngine().version(settings) in _trivy_files.VERSIONS
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # The table of source files of a Go program.
        begin = data.find(b"trivy/pkg/fanal/analyzer/analyzer.go")
        names = data[max(0, begin - (1 << 20)) : begin + (1 << 20)]
    found = {name.decode() for name in re.findall(rb"trivy/pkg/fanal/analyzer/([a-z0-9_/]+)\.go", names)}
    assert found == set(ANALYZERS.split())


def go_program(module: str, version: str) -> bytes:
    """A program with nothing but the build information of Go (``debug/buildinfo``), in its writable segment."""
    told = f"path\tx\nmod\tx\t(devel)\t\ndep\t{module}\t{version}\th1:x\n".encode()
    told = b"0" * 16 + told + b"1" * 16
    data = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + bytes([8]) + b"go1.22.0"
    data += bytes([len(told) & 0x7F | 0x80, len(told) >> 7]) + told if len(told) > 127 else bytes([len(told)]) + told
    begin, size, names = 0x1000, len(data), b"\0.shstrtab\0.go.buildinfo\0"
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    end = begin + size + len(names)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400000, 64, end, 0, 64, 56, 1, 64, 3, 1)
    segment = struct.pack("<IIQQQQQQ", 1, 6, begin, 0x401000, 0x401000, size, size, 16)
    named = struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, begin + size, len(names), 0, 0, 1, 0)
    told_in = struct.pack("<IIQQQQIIQQ", 11, 1, 3, 0x401000, begin, size, 0, 0, 16, 0)
    return (head + segment).ljust(begin, b"\0") + data + names + bytes(64) + named + told_in


def audited_early() -> bytes:
    """The program of Rust with the section's name of rust-audit 0.1.0, which is longer: a new table of names."""
    data = bytearray((PROGRAMS / "audited").read_bytes())
    sections, width, _, names = *struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HHH", data, 58)
    header = sections + names * width
    begin, size = struct.unpack_from("<QQ", data, header + 24)
    table = bytes(data[begin : begin + size])
    old, added = table.index(b".dep-v0\0"), b".rust-deps-v0\0"
    for position in range(sections, header + 1, width):
        if struct.unpack_from("<I", data, position)[0] == old:
            struct.pack_into("<I", data, position, size)
    struct.pack_into("<QQ", data, header + 24, len(data), size + len(added))
    return bytes(data).replace(b".dep-v0", b".absent") + table.replace(b".dep-v0", b".absent") + added


METADATA = b"Metadata-Version: 2.1\nName: Django\nVersion: 1.0\nLicense-File: RECORD.md\n"
LICENCE = Path("/usr/share/common-licenses/Apache-2.0")


def layers() -> list[dict[str, File | bytes]]:
    """Files of all kinds that an image's analyzers read, some of them executable, some replaced by a later layer."""
    status = b"Package: openssl\nStatus: install ok installed\nVersion: 3.0.1-1\nArchitecture: amd64\nMaintainer: x\n\n"
    deps: dict[str, Any] = {"runtimeTarget": {"name": ".NETCoreApp,Version=v8.0"}, "targets": {}, "libraries": {}}
    deps["libraries"] = {"Newtonsoft.Json/9.0.1": {"type": "package", "sha512": "x"}}
    composer = {"packages": [{"name": "a/b", "version": "v1.0.0", "license": ["MIT"]}]}
    conda = {"name": "openssl", "version": "1.1.1", "license": "OpenSSL"}
    sbom: dict[str, Any] = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": []}
    sbom["components"] = [{"type": "library", "name": "lodash", "version": "4.0.0", "purl": "pkg:npm/lodash@4.0.0"}]
    gemspec = b'Gem::Specification.new do |s|\n s.name = "rack".freeze\n s.version = "1.0.0"\n s.license = "MIT"\nend\n'
    return [
        {
            "etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
            "etc/debian_version": b"12.8\n",
            "var/lib/dpkg/status": status,
            "var/lib/dpkg/status.d/other.md5sums": b"",
            "var/lib/dpkg/status.d/other.1": status.replace(b"openssl", b"other"),
            "var/lib/dpkg/info/openssl.md5sums": b"0" * 32 + b"  usr/lib/python3/six-1.dist-info/METADATA\n",
            "usr/share/doc/openssl/copyright": b"License: Apache-2.0\n",
            "usr/lib/python3/six-1.dist-info/METADATA": METADATA.replace(b"Django", b"six"),
            "app/django-1.dist-info/METADATA": File(METADATA, 0o755),
            "app/django-1.dist-info/RECORD.md": LICENCE.read_bytes() if LICENCE.exists() else b"MIT License",
            "app/flask-1.egg-info/PKG-INFO": METADATA.replace(b"Django", b"Flask"),
            "app/node_modules/minimist/package.json": File(b'{"name": "minimist", "version": "0.0.8"}', 0o755),
            "app/node_modules/minimist/index.js": b"x" * 5000,
            "app/specifications/rack.gemspec": gemspec,
            "app/specifications/rails.gemspec.js": gemspec.replace(b"rack", b"rails"),
            "app/vendor/composer/installed.json": json.dumps(composer).encode(),
            "app/x.deps.json": json.dumps(deps).encode(),
            "opt/envs/a/conda-meta/openssl-1.1.1-0.json": json.dumps(conda).encode(),
            "opt/x.cdx.json": json.dumps(sbom).encode(),
            "usr/bin/server": File(go_program("golang.org/x/net", "v0.1.0"), 0o755),
            "usr/lib/plugin.so": File(go_program("golang.org/x/text", "v0.3.0"), 0o711),
            "usr/lib/data.so": go_program("golang.org/x/crypto", "v0.1.0"),
            "usr/bin/audited": File((PROGRAMS / "audited").read_bytes(), 0o755),
            "usr/bin/packed": File((PROGRAMS / "audited-packed").read_bytes(), 0o755),
            "usr/bin/audited-early": File(audited_early(), 0o755),
            "var/lib/apt/lists/mirror.example.com_Packages": File(go_program("golang.org/x/sys", "v0.1.0"), 0o755),
            _trivy_files.FILES.version: File(go_program("golang.org/x/image", "v0.1.0"), 0o755),
            "usr/bin/script": File(b"#!/bin/sh\n", 0o755),
            "usr/lib/a.py": b"x" * 5000,
        },
        {
            "usr/bin/server": File(b"\x7fELF nothing", 0o755),
            "app/node_modules/.wh.minimist": b"",
            "usr/lib/.wh.plugin.so": b"",
            "app/vendor/.wh..wh..opq": b"",
        },
    ]


def test_the_answer_for_excerpts_is_that_for_whole_layers(
    settings: Settings, sample_layouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Step("COPY . /", files) for files in layers()]
    samples.build_layout(Sample("a/b:1", "", steps), tmp_path / "image")
    places = (tmp_path / "image", sample_layouts / "shop/vulnerable")

    def answers() -> list[EngineReport]:
        with local_services(settings) as services:
            found = [run(ScanRequest(f"oci:{place}"), services, lambda progress: None) for place in places]
        return [report.images[0].engines[0] for report in found]

    def stored() -> int:
        return sum(path.stat().st_size for path in settings.blobs_dir.rglob("*") if path.is_file())

    excerpts, size = answers(), stored()
    monkeypatch.setattr(_trivy_files, "VERSIONS", frozenset())  # as with a Trivy that was not compared
    assert excerpts == answers()
    assert stored() > 2 * size, "whole layers are stored beside the excerpts"
    names = {component.name for component in excerpts[0].components}
    assert names >= {"openssl", "other", "Django", "Flask", "rack", "rails", "Newtonsoft.Json", "golang.org/x/net"}
    assert names >= {"golang.org/x/sys", "golang.org/x/image"}, "programs with names of other things"
    assert names >= {"serde_json", "lodash"}, "of the program of Rust, and of the SBOM"
    assert "usr/bin/audited-early" in {component.path for component in excerpts[0].components}
    assert not names & {"minimist", "a/b", "golang.org/x/text", "golang.org/x/crypto"}, "deleted, or no program"


def test_engines_that_search_for_secrets_get_whole_layers(settings: Settings) -> None:
    assert files_for("trivy", settings) is _trivy_files.FILES
    assert files_for("trivy", replace(settings, engine_secrets=True)) is None
    assert files_for("clair", settings) is None
    assert files_for("both", settings) is None
    assert files_for("trivy", replace(settings, trivy=settings.home / "nothing")) is None


def test_a_trivy_that_was_replaced_since_the_layers_were_read_is_not_run(settings: Settings, tmp_path: Path) -> None:
    image = image_report([]).image
    old = replace(_trivy_files.FILES, version="of another version")
    with pytest.raises(EngineError, match="replaced") as caught:
        TrivyEngine().scan(EngineJob(image, tmp_path, tmp_path, tmp_path / "cache", settings, 10, files=old))
    assert caught.value.retryable
