"""Trivy as an engine: it runs confined on a layout that we verified, and its report is parsed strictly.

Trivy verifies neither digests nor diff_ids, its timeout is not a limit, and exit 0 without findings is not "clean". So
it gets no network and no credentials, and anything that it did not recognise makes the report incomplete.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from scanner.advisories import database
from scanner.advisories.database import Holdings
from scanner.config import Limits, Settings
from scanner.engines import _trivy_sources
from scanner.engines._answers import as_dict, as_exact_text, as_link, as_list, as_score, as_severity, as_text, at_most
from scanner.engines.base import Engine, EngineJob, MatchJob, MatchReport
from scanner.errors import AdvisoriesUnavailable, EngineError
from scanner.model.finding import (
    CVSS,
    NO_PACKAGE,
    NO_SYSTEM,
    PACKAGE_UNREAD,
    STATUSES,
    AdvisoryStatus,
    Component,
    Coverage,
    EngineReport,
    Incomplete,
    SecretMatch,
    Severity,
    Vulnerability,
)
from scanner.model.image import Image
from scanner.model.matching import Package
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.registry.manifest import parse_time
from scanner.sealed import derived_files

if TYPE_CHECKING:
    from scanner.engines import _process
    from scanner.registry.excerpts import EngineFiles

_SCHEMA = 2  # Of Trivy's report. Another is refused: a renamed member would look like "no findings".
_LIMITS = Limits()
# Characters of descriptions and names, and items of a list: a report is untrusted.
_TEXT, _SHORT, _MANY = 4096, 512, 50
_NAMED = 5  # packages in a message
_OF_PROGRAMS = ("gobinary", "rustbinary")  # types of packages that are read from executables
_dict, _list = partial(as_dict, engine="Trivy"), partial(as_list, engine="Trivy")
_SEVERITIES = {
    "LOW": Severity.LOW,
    "MEDIUM": Severity.MEDIUM,
    "HIGH": Severity.HIGH,
    "CRITICAL": Severity.CRITICAL,
}
# Trivy's package types by purl type, for types with advisories. Packages of other types are listed without findings.
_LANGUAGES = {
    "cargo": "rustbinary",
    "composer": "composer",
    "gem": "gemspec",
    "golang": "gobinary",
    "maven": "jar",
    "npm": "node-pkg",
    "nuget": "nuget",
    "pypi": "python-pkg",
}


# An image that holds this file, however little is in it, is looked up in RapidFort's own advisories instead of its
# distribution's: without them, a vulnerable image looks clean.
_UNREAD = ("usr/share/rapidfort/curated.json",)


class TrivyEngine(Engine):
    """See ``Engine``. Needs Trivy 0.60 or newer: report schema 2."""

    id = "trivy"
    title = "Trivy"
    looks_up = True

    def version(self, settings: Settings) -> str:
        return _identity(find_trivy(settings), settings)[0]

    def advisories(self, settings: Settings) -> AdvisoryStatus:
        return database.status(settings)

    def scan(self, job: EngineJob) -> EngineReport:
        from scanner.engines import _process

        binary = find_trivy(job.settings)
        version, digest = _identity(binary, job.settings)
        if job.files is not None and self.files(job.settings) != job.files:
            raise EngineError("Trivy was replaced during the scan", reason="scanner_failed", retryable=True)
        generation = database.current(job.settings)
        status = generation.status()
        _prepare_cache(job.cache, generation)
        ended = _process.run(
            _command(binary, job),
            environment=_environment(job.settings.limits),
            directory=job.work,
            limits=job.settings.limits,
            deadline=job.deadline,
            cancelled=job.cancelled,
            running=job.running,
        )
        document = _report_of(ended, job.settings.limits)
        reader = Reader(document, job.image, job.settings.limits)
        report = reader.report(version, digest, status, ended.isolation, generation.holdings())
        gaps = _skipped(report.coverage, reader.third_party, generation)
        return replace(report, incomplete=(*report.incomplete, *gaps))

    def binary(self, settings: Settings) -> Digest:
        """See `Engine.binary`."""
        return _identity(find_trivy(settings), settings)[1]

    def files(self, settings: Settings) -> EngineFiles | None:
        """See ``Engine.files``. Another version of Trivy may read other files, so it gets whole layers."""
        from scanner.engines import _trivy_files  # an image whose result is remembered needs none

        version = self.version(settings)
        return _trivy_files.FILES if version in _trivy_files.VERSIONS else None

    def package_of(self, stated: Component) -> Package | None:
        """See ``Engine.package_of``. Language packages only.

        A distribution's advisories are matched by source package and release, and SBOMs have no common form for these.
        """
        from packageurl import PackageURL

        try:
            purl = PackageURL.from_string(stated.purl)
        except ValueError:
            return None
        kind = _LANGUAGES.get(purl.type)
        # An SBOM whose version and purl disagree states two packages. Looking up either of them could miss the real
        # one.
        if kind is None or not purl.version or purl.version != stated.version:
            return None
        plain = PackageURL(purl.type, purl.namespace, purl.name, purl.version).to_string()
        return Package(self.id, "", kind, plain, "/".join(filter(None, (purl.namespace, purl.name))), purl.version)

    def look_up(self, job: MatchJob) -> MatchReport:
        """See ``Engine.look_up``.

        Trivy merges packages with the same name and version, so these go into separate documents.
        """
        from scanner.engines import _process

        binary = find_trivy(job.settings)
        version, digest = _identity(binary, job.settings)
        generation = database.current(job.settings)
        _prepare_cache(job.cache, generation)
        holdings = generation.holdings()
        known = [item for item in job.packages if _can_match(item, job.os, holdings)]
        found: dict[str, tuple[Vulnerability, ...]] = {}
        supported: bool | None = None
        for number, packages in enumerate(_without_duplicates(known)):
            work = job.work / str(number)
            work.mkdir()
            (work / "fleet.cdx.json").write_bytes(orjson.dumps(_sbom(packages, job.os)))
            ended = _process.run(
                _sbom_command(binary, work / "fleet.cdx.json", job),
                environment=_environment(job.settings.limits),
                directory=work,
                limits=job.settings.limits,
                deadline=job.deadline,
                cancelled=job.cancelled,
            )
            reader = Reader(_report_of(ended, job.settings.limits), None, job.settings.limits)
            found.update(reader.matches(packages))
            supported = reader.supported
        uncovered = tuple(sorted({p.type for p in job.packages if not _is_covered(p, job.os, holdings)}))
        return MatchReport(version, digest, generation.status(), found, supported, uncovered)


def _can_match(item: Package, release: str, holdings: Holdings) -> bool:
    """False for Red Hat, whose advisories depend on content sets in the image's files, and for packages without
    advisories: Trivy would list them and find nothing.
    """
    return release.partition(" ")[0] != "redhat" and _is_covered(item, release, holdings)


def _is_covered(item: Package, release: str, holdings: Holdings) -> bool:
    return (
        _trivy_sources.has_system(release, holdings) if item.os else _trivy_sources.has_ecosystem(item.type, holdings)
    )


def _without_duplicates(packages: Iterable[Package]) -> Iterator[list[Package]]:
    """Split packages into lists without a repeated pair of name and version."""
    lists: list[dict[tuple[str, str], Package]] = []
    used: dict[tuple[str, str], int] = {}
    for item in packages:
        number = used[item.name, item.version] = used.get((item.name, item.version), -1) + 1
        if number == len(lists):
            lists.append({})
        lists[number][item.name, item.version] = item
    yield from (list(one.values()) for one in lists)


def _sbom(packages: Sequence[Package], release: str) -> dict[str, Any]:
    """Build a CycloneDX document with Trivy's properties. Each package is identified by its position in the list."""
    family, _, version = release.partition(" ")
    system: dict[str, Any] = {"bom-ref": "os", "type": "operating-system", "name": family, "version": version}
    system |= {"properties": _properties(Class="os-pkgs", Type=family)}
    components = [system] if family else []
    for number, item in enumerate(packages):
        components.append(
            {
                "bom-ref": f"p{number}",
                "type": "library",
                "name": item.name,
                "version": item.version,
                "purl": item.purl,
                "properties": _properties(
                    PkgType=item.type,
                    SrcName=item.source_name,
                    SrcVersion=item.source_version,
                    Modularitylabel=item.module,
                ),
            }
        )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"bom-ref": "fleet", "type": "application", "name": "fleet"}},
        "components": components,
    }


