"""Manifests, indexes and configs: what two readers could take for two things is refused, with a pointer to it."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded, NotAnImage
from scanner.model.image import Image, ImageConfig
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.registry.manifest import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageIndex,
    Manifest,
    build_image,
    layer_compression,
    parse_config,
    parse_manifest,
)

LIMITS = Limits()
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
LAYER = {"mediaType": GZIP, "digest": A, "size": 10}
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {"mediaType": OCI_CONFIG, "digest": C, "size": 2},
    "layers": [LAYER, {**LAYER, "digest": B}],
    "annotations": {"org.opencontainers.image.source": "https://example.com"},
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {
            "mediaType": OCI_MANIFEST,
            "digest": A,
            "size": 7,
            "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
        },
        {"mediaType": OCI_MANIFEST, "digest": B, "size": 7, "platform": {"os": "unknown", "architecture": "unknown"}},
    ],
}
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-02-29T12:00:00.123456789Z",
    "author": "somebody",
    "config": {
        "User": "app:app",
        "Env": ["PATH=/bin", "EMPTY=", "EQUALS=a=b"],
        "Entrypoint": ["/app"],
        "Cmd": ["--serve"],
        "Shell": ["/bin/bash", "-c"],
        "WorkingDir": "/srv",
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "OnBuild": ["RUN x"],
        "Healthcheck": {
            "Test": ["CMD", "true"],
            "Interval": 30_000_000_000,
            "Timeout": 500_000_000,
            "Retries": 3,
            "StartPeriod": 0,
        },
    },
    "rootfs": {"type": "layers", "diff_ids": [B, C]},
    "history": [
        {"created_by": "ADD base", "created": "2024-01-01T00:00:00Z"},
        {"created_by": "ENV x", "empty_layer": True},
        {"created_by": "COPY app", "comment": "buildkit", "author": "me"},
    ],
}


def manifest(document: Any, media_type: str = OCI_MANIFEST) -> Manifest | ImageIndex:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(data, Descriptor(media_type, Digest.of(data), len(data)), LIMITS)


def config(document: Any) -> ImageConfig:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_config(data, Digest.of(data), LIMITS)


def image(manifest_document: Any = MANIFEST, config_document: Any = CONFIG) -> Image:
    parsed = manifest(manifest_document)
    assert isinstance(parsed, Manifest)
    return build_image(parsed, config(config_document))


def changed(document: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    """A copy with the member at ``pointer`` set, or taken away where value is ``...``."""
    result: Any = copy.deepcopy(document)
    *way, last = pointer.strip("/").split("/")
    place = result
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key: Any = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return result  # type: ignore[no-any-return]


def refused(document: Any, media_type: str = OCI_MANIFEST) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        manifest(document, media_type)
    assert str(caught.value).isprintable()
    return caught.value.reason, str(caught.value)


def test_a_manifest() -> None:
    found = manifest(MANIFEST)
    assert isinstance(found, Manifest)
    assert found.config == Descriptor(OCI_CONFIG, C, 2)
    assert [layer.digest for layer in found.layers] == [A, B]
    assert found.annotations == (("org.opencontainers.image.source", "https://example.com"),)


def test_an_index() -> None:
    found = manifest(INDEX, OCI_INDEX)
    assert isinstance(found, ImageIndex)
    assert [d.platform for d in found.manifests] == [Platform("linux", "arm64", "v8"), Platform("unknown", "unknown")]


def test_dockers_names_for_the_same() -> None:
    docker = {**MANIFEST, "mediaType": DOCKER_MANIFEST, "config": {"mediaType": DOCKER_CONFIG, "digest": C, "size": 2}}
    assert isinstance(manifest(docker, DOCKER_MANIFEST), Manifest)
    assert isinstance(manifest({**INDEX, "mediaType": DOCKER_LIST}, DOCKER_LIST), ImageIndex)


@pytest.mark.parametrize(("document", "kind"), [(MANIFEST, Manifest), (INDEX, ImageIndex)])
def test_the_media_type_may_be_missing(document: dict[str, Any], kind: type) -> None:
    bare = {name: value for name, value in document.items() if name != "mediaType"}
    assert isinstance(manifest(bare, document["mediaType"]), kind)
    assert isinstance(manifest(bare, ""), kind)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({**MANIFEST, "manifests": []}, OCI_MANIFEST),
        ({**INDEX, "layers": []}, OCI_INDEX),
        ({**INDEX, "config": {}}, OCI_INDEX),
        ({**MANIFEST, **INDEX}, OCI_INDEX),
        (MANIFEST, OCI_INDEX),
        (INDEX, OCI_MANIFEST),
        ({**MANIFEST, "mediaType": DOCKER_MANIFEST}, OCI_MANIFEST),
        ({**MANIFEST, "Layers": []}, OCI_MANIFEST),
        ({**MANIFEST, "Manifests": []}, OCI_MANIFEST),
        ({**MANIFEST, "layer\u017f": []}, OCI_MANIFEST),
        (changed(MANIFEST, "/layers/0/Digest", C), OCI_MANIFEST),
        (changed(INDEX, "/manifests/0/platform/OS", "windows"), OCI_INDEX),
    ],
)
def test_what_could_be_read_in_two_ways(document: Any, media_type: str) -> None:
    """CVE-2021-41190, and members that runtimes written in Go take for others."""
    assert refused(document, media_type)[0] == "malformed_image"


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/schemaVersion", 3),
        ("/schemaVersion", "2"),
        ("/schemaVersion", 2.0),
        ("/schemaVersion", ...),
        ("/layers/0/size", -1),
        ("/layers/0/size", 1.5),
        ("/layers/0/size", True),
        ("/layers/0/size", "10"),
        ("/layers/0/size", 1 << 60),
        ("/layers/0/size", ...),
        ("/layers/0/digest", "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("/layers/0/digest", "sha256:" + "A" * 64),
        ("/layers/0/digest", "../../etc/passwd"),
        ("/layers/0/digest", A + "\n"),
        ("/layers/0/digest", 7),
        ("/layers/0/digest", ...),
        ("/layers/0", []),
        ("/layers/0/mediaType", 7),
        ("/layers", {}),
        ("/config", ...),
        ("/config", []),
        ("/config/size", -1),
        ("/annotations", []),
        ("/annotations", {"a": 1}),
        ("/mediaType", 7),
        ("/artifactType", 7),
        ("/subject", "x"),
    ],
)
def test_members_of_the_wrong_kind_are_pointed_at(pointer: str, value: Any) -> None:
    reason, message = refused(changed(MANIFEST, pointer, value))
    assert reason == "malformed_image"
    assert pointer in message


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"7", b"{", b"\xff", b'{"schemaVersion":2,"schemaVersion":2}', b"[" * 100_000, b'{"a":NaN}'],
)
def test_what_is_no_document(data: bytes) -> None:
    assert refused(data)[0] == "malformed_image"


def test_documents_that_are_something_else() -> None:
    assert (
        refused({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws")[0]
        == "unsupported_media_type"
    )
    assert refused({**MANIFEST, "fsLayers": []})[0] == "unsupported_media_type"
    assert refused({"schemaVersion": 2, "mediaType": "application/x"}, "")[0] == "unsupported_media_type"
    assert refused({"schemaVersion": 2}, "text/html")[0] == "unsupported_media_type"


def test_layers_from_elsewhere() -> None:
    assert refused(changed(MANIFEST, "/layers/0/urls", ["https://other/x"]))[0] == "foreign_layer_refused"
    for kind in (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ):
        with pytest.raises(ImageError) as caught:
            image(changed(MANIFEST, "/layers/1/mediaType", kind))
        assert caught.value.reason == "foreign_layer_refused"


@pytest.mark.parametrize(
    ("pointer", "kind"),
    [
        ("/layers/0/mediaType", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        ("/layers/0/mediaType", "application/vnd.wasm.content.layer.v1+wasm"),
        ("/layers/0/mediaType", "application/vnd.in-toto+json"),
        ("/layers/0/mediaType", ""),
    ],
)
def test_a_layer_that_cannot_be_read(pointer: str, kind: str) -> None:
    """Beside one that could be unpacked: some runtime runs it, so it is an image that failed."""
    with pytest.raises(ImageError) as caught:
        image(changed(MANIFEST, pointer, kind))
    assert caught.value.reason == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/vnd.cncf.helm.config.v1+json", "application/vnd.oci.empty.v1+json"])
def test_what_is_no_image_is_no_fault(kind: str) -> None:
    with pytest.raises(NotAnImage):
        image(changed(MANIFEST, "/config/mediaType", kind))


EMPTY = "application/vnd.oci.empty.v1+json"
ARTIFACTS = {
    "an attestation of BuildKit": (OCI_CONFIG, ["application/vnd.in-toto+json"], "", "an attestation"),
    "a signature of cosign": (
        OCI_CONFIG,
        ["application/vnd.dev.cosign.simplesigning.v1+json"],
        "",
        "a signature of cosign",
    ),
    "an attestation of cosign": (OCI_CONFIG, ["application/vnd.dsse.envelope.v1+json"], "", "an attestation"),
    "an SBOM of cosign": (OCI_CONFIG, ["text/spdx+json"], "", "an SBOM"),
    "a bundle": (
        EMPTY,
        ["application/vnd.dev.sigstore.bundle.v0.3+json"],
        "application/vnd.dev.sigstore.bundle.v0.3+json",
        "a signature or attestation",
    ),
    "a signature of Notation": (
        EMPTY,
        ["application/jose+json"],
        "application/vnd.cncf.notary.signature",
        "a signature of Notation",
    ),
    "an old signature of Notation": (
        "application/vnd.cncf.notary.signature",
        ["application/cose"],
        "",
        "a signature of Notation",
    ),
    "a Helm chart": (
        "application/vnd.cncf.helm.config.v1+json",
        ["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
        "",
        "a Helm chart",
    ),
    "an SBOM": (EMPTY, ["application/vnd.cyclonedx+json"], "application/vnd.cyclonedx+json", "an SBOM"),
    "something": (EMPTY, ["text/plain"], "application/vnd.example.thing", "vnd.example.thing"),
    "nothing at all": (EMPTY, [], "", "an artifact without a type"),
    "a file pushed with ORAS": (
        "application/vnd.unknown.config.v1+json",
        [LAYER["mediaType"]],
        "",
        "an artifact of type",
    ),
}


@pytest.mark.parametrize("name", list(ARTIFACTS))
def test_artifacts_are_called_by_their_names(name: str) -> None:
    config, layers, artifact_type, called = ARTIFACTS[name]
    document = {
        **MANIFEST,
        "config": {"mediaType": config, "digest": C, "size": 2},
        "layers": [{**LAYER, "mediaType": kind} for kind in layers],
        **({"artifactType": artifact_type} if artifact_type else {}),
    }
    with pytest.raises(NotAnImage) as caught:
        image(document)
    assert called in str(caught.value)


def test_an_image_whose_layers_are_all_encrypted_is_an_image() -> None:
    layers = [{**LAYER, "mediaType": LAYER["mediaType"] + "+encrypted"}]
    with pytest.raises(ImageError) as caught:
        image({**MANIFEST, "layers": layers})
    assert caught.value.reason == "unsupported_media_type"


def test_counts_and_sizes_are_bounded() -> None:
    with pytest.raises(LimitExceeded):
        manifest({**MANIFEST, "layers": [LAYER] * 257})
    with pytest.raises(LimitExceeded):
        manifest({**INDEX, "manifests": INDEX["manifests"] * 33}, OCI_INDEX)
    assert refused(b" " * (LIMITS.manifest + 1))[0] == "malformed_image"
    with pytest.raises(ImageError):
        config(b" " * (LIMITS.config + 1))


def test_compressions() -> None:
    assert layer_compression("application/vnd.docker.image.rootfs.diff.tar.gzip") == "tar+gzip"
    assert layer_compression("application/vnd.oci.image.layer.v1.tar+zstd") == "tar+zstd"
    assert layer_compression("application/vnd.oci.image.layer.v1.tar") == "tar"


def test_texts_of_members_that_the_specification_does_not_have() -> None:
    unknown = {"container_config": {"Env": ["A=b"], "Tty": False}, "id": "1", "x" * 300: {"y" * 300: {"z": "deep"}}}
    found = config({**CONFIG, **unknown, "config": {**CONFIG["config"], "Hostname": "h"}}).unspecified
    assert {text for _, text in found} == {"A=b", "1", "deep", "h"}
    assert {place for place, _ in found} >= {"/container_config/Env/0", "/id", "/config/Hostname"}
    assert max(len(place) for place, _ in found) <= 202
    assert config(CONFIG).unspecified == ()


@pytest.mark.parametrize("unknown", [{"x": [""] * 100_001}, {"x": {str(n): 1 for n in range(100_001)}}])
def test_members_that_the_specification_does_not_have_are_bounded(unknown: Any) -> None:
    with pytest.raises(LimitExceeded, match="members that are not specified"):
        config({**CONFIG, **unknown})


def test_a_config() -> None:
    found = config(CONFIG)
    assert found.platform == Platform("linux", "amd64")
    assert found.created == datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    assert found.env == (("PATH", "/bin"), ("EMPTY", ""), ("EQUALS", "a=b"))
    assert (found.user, found.entrypoint, found.cmd, found.working_dir) == ("app:app", ("/app",), ("--serve",), "/srv")
    assert (found.exposed_ports, found.volumes) == (("8080/tcp", "53/udp"), ("/data",))
    assert (found.label("a"), found.stop_signal, found.onbuild) == ("b", "SIGTERM", ("RUN x",))
    check = found.healthcheck
    assert check is not None
    assert (check.test, check.interval, check.timeout, check.start_period, check.retries) == (
        ("CMD", "true"),
        30.0,
        0.5,
        None,
        3,
    )


def test_a_config_that_says_nothing() -> None:
    found = config({})
    assert found == ImageConfig(Digest.of(b"{}"), Platform("", ""), ())
    assert config({"config": None, "rootfs": None, "history": None}).history == ()
    nothing = {"Env": None, "Cmd": None, "Labels": None, "ExposedPorts": None, "Healthcheck": None, "User": None}
    assert config({"config": nothing}).env == ()


def test_old_images_wrote_commands_as_one_string() -> None:
    assert config({"config": {"Cmd": "/bin/sh", "Entrypoint": "/e"}}).cmd == ("/bin/sh",)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/config", []),
        ("/config", "x"),
        ("/config/User", 0),
        ("/config/User", {}),
        ("/config/Env", {}),
        ("/config/Env", "PATH=/bin"),
        ("/config/Env/0", 7),
        ("/config/Env/0", None),
        ("/config/Cmd", {}),
        ("/config/Cmd", [1]),
        ("/config/ExposedPorts", []),
        ("/config/Volumes", "x"),
        ("/config/Labels", []),
        ("/config/Labels/a", 7),
        ("/config/Healthcheck", []),
        ("/config/Healthcheck/Test", "true"),
        ("/config/Healthcheck/Interval", "30s"),
        ("/config/Healthcheck/Interval", 1.5),
        ("/config/Healthcheck/Interval", 1 << 63),
        ("/config/Healthcheck/Retries", "3"),
        ("/config/Healthcheck/Retries", True),
        ("/rootfs", []),
        ("/rootfs/diff_ids", {}),
        ("/rootfs/diff_ids/0", "sha256:short"),
        ("/rootfs/diff_ids/0", 7),
        ("/history", {}),
        ("/history/0", "x"),
        ("/history/0/created_by", 7),
        ("/os", 7),
        ("/author", []),
    ],
)
def test_config_members_of_the_wrong_kind_are_pointed_at(pointer: str, value: Any) -> None:
    with pytest.raises(ImageError) as caught:
        config(changed(CONFIG, pointer, value))
    assert caught.value.reason == "malformed_image"
    assert pointer in str(caught.value)


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/config/user", "0"),
        ("/config/ENV", ["A=b"]),
        ("/Config", {"User": "0"}),
        ("/RootFS", {}),
        ("/config/Healthcheck/test", ["NONE"]),
        ("/history/0/Empty_Layer", True),
        ("/config/u\u017fer", "0"),
        ("/config/wor\u212aingdir", "/"),
    ],
)
def test_members_that_runtimes_would_take_for_others(pointer: str, value: Any) -> None:
    with pytest.raises(ImageError, match="upper or lower case"):
        config(changed(CONFIG, pointer, value))


def test_members_nobody_knows_are_left_alone() -> None:
    legacy = {
        "container_config": {"user": "x"},
        "docker_version": "20",
        "os.version": "10",
        "id": "abc",
        "moby.buildkit.cache.v0": "x",
    }
    assert config({**CONFIG, **legacy}).user == "app:app"
    assert config(changed(CONFIG, "/config/Labels", {"A": "1", "a": "2"})).label("A") == "1"


def test_half_a_surrogate_pair_is_read_as_runtimes_read_it() -> None:
    assert config(b'{"config": {"Labels": {"a": "x\\ud800y", "b": "\\ud83d\\ude00"}}}').labels == (
        ("a", "x\ufffdy"),
        ("b", "😀"),
    )
    with pytest.raises(ImageError):
        config(b'{"config": {"Labels": {"\\ud800": "1", "\\ud801": "2"}}}')


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "yesterday",
        "2024-13-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "2024-01-01T00:00:00",
        "9" * 5000,
        "-1",
        "2024-01-01",
    ],
)
def test_a_date_is_never_worth_refusing_an_image(value: Any) -> None:
    assert config({"created": value}).created is None


def test_dates_of_every_builder() -> None:
    for text in (
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "2024-01-01T00:00:00.1Z",
        "2024-01-01T00:00:00.123456789+02:00",
    ):
        assert config({"created": text}).created is not None


def test_history_names_layers_where_the_counts_agree() -> None:
    found = image()
    assert [entry.layer for entry in found.config.history] == [0, None, 1]
    assert [layer.created_by for layer in found.layers] == ["ADD base", "COPY app"]
    assert [(layer.index, layer.digest, layer.diff_id) for layer in found.layers] == [(0, A, B), (1, B, C)]


@pytest.mark.parametrize(
    "history", [[], None, [{"created_by": "x"}], [{"created_by": "x"}] * 5, [{"created_by": "x", "empty_layer": True}]]
)
def test_history_names_no_layer_where_they_disagree(history: Any) -> None:
    found = image(config_document={**CONFIG, "history": history})
    assert {entry.layer for entry in found.config.history} <= {None}
    assert {layer.created_by for layer in found.layers} == {""}


@pytest.mark.parametrize("diff_ids", [[], [A], [A, B, C]])
def test_as_many_diff_ids_as_layers(diff_ids: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        image(config_document=changed(CONFIG, "/rootfs/diff_ids", diff_ids))
    assert caught.value.reason == "malformed_image"


def test_no_layers_is_nothing_to_scan() -> None:
    with pytest.raises(ImageError) as caught:
        image({**MANIFEST, "layers": []}, {**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}})
    assert caught.value.reason == "nothing_to_scan"


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([A, OCI_CONFIG, GZIP]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["mediaType", "digest", "size", "User", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_pointers = st.sampled_from(
    [
        "/config",
        "/layers",
        "/layers/0",
        "/layers/0/digest",
        "/annotations",
        "/mediaType",
        "/config/digest",
        "/schemaVersion",
    ]
)
_config_pointers = st.sampled_from(
    [
        "/config",
        "/rootfs",
        "/rootfs/diff_ids",
        "/history",
        "/history/0",
        "/config/Env",
        "/config/Healthcheck",
        "/config/Labels",
        "/created",
        "/os",
    ]
)


@given(_pointers, _json, _config_pointers, _json)
@settings(max_examples=200, deadline=None)
def test_nothing_but_our_errors(pointer: str, value: Any, config_pointer: str, other: Any) -> None:
    for action in (
        lambda: manifest(changed(MANIFEST, pointer, value)),
        lambda: config(changed(CONFIG, config_pointer, other)),
    ):
        assert refusal(action) in ("", "malformed_image", "unsupported_media_type", "foreign_layer_refused")


def refusal(action: Any) -> str:
    try:
        action()
    except ImageError as error:
        return error.reason
    return ""
