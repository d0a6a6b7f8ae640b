"""A corrected fragment builds: a Dockerfile parser reads it, and a shell runs its RUN lines in their order."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from scanner.checks._hints import fragment
from tests.scanner.checks.factory import built_by
from tests.scanner.checks.test_hints import CHECKS, examined

# Package managers that remember what is there, and fail as the real ones do when their lists are missing.
MANAGER = """#!/bin/sh
state="$STATE"; name="${0##*/}"; [ "$name" = apt ] && name=apt-get
echo "$name $*" >> "$state/calls"
action=; for word in "$@"; do case "$word" in
  update|upgrade|install|add|clean) [ -z "$action" ] && action="$word" ;;
  --no-cache) touch "$state/$name.lists" ;;
esac; done
case "$action" in
  update) touch "$state/$name.lists" ;;
  install|add|upgrade)
    case "$name" in apt-get|apk)
      [ -e "$state/$name.lists" ] || { echo "E: Unable to locate package" >&2; exit 100; } ;;
    esac
    for word in "$@"; do case "$word" in
      -*|install|add|upgrade|clean) ;;
      *) echo "$word" >> "$state/installed" ;;
    esac; done
    case "$*" in *--no-cache*) rm -f "$state/$name.lists" ;; esac ;;
esac
"""
REMOVE = """#!/bin/sh
case "$*" in
  *"/var/lib/apt/lists"*) rm -f "$STATE/apt-get.lists" ;;
  *"/var/cache/apk"*) rm -f "$STATE/apk.lists" ;;
esac
"""
HISTORIES = {
    "update alone": (["apt-get update", "apt-get install -y a"], {"a"}),
    "one update for two installs": (["apt-get update && apt-get install -y a", "apt-get install -y b"], {"a", "b"}),
    "lists removed, then needed": (
        [
            "apt-get update && apt-get install -y a && rm -rf /var/lib/apt/lists/*",
            "apt-get update",
            "apt-get install b",
        ],
        {"a", "b"},
    ),
    "an update between other commands": (["set -e; apt-get update; apt-get install -y a; true"], {"a"}),
    "options before the action": (["apt-get -qq update", "apt-get -qq -y install a b"], {"a", "b"}),
    "many spaces": (["apt-get update   &&   apt-get install -y   a    b"], {"a", "b"}),
    "a comment between quotes": (["apt-get update && apt-get install -y a && echo '# done' \"it's #1\" a#b"], {"a"}),
    "a comment at the end": (["apt-get update && apt-get install -y a # for the build"], {"a"}),
    "in a subshell": (["(apt-get update && apt-get install -y a)", "apt-get install -y b"], {"a", "b"}),
    "only where it is missing": (["apt-get update", "if ! test -e /nowhere; then apt-get install -y a; fi"], {"a"}),
    "in the background": (["apt-get update && apt-get install -y a & wait"], {"a"}),
    "alternatives": (["apt-get update", "false || apt-get install -y a"], {"a"}),
    "Alpine": (["apk update", "apk add a", "apk add --no-cache b"], {"a", "b"}),
    "dnf": (["dnf install -y a", "microdnf install b"], {"a", "b"}),
}


def runs(lines: list[str]) -> list[str]:
    """The RUN lines of an image with this history, those that the fragment replaces or leaves out as it says. A
    Dockerfile parser reads it.
    """
    built = built_by(*(f"RUN /bin/sh -c {line}" for line in lines))
    text = fragment(examined(built, "lone-update", "recommended-packages", "package-cache"), CHECKS)
    parser = DockerfileParser(fileobj=io.BytesIO())
    parser.content = f"FROM debian\n{text}"
    items = [(item["instruction"], item["value"]) for item in parser.structure]
    assert {instruction for instruction, _ in items} <= {"FROM", "RUN", "COMMENT"}
    own = dict(enumerate(lines, 1))  # the first is of the base
    index = None
    for instruction, value in items:
        if instruction == "COMMENT" and (found := re.search(r"replaces history line ([0-9]+)$", value)):
            index = int(found[1])
            own.pop(index)
        elif instruction == "RUN":
            assert index is not None
            own[index] = value
    return [line for _, line in sorted(own.items())]


@pytest.fixture
def managers(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds these package managers."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apt-get", "apt", "apk", "dnf", "microdnf", "yum"):
        (programs / name).write_text(MANAGER)
    state = f"{shutil.which('rm')} -f"
    (programs / "rm").write_text(REMOVE.replace("rm -f", state))
    for file in programs.iterdir():
        file.write_text(file.read_text().replace('rm -f "$state', f'{state} "$state'))
        file.chmod(0o755)
    (tmp_path / "state").mkdir()
    return {"PATH": f"{programs}:{os.environ['PATH']}", "STATE": str(tmp_path / "state")}


@pytest.mark.parametrize(("lines", "wanted"), HISTORIES.values(), ids=HISTORIES.keys())
def test_the_packages_are_installed_in_the_end(lines: list[str], wanted: set[str], managers: dict[str, str]) -> None:
    for line in runs(lines):
        done = subprocess.run(["sh", "-c", line], env=managers, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr, runs(lines))
    state = Path(managers["STATE"])
    assert set((state / "installed").read_text().split()) == wanted
    assert not (state / "apt-get.lists").exists(), "the package lists stay in the image"


@pytest.mark.long
def test_apt_itself_builds_it(tmp_path: Path) -> None:
    """In an overlay of this machine's own system, whose changes are thrown away."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, apt-get and unshare: run it on Debian or Ubuntu as root")
    lines = runs(["apt-get update && apt-get install -y hello", "apt-get install -y sl # a train"])
    script = tmp_path / "build"
    mount = 'mount -t tmpfs t "$1" && mkdir "$1/up" "$1/work" "$1/root" && mount -t overlay o -o '
    mount += '"lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root" && '
    mount += 'mount -t proc p "$1/root/proc" && mount --rbind /dev "$1/root/dev"'
    inside = "\n".join(["set -e", "rm -rf /var/lib/apt/lists/*", *(f"sh -c {shlex.quote(line)}" for line in lines)])
    script.write_text(f"{inside}\n/usr/games/sl --help || test -x /usr/games/sl\nhello\nls /var/lib/apt/lists\n")
    place = tmp_path / "overlay"
    place.mkdir()
    outside = f'{mount} && cp "$2" "$1/root/build" && chroot "$1/root" sh /build'
    command = ["unshare", "-m", "sh", "-c", outside, "sh", str(place), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "Temporary failure resolving" in done.stderr:
        pytest.skip("needs a package mirror: connect to the internet")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.endswith("Hello, world!\n"), "the package lists stay"
