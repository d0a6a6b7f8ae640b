"""All plug-ins, by package and id. Discovered once per process (``scanner.plugins``); imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from scanner.plugins import Plugins, discover

if TYPE_CHECKING:
    from scanner.checks.base import Check, ImageCheck, RegistryCheck, WorkloadCheck
    from scanner.engines.base import Engine
    from scanner.notify.base import ChannelFormat
    from scanner.policy.rules import CheckInfo, KnownNames
    from scanner.registry.listings.base import Listing
    from scanner.reports.base import ReportFormat
    from scanner.trust.base import TrustScheme
    from scanner.workloads.base import WorkloadSource

# The engines of ``engine: both``. Trivy first, because its text is shown if both report a finding. A third engine does
# not change it.
BOTH = "both"
_BOTH = ("trivy", "clair")


@cache
def image_checks() -> Plugins[ImageCheck]:
    """Checks of how an image is built."""

    def contract() -> type[ImageCheck]:
        from scanner.checks.base import ImageCheck

        return ImageCheck

    return discover("scanner.checks.image", contract)


@cache
def workload_checks() -> Plugins[WorkloadCheck]:
    """Checks of how a container is run."""

    def contract() -> type[WorkloadCheck]:
        from scanner.checks.base import WorkloadCheck

        return WorkloadCheck

    return discover("scanner.checks.workload", contract)


@cache
def registry_checks() -> Plugins[RegistryCheck]:
    """Checks of how a registry protects itself."""

    def contract() -> type[RegistryCheck]:
        from scanner.checks.base import RegistryCheck

        return RegistryCheck

    return discover("scanner.checks.registry", contract)


@cache
def engines() -> Plugins[Engine]:
    """Vulnerability engines."""

    def contract() -> type[Engine]:
        from scanner.engines.base import Engine

        return Engine

    return discover("scanner.engines", contract)


def engine_choices() -> tuple[str, ...]:
    """The allowed values of ``engine``: an engine's id, or ``both`` for Trivy and Clair."""
    return (*engines(), BOTH)


def chosen_engines(choice: str) -> tuple[str, ...]:
    """The ids of the engines of a choice."""
    return _BOTH if choice == BOTH else (choice,)


def engines_of(choice: str) -> tuple[Engine, ...]:
    """The engines of a choice, without those that do not exist."""
    return tuple(engines()[name] for name in chosen_engines(choice) if name in engines())


@cache
def schemes() -> Plugins[TrustScheme]:
    """Signature schemes."""

    def contract() -> type[TrustScheme]:
        from scanner.trust.base import TrustScheme

        return TrustScheme

    return discover("scanner.trust", contract)


@cache
def reports() -> Plugins[ReportFormat]:
    """Report formats."""

    def contract() -> type[ReportFormat]:
        from scanner.reports.base import ReportFormat

        return ReportFormat

    return discover("scanner.reports", contract)


@cache
def channels() -> Plugins[ChannelFormat]:
    """Notification channels."""
    from scanner.notify.base import ChannelFormat  # imports an HTTP client, which a scan of a directory does not need

    return discover("scanner.notify", ChannelFormat)


@cache
def workload_sources() -> Plugins[WorkloadSource]:
    """Formats that ``audit`` and ``--workload`` can read."""
    from scanner.workloads.base import WorkloadSource  # imports a YAML parser

    return discover("scanner.workloads", WorkloadSource)


@cache
def listings() -> Plugins[Listing]:
    """APIs of registries that list their repositories. Only workers load them: a server asks no registry."""
    from scanner.registry.listings.base import Listing  # imports an HTTP client

    return discover("scanner.registry.listings", Listing)


def checks() -> Mapping[str, Check]:
    """All checks by id: what a policy may select."""
    return {**image_checks(), **workload_checks(), **registry_checks()}


@cache
def known_names() -> KnownNames:
    """The names that a policy may use in this installation."""
    from scanner.policy.rules import KnownNames

    return KnownNames(
        checks={identifier: _info(check) for identifier, check in checks().items()},
        schemes=frozenset(schemes()),
        engines=frozenset(engines()),
    )


def _info(check: Check) -> CheckInfo:
    from scanner.checks.base import WorkloadCheck
    from scanner.policy.rules import CheckInfo

    return CheckInfo(
        check.severity, check.tags, check.benchmarks, check.parameters, check.judge, isinstance(check, WorkloadCheck)
    )


@cache
def remedies() -> Mapping[str, str]:
    """The general remedy of each check."""
    return {identifier: check.remedy for identifier, check in checks().items()}


def load() -> None:
    """Import every plug-in. A server does it at start: an invalid one must end it then, not while it works."""
    for room in (image_checks, workload_checks, registry_checks, engines, schemes, reports, channels, workload_sources):
        room().load()
