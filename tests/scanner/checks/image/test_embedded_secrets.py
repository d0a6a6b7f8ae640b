"""Secrets by name and content, wherever they lie; and no cry where there is none."""

from __future__ import annotations

import base64
import gzip
import html
import json
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from scanner.checks._secrets import SecretScanner, image_without_secrets, without_secrets
from scanner.checks.image.embedded_secrets import EmbeddedSecrets
from scanner.model.filesystem import ContentMatch
from scanner.model.finding import Failed, Incomplete, Passed, SecretMatch, Severity
from scanner.model.image import Healthcheck
from tests.scanner.checks.factory import entry, layer, subject, unreadable
from tests.scanner.trust.certificates import certify, ec_key

AWS = "AKIA" + "QWERTYUIOPASDFGH"
GITHUB = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("path", "data", "what"),
    [
        ("root/.aws/credentials", b"aws_secret_access_key = " + b"aB3/" * 10, "AWS secret access key"),
        ("app/.env", b"DEBUG=1\nDB_PASSWORD=hunter2-really\n", "DB_PASSWORD (14 characters)"),
        ("app/prod.env", b"export apiKey='9f8e7d6c5b4a'\n", "apiKey"),
        ("root/.npmrc", b"//npm.example.com/:_authToken=0a1b2c3d-4e5f\n", "_authToken"),
        ("root/.netrc", b"machine x login me password hunter2\n", "password (7 characters)"),
        ("root/.pgpass", b"db:5432:*:me:hunter2\n", "password of me"),
        ("root/.docker/config.json", b'{"auths":{"x":{"auth":"bWU6aHVudGVyMg=="}}}', "auth"),
        ("root/.git-credentials", b"https://me:hunter2@example.com\n", "a password in an address"),
        ("srv/app/.git/config", b"url = https://me:hunter2@example.com/x.git\n", "a password in an address"),
        ("app/settings.py", b"SECRET_KEY = 'django-9f8e7d6c'\n", "SECRET_KEY"),
        ("app/application.yml", b"spring:\n  datasource:\n    password: hunter2\n", "password (7 characters)"),
        ("app/wp-config.php", b"define('DB_PASSWORD', 'hunter2-really');\n", "DB_PASSWORD"),
        ("etc/shadow", b"root:$6$salt$" + b"a" * 40 + b":19000::::::\n", "password hash: of root"),
        ("app/password.txt", b"hunter2-really\n", "password.txt"),
    ],
)
def test_a_file_that_is_made_to_hold_credentials(path: str, data: bytes, what: str) -> None:
    """Dockle (CIS-DI-0010) goes by the name and never looks inside: the next test's files fail there."""
    found = SecretScanner().search(path, data)
    outcome = EmbeddedSecrets().examine(subject(layer(entry(path), matches=found)))
    assert isinstance(outcome, Failed)
    assert what in outcome.evidence[0].message
    assert "hunter2" not in str(outcome)
    assert (outcome.evidence[0].path, outcome.evidence[0].layer_index) == (path, 0)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("app/settings.py", b"SECRET_KEY = os.environ['SECRET_KEY']\nPASSWORD = get_password()\nDEBUG = False\n"),
        ("app/.env", b"DB_PASSWORD=\nAPI_KEY=${API_KEY}\nTOKEN=changeme\nSECRET_FILE=/run/secrets/x\n"),
        ("app/database.yml", b"password: <%= ENV['PASSWORD'] %>\n"),
        ("root/.npmrc", b"//npm.example.com/:_authToken=${NPM_TOKEN}\n"),
        ("root/.docker/config.json", b'{"credHelpers": {"x": "ecr-login"}}'),
        ("etc/shadow", b"root:*:19000:0:99999:7:::\nbin:!:19000::::::\n"),
        ("root/.ssh/id_rsa", b"ssh-rsa AAAAB3NzaC1yc2E me@example\n"),
        ("app/credentials.json", b'{"type": "external_account", "token_url": "https://sts.example.com/v1/token"}'),
        ("etc/pip.conf", b"[global]\nindex-url = https://packages.example.com/simple\n"),
    ],
)
def test_one_that_holds_none(path: str, data: bytes) -> None:
    assert SecretScanner().search(path, data) == []


def test_one_that_a_later_layer_deletes_is_still_there() -> None:
    """docker-bench and CIS look at the merged file system or not at all: the layer is pulled all the same."""
    match = ContentMatch("aws-access-key", "root/.aws/credentials", 2, "AKIA… (20 characters)")
    outcome = EmbeddedSecrets().examine(
        subject(layer(entry(match.path), matches=[match]), layer(whiteouts=["root/.aws/credentials"]))
    )
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 0
    assert "layer 1 deletes it" in outcome.evidence[0].message


