"""Files of the developer's machine."""

from __future__ import annotations

import pytest

from scanner.checks.image.leftover_files import LeftoverFiles
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("path", "where", "severity"),
    [
        ("srv/app/.git/objects/ab/cd", "srv/app/.git", Severity.MEDIUM),
        ("root/.aws/config", "root/.aws", Severity.MEDIUM),
        ("root/.bash_history", "root/.bash_history", Severity.MEDIUM),
        ("root/.cache/pip/http/a", "root/.cache", None),
        ("app/Dockerfile", "app/Dockerfile", None),
        ("app/docker-compose.prod.yml", "app/docker-compose.prod.yml", None),
        ("app/.DS_Store", "app/.DS_Store", None),
    ],
)
def test_what_was_left(path: str, where: str, severity: Severity | None) -> None:
    outcome = LeftoverFiles().examine(subject(layer(entry(path))))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].path, outcome.severity) == (where, severity)
    assert outcome.remedy == f"RUN rm -rf /{where}"


@pytest.mark.parametrize(
    "made",
    [
        entry("root/.cache", kind=FileType.DIRECTORY),
        entry("app/node_modules/x/.vscode/settings.json"),
        entry("usr/share/docker/Dockerfile"),
        entry("usr/lib/python3/dist-packages/x/.git/HEAD"),
        entry("app/.github/CODEOWNERS"),
    ],
)
def test_empty_directories_and_packages_are_left_alone(made: object) -> None:
    """Dockle (DKL-LI-0003) minds a directory for its name, whether anything is in it or not."""
    assert isinstance(LeftoverFiles().examine(subject(layer(made))), Passed)  # type: ignore[arg-type]


def test_a_tree_is_told_once_with_its_size() -> None:
    made = layer(*(entry(f"app/.git/{n}", size=1_000_000) for n in range(5)))
    outcome = LeftoverFiles().examine(subject(made))
    assert isinstance(outcome, Failed)
    assert [e.message for e in outcome.evidence] == ["/app/.git contains version control data (5.0 MB)"]


def test_without_files_it_is_not_known() -> None:
    assert isinstance(LeftoverFiles().examine(unreadable()), Incomplete)
