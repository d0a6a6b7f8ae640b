from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.package_cache import PackageCache
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, entry, layer, subject, unreadable

LISTS = "var/lib/apt/lists/mirror.example.com_debian_dists_bookworm_main_binary-amd64_Packages"


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (LISTS, "apt"),
        ("var/cache/apt/archives/curl_8.0_amd64.deb", "apt"),
        ("var/cache/apk/APKINDEX.0123.tar.gz", "apk"),
        ("etc/apk/cache/x.apk", "apk"),
        ("var/cache/dnf/fedora.solv", "dnf"),
        ("var/cache/yum/x86_64/7/base/x.rpm", "dnf"),
        ("var/cache/zypp/packages/x.rpm", "zypper"),
        ("root/.cache/pip/http/a/b", "pip"),
        ("srv/app/.cache/pip/wheels/a/b", "pip"),
        ("root/.npm/_cacache/content-v2/x", "npm"),
        ("usr/local/share/.cache/yarn/v6/x", "yarn"),
        ("root/.cache/go-build/00/x", "go"),
        ("root/.m2/repository/a.jar", "maven"),
        ("root/.gradle/caches/a.jar", "gradle"),
        ("opt/conda/pkgs/x.conda", "conda"),
    ],
)
def test_left_in_a_layer(path: str, owner: str) -> None:
    outcome = PackageCache().examine(subject(layer(entry("etc/passwd")), layer(entry(path, size=5_000_000))))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].message.startswith(f"{owner} left 5.0 MB in 1 files")
    assert outcome.evidence[0].layer_index == 1
    assert outcome.remedy


def test_deleted_by_a_later_layer_is_still_pulled() -> None:
    """A rule that looks for rm in the history is content with this."""
    image = subject(layer(entry(LISTS, size=40_000_000)), layer(whiteouts=[LISTS]))
    outcome = PackageCache().examine(image)
    assert isinstance(outcome, Failed)
    assert "layer 1 deletes them" in outcome.evidence[0].message


def test_a_cache_mount_leaves_nothing() -> None:
    """The history shows no cleaning; a rule of the history alone would fail this image."""
    assert isinstance(
        PackageCache().examine(built_by("RUN /bin/sh -c apt-get update && apt-get install -y curl # buildkit")), Passed
    )


def test_without_history_the_files_tell() -> None:
    image = subject(layer(entry(LISTS, size=40_000_000)), history=())
    assert isinstance(PackageCache().examine(image), Failed)


@pytest.mark.parametrize(
    "path",
    [
        "var/lib/apt/lists/lock",
        "var/cache/debconf/templates.dat",
        "usr/share/cache/x",
        "var/cache/ldconfig/aux-cache",
        "usr/lib/python3/dist-packages/pip/_vendor/cachecontrol/cache.py",
        "srv/registry/data/x",
        "srv/app/store/x.js",
    ],
)
def test_other_files(path: str) -> None:
    assert isinstance(PackageCache().examine(subject(layer(entry(path, size=5_000_000)))), Passed)


def test_a_few_bytes_are_nothing() -> None:
    small = subject(layer(entry(LISTS, size=2000)))
    assert isinstance(PackageCache().examine(small), Passed)
    assert isinstance(PackageCache().examine(replace(small, parameters={"min_kilobytes": 1})), Failed)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("apt-get update && apt-get install -y curl", Failed),
        ("apk add curl", Failed),
        ("apk add --no-cache curl", Incomplete),
        ("apt-get update; apt-get install -y curl; rm -rf /var/lib/apt/lists/*", Incomplete),
        ("dnf install -y curl && dnf clean all", Incomplete),
    ],
)
def test_unreadable_layers_leave_the_history(script: str, kind: type) -> None:
    image = replace(built_by(f"RUN /bin/sh -c {script}"), rootfs=None, rootfs_reason="layer 1 is truncated")
    assert isinstance(PackageCache().examine(image), kind)
    assert isinstance(PackageCache().examine(unreadable()), Incomplete)
