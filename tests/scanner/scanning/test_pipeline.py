"""What a check's word becomes before it is stored: without a secret's value, and Incomplete where the check broke."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from scanner import catalog
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.checks.image.setuid_files import SetuidFiles
from scanner.config import Settings
from scanner.errors import ImageError
from scanner.model.filesystem import ContentMatch, FileType
from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.image import Layer
from scanner.model.scan import ScanReport, ScanRequest
from scanner.model.untrusted import escaped
from scanner.registry.sources import open_target
from scanner.scanning import pipeline
from scanner.scanning.pipeline import local_services, outcome_of, run
from tests.scanner.checks.factory import entry, layer, subject

LINE = "RUN |1 NPM_TOKEN=hunter2-really /bin/sh -c npm ci"


class _Says(ImageCheck):
    """Answers what it is made with."""

    id = "says"

    def __init__(self, outcome: Outcome | None) -> None:
        self._outcome = outcome

    def examine(self, subject: ImageSubject) -> Outcome:
        if self._outcome is None:
            raise RuntimeError("a check that breaks")
        return self._outcome


def test_the_instruction_that_made_a_layer_holds_no_secret() -> None:
    outcome = outcome_of(SetuidFiles(), subject(layer(entry("bin/su", mode=0o4755)), history=[LINE]))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].instruction.startswith("RUN ")
    assert "hunter2" not in str(outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        Passed((Evidence(f"seen in {LINE}"),)),
        Failed((Evidence("x", instruction=LINE),), tolerated=(Evidence("y", instruction=LINE),)),
        Failed((Evidence("x"),), remedy=LINE),
    ],
)
def test_nor_does_anything_else_that_a_check_says(outcome: Outcome) -> None:
    assert "hunter2" in str(outcome)
    assert "hunter2" not in str(outcome_of(_Says(outcome), subject()))


def test_a_check_that_breaks_has_not_examined() -> None:
    outcome = outcome_of(_Says(None), replace(subject(), rootfs=None))
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == "check_failed"


ODD = "\udcff"
FILES = (
    entry(f"bin/{ODD}", mode=0o4755),
    entry(f"srv/{ODD}", mode=0o666),
    entry(f"home/{ODD}/.aws/credentials"),
    entry(f"usr/bin/link{ODD}", kind=FileType.SYMLINK, link=f"/{ODD}"),
    entry(f"opt/{ODD}/id_rsa", uid=77777, gid=77777),
)


def test_evidence_about_a_name_that_is_not_utf_8_can_be_stored_and_rendered() -> None:
    """Python holds such a name as half a surrogate pair, which no JSON, database or terminal takes."""
    key = ContentMatch("private-key", f"opt/{ODD}/id_rsa", 1, "-----BEGIN PRIVATE KEY-----… (100 characters)")
    facts = layer(*FILES, contents={"etc/passwd": b"root:x:0:0::/:/bin/sh\n\xff::0:0::/:/bin/sh\n"}, matches=[key])
    made = subject(
        facts, user="\udcff", history=[f"COPY {ODD} / # buildkit"], labels=((f"a{ODD}", ODD),), env=((ODD, ODD),)
    )
    results = tuple(CheckResult(c.id, outcome_of(c, made), c.severity) for c in catalog.image_checks().values())
    assert not [
        result
        for result in results
        if isinstance(result.outcome, Incomplete) and result.outcome.reason == "check_failed"
    ]
    found = escaped(results)
    data = TypeAdapter(tuple[CheckResult, ...]).dump_json(found)
    assert data.count(b"\\\\xff") > 5
    failed = {result.check for result in found if isinstance(result.outcome, Failed)}
    assert {"setuid-files", "world-writable-files", "embedded-secrets"} <= failed


def test_a_scan_of_an_image_whose_setuid_file_is_named_ff(settings: Settings) -> None:
    archive = Path(__file__).parents[2] / "data" / "hostile" / "setuid_ff.tar"
    with local_services(settings) as services:
        found = run(ScanRequest(f"archive:{archive}"), services, lambda progress: None)
    assert b"bin/\\\\xff is setuid" in TypeAdapter(ScanReport).dump_json(found)


@pytest.mark.parametrize("other", [{"size": 1}, {"media_type": "application/vnd.oci.image.layer.v1.tar"}])
def test_a_layer_that_is_known_is_refused_with_another_size_or_type(settings: Settings, other: dict[str, Any]) -> None:
    """Runtimes refuse it, and so does a new installation: images that were scanned before change nothing."""
    archive = Path(__file__).parents[2] / "data/hostile/setuid_ff.tar"
    with local_services(settings) as services, open_target(f"archive:{archive}", settings) as source:
        (layer,) = source.image(source.resolve())[0].layers

        def read_again(layer: Layer) -> object:
            progress = pipeline._Bytes(lambda done: None, 1)
            return pipeline.read_one(source, layer, services.layers, progress, pipeline.Deadline.after(60))

        assert read_again(layer) == read_again(layer)
        with pytest.raises(ImageError):
            read_again(replace(layer, **other))
