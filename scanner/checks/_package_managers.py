"""Package managers in builds: subcommands that refresh or install, and the locations of their caches."""

from __future__ import annotations

import re

from scanner.checks._history import Command
from scanner.lazy_dataclasses import dataclass


@dataclass(frozen=True)
class Manager:
    """A package manager.

    ``refresh`` and ``install``: its subcommands. ``clean``: an instruction that leaves no cache.
    """

    name: str
    programs: frozenset[str]
    refresh: frozenset[str]
    install: frozenset[str]
    clean: str


MANAGERS = (
    Manager(
        "apt",
        frozenset(("apt", "apt-get", "aptitude")),
        frozenset(("update",)),
        frozenset(
            ("install", "upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade", "build-dep", "satisfy", "reinstall")
        ),
        # In one instruction: a cached "update" layer would install old versions, and a later "rm" removes nothing
        # from it.
        "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*",
    ),
    Manager(
        "apk",
        frozenset(("apk",)),
        frozenset(("update",)),
        frozenset(("add", "upgrade", "fix")),
        "RUN apk add --no-cache PACKAGE",
    ),
    Manager(
        "dnf",
        frozenset(("dnf", "dnf5", "yum", "microdnf", "tdnf")),
        frozenset(("makecache", "check-update")),
        frozenset(
            (
                "install",
                "update",
                "upgrade",
                "reinstall",
                "groupinstall",
                "module",
                "localinstall",
                "builddep",
                "distro-sync",
                "downgrade",
            )
        ),
        "RUN dnf install -y PACKAGE && dnf clean all",
    ),
    Manager(
        "zypper",
        frozenset(("zypper",)),
        frozenset(("refresh", "ref")),
        frozenset(("install", "in", "update", "up", "patch", "dup", "dist-upgrade")),
        "RUN zypper --non-interactive install PACKAGE && zypper clean --all",
    ),
    Manager(
        "opkg",
        frozenset(("opkg",)),
        frozenset(("update",)),
        frozenset(("install", "upgrade")),
        "RUN opkg update && opkg install PACKAGE && rm -rf /var/opkg-lists",
    ),
)
_BY_PROGRAM = {program: manager for manager in MANAGERS for program in manager.programs}


def manager_of(command: Command) -> Manager | None:
    return _BY_PROGRAM.get(command.name)


def verb(command: Command, manager: Manager) -> str:
    """Return the subcommand. Other operands are skipped: they may be values of options (``apt-get -o A=b update``)."""
    return next((word for word in command.operands if word in manager.refresh or word in manager.install), "")


@dataclass(frozen=True)
class Cache:
    """A cache of downloads. ``pattern`` matches the paths of its files; ``place`` is shown to users."""

    owner: str
    place: str
    pattern: re.Pattern[str]
    clean: str


def _cache(owner: str, place: str, pattern: str, clean: str) -> Cache:
    return Cache(owner, place, re.compile(pattern), clean)


_APT, _APK, _DNF, _ZYPPER = (manager.clean for manager in MANAGERS[:4])
CACHES = (
    _cache(
        "apt",
        "/var/lib/apt/lists",
        # Not "lock" and "partial", which the base image brings and which are empty.
        r"var/lib/apt/lists/[^/]+_(?:Packages|Sources|InRelease|Release|Translation|Contents|Commands|Components|dep11|icons)",
        _APT,
    ),
    _cache("apt", "/var/cache/apt", r"var/cache/apt/(?:archives/.*\.deb|(?:src)?pkgcache\.bin)$", _APT),
    _cache("apk", "/var/cache/apk", r"(?:var/cache|etc)/(?:apk|apk/cache)/(?:APKINDEX|.+\.apk$)", _APK),
    _cache("dnf", "/var/cache/dnf", r"var/cache/(?:dnf|yum|libdnf5|tdnf)/.+", _DNF),
    _cache("zypper", "/var/cache/zypp", r"var/cache/zypp/.+", _ZYPPER),
    _cache(
        "pacman",
        "/var/cache/pacman",
        r"var/cache/pacman/pkg/.+",
        "RUN pacman -Syu --noconfirm PACKAGE && rm -rf /var/cache/pacman/pkg/*",
    ),
    _cache(
        "pip",
        "~/.cache/pip",
        r"(?:root|home/[^/]+|.*)/?\.cache/pip/(?:http|wheels).*",
        "RUN pip install --no-cache-dir -r requirements.txt",
    ),
    _cache("uv", "~/.cache/uv", r"(?:.*/)?\.cache/uv/.+", "RUN --mount=type=cache,target=/root/.cache/uv uv sync"),
    _cache("poetry", "~/.cache/pypoetry", r"(?:.*/)?\.cache/pypoetry/.+", "RUN poetry install --no-cache"),
    _cache(
        "conda",
        "pkgs",
        r"(?:opt/conda|.*/(?:mini|ana)conda3?|.*/micromamba)/pkgs/.+",
        "RUN conda install -y PACKAGE && conda clean -afy",
    ),
    _cache("npm", "~/.npm", r"(?:.*/)?\.npm/_cacache/.+", "RUN npm ci --omit=dev && npm cache clean --force"),
    _cache(
        "yarn", "~/.cache/yarn", r"(?:.*/)?\.?cache/yarn/.+", "RUN yarn install --frozen-lockfile && yarn cache clean"
    ),
    _cache(
        "pnpm",
        "pnpm store",
        r"(?:.*/)?(?:\.pnpm-store|\.local/share/pnpm/store)/.+",
        "RUN --mount=type=cache,target=/pnpm pnpm install --frozen-lockfile",
    ),
    _cache(
        "go",
        "~/.cache/go-build",
        r"(?:.*/)?\.cache/go-build/.+|(?:.*/)?go/pkg/mod/cache/.+",
        "RUN --mount=type=cache,target=/root/.cache/go-build go build",
    ),
    _cache(
        "cargo",
        "cargo registry",
        r"(?:.*/)?(?:\.cargo|cargo)/registry/(?:cache|src|index)/.+",
        "RUN --mount=type=cache,target=/usr/local/cargo/registry cargo build --release",
    ),
    _cache(
        "composer",
        "~/.composer/cache",
        r"(?:.*/)?(?:\.composer/cache|\.cache/composer)/.+",
        "RUN composer install --no-dev --no-cache",
    ),
    _cache(
        "bundler",
        "bundle cache",
        r"(?:.*/)?(?:usr/local/bundle|\.bundle)/cache/.+",
        "RUN bundle install && rm -rf /usr/local/bundle/cache",
    ),
    _cache("maven", "~/.m2", r"(?:.*/)?\.m2/repository/.+", "RUN --mount=type=cache,target=/root/.m2 mvn package"),
    _cache(
        "gradle",
        "~/.gradle",
        r"(?:.*/)?\.gradle/(?:caches|wrapper/dists)/.+",
        "RUN --mount=type=cache,target=/root/.gradle gradle build",
    ),
)


def cache_of(path: str) -> Cache | None:
    """Return the cache to which a path belongs, or None.

    The substring tests are much faster than the patterns, and most paths belong to no cache.
    """
    if (
        "cache" not in path
        and "/lists/" not in path
        and "/registry/" not in path
        and "pkgs/" not in path
        and "/store/" not in path
        and ".m2/" not in path
        and ".gradle/" not in path
        and ".pnpm-store/" not in path
    ):
        return None
    return next((cache for cache in CACHES if cache.pattern.match(path)), None)