def test_one_file_in_several_layers_is_told_once() -> None:
    match = ContentMatch("github-token", "srv/x", 1, "ghp_… (40 characters)")
    outcome = EmbeddedSecrets().examine(
        subject(layer(entry("srv/x"), matches=[match]), layer(entry("srv/x", mode=0o600), matches=[match]))
    )
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.layer_index, "also in layer 1" in evidence.message) == (0, True)


def test_the_engines_secrets_are_joined() -> None:
    match = ContentMatch("github-token", "srv/x", 3, "ghp_… (40 characters)")
    made = subject(layer(entry("srv/x"), matches=[match]))
    diff_id = made.image.layers[0].diff_id
    engine = [
        SecretMatch("github-pat", "GitHub Personal Access Token", Severity.CRITICAL, "srv/x", diff_id, 3),
        SecretMatch("jwt-token", "JWT token", Severity.MEDIUM, "srv/y", diff_id, 9),
    ]
    outcome = EmbeddedSecrets().examine(replace(made, secrets=engine))
    assert isinstance(outcome, Failed)
    assert [(e.path, e.line, e.layer_index) for e in outcome.evidence] == [("srv/x", 3, 0), ("srv/y", 9, 0)]


def test_what_has_to_be_worked_on_first_is_less_severe() -> None:
    key = b"-----BEGIN " + b"ENCRYPTED PRIVATE KEY-----\n" + b"MIIE" * 20
    found = SecretScanner().search("srv/key", key)
    outcome = EmbeddedSecrets().examine(subject(layer(entry("srv/key"), matches=found)))
    assert isinstance(outcome, Failed)
    assert outcome.severity is Severity.HIGH


@pytest.mark.parametrize(
    ("name", "value"),
    [("DB_PASSWORD", "hunter2-really"), ("API_KEY", "9f8e7d6c5b4a"), ("ANYTHING", AWS), ("X", GITHUB)],
)
def test_a_variable(name: str, value: str) -> None:
    outcome = EmbeddedSecrets().examine(subject(env=((name, value),)))
    assert isinstance(outcome, Failed)
    assert value not in str(outcome), "the value itself is never shown"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin"),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
        ("PASSWORD_FILE", "/run/secrets/x"),
        ("DB_PASSWORD", ""),
        ("TOKEN", "changeme"),
        ("SECRET_KEY", "${SECRET}"),
    ],
)
def test_a_variable_that_holds_none(name: str, value: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(env=((name, value),))), Passed)


@pytest.mark.parametrize(
    "line",
    [
        "RUN DB_PASSWORD=hunter2-really ./install # buildkit",
        "RUN |1 NPM_TOKEN=hunter2-really /bin/sh -c npm ci # buildkit",
        "|1 NPM_TOKEN=hunter2-really /bin/sh -c npm ci",
        "/bin/sh -c #(nop)  ARG API_KEY=hunter2-really",
        "ENV DB_PASSWORD=hunter2-really",
        "RUN curl -u me:hunter2-really https://example.com/x # buildkit",
        "RUN curl -H 'Authorization: Bearer hunter2-really' https://example.com/x # buildkit",
        "RUN git clone https://me:hunter2-really@example.com/x.git # buildkit",
        "RUN echo 'root:hunter2-really' | chpasswd # buildkit",
        "RUN tool --password hunter2-really --x # buildkit",
    ],
)
def test_the_history(line: str) -> None:
    """A build argument and an ENV that a later line empties are in no file and no variable: scanners of either pass."""
    outcome = EmbeddedSecrets().examine(subject(history=[line], env=(("DB_PASSWORD", ""),)))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].history_index == 0
    assert "hunter2" not in str(outcome)


@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=secret,id=token TOKEN=$(cat /run/secrets/token) npm ci # buildkit",
        "RUN GPG_KEY=0D96DF4D4110E5C43FBFB17F2D347EA6AA65421D ./verify # buildkit",
        "RUN curl -u $USER:$PASS https://example.com # buildkit",
        "RUN apt-get install -y --no-install-recommends passwd # buildkit",
        'CMD ["postgres" "--password-file=/run/secrets/x"]',
    ],
)
def test_a_history_that_shows_none(line: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(history=[line])), Passed)


def test_a_variable_is_told_once_with_the_line_that_sets_it() -> None:
    made = subject(history=["COPY a /", "ENV DB_PASSWORD=hunter2-really"], env=(("DB_PASSWORD", "hunter2-really"),))
    outcome = EmbeddedSecrets().examine(made)
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.name, evidence.history_index, evidence.pointer) == ("DB_PASSWORD", 1, "/config/Env")