def _properties(**values: str) -> list[dict[str, str]]:
    return [{"name": f"aquasecurity:trivy:{name}", "value": value} for name, value in values.items() if value]


def find_trivy(settings: Settings) -> Path:
    """Find the binary: the setting, this environment's ``bin``, then PATH. Raises EngineError with a hint."""
    beside = Path(sys.executable).parent / "trivy"
    for candidate in [settings.trivy] if settings.trivy else [beside, *_on_path()]:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise EngineError(
        "Trivy is not installed", reason="engine_missing", hint="pip install 'dockwarden[trivy]', or put trivy on PATH"
    )


def _on_path() -> list[Path]:
    return [Path(directory) / "trivy" for directory in os.get_exec_path() if directory]


def _identity(binary: Path, settings: Settings) -> tuple[str, Digest]:
    """Version and digest of the binary, remembered until it changes: determining them takes as long as a scan."""

    def find() -> bytes:
        with binary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"sha256:{digest} {_ask_version(binary)}".encode()

    digest, _, version = derived_files(settings.home).about("trivy", binary, find).decode().partition(" ")
    return version, Digest(digest)


def _ask_version(binary: Path) -> str:
    """Return the version. Raises EngineError for a program that is not Trivy."""
    import subprocess

    try:
        done = subprocess.run(
            [str(binary), "--version", "--cache-dir", "/nonexistent"],
            capture_output=True,
            timeout=20,
            env={"PATH": "/usr/bin:/bin"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{binary} cannot be run: {error}", reason="scanner_failed") from error
    first = done.stdout.decode("utf-8", "replace").partition("\n")[0]
    version = first.removeprefix("Version: ").strip() if first.startswith("Version: ") else ""
    if not version:
        raise EngineError(f"{binary} did not print its version", reason="scanner_failed", hint="check that it is Trivy")
    return version


def _prepare_cache(cache: Path, generation: database.Generation) -> None:
    """Prepare the slot's cache directory. Its database links point to one generation during the whole scan."""
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, target in (("db", generation.directory / "db"), ("java-db", generation.directory / "java-db")):
        link = cache / name
        # Compared first, because the slot is used again and again: a link that is replaced under a running Trivy
        # would change its database in the middle of a scan.
        if not (link.is_symlink() and os.readlink(link) == str(target)):
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _command(binary: Path, job: EngineJob) -> list[str]:
    return [
        str(binary),
        "image",
        "--input",
        str(job.layout),
        "--format",
        "json",
        "--list-all-pkgs",
        "--scanners",
        "vuln,secret" if job.secrets else "vuln",
        "--cache-dir",
        str(job.cache.absolute()),
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-check-update",
        "--skip-vex-repo-update",
        "--skip-version-check",
        "--disable-telemetry",
        "--offline-scan",
        *(f"--skip-files={path}" for path in _UNREAD),
        # Trivy's cache is keyed by these patterns: what it knows of an excerpt is not used for another kind of excerpt.
        # No file may match: an image could hide a program by that name. No path in a layer begins with "..".
        *([f"--skip-files=../{job.files.version}"] if job.files else []),
        "--no-progress",
        "--quiet",
        "--timeout",
        f"{max(1, int(job.deadline))}s",
    ]


def _sbom_command(binary: Path, sbom: Path, job: MatchJob) -> list[str]:
    return [
        str(binary),
        "sbom",
        str(sbom),
        "--format",
        "json",
        "--list-all-pkgs",
        "--scanners",
        "vuln",
        "--cache-dir",
        str(job.cache.absolute()),
        "--skip-db-update",
        "--skip-java-db-update",
        "--skip-vex-repo-update",
        "--skip-version-check",
        "--disable-telemetry",
        "--offline-scan",
        "--no-progress",
        "--quiet",
        "--timeout",
        f"{max(1, int(job.deadline))}s",
    ]


def _environment(limits: Limits) -> dict[str, str]:
    # Nothing of our own environment is passed on: it holds keys, tokens and proxies. GOGC: half as many garbage
    # collections, a tenth of Trivy's time on an excerpt. Near the limit of memory there are more of them all the same.
    memory = str(int(limits.engine_memory * 0.8))
    return {"PATH": "/usr/bin:/bin", "GOMEMLIMIT": memory, "GOGC": "200", "NO_COLOR": "1"}


def read_report(data: bytes, image: Image, limits: Limits = _LIMITS) -> EngineReport:
    """Parse a report's bytes, without knowledge of the run. Raises EngineError if it is not a report of ``image``."""
    reader = Reader(_document(data, limits), image, limits)
    return reader.report("", Digest.of(b""), AdvisoryStatus("trivy-db"), "", Holdings())


def _report_of(ended: _process.ProcessEnd, limits: Limits) -> Mapping[str, Any]:
    """Return the report's JSON if the run succeeded. The output of a failed run is ignored."""
    if ended.timed_out:
        raise EngineError(f"Trivy did not finish within {ended.seconds:.0f} s", reason="scan_timeout")
    if ended.cancelled:
        raise EngineError("the scan was cancelled", reason="cancelled")
    if ended.overflowed:
        raise EngineError("Trivy's report is larger than allowed", reason="scanner_output_invalid")
    if ended.code != 0:
        raise _failure(ended)
    return _document(ended.output, limits)


def _document(data: bytes, limits: Limits) -> Mapping[str, Any]:
    document = load_untrusted_json(
        data,
        limit=limits.report,
        depth=limits.json_depth,
        error=EngineError,
        reason="scanner_output_invalid",
        mend_text=True,
    )
    if not isinstance(document, dict) or document.get("SchemaVersion") != _SCHEMA:
        raise EngineError(
            "Trivy's report has an unknown schema version",
            reason="scanner_output_invalid",
            hint="install the Trivy version of this release",
        )
    return document


def _failure(ended: _process.ProcessEnd) -> EngineError:
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    tail = clean_text(lines[-1] if lines else "", 300)
    # The kernel's OOM killer sends SIGKILL, as we do at the deadline; that case was handled before.
    if ended.code == -9 or "out of memory" in ended.stderr or "cannot allocate memory" in ended.stderr:
        return EngineError("Trivy needed more memory than allowed", reason="scanner_oom", retryable=True)
    if ended.code < 0 or "panic:" in ended.stderr:
        return EngineError(
            f"Trivy crashed (signal {-ended.code})" if ended.code < 0 else "Trivy crashed",
            reason="scanner_crashed",
            retryable=True,
        )
    if "cache may be in use" in ended.stderr:
        return EngineError("Trivy's cache is in use by another process", reason="scanner_failed", retryable=True)
    if (
        "vulnerability DB" in ended.stderr
        or "vulnerability database" in ended.stderr
        or "java DB" in ended.stderr.lower()
    ):
        return AdvisoriesUnavailable(
            f"Trivy cannot use the advisory database: {tail}", hint="dockwarden advisories status"
        )
    return EngineError(f"Trivy failed: {tail or f'exit {ended.code}'}")


class Reader:
    """Converts Trivy's report to our model.

    The image may have influenced everything in it, so all values are bounded and cleaned. A report that does not follow
    the schema is refused (reason ``scanner_output_invalid``).
    """

    def __init__(self, document: Mapping[str, Any], image: Image | None, limits: Limits = _LIMITS) -> None:
        self._document, self._image, self._limits = document, image, limits
        self._purls: dict[str, str] = {}
        # Packages of the system that Trivy lists and does not look up, because of their vendor. Filled by `report`.
        self.third_party: list[Component] = []

    def report(
        self, version: str, binary: Digest, advisories: AdvisoryStatus, isolation: str, holdings: Holdings
    ) -> EngineReport:
        """Return the whole report. ``holdings``: what the database has advisories for."""
        metadata = _dict(self._document.get("Metadata"))
        # First of all: a report about another image must not reach a database, whatever it says.
        self._check_identity(metadata)
        results = [_dict(item) for item in _list(self._document.get("Results"))]
        listed = (c for result in results for c in self._components(result))
        components = tuple(at_most(listed, self._limits.packages, "packages", "Trivy"))
        found = (v for result in results for v in self._vulnerabilities(result))
        vulnerabilities = tuple(at_most(found, self._limits.report_findings, "vulnerabilities", "Trivy"))
        os_info = _dict(metadata.get("OS"))
        family = as_text(os_info.get("Family"), _SHORT) if os_info.get("Family") != "none" else ""
        release, extended = as_text(os_info.get("Name"), _SHORT), os_info.get("Extended", False) is not False
        # Trivy says nothing if it has no advisories for a release: an empty list of findings then looks like a clean
        # image.
        missing = dict(_trivy_sources.gaps(family, release, extended or release.endswith("-ESM"), components, holdings))
        coverage = Coverage(
            os_family=family,
            os_version=release,
            os_supported=self.supported,
            packages=len(components),
            without_advisories=tuple(missing),
        )
        return EngineReport(
            "trivy",
            version,
            binary,
            advisories,
            coverage,
            components,
            vulnerabilities,
            tuple(s for result in results for s in self._secrets(result)),
            (*_gaps(coverage), *missing.values()),
            isolation,
        )

    @property
    def supported(self) -> bool | None:
        """True if the release is still supported; None if no release was recognised."""
        info = _dict(_dict(self._document.get("Metadata")).get("OS"))
        return info.get("EOSL", False) is False if info else None  # unknown values count as not supported

    def matches(self, packages: Sequence[Package]) -> dict[str, tuple[Vulnerability, ...]]:
        """Vulnerabilities by package key.

        The report lists the packages that it looked up; others are not in the result.
        """
        results = [_dict(item) for item in _list(self._document.get("Results"))]
        listed = [_reference(_dict(p).get("Identifier")) for r in results for p in _list(r.get("Packages"))]
        found: dict[int, list[Vulnerability]] = {n: [] for n in listed if n is not None and n < len(packages)}
        for result in results:
            items = [_dict(item) for item in _list(result.get("Vulnerabilities"))]
            for item, vulnerability in zip(items, self._vulnerabilities(result), strict=True):
                number = _reference(item.get("PkgIdentifier"))
                # A finding without its package would be dropped silently, and dropping one is the same as calling it
                # clean.
                if number not in found:
                    raise EngineError("Trivy's report is about another package", reason="scanner_output_invalid")
                package = packages[number]
                found[number].append(
                    replace(
                        vulnerability,
                        purl=package.purl,
                        package=package.name,
                        installed_version=package.version,
                        path="",
                    )
                )
        return {packages[number].key: tuple(items) for number, items in found.items()}

    def _check_identity(self, metadata: Mapping[str, Any]) -> None:
        """Check that the report is about this image."""
        assert self._image is not None
        image_id, diff_ids = metadata.get("ImageID"), [str(d) for d in _list(metadata.get("DiffIDs"))]
        other_id = image_id is not None and image_id != self._image.config.digest
        other_layers = bool(diff_ids) and diff_ids != [layer.diff_id for layer in self._image.layers]
        if other_id or other_layers:
            raise EngineError("Trivy's report is about another image", reason="scanner_output_invalid")

    def _components(self, result: Mapping[str, Any]) -> Iterator[Component]:
        kind, target = as_text(result.get("Type"), _SHORT), as_text(result.get("Target"), _TEXT)
        language = result.get("Class") == "lang-pkgs"
        for item in map(_dict, _list(result.get("Packages"))):
            name, version = as_text(item.get("Name"), _SHORT), _version(item, "")
            purl = as_text(_dict(item.get("Identifier")).get("PURL"), _TEXT) or f"pkg:generic/{name}@{version}"
            self._purls[as_text(item.get("ID"), _SHORT) or f"{name}@{version}"] = purl
            component = Component(
                purl=purl,
                name=name,
                version=version,
                type=kind,
                source_name=as_text(item.get("SrcName"), _SHORT),
                source_version=_version(item, "Src"),
                licenses=tuple(as_text(x, _SHORT) for x in _list(item.get("Licenses"))[:_MANY]),
                layer=self._layer(item),
                path=as_text(item.get("FilePath"), _TEXT) or (target if language else ""),
                module=as_text(item.get("Modularitylabel"), _SHORT),
                # An SBOM in the image may name any file, also a packed program that nobody could read. Trivy before
                # 0.69 does not say what it read a package from.
                stated=item.get("AnalyzedBy", "sbom" if kind in _OF_PROGRAMS else "") == "sbom",
            )
            if _dict(item.get("Repository")).get("Class") == "third-party":
                self.third_party.append(component)
            yield component

    def _vulnerabilities(self, result: Mapping[str, Any]) -> Iterator[Vulnerability]:
        target = as_text(result.get("Target"), _TEXT)
        language = result.get("Class") == "lang-pkgs"
        for item in map(_dict, _list(result.get("Vulnerabilities"))):
            identifier, name = as_text(item.get("VulnerabilityID"), _SHORT), as_text(item.get("PkgName"), _SHORT)
            installed = as_text(item.get("InstalledVersion"), _SHORT)
            if not identifier or not name:
                raise EngineError(
                    "Trivy's report has a vulnerability without id or package", reason="scanner_output_invalid"
                )
            purl = as_text(_dict(item.get("PkgIdentifier")).get("PURL"), _TEXT) or self._purls.get(
                f"{name}@{installed}", f"pkg:generic/{name}@{installed}"
            )
            yield Vulnerability(
                id=identifier,
                purl=purl,
                package=name,
                installed_version=installed,
                fixed_versions=tuple(
                    v.strip() for v in as_exact_text(item.get("FixedVersion"), _SHORT, "Trivy").split(",") if v.strip()
                ),
                severity=as_severity(item.get("Severity"), _SEVERITIES),
                severity_source=as_text(item.get("SeveritySource"), _SHORT),
                aliases=tuple(as_text(x, _SHORT) for x in _list(item.get("VendorIDs"))[:_MANY]),
                cvss=tuple(_scores(_dict(item.get("CVSS")))),
                cwes=tuple(as_text(x, _SHORT) for x in _list(item.get("CweIDs"))[:_MANY]),
                status=_status(item.get("Status")),
                title=as_text(item.get("Title"), _SHORT),
                description=as_text(item.get("Description"), _TEXT),
                url=as_link(item.get("PrimaryURL"), _TEXT),
                references=tuple(filter(None, (as_link(x, _TEXT) for x in _list(item.get("References"))[:_MANY]))),
                published=parse_time(item.get("PublishedDate")),
                modified=parse_time(item.get("LastModifiedDate")),
                layer=self._layer(item),
                path=as_text(item.get("PkgPath"), _TEXT) or (target if language else ""),
                engines=("trivy",),
            )

    def _secrets(self, result: Mapping[str, Any]) -> Iterator[SecretMatch]:
        target = as_text(result.get("Target"), _TEXT).lstrip("/")
        for item in map(_dict, _list(result.get("Secrets"))):
            line = item.get("StartLine")
            yield SecretMatch(
                rule=as_text(item.get("RuleID"), _SHORT),
                title=as_text(item.get("Title"), _SHORT),
                severity=as_severity(item.get("Severity"), _SEVERITIES),
                path=target,
                layer=self._layer(item),
                line=line if isinstance(line, int) and not isinstance(line, bool) else None,
            )

    def _layer(self, item: Mapping[str, Any]) -> Digest | None:
        """The layer, if it belongs to this image: an engine must not name a layer that was not verified."""
        layer = self._image.layer_of(_dict(item.get("Layer")).get("DiffID")) if self._image else None
        return layer.diff_id if layer else None


def _version(item: Mapping[str, Any], prefix: str) -> str:
    """``epoch:version-release`` of a package (``prefix`` empty) or of its source (``prefix`` "Src")."""
    version, release = as_text(item.get(f"{prefix}Version"), _SHORT), as_text(item.get(f"{prefix}Release"), _SHORT)
    epoch = item.get(f"{prefix}Epoch")
    return (f"{epoch}:" if epoch and isinstance(epoch, int) else "") + version + (f"-{release}" if release else "")


def _reference(identifier: object) -> int | None:
    """The position that we gave to a package (``p12``), or None."""
    text = _dict(identifier).get("BOMRef")
    return (
        int(text[1:]) if isinstance(text, str) and text[:1] == "p" and text[1:].isdecimal() and len(text) < 9 else None
    )


def _gaps(coverage: Coverage) -> Iterator[Incomplete]:
    if coverage.packages == 0:
        yield NO_PACKAGE
    elif not coverage.os_family:
        yield NO_SYSTEM
    if coverage.os_family and coverage.os_supported is False:
        release = f"{coverage.os_family} {coverage.os_version}".strip()
        yield Incomplete(
            "unsupported_os", f"{release} is past its end of life, so new vulnerabilities are no longer recorded for it"
        )


def _skipped(
    coverage: Coverage, third_party: Sequence[Component], generation: database.Generation
) -> Iterator[Incomplete]:
    """Yield a gap for packages of other vendors that the distribution has advisories for.

    Trivy takes the vendor from the package database and looks up nothing of a vendor that it does not know. A rebuilt
    openssl, or one whose entry only names another vendor, would look clean. What no distribution has (docker-ce) has
    no advisories with any engine, and is no gap.
    """
    if not third_party:
        return
    version = coverage.os_version
    source = _trivy_sources.source_of(coverage.os_family, version, version.endswith("-ESM"))
    names = [(component.name, _advisory_names(component)) for component in third_party]
    advised = generation.advised(source, {name for _, listed in names for name in listed})
    skipped = sorted({name for name, listed in names if not advised.isdisjoint(listed)})
    if skipped:
        named = ", ".join(skipped[:_NAMED]) + (" and others" if len(skipped) > _NAMED else "")
        yield Incomplete(
            PACKAGE_UNREAD,
            f"because of their vendor, Trivy did not look up packages that have advisories: {named}",
        )


def _advisory_names(component: Component) -> tuple[str, ...]:
    """The names under which a distribution's advisories list a package: those of a module have its name before them."""
    names = tuple(filter(None, (component.name, component.source_name)))
    module = ":".join(component.module.split(":")[:2])
    return (*names, *(f"{module}::{name}" for name in names)) if module else names


def _status(value: object) -> str:
    return value if isinstance(value, str) and value in STATUSES else "unknown"


def _scores(item: Mapping[str, Any]) -> Iterator[CVSS]:
    for source, raw in list(item.items())[:_MANY]:
        scores = _dict(raw)
        for name, version in (("V2", "2.0"), ("V3", "3"), ("V40", "4.0")):
            score = as_score(scores.get(f"{name}Score"), "Trivy")
            if score is not None:
                text = as_text(scores.get(f"{name}Vector"), _SHORT)
                exact = text[5:8] if text.startswith("CVSS:3.") else version
                yield CVSS(exact, text, score, as_text(source, _SHORT))
