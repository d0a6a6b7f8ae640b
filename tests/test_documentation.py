"""The pages in ``docs``: their lists are those of the catalogue, and what they tell a reader to type exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from scanner.cli import cli
from scanner.config import Limits, Settings
from tests import documentation

PAGES = [documentation.DOCS.parent / "README.md", *sorted(documentation.DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", ["checks.md", *dict.fromkeys(page for page, _ in documentation.LISTS)])
def test_a_page_lists_what_there_is(page: str) -> None:
    there = (documentation.DOCS / page).read_text("utf-8")
    assert there == documentation.pages()[page], "write the lists anew: make docs"


def test_a_page_without_its_list_is_noticed() -> None:
    with pytest.raises(ValueError, match="one list of formats"):
        documentation.with_list("# Reports\n", "formats", "| a |")


def commands_of(text: str) -> Iterator[tuple[click.Command, list[str]]]:
    """Each ``dockwarden …`` of a page: the command, and the words after its name."""
    for found in re.finditer(r"(?:^|[\s`(|])dockwarden ([a-z][a-z-]*(?:[^\n`|]|\\\n)*)", text):
        line = found[1].replace("\\\n", " ").partition("  #")[0].partition(" >")[0]
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # prose with an apostrophe
            words = line.split()
        command: click.Command = cli
        while isinstance(command, click.Group) and words:
            inner = command.get_command(click.Context(command), words[0].rstrip(".,:;)"))
            if inner is None:
                break
            command, words = inner, words[1:]
        if command is not cli:
            yield command, words


def options_of(command: click.Command) -> set[str]:
    options = (each for each in command.params if isinstance(each, click.Option))
    return {name for each in options for name in (*each.opts, *each.secondary_opts)} | {"--help", "--debug"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_a_page_gives_them(page: Path) -> None:
    unknown = [
        f"{command.name} {option}"
        for command, words in commands_of(page.read_text("utf-8"))
        for option in (word.partition("=")[0].strip("[].,;:)") for word in words if word.startswith("--"))
        if option not in options_of(command)
    ]
    assert unknown == []


def test_an_option_that_is_gone_is_noticed() -> None:
    ((command, words),) = commands_of("Run `dockwarden trust root add NAME --colour red`.")
    assert command.name == "add"
    assert "--colour" in words
    assert "--colour" not in options_of(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_of_a_page_exist(page: Path) -> None:
    known = {f"DOCKWARDEN_{each.name.upper()}" for each in fields(Settings)}
    known |= {f"DOCKWARDEN_LIMIT_{each.name.upper()}" for each in fields(Limits)}
    known |= {f"DOCKWARDEN_{name}" for name in ("CONFIG", "TOKEN", "SERVER", "PASSWORD")}
    named = set(re.findall(r"DOCKWARDEN_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_*])", page.read_text("utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in headings}
            assert anchor in anchors, f"{target}#{anchor}"
