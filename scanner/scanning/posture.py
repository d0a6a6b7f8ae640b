"""The posture of a registry: probe it, run all registry checks, and cache the result.

A failed probe never stops a scan. The posture then consists of ``Incomplete`` results with the reason.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from scanner import catalog
from scanner.config import Settings
from scanner.errors import ScannerError, UsageError
from scanner.files import read_whole
from scanner.model.finding import CheckResult, Incomplete, NotApplicable, Outcome
from scanner.model.untrusted import escaped

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from scanner.checks.base import RegistryCheck, RegistrySubject
    from scanner.model.posture import Posture, RegistryFacts
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access

log = logging.getLogger(__name__)

PostureOf = Callable[[str, str, "Access", "CredentialStore"], "Posture"]
"""(host, repository, access, credentials) -> posture, cached or new. Never raises."""


def examine(
    host: str, settings: Settings, credentials: CredentialStore, access: Access | None = None, repository: str = ""
) -> Posture:
    """Probe a registry and run the checks. Raises RefusedError, RemoteError for an unreachable host."""
    from scanner.registry.probe import probe  # imports an HTTP client

    return escaped(judge(probe(host, settings, credentials, access, repository)))


def judge(facts: RegistryFacts, checks: Sequence[RegistryCheck] | None = None) -> Posture:
    """Run every registry check (or ``checks``) on the facts of a probe, in the catalogue's order."""
    from scanner.checks.base import RegistrySubject
    from scanner.model.posture import Posture

    now = datetime.now(UTC)
    chosen = tuple(catalog.registry_checks().values()) if checks is None else checks
    results = tuple(
        CheckResult(c.id, _outcome(c, RegistrySubject(facts, now, c.parameters)), c.severity) for c in chosen
    )
    return Posture(facts.host, now, results, facts.access.repository)


def _outcome(check: RegistryCheck, subject: RegistrySubject) -> Outcome:
    try:
        return check.examine(subject)
    except Exception as error:  # the stage boundary: a failed check is incomplete, never passed
        log.exception("check %s failed", check.id)
        return Incomplete("check_failed", f"{check.id} failed on this registry ({type(error).__name__})")


def unknown(host: str, reason: str, detail: str) -> Posture:
    """Return a posture whose checks are all incomplete."""
    from scanner.model.posture import Posture

    gap = Incomplete(reason, detail)
    return Posture(
        host, datetime.now(UTC), tuple(CheckResult(c.id, gap, c.severity) for c in catalog.registry_checks().values())
    )


def none() -> tuple[CheckResult, ...]:
    """Return the results for an image that is not from a registry."""
    absent = NotApplicable("the image is not from a registry")
    return tuple(CheckResult(c.id, absent, c.severity) for c in catalog.registry_checks().values())


def is_current(posture: Posture, settings: Settings) -> bool:
    """Return whether the posture is recent enough and contains all current checks."""
    age = datetime.now(UTC) - posture.checked_at
    known = {result.check for result in posture.results} >= set(catalog.registry_checks())
    return known and timedelta(0) <= age <= timedelta(hours=settings.posture_max_age_hours)


def has_completed_check(posture: Posture) -> bool:
    """Return whether at least one check was completed."""
    return any(not isinstance(result.outcome, Incomplete) for result in posture.results)


def cached_posture(settings: Settings) -> PostureOf:
    """Return a `PostureOf` for the command line that caches postures in files under home.

    The key contains the access parameters and CA certificates: with another CA the result may differ.
    """

    def posture(host: str, repository: str, access: Access, credentials: CredentialStore) -> Posture:
        way = repr((host, access, access.ca_file and _bytes(access.ca_file), settings.ca_file))
        file = settings.home / "posture" / f"{hashlib.sha256(way.encode()).hexdigest()[:32]}.json"
        kept = _load(file)
        if kept is not None and kept.host == host and is_current(kept, settings):
            return kept
        found = or_unknown(host, lambda: examine(host, settings, credentials, access, repository))
        if has_completed_check(found):
            _keep(file, found)  # a failed probe is not cached, so the next scan repeats it
        return found

    return posture


def or_unknown(host: str, ask: Callable[[], Posture]) -> Posture:
    """Return the posture. An error gives incomplete results with the reason."""
    try:
        return ask()
    except ScannerError as error:
        return unknown(host, error.reason, f"{error}")
    except Exception as error:  # the stage boundary: an unexpected answer of a registry must not end the scan
        log.exception("the posture of %s could not be examined", host)
        return unknown(host, "probe_failed", f"the probe failed on this registry ({type(error).__name__})")


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Posture]:
    from pydantic import TypeAdapter

    from scanner.model.posture import Posture

    return TypeAdapter(Posture)


def _bytes(file: Path) -> bytes:
    try:
        return read_whole(file, 1 << 24)
    except UsageError:
        return b""


def _load(file: Path) -> Posture | None:
    try:
        return _adapter().validate_json(file.read_bytes())
    except (OSError, ValueError):  # pydantic's ValidationError is a ValueError
        return None


def _keep(file: Path, found: Posture) -> None:
    """Write the file atomically. Errors are logged only: the next scan probes again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        import tempfile

        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "wb") as out:
            out.write(_adapter().dump_json(found))
        os.replace(name, file)
    except OSError as error:
        log.warning("cannot store the registry's results: %s", error)
