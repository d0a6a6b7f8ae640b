"""A registry's posture: probed, judged by every registry check, kept with its date for as long as it may be
believed.

A posture never stops a scan. A registry that cannot be probed has one too: every check of it is Incomplete, with the
reason.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scanner import catalog
from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.config import Settings
from scanner.errors import ScannerError, UsageError
from scanner.files import read_whole
from scanner.model.finding import CheckResult, Incomplete, NotApplicable, Outcome
from scanner.model.posture import Posture, RegistryFacts
from scanner.model.untrusted import escaped
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access
from scanner.registry.probe import probe

log = logging.getLogger(__name__)

PostureOf = Callable[[str, str, Access, CredentialStore], Posture]
"""(host, repository, access, credentials) -> its posture, remembered or new. Never raises."""


def examine(
    host: str, settings: Settings, credentials: CredentialStore, access: Access | None = None, repository: str = ""
) -> Posture:
    """Probe the registry and judge what was found. Raises RefusedError, or RemoteError for a host that is not there."""
    return escaped(judge(probe(host, settings, credentials, access, repository)))


def judge(facts: RegistryFacts, checks: Sequence[RegistryCheck] | None = None) -> Posture:
    """Every registry check's word about these facts, in the catalogue's order."""
    now = datetime.now(UTC)
    chosen = tuple(catalog.registry_checks().values()) if checks is None else checks
    results = tuple(
        CheckResult(c.id, _outcome(c, RegistrySubject(facts, now, c.parameters)), c.severity) for c in chosen
    )
    return Posture(facts.host, now, results, facts.access.repository)


def _outcome(check: RegistryCheck, subject: RegistrySubject) -> Outcome:
    try:
        return check.examine(subject)
    except Exception as error:  # the boundary of a check: one that breaks on a registry has not examined it
        log.exception("check %s failed", check.id)
        return Incomplete("check_failed", f"{check.id} broke on this registry ({type(error).__name__})")


def unknown(host: str, reason: str, detail: str) -> Posture:
    """The posture of a registry of which nothing could be found out."""
    gap = Incomplete(reason, detail)
    return Posture(
        host, datetime.now(UTC), tuple(CheckResult(c.id, gap, c.severity) for c in catalog.registry_checks().values())
    )


def none() -> tuple[CheckResult, ...]:
    """What is said of an image that came from no registry."""
    absent = NotApplicable("the image did not come from a registry")
    return tuple(CheckResult(c.id, absent, c.severity) for c in catalog.registry_checks().values())


def is_current(posture: Posture, settings: Settings) -> bool:
    """Whether it is young enough, and says something of every check there is."""
    age = datetime.now(UTC) - posture.checked_at
    known = {result.check for result in posture.results} >= set(catalog.registry_checks())
    return known and timedelta(0) <= age <= timedelta(hours=settings.posture_max_age_hours)


def says_something(posture: Posture) -> bool:
    """Whether anything at all was found out."""
    return any(not isinstance(result.outcome, Incomplete) for result in posture.results)


def remembered(settings: Settings) -> PostureOf:
    """For the command line: postures kept in files under home, one for each registry and way of reaching it."""

    def posture(host: str, repository: str, access: Access, credentials: CredentialStore) -> Posture:
        way = repr((host, access, access.ca_file and _bytes(access.ca_file), settings.ca_file))
        file = settings.home / "posture" / f"{hashlib.sha256(way.encode()).hexdigest()[:32]}.json"
        kept = _load(file)
        if kept is not None and kept.host == host and is_current(kept, settings):
            return kept
        found = or_unknown(host, lambda: examine(host, settings, credentials, access, repository))
        if says_something(found):
            _keep(file, found)  # where nothing could be found out, the next scan tries again
        return found

    return posture


def or_unknown(host: str, ask: Callable[[], Posture]) -> Posture:
    """The posture, or that nothing is known and why."""
    try:
        return ask()
    except ScannerError as error:
        return unknown(host, error.reason, f"{error}")
    except Exception as error:  # the boundary of the stage: a scan does not end because its registry is odd
        log.exception("the posture of %s could not be examined", host)
        return unknown(host, "probe_failed", f"the probe broke on this registry ({type(error).__name__})")


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Posture]:
    return TypeAdapter(Posture)


def _bytes(file: Path) -> bytes:
    try:
        return read_whole(file, 1 << 24)
    except UsageError:
        return b""


def _load(file: Path) -> Posture | None:
    try:
        return _adapter().validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _keep(file: Path, found: Posture) -> None:
    """Complete or not at all. A home that cannot be written to costs a probe the next time, no more."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "wb") as out:
            out.write(_adapter().dump_json(found))
        os.replace(name, file)
    except OSError as error:
        log.warning("cannot keep a posture: %s", error)