@pytest.mark.parametrize(("name", "value"), [("com.example.token", "hunter2-really"), ("note", GITHUB)])
def test_a_label(name: str, value: str) -> None:
    outcome = EmbeddedSecrets().examine(subject(labels=((name, value),)))
    assert isinstance(outcome, Failed)
    assert value not in str(outcome)


def test_the_allow_list_takes_paths_and_names() -> None:
    match = ContentMatch("private-key", "srv/test/key", 1, "-----BEGIN… (40 characters)")
    made = subject(layer(entry(match.path), matches=[match]), env=(("API_KEY", "hunter2-really"),))
    outcome = EmbeddedSecrets().examine(replace(made, parameters={"allow": ("/srv/test/*", "API_KEY")}))
    assert isinstance(outcome, Passed)


def test_an_image_as_it_is_stored_and_shown() -> None:
    made = subject(
        history=["RUN |1 TOKEN=hunter2-really /bin/sh -c x"],
        env=(("API_KEY", "hunter2-really"), ("PATH", "/bin")),
        labels=(("note", f"see {GITHUB} there"),),
    )
    shown = image_without_secrets(made.image)
    assert "hunter2" not in str(shown)
    assert GITHUB not in str(shown)
    assert dict(shown.config.env)["PATH"] == "/bin"
    assert dict(shown.config.labels)["note"] == "see …(40 characters)… there"


