"""Notary v1 through the command line: every case, in one process, against a real server with TLS."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from scanner.cli import main
from scanner.errors import UsageError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.reference import Reference
from scanner.trust._state import DirectoryState, NoState
from scanner.trust._tuf.documents import key_id
from scanner.trust.base import TrustOptions, TrustQuestion, TrustRoot
from scanner.trust.notary_v1 import NotaryV1
from tests.scanner.trust.certificates import AUTHORITY, LEAF, certify, der, ec_key, pem, rsa_key
from tests.scanner.trust.notary_server import cases, serving, tree
from tests.servers import Authority, free_port

NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)
ASK = ["--gun", "registry.example/team/app", "--tag", "v1", "--trust", "tofu", "--at", "2026-11-23T07:00:00Z"]


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("notary")


def trust(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """``dockwarden trust …``: the exit code and the JSON document."""
    with pytest.raises(SystemExit) as ended:
        main(["trust", *arguments, "--format", "json"])
    shown = capsys.readouterr()
    assert shown.out, shown.err
    return int(ended.value.code or 0), json.loads(shown.out)


def as_arguments(query: dict[str, Any]) -> list[str]:
    found = []
    for name in ("tag", "digest"):
        found += [f"--{name}", query[name]] if name in query else []
    for signer in query.get("require_signers", ()):
        found += ["--require-signer", signer]
    return found


def as_expected(code: int, answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    if "error" in expected:
        known = answer["reason"] not in ("unavailable", "tls")
        return answer["reason"] in expected["error"] and (code, answer["status"]) == (
            (1, "refused") if known else (3, "unknown")
        )
    wanted = {"status": "verified", "reason": "", **{k: expected[k] for k in ("digest", "role") if k in expected}}
    return code == 0 and all(answer[name] == value for name, value in wanted.items())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_case(
    case: dict[str, Any],
    tmp_path: Path,
    authority: Authority,
    certificate: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "trust.json").write_text(json.dumps(case["trust"]))
    always = ["--gun", case["gun"], "--trust", str(tmp_path / "trust.json"), "--state-dir", str(tmp_path / "state")]
    for step in case["steps"]:
        with serving(tree(step["tree"]), certificate, step.get("http")) as server:
            url = f"https://127.0.0.1:{free_port()}" if step["tls"] == "down" else server.url
            code, answer = trust(
                capsys,
                "verify",
                *always,
                *as_arguments(step["query"]),
                "--notary-server",
                url,
                "--ca-file",
                str(authority.file),
                "--at",
                step["time"],
            )
        choices = step["expect"].get("any_of", [step["expect"]])
        assert any(as_expected(code, answer, expected) for expected in choices), (answer, choices)


def ask(capsys: pytest.CaptureFixture[str], url: str, ca: Path, *more: str) -> tuple[int, dict[str, Any]]:
    return trust(capsys, "verify", *ASK, "--notary-server", url, "--ca-file", str(ca), *more)


@pytest.mark.parametrize("wrong", ["another host", "expired", "another authority", "plain HTTP"])
def test_without_tls_nothing_can_be_told(
    wrong: str, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = {
        "another host": lambda: authority.issue("wronghost", ["wrong.example"]),
        "expired": lambda: authority.issue("expired", days=-1),
        "another authority": lambda: Authority.make(tmp_path / "other").issue("untrusted"),
        "plain HTTP": lambda: None,
    }[wrong]()
    with serving(tree("attacks/syn-good"), certificate) as server:
        code, answer = ask(capsys, server.url, authority.file)
    assert (code, answer["status"], answer["reason"]) == (3, "unknown", "tls")
    assert server.asked == []


FAULTS: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "endless": ({"timestamp.json": {"endless": True}}, ["too_large"]),
    "redirected": ({"timestamp.json": {"redirect": "https://registry.example/"}}, ["unavailable"]),
    "cut off": ({"timestamp.json": {"truncate": 100}}, ["unavailable"]),
    "hung up": ({"timestamp.json": {"close": True}}, ["unavailable"]),
    "too long": ({"timestamp.json": {"pad": 1 << 20}}, ["too_large"]),
    "no content": ({"root.json": {"status": 204}}, ["unavailable"]),
    "asks for a password": ({"*": {"status": 401}}, ["unavailable"]),
    "none found": ({"root.json": {"status": 404}}, ["no_trust_data"]),
    "no timestamp": ({"timestamp.json": {"status": 404}}, ["no_trust_data"]),
    "none found by a web server": (
        {"*": {"status": 404, "body": "<!doctype html><title>Not found</title>"}},
        ["unavailable"],
    ),
    "none found by a registry": ({"*": {"status": 404, "body": "404 page not found\n"}}, ["unavailable"]),
    "none found by nobody in particular": ({"root.json": {"status": 404, "body": ""}}, ["unavailable"]),
    "no timestamp found by a proxy": ({"timestamp.json": {"status": 404, "body": "[]"}}, ["unavailable"]),
    "none found, at length": ({"root.json": {"status": 404, "body": "{}" + " " * (1 << 20)}}, ["unavailable"]),
    "drips a header a moment": ({"timestamp.json": {"drip": True}}, ["unavailable"]),
    "in pieces": ({"*": {"chunked": True}}, [""]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_server(
    name: str, authority: Authority, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    faults, reasons = FAULTS[name]
    with serving(tree("attacks/syn-good"), certificate, faults) as server:
        code, answer = ask(capsys, server.url, authority.file)
    assert answer["reason"] in reasons
    assert code == {"unavailable": 3, "": 0}.get(answer["reason"], 1)


def test_a_repository_that_was_signed_does_not_become_unsigned(
    authority: Authority, certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ["--state-dir", str(tmp_path)]
    with serving(tree("attacks/syn-good"), certificate) as server:
        assert ask(capsys, server.url, authority.file, *state)[0] == 0
    with serving({}, certificate) as server:
        code, answer = ask(capsys, server.url, authority.file, *state)
    assert (code, answer["reason"]) == (1, "missing")


def test_a_state_that_cannot_be_read_is_not_forgotten(
    authority: Authority, certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tree("attacks/syn-good"), certificate) as server:
        assert ask(capsys, server.url, authority.file, "--state-dir", str(tmp_path))[0] == 0
        for file in tmp_path.iterdir():
            file.write_bytes(file.read_bytes()[:100])
        code, answer = ask(capsys, server.url, authority.file, "--state-dir", str(tmp_path))
    assert (code, answer["status"], answer["reason"]) == (3, "unknown", "bad_state")


class Overtaken(NoState):
    """A state of which another run was always faster, or once; what that run saw is loaded from then on."""

    def __init__(self, always: bool, then: bytes | None = None) -> None:
        self.always, self.then, self.saved, self.loaded = always, then, 0, 0

    def load(self, key: str) -> bytes | None:
        self.loaded += 1
        return self.then if self.saved else None

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        self.saved += 1
        return not self.always and self.saved > 1


@pytest.mark.parametrize("always", [True, False], ids=["always", "once"])
def test_a_run_that_was_overtaken_verifies_again(
    always: bool, authority: Authority, certificate: tuple[Path, Path]
) -> None:
    """What the faster run saw counts: giving up what was seen, or saving over it, would let an old version pass."""
    state = Overtaken(always)
    root = TrustRoot("release", "notary-v1", {"mode": "tofu"})
    with serving(tree("attacks/syn-good"), certificate) as server:
        question = TrustQuestion(
            reference=Reference("registry.example", "team/app", "v1"),
            roots=(root,),
            now=NOW,
            state=state,
            options=TrustOptions(server=server.url, ca_file=authority.file),
        )
        (answer,) = NotaryV1().verify(question)
    assert answer.status is (TrustStatus.UNKNOWN if always else TrustStatus.VERIFIED)
    assert state.loaded == (4 if always else 2)


def test_two_processes_share_a_directory_of_states(tmp_path: Path) -> None:
    slow, fast = DirectoryState(tmp_path), DirectoryState(tmp_path)
    before = slow.load("gun")
    assert fast.save("gun", b"newer", before)
    assert not slow.save("gun", b"older", before)
    assert slow.load("gun") == b"newer"


def test_nothing_is_remembered_of_a_run_that_failed(
    authority: Authority, certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tree("attacks/thr-one-bad"), certificate) as server:
        assert ask(capsys, server.url, authority.file, "--state-dir", str(tmp_path))[0] == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("gun", "knows"), [("127.0.0.1:5543/team/app", True), ("registry.example/team/app", False)])
def test_the_registrys_password_is_for_its_own_token_service(
    gun: str,
    knows: bool,
    authority: Authority,
    certificate: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The realm is text that the Notary server chose: another registry's password does not go there."""
    host, secret = gun.partition("/")[0], "ci:correct horse"
    auths = {"auths": {host: {"auth": base64.b64encode(secret.encode()).decode()}}}
    (tmp_path / "config.json").write_text(json.dumps(auths))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    files, moment = (
        ("captures/app-1-targets-only", "2026-11-23T07:59:45Z")
        if knows
        else ("attacks/syn-good", "2026-11-23T07:00:00Z")
    )
    with serving(tree(files), certificate) as server:
        server.password = secret
        code, answer = trust(
            capsys,
            "verify",
            "--gun",
            gun,
            "--tag",
            "v1",
            "--trust",
            "tofu",
            "--at",
            moment,
            "--notary-server",
            server.url,
            "--ca-file",
            str(authority.file),
        )
    assert (code, answer["reason"]) == ((0, "") if knows else (3, "unavailable")), (answer, server.told)
    assert any(given.startswith("Basic ") for given in server.told) is knows


