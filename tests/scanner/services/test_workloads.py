"""Workload documents by the image that is asked about, as test cases of policies, and as targets of an audit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.records import to_json
from scanner.model.reference import Digest, Reference
from scanner.policy.evaluate import results_json
from scanner.policy.rules import default_policy
from scanner.services import workloads
from tests.scanner.workloads import sins

IMAGE = "registry.example.com/shop/cart"
POD = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web}}
spec:
  containers:
    - {{name: app, image: "{IMAGE}:1"}}
    - {{name: proxy, image: "registry.example.com/shop/proxy:1"}}
"""


def nothing() -> bytes:
    raise AssertionError("standard input was read")


def test_a_document_that_does_not_use_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="no container in the workload uses") as refused:
        workloads.parse_workload(POD, Reference.parse("registry.example.com/other:1"))
    assert refused.value.reason == "bad_workload"


def test_too_many_containers_together_are_refused() -> None:
    more = "".join(f'    - {{name: c{n}, image: "{IMAGE}:1"}}\n' for n in range(60))
    with pytest.raises(UsageError, match="more than 50 containers") as refused:
        workloads.parse_workload(POD + more, Reference.parse(f"{IMAGE}:1"))
    assert refused.value.reason == "bad_workload"


def test_an_archive_can_be_the_image_of_any_container() -> None:
    named = workloads.for_target(POD, "pod.yaml", f"{IMAGE}:2")
    archive = workloads.for_target(POD, "pod.yaml", "./image.tar")
    assert [each.image for each in named.containers] == [f"{IMAGE}:1"]
    assert len(archive.containers) == 2


def test_cases_of_a_policy_take_all_containers_or_those_of_an_image(tmp_path: Path) -> None:
    cases = workloads.CaseWorkloads(tmp_path)
    (tmp_path / "pod.yaml").write_text(POD)
    assert len(cases.read(POD, "")) == 2
    ((workload, results),) = cases.read_file("pod.yaml", f"{IMAGE}:9")
    assert workload.image == f"{IMAGE}:1"
    assert {result.check for result in results} >= {"privileged-container"}
    with pytest.raises(UsageError, match="no container in the workload runs"):
        cases.read(POD, "registry.example.com/other:1")


def test_a_target_is_a_source_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(sins.COMPOSE_BAD)
    plain = workloads.read_target(str(file), nothing)
    assert plain == workloads.read_target(f"compose:{file}", nothing)
    assert workloads.read_target("kubernetes:-", POD.encode)[0].image == f"{IMAGE}:1"
    for target, said in (("nomad:job.hcl", "unknown source"), ("compose:", "the file is missing")):
        with pytest.raises(UsageError, match=said):
            workloads.read_target(target, nothing)


EQUAL = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}}}
spec:
  containers:
    - {{name: app, image: "{image}", securityContext: {{privileged: true, procMount: Unmasked}}}}
"""


def test_checks_of_equal_workloads_have_the_results_of_each() -> None:
    pods = [("a", "x", "one:1"), ("b", "x", "two:latest"), ("c", "default", "postgres:17"), ("d", "z", "one")]
    text = "---\n".join(EQUAL.format(name=name, space=space, image=image) for name, space, image in pods)
    found = catalog.workload_sources()["kubernetes"].parse(text + "---\n" + sins.KUBERNETES_BAD, "f.yaml")
    shared = workloads.Checked()
    assert [shared.check(each, None) for each in found] == [workloads.check(each, None) for each in found]


def test_the_json_of_shared_results_is_that_of_all_results() -> None:
    (workload,) = workloads.for_target(sins.KUBERNETES_BAD, "f.yaml", "./image.tar").containers
    results = workloads.check(workload, None)
    for _ in range(2):  # made, then kept
        assert results_json(results) == to_json(results)


def test_a_decision_is_made_of_the_reasons_that_a_report_shows() -> None:
    (workload,) = workloads.for_target(sins.KUBERNETES_BAD, "f.yaml", "./image.tar").containers
    policy = default_policy(catalog.known_names())
    checks = workloads.check(workload, None)
    report = workloads.decide(workload, checks, policy, datetime(2026, 5, 1, tzinfo=UTC))
    decision = report.decision()
    assert (decision.verdict, decision.reasons) == (report.own_verdict, report.reasons)
    assert decision.evidence == Digest.of(to_json(report.checks))
    assert decision.changes