def test_content_found_while_reading() -> None:
    match = ContentMatch("github-token", "srv/notes.txt", 3, "ghp_… (40 characters)")
    outcome = EmbeddedSecrets().examine(subject(layer(entry("srv/notes.txt"), matches=[match])))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].line == 3


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/x/examples/id_rsa",
        "usr/lib/python3/dist-packages/x/tests/id_rsa",
        "etc/ssl/certs/ca-certificates.crt",
    ],
)
def test_no_cry_where_there_is_none(path: str) -> None:
    assert isinstance(EmbeddedSecrets().examine(subject(layer(entry(path)))), Passed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(EmbeddedSecrets().examine(unreadable()), Incomplete)


KEY = b"-----BEGIN " + b"RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0123456789abcdefghijklmnopqrstuvwxyz0123\n"


@pytest.mark.parametrize(
    ("data", "rule"),
    [(f"k={AWS}\n".encode(), "aws-access-key"), (GITHUB.encode(), "github-token"), (KEY, "private-key")],
)
def test_the_scanner_finds_and_redacts(data: bytes, rule: str) -> None:
    found = SecretScanner().search("srv/x", b"\n\n" + data)
    assert [(m.rule, m.line) for m in found] == [(rule, 3)]
    assert found[0].redacted.encode() not in data


@pytest.mark.parametrize(
    "data",
    [
        b"AKIAIOSFODNN7EXAMPLE",
        b"-----BEGIN PUBLIC KEY-----\nMIIB",
        b"-----BEGIN " + b"PRIVATE KEY-----\n...\n",
        b"ghp_short",
        b"sk_live_",
    ],
)
def test_the_scanner_leaves_examples_alone(data: bytes) -> None:
    assert SecretScanner().search("srv/x", data) == []


@pytest.mark.parametrize(
    "part",
    [
        "-----BEGIN "
        + "PRIVATE KEY-----\na: "
        + " " * 100
        + "\na: "
        + " " * 100
        + "\n",  # headers with blanks: was exponential
        "T3BlbkFJ sk-proj-T3Blbk",  # a token's two halves without end: was quadratic
        "--password ",
        "curl -u ",
        "-",
        "PASSWORD='",
        "$",
        "a://b:",
        '"auth":"',
    ],
)
@pytest.mark.parametrize("path", ["srv/x", "srv/.env", "srv/settings.py", "root/.docker/config.json"])
def test_texts_that_are_made_to_be_slow_come_to_an_end(part: str, path: str) -> None:
    text = part * (20_000 // len(part))
    assert len(SecretScanner().search(path, text.encode())) <= 20
    assert isinstance(without_secrets(text), str)


LINES = [
    "-----BEGIN " + "PRIVATE KEY-----",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
    "MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu",
    "NMoSfm76oqFvAp8Gy0iz5sxjZmSnXyCdPEovGhLa0VzMaQ8s+CLOyS56YyCFGeJZ",
    "-----END " + "PRIVATE KEY-----",
]
PEM = "\n".join(LINES) + "\n"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ESCAPED: dict[str, Callable[[str], str]] = {
    "JSON": lambda pem: json.dumps({"key": pem}),
    "JSON with CRLF": lambda pem: json.dumps({"key": pem.replace("\n", "\r\n")}),
    "JSON in JSON": lambda pem: json.dumps({"a": json.dumps({"key": pem})}),
    "JSON in JSON in JSON": lambda pem: json.dumps(json.dumps(json.dumps({"key": pem}))),
    "JSON of PHP": lambda pem: json.dumps(pem).replace("/", "\\/"),
    "unicode escapes": lambda pem: json.dumps(pem).replace("\\n", "\\u000a").replace("+", "\\u002b"),
    "a variable": lambda pem: 'KEY="' + pem.replace("\n", "\\n") + '"',
    "a variable, escaped twice": lambda pem: "KEY=" + pem.replace("\n", "\\\\n"),
    "YAML block": lambda pem: "key: |\n" + textwrap.indent(pem, "    "),
    "YAML in quotes": lambda pem: 'key: "' + "\\n\\\n  ".join(pem.split("\n")) + '"',
    "JavaScript": lambda pem: "const key = " + " +\n  ".join(f'"{line}\\n"' for line in pem.split("\n")),
    "an array": lambda pem: "[" + ", ".join(f"'{line}'" for line in pem.split("\n")) + "].join('\\n')",
    "one line": lambda pem: pem.replace("\n", " "),
    "a comment": lambda pem: textwrap.indent(pem, "# "),
    "a URL": quote,
    "a form": quote_plus,
    "HTML": lambda pem: html.escape(pem).replace("\n", "&#10;"),
    "base64": encoded,
    "base64, wrapped": lambda pem: "key: |\n" + textwrap.indent("\n".join(textwrap.wrap(encoded(pem), 64)), "  "),
    "base64, wrapped in JSON": lambda pem: json.dumps("\n".join(textwrap.wrap(encoded(pem), 76))),
    "base64 for URLs": lambda pem: base64.urlsafe_b64encode(pem.encode()).decode().rstrip("="),
    "base64 of JSON": lambda pem: encoded(json.dumps({"key": pem})),
    "base64 twice": lambda pem: encoded(encoded(pem)),
    "a manifest": lambda pem: f"apiVersion: v1\nkind: Secret\ndata:\n  tls.key: {encoded(pem)}\n",
    "a manifest, behind a certificate": lambda pem: (
        f"kind: Secret\ndata:\n  x: {encoded('-----BEGIN CERTIFICATE-----MII' + pem)}"
    ),
}


@pytest.mark.parametrize("form", ESCAPED)
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_key_in_another_form(form: str, charset: str) -> None:
    found = SecretScanner().search("srv/app/data", ESCAPED[form](PEM).encode(charset))
    assert [match.rule for match in found] == ["private-key"]
    assert LINES[1][:8] not in found[0].redacted


@pytest.mark.parametrize("form", ESCAPED)
def test_a_key_in_another_form_in_a_variable(form: str) -> None:
    value = ESCAPED[form](PEM)
    assert isinstance(EmbeddedSecrets().examine(subject(env=(("ANY", value),))), Failed)
    shown = without_secrets(f"ENV ANY={value}")
    for line in (LINES[1], LINES[2], LINES[3]):
        assert line[10:40] not in shown and encoded(line)[12:40] not in shown, "all of the key goes, not its beginning"


UNREADABLE: dict[str, Callable[[bytes], str]] = {
    "hexadecimal": lambda pem: pem.hex(),
    "hexadecimal in capitals": lambda pem: pem.hex().upper(),
    "bytes": lambda pem: pem.hex(" "),
    "a fingerprint's form": lambda pem: pem.hex(":"),
    "xxd -p": lambda pem: "\n".join(textwrap.wrap(pem.hex(), 60)),
    "xxd -i": lambda pem: ", ".join(f"0x{byte:02x}" for byte in pem),
    "a C string": lambda pem: "".join(f"\\x{byte:02x}" for byte in pem),
    "a bytea of PostgreSQL": lambda pem: f"'\\x{pem.hex()}'",
    "behind a letter": lambda pem: "f" + pem.hex(),
    "gzip": lambda pem: base64.b64encode(gzip.compress(pem)).decode(),
    "gzip, cut off": lambda pem: base64.b64encode(gzip.compress(pem)[:-8]).decode(),
    "Helm": lambda pem: encoded(
        base64.b64encode(gzip.compress(json.dumps({"manifest": pem.decode()}).encode())).decode()
    ),
    "a manifest in Helm": lambda pem: encoded(
        base64.b64encode(
            gzip.compress(json.dumps({"manifest": f"kind: Secret\ndata:\n  k: {encoded(pem.decode())}"}).encode())
        ).decode()
    ),
}


@pytest.mark.parametrize("form", UNREADABLE)
def test_a_key_that_nobody_can_read(form: str) -> None:
    text = UNREADABLE[form](PEM.encode())
    assert [match.rule for match in SecretScanner().search("srv/app/data", text.encode())] == ["private-key"]
    assert text[200:240] not in without_secrets(f"ENV ANY={text}")


KEYS: dict[str, Callable[[], PrivateKeyTypes]] = {
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 1024": lambda: rsa.generate_private_key(65537, 1024),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_in_der(kind: str) -> None:
    key = KEYS[kind]()
    forms = [
        (PrivateFormat.PKCS8, NoEncryption(), "private-key"),
        (PrivateFormat.PKCS8, BestAvailableEncryption(b"x"), "encrypted-key"),
        (PrivateFormat.TraditionalOpenSSL, NoEncryption(), "private-key"),
    ]
    for form, encryption, rule in forms[: 2 if kind == "Ed25519" else 3]:
        der = key.private_bytes(Encoding.DER, form, encryption)
        bare = base64.b64encode(der).decode()
        wrapped = "\n".join(textwrap.wrap(bare, 64))
        for data in (der, f"KEY={bare}".encode(), json.dumps({"key": bare}).encode(), wrapped.encode()):
            assert [match.rule for match in SecretScanner().search("srv/app/data", data)] == [rule]
        assert bare[20:60] not in without_secrets(f"ENV KEY={bare}")
        assert SecretScanner().search("srv/app/data", der[:-1]) == [], "half a key is none"
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for data in (public, base64.b64encode(public)):
        assert SecretScanner().search("srv/app/data", data) == []


def test_a_store_of_certificates_is_no_key() -> None:
    """Java's ``cacerts`` is a PKCS #12 store."""
    store = serialize_key_and_certificates(
        b"x", None, None, [certify({"CN": "ca"}, ec_key(), [])], BestAvailableEncryption(b"changeit")
    )
    assert SecretScanner().search("etc/ssl/certs/java/cacerts", store) == []


@pytest.mark.parametrize(
    "data",
    [
        base64.b64encode(gzip.compress(bytes(64 << 20))),
        b"\n".join([base64.b64encode(gzip.compress(b"a" * 1_000_000))] * 700),
        b"5052495641544520" * 60_000,
        b"50 52 49 56 41 54 45 20 " * 40_000,
        b"H4sIA" * 200_000,
        b"MHcCAQEEI" * 100_000,
    ],
    ids=["a bomb", "many bombs", "hexadecimal", "bytes", "no gzip", "no DER"],
)
def test_what_is_made_to_unpack_to_much_comes_to_an_end(data: bytes) -> None:
    assert SecretScanner().search("srv/app/data", data) == []


DOCKER = json.dumps({"auths": {"registry.example.com": {"auth": encoded("me:hunter2-really")}}})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            f"kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: {encoded(DOCKER)}",
            "credential",
        ),
        (base64.urlsafe_b64encode(DOCKER.encode()).decode(), "credential"),
        (f"apiVersion: v1\nkind: Secret\ndata:\n  password: {encoded('hunter2-really')}\n", "credential"),
        (
            json.dumps({"apiVersion": "v1", "kind": "Secret", "data": {"db-password": encoded("hunter2-really")}}),
            "credential",
        ),
        (json.dumps(json.dumps({"private_key_id": "0123456789" * 4})), "google-service-account"),
        (encoded(json.dumps({"private_key_id": "0123456789" * 4})), "google-service-account"),
        (json.dumps(json.dumps({"aws_secret_access_key": "aB3/" * 10})), "aws-secret-key"),
        ("https:\\/\\/hooks.slack.com\\/services\\/T12345678\\/B12345678\\/abcdefghijklmnopqrstuvwx", "slack-webhook"),
        ("AccountKey%3D" + "a" * 86 + "%3D%3D", "azure-storage-key"),
    ],
)
def test_other_secrets_in_another_form(text: str, rule: str) -> None:
    found = SecretScanner().search("srv/app/data.yaml", text.encode())
    assert [match.rule for match in found] == [rule]
    assert "hunter2" not in str(found) and encoded("hunter2")[:8] not in str(found)


