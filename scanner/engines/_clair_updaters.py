"""Which of Clair's updaters provide the advisories for a package. Clair reports only their names.

The names come from claircore, each updater's ``Name()``: https://github.com/quay/claircore. Packages without a matching
updater are listed by Clair, but never have findings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from scanner.model.finding import Component, Incomplete
from scanner.model.lifecycle import is_known
from scanner.model.release import release_number

# Prefixes of the names of a distribution's updaters, by its ID in os-release.
_PREFIXES: Final = {
    "alpine": ("alpine-",),
    "amzn": ("aws-",),
    "centos": ("rhel", "RHEL"),
    "debian": ("debian",),
    "ol": ("oracle",),
    "opensuse-leap": ("suse-updater-opensuse.leap.",),
    "photon": ("photon-updater-",),
    "rhel": ("rhel", "RHEL"),
    "sles": ("suse-updater-suse.linux.enterprise.server.",),
    "ubuntu": ("ubuntu",),
}
# By type of package: claircore's OSV updaters.
_LANGUAGES: Final = {
    "gemspec": "osv/rubygems",
    "gobinary": "osv/go",
    "jar": "osv/maven",
    "node-pkg": "osv/npm",
    "python-pkg": "osv/pypi",
}
_AMAZON: Final = {"2018": "AL1", "2": "AL2", "2023": "AL2023"}


def concerns(updater: str, system: str) -> bool:
    """True if an updater provides advisories for a distribution."""
    return updater.startswith(_PREFIXES.get(system, ()))


def gaps(
    system: str, version: str, codename: str, kind: str, components: Iterable[Component], updaters: Collection[str]
) -> Iterator[tuple[str, Incomplete]]:
    """Yield the package types for which Clair has no advisories, with the gap: no findings prove nothing there.

    ``kind``: the package type of the distribution itself.
    """
    for found in sorted({component.type for component in components}):
        if found in _LANGUAGES:
            if not any(name.lower() == _LANGUAGES[found] for name in updaters):
                yield (
                    found,
                    Incomplete(
                        "no_advisories",
                        f"Clair has no updater {_LANGUAGES[found]}, so it cannot find vulnerabilities there",
                    ),
                )
        elif found != kind or not _has_release(system, version, codename, updaters):
            release = f"{system} {version}".strip() or "packages of an unknown system"
            yield (
                found,
                Incomplete(
                    "no_advisories", f"Clair has no advisories for {release}, so it cannot find vulnerabilities there"
                ),
            )


def _has_release(system: str, version: str, codename: str, updaters: Collection[str]) -> bool:
    """True if an updater's name contains the release.

    The names for Debian, Red Hat and Oracle contain no release; there it must be a known release.
    """
    own = [name for name in updaters if concerns(name, system)]
    number = release_number(system, version)
    if not own or not number:
        return False
    if system == "alpine":
        return any((f"-{number}-" if number == "edge" else f"-v{number}-") in name for name in own)
    if system == "ubuntu":
        return bool(codename) and any(codename in name.replace("-", "/").split("/") for name in own)
    if system == "amzn":
        return f"aws-{_AMAZON.get(number, 'none')}-updater" in own
    if system == "photon":
        return any(
            name.removeprefix("photon-updater-") in (number, f"photon{number.partition('.')[0]}") for name in own
        )
    if system in ("sles", "opensuse-leap"):
        prefix = _PREFIXES[system][0]
        return any(name.removeprefix(prefix) in (number, number.partition(".")[0]) for name in own)
    return is_known(system, version)
