"""Custom resources: every container that one runs is a workload at its line, and what is not read is named."""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.finding import Failed, NotApplicable
from scanner.model.workload import Workload
from scanner.services.workloads import check

WORKFLOW = """\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: wf}
spec:
  entrypoint: a
  securityContext: {runAsNonRoot: true}
  volumes:
    - {name: host, hostPath: {path: /}}
  templates:
    - name: a
      container:
        image: "alpine:{{workflow.parameters.version}}"
        volumeMounts: [{name: host, mountPath: /host}]
        securityContext: {privileged: true}
    - name: b
      securityContext: {runAsNonRoot: false}
      script: {image: "python:3", source: print(1)}
      initContainers: [{name: i, image: busybox}]
      sidecars: [{name: s, image: nginx}]
    - name: c
      containerSet: {containers: [{name: m, image: "golang:1"}]}
    - name: d
      steps: [[{name: x, template: a}]]
"""
TEKTON = """\
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  tasks:
    - name: one
      taskSpec:
        stepTemplate:
          securityContext: {privileged: true, runAsUser: 0}
        steps:
          - {name: build, image: "golang:1", computeResources: {limits: {memory: 1Gi}}}
          - name: own
            image: alpine:3
            securityContext: {privileged: false}
          - {name: elsewhere, ref: {name: shared}}
        sidecars: [{name: d, image: "docker:dind"}]
    - {name: two, taskRef: {name: t}}
  finally:
    - {name: last, taskSpec: {steps: [{name: x, image: "busybox:1"}]}}
"""


def read(text: str) -> dict[str, Workload]:
    found = catalog.workload_sources()["kubernetes"].parse(text, "f.yaml")
    assert len({each.name for each in found}) == len(found)  # a name tells one from the others
    return {each.name: each for each in found}


def line(workload: Workload, name: str) -> int | None:
    (result,) = (each for each in check(workload, None) if each.check == name)
    return result.outcome.evidence[0].line if isinstance(result.outcome, Failed) else None


def test_every_container_of_an_argo_workflow_is_read() -> None:
    found = read(WORKFLOW)
    assert {name.partition(" · ")[2]: each.image for name, each in found.items()} == {
        "a": "alpine:{{workflow.parameters.version}}",
        "b": "python:3",
        "b/i": "busybox",
        "b/s": "nginx",
        "c/m": "golang:1",
    }
    first = found["Workflow/wf · a"]
    assert (first.run_as_non_root, first.mounts[0].source) == (True, "/")
    assert line(first, "privileged-container") == 14
    assert found["Workflow/wf · b"].run_as_non_root is False  # the template's own wins over the workflow's
    assert found["Workflow/wf · b/i"].container_kind == "init"


def test_templates_inside_of_steps_and_tasks_are_read() -> None:
    found = read(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  hostNetwork: true\n"
        "  templates:\n    - name: a\n      steps:\n        - - name: s\n"
        "            inline: {container: {image: 'alpine:3', securityContext: {privileged: true}}}\n"
        "    - name: b\n      dag:\n        tasks:\n          - {name: t, template: a}\n"
        "          - {name: u, inline: {script: {image: 'python:3', source: x}, podSpecPatch: 'y'}}\n"
    )
    assert {name: (each.image, each.network_mode) for name, each in found.items()} == {
        "Workflow/w · a/s": ("alpine:3", "host"),
        "Workflow/w · b/u": ("python:3", "host"),
        "Workflow/w": ("", None),
    }
    assert line(found["Workflow/w · a/s"], "privileged-container") == 10
    assert "podSpecPatch" in found["Workflow/w"].unread


def test_a_pod_beside_another_is_read() -> None:
    found = read(
        "{apiVersion: example.com/v1, kind: Cache, metadata: {name: c}, spec: {containers: [{name: a, image: 'x:1'}], "
        "backup: {template: {spec: {containers: [{name: b, image: 'y:1', securityContext: {privileged: true}}]}}}}}"
    )
    assert {name: (each.image, each.privileged) for name, each in found.items()} == {
        "Cache/c · a": ("x:1", None),
        "Cache/c · b": ("y:1", True),
    }


def test_a_cron_workflow_and_its_defaults_are_read() -> None:
    found = read(
        "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c}\nspec:\n  workflowSpec:\n"
        "    hostNetwork: true\n    templates:\n      - {name: a, container: {image: 'alpine:3'}}\n"
    )
    assert found["CronWorkflow/c · a"].network_mode == "host"