def test_settings_in_utf_16() -> None:
    for charset in ("utf-16", "utf-16-le", "utf-16-be"):
        (found,) = SecretScanner().search("app/.env", "DEBUG=1\nDB_PASSWORD=hunter2-really\n".encode(charset))
        assert (found.line, found.redacted) == (2, "DB_PASSWORD (14 characters)")


@pytest.mark.parametrize(
    "text",
    [
        'BEGIN = "-----BEGIN ' + 'PRIVATE KEY-----"\nEND = "-----END PRIVATE KEY-----"\n',
        'pem = "-----BEGIN ' + 'PRIVATE KEY-----\\n" + wrap(encode(der)) + "\\n-----END PRIVATE KEY-----"',
        json.dumps({"help": "starts with -----BEGIN " + "PRIVATE KEY----- and ends with -----END PRIVATE KEY-----"}),
        encoded("the line -----BEGIN " + "PRIVATE KEY----- begins a key, and a long text follows that is none at all"),
        "apiVersion: v1\nkind: Secret\ndata:\n  password: changed-later\n  token: ''\n",
        "apiVersion: v1\nkind: SecretStore\nspec:\n  password: aHVudGVyMg==\n",
        encoded('{"auths": {}}'),
    ],
)
def test_texts_about_secrets_are_none(text: str) -> None:
    for charset in ("utf-8", "utf-16", "utf-16-be"):
        assert SecretScanner().search("srv/app/data", text.encode(charset)) == []


