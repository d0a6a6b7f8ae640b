"""Pods in custom resources: Argo Workflows, Tekton, and whatever else keeps a pod template or containers.

https://argo-workflows.readthedocs.io/en/latest/fields/ and https://tekton.dev/docs/pipelines/pipeline-api/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scanner.patterns import lazy
from scanner.workloads._kubernetes_owners import KubernetesObject
from scanner.workloads.base import Node

_DEPTH = 20
_IMAGE = lazy(r"[\w.-]+(?::\d+)?(?:/[\w.-]+)+(?:[:@][\w.:+-]+)?|[\w.-]+:[\w.-]+")  # with a registry, path or tag
_ARGO = frozenset(("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"))
_TEKTON = frozenset(("Task", "ClusterTask", "TaskRun", "Pipeline", "PipelineRun", "StepAction"))
# Settings of a whole workflow that each of its pods has, unless the template sets its own.
_OF_EVERY_POD = ("securityContext", "serviceAccountName", "automountServiceAccountToken", "hostNetwork", "nodeSelector")
_OWN_POD = ("containers", "initContainers")
# Settings of pods that a workflow can also give to a template which stands in another document.
_POD_SETTINGS = (*_OF_EVERY_POD, "volumes", "templateDefaults")
# Members of an object that say nothing about what it runs.
_ENVELOPE = frozenset(("apiVersion", "kind", "metadata", "status"))
# What only a container has. A bare name beside one of these is the reference of an image: ``image: alpine``.
_OF_CONTAINERS = frozenset(("args", "command", "env", "script", "securityContext", "volumeMounts", "imagePullPolicy"))
_READ = (*_OWN_POD, "ephemeralContainers")  # whose images are read with their pod


def is_templated(item: KubernetesObject) -> bool:
    """Whether ``{{…}}`` is the syntax of the resource's own parameters, and no chart that was not rendered."""
    return _is_argo(item)


def pods(item: KubernetesObject) -> Iterator[Node]:
    """Yield the pods of a custom resource, as templates with ``metadata`` and ``spec``. Raises UsageError."""
    spec = item.node.get("spec")
    if _is_argo(item):
        yield from _argo(spec)
    elif _group(item) == "tekton.dev" and item.kind in _TEKTON:
        yield from _tekton(item.kind, spec)
    # Looked for in the text first: a custom resource can be large, and the walk takes seconds for some.
    elif "'containers'" in repr(item.node.value):
        yield from _any_pods(_content(item), 0)


def _content(item: KubernetesObject) -> Node:
    """Return what an object says besides its name: most keep it in ``spec``, and some beside it."""
    members = {name: value for name, value in item.node.members() if name not in _ENVELOPE}
    return Node.of(item.node.document, item.node.pointer, members)


def unread(item: KubernetesObject) -> tuple[Node, str] | None:
    """Return where a resource says something about what it runs that is not read, and what that is."""
    spec = item.node.get("spec")
    if _is_argo(item):
        return _unread_of_argo(
            spec.get("workflowSpec") if spec.mapping().get("workflowSpec").value is not None else spec
        )
    if _group(item) == "tekton.dev" and item.kind in _TEKTON:
        return _unread_of_tekton(spec)
    if "'image'" not in repr(item.node.value):
        return None
    found = _image_named(_content(item), 0)
    if found is None:
        return None
    image = found.value if isinstance(found.value, str) else found.value["repository"]
    return found, f"names the image {image[:200]}, and how a {item.kind[:80]} runs it is not known"


def _unread_of_argo(spec: Node) -> tuple[Node, str] | None:
    templates = [each for _, each in _argo_templates(spec)]
    for each in (spec, spec.get("templateDefaults"), *templates):
        if each.get("podSpecPatch").value is not None:
            patch = each.get("podSpecPatch")
            return patch, "podSpecPatch changes the pods, and is not read: write its settings into the template"
        made = each.get("resource").mapping()
        source = _first(made.get("manifest"), made.get("manifestFrom"))
        if source is not None and made.get("action").value not in ("get", "delete"):
            return source, "resource makes an object, and its manifest is not read: audit it as a document of its own"
    # A reference to a template that is in no document; what this one sets, its pods get.
    by_reference = spec.get("workflowTemplateRef").value is not None or any(
        step.get("templateRef").value is not None for each in templates for step in _argo_steps(each)
    )
    given = _first(*(spec.get(name) for name in _POD_SETTINGS))
    if by_reference and given is not None:
        return given, "gives settings to pods of a template that stands elsewhere, and they are not judged together"
    return None


def _unread_of_tekton(spec: Node) -> tuple[Node, str] | None:
    """Return the settings that a run gives to pods of a task which stands in another document."""
    given = [spec.mapping().get("podTemplate"), spec.at("taskRunTemplate", "podTemplate")]
    for each in spec.get("taskRunSpecs").items():
        given += [each.mapping().get("podTemplate"), each.get("taskPodTemplate")]
    found = _first(*(each for each in given if each.value))
    references = [spec.get("taskRef"), spec.get("pipelineRef")]
    references += [task.get("taskRef") for task in _tasks_with_references(spec.get("pipelineSpec"), 0)]
    if found is None or _first(*references) is None:
        return None
    return found, "gives settings to pods of a task that stands elsewhere, and they are not judged together"