def test_steps_of_tekton_have_what_their_template_sets() -> None:
    found = {name.partition(" · ")[2]: each for name, each in read(TEKTON).items()}
    assert found.keys() == {"one/build", "one/own", "one/d", "last/x"}
    assert (found["one/build"].privileged, found["one/build"].memory) == (True, 1 << 30)
    assert line(found["one/build"], "privileged-container") == 9
    assert (found["one/own"].privileged, found["one/own"].user) == (False, "0")
    assert found["one/d"].privileged is None  # stepTemplate is for steps


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: tekton.dev/v1, kind: TaskRun, metadata: {name: a}, spec: {podTemplate: {hostNetwork: true}, "
        "taskSpec: {steps: [{name: s, image: x:1}]}}}",
        "{apiVersion: tekton.dev/v1, kind: PipelineRun, metadata: {name: a}, spec: {taskRunTemplate: {podTemplate: "
        "{hostNetwork: true}}, pipelineSpec: {tasks: [{name: t, taskSpec: {steps: [{name: s, image: x:1}]}}]}}}",
        "{apiVersion: tekton.dev/v1, kind: PipelineRun, metadata: {name: a}, spec: {taskRunSpecs: [{pipelineTaskName: "
        "t, podTemplate: {hostNetwork: true}}], pipelineSpec: {tasks: [{name: t, taskSpec: {steps: [{image: x:1}]}}]}}"
        "}",
        "{apiVersion: tekton.dev/v1beta1, kind: PipelineRun, metadata: {name: a}, spec: {taskRunSpecs: "
        "[{pipelineTaskName: t, taskPodTemplate: {hostNetwork: true}}], podTemplate: {hostNetwork: false}, "
        "pipelineSpec: {tasks: [{name: t, taskSpec: {steps: [{image: x:1}]}}]}}}",
        "{apiVersion: tekton.dev/v1, kind: PipelineRun, metadata: {name: a}, spec: {taskRunTemplate: {podTemplate: "
        "{hostNetwork: true}}, pipelineSpec: {tasks: [{name: p, pipelineSpec: {tasks: [{name: t, taskSpec: {steps: "
        "[{image: x:1}]}}]}}]}}}",
        "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, spec: {template: {spec: "
        "{hostNetwork: true, containers: [{name: s, image: x:1}]}}}}",
        "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}, spec: {template: {spec: "
        "{hostNetwork: true, containers: [{image: x:1}]}}}}",
        "{apiVersion: apps.openshift.io/v1, kind: DeploymentConfig, metadata: {name: a}, spec: {template: {spec: "
        "{hostNetwork: true, containers: [{name: s, image: x:1}]}}}}",
        "{apiVersion: example.com/v1, kind: Database, metadata: {name: a}, spec: {hostNetwork: true, containers: "
        "[{name: patch, args: [x]}, {name: s, image: x:1}]}}",
    ],
)
def test_kinds_with_pods_are_workloads(text: str) -> None:
    (workload,) = read(text).values()
    assert (workload.image, workload.network_mode, workload.unread) == ("x:1", "host", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{apiVersion: kubevirt.io/v1, kind: VirtualMachine, metadata: {name: a}, spec: {template: {spec: "
            "{volumes: [{containerDisk: {image: quay.io/x/disk}}]}}}}",
            "names the image quay.io/x/disk, and how a VirtualMachine runs it is not known",
        ),
        (
            "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, metadata: {name: a}, spec: {podSpecPatch: 'x', "
            "templates: []}}",
            "podSpecPatch changes the pods",
        ),
        (
            "{apiVersion: argoproj.io/v1alpha1, kind: Workflow, metadata: {name: a}, spec: {templateDefaults: "
            "{podSpecPatch: 'x'}, templates: []}}",
            "podSpecPatch changes the pods",
        ),
    ],
)
def test_what_is_not_read_is_named(text: str, message: str) -> None:
    (workload,) = read(text).values()
    results = {each.check: each.outcome for each in check(workload, None)}
    outcome = results.pop("unread-workload")
    assert isinstance(outcome, Failed)
    assert message in outcome.evidence[0].message
    # Nothing that was not read looks checked.
    assert {type(each) for each in results.values()} == {NotApplicable}


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {image: 'x/y:1'}}",
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}, spec: {image: 'x/y:1'}}",
        "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: a}, spec: {workloadRef: {name: b}}}",
        "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: a}, spec: {dnsNames: [a]}}",
    ],
)
def test_objects_that_run_nothing_are_no_workloads(text: str) -> None:
    assert read(text) == {}


