"""Build history as builders write it, and as an attacker would."""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.checks._history import Command, Instruction, history, read_history
from scanner.model.finding import Failed, Incomplete, Passed
from scanner.model.image import HistoryEntry
from tests.scanner.checks.factory import built_by, entry, layer, subject, without_history


def run(line: str) -> Instruction:
    return history(built_by(line)).instructions[1]


def names(line: str) -> list[str]:
    return [str(command) for command in run(line).commands]


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh -c apt-get update",
        "RUN /bin/sh -c apt-get update # buildkit",
        "RUN |2 VERSION=1 MESSAGE=two words /bin/sh -c apt-get update # buildkit",
        "|1 VERSION=/usr/bin /bin/sh -c apt-get update",
        "RUN /bin/bash -o pipefail -c apt-get update # buildkit",
        "RUN /bin/bash -euxo pipefail -c apt-get update # buildkit",
        "RUN /usr/bin/zsh -c apt-get update # buildkit",
        "RUN apt-get update # buildkit",
        "RUN apt-get update",
        "RUN --mount=type=cache,target=/var/cache/apt apt-get update",
        "RUN /bin/sh -c sudo -E env A=b timeout 9 nice -n 5 apt-get update",
    ],
)
def test_every_builder_says_run_in_its_own_way(line: str) -> None:
    assert run(line).name == "RUN"
    assert names(line) == ["apt-get update"]


@pytest.mark.parametrize(
    ("line", "name", "text"),
    [
        ('/bin/sh -c #(nop)  CMD ["bash"]', "CMD", '["bash"]'),
        ("/bin/sh -c #(nop) COPY dir:0123 in /app ", "COPY", "dir:0123 in /app"),
        ("|1 A=b /bin/sh -c #(nop) USER 0", "USER", "0"),
        ("/bin/bash -c #(nop) EXPOSE 22", "EXPOSE", "22"),
        ("COPY . /app # buildkit", "COPY", ". /app"),
        ("ADD https://example.com/x /x # buildkit", "ADD", "https://example.com/x /x"),
        (
            "# debian.sh --arch 'amd64' out/ 'bookworm' '@1700000000'",
            "IMPORT",
            "# debian.sh --arch 'amd64' out/ 'bookworm' '@1700000000'",
        ),
        ("bazel build //app", "IMPORT", "bazel build //app"),
        ("sleep 1000", "", "sleep 1000"),
        ('CMD ["/opt/venv/bin/gunicorn" "app:app"]', "CMD", '["/opt/venv/bin/gunicorn" "app:app"]'),
        ("CMD /start.sh", "CMD", "/start.sh"),
    ],
)
def test_instructions(line: str, name: str, text: str) -> None:
    found = run(line)
    assert (found.name, found.text) == (name, text)


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("a && b; c || d & e", ["a", "b", "c", "d", "e"]),
        ("a\nb", ["a", "b"]),
        ("if a; then b; else c; fi; for x in 1 2; do d; done; case $x in y) e;; esac", ["a", "b", "c", "d", "e"]),
        ("f() { a; }; ( b ); { c; }; ! d", ["a", "b", "c", "d"]),
        ("a \\\n  b # comment\nc", ["a b", "c"]),
        ("set -e; sh -c 'a && b'", ["set -e", "sh -c a && b", "a", "b"]),
        ('su - app -c "a b"', ["su - app -c a b", "a b"]),
        ("cat <<EOF > /x\na\nEOF\nb", ["cat", "b"]),
        ("bash <<EOF\na\nb\nEOF\nc", ["bash", "a", "b", "c"]),
        ("cat <<EOF | sh\na\nEOF", ["cat", "sh", "a"]),
        ('a "b c" \'d e\' f\\ g h"i j"k', ["a b c d e f g hi jk"]),
        ("X=$(a | b) c", ["a", "b", "c"]),
        ("X=1", []),
    ],
)
def test_scripts(script: str, commands: list[str]) -> None:
    found = run(f"RUN /bin/sh -c {script} # buildkit")
    assert [str(c) for c in found.commands] == commands
    assert not found.gap


def test_what_a_command_reads() -> None:
    *_, shell = run('RUN /bin/sh -c A="$(x)"; curl u | tee f | sudo bash -s -- "$(id)"').commands
    assert (shell.name, shell.wrappers) == ("bash", ("sudo",))
    assert [c.name for c in shell.stdin] == ["tee"]
    assert [c.name for c in shell.stdin[0].stdin] == ["curl"]
    assert [c.name for c in shell.substituted] == ["id"]