def _tasks_with_references(pipeline: Node, depth: int) -> Iterator[Node]:
    for each in (*pipeline.mapping().get("tasks").items(), *pipeline.get("finally").items()):
        yield each
        if each.mapping().get("pipelineSpec").value is not None and depth < _DEPTH:
            yield from _tasks_with_references(each.get("pipelineSpec"), depth + 1)


def _image_named(node: Node, depth: int) -> Node | None:
    if depth > _DEPTH:
        return None
    if isinstance(node.value, dict):
        for key, child in node.members():
            if key == "image" and _is_reference(node, child):
                return child
        children = [child for key, child in node.members() if key not in _READ]
    else:
        children = node.items() if isinstance(node.value, list) else []
    nested = (_image_named(child, depth + 1) for child in children if isinstance(child.value, dict | list))
    return next((each for each in nested if each is not None), None)


def _is_reference(holder: Node, image: Node) -> bool:
    """Return whether a member called ``image`` is the reference of one, and no picture."""
    if isinstance(image.value, dict):  # as in the values of charts: {repository: nginx, tag: "1.27"}
        return isinstance(image.value.get("repository"), str)
    if not isinstance(image.value, str):
        return False
    return bool(_IMAGE.fullmatch(image.value) or (image.value and not _OF_CONTAINERS.isdisjoint(holder.value)))


def _group(item: KubernetesObject) -> str:
    return (item.node.get("apiVersion").text() or "").partition("/")[0]


def _is_argo(item: KubernetesObject) -> bool:
    return _group(item) == "argoproj.io" and item.kind in _ARGO


def _pod(at: Node, members: Mapping[str, Any], metadata: Node | None = None) -> Node:
    """Return a pod template that is put together from several places. Each member keeps its own."""
    spec = Node.of(at.document, at.pointer, {name: value for name, value in members.items() if value is not None})
    return Node.of(at.document, at.pointer, {"metadata": metadata, "spec": spec} if metadata else {"spec": spec})


def _present(node: Node) -> Node | None:
    return node if node.value is not None else None


def _argo(spec: Node) -> Iterator[Node]:
    if spec.mapping().get("workflowSpec").value is not None:  # CronWorkflow
        spec = spec.get("workflowSpec")
    defaults = spec.get("templateDefaults").mapping()
    for name, template in _argo_templates(spec):
        named = [template.get("container"), template.get("script"), *template.at("containerSet", "containers").items()]
        if defaults.value is not None and not any(each.value is not None for each in named):
            named = [defaults.get("container"), defaults.get("script")]
        containers = [each for each in named if _has_image(each)]
        if not containers:
            continue  # steps, dag, suspend, resource, http: no container of one's own
        shared = {name: _first(template.get(name), defaults.get(name), spec.get(name)) for name in _OF_EVERY_POD}
        lists = {
            "volumes": [*template.get("volumes").items(), *spec.get("volumes").items()],
            "containers": [_within(name, each) for each in (*containers, *template.get("sidecars").items())],
            "initContainers": [_within(name, each) for each in template.get("initContainers").items()],
        }
        yield _pod(template, {**shared, **{name: value for name, value in lists.items() if value}})


def _argo_templates(spec: Node) -> Iterator[tuple[str, Node]]:
    """Yield the templates of a workflow by name, also those that are written inside of a step or task (``inline``)."""
    for template in spec.get("templates").items():
        yield from _with_inline(template.mapping().get("name").text() or "", template, 0)


def _argo_steps(template: Node) -> list[Node]:
    groups = template.mapping().get("steps").items()
    steps = [step for each in groups for step in (each.items() if isinstance(each.value, list) else [each])]
    return [*steps, *template.at("dag", "tasks").items()]


def _with_inline(name: str, template: Node, depth: int) -> Iterator[tuple[str, Node]]:
    yield name, template
    for step in _argo_steps(template):
        own = step.mapping().get("inline").mapping()
        if own.value is not None and depth < _DEPTH:
            yield from _with_inline("/".join(filter(None, (name, step.get("name").text()))), own, depth + 1)


def _within(name: str, container: Node) -> Node:
    """Return the container with the name of its template or task, which alone tells it from those of others."""
    own = container.mapping().get("name").text() or ""
    return Node.of(
        container.document,
        container.pointer,
        {**dict(container.members()), "name": "/".join(filter(None, (name, own)))},
    )


def _first(*nodes: Node) -> Node | None:
    return next((each for each in nodes if each.value is not None), None)