ID = "ab" * 32
KEY, CA = ec_key("root"), certify({"CN": "CA"}, ec_key("ca"), AUTHORITY)
LEAF_BY_RSA = certify({"CN": "leaf"}, rsa_key(), LEAF)
LEAF_BY_EC = certify({"CN": "leaf"}, KEY, LEAF)
ROOT_JSON = json.dumps(
    {
        "signed": {
            "_type": "Root",
            "version": 1,
            "expires": "2027-01-01T00:00:00Z",
            "keys": {
                ID: {"keytype": "ecdsa", "keyval": {"private": None, "public": base64.b64encode(der(KEY)).decode()}}
            },
            "roles": {role: {"keyids": [ID], "threshold": 1} for role in ("root", "targets", "snapshot", "timestamp")},
        },
        "signatures": [],
    }
)


def id_of(certificate: x509.Certificate, kind: str) -> str:
    return key_id(kind, certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("given", "document"),
    [
        ("tofu", {"mode": "tofu"}),
        (ID, {"mode": "cert_ids", "ids": [ID]}),
        (pem(KEY), {"mode": "root_keys", "pem": [pem(KEY)]}),
        (pem(CA), {"mode": "ca", "pem": pem(CA)}),
        (pem(LEAF_BY_RSA), {"mode": "cert_ids", "ids": [id_of(LEAF_BY_RSA, "rsa-x509")]}),
        (pem(LEAF_BY_EC), {"mode": "cert_ids", "ids": [id_of(LEAF_BY_EC, "ecdsa-x509")]}),
        (json.dumps({"mode": "cert_ids", "ids": ID}), {"mode": "cert_ids", "ids": [ID]}),
        (
            json.dumps({"mode": "tofu", "server": "https://notary.example/", "ca": pem(CA), "signers": "anna"}),
            {"mode": "tofu", "server": "https://notary.example", "ca": pem(CA), "signers": ["anna"]},
        ),
    ],
    ids=["tofu", "an id", "a key", "a CA", "an RSA certificate", "an EC certificate", "JSON", "all fields"],
)
def test_what_a_person_has_at_hand_is_a_trust_root(given: str, document: dict[str, Any]) -> None:
    assert NotaryV1().parse_trust(given.encode(), "here") == document


