"""The search for secrets against Trivy's: how many planted secrets each finds, how fast, and what is no secret.

    python -m benchmarks.secrets [--rounds 3] [--seed 1] [--no-images] [--missed]

Every kind that Trivy's rules name is planted as its provider documents it, and every kind of our catalogue, each in
four kinds of files. The values are random and of this run alone. Throughput is that of both searches over the same
files. False alarms are what we report on the three images of ``benchmarks.images``, which contain no secret.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re._constants as constants
import re._parser as parser
import resource
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.checks._secret_catalogue import SHAPES
from scanner.checks._secret_shapes import Shape
from scanner.checks._secrets import MAX_FILE, SecretScanner

BIN = Path(sys.executable).parent
_WORD = string.ascii_letters + string.digits + "_"
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_PEM = r"-----BEGIN RSA PRIVATE KEY-----\n(?:MIIE[A-Za-z0-9+/]{60}\n){12}-----END RSA PRIVATE KEY-----"

# The identifiers of Trivy's rules, each with the name of a setting and a value as the provider documents it.
TRIVY: Mapping[str, tuple[str, str]] = {
    "aws-access-key-id": ("aws_access_key_id", "AKIA[A-Z2-7]{16}"),
    "aws-secret-access-key": ("aws_secret_access_key", "[A-Za-z0-9/+]{40}"),
    "github-pat": ("token", "ghp_[0-9a-zA-Z]{36}"),
    "github-oauth": ("token", "gho_[0-9a-zA-Z]{36}"),
    "github-app-token": ("token", "gh[us]_[0-9a-zA-Z]{36}"),
    "github-refresh-token": ("token", "ghr_[0-9a-zA-Z]{76}"),
    "github-fine-grained-pat": ("token", "github_pat_[a-zA-Z0-9]{22}_[a-zA-Z0-9]{59}"),
    "gitlab-pat": ("token", "glpat-[0-9a-zA-Z_-]{20}"),
    "hugging-face-access-token": ("token", "hf_[A-Za-z0-9]{34}"),
    "private-key": ("key", _PEM),
    "shopify-token": ("token", "shp(?:ss|at|ca|pa)_[a-fA-F0-9]{32}"),
    "slack-access-token": ("token", "xoxb-[0-9]{12}-[0-9]{12}-[a-zA-Z0-9]{24}"),
    "stripe-publishable-token": ("key", "pk_live_[0-9a-zA-Z]{24}"),
    "stripe-secret-token": ("key", "sk_live_[0-9a-zA-Z]{24}"),
    "pypi-upload-token": ("token", "pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{140}"),
    "gcp-service-account": (
        "account",
        r'\{"type": "service_account", "project_id": "p", "private_key_id": "[a-f0-9]{40}", "client_id": "1"\}',
    ),
    "heroku-api-key": (" heroku_api_key", _UUID),
    "slack-web-hook": ("url", r"https://hooks\.slack\.com/services/T[A-Z0-9]{10}/B[A-Z0-9]{10}/[A-Za-z0-9]{24}"),
    "twilio-api-key": ("sid", "SK[0-9a-f]{32}"),
    "age-secret-key": ("key", "AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    "facebook-token": ("facebook_app_secret", "[a-f0-9]{32}"),
    "twitter-token": ("twitter_token", "[a-f0-9]{40}"),
    "adobe-client-id": ("adobe_client_id", "[a-f0-9]{32}"),
    "adobe-client-secret": ("secret", "p8e-[a-z0-9]{32}"),
    "alibaba-access-key-id": ("id", "LTAI[a-zA-Z0-9]{20}"),
    "alibaba-secret-key": ("alibaba_secret", "[a-z0-9]{30}"),
    "asana-client-id": ("asana_client_id", "[0-9]{16}"),
    "asana-client-secret": ("asana_client_secret", "[a-z0-9]{32}"),
    "atlassian-api-token": ("atlassian_token", "[a-z0-9]{24}"),
    "bitbucket-client-id": ("bitbucket_client_id", "[a-z0-9]{32}"),
    "bitbucket-client-secret": ("bitbucket_client_secret", "[a-z0-9_-]{64}"),
    "beamer-api-token": ("beamer_token", "b_[a-z0-9=_-]{44}"),
    "clojars-api-token": ("token", "CLOJARS_[a-z0-9]{60}"),
    "contentful-delivery-api-token": ("contentful_delivery_token", "[a-z0-9_-]{43}"),
    "databricks-api-token": ("token", "dapi[a-f0-9]{32}"),
    "discord-api-token": ("discord_key", "[a-f0-9]{64}"),
    "discord-client-id": ("discord_client_id", "[0-9]{18}"),
    "discord-client-secret": ("discord_client_secret", "[a-z0-9_-]{32}"),
    "doppler-api-token": ("token", r"dp\.pt\.[a-zA-Z0-9]{43}"),
    "dropbox-api-secret": ("dropbox_secret", "[a-z0-9]{15}"),
    "dropbox-short-lived-api-token": ("dropbox_token", r"sl\.[a-z0-9_=-]{135}"),
    "dropbox-long-lived-api-token": ("dropbox_token", "[a-z0-9]{11}AAAAAAAAAA[a-z0-9_=-]{43}"),
    "duffel-api-token": ("token", "duffel_live_[a-zA-Z0-9_-]{43}"),
    "dynatrace-api-token": ("token", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    "easypost-api-token": ("key", "EZAK[a-zA-Z0-9]{54}"),
    "fastly-api-token": ("fastly_token", "[a-zA-Z0-9_-]{32}"),
    "finicity-client-secret": ("finicity_secret", "[a-z0-9]{20}"),
    "finicity-api-token": ("finicity_token", "[a-f0-9]{32}"),
    "flutterwave-public-key": ("key", "FLWPUBK_TEST-[a-h0-9]{32}-X"),
    "flutterwave-enc-key": ("key", "FLWSECK_TEST[a-h0-9]{12}"),
    "frameio-api-token": ("token", "fio-u-[a-zA-Z0-9_-]{64}"),
    "gocardless-api-token": ("gocardless_token", "live_[a-zA-Z0-9_-]{40}"),
    "grafana-api-token": ("token", "eyJrIjoi[a-zA-Z0-9]{80}"),
    "hashicorp-tf-api-token": ("token", r"[a-zA-Z0-9]{14}\.atlasv1\.[a-zA-Z0-9_-]{66}"),
    "hubspot-api-token": ("hubspot_key", _UUID),
    "intercom-api-token": ("intercom_token", "[a-z0-9_=]{60}"),
    "intercom-client-secret": ("intercom_client_secret", _UUID),
    "ionic-api-token": ("ionic_token", "ion_[a-z0-9]{42}"),
    "jwt-token": ("token", r"eyJhbGciOiJIUzI1NiJ9\.eyJzdWIiOiI[a-zA-Z0-9]{40}\.[a-zA-Z0-9_-]{43}"),
    "linear-api-token": ("key", "lin_api_[a-zA-Z0-9]{40}"),
    "linear-client-secret": ("linear_client_secret", "[a-f0-9]{32}"),
    "lob-api-key": ("lob_key", "live_[a-f0-9]{35}"),
    "lob-pub-api-key": ("lob_key", "test_pub_[a-f0-9]{31}"),
    "mailchimp-api-key": ("mailchimp_key", "[a-f0-9]{32}-us20"),
    "mailgun-token": ("mailgun_key", "key-[a-f0-9]{32}"),
    "mailgun-signing-key": ("mailgun_signing_key", "[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8}"),
    "mapbox-api-token": ("token", r"pk\.[a-z0-9]{60}\.[a-z0-9]{22}"),
    "messagebird-api-token": ("messagebird_key", "[a-z0-9]{25}"),
    "messagebird-client-id": ("messagebird_client", _UUID),
    "new-relic-user-api-key": ("key", "NRAK-[A-Z0-9]{27}"),
    "new-relic-user-api-id": ("newrelic_id", "[A-Z0-9]{64}"),
    "new-relic-browser-api-token": ("key", "NRJS-[a-f0-9]{19}"),
    "npm-access-token": ("token", "npm_[a-zA-Z0-9]{36}"),
    "planetscale-password": ("password", r"pscale_pw_[a-zA-Z0-9_.-]{43}"),
    "planetscale-api-token": ("token", r"pscale_tkn_[a-zA-Z0-9_.-]{43}"),
    "private-packagist-token": ("token", "packagist_uut_[a-f0-9]{68}"),
    "postman-api-token": ("token", "PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    "pulumi-api-token": ("token", "pul-[a-f0-9]{40}"),
    "rubygems-api-token": ("token", "rubygems_[a-f0-9]{48}"),
    "sendgrid-api-token": ("key", r"SG\.[a-zA-Z0-9_-]{22}\.[a-zA-Z0-9_-]{43}"),
    "sendinblue-api-token": ("key", "xkeysib-[a-f0-9]{64}-[a-zA-Z0-9]{16}"),
    "shippo-api-token": ("token", "shippo_live_[a-f0-9]{40}"),
    "linkedin-client-secret": ("linkedin_client_secret", "[A-Za-z0-9]{16}"),
    "linkedin-client-id": ("linkedin_client_id", "[a-z0-9]{14}"),
    "twitch-api-token": ("twitch_token", "[a-z0-9]{30}"),
    "typeform-api-token": ("typeform_token", r"tfp_[a-zA-Z0-9_.=-]{59}"),
    "dockerconfig-secret": (
        ".dockerconfigjson",
        "eyJhdXRocyI6IHsicmVnaXN0cnkuZXhhbXBsZSI6eyJhdXRoIjoi(?:bWU6|c2Vj|cmV0|aHVu){5}In19fQ==",
    ),
}
# Ours are named after their row; those with Trivy's name are planted once more from our own expression.
KINDS: Sequence[str] = tuple(dict.fromkeys((*TRIVY, *(f"ours: {shape.rule}" for shape in SHAPES))))
# How a setting is written. Trivy recognises some kinds only in quotes.
_FORMS = {
    "conf": '# settings\nname = service\n{name} = "{value}"\nport = 8080\n',
    "yaml": 'service:\n  {name}: "{value}"\n  port: 8080\n',
    "json": '{{"service": "x",\n "{name}": "{value}",\n "port": 8080}}\n',
    "sh": '#!/bin/sh\nexport {name}="{value}"\nexec service\n',
}


@dataclass(frozen=True)
class Planted:
    kind: str
    text: bytes


def example(pattern: str, generator: random.Random) -> str:
    """Return a random text that the regular expression matches."""
    return "".join(_texts(parser.parse(pattern), generator))


def example_of(shape: Shape, generator: random.Random) -> bytes:
    """Return a line with a secret of this kind that its guards accept."""
    for _ in range(200):
        text = b"token = " + example(shape.body.decode(), generator).encode("latin-1") + b"\n"
        if any(shape.matches(text)):
            return text
    raise ValueError(f"{shape.rule}: no example passes its own guards")


def _texts(parts: Any, generator: random.Random) -> Iterator[str]:
    for kind, value in parts:
        if kind is constants.LITERAL:
            yield chr(value)
        elif kind is constants.NOT_LITERAL:
            yield "a" if chr(value) != "a" else "b"
        elif kind is constants.IN:
            yield generator.choice(_characters(value))
        elif kind is constants.BRANCH:
            yield from _texts(generator.choice(value[1]), generator)
        elif kind is constants.SUBPATTERN:
            yield from _texts(value[3], generator)
        elif kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            least, most, repeated = value
            for _ in range(generator.randint(least, min(most, least + 6))):
                yield from _texts(repeated, generator)
        elif kind is constants.ANY:
            yield "x"
        elif kind is constants.ASSERT:
            yield from _texts(value[1], generator)  # what follows in our expressions admits it
        elif kind not in (constants.ASSERT_NOT, constants.AT):
            raise ValueError(f"{kind} has no example")


def _characters(parts: Any) -> str:
    allowed: set[str] = set()
    for kind, value in parts:
        if kind is constants.LITERAL:
            allowed.add(chr(value))
        elif kind is constants.RANGE:
            allowed.update(map(chr, range(value[0], value[1] + 1)))
        elif kind is constants.CATEGORY:
            allowed.update({constants.CATEGORY_DIGIT: string.digits, constants.CATEGORY_SPACE: " "}.get(value, _WORD))
    every = _WORD + "+/"
    if parts[0][0] is constants.NEGATE:
        return "".join(character for character in every if character not in allowed)
    return "".join(sorted(allowed))


def plant(seed: int) -> dict[str, Planted]:
    """Return the planted files by path: each kind in each form, and each row of the catalogue in a file of its own."""
    generator = random.Random(seed)
    files = {}
    for number, (kind, (name, value)) in enumerate(TRIVY.items()):
        for form, template in _FORMS.items():
            secret = example(value, generator)
            if form == "json" and ("\n" in secret or '"' in secret):
                secret = json.dumps(secret)[1:-1]
            text = secret if secret.startswith("{") and form == "json" else template.format(name=name, value=secret)
            files[f"srv/{number:03}/{form}.{form}"] = Planted(kind, text.encode())
    for number, shape in enumerate(SHAPES):
        files[f"srv/own/{number:03}.txt"] = Planted(f"ours: {shape.rule}", example_of(shape, generator))
    return files


def find(planted: Mapping[str, Planted], work: Path) -> tuple[set[str], set[str]]:
    """Write the files and return the paths in which we and Trivy find a secret."""
    for path, file in planted.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(file.text)
    scanner = SecretScanner()
    ours = {path for path, file in planted.items() if scanner.search(path, file.text)}
    report = json.loads(_trivy(work)[0])
    return ours, {result["Target"] for result in report.get("Results") or () if result.get("Secrets")}


def _trivy(directory: Path) -> tuple[bytes, float]:
    """Run Trivy's search and return its report and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [
                *(str(BIN / "trivy"), "filesystem", "--scanners", "secret", "--format", "json", "--quiet"),
                *("--cache-dir", cache, "--skip-version-check", "--offline-scan", str(directory)),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _recall(seed: int, *, missed: bool) -> None:
    planted = plant(seed)
    with tempfile.TemporaryDirectory() as work:
        ours, theirs = find(planted, Path(work))
    for what, kinds in (("kinds of Trivy", set(TRIVY)), ("kinds of ours", set(KINDS) - set(TRIVY))):
        paths = {path for path, file in planted.items() if file.kind in kinds}
        us, them = len(ours & paths) / len(paths), len(theirs & paths) / len(paths)
        print(
            f"| recall, {len(kinds)} {what} in {len(paths)} files | ours {us:.1%} | Trivy {them:.1%} "
            f"| ratio {us / them:.2f} | at least 1: {'met' if us >= them else 'MISSED'} |"
        )
    if missed:
        for path in sorted(planted.keys() - ours):
            print(f"| missed by us{' alone' if path in theirs else ''} | {planted[path].kind} | {path} |")
        for path in sorted(planted.keys() - theirs):
            print(f"| missed by Trivy | {planted[path].kind} | {path} |")