def test_the_python_packages_of_this_environment_hold_none() -> None:
    scanner = SecretScanner()
    root = Path(json.__file__).parents[1]
    files = [
        path
        for path in root.rglob("*.py")
        if "test" not in path.parts and scanner.wants(str(path)[1:], path.stat().st_size)
    ]
    assert [match for path in files for match in scanner.search(str(path)[1:], path.read_bytes())] == []


@pytest.mark.parametrize(
    "text",
    [
        "ENV DB_PASSWORD=hunter2-really X=1",
        "RUN curl -u me:hunter2-really https://example.com",
        "RUN tool --password hunter2-really --token abcdefghijkl",
        "RUN git clone https://me:hunter2-really@example.com/x.git",
        f"ARG TOKEN={GITHUB}",
        "ENV KEY=" + PEM,
        "ENV PASSWORD='a b c d'",
    ],
)
def test_what_was_taken_out_is_not_taken_out_again(text: str) -> None:
    once = without_secrets(text)
    assert once != text
    assert without_secrets(once) == once
    assert once.count("characters)") == once.count("…(")


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(PEM.encode("utf-16")).decode(),
        base64.b64encode(PEM.encode("utf-16-be")).decode(),
        PEM.replace("-", "\\u002d").replace("\n", "\\n"),
        PEM.replace("-", "%2D").replace(" ", "%20").replace("\n", "%0A"),
        "<?php $key = " + ' . "\\n" .\n'.join(f"'{line}'" for line in PEM.splitlines()) + ";",
        "<?php $key = " + " . PHP_EOL . ".join(f"'{line}'" for line in PEM.splitlines()) + ";",
        "\n".join(f"> {line}" for line in PEM.splitlines()),
    ],
)
def test_a_key_that_is_encoded_twice_or_put_together(text: str) -> None:
    assert [match.rule for match in SecretScanner().search("srv/app/data", text.encode())] == ["private-key"]


def test_a_private_key_in_json() -> None:
    public = {"kty": "EC", "crv": "P-256", "x": "f" * 43, "y": "g" * 43}
    private = json.dumps({"keys": [public, public | {"d": "h1" * 22}]})
    for text in (private, json.dumps(private)):
        (found,) = SecretScanner().search("srv/app/data", text.encode())
        assert found.rule == "jwk-private-key"
        assert "h1h1" not in found.redacted
    assert SecretScanner().search("srv/app/data", json.dumps({"keys": [public]}).encode()) == []


def p521(number: int) -> str:
    """The private key of this number in DER, in base64 of 324 characters: five lines and a rest."""
    key = ec.derive_private_key(number, ec.SECP521R1())
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


@pytest.mark.parametrize("joint", ["\n", "\r\n", '"\n  "', '" +\n  "', "\\n", "',\n'"])
def test_a_last_line_that_begins_with_a_plus(joint: str) -> None:
    """The same character joins the lines of a program."""
    text = next(text for text in map(p521, range(1, 2000)) if text[320] == "+")
    found = SecretScanner().search("srv/app/data", joint.join(textwrap.wrap(text, 64)).encode())
    assert [match.rule for match in found] == ["private-key"]