def test_a_root_json_is_trusted_whole() -> None:
    found = NotaryV1().parse_trust(ROOT_JSON.encode(), "here")
    assert (found["mode"], json.loads(found["root_json"])) == ("root_json", json.loads(ROOT_JSON))
    inside = NotaryV1().parse_trust(json.dumps({"mode": "root_json", "root_json": json.loads(ROOT_JSON)}).encode(), "x")
    assert json.loads(inside["root_json"]) == json.loads(ROOT_JSON)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("a word", "'a word' is neither a file nor a key id nor 'tofu'"),
        (b"\xff", "not UTF-8 text"),
        ('{"mode": "tofu", "sever": "x"}', "unknown field 'sever'"),
        ('{"mode": "all"}', "mode: 'all' is not a mode"),
        ("{}", "mode: None is not a mode"),
        ('{"mode": "cert_ids", "ids": ["ABC"]}', "64 lower-case hex digits"),
        ('{"mode": "cert_ids"}', "ids: a list of strings is required"),
        ('{"mode": "cert_ids", "ids": [3]}', "ids: a string is required"),
        (json.dumps({"mode": "cert_ids", "ids": [ID] * 101}), "ids: a list of strings is required"),
        ('{"mode": "root_keys", "pem": ["no key"]}', "pem: not a public key"),
        ('{"mode": "ca", "pem": "no certificate"}', "here: pem: "),
        ('{"mode": "ca", "pem": 3}', "pem: a string is required"),
        ('{"mode": "root_json", "root_json": "{}"}', "root_json: "),
        ('{"mode": "tofu", "server": "http://notary.example"}', "is not the address of a Notary server"),
        ('{"mode": "tofu", "server": "https://me:secret@notary.example"}', "is not the address of a Notary server"),
        ('{"mode": "tofu", "server": "https://notary.example/?token=1"}', "is not the address of a Notary server"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "here: "),
        ("-----BEGIN PUBLIC KEY-----\nAAAA", "here: "),
    ],
)
def test_what_is_no_trust_root(given: str | bytes, why: str) -> None:
    with pytest.raises(UsageError, match=r"^here: ") as refused:
        NotaryV1().parse_trust(given if isinstance(given, bytes) else given.encode(), "here")
    assert why in str(refused.value)
    assert refused.value.reason == "bad_trust_root"


