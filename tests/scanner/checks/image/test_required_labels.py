"""Labels that tell where an image comes from."""

from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.required_labels import RequiredLabels
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject

SOURCE, REVISION = "org.opencontainers.image.source", "org.opencontainers.image.revision"


def test_missing_and_empty_ones() -> None:
    outcome = RequiredLabels().examine(subject(labels=((SOURCE, " "),)))
    assert isinstance(outcome, Failed)
    assert [e.message for e in outcome.evidence] == [f"label {SOURCE} is empty", f"label {REVISION} is missing"]
    assert outcome.remedy == f'LABEL {SOURCE}="…" {REVISION}="…"'


def test_labels_or_annotations() -> None:
    made = subject(labels=((SOURCE, "https://git.example.com/x"),))
    made = replace(made, image=replace(made.image, annotations=((REVISION, "abc"),)))
    assert isinstance(RequiredLabels().examine(made), Passed)


def test_a_policy_names_its_own() -> None:
    made = subject(labels=((SOURCE, "x"), (REVISION, "y")))
    check = RequiredLabels()
    outcome = check.judge(check.examine(made), made.image, {"labels": ("com.example.team",)})
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].name == "com.example.team"
    assert isinstance(check.judge(outcome, made.image, {"labels": ()}), Passed)
