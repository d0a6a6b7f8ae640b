"""Where the usual rules about a build history are blind, and ours are not.

The rules of others are written here as they are documented (Dockle's assessors, docker-bench-security, Trivy's CIS
report): each test shows an image that such a rule judges wrongly, and what ours says of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scanner.checks.base import ImageSubject
from scanner.checks.image.add_instead_of_copy import AddInsteadOfCopy
from scanner.checks.image.dist_upgrade import DistUpgrade
from scanner.checks.image.latest_tag import LatestTag
from scanner.checks.image.lone_update import LoneUpdate
from scanner.checks.image.package_cache import PackageCache
from scanner.checks.image.sudo import Sudo
from scanner.checks.image.unpinned_base import UnpinnedBase
from scanner.model.finding import Failed, Incomplete, Passed
from scanner.model.lineage import BaseImage
from tests.scanner.checks.factory import built_by, entry, layer, subject, without_history

LISTS = "var/lib/apt/lists/mirror.example.com_debian_dists_bookworm_main_binary-amd64_Packages"
ROOT = layer(contents={"etc/os-release": b"ID=debian\n", "etc/passwd": b"root:x:0:0::/:/bin/sh\n"})


def lines(image: ImageSubject) -> Sequence[str]:
    return [line.created_by for line in image.image.config.history]


def theirs_lone_update(image: ImageSubject) -> bool:
    """A line with ``apt-get update`` whose ``&&`` chain has no install or upgrade after it."""
    for line in lines(image):
        parts = line.split("&&")
        for number, part in enumerate(parts):
            if "apt-get update" in part or "apt update" in part:
                return not any(" install" in rest or " upgrade" in rest for rest in parts[number + 1 :])
    return False


def theirs_add(image: ImageSubject) -> bool:
    """ADD anywhere but in the line of the lowest index, which is taken for the base's."""
    adds = [
        number for number, line in enumerate(lines(image)) if "ADD " in line and (" in " in line or "buildkit" in line)
    ]
    return len(adds) > 1


def theirs_apt_cache(image: ImageSubject) -> bool:
    """An apt install whose line has no ``rm -rf /var/lib/apt/lists``."""
    return any("apt-get install" in line and "rm -rf /var/lib/apt/lists" not in line for line in lines(image))


def theirs_word(image: ImageSubject, word: str) -> bool:
    return any(word in line.split() for line in lines(image))


@pytest.mark.parametrize(
    "script",
    [
        "set -eux; apt-get update; apt-get install -y curl",
        "apt-get update\napt-get install -y curl",
        "bash <<EOF\napt-get update\napt-get install -y curl\nEOF",
    ],
)
def test_chains_of_semicolons_lines_and_here_documents_are_no_lone_update(script: str) -> None:
    image = built_by(f"RUN /bin/sh -c {script} # buildkit")
    assert theirs_lone_update(image), "they raise a false alarm"
    assert isinstance(LoneUpdate().examine(image), Passed)


def test_an_install_before_a_semicolon_does_not_excuse_an_update_after_it() -> None:
    image = built_by(
        "RUN /bin/sh -c apt-get update && apt-get install -y a; apt-get update # buildkit", "RUN /bin/sh -c apk update"
    )
    assert not theirs_lone_update(image), "they see nothing"
    outcome = LoneUpdate().examine(image)
    assert isinstance(outcome, Failed)
    assert [e.history_index for e in outcome.evidence] == [1, 2]


def test_the_first_add_is_excused_only_where_it_brought_a_root_file_system() -> None:
    image = subject(ROOT, layer(entry("app/app.jar")), history=["COPY / / # buildkit", "ADD app.jar /app/ # buildkit"])
    assert not theirs_add(image), "they see nothing"
    assert isinstance(AddInsteadOfCopy().examine(image), Failed)


def test_a_base_of_two_archives_is_still_a_base() -> None:
    history = ["/bin/sh -c #(nop) ADD file:01 in / ", "/bin/sh -c #(nop) ADD file:02 in / "]
    image = subject(ROOT, layer(contents={"etc/os-release": b"ID=debian\nVERSION_ID=12\n"}), history=history)
    assert theirs_add(image), "they raise a false alarm"
    assert isinstance(AddInsteadOfCopy().examine(image), Passed)


@pytest.mark.parametrize("check", [LoneUpdate(), AddInsteadOfCopy(), DistUpgrade(), Sudo()], ids=lambda check: check.id)
def test_an_image_without_history_has_not_passed(check: LoneUpdate) -> None:
    image = without_history()
    assert not (theirs_lone_update(image) or theirs_add(image) or theirs_word(image, "sudo")), "they pass it"
    assert isinstance(check.examine(image), Incomplete)


def test_a_cache_mount_left_nothing_behind() -> None:
    image = built_by("RUN /bin/sh -c apt-get update && apt-get install -y curl # buildkit")
    assert theirs_apt_cache(image), "they raise a false alarm"
    assert isinstance(PackageCache().examine(image), Passed)


def test_what_is_cleaned_away_later_or_elsewhere_is_still_pulled() -> None:
    # The line says that it cleans; whatever came after it fetched the lists again.
    cleans = "RUN /bin/sh -c apt-get install -y curl && rm -rf /var/lib/apt/lists/* && apt-get update # buildkit"
    history = [cleans, "RUN /bin/sh -c rm -rf /var/lib/apt/lists/* # buildkit"]
    image = subject(layer(entry(LISTS, size=40_000_000)), layer(whiteouts=[LISTS]), history=history)
    assert not theirs_apt_cache(image), "they see nothing"
    outcome = PackageCache().examine(image)
    assert isinstance(outcome, Failed)
    assert "the image still contains them" in outcome.evidence[0].message


def test_a_word_is_not_a_command() -> None:
    image = built_by("RUN /bin/sh -c echo sudo is not installed # buildkit")
    assert theirs_word(image, "sudo"), "they raise a false alarm"
    assert isinstance(Sudo().examine(image), Passed)
    hidden = built_by("RUN /bin/sh -c bash -c 'sudo id' # buildkit")
    assert not theirs_word(hidden, "sudo"), "they see nothing"
    assert isinstance(Sudo().examine(hidden), Failed)


def test_latest_below_a_good_tag() -> None:
    """They look at the tag of the image alone."""
    image = replace(
        subject(reference="registry.example.com/shop/app:1.4.2"), base=BaseImage("annotations", "debian:latest")
    )
    assert isinstance(LatestTag().examine(image), Passed)
    assert isinstance(UnpinnedBase().examine(image), Failed)