def test_options_and_operands() -> None:
    command = Command(("apt-get", "-qy", "--no-install-recommends", "-o=x", "install", "-", "b"))
    assert command.has("-y", "--yes") and command.has("--no-install-recommends") and not command.has("-f")
    assert command.operands == ("install", "-", "b")
    assert command.verb == "install"


@pytest.mark.parametrize(
    ("line", "gap"),
    [
        ("RUN powershell -Command Invoke-WebRequest", "powershell"),
        ("cmd /S /C del x", "runs cmd"),
        ("RUN /bin/sh -c if a; then (", "not completely valid"),
        ("RUN /bin/sh -c a \x00 b", "control"),
        ("RUN /bin/sh -c " + "a && " * 5000, "longer than the limit"),
        ("RUN /bin/sh -c " + "( " * 500 + "a" + " )" * 500, "nested too deep"),
        ("sleep 1000", "not a Dockerfile instruction"),
    ],
)
def test_what_is_not_understood_is_said(line: str, gap: str) -> None:
    subject = built_by(line)
    assert gap in run(line).gap
    outcome = history(subject).outcome([])
    assert isinstance(outcome, Incomplete)
    assert outcome.reason in ("history_not_understood", "history_absent")


def test_without_history_nothing_is_known() -> None:
    outcome = history(without_history()).outcome([])
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == "history_absent"


def test_a_layer_that_no_line_speaks_of() -> None:
    image = built_by("RUN /bin/sh -c a")
    silent = read_history(type(image.image.config)(**{**_members(image), "history": image.image.config.history[:1]}))
    assert silent.gaps[0].reason == "history_absent"
    assert "layer 1" in silent.gaps[0].detail


def _members(image: object) -> dict[str, object]:
    config = image.image.config  # type: ignore[attr-defined]
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_a_find_counts_whatever_else_is_not_known() -> None:
    image = without_history()
    assert isinstance(history(image).outcome([image.evidence("found")]), Failed)
    assert isinstance(history(built_by("RUN /bin/sh -c a")).outcome([]), Passed)


