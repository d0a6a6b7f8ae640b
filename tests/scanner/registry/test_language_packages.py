"""Packages of languages that an engine did not list: a gap for each that a runtime would load, and for no other."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.checks._secrets import SecretScanner
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Component
from scanner.registry import language_packages
from scanner.registry.facts import FactsCache
from scanner.registry.language_packages import unread_records
from scanner.registry.layers import ContentWants
from scanner.registry.rpm import read as read_rpm
from tests.scanner.registry.archives import archive, directory, file, hardlink, read, rootfs, symlink
from tests.scanner.registry.rpm_databases import header, sqlite

BOM = b"\xef\xbb\xbf"
LODASH = "app/node_modules/lodash/package.json"
PACKAGE = b'{"name": "lodash", "version": "4.17.20"}'
CODE = file("app/node_modules/lodash/index.js", b"1")
SITE = "usr/local/lib/python3.11/site-packages"
METADATA, REQUESTS = f"{SITE}/requests-2.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: Requests\nVersion: 2.0\n"
DEPS = {
    "runtimeTarget": {"name": "net8"},
    "targets": {"net8": {"X/1.0": {"runtime": {"X.dll": {}}}}},
    "libraries": {"X/1.0": {"type": "package"}},
}
COMPILED_ONLY = DEPS | {"targets": {"net8": {"X/1.0": {"compile": {"X.dll": {}}}}}}


def jar(*names: str, stored: bytes = b"") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name in names:
            opened.writestr(name, b"version=2.0\n" + stored)
    return made.getvalue()


def unread(found: Rootfs, *paths: str) -> list[str]:
    """Records that an engine missed that read those at ``paths``."""
    components = [Component("pkg:x/x@1", "x", "1", "x", path=path) for path in paths]
    return list(unread_records(found, components))


def component(path: str, name: str, version: str, layer: int, found: Rootfs) -> Component:
    return Component("pkg:x/x@1", name, version, "x", path=path, layer=found.layers[layer].diff_id)


@pytest.mark.parametrize(
    ("path", "data", "remark"),
    [
        (LODASH, BOM + PACKAGE, "Node.js, begins with a byte order mark"),
        (LODASH, PACKAGE[:-1], "Node.js, is not valid JSON"),
        (LODASH, b'{"name": "lodash"}', "Node.js"),
        (LODASH, PACKAGE[:-1] + b', "dependencies": []}', "Node.js, has members of another form"),
        (LODASH, b'{"name": "lodash", "version": 4}', "Node.js, has members of another form"),
        ("app/vendor/a/package.json", PACKAGE[:-1] + b', "devDependencies": {"a": {}}}', "Node.js, has members"),
        (LODASH, b"[" * 100_000, "Node.js, is not valid JSON"),
        (LODASH, PACKAGE[:-1] + b', "x": "\xff"}', "Node.js"),
        ("app/node_modules/.pnpm/lodash@4/node_modules/lodash/package.json", BOM + PACKAGE, "Node.js, begins"),
        ("app/node_modules/@scope/lodash/package.json", PACKAGE, "Node.js"),
        ("app/vendor/lodash/package.json", BOM + PACKAGE, "Node.js, begins with a byte order mark"),
        ("app/node_modules/a/test/lodash/package.json", BOM + PACKAGE, "Node.js, begins"),
        (METADATA, b" \n" + REQUESTS, "Python"),
        (f"{SITE}/requests-2.0.egg-info", b"", "Python"),
        (f"{SITE}/requests.egg-info/PKG-INFO", b"Name: requests\n", "Python"),
        (f"{SITE}/requests-2.0-py3.egg", b"no archive", "Python"),
        ("usr/local/bundle/specifications/rack-3.0.gemspec", b"", "Ruby"),
        ("app/vendor/composer/installed.json", b'[{"name": "a/b", "version": "1"}]', "PHP"),
        ("app/vendor/composer/installed.json", BOM + b'{"packages": [{"name": "a/b"}]}', "PHP, begins"),
        ("app/X.deps.json", json.dumps(DEPS).encode(), ".NET"),
        ("app/X.deps.json", b"{", ".NET, is not valid JSON"),
        ("app/X.deps.json", b'{"libraries": [1]}', ".NET"),
        ("app/packages.lock.json", BOM + b'{"resolved": "1.0"}', ".NET, begins"),
        ("app/packages.config", b'<packages><package id="X"', ".NET"),
        ("app/Manifest.toml", b"[[deps.X]\n", "Julia"),
        ("app/x-1.0.jar", jar("META-INF/maven/org.x/x/pom.properties"), "Java"),
        ("app/x.war", jar("WEB-INF/lib/y.jar"), "Java"),
        ("app/x.JAR", jar("META-INF/maven/org.x/x/pom.properties"), "Java"),
        ("var/jenkins/plugins/git.jpi", jar("WEB-INF/lib/git.jar"), "Java"),
        # Not a library of Erlang, although it is among them.
        (
            "usr/lib/erlang/lib/node_modules/lodash/package.json",
            BOM + PACKAGE,
            "Node.js, begins with a byte order mark",
        ),
        ("app/server.pyz", b"#!/usr/bin/env python3\nPK", "Python"),
        ("app/lib/cowboy-2.9.0/ebin/cowboy.app", b"{application,cowboy,[]}.", "Erlang"),
        ("usr/local/lib/R/site-library/xml2/Meta/package.rds", b"1", "R"),
        ("usr/local/lib/perl5/site_perl/5.38/x86_64-linux/auto/XML/LibXML/.packlist", b"1", "Perl"),
        ("usr/local/lib/luarocks/rocks-5.1/luasec/1.0-1/rock_manifest", b"1", "Lua"),
    ],
)
def test_what_an_engine_did_not_read_is_told(path: str, data: bytes, remark: str) -> None:
    directory_of_code = file(f"{path.rpartition('/')[0]}/code.js", b"1")
    found = rootfs(file(path, data) + directory_of_code)
    (told,) = unread(found)
    assert told.startswith(f"{path} ({remark}")
    assert unread(found, path) == []


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("app/node_modules/a/test/malformed/package.json", b"{"),
        ("app/node_modules/a/test/node_modules/b/package.json", b'{"main": "x.js"}'),
        ("app/node_modules/rxjs/ajax/package.json", b'{"name": "rxjs/ajax", "main": "x.js"}'),
        ("app/node_modules/.prisma/client/package.json", b'{"name": ".prisma/client", "main": "x.js"}'),
        ("app/node_modules/.package.json", PACKAGE),
        ("app/package.json", b'{"name": "Our shop", "version": "1.0.0"}'),
        ("app/package.json", b'{"private": true}'),
        ("app/package.json", b'{"name": "shop", "version": "1.0.0", "dependencies": {"a": "1", "b": null}}'),
        ("app/package.json", b"{"),
        ("app/vendor/composer/installed.json", b'{"packages": [], "dev": false}'),
        ("app/data/installed.json", b'[{"name": "a"}]'),
        ("app/X.deps.json", json.dumps(COMPILED_ONLY).encode()),
        ("app/X.deps.json", b'{"libraries": {"App/1.0": {"type": "project"}}}'),
        ("app/packages.config", b"<packages></packages>"),
        ("app/x.jar", jar("META-INF/MANIFEST.MF", "a/A.class")),
        ("app/foo.gemspec", b""),
        ("app/x.hpi", jar("a/A.class")),
        ("app/Calculator.app", b""),
        ("usr/local/lib/erlang/lib/kernel-9.2/ebin/kernel.app", b"{application,kernel,[]}."),
        ("usr/local/lib/elixir/lib/logger/ebin/logger.app", b"{application,logger,[]}."),
        ("usr/local/lib/perl5/5.38/x86_64-linux/.packlist", b""),
        ("app/METADATA", REQUESTS),
        ("app/notes.json", BOM + PACKAGE),
    ],
)
def test_what_is_no_installed_package_is_not_told(path: str, data: bytes) -> None:
    assert unread(rootfs(file(path, data) + file(f"{path.rpartition('/')[0]}/code.js", b"1"))) == []


def test_a_package_without_version_and_code_is_not_told() -> None:
    found = rootfs(file("app/node_modules/types/package.json", b"{}") + file("app/node_modules/types/x.d.ts", b"1"))
    assert unread(found) == []


def test_an_upper_layer_that_an_engine_cannot_read_does_not_hide_behind_a_lower_one() -> None:
    """Trivy keeps what the lower layer states, and names the lowest layer that states the same."""
    lower = file(LODASH, PACKAGE) + file(METADATA, REQUESTS)
    found = rootfs(lower, file(LODASH, BOM + PACKAGE.replace(b"4.17.20", b"4.0.0")) + file(METADATA, b"\n" + REQUESTS))
    listed = [component(LODASH, "lodash", "4.17.20", 0, found), component(METADATA, "Requests", "3.0", 0, found)]
    told = list(unread_records(found, listed))
    assert [record.partition(" ")[0] for record in told] == [LODASH]  # METADATA says the same as in the lower layer
    again = rootfs(lower, lower)
    assert list(unread_records(again, [c for c in listed if c.path == LODASH])) == [f"{METADATA} (Python)"]
    other = rootfs(lower, file(METADATA, REQUESTS.replace(b"2.0", b"1.0")))
    listed = [component(LODASH, "lodash", "4.17.20", 0, other), component(METADATA, "requests", "2.0", 0, other)]
    assert list(unread_records(other, listed)) == [f"{METADATA} (Python)"]


def test_an_archive_in_an_upper_layer_is_compared_by_its_content() -> None:
    path, old, new = "app/x.jar", jar("META-INF/maven/x/x/pom.properties"), jar("a/pom.properties", stored=b"1")
    for upper, told in ((old, []), (new, [f"{path} (Java)"])):
        found = rootfs(file(path, old), file(path, upper))
        assert list(unread_records(found, [component(f"{path}", "x:x", "2.0", 0, found)])) == told


def test_the_specification_of_a_gem_has_its_version_in_its_name() -> None:
    path = "usr/local/bundle/specifications/rack-3.0.gemspec"
    found = rootfs(file(path, b"1"), file(path, b"2"))
    assert list(unread_records(found, [component(path, "rack", "3.0", 0, found)])) == []


def test_an_archive_is_read_if_one_inside_is_listed() -> None:
    found = rootfs(file("app/x.war", jar("WEB-INF/lib/y.jar")))
    assert unread(found, "app/x.war/WEB-INF/lib/y.jar") == []
    assert unread(found, "app/x.war:WEB-INF/lib/y.jar") == []  # as Clair writes it
    assert unread(found, "other/app/x.war/WEB-INF/lib/y.jar") == ["app/x.war (Java)"]


def test_an_archive_with_any_number_of_archives_in_its_path_is_found() -> None:
    found = rootfs(file("app/x.war", jar("WEB-INF/lib/a.jar")))
    assert unread(found, "app/x.war/" + "a.jar/" * 600 + "b.jar") == []


def test_a_name_with_a_colon_is_not_mistaken_for_an_archive_in_an_archive() -> None:
    inner = jar("WEB-INF/lib/y.jar")
    found = rootfs(file("app/x.jar", inner) + file("app/x.jar:y.war", inner) + file("app/x.jar:z.jar", inner))
    assert unread(found, "app/x.jar:y.war/WEB-INF/lib/y.jar", "app/x.jar:z.jar") == ["app/x.jar (Java)"]


@pytest.mark.parametrize("link", [symlink, hardlink])
def test_a_record_behind_a_link_is_told_unless_its_target_was_read(link: Callable[[str, str], bytes]) -> None:
    target = "../../../app/x.txt" if link is symlink else "app/x.txt"
    hidden = file("app/x.txt", PACKAGE) + link(LODASH, target) + CODE
    assert unread(rootfs(hidden)) == [f"{LODASH} (Node.js)"]
    store = "app/store/lodash/package.json"
    target = "../../../app/store/lodash/package.json" if link is symlink else store
    linked = rootfs(file(store, PACKAGE) + link(LODASH, target) + CODE)
    assert unread(linked, store) == []


def test_links_to_nothing_and_directories_record_nothing() -> None:
    assert unread(rootfs(symlink(LODASH, "gone") + directory("app/y/package.json") + CODE)) == []


def test_metadata_that_are_missing_beside_what_pip_wrote_are_told_once() -> None:
    info = f"{SITE}/requests-2.0.dist-info"
    assert unread(rootfs(file(f"{info}/RECORD", b"1") + file(f"{info}/WHEEL", b"1"))) == [
        f"{info} (Python, without METADATA)"
    ]
    assert unread(rootfs(file(f"{info}/RECORD", b"1") + file(METADATA, REQUESTS)), METADATA) == []


def owned(path: str, manager: str) -> bytes:
    """A package database that lists a file."""
    if manager == "dpkg":
        return file("var/lib/dpkg/info/python3-x.md5sums", b"%s  %s\n" % (b"0" * 32, path.encode()))
    if manager == "apk":
        above, _, name = path.rpartition("/")
        return file("lib/apk/db/installed", f"P:py3-x\nF:{above}\nR:{name}\n\n".encode())
    return file("var/lib/rpm/rpmdb.sqlite", sqlite(header("python3-x", [(path, 0o100644, "ab" * 32)])))


@pytest.mark.parametrize("manager", ["dpkg", "apk", "rpm"])
def test_packages_of_the_distribution_are_looked_up_in_its_advisories(manager: str) -> None:
    path = "usr/lib/python3/dist-packages/PyYAML-6.0.egg-info"
    record = file(path, b"Name: PyYAML\nVersion: 6.0\n")
    assert unread(rootfs(owned(path, manager) + record)) == []
    assert unread(rootfs(record)) == [f"{path} (Python)"]


@pytest.mark.parametrize("manager", ["dpkg", "apk", "rpm"])
@pytest.mark.parametrize(
    "path",
    [
        "usr/lib64/R/library/stats/Meta/package.rds",
        "usr/lib/rabbitmq/lib/rabbitmq_server-3.13/plugins/cowboy-2.12/ebin/cowboy.app",
        "usr/lib64/perl5/vendor_perl/auto/XML/LibXML/.packlist",
        "usr/share/lua/5.4/rocks/luasec/1.0-1/rock_manifest",
        "usr/share/java/x.WAR",
        "usr/lib/mono/packages.config",
        "usr/share/julia/Manifest.toml",
    ],
)
def test_records_of_each_language_may_be_of_the_distribution(manager: str, path: str) -> None:
    record = file(path, b"[[<package />\n-INF/lib/")
    assert unread(rootfs(owned(path, manager) + record)) == []
    assert len(unread(rootfs(record))) == 1


def test_lists_of_the_distribution_take_a_bounded_amount_of_memory() -> None:
    lines = b"".join(b"%s  %s\n" % (b"0" * 32, f"{'d' * 4000}/{n}.egg".encode()) for n in range(250))
    lists = [file(f"var/lib/dpkg/info/{n}.md5sums", lines.replace(b"d/", b"%d/" % n)) for n in range(6)]
    owned_records = read(archive(*lists)).owned_records
    assert 0 < sum(map(len, owned_records)) <= 4 << 20
    database = f"P:x\nF:{'d' * 100_000}\n" + "".join(f"R:{n}.egg\n" for n in range(1000)) + "F:a\nR:b.egg\n"
    found = rootfs(file("lib/apk/db/installed", database.encode()) + file("usr/b.egg", b"") + file("a/b.egg", b""))
    assert unread(found) == [
        "usr/b.egg (Python)",
        "a/b.egg (Python, in a package of the distribution's package manager)",
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x" * 100_000, "version": "1"},
        {"name": "x", "version": "1" * 100_000},
        {"name": "\ud800", "version": "1"},
    ],
)
def test_names_that_no_package_has_are_kept_short_and_can_be_stored(document: dict[str, str], tmp_path: Path) -> None:
    facts = read(archive(file(LODASH, json.dumps(document).encode())))
    assert len(facts.records[LODASH].identity) < 300
    cache = FactsCache(tmp_path)
    cache.put(facts, "wants", facts.diff_id)
    assert cache.get(facts.diff_id, "wants", facts.diff_id) == facts


@pytest.mark.parametrize("manager", ["dpkg", "apk", "rpm"])
def test_a_package_database_that_lists_other_packages_does_not_hide_them(manager: str) -> None:
    """Trivy leaves out each file that the database lists, also one of an application."""
    found = rootfs(owned(METADATA, manager) + file(METADATA, REQUESTS))
    assert unread(found) == [f"{METADATA} (Python, in a package of the distribution's package manager)"]


def test_rpm_names_the_records_of_its_packages() -> None:
    some = header("npm", [("usr/lib/node_modules/npm/package.json", 0o100644, "ab" * 32), ("usr/bin/x", 0o100755, "")])
    assert read_rpm(sqlite(some, header("bash", [("usr/bin/bash", 0o100755, "")]))).records == {
        "usr/lib/node_modules/npm/package.json"
    }


def test_clair_names_the_directory_of_a_package_of_python() -> None:
    found = rootfs(file(METADATA, REQUESTS) + file(f"{SITE}/other_one-1.0.dist-info/METADATA", b""))
    listed = [Component("pkg:x/x@1", name, "1.0", "x", path=SITE) for name in ("requests", "other-one")]
    assert list(unread_records(found, listed)) == []
    assert list(unread_records(found, listed[:1])) == [f"{SITE}/other_one-1.0.dist-info/METADATA (Python)"]


def test_names_that_a_report_cannot_hold_are_not_mistaken_for_each_other() -> None:
    lodash, other = (b"app/node_modules/\xff/package.json", b"app/node_modules/\xfe/package.json")
    found = rootfs(file(lodash, PACKAGE) + file(other, BOM + PACKAGE.replace(b"4.17.20", b"4.0.0")))
    shown = component("app/node_modules/\N{REPLACEMENT CHARACTER}/package.json", "lodash", "4.17.20", 0, found)
    (told,) = unread_records(found, [shown])
    assert told.startswith(other.decode("utf-8", "surrogateescape"))


def test_the_last_entry_of_a_name_in_a_layer_counts() -> None:
    found = read(archive(file(LODASH, BOM + PACKAGE), file(LODASH, PACKAGE)))
    assert found.records[LODASH].problem == ""


@pytest.mark.parametrize("searched", [True, False])
def test_records_are_read_however_a_layer_arrives(searched: bool) -> None:
    """In pieces, as a whole, and where a search for secrets would leave the file out."""
    large = jar("META-INF/maven/x/x/pom.properties", stored=bytes(language_packages.LARGEST))
    layer = archive(
        file(LODASH, PACKAGE), file("a/x.jar", large), file("a/y.jar", jar("META-INF/maven/pom.properties"))
    )
    wants = ContentWants(scanner=SecretScanner()) if searched else None
    whole = read(layer, wants=wants)
    assert whole.records[LODASH].identity == "lodash@4.17.20"
    assert [whole.records[f"a/{name}.jar"].holds for name in "xy"] == [True, True]
    reader = language_packages.ArchiveReader()
    for start in range(0, len(large), 7):
        reader.feed(memoryview(large)[start : start + 7])
    assert reader.record() == whole.records["a/x.jar"]


def test_a_record_that_is_too_large_to_be_read_may_record_a_package() -> None:
    data = PACKAGE + b" " * language_packages.LARGEST
    assert unread(rootfs(file(LODASH, data))) == [f"{LODASH} (Node.js)"]


_READ = ("package.json", "x.deps.json", "METADATA", "PKG-INFO", "installed.json", "Manifest.toml", "x.jar", "x.gemspec")
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("name", "version", "libraries", "targets", "runtimeTarget", "a/1")), inner)
    ),
    max_leaves=12,
)


@given(st.sampled_from(_READ), st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_record(name: str, data: bytes) -> None:
    assert language_packages.read_record(name, data) == language_packages.read_record(name, memoryview(data))
