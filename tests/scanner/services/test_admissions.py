"""Reviews of an API server: what is no review, and the mode and environment of a namespace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.config import Settings
from scanner.errors import UsageError
from scanner.services import admissions
from tests.kubernetes_objects import pod, review

IMAGE = "registry.example.com/shop/cart:1"
SETTINGS = Settings(admission_modes=("shop*=loud",), admission_environments=("shop*=Production",))


def test_a_review_whose_dry_run_is_no_truth_value_is_refused() -> None:
    """Taken for true, a real start would be judged without being recorded."""
    for value in ("true", "", [], {}):
        with pytest.raises(UsageError, match="dryRun") as refused:
            admissions.parse_review(review(pod(IMAGE), dryRun=value))
        assert refused.value.reason == "bad_review"
    assert admissions.parse_review(review(pod(IMAGE), dryRun=True)).dry_run
    assert not admissions.parse_review(review(pod(IMAGE), dryRun=None)).dry_run


def test_a_mode_and_an_environment_that_do_not_exist_are_refused() -> None:
    """A misspelt setting must not let everything in."""
    with pytest.raises(UsageError, match="no mode 'loud'"):
        admissions.mode_of(SETTINGS, "shop-test", "")
    with pytest.raises(UsageError, match="no mode 'silent'"):
        admissions.mode_of(SETTINGS, "bank", "silent")
    assert admissions.mode_of(SETTINGS, "bank", "") is admissions.Mode.ENFORCE
    with pytest.raises(UsageError, match="an environment consists of"):
        admissions.environment_of(SETTINGS, "shop-test", "")
    assert admissions.environment_of(SETTINGS, "bank", "production") == "production"


def images(kind: str, group: str, **members: object) -> list[str]:
    """The images of a new object that a review would judge."""
    value = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": {"name": "one"}, **members}
    document = review(value, kind={"group": group, "version": "v1", "kind": kind})
    return [each.image for each in admissions.containers_of(admissions.parse_review(document))]


def test_custom_resources_are_read_as_what_they_are() -> None:
    template = {"spec": {"containers": [{"name": "app", "image": IMAGE}]}}
    step = {"name": "a", "container": {"image": IMAGE, "args": ["{{inputs.parameters.x}}"]}}
    for kind, group, spec in (
        ("Workflow", "argoproj.io", {"templates": [step], "podSpecPatch": "{}"}),
        ("Rollout", "argoproj.io", {"template": template}),
        ("TaskRun", "tekton.dev", {"taskSpec": {"steps": [{"name": "a", "image": IMAGE}]}}),
        ("Service", "serving.knative.dev", {"template": template}),
        ("Job", "batch.volcano.sh", {"tasks": [{"name": "a", "template": template}]}),
        ("Job", "batch", {"template": template}),
        ("Anything", "example.com", {"deep": {"pod": template}}),
        ("Anything", "", {"deep": {"pod": template}}),
    ):
        assert images(kind, group, spec=spec) == [IMAGE], kind
    assert images("Anything", "example.com", spec={"image": IMAGE}) == [], "its pods are reviewed"
    with pytest.raises(UsageError, match=r"spec\.template"):
        images("Job", "batch", spec={"tasks": [{"name": "a", "template": template}]})


def test_ephemeral_containers_without_their_pod_are_refused() -> None:
    """An API server before 1.22 sends a kind that has no other member of the pod."""
    value = {"apiVersion": "v1", "kind": "EphemeralContainers", "ephemeralContainers": [{"name": "a", "image": IMAGE}]}
    with pytest.raises(UsageError, match="without its pod"):
        admissions.parse_review(review(value, "UPDATE", subResource="ephemeralcontainers"))


def test_pods_of_one_controller_are_one_workload() -> None:
    """Each has a name of its own. Two hundred of them must not be two hundred questions."""
    found = []
    for number in range(2):
        made = pod(IMAGE, name=f"web-7d4b9-{number}")
        made["metadata"]["generateName"] = "web-7d4b9-"
        found.append(admissions.containers_of(admissions.parse_review(review(made))))
    assert found[0] == found[1]
    alone = admissions.parse_review(review(pod(IMAGE, name="web")))
    assert admissions.containers_of(alone) != admissions.containers_of(
        replace(alone, object=pod(IMAGE, name="another"))
    )
