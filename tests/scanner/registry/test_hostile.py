"""Every hostile image: refused for the right reason, remarked upon, or nothing in it is hidden from us."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "data/hostile"
EXPECTED = json.loads((DATA / "images.json").read_text("utf-8"))
CASES = [pytest.param(case, id=f"{case['id']}-{Path(case['file']).name.split('.')[0]}") for case in EXPECTED["cases"]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process under hard limits on memory and time makes of each."""
    work = tmp_path_factory.mktemp("hostile")
    archives = [str(DATA / case["file"]) for case in EXPECTED["cases"]]
    root = DATA.parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.scanner.registry.hostile_reader", *archives],
        cwd=work,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(work)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [path for path in work.rglob("*") if EXPECTED["canary"] in path.name]
    return {
        case["id"]: json.loads(line) for case, line in zip(EXPECTED["cases"], done.stdout.splitlines(), strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_expected_outcome(case: dict[str, Any], read: dict[str, dict[str, Any]]) -> None:
    found = read[case["id"]]
    if case["outcome"] == "REJECTED":
        assert found["refused"] in case["reasons"]
    elif case["outcome"] == "SCANNED":
        assert (found["refused"], found["concerns"]) == ("", [])
        assert _packages(case["must_find"]) <= set(found["packages"].split("\n"))
    elif found["refused"]:
        assert found["refused"] in case["reasons"]
    elif not found["concerns"]:
        hidden = _packages(case["facts_if_scanned"])
        assert hidden, "nothing may look empty without a remark"
        assert hidden <= set(found["packages"].split("\n"))


@pytest.mark.parametrize("case", CASES)
def test_messages_are_safe_to_show(case: dict[str, Any], read: dict[str, dict[str, Any]]) -> None:
    message = read[case["id"]].get("message", "")
    assert message.isprintable()
    assert len(message) < 500
    assert "root:" not in message, "no file of the host is quoted"


@pytest.mark.parametrize("case", CASES)
def test_no_check_breaks_on_it(case: dict[str, Any], read: dict[str, dict[str, Any]]) -> None:
    assert read[case["id"]].get("broken", []) == []


def _packages(facts: list[str]) -> set[str]:
    """``pkg:openssl@1.1.1c-r0`` as apk's database writes it, one line for each."""
    named = [fact.removeprefix("pkg:").partition("@") for fact in facts if fact.startswith("pkg:")]
    return {f"P:{name}" for name, _, _ in named} | {f"V:{version}" for _, _, version in named}
