"""Remembered results: the same evidence again, and only while nothing that it depends on has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scanner import catalog
from scanner.advisories import database
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.checks.image.latest_tag import LatestTag
from scanner.config import Settings
from scanner.demo import samples
from scanner.errors import EngineError
from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.reference import Reference
from scanner.model.scan import ImageReport, Progress, ScanReport, ScanRequest, Stage
from scanner.scanning import results
from scanner.scanning.pipeline import for_reference, local_services, outcome_of, run
from scanner.scanning.results import Results, StoredResult, is_complete, key_of


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("image")
    samples.build_layout(samples.SAMPLES[1], directory)
    return directory


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    found = Settings(home=home)
    database.import_file(found, samples.build_advisories(home / "new-advisories"))
    return found


def scanned(layout: Path, settings: Settings, *, force: bool = False) -> tuple[ScanReport, list[Stage]]:
    stages: list[Stage] = []

    def note(progress: Progress) -> None:
        stages.append(progress.stage)

    with local_services(settings, remember=True) as services:
        return run(ScanRequest(f"oci:{layout}", force=force), services, note), stages


@pytest.fixture(scope="module")
def first(layout: Path, settings: Settings) -> ScanReport:
    found, stages = scanned(layout, settings)
    assert Stage.SCAN in stages
    return found


def test_an_unchanged_image_is_not_examined_again(layout: Path, settings: Settings, first: ScanReport) -> None:
    again, stages = scanned(layout, settings)
    assert stages == [Stage.RESOLVE]
    assert again.images == first.images


def test_a_forced_scan_examines_it(layout: Path, settings: Settings, first: ScanReport) -> None:
    again, stages = scanned(layout, settings, force=True)
    assert Stage.SCAN in stages
    assert again.images == first.images


def test_a_changed_entry_is_not_believed(layout: Path, settings: Settings, first: ScanReport) -> None:
    """Somebody writes a result without its findings in the place of ours."""
    (path,) = (settings.home / "results").glob("*.sealed")
    ours = path.read_bytes()
    assert b"CVE-2026-90001" in ours
    path.write_bytes(ours.replace(b"CVE-2026-90001", b"CVE-2026-00000"))
    try:
        again, stages = scanned(layout, settings)
    finally:
        path.write_bytes(ours)
    assert Stage.SCAN in stages
    assert again.images == first.images


def test_the_key_contains_what_a_result_depends_on(
    settings: Settings, first: ScanReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = first.images[0].image
    own = key_of(image, None, ("trivy",), settings)
    assert own
    assert own == key_of(image, None, ("trivy",), settings)
    other_layer = replace(image.layers[0], digest=image.config.digest)
    others = {
        key_of(replace(image, layers=(other_layer, *image.layers[1:])), None, ("trivy",), settings),
        key_of(image, None, ("trivy",), replace(settings, engine_secrets=True)),
        key_of(image, None, ("trivy",), replace(settings, limits=replace(settings.limits, packages=7))),
    }
    monkeypatch.setattr(results, "_code", lambda: "another check")
    others.add(key_of(image, None, ("trivy",), settings))
    assert len(others) == 4
    assert own not in others


def test_nothing_is_remembered_of_what_cannot_be_known(settings: Settings, first: ScanReport, tmp_path: Path) -> None:
    image = first.images[0].image
    assert key_of(image, None, ("clair",), settings) == "", "its database is on another machine"
    assert key_of(image, None, (), settings) == ""
    assert key_of(image, None, ("trivy",), Settings(home=tmp_path)) == "", "no advisory database"
    assert key_of(image, None, ("trivy",), replace(settings, attached_sboms=True)) == ""


def test_an_incomplete_result_is_not_kept(first: ScanReport, tmp_path: Path) -> None:
    whole = first.images[0]
    gap = Incomplete("scan_timeout", "too slow")
    failed = CheckResult("non-root-user", Incomplete("check_failed", "a bug"))
    assert is_complete(whole)
    partial: tuple[ImageReport, ...] = (
        replace(whole, engines=()),
        replace(whole, engines=(replace(whole.engines[0], incomplete=(gap,)),)),
        replace(whole, incomplete=(gap,)),
        replace(whole, checks=(failed,)),
    )
    kept = Results.under(tmp_path)
    for number, found in enumerate(partial):
        kept.put(str(number), StoredResult(found))
        assert kept.get(str(number)) is None
    kept.put("whole", StoredResult(whole, "a/b:1", ("latest-tag",)))
    assert kept.get("whole") == StoredResult(whole, "a/b:1", ("latest-tag",))


def test_an_entry_that_cannot_be_read_is_absent(tmp_path: Path) -> None:
    kept = Results.under(tmp_path)
    for data in (b"", b"{}", b"not JSON"):
        kept.kept.put("one", data)
        assert kept.get("one") is None


def test_a_missing_engine_is_found_out_by_the_scan(
    settings: Settings, first: ScanReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, settings: Settings) -> None:
        raise EngineError(f"{name} is not installed", reason="engine_missing")

    monkeypatch.setattr(results, "_engine", missing)
    assert key_of(first.images[0].image, None, ("trivy",), settings) == ""


def test_a_derived_value_is_made_once_and_a_planted_one_is_not_believed(tmp_path: Path) -> None:
    kept = Results.under(tmp_path)
    made: list[int] = []

    def make() -> tuple[CheckResult, ...]:
        made.append(1)
        return (CheckResult("x", Failed((Evidence("found", amount=2),))),)

    def ask() -> tuple[CheckResult, ...]:
        return kept.derived("name", tuple[CheckResult, ...], make)

    assert ask() == ask() == make()
    assert len(made) == 2
    (path,) = (tmp_path / "derived").glob("*.sealed")
    path.write_bytes(path.read_bytes().replace(b"found", b"lost!"))
    assert ask() == make()
    assert len(made) == 4


def test_a_derived_value_of_changed_files_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Results.under(tmp_path)
    assert kept.derived("name", dict[str, str], lambda: {"a": "1"}) == {"a": "1"}
    monkeypatch.setattr(results, "_code", lambda: "changed")
    assert kept.derived("name", dict[str, str], lambda: {"a": "2"}) == {"a": "2"}


def test_a_gap_of_the_database_is_remembered_with_the_result(first: ScanReport) -> None:
    (image,) = first.images
    for reason, kept in (("no_advisories", True), ("scanner_failed", False), ("nothing_to_scan", False)):
        engine = replace(image.engines[0], incomplete=(Incomplete(reason, "why"),))
        assert is_complete(replace(image, engines=(engine,))) is kept
        assert is_complete(replace(image, incomplete=(Incomplete(reason, "why"),))) is kept


def test_checks_of_a_reference_are_repeated_for_another_one(first: ScanReport) -> None:
    whole = replace(first.images[0], checks=(*first.images[0].checks[:1], CheckResult("latest-tag", Passed())))
    known = StoredResult(whole, "registry.example.com/shop/app:1", ("latest-tag",))
    assert for_reference(known, Reference.parse("registry.example.com/shop/app:1")) == whole
    assert for_reference(known, None).checks[1].outcome == NotApplicable("the image is not from a registry")
    moved = for_reference(known, Reference.parse("registry.example.com/shop/app:latest"))
    assert isinstance(moved.checks[1].outcome, Failed)
    assert moved.checks[1].severity is LatestTag.severity
    assert replace(moved, checks=whole.checks) == whole


def test_a_check_sees_the_reference_only_if_it_says_so(first: ScanReport) -> None:
    """Otherwise its remembered outcome would be that of another reference."""

    class Curious(ConfigCheck):
        id = "curious"
        severity = Severity.LOW

        def examine(self, subject: ImageSubject) -> Outcome:
            return Passed() if subject.reference is None else Incomplete("seen", "it looked")

    class Declared(Curious):
        looks_at_reference = True

    subject = ImageSubject(first.images[0].image, None, reference=Reference.parse("registry.example.com/shop/app:1"))
    assert outcome_of(Curious(), subject) == Passed()
    assert outcome_of(Declared(), subject) == Incomplete("seen", "it looked")


def test_checks_that_look_at_the_reference_look_at_no_file() -> None:
    """The layers are not read again for another reference."""
    marked = [check for check in catalog.image_checks().values() if check.looks_at_reference]
    assert "latest-tag" in {check.id for check in marked}
    assert all(isinstance(check, ConfigCheck) for check in marked)
