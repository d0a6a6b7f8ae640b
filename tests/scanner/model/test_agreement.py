"""Two engines' words on one image: the same thing is one finding, and nothing that only one of them says is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.model.agreement import Stance, components, findings
from scanner.model.finding import CVSS, Component, EngineReport, Incomplete, Severity, Vulnerability
from tests.reports_factory import engine, vulnerability


def trivy(*items: Vulnerability, **more: Any) -> EngineReport:
    return engine(items, **more)


def clair(*items: Vulnerability, **more: Any) -> EngineReport:
    return replace(engine([replace(v, engines=("clair",)) for v in items], **more), engine="clair", version="v4")


def test_one_engine_is_taken_as_it_is() -> None:
    one, two = vulnerability(), vulnerability(path="elsewhere")
    found = findings([trivy(one, two)])
    assert [f.vulnerability for f in found] == [one, two]
    assert not any(f.disputed for f in found)


def test_what_both_say_is_one_finding() -> None:
    ours = replace(vulnerability(), purl="pkg:deb/debian/openssl@1.0?distro=debian-12.8")
    theirs = replace(vulnerability(), purl="pkg:deb/debian/openssl@1.0?arch=amd64&distro=debian-12")
    (found,) = findings([trivy(ours), clair(theirs)])
    assert found.vulnerability.purl == ours.purl
    assert found.vulnerability.engines == ("trivy", "clair")
    assert not found.disputed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("CVE-2026-1", ()), ("DSA-1", ("CVE-2026-1",))),
        (("CVE-2026-1", ("DSA-1",)), ("DSA-1", ())),
        (("GHSA-a", ("CVE-2026-1",)), ("PYSEC-1", ("CVE-2026-1",))),
    ],
)
def test_an_alias_is_the_same_advisory(one: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]) -> None:
    ours, theirs = (replace(vulnerability(name), aliases=aliases) for name, aliases in (one, other))
    (found,) = findings([trivy(ours), clair(theirs)])
    assert found.vulnerability.id == one[0]
    assert {other[0], *other[1], *one[1]} - {one[0]} <= set(found.vulnerability.aliases)


def test_an_advisory_that_closes_two_meets_both_and_does_not_make_them_one() -> None:
    first = replace(vulnerability("CVE-2026-1"), aliases=("DSA-1",))
    second = replace(vulnerability("CVE-2026-2", severity="low"), aliases=("DSA-1",))
    both = replace(vulnerability("DSA-1"), aliases=("CVE-2026-1", "CVE-2026-2"))
    found = findings([trivy(first, second), clair(both)])
    assert [f.vulnerability.id for f in found] == ["CVE-2026-1", "CVE-2026-2"]
    assert all(f.vulnerability.engines == ("trivy", "clair") for f in found)
    assert [f.vulnerability.id for f in findings([trivy(first), clair(second)])] == ["CVE-2026-1", "CVE-2026-2"]


@pytest.mark.parametrize(
    "change",
    [
        {"purl": "pkg:rpm/redhat/openssl@1.0"},
        {"package": "libssl"},
        {"installed_version": "1.1"},
        {"id": "CVE-2026-2"},
    ],
)
def test_another_package_version_or_advisory_stays_apart(change: dict[str, str]) -> None:
    found = findings([trivy(vulnerability()), clair(replace(vulnerability(), **change))])
    assert len(found) == 2
    assert all(f.disputed for f in found)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("pypi", ("Zope.Interface", "5.0"), ("zope-interface", "5.0")),
        ("rpm/redhat", ("bash", "0:4.4-1.el8"), ("bash", "4.4-1.el8")),
        ("golang", ("example.com/mod", "v1.2.3"), ("example.com/mod", "1.2.3")),
    ],
)
def test_one_package_written_in_two_ways(kind: str, one: tuple[str, str], other: tuple[str, str]) -> None:
    def of(name: str, version: str) -> Vulnerability:
        return replace(vulnerability(), purl=f"pkg:{kind}/x", package=name, installed_version=version)

    assert len(findings([trivy(of(*one)), clair(of(*other))])) == 1


def test_the_worst_is_shown_and_who_says_what() -> None:
    ours = replace(vulnerability(severity="high", fixed=None), cvss=(CVSS("3.1", "", 7.0, "nvd"),))
    theirs = replace(vulnerability(severity="critical", fixed="2.0"), cvss=(CVSS("3.1", "", 9.0, "vendor"),))
    (found,) = findings([trivy(ours), clair(theirs)])
    assert (found.vulnerability.severity, found.vulnerability.fixed_versions) == (Severity.CRITICAL, ("2.0",))
    assert {c.score for c in found.vulnerability.cvss} == {7.0, 9.0}
    assert found.dispute == "trivy reports high, no fix; clair reports critical, fixed in 2.0"


def test_silence_of_an_engine_that_looked_is_a_word_and_of_another_none() -> None:
    (silent,) = findings([trivy(vulnerability()), clair()])
    assert (silent.opinions[1].word, silent.disputed) == (Stance.SILENT, True)
    assert silent.dispute.endswith("clair does not report it")
    (unknown,) = findings([trivy(vulnerability()), clair(incomplete=[Incomplete("unsupported_os")])])
    assert (unknown.opinions[1].word, unknown.disputed) == (Stance.UNKNOWN, False)


def test_components_are_listed_once_and_completed() -> None:
    ours = Component("pkg:deb/debian/a@1?distro=debian-12.8", "a", "1", "debian")
    theirs = replace(ours, purl="pkg:deb/debian/a@1?distro=debian-12", licenses=("MIT",), source_name="a-src")
    only = Component("pkg:deb/debian/b@1", "b", "1", "debian")
    twice = [replace(ours, path="x"), replace(ours, path="y")]
    found = components([replace(trivy(), components=(ours,)), replace(clair(), components=(theirs, only))])
    assert found == (replace(ours, licenses=("MIT",), source_name="a-src"), only)
    assert len(components([replace(trivy(), components=tuple(twice)), replace(clair(), components=(theirs,))])) == 2


words = st.builds(
    vulnerability,
    st.sampled_from(["CVE-2026-1", "CVE-2026-2", "DSA-1"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["low", "critical", "unknown"]),
    aliases=st.lists(st.sampled_from(["CVE-2026-1", "CVE-2026-2", "DSA-1"]), max_size=2).map(tuple),
)


@given(st.lists(words, max_size=4), st.lists(words, max_size=4))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_is_made_better(ours: list[Vulnerability], theirs: list[Vulnerability]) -> None:
    found = findings([trivy(*ours), clair(*theirs)])
    for item in [*ours, *theirs]:
        shown = [f.vulnerability for f in found if f.vulnerability.package == item.package]
        names = {v.id for v in shown} | {alias for v in shown for alias in v.aliases}
        assert item.id in names
        assert max(v.severity.rank for v in shown) >= item.severity.rank
    assert len(found) <= len(ours) + len(theirs)