def asked(server: str = "", gun: str = "", **document: Any) -> list[Verification]:
    question = TrustQuestion(
        reference=Reference("registry.example", "team/app", "v1"),
        roots=(TrustRoot("release", "notary-v1", {"mode": "tofu", **document}),),
        now=NOW,
        state=NoState(),
        options=TrustOptions(server=server, gun=gun),
    )
    return list(NotaryV1().verify(question))


def test_without_a_trust_root_nothing_is_verified() -> None:
    (answer,) = NotaryV1().verify(
        TrustQuestion(reference=Reference("registry.example", "a", "v1"), roots=(), now=NOW, state=NoState())
    )
    assert answer.status is not TrustStatus.VERIFIED
    assert "no trust root" in answer.detail


def test_without_a_server_nothing_can_be_asked() -> None:
    (answer,) = asked()
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "no_server")


def test_the_ca_of_a_trust_root_is_used(authority: Authority, certificate: tuple[Path, Path]) -> None:
    with serving(tree("attacks/syn-good"), certificate) as server:
        (answer,) = asked(server.url, ca=authority.file.read_text())
    assert answer.status is TrustStatus.VERIFIED


@pytest.mark.parametrize("gun", ["registry.example/../other", "registry.example/team/app:v1", "a" * 300])
def test_a_name_that_would_ask_for_another_file_is_refused(gun: str) -> None:
    (answer,) = asked("https://127.0.0.1:1", gun)
    assert answer.status is TrustStatus.UNKNOWN
    assert "not a repository name" in answer.detail
