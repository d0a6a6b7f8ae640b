"""The command line as a person uses it: exit codes, one-line errors, no traceback for a mistake."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scanner import cli
from scanner.config import Settings
from scanner.policy.starting_points import NAMES
from tests.servers import Registry, need
from tests.test_end_to_end import dockwarden

POLICY = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: x}\nrules:\n  - {id: a, check: %s, action: deny}\n"


@pytest.mark.parametrize(
    ("sample", "code", "words"),
    [
        ("good", 0, "✓ ALLOW"),
        ("aging", 0, "▲ WARN"),
        ("vulnerable", 1, "✕ DENY"),
        ("root-with-secret", 1, "embedded-secrets"),
        ("mystery", 3, "could not be decided"),
    ],
)
def test_verdicts_and_exit_codes(settings: Settings, sample_layouts: Path, sample: str, code: int, words: str) -> None:
    done = dockwarden(settings, "scan", f"oci:{sample_layouts / 'shop' / sample}")
    assert done.returncode == code, done.stderr
    assert words in done.stdout
    assert "\x1b" not in done.stdout, "no colour but on a terminal"
    assert "examine" in done.stderr


def test_json_goes_to_a_file_whole(settings: Settings, sample_layouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = dockwarden(settings, "scan", f"oci:{sample_layouts / 'shop/good'}", "--format", "json", "-o", str(out))
    assert done.stdout == ""
    document = json.loads(out.read_text())
    assert document["schema"] == "dockwarden/report/1"
    assert document["verdict"] == "allow"
    assert document["report"]["images"][0]["engines"][0]["binary"].startswith("sha256:")


def test_without_advisories_nothing_is_known(tmp_path: Path, sample_layouts: Path) -> None:
    done = dockwarden(Settings(home=tmp_path / "empty"), "scan", f"oci:{sample_layouts / 'shop/good'}")
    assert done.returncode == 3
    assert "there is no advisory database" in done.stdout


def bad_inputs(tmp: Path, layouts: Path) -> dict[str, tuple[list[str], int, str]]:
    text, truncated, policy = tmp / "text.tar", tmp / "truncated.tar", tmp / "policy.yaml"
    text.write_text("this is no archive\n" * 100)
    truncated.write_bytes(b"")
    policy.write_text(POLICY % "rot-user")
    broken = tmp / "broken"
    return {
        "unknown host": (["scan", "registry.invalid/a:1"], 3, "unknown host"),
        "no archive": (["scan", f"archive:{text}"], 2, "is not a tar archive"),
        "empty archive": (["scan", f"archive:{truncated}"], 2, "is empty or not a tar archive"),
        "missing file": (["scan", f"archive:{tmp}/nothing.tar"], 2, "cannot read"),
        "missing directory": (["scan", f"oci:{broken}"], 2, "there is no directory"),
        "no layout": (["scan", f"oci:{tmp}"], 2, "is not an OCI image layout"),
        "unknown tag": (["scan", f"oci:{layouts / 'shop/good'}:9.9"], 2, "has no image '9.9'"),
        "a path": (["scan", "./image.tar"], 2, "is a path, not a reference"),
        "no reference": (["scan", "UPPER/CASE!"], 2, "not a"),
        "typo in a policy": (["policy", "check", str(policy)], 2, "line 5, column"),
        "unknown format": (
            ["scan", f"oci:{layouts / 'shop/good'}", "--format", "pdf"],
            2,
            "there is no report format 'pdf'",
        ),
        "unknown engine": (
            ["scan", f"oci:{layouts / 'shop/good'}", "--engine", "nmap"],
            2,
            "there is no engine 'nmap'",
        ),
        "platform": (["scan", f"oci:{layouts / 'shop/good'}", "--platform", "nonsense"], 2, "not a platform"),
        "no command": (["scam"], 2, "hint: dockwarden scan"),
        "nothing": ([], 2, "\n  scan "),
        "a group alone": (["trust", "root"], 2, "\n  add "),
        "gate without a server": (
            ["gate", "a/b:1", "--server", "http://127.0.0.1:9", "--wait", "1"],
            3,
            "cannot reach",
        ),
        "token over plain http": (
            ["gate", "a/b:1", "--server", "http://gate.example.com", "--token", "dw_x"],
            2,
            "a token is not sent",
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "unknown host",
        "no archive",
        "empty archive",
        "missing file",
        "missing directory",
        "no layout",
        "unknown tag",
        "a path",
        "no reference",
        "typo in a policy",
        "unknown format",
        "unknown engine",
        "platform",
        "no command",
        "nothing",
        "a group alone",
        "gate without a server",
        "token over plain http",
    ],
)
def test_a_mistake_is_one_line_and_a_hint(settings: Settings, sample_layouts: Path, tmp_path: Path, name: str) -> None:
    arguments, code, words = bad_inputs(tmp_path, sample_layouts)[name]
    done = dockwarden(settings, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("scna image", "dockwarden scan"),
        ("audti", "dockwarden audit"),
        ("policy simulat file", "dockwarden policy simulate"),
        ("policy dry-run file", "dockwarden policy simulate"),
        ("trust root ls", "dockwarden trust root list"),
        ("webhook rm", "dockwarden webhook remove"),
        ("registry xyzzy", "dockwarden registry --help"),
        ("alpine:3", "to scan an image: dockwarden scan alpine:3"),
        ("policy production.yaml", "dockwarden policy --help"),
        ("policy init strict", "choose one of: baseline, production, pci-cis, signed-only"),
        ("audit missing.yaml", "write the path of a file, or SOURCE:FILE; the sources are compose, docker, ecs, "),
    ],
)
def test_a_typing_error_gets_the_nearest_command(arguments: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments.split())
    assert ended.value.code == 2
    assert f"  hint: {hint}" in capsys.readouterr().err


def test_a_policy_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        return int(str(ended.value.code)), *capsys.readouterr()

    code, listed, _ = run("policy", "init")
    assert (code, [line.split()[0] for line in listed.splitlines()]) == (0, list(NAMES))
    file = tmp_path / "policy.yaml"
    for name in NAMES:
        code, text, _ = run("policy", "init", name)
        assert code == 0
        file.write_text(text)
        assert run("policy", "check", str(file))[0] == 0, name
    code, _, message = run("policy", "init", "baseline", "-o", str(file))
    assert (code, "exists already" in message) == (2, True)
    assert run("policy", "init", "-o", str(file))[0] == 2, "the list does not replace it either"
    assert file.read_text() == text, "an edited policy is kept"
    new = tmp_path / "new.yaml"
    code, _, message = run("policy", "init", "baseline", "-o", str(new))
    assert (code, new.read_text()) == (0, run("policy", "init", "baseline")[1])
    assert f"dockwarden policy check {new}" in message


def test_a_truncated_archive(settings: Settings, sample_layouts: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.tar", tmp_path / "cut.tar"
    source = f"oci:{sample_layouts / 'shop/good'}:1.4.2"
    subprocess.run(
        [need("skopeo", "skopeo"), "copy", "--quiet", "--insecure-policy", source, f"oci-archive:{whole}"],
        check=True,
        capture_output=True,
    )
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = dockwarden(settings, "scan", f"archive:{cut}")
    assert done.returncode in (2, 3)
    assert done.stderr.startswith("dockwarden: ")
    assert "Traceback" not in done.stderr


def test_registry_mistakes(
    settings: Settings, registry: Registry, plain_registry: Registry, sample_layouts: Path
) -> None:
    registry.push(f"oci:{sample_layouts / 'shop/good'}:1.4.2", "mistakes/good:1")
    untrusted = dockwarden(settings, "scan", f"{registry.host}/mistakes/good:1")
    assert (
        untrusted.returncode,
        "certificate is not trusted" in untrusted.stderr,
        "--ca-file" in untrusted.stderr,
    ) == (3, True, True), untrusted.stderr
    assert registry.authority is not None
    ca = ["--ca-file", str(registry.authority.file)]
    refused = dockwarden(settings, "scan", f"{registry.host}/mistakes/good:1", *ca)
    assert (
        refused.returncode,
        "refused access without credentials" in refused.stderr,
        "docker login" in refused.stderr,
    ) == (3, True, True), refused.stderr
    plain = dockwarden(settings, "scan", f"{plain_registry.host}/nothing:1")
    assert (plain.returncode, "uses plain HTTP" in plain.stderr) == (3, True), plain.stderr
    missing = dockwarden(
        settings, "scan", f"{plain_registry.host}/nothing:1", "--insecure-registry", plain_registry.host
    )
    assert (missing.returncode, "has no" in missing.stderr) == (2, True), missing.stderr


def test_the_catalogue_and_its_page_agree(settings: Settings) -> None:
    shown = dockwarden(settings, "checks", "--format", "markdown").stdout
    assert shown == (Path(__file__).parents[3] / "docs" / "checks.md").read_text()


def test_policy_test_says_which_case_differs(settings: Settings, tmp_path: Path) -> None:
    policy, cases = tmp_path / "p.yaml", tmp_path / "c.yaml"
    policy.write_text(POLICY % "root-user")
    cases.write_text(
        "- {name: fine, expect: {verdict: allow}}\n- {name: wrong, checks: {root-user: failed}, expect: "
        "{verdict: allow}}\n"
    )
    done = dockwarden(settings, "policy", "test", str(policy), str(cases))
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["ok   fine", "FAIL wrong: verdict is deny, expected allow"]
    cases.write_text("- {name: fine, expekt: {verdict: allow}}\n")
    assert dockwarden(settings, "policy", "test", str(policy), str(cases)).returncode == 2