BUFFER = json.dumps({"type": "Buffer", "data": list(PEM.encode())})


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"%{byte:02X}" for byte in PEM.encode()),
        "".join(f"\\u{byte:04x}" for byte in PEM.encode()),
        "".join(f"&#x{byte:02x};" for byte in PEM.encode()),
        "".join(f"&#{byte};" for byte in PEM.encode()),
        BUFFER,
        "{" + ", ".join(map(str, PEM.encode())) + "}",
    ],
    ids=["URL", "unicode escapes", "HTML", "HTML, decimal", "a buffer of Node.js", "an array"],
)
def test_a_key_of_which_each_byte_is_escaped(text: str) -> None:
    (found,) = SecretScanner().search("srv/app/data", text.encode())
    assert found.rule == "private-key"
    assert LINES[1][:8] not in found.redacted


P12_PASSWORD = b"changeit"


def p12(*, encrypted: bool) -> bytes:
    encryption = BestAvailableEncryption(P12_PASSWORD) if encrypted else NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    return serialize_key_and_certificates(b"x", key, certify({"CN": "x"}, key, []), None, encryption)


def java_store(*kinds: int, magic: bytes = b"\xfe\xed\xfe\xed") -> bytes:
    """A store with entries of these kinds (1: a key, 2: a certificate, 3: a secret key), as keytool writes it."""
    entries = b"".join(
        kind.to_bytes(4) + b"\0\2ca" + bytes(8) + (b"\0\5X.509" if kind == 2 else b"") + b"\0\0\0\3abc"
        for kind in kinds
    )
    return magic + b"\0\0\0\2" + len(kinds).to_bytes(4) + entries + bytes(20)


OPENSSH = base64.b64encode(b"openssh-key-v1\0\0\0\0\4none\0\0\0\4none" + bytes(range(200))).decode()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (p12(encrypted=False), "private-key"),
        (p12(encrypted=True), "encrypted-key"),
        (base64.b64encode(p12(encrypted=False)), "private-key"),
        (java_store(2, 2, 1), "encrypted-key"),
        (java_store(3, magic=b"\xce\xce\xce\xce"), "encrypted-key"),
        (OPENSSH.encode(), "private-key"),
        (gzip.compress(PEM.encode()), "private-key"),
        (gzip.compress(p12(encrypted=False)), "private-key"),
    ],
    ids=["PKCS #12", "encrypted", "in base64", "JKS", "JCEKS", "OpenSSH without a frame", "gzip", "PKCS #12 in gzip"],
)
def test_a_key_in_a_container(data: bytes, rule: str) -> None:
    assert [match.rule for match in SecretScanner().search("srv/app/data", data)] == [rule]


@pytest.mark.parametrize(
    "data", [java_store(2, 2), java_store(), java_store(2, 1)[:40], b"\xfe\xed\xfe\xed", gzip.compress(b"x" * 999)]
)
def test_a_container_without_a_key(data: bytes) -> None:
    assert SecretScanner().search("srv/app/data", data) == []


PASSWORD = "hunter2-really"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app/terraform.tfstate", '{"version":4,"resources":[{"instances":[{"attributes":{"password":"%s"}}]}]}'),
        ("app/x.auto.tfvars.json", '{"a":1,"db_password":"%s"}'),
        ("root/.npmrc", "_auth = %s\n"),
        ("root/.gitconfig", '[http "https://example.com/"]\n\textraheader = AUTHORIZATION: basic %s\n'),
        ("run/containers/0/auth.json", '{"auths":{"x":{"auth":"%s"}}}'),
        ("root/.m2/settings.xml", "<server><username>me</username><password>%s</password></server>"),
        ("root/.gradle/gradle.properties", "nexusPassword=%s\n"),
        ("root/.cargo/credentials.toml", '[registry]\ntoken = "%s"\n'),
        ("app/.env", "DB_PASSWORD='%s with blanks'\n"),
        ("app/.env.production.local", "DB_PASSWORD=%s\n"),
        ("app/.vault_pass", "%s\n"),
        ("app/appsettings.Production.json", '{"ConnectionStrings":{"d":"Server=x;User Id=sa;Password=%s;"}}'),
        ("app/web.config", '<add name="d" connectionString="Server=x;User Id=sa;Password=%s;"/>'),
        ("app/web.config", '<add key="DbPassword" value="%s"/>'),
        ("app/docker-compose.yml", "services:\n  db:\n    environment:\n      POSTGRES_PASSWORD: %s\n"),
        ("app/compose.prod.yaml", "services:\n  db:\n    environment:\n      - POSTGRES_PASSWORD=%s\n"),
        ("app/secret.yaml", "apiVersion: v1\nkind: Secret\nstringData:\n  password: %s\n"),
    ],
)
def test_another_file_that_is_made_to_hold_credentials(path: str, text: str) -> None:
    for data in ((text % PASSWORD).encode(), (text % PASSWORD).replace("\n", "\r\n").encode()):
        (found,) = SecretScanner().search(path, data)
        assert found.rule == "credential"
        assert PASSWORD not in found.redacted
    for placeholder in ("changeme", "${PASSWORD}"):
        assert (
            SecretScanner().search(path, text.replace("%s with blanks", "%s").replace("%s", placeholder).encode()) == []
        )