HOSTILE = [
    "a|",
    "a=(",
    "${a",
    "$(",
    "`",
    '"',
    "<<A ",
    "<<A\n",
    "if a; then ",
    "case a in b) ",
    "[[ ",
    "$((",
    '"$(',
    "((",
    "a && ",
    "! ",
    "{ ",
    "<(",
    "a <",
    "'",
    "\\",
    ";;",
    "function f ",
    "do ",
    "~",
    "\n",
    "a=b ",
    "$'",
    "é",
    "for x in ",
    "|1 ",
    "RUN ",
    "/bin/sh -c ",
    "a\\\n",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_lines_end(unit: str) -> None:
    """Each line is bounded by itself, because a grammar's slow cases grow with the square of what it is given."""
    line = ("RUN /bin/sh -c " + unit * (16_000 // len(unit)))[:16_300]
    found = read_history(subject(history=[line] * 3).image.config)
    assert all(len(one.commands) <= 2001 for one in found.instructions)


@pytest.mark.parametrize(
    "script",
    [
        f"for f in {'b' * 5000}; do echo {'$f' * 3000}; done",
        f"a={'b' * 1000}; g() {{ echo {'$a' * 500}; }}; {'g; ' * 20}",
        f"a={'b' * 1000}; for f in 1 2 3 4 5 6 7 8; do echo $f {'$a' * 1000}; done",
    ],
)
def test_variables_of_a_short_script_do_not_become_a_long_one(script: str) -> None:
    found = run(f"RUN /bin/sh -c {script}")
    assert sum(len(word) for command in found.commands for word in command.words) < 2 << 20
    assert found.gap in ("", "expands variables to too much text")


def test_a_large_function_that_is_called_again_and_again_is_not_understood() -> None:
    line = f"RUN /bin/sh -c g() {{ echo {'$a' * 1000}; }}; {'g; ' * 500}"
    assert run(line).gap == "calls functions too often"
    assert run(f"RUN /bin/sh -c g() {{ echo {'$a' * 100}; }}; {'g; ' * 50}").gap == ""


def test_a_long_history_is_bounded() -> None:
    config = subject().image.config
    many = tuple(HistoryEntry("RUN /bin/sh -c a; b; c", empty_layer=True) for _ in range(5000))
    found = read_history(type(config)(**{**_members(subject()), "history": many}))
    assert len(found.instructions) == 2000
    assert any(gap.reason == "limit_exceeded" for gap in found.gaps)


def test_evidence_of_a_hostile_history_is_bounded() -> None:
    """Every command is a find, and every find could quote the whole line it stands in."""
    lines = ["RUN /bin/sh -c " + ";".join(f"apt-get update {n}{m}" for m in range(700)) for n in range(8)]
    outcome = catalog.image_checks()["lone-update"].examine(subject(history=lines))
    assert isinstance(outcome, Failed)
    assert len(outcome.evidence) == 101
    assert "more, not listed" in outcome.evidence[-1].message
    assert all(len(e.instruction) <= 1002 and len(e.message) < 500 for e in outcome.evidence)
    long = subject(layer(entry("usr/bin/su", mode=0o4755)), history=["COPY " + "x" * 1_000_000 + " / # buildkit"])
    found = catalog.image_checks()["setuid-files"].examine(long)
    assert isinstance(found, Failed)
    assert len(found.evidence[0].instruction) <= 2002


def test_what_is_cut_shows_no_half_of_a_secret() -> None:
    token = "ghp_" + "a1B2" * 9
    image = built_by("RUN /bin/sh -c dnf distro-sync " + "x" * (1000 - len("RUN dnf distro-sync ") - 9) + f" {token} y")
    outcome = catalog.image_checks()["dist-upgrade"].examine(image)
    assert isinstance(outcome, Failed)
    assert "ghp_" not in outcome.evidence[0].instruction


SHELL_FORMS = [
    "/bin/bash --login -c",
    "/usr/bin/env bash -c",
    "conda run -n x bash -c",
    "conda run --no-capture-output -n x /bin/bash -eo pipefail -c",
    "/busybox/busybox sh -c",
    "/nix/store/abcdefghijklmnopqrstuvwxyz012345-bash-interactive-5.2p37/bin/bash -c",
    "/usr/bin/tini -s -- /bin/bash -c",
    "/usr/bin/env -S bash -eu -c",
    "/lib64/ld-linux-x86-64.so.2 /bin/bash -c",
]


@pytest.mark.parametrize("shell", SHELL_FORMS)
@pytest.mark.parametrize("form", ["RUN {} a | b # buildkit", "RUN |2 A=b c D=e {} a | b # buildkit", "{} a | b"])
def test_shells_that_SHELL_sets(shell: str, form: str) -> None:
    assert names(form.format(shell)) == ["a", "b"]
    assert not run(form.format(shell)).gap


@pytest.mark.parametrize(
    "line",
    [
        'RUN ["bash", "-c", "a | b"]',
        '/bin/sh -c ["bash", "-c", "a | b"]',
        "RUN bash -c 'a | b' && true",
        "RUN /bin/bash -c 'a | b'",
    ],
)
def test_a_script_that_is_quoted_is_read(line: str) -> None:
    assert {"a", "b"} <= set(names(line))


@pytest.mark.parametrize(
    ("lines", "shell"),
    [
        (["SHELL [/opt/x --run]", "RUN /opt/x --run a # buildkit"], ()),
        (["RUN /opt/x --run a # buildkit"], ("/opt/x", "--run")),
        (['SHELL ["python3", "-c"]', "RUN python3 -c import os # buildkit"], ()),
        (["RUN /opt/x --run a | b # buildkit"], ()),
        (["RUN C:\\Program Files\\pwsh.exe -Command a # buildkit"], ("C:\\Program Files\\pwsh.exe", "-Command")),
        (["RUN fish -c a # buildkit"], ()),
        (["RUN /bin/sh -c /dev/pipes/EOF # buildkit"], ()),
        (["RUN |1 A=b /bin/bash -eo pipefail -c /dev/pipes/SCRIPT # buildkit"], ()),
        (["RUN /dev/pipes/EOF # buildkit"], ()),
        (["RUN /bin/sh -c <<EOF"], ()),
    ],
)
def test_a_beginning_that_is_not_understood_passes_nothing(lines: list[str], shell: tuple[str, ...]) -> None:
    image = built_by(*lines, shell=shell)
    for name in ("remote-script", "lone-update", "dist-upgrade", "unverified-packages", "sudo", "recommended-packages"):
        outcome = catalog.image_checks()[name].examine(image)
        assert isinstance(outcome, Incomplete), name
        assert outcome.reason == "history_not_understood"


def test_a_shell_that_the_config_names_is_taken_off() -> None:
    image = built_by("RUN /opt/bin/bash -x -c a | b # buildkit", shell=("/opt/bin/bash", "-x", "-c"))
    assert [str(c) for c in history(image).instructions[1].commands] == ["a", "b"]


def test_an_instruction_behind_another_shell() -> None:
    found = run('/bin/bash -o pipefail -c #(nop)  CMD ["x"]')
    assert (found.name, found.text) == ("CMD", '["x"]')
