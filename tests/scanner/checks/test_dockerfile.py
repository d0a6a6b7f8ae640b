"""A Dockerfile is read as BuildKit reads it: stages, variables, heredocs, continued lines."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.checks._dockerfile import Build, instructions, read
from scanner.errors import UsageError


def build(text: str) -> Build:
    return read(text, "Dockerfile")


def runs(text: str) -> list[str]:
    return [entry.created_by.removesuffix(" # buildkit") for entry in build(text).image.config.history]


def test_the_last_stage_is_read_with_what_it_is_built_on() -> None:
    found = build(
        "ARG TAG=12\n"
        "FROM debian:${TAG} AS base\nUSER app\nENV A=1\n"
        "FROM golang AS build\nENV SECRET=x\n"
        "FROM base\nENV B=$A-${C:-3}\nEXPOSE 80 53/udp\nLABEL a=b c='d e'\n"
    )
    config = found.image.config
    assert (found.base, found.line) == ("debian:12", 7)
    assert (config.user, config.env) == ("app", (("A", "1"), ("B", "1-3")))
    assert config.exposed_ports == ("80/tcp", "53/udp")
    assert config.labels == (("a", "b"), ("c", "d e"))
    assert found.lines == (3, 4, 8, 9, 10)


def test_lines_are_continued_over_comments_and_empty_lines() -> None:
    found = list(instructions("\n# c\nRUN a \\\n  # comment\n\n  && b\nuser x\n", "Dockerfile"))
    assert [(one.line, one.name, re.sub(r"\s+", " ", one.value)) for one in found] == [
        (3, "RUN", "a && b"),
        (7, "USER", "x"),
    ]


def test_the_escape_character_of_windows() -> None:
    text = "# escape=`\nFROM x\nRUN dir C:\\ `\n  && b\n"
    assert [one.name for one in instructions(text, "Dockerfile")] == ["FROM", "RUN"]


@pytest.mark.parametrize(
    ("run", "created"),
    [
        ("RUN curl x | sh", "RUN /bin/sh -c curl x | sh"),
        ('RUN ["/bin/a", "b c"]', "RUN /bin/a 'b c'"),
        ('SHELL ["/bin/bash", "-ec"]\nRUN a', "RUN /bin/bash -ec a"),
        ("RUN <<EOF\nUSER root\ncurl x | sh\nEOF", "RUN /bin/sh -c USER root\ncurl x | sh\n"),
        ("RUN <<-'END'\n\ta\n\tEND", "RUN /bin/sh -c \ta\n"),
        ("RUN <<EOF\n#!/bin/bash\na\nEOF", "RUN /bin/sh -c #!/bin/bash\na\n"),
        ("RUN <<EOF\n#!/usr/bin/env python3\na\nEOF", "RUN /dev/pipes/EOF"),
        ("RUN cat <<A > x\n1\nA", "RUN /bin/sh -c cat <<A > x\n1\nA"),
        ("RUN --mount=type=cache,target=/x a", "RUN /bin/sh -c a"),
    ],
)
def test_scripts_are_as_in_a_history(run: str, created: str) -> None:
    assert runs(f"FROM x\n{run}\n")[-1] == created


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HEALTHCHECK NONE", ("NONE",)),
        ("HEALTHCHECK --interval=5s CMD curl x", ("CMD-SHELL", "curl x")),
        ('HEALTHCHECK CMD ["a", "b"]', ("CMD", "a", "b")),
    ],
)
def test_healthchecks(text: str, expected: tuple[str, ...]) -> None:
    found = build(f"FROM x\n{text}\n").image.config.healthcheck
    assert found is not None and found.test == expected


def test_an_entrypoint_resets_the_command_and_a_shell_starts_a_text() -> None:
    config = build('FROM x\nCMD ["a"]\nENTRYPOINT run it\nCMD ["b"]\n').image.config
    assert (config.entrypoint, config.cmd) == (("/bin/sh", "-c", "run it"), ("b",))


def test_a_variable_without_a_value_is_not_empty() -> None:
    assert build("FROM x\nARG U\nUSER $U\n").image.config.user == "$U"
    assert build("ARG U=7\nFROM x\nARG U\nUSER $U\n").image.config.user == "7"
    assert build("FROM x\nENV PATH=/app:$PATH\n").image.config.env[0][1].startswith("/app:/usr/local/sbin:")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "Dockerfile", "no FROM"),
        ("RUN a\n", "Dockerfile:1", "FROM"),
        ("FROM x\nRUM a\n", "Dockerfile:2", "unknown instruction 'RUM'"),
        ("FROM x\n\nRUN <<EOF\na\n", "Dockerfile:3", "EOF does not end"),
        ("FROM x\nENV A='b\n", "Dockerfile:2", "quotation mark"),
        ("FROM x\nSHELL bash\n", "Dockerfile:2", "JSON list"),
        ("FROM\n", "Dockerfile:1", "not an image"),
        ("FROM x\n" + "#\n" * 30_000, "Dockerfile", "lines"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, where: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(text)
    assert str(refused.value).startswith(f"{where}:")
    assert what in str(refused.value)


def test_variables_that_double_each_other_stay_small() -> None:
    lines = "".join(f"ENV A{n}=$A{n - 1}$A{n - 1}\n" for n in range(1, 60))
    config = build(f"FROM x\nENV A0=xx\n{lines}").image.config
    assert max(len(value) for _, value in config.env) <= 20_000


PIECES = st.sampled_from(
    ["FROM x", "FROM x AS a", "FROM a", "RUN <<E", "E", "ENV A=$A", "\\", "USER ${A:-b}", "#", "SHELL []"]
)


@given(st.lists(PIECES | st.text(max_size=30), max_size=12).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert len(build(text).lines) <= text.count("\n") + 1
