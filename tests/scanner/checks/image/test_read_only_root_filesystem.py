"""Whether it could run with a read-only root, and what would have to be writable."""

from __future__ import annotations

from scanner.checks.image.read_only_root_filesystem import ReadOnlyRootFilesystem
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable

NGINX = layer(entry("usr/sbin/nginx", mode=0o755))


def test_a_server_names_what_it_writes() -> None:
    outcome = ReadOnlyRootFilesystem().examine(subject(NGINX, entrypoint=("nginx",)))
    assert isinstance(outcome, Failed)
    assert {e.path for e in outcome.evidence} == {"var/cache/nginx", "var/run", "var/log/nginx"}
    assert "--tmpfs /var/cache/nginx" in outcome.remedy
    assert all("certain" in e.message for e in outcome.evidence)


def test_logs_that_are_links_to_the_console_need_nothing() -> None:
    logs = layer(entry("var/log/nginx/access.log", kind=FileType.SYMLINK, link="/dev/stdout"))
    outcome = ReadOnlyRootFilesystem().examine(subject(NGINX, logs, cmd=("nginx", "-g", "daemon off;")))
    assert isinstance(outcome, Failed)
    assert "var/log/nginx" not in {e.path for e in outcome.evidence}


def test_declared_volumes_are_writable_anyway() -> None:
    image = subject(NGINX, entrypoint=("nginx",), volumes=("/var/cache/nginx", "/var/run", "/var/log"))
    assert isinstance(ReadOnlyRootFilesystem().examine(image), Passed)


def test_a_program_that_is_there_but_not_started_writes_nothing() -> None:
    assert isinstance(ReadOnlyRootFilesystem().examine(subject(NGINX, entrypoint=("/srv/app",))), Passed)


def test_a_state_directory_given_to_the_running_user() -> None:
    made = layer(entry("var/lib/shop", kind=FileType.DIRECTORY, uid=10001))
    outcome = ReadOnlyRootFilesystem().examine(subject(made, user="10001:10001"))
    assert isinstance(outcome, Failed)
    assert "likely" in outcome.evidence[0].message


def test_without_files_it_is_not_known() -> None:
    assert isinstance(ReadOnlyRootFilesystem().examine(unreadable()), Incomplete)
