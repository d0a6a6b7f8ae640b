"""Whether it could run with a read-only root, and what would have to be writable."""

from __future__ import annotations

from typing import Any

import pytest

from scanner.checks.image.read_only_root_filesystem import ReadOnlyRootFilesystem
from scanner.model.filesystem import FileType, LayerFacts
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable

NGINX = layer(entry("usr/sbin/nginx", mode=0o755))


def needed(*layers: LayerFacts, **config: Any) -> dict[str, str]:
    """Path -> tmpfs or volume."""
    outcome = ReadOnlyRootFilesystem().examine(subject(*layers, **config))
    return {e.path: e.name for e in outcome.evidence} if isinstance(outcome, Failed) else {}


def test_a_server_names_what_it_writes() -> None:
    outcome = ReadOnlyRootFilesystem().examine(subject(NGINX, entrypoint=("nginx",)))
    assert isinstance(outcome, Failed)
    assert {e.path for e in outcome.evidence} == {"var/cache/nginx", "run", "var/log/nginx"}
    assert outcome.remedy == "docker run --read-only --tmpfs /run --tmpfs /var/cache/nginx --tmpfs /var/log/nginx"
    assert all("certain" in e.message for e in outcome.evidence)


def test_a_servers_own_configuration_counts() -> None:
    conf = (
        b"error_log stderr;\npid /tmp/nginx.pid;\nhttp { access_log /dev/stdout;\n  client_body_temp_path "
        b"/tmp/body;\n }\n"
    )
    assert needed(layer(contents={"etc/nginx/nginx.conf": conf}), cmd=("nginx",)) == {"tmp": "tmpfs"}


@pytest.mark.parametrize(
    ("program", "path"),
    [
        ("nginx", "etc/nginx/nginx.conf"),
        ("apache2", "etc/apache2/envvars"),
        ("httpd", "usr/local/apache2/conf/httpd.conf"),
        ("mongod", "etc/mongod.conf"),
    ],
)
def test_a_megabyte_of_blank_lines_takes_no_time(program: str, path: str) -> None:
    blank, empty = (layer(contents={path: b"\n" * number}) for number in (1 << 20, 1))
    assert needed(blank, cmd=(program,)) == needed(empty, cmd=(program,))


def test_a_distributions_defaults_are_not_another_ones() -> None:
    debian = layer(
        entry("var/lib/nginx", kind=FileType.DIRECTORY), contents={"etc/nginx/nginx.conf": b"pid /run/nginx.pid;\n"}
    )
    assert set(needed(debian, cmd=("nginx",))) == {"run", "var/lib/nginx", "var/log/nginx"}


def test_logs_that_are_links_to_the_console_need_nothing() -> None:
    logs = layer(
        *(
            entry(f"var/log/nginx/{n}.log", kind=FileType.SYMLINK, link=f"/dev/std{o}")
            for n, o in (("access", "out"), ("error", "err"))
        )
    )
    assert "var/log/nginx" not in needed(NGINX, logs, cmd=("nginx", "-g", "daemon off;"))


def test_links_are_followed() -> None:
    made = layer(
        entry("var/run", kind=FileType.SYMLINK, link="/run"),
        contents={"etc/nginx/nginx.conf": b"pid /var/run/nginx.pid;"},
    )
    assert "run" in needed(made, cmd=("nginx",))


@pytest.mark.parametrize(
    ("config", "path", "kind"),
    [
        ({"cmd": ("postgres",), "env": (("PGDATA", "/srv/pg"),)}, "srv/pg", "volume"),
        ({"cmd": ("redis-server",), "working_dir": "/data"}, "data", "volume"),
        ({"cmd": ("mysqld",)}, "var/lib/mysql", "volume"),
        ({"cmd": ("gunicorn", "app")}, "tmp", "tmpfs"),
        ({"cmd": ("/bin/sh", "-c", "migrate && mongod --quiet")}, "data/db", "volume"),
    ],
)
def test_servers_that_are_known(config: dict[str, Any], path: str, kind: str) -> None:
    assert needed(**config)[path] == kind


def test_an_entrypoint_script_shows_what_it_writes() -> None:
    script = (
        b"#!/bin/sh\n# echo > /never\nmkdir -p /var/cache/app\nsed -i s/a/b/ /etc/app/app.conf\necho x "
        b'>> /srv/log/a.log 2>/dev/null\nexec "$@"\n'
    )
    made = layer(contents={"usr/local/bin/docker-entrypoint.sh": script})
    found = needed(made, entrypoint=("docker-entrypoint.sh",), cmd=("app",))
    assert found == {"var/cache/app": "tmpfs", "etc/app": "tmpfs", "srv/log": "tmpfs"}


def test_the_builds_own_logs_are_no_applications() -> None:
    made = layer(entry("var/log/dpkg.log"), entry("var/log/apt/term.log"), entry("var/log/app/app.log"))
    assert set(needed(NGINX, made)) == {"var/log/app"}


def test_one_directory_below_another_is_one_need() -> None:
    made = layer(*(entry(p, kind=FileType.DIRECTORY, uid=7) for p in ("var/lib/x", "var/lib/x/a", "srv/x/uploads")))
    assert needed(made, user="7") == {"var/lib/x": "volume", "srv/x/uploads": "volume"}


def test_declared_volumes_are_writable_anyway() -> None:
    image = subject(NGINX, entrypoint=("nginx",), volumes=("/var/cache/nginx", "/run", "/var/log"))
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
