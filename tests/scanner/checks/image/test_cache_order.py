from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.base import ImageSubject
from scanner.checks.image.cache_order import CacheOrder
from scanner.model.filesystem import LayerFacts
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, without_history

ROOT = layer(contents={"etc/passwd": PASSWD, "etc/os-release": b"ID=debian\n", "usr/lib/x.py": b"x"})
SOURCES = layer(entry("app/package.json"), entry("app/src/index.js"), entry("app/main.py"))
MANIFEST = layer(entry("app/package.json"), entry("app/requirements.txt"), entry("app/setup.py"))
SCRIPT = layer(entry("usr/local/bin/docker-entrypoint.sh"))
INSTALLED = layer(entry("app/node_modules/x/index.js"))


def image(*steps: tuple[str, LayerFacts]) -> ImageSubject:
    steps = (("/bin/sh -c #(nop) ADD file:01 in / ", ROOT), *steps)
    return subject(*(facts for _, facts in steps), history=[line for line, _ in steps])


def run(script: str) -> tuple[str, LayerFacts]:
    return f"RUN /bin/sh -c {script} # buildkit", INSTALLED


@pytest.mark.parametrize(
    "script",
    [
        "npm ci --omit=dev",
        "yarn",
        "pip install --no-cache-dir -r requirements.txt",
        "python3 -m pip install flask",
        "apt-get update; apt-get install -y x",
        "cd /app && bundle install",
        "go mod download",
        "composer install",
        "uv sync --frozen",
    ],
)
@pytest.mark.parametrize(
    "copy",
    [
        "COPY . /app # buildkit",
        "/bin/sh -c #(nop) COPY dir:0123 in /app ",
        "ADD . /app # buildkit",
        "COPY src /app # buildkit",
    ],
)
def test_after_the_sources(copy: str, script: str) -> None:
    outcome = CacheOrder().examine(image((copy, SOURCES), run(script)))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 2


@pytest.mark.parametrize(
    "steps",
    [
        (
            ("COPY package*.json ./ # buildkit", MANIFEST),
            run("npm ci"),
            ("COPY . . # buildkit", SOURCES),
            run("npm run build && npm prune && npm ci --omit=dev"),
        ),
        (("COPY docker-entrypoint.sh /usr/local/bin/ # buildkit", SCRIPT), run("npm ci")),
        (
            ("COPY . . # buildkit", SOURCES),
            run("pip install . && pip install -e .[x] --no-deps && npm run build && go build ./..."),
        ),
        (("COPY /src/node_modules /app/node_modules # buildkit", SOURCES), run("npm ci")),
        (("COPY . . # buildkit", SOURCES),),
    ],
)
def test_in_good_order(steps: tuple[tuple[str, LayerFacts], ...]) -> None:
    assert isinstance(CacheOrder().examine(image(*steps)), Passed)


def test_by_words_where_the_files_cannot_be_read() -> None:
    unread = replace(image(("COPY . /app # buildkit", SOURCES), run("npm ci")), rootfs=None)
    assert isinstance(CacheOrder().examine(unread), Failed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(CacheOrder().examine(without_history()), Incomplete)