def _tekton(kind: str, spec: Node) -> Iterator[Node]:
    if kind == "StepAction":
        if _has_image(spec):
            yield _pod(spec, {"containers": [spec]})
        return
    pod = _first(spec.mapping().get("podTemplate"), spec.at("taskRunTemplate", "podTemplate"))
    if kind in ("Pipeline", "PipelineRun"):
        found = list(_tasks(spec.get("pipelineSpec") if kind == "PipelineRun" else spec, "", 0))
    else:
        found = [("", spec.get("taskSpec") if kind == "TaskRun" else spec)]
    own_pods = dict(_pods_of_tasks(spec))
    for name, task in found:
        defaults = task.mapping().get("stepTemplate").mapping()
        # A step without an image refers to a StepAction, which is read where it stands.
        steps = [step for step in (_step(each, defaults) for each in task.get("steps").items()) if _has_image(step)]
        if steps:
            own = {**dict(pod.members() if pod is not None else ()), **own_pods.get(name, {})}
            volumes = [*task.get("volumes").items(), *(own["volumes"].items() if "volumes" in own else ())]
            containers = [_within(name, each) for each in (*steps, *task.get("sidecars").items())]
            lists = {"containers": containers, "volumes": volumes}
            yield _pod(task, {**own, **{name: value for name, value in lists.items() if value}})


def _tasks(pipeline: Node, within: str, depth: int) -> Iterator[tuple[str, Node]]:
    """Yield the tasks that are written inside of a pipeline, by name, also those of a pipeline inside of it."""
    for each in (*pipeline.get("tasks").items(), *pipeline.get("finally").items()):
        name = "/".join(filter(None, (within, each.mapping().get("name").text())))
        yield name, each.get("taskSpec")
        if each.get("pipelineSpec").value is not None and depth < _DEPTH:
            yield from _tasks(each.get("pipelineSpec").mapping(), name, depth + 1)


def _pods_of_tasks(run: Node) -> Iterator[tuple[str, dict[str, Node]]]:
    """Yield the members of the pod templates that a PipelineRun gives to one task."""
    for each in run.get("taskRunSpecs").items():
        pod = _first(each.mapping().get("podTemplate"), each.get("taskPodTemplate"))  # v1, v1beta1
        if pod is not None:
            yield each.get("pipelineTaskName").text() or "", dict(pod.mapping().members())


def _step(step: Node, defaults: Node) -> Node:
    """Return a step with what ``stepTemplate`` sets for all steps."""
    members = {**dict(defaults.members()), **dict(step.mapping().members())}
    if "securityContext" in members and defaults.value is not None:
        context = [defaults.get("securityContext"), step.get("securityContext")]
        merged = {name: value for each in context for name, value in each.members() if value.value is not None}
        members["securityContext"] = Node.of(step.document, members["securityContext"].pointer, merged)
    resources = members.get("computeResources")
    if resources is not None:  # tekton.dev/v1; "resources" before
        members["resources"] = resources
    return Node.of(step.document, step.pointer, members)


def _any_pods(node: Node, depth: int) -> Iterator[Node]:
    """Yield the pods wherever a kind keeps them (Rollout, JobSet, ScaledJob, Prometheus ...)."""
    if depth > _DEPTH:
        return
    if isinstance(node.value, dict):
        spec = node.get("spec")
        if _has_containers(spec):
            yield node if _is_complete(spec) else _with_images(spec, node.get("metadata"))
            children = [child for key, child in node.members() if key != "spec"] + _beside_containers(spec)
        elif _has_containers(node):
            yield _with_images(node, node.get("podMetadata"))
            children = _beside_containers(node)
        else:
            children = [child for _, child in node.members()]
    else:
        children = node.items() if isinstance(node.value, list) else []
    for child in children:
        if isinstance(child.value, dict | list):
            yield from _any_pods(child, depth + 1)


def _beside_containers(spec: Node) -> list[Node]:
    """What may hold a further pod: `_image_named` skips the lists of containers of both."""
    return [child for key, child in spec.members() if key not in _READ]


def _has_image(node: Node) -> bool:
    return isinstance(node.value, dict) and bool(node.get("image").value)


def _has_containers(spec: Node) -> bool:
    found = spec.get("containers").value if isinstance(spec.value, dict) else None
    return isinstance(found, list) and any(isinstance(each, dict) and each.get("image") for each in found)


def _is_complete(spec: Node) -> bool:
    return all(_has_image(each) for name in _OWN_POD for each in _listed(spec, name))


def _listed(spec: Node, name: str) -> list[Node]:
    return spec.get(name).items() if isinstance(spec.get(name).value, list) else []


def _with_images(spec: Node, metadata: Node) -> Node:
    """Return the pod without containers that have no image: they patch one that the operator makes."""
    lists = {name: [each for each in _listed(spec, name) if _has_image(each)] for name in _OWN_POD}
    members = {name: value for name, value in spec.members() if name not in _OWN_POD}
    return _pod(spec, {**members, **{name: value for name, value in lists.items() if value}}, _present(metadata))