def _throughput(rounds: int) -> None:
    """Time both over the same text files: the standard library, repeated."""
    text = b"".join(path.read_bytes() for path in sorted(Path(json.__file__).parents[1].glob("*.py")))
    files = {f"srv/{n:04}.py": text[at : at + (1 << 16)] for n, at in enumerate(range(0, len(text), 1 << 16))}
    files = {f"{k}/{path}": data for k in range(20) for path, data in files.items()}
    size = sum(map(len, files.values()))
    mine, theirs = [], []
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as nothing:
        for path, data in files.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(data)
        scanner = SecretScanner()
        scanner.search("warm", b"up" * 8)
        for _ in range(rounds):
            started = time.process_time()
            for path, data in files.items():
                scanner.search(path, data)
            mine.append(time.process_time() - started)
            theirs.append(_trivy(Path(name))[1] - _trivy(Path(nothing))[1])
    us, them = (size / 1e6 / max(statistics.median(seconds), 1e-3) for seconds in (mine, theirs))
    print(
        f"| throughput, {size / 1e6:.0f} MB of text | ours {us:.0f} MB/s | Trivy {them:.0f} MB/s "
        f"| ratio {us / them:.1f} |"
    )


def _false_alarms() -> None:
    from benchmarks.images import images
    from scanner.config import Limits
    from scanner.model.reference import Digest
    from scanner.registry.layers import ContentWants, read_layer
    from scanner.registry.manifest import OCI_CONFIG

    for image in images():
        blobs = image.layout / "blobs" / "sha256"
        scanner, spent, found, size = SecretScanner(), 0.0, [], 0
        for manifest in _documents(blobs):
            if manifest.get("config", {}).get("mediaType") != OCI_CONFIG:
                continue
            config = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_bytes())
            for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
                seconds = []
                for wants in (ContentWants(), ContentWants((), scanner)):
                    with (blobs / layer["digest"].partition(":")[2]).open("rb") as stream:
                        started = time.process_time()
                        facts = read_layer(
                            stream,
                            layer["mediaType"],
                            digest=Digest(layer["digest"]),
                            size=layer["size"],
                            diff_id=Digest(diff_id),
                            limits=Limits(),
                            wants=wants,
                        )
                        seconds.append(time.process_time() - started)
                spent += seconds[1] - seconds[0]
                size += facts.uncompressed_size
                found += [f"{match.path}:{match.line} {match.rule}" for match in facts.matches]
        print(
            f"| false alarms, {image.name} | {len(found)} | 0: {'met' if not found else 'MISSED'} "
            f"| {spent:.2f} CPU s for {size / 1e6:.0f} MB | {'; '.join(found[:5])} |"
        )


def _documents(blobs: Path) -> Iterator[dict[str, Any]]:
    for path in blobs.iterdir():
        if path.stat().st_size < MAX_FILE:
            try:
                document = json.loads(path.read_bytes())
            except ValueError:
                continue
            if isinstance(document, dict) and "layers" in document:
                yield document


def main() -> None:
    asked = argparse.ArgumentParser(description="Compare the search for secrets with Trivy's.")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--no-images", action="store_true")
    asked.add_argument("--missed", action="store_true", help="list the planted files without a finding")
    options = asked.parse_args()
    _recall(options.seed, missed=options.missed)
    _throughput(options.rounds)
    if not options.no_images:
        _false_alarms()
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
