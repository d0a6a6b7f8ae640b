"""``dockwarden audit`` as a person uses it: verdicts, exit codes, lines, formats, and errors that name the place."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from scanner.cli import main
from scanner.commands.audit import _ImageAnswers
from scanner.config import Settings
from scanner.model.decision import Verdict
from scanner.model.workload import Mount, Workload
from scanner.model.workload_audit import ImageAnswer
from tests.scanner.reports.test_shapes import OFFICIAL, junit_problems
from tests.scanner.workloads.sins import BAD
from tests.test_end_to_end import dockwarden

SUFFIX = {"kubernetes": "yaml", "compose": "yaml"}
SHARED = {
    "added-capabilities",
    "docker-socket",
    "runs-as-root",
    "secrets-in-environment",
    "seccomp-off",
    "memory-limit",
}


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def audited(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """``dockwarden audit`` in this process: an interpreter for each of these cases would take longer than all of
    them.
    """
    monkeypatch.setenv("DOCKWARDEN_HOME", str(settings.home))

    def run(*arguments: str, stdin: str | None = None) -> Done:
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main(["audit", *arguments])
        shown = capfd.readouterr()
        return Done(int(ended.value.code or 0), shown.out, shown.err)

    return run


def written(tmp_path: Path, source: str) -> Path:
    file = tmp_path / f"{source}.{SUFFIX.get(source, 'json')}"
    file.write_text(BAD[source])
    return file


@pytest.mark.parametrize("source", BAD)
def test_the_same_sins_are_denied_in_every_format(audited: Callable[..., Done], tmp_path: Path, source: str) -> None:
    file = written(tmp_path, source)
    done = audited(f"{source}:{file}", "--format", "json")
    assert done.returncode == 1, done.stderr
    (found,) = json.loads(done.stdout)["audit"]["workloads"]
    failed = {result["check"] for result in found["checks"] if result["outcome"]["kind"] == "failed"}
    expected = SHARED - ({"memory-limit"} if source == "marathon" else set())
    assert expected <= failed
    assert found["verdict"] == "deny"
    assert "not-a-real-one" not in done.stdout
    lines = [e["line"] for result in found["checks"] for e in result["outcome"].get("evidence", ())]
    assert lines
    assert all(isinstance(line, int) for line in lines)


@pytest.mark.parametrize("form", ["table", "json", "sarif", "junit", "gitlab", "csv", "html", "markdown", "github"])
def test_every_format_shows_a_finding_at_its_line(audited: Callable[..., Done], tmp_path: Path, form: str) -> None:
    file = written(tmp_path, "compose")
    done = audited(f"compose:{file}", "--format", form)
    assert done.returncode == 1, done.stderr
    assert "SYS\\_ADMIN" in done.stdout if form == "markdown" else "SYS_ADMIN" in done.stdout
    line = str(BAD["compose"].splitlines().index("    cap_add: [SYS_ADMIN]") + 1)
    assert line in done.stdout


@pytest.mark.parametrize("source", BAD)
def test_reports_follow_their_published_schemas(audited: Callable[..., Done], tmp_path: Path, source: str) -> None:
    target = f"{source}:{written(tmp_path, source)}"
    assert junit_problems(audited(target, "--format", "junit").stdout) == []
    sarif = json.loads(audited(target, "--format", "sarif").stdout)
    assert [error.message[:200] for error in OFFICIAL.iter_errors(sarif)] == []


def test_a_package_format_says_what_to_use(audited: Callable[..., Done], tmp_path: Path) -> None:
    done = audited(f"compose:{written(tmp_path, 'compose')}", "--format", "cyclonedx")
    assert done.returncode == 2
    assert "sarif" in done.stderr


@pytest.mark.parametrize(
    ("target", "text", "words"),
    [
        ("compose", "services:\n  web: {image: a, privileged: maybe}\n", "2:"),
        ("kubernetes", "apiVersion: v1\nkind: Pod\nspec: {containers: {}}\n", "3:"),
        ("kubernetes", "image: {{ .Values.image }}\n", "unrendered template"),
        ("kubernetes", "a: 1\na: 2\n", "2:1"),
        ("docker", "[1]", "docker inspect"),
        ("ecs", '{"family": "x"}', "containerDefinitions"),
        ("marathon", '{"x": 1}', "Marathon"),
        ("swarm", "[{}]", "docker service inspect"),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_line(
    audited: Callable[..., Done], tmp_path: Path, target: str, text: str, words: str
) -> None:
    file = tmp_path / "document"
    file.write_text(text)
    done = audited(f"{target}:{file}")
    assert done.returncode == 2, done.stdout
    assert str(file) in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["nomad:x", "compose:", "compose:/nowhere/x.yaml", "kubernetes:/nowhere"])
def test_a_target_that_is_none_is_usage(audited: Callable[..., Done], target: str) -> None:
    done = audited(target)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_manifests_come_from_standard_input(audited: Callable[..., Done]) -> None:
    done = audited("kubernetes:-", "--format", "json", stdin=BAD["kubernetes"])
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "deny"


def test_our_own_compose_file_has_nothing_to_mend(audited: Callable[..., Done]) -> None:
    done = audited(f"compose:{Path(__file__).parents[3] / 'compose.yaml'}", "--format", "json")
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)["audit"]["workloads"]
    assert len(reports) > 5
    assert {report["verdict"] for report in reports} == {"allow"}, [r["decision"]["reasons"] for r in reports]


def test_an_image_is_judged_with_how_it_runs(settings: Settings, sample_layouts: Path, tmp_path: Path) -> None:
    layout = sample_layouts / "shop" / "good"
    alone = dockwarden(settings, "scan", f"oci:{layout}")
    assert alone.returncode == 0, alone.stderr
    together = dockwarden(settings, "scan", f"oci:{layout}", "--workload", str(written(tmp_path, "compose")))
    assert together.returncode == 1, together.stderr
    assert "docker-socket" in together.stdout


def test_the_engine_that_does_not_run_is_one_line(
    audited: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    done = audited("docker")
    assert done.returncode == 3
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def answered(*answers: tuple[str, Verdict | None, bool]) -> _ImageAnswers:
    """Answers that are known already, as after a scan or an answer of a server."""
    found = _ImageAnswers()
    for image, verdict, undecided in answers:
        found._known[image] = (ImageAnswer(verdict, undecided, reasons=(f"the reason of {image}",)), None)
    return found


@pytest.mark.parametrize(
    ("own", "mounted", "undecided", "together"),
    [
        (Verdict.ALLOW, Verdict.DENY, False, (Verdict.DENY, False)),
        (Verdict.ALLOW, Verdict.DENY, True, (Verdict.DENY, True)),
        (Verdict.ALLOW, None, True, (Verdict.DENY, True)),
        (Verdict.DENY, Verdict.DENY, True, (Verdict.DENY, False)),
        (Verdict.DENY, Verdict.ALLOW, False, (Verdict.DENY, False)),
        (Verdict.WARN, Verdict.ALLOW, False, (Verdict.WARN, False)),
        (Verdict.ALLOW, Verdict.WARN, False, (Verdict.WARN, False)),
    ],
)
def test_an_image_that_is_mounted_counts_like_its_own(
    own: Verdict, mounted: Verdict | None, undecided: bool, together: tuple[Verdict, bool]
) -> None:
    workload = Workload("w", "own:1", "compose", container="app", mounts=(Mount("image", "/v", "other:1"),))
    image, _ = answered(("own:1", own, False), ("other:1", mounted, undecided)).answer(workload)
    assert image is not None
    assert (image.verdict, image.undecided) == together
    if mounted is not Verdict.ALLOW:
        assert image.reasons[0] == "the container app mounts the files of other:1: the reason of other:1"


def test_a_mounted_image_that_cannot_be_scanned_is_undecided(
    settings: Settings, sample_layouts: Path, tmp_path: Path
) -> None:
    mount = {"type": "image", "source": "localhost:1/tool:1", "target": "/v"}
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"services": {"app": {"image": "shop/good", "read_only": True, "volumes": [mount]}}}))
    done = dockwarden(settings, "scan", f"oci:{sample_layouts / 'shop' / 'good'}", "--workload", str(file))
    assert done.returncode == 3, done.stdout
    assert "the container app mounts the files of localhost:1/tool:1, which could not be decided" in done.stdout


@pytest.fixture
def gate(httpserver: HTTPServer) -> str:
    """The address of a server that allows every image."""
    document = {"verdict": "allow", "undecided": False, "image": "a/b:1", "reasons": [], "changes": []}
    httpserver.expect_request("/api/v1/gate").respond_with_json(document)
    return httpserver.url_for("").rstrip("/")


def checks(done: Done) -> list[list[dict[str, object]]]:
    return [each["checks"] for each in json.loads(done.stdout)["audit"]["workloads"]]


def test_an_older_server_leaves_the_checks_to_this_machine(
    audited: Callable[..., Done], httpserver: HTTPServer, gate: str, tmp_path: Path
) -> None:
    problem = {"status": 404, "reason": "not_found", "detail": "The requested URL was not found on the server."}
    httpserver.expect_request("/api/v1/gate/workloads").respond_with_json(problem, status=404)
    file = written(tmp_path, "compose")
    done = audited(str(file), "--server", gate, "--format", "json")
    alone = audited(str(file), "--format", "json")
    assert (done.returncode, checks(done)) == (1, checks(alone)), done.stderr
    assert "the server is too old to check workloads" in done.stderr
    assert "too old" not in alone.stderr


def test_a_workload_that_the_server_would_refuse_stops_no_other(
    audited: Callable[..., Done], httpserver: HTTPServer, gate: str, tmp_path: Path
) -> None:
    differs = {"check": "memory-limit", "outcome": {"kind": "passed"}, "severity": "medium"}
    httpserver.expect_request("/api/v1/gate/workloads").respond_with_json({"items": [{"checks": [differs]}]})
    file = tmp_path / "compose.yaml"
    file.write_text(
        json.dumps({"services": {"large": {"image": "a/b:1", "command": ["x" * 70_000]}, "web": {"image": "a/b:1"}}})
    )
    done = audited(str(file), "--server", gate, "--format", "json")
    kinds = [
        {each["check"]: each["outcome"]["kind"] for each in found}  # type: ignore[index]
        for found in checks(done)
    ]
    assert [each["memory-limit"] for each in kinds] == ["failed", "passed"], done.stderr
    assert "not asked about 1 workload that it would refuse" in done.stderr
    (asked,) = [request.get_json() for request, _ in httpserver.log if request.path == "/api/v1/gate/workloads"]
    assert [each["name"] for each in asked["workloads"]] == ["web"]
