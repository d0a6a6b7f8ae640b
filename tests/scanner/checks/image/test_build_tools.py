from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.build_tools import BuildTools
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("path", "tool"),
    [
        ("usr/bin/gcc-12", "gcc"),
        ("usr/bin/x86_64-linux-gnu-g++-12", "g++"),
        ("usr/local/go/bin/go", "go"),
        ("usr/bin/make", "make"),
        ("usr/local/cargo/bin/rustc", "rustc"),
        ("usr/lib/jvm/java-17/bin/javac", "javac"),
        ("usr/bin/ld", "ld"),
    ],
)
def test_a_build_tool(path: str, tool: str) -> None:
    outcome = BuildTools().examine(subject(layer(entry("x")), layer(entry(path, mode=0o755))))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].name, outcome.evidence[0].layer_index, outcome.severity) == (tool, 1, None)


def test_a_package_manager_alone_is_worth_less() -> None:
    image = subject(
        layer(
            entry("usr/bin/apt-get", mode=0o755),
            entry("usr/local/bin/npm", kind=FileType.SYMLINK, mode=0o777, link="../x"),
        )
    )
    outcome = BuildTools().examine(image)
    assert isinstance(outcome, Failed)
    assert outcome.severity is Severity.LOW
    assert isinstance(BuildTools().examine(replace(image, parameters={"allow": ("apt-get", "npm")})), Passed)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("usr/share/doc/gcc", 0o755),
        ("usr/bin/gcc", 0o644),
        ("srv/app/bin/makefile", 0o755),
        ("usr/bin/goaccess", 0o755),
        ("srv/node_modules/.bin/tsc", 0o755),
        ("usr/bin/asciidoc", 0o755),
    ],
)
def test_other_files(path: str, mode: int) -> None:
    assert isinstance(BuildTools().examine(subject(layer(entry(path, mode=mode)))), Passed)


def test_one_that_was_removed_is_gone() -> None:
    assert isinstance(
        BuildTools().examine(subject(layer(entry("usr/bin/gcc", mode=0o755)), layer(whiteouts=["usr/bin/gcc"]))), Passed
    )


def test_without_files_it_is_not_known() -> None:
    assert isinstance(BuildTools().examine(unreadable()), Incomplete)