def test_settings_about_credentials_are_none() -> None:
    text = json.dumps({"TokenLifetime": "01:00:00", "PasswordPolicy": "strict", "Token": {"Audience": "https"}})
    assert SecretScanner().search("app/appsettings.json", text.encode()) == []


def test_an_example_of_a_compose_file_is_none() -> None:
    text = "environment:\n  POSTGRES_PASSWORD: postgres\n  DB_PASSWORD: password\n"
    assert SecretScanner().search("app/docker-compose.yml", text.encode()) == []


@pytest.mark.parametrize(
    "config",
    [
        {"cmd": ("app", "--password", PASSWORD)},
        {"entrypoint": ("/bin/sh", "-c", f"DB_PASSWORD={PASSWORD} app")},
        {"healthcheck": Healthcheck(("CMD", "curl", "-u", f"me:{PASSWORD}", "http://localhost"))},
        {"onbuild": (f"ARG API_KEY={PASSWORD}",)},
    ],
)
def test_a_command_of_the_config_without_a_line_in_the_history(config: dict[str, Any]) -> None:
    made = subject(history=[], **config)
    outcome = EmbeddedSecrets().examine(made)
    assert isinstance(outcome, Failed)
    assert PASSWORD not in str(outcome)
    assert PASSWORD not in str(image_without_secrets(made.image))
    assert image_without_secrets(subject(cmd=("app", "--x")).image).config.cmd == ("app", "--x")


def test_an_annotation() -> None:
    made = subject()
    made = replace(made, image=replace(made.image, annotations=(("org.example.token", GITHUB),)))
    assert isinstance(EmbeddedSecrets().examine(made), Failed)
    assert GITHUB not in str(image_without_secrets(made.image))


@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("author", f"me {GITHUB}", "/author"),
        ("shell", ("sh", "-c", f"GITHUB_TOKEN={GITHUB}"), "/config/Shell"),
        ("user", GITHUB, "/config/User"),
        ("working_dir", f"/srv/{GITHUB}", "/config/WorkingDir"),
        ("volumes", ("/data", f"/srv/{GITHUB}"), "/config/Volumes"),
        ("unspecified", (("/container_config/Env/0", f"GITHUB_TOKEN={GITHUB}"),), "/container_config/Env/0"),
        ("unspecified", (("/x/DB_PASSWORD", "hunter2-really"),), "/x/DB_PASSWORD"),
    ],
)
def test_a_secret_in_any_text_of_the_config(member: str, value: Any, pointer: str) -> None:
    """Everyone who pulls the image gets the whole config, also members that no runtime reads."""
    image = subject(**{member: value})
    outcome = EmbeddedSecrets().examine(image)
    assert isinstance(outcome, Failed)
    assert pointer in {item.pointer for item in outcome.evidence}
    told = repr((outcome, image_without_secrets(image.image)))
    assert GITHUB not in told
    assert "hunter2" not in told


@pytest.mark.parametrize("member", ["comment", "author"])
def test_a_secret_beside_a_step_of_the_history(member: str) -> None:
    image = subject(history=["RUN make"])
    (step,) = image.image.config.history
    config = replace(image.image.config, history=(replace(step, **{member: f"by {GITHUB}"}),))
    outcome = EmbeddedSecrets().examine(replace(image, image=replace(image.image, config=config)))
    assert isinstance(outcome, Failed)
    assert [item.pointer for item in outcome.evidence] == [f"/history/0/{member}"]


def test_what_an_old_builder_repeats_is_told_once() -> None:
    line = f"/bin/sh -c curl -H 'Authorization: Bearer {GITHUB}' https://x.example"
    again = (("/container_config/Cmd/2", line.removeprefix("/bin/sh -c ")), ("/container_config/Env/0", f"T={GITHUB}"))
    outcome = EmbeddedSecrets().examine(subject(history=[line], env=(("T", GITHUB),), unspecified=again))
    assert isinstance(outcome, Failed)
    assert {item.pointer for item in outcome.evidence} == {"/history/0", "/config/Env"}


def test_a_config_full_of_secrets_ends() -> None:
    many = tuple((f"/x/{number}", f"password={GITHUB}{number}") for number in range(500))
    outcome = EmbeddedSecrets().examine(subject(unspecified=many))
    assert isinstance(outcome, Failed)
    assert len(outcome.evidence) <= 100
