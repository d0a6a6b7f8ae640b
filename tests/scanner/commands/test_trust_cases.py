"""``dockwarden trust verify`` on every sample case of cosign and Notation: the verdict, its exit code, and never a
traceback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scanner.cli import cli
from scanner.config import Settings
from scanner.errors import UsageError
from tests.scanner.trust.trees import Files, cases, serving
from tests.test_end_to_end import dockwarden

CASES = [("cosign", case) for case in cases("cases_cosign.json")] + [
    ("notation", case) for case in cases("cases_notation.json")
]
EXITS = {"verified": 0, "refused": 1, "unknown": 3}


def command(scheme: str, case: dict[str, Any], host: str, trust: Path) -> list[str]:
    reference = f"{host}/{case['repo']}{'@' if case['ref'].startswith('sha256:') else ':'}{case['ref']}"
    trust.write_text(json.dumps(case["policy"]))
    return [
        "trust",
        "verify",
        reference,
        "--scheme",
        scheme,
        "--trust",
        str(trust),
        "--at",
        case["time"],
        "--insecure-registry",
        host,
        "--format",
        "json",
    ]


def check(case: dict[str, Any], code: int, output: str) -> None:
    answer = json.loads(output)
    assert code == EXITS[answer["status"]]
    if "digest" in case["expect"]:
        assert (answer["status"], answer["digest"]) == ("verified", case["expect"]["digest"])
    else:
        assert answer["reason"] in case["expect"]["error"]
        assert answer["status"] == ("unknown" if answer["reason"] == "unavailable" else "refused")


@pytest.mark.parametrize(("scheme", "case"), CASES, ids=[f"{scheme}-{case['id']}" for scheme, case in CASES])
def test_sample_cases(scheme: str, case: dict[str, Any], tmp_path: Path) -> None:
    faults = {path: fault["status"] for path, fault in case.get("http", {}).items()}
    with serving(Files.of_tree(case["tree"]), faults) as client:
        arguments = command(scheme, case, client.host, tmp_path / "trust.json")
        done = CliRunner(env={"DOCKWARDEN_HOME": str(tmp_path)}).invoke(cli, arguments, standalone_mode=False)
    check(case, done.return_value, done.stdout)


def test_a_sample_in_a_process_of_its_own(tmp_path: Path) -> None:
    scheme, case = CASES[0]
    with serving(Files.of_tree(case["tree"])) as client:
        done = dockwarden(Settings(home=tmp_path), *command(scheme, case, client.host, tmp_path / "trust.json"))
    check(case, done.returncode, done.stdout)


CONTRADICTIONS = {
    "no issuer": ("cosign", {"identities": [{"subject": "a@example.com"}]}, "exactly one of issuer"),
    "nobody": ("cosign", {"threshold": 2}, "names no signer"),
    "no organisation": (
        "notation",
        {
            "trustpolicy": {
                "version": "1.0",
                "trustPolicies": [
                    {
                        "name": "p",
                        "registryScopes": ["*"],
                        "signatureVerification": {"level": "strict"},
                        "trustStores": ["ca:acme"],
                        "trustedIdentities": ["x509.subject: C=US, ST=WA"],
                    }
                ],
            }
        },
        "lacks O",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_by_trust_that_contradicts_itself_nothing_is_accepted(name: str, tmp_path: Path) -> None:
    scheme, policy, words = CONTRADICTIONS[name]
    case = {**CASES[0][1], "policy": policy}
    with serving(Files.of_tree(case["tree"])) as client:
        arguments = command(scheme, case, client.host, tmp_path / "trust.json")
        done = CliRunner(env={"DOCKWARDEN_HOME": str(tmp_path)}).invoke(cli, arguments, standalone_mode=False)
    answer = json.loads(done.stdout)
    assert (done.return_value, answer["status"], answer["reason"]) == (1, "refused", "policy")
    assert words in answer["detail"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    arguments = ["trust", "verify", "registry.example/a:1", "--scheme", "cosign", "--trust", "nothing.pub"]
    done = dockwarden(Settings(home=tmp_path), *arguments)
    assert done.returncode == 2
    assert "'nothing.pub' is neither a trust document nor a file" in done.stderr


MISTAKES = {
    "a typo": ("cosign", '{"key": {}}', "trust.json: key: unknown field"),
    "no key": ("cosign", '{"keys": {"a": "no PEM"}}', "trust.json: keys.a: not a PEM public key"),
    "no list": ("cosign", '{"keys": {}, "identities": 7}', "trust.json: identities:"),
    "no document": ("notation", "just words", "trust.json: 'just words' is neither a trust document"),
    "a list": ("cosign", "[1, 2]", "trust.json: not a trust document"),
    "no YAML": ("notation", "a: [", "trust.json: line"),
    "an alias": ("notation", "a: &x 1\nb: *x\n", "trust.json: YAML aliases are not allowed"),
    "no policy": ("notation", "stores: {}", "trust.json: trustpolicy: "),
    "an unknown level": (
        "notation",
        json.dumps(
            {
                "trustpolicy": {
                    "version": "1.0",
                    "trustPolicies": [
                        {"name": "p", "registryScopes": ["*"], "signatureVerification": {"level": "mild"}}
                    ],
                }
            }
        ),
        "signatureVerification.level",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_document_is_one_line(name: str, tmp_path: Path) -> None:
    scheme, text, words = MISTAKES[name]
    file = tmp_path / "trust.json"
    file.write_text(text)
    arguments = ["trust", "verify", "registry.example/a:1", "--scheme", scheme, "--trust", str(file)]
    done = CliRunner(env={"DOCKWARDEN_HOME": str(tmp_path)}).invoke(cli, arguments, standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)
