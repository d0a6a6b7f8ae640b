"""The same sins, written as each of the six sources writes them: the same findings, each at its line."""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.model.finding import Failed
from scanner.services import workload_documents, workloads
from tests.scanner.workloads.sins import BAD

# Of each check a word that stands on the line of its finding or, where a value is written over several lines, beside
# it.
SINS: dict[str, tuple[str, ...]] = {
    "privileged-container": ("privileged", "Privileged"),
    "host-network": ("hostNetwork", "network_mode", "NetworkMode", "networkMode", "networks"),
    "host-pid": ("hostPID", "pid", "PidMode", "pidMode"),
    "host-ipc": ("hostIPC", "ipc", "IpcMode", "ipcMode"),
    "added-capabilities": ("SYS_ADMIN",),
    "kept-capabilities": ("privileged", "Privileged", "ContainerSpec", "CapabilityAdd"),
    "seccomp-off": ("Unconfined", "unconfined"),
    "privilege-escalation": (
        "securityContext",
        "security_opt",
        "SecurityOpt",
        "Privileges",
        "SecurityOptions",
        "param",
    ),
    "docker-socket": ("sock",),
    "sensitive-host-mounts": ("sock",),
    "unneeded-writable-mounts": ("sock",),
    "runs-as-root": ("runAsUser", "user", "User"),
    "secrets-in-environment": ("DB_PASSWORD",),
    "mutable-image-tag": ("image", "Image"),
    "memory-limit": ("name", "web", "Memory", "TaskTemplate", "mem"),
    "cpu-limit": ("name", "web", "NanoCpus", "TaskTemplate", "cpus"),
    "writable-root-filesystem": ("securityContext", "web", "ReadonlyRootfs", "ContainerSpec", "name", "parameters"),
}
# What a source cannot say, or says in a better way whatever one writes.
UNSAYABLE: dict[str, frozenset[str]] = {
    # A service is never privileged and never in the host's namespaces; its tag was pinned when it was created.
    "swarm": frozenset(("privileged-container", "host-network", "host-pid", "host-ipc", "mutable-image-tag")),
    "marathon": frozenset(("memory-limit", "cpu-limit")),  # without a limit it gives 128 MiB and one core
}


@pytest.mark.parametrize("source", BAD)
def test_every_source_tells_the_same_sins_each_at_its_line(source: str) -> None:
    text = BAD[source]
    lines = text.splitlines()
    (workload,) = catalog.workload_sources()[source].parse(text, "the-file")
    found = {each.check: each.outcome for each in workloads.check(workload, None)}
    failed = {check for check in SINS if isinstance(found[check], Failed)}
    assert failed == SINS.keys() - UNSAYABLE.get(source, frozenset())
    for check in failed:
        outcome = found[check]
        assert isinstance(outcome, Failed)
        for evidence in outcome.evidence:
            assert evidence.path == "the-file"
            assert evidence.line is not None, check
            near = "\n".join(lines[max(0, evidence.line - 2) : evidence.line + 2])
            assert any(word in near for word in SINS[check]), (check, evidence.line, near)
        remedy = outcome.remedy or catalog.workload_checks()[check].remedy
        assert remedy, f"{check} says nothing of what to write in a document of {source}"


@pytest.mark.parametrize("source", BAD)
def test_a_server_names_the_same_lines(source: str) -> None:
    (workload,) = catalog.workload_sources()[source].parse(BAD[source], "the-file")
    sent = workload_documents.workload(workload_documents.encode(workload_documents.document(workload)))
    assert sent.facts() == {**workload.facts(), "environment": sent.facts()["environment"]}

    def places(one: object) -> dict[str, list[tuple[str, int | None]]]:
        results = workloads.check(one, None)  # type: ignore[arg-type]
        return {
            each.check: [(evidence.path, evidence.line) for evidence in each.outcome.evidence]
            for each in results
            if isinstance(each.outcome, Failed)
        }

    assert places(sent) == places(workload)