def test_a_chart_that_was_not_rendered_is_still_refused() -> None:
    with pytest.raises(UsageError, match="unrendered template"):
        read(TEKTON.replace("golang:1", "{{ .Values.image }}"))


def custom(version: str, kind: str, body: str) -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n{body}\n"


RESOURCES = "apiVersion: tekton.dev/v1, kind: TaskRun, spec: {taskSpec: {steps: [{image: alpine, script: x}]}}"
UNREAD = {  # what is not read is named at its line
    "a group that only ends as Kubernetes' own": (custom("serving.x-k8s.io/v1", "Model", "spec: {image: 'a/b:1'}"), 4),
    "a group below k8s.io": (custom("batch.example.k8s.io/v1", "Runner", "spec: {image: 'a/b:1'}"), 4),
    "a group that only ends as that of a policy engine": (custom("notkyverno.io/v1", "A", "spec: {image: 'a/b:1'}"), 4),
    "beside the spec": (custom("example.com/v1", "Runner", "data:\n  image: a/b:1"), 5),
    "a bare name among the settings of a container": (custom("example.com/v1", "R", "spec: {image: a, args: [b]}"), 4),
    "the values of a chart": (
        custom("helm.toolkit.fluxcd.io/v2", "HelmRelease", "spec:\n  values: {image: {repository: nginx, tag: v1}}"),
        5,
    ),
    "the template of a trigger": (
        custom("triggers.tekton.dev/v1beta1", "TriggerTemplate", f"spec:\n  resourcetemplates: [{{{RESOURCES}}}]"),
        5,
    ),
    "pod settings of a task elsewhere": (
        custom("tekton.dev/v1", "TaskRun", "spec:\n  taskRef: {name: a}\n  podTemplate: {hostNetwork: true}"),
        6,
    ),
    "pod settings of a pipeline elsewhere": (
        custom(
            "tekton.dev/v1",
            "PipelineRun",
            "spec:\n  pipelineRef: {name: a}\n  taskRunTemplate:\n    podTemplate: {securityContext: {runAsUser: 0}}",
        ),
        7,
    ),
    "pod settings of one task elsewhere": (
        custom(
            "tekton.dev/v1",
            "PipelineRun",
            "spec:\n  pipelineSpec: {tasks: [{name: a, taskRef: {name: b}}]}\n"
            "  taskRunSpecs: [{pipelineTaskName: a, podTemplate: {hostNetwork: true}}]",
        ),
        6,
    ),
    "settings of a workflow template elsewhere": (
        custom("argoproj.io/v1alpha1", "Workflow", "spec:\n  workflowTemplateRef: {name: a}\n  hostNetwork: true"),
        6,
    ),
    "settings of a template elsewhere": (
        custom(
            "argoproj.io/v1alpha1",
            "Workflow",
            "spec:\n  templates: [{name: a, steps: [[{name: b, templateRef: {name: c, template: d}}]]}]\n"
            "  securityContext: {runAsUser: 0}",
        ),
        6,
    ),
    "a manifest that a workflow applies": (
        custom(
            "argoproj.io/v1alpha1",
            "Workflow",
            "spec:\n  templates:\n    - {name: a, resource: {action: apply, manifest: 'kind: Pod'}}",
        ),
        6,
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_named_at_its_line(name: str) -> None:
    text, expected = UNREAD[name]
    (found,) = read(text).values()
    assert found.unread
    assert line(found, "unread-workload") == expected


SILENT = {
    "a run of a task elsewhere without settings": custom("tekton.dev/v1", "TaskRun", "spec: {taskRef: {name: a}}"),
    "a workflow that deletes": custom(
        "argoproj.io/v1alpha1", "Workflow", "spec: {templates: [{name: a, resource: {action: delete, manifest: x}}]}"
    ),
    "Kubernetes' own": custom("networking.k8s.io/v1", "Ingress", "spec: {rules: []}"),
    "a policy": custom("policies.kyverno.io/v1", "ValidatingPolicy", "spec: {image: 'a/b:1'}"),
    "a picture": custom("example.com/v1", "Page", "spec: {image: logo}"),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_runs_nothing_is_not_named(name: str) -> None:
    assert read(SILENT[name]) == {}


def test_a_pod_beside_the_spec_is_read() -> None:
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostPID: true, containers: [{name: c, image: b}]}}"
    (found,) = read(custom("template.openshift.io/v1", "Template", f"objects:\n  - {pod}")).values()
    assert (found.image, found.pid_mode) == ("b", "host")
