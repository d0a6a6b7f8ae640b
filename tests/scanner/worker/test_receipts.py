"""Receipts beside images in a real registry: signed by a worker, replaced, renewed, retried; and read by the real
cosign and policy-controller.
"""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from werkzeug import Response

from scanner.cli import cli
from scanner.config import Secret, Settings
from scanner.model.actor import SERVICE
from scanner.model.decision import Verdict
from scanner.model.notification import EventKind
from scanner.services import notification_delivery
from scanner.services import receipts as use_cases
from scanner.store import audit, jobs, outbox, registries
from scanner.store import receipts as store
from scanner.store.schema import job, receipt, receipt_key, receipt_push, verdict
from scanner.store.session import Database, epoch, moment
from scanner.trust import _receipts as signing
from scanner.worker import maintenance
from scanner.worker import receipts as pushing
from scanner.worker.worker import Attempt, of_job
from tests.databases import BACKENDS, migrated_url
from tests.scanner.registry.cloud.fakes import SECRET
from tests.scanner.registry.test_attaching import open_client, pushed
from tests.scanner.store import factories as make
from tests.scanner.store import recorded
from tests.scanner.trust.key_services import Fake
from tests.scanner.trust.test_receipts import facts
from tests.servers import Registry

KEY = Secret("a secret key for tests, long enough")
ROOT = Path(__file__).parents[3]


class Place:
    """An installation whose registry takes receipts, with one image in it."""

    def __init__(self, settings: Settings, database: Database, registry: Registry, name: str) -> None:
        self.settings, self.database, self.registry = settings, database, registry
        with open_client(registry, settings) as client:
            self.image = pushed(client, name)
        report = make.report(name, repository=self.image.name)
        assert self.image.digest
        self.report = replace(report, subject=replace(report.subject, digest=self.image.digest))
        with database.session() as session:
            self.id = registries.add(session, registry.host, KEY, insecure=True, write_receipts=True).id

    @property
    def digest(self) -> str:
        return str(self.image.digest)

    def decided(self, judged: Verdict, environment: str = "production") -> None:
        recorded.record(self.database, self.report, judged, environment=environment)

    def work(self) -> str:
        """Run the job as a worker does. Returns its message, or "" if none was due."""
        maintenance._plan_receipts(maintenance.Upkeep(self.settings, self.database))
        with self.database.session() as session:
            held = jobs.claim(session, "w", {jobs.RECEIPTS: None}, 60)
        if held is None:
            return ""
        attempt = Attempt(self.settings, self.database, of_job(held))
        attempt.run(lambda report: pushing.run(held, self.settings, self.database, report))
        with self.database.read() as session:
            ended = jobs.get(session, held.id)
        return f"{ended.state}: {ended.reason}" if ended.reason else ended.message

    def push(self) -> store.PushView:
        with self.database.read() as session:
            found = store.push_of(session, self.digest, self.image.name)
        assert found is not None
        return found

    def keys(self, tmp_path: Path) -> Path:
        signer = use_cases.Signer(self.settings, KEY)
        with self.database.session() as session:
            found = use_cases.published_keys(session, signer, SERVICE)
        file = tmp_path / "keys.pem"
        file.write_text("".join(key.public_pem for key in use_cases.signing_first(found)))
        return file

    def verify(self, tmp_path: Path, environment: str = "production", image: str = "") -> tuple[int, str]:
        """``dockwarden receipt verify IMAGE``: exit code and text."""
        command = ["receipt", "verify", image or str(self.image), "--insecure-registry", self.registry.host]
        command += ["--key", str(self.keys(tmp_path)), "--environment", environment]
        done = CliRunner().invoke(cli, command, standalone_mode=False)
        assert done.exception is None, done.exception
        return int(done.return_value or 0), done.output


@pytest.fixture
def place_on(settings: Settings, tmp_path: Path, plain_registry: Registry) -> Iterator[Callable[..., Place]]:
    opened: list[Database] = []

    def make_place(name: str, backend: str = "sqlite") -> Place:
        database = Database(migrated_url(backend, tmp_path))
        opened.append(database)
        return Place(replace(settings, secret_key=KEY), database, plain_registry, f"receipts/{name}")

    yield make_place
    for database in opened:
        database.engine.dispose()


def test_a_key_service_that_is_away_leaves_no_former_receipt_in_the_registry(
    place_on: Callable[..., Place], httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise an image that is denied now would be admitted until its receipt ends."""
    service = Fake.on(httpserver)
    monkeypatch.setenv("VAULT_ADDR", service.base)
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    place = place_on("key-service")
    place.settings = replace(place.settings, receipt_kms_key="hashivault://receipts")
    signer = use_cases.Signer(place.settings, KEY)
    fetched = use_cases.fetch_key(signer)
    with place.database.session() as session:
        use_cases.rotate_key(session, signer, SERVICE, fetched=fetched)
    place.decided(Verdict.ALLOW)
    assert place.work() == "1 receipt signed; 1 image written to registries, 0 failed"
    assert place.verify(tmp_path)[0] == 0
    service.answer = Response("{}", 503)
    place.decided(Verdict.DENY)
    assert place.work() == "failed: kms_unavailable"
    assert place.push().state == "pushed"
    code, text = place.verify(tmp_path)
    assert (code, "PASSED" in text) == (1, False), text


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_key_service_that_stays_refused_is_asked_less_and_less_and_reported_once(
    place_on: Callable[..., Place],
    backend: str,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Fake.on(httpserver)
    monkeypatch.setenv("VAULT_ADDR", service.base)
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    place = place_on(f"refused-{backend}", backend)
    place.settings = replace(place.settings, receipt_kms_key="hashivault://receipts")
    signer = use_cases.Signer(place.settings, KEY)

    def rotate() -> None:
        fetched = use_cases.fetch_key(signer)
        with place.database.session() as session:
            use_cases.rotate_key(session, signer, SERVICE, overlap_hours=0, fetched=fetched)

    def trouble() -> use_cases.SigningTrouble | None:
        with place.database.read() as session:
            return use_cases.signing_trouble(session, place.settings)

    def later(seconds: float) -> None:
        with place.database.session() as session:
            ended = session.execute(sa.select(job.c.id, job.c.finished_at)).all()
            for row in ended:
                earlier = row.finished_at - timedelta(seconds=seconds)
                session.execute(job.update().where(job.c.id == row.id).values(finished_at=earlier))
            session.execute(receipt_key.update().values(created_at=moment(session) - timedelta(days=1)))

    def events() -> list[bool]:
        notification_delivery.watch(place.database, place.settings)
        with place.database.read() as session:
            told = [row.event for row in outbox.unrouted_events(session, limit=1000)]
        return [one.resolved for one in told if one.kind is EventKind.RECEIPTS_UNSIGNED]

    rotate()
    place.decided(Verdict.ALLOW)
    service.answer = Response('{"errors": ["permission denied"]}', 403)
    for tries in (1, 2, 3):
        with caplog.at_level("WARNING"):
            assert place.work() == "failed: kms_refused"
        assert place.work() == place.work() == "", "no further job in this pause"
        found = trouble()
        assert found is not None
        assert (found.reason, found.failures) == ("kms_refused", tries)
        with place.database.read() as session:
            assert timedelta(0) < found.next_try - moment(session) <= timedelta(seconds=60 * 2 ** (tries - 1))
        later(60 * 2 ** (tries - 1))
    assert caplog.text.count("receipts are not signed") == 1
    assert events() == events() == [False]
    later(-120)
    asked = len(service.asked)
    with place.database.session() as session:
        store.request_push(session, place.digest, place.image.name)
    assert place.work() == "0 receipts signed; 1 image written to registries, 0 failed"
    assert len(service.asked) == asked, "what needs no signature goes on"
    found = trouble()
    assert found is not None
    assert found.failures == 3, "a job that did not try ends no series"
    later(-86400)
    assert trouble() is None, "the clock was set back by a day: no pause of a day"
    later(86400)
    service.answer, service.version = None, 2
    service.key = ec.generate_private_key(ec.SECP256R1())
    rotate()
    assert place.work() == "1 receipt signed; 1 image written to registries, 0 failed"
    assert trouble() is None
    assert events() == [False, True]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_decision_is_written_beside_its_image_and_replaced(
    place_on: Callable[..., Place], backend: str, tmp_path: Path
) -> None:
    place = place_on(f"replaced-{backend}", backend)
    assert place.work() == "", "nothing is decided yet"
    place.decided(Verdict.ALLOW)
    place.decided(Verdict.DENY, "staging")
    assert place.work() == "2 receipts signed; 1 image written to registries, 0 failed"
    assert place.push().state == "pushed"
    assert place.verify(tmp_path)[0] == 0
    assert place.verify(tmp_path, "staging")[0] == 1
    assert place.verify(tmp_path, "")[0] == 1
    assert place.work() == "", "nothing has changed"
    place.decided(Verdict.DENY)
    assert place.work().startswith("2 receipts signed; 1 image")  # one superseded, one signed
    code, text = place.verify(tmp_path)
    assert (code, text.split()[0]) == (1, "FAILED")
    with place.database.read() as session:
        actions = [entry.action for entry in audit.list_entries(session, limit=50).items]
    assert actions.count("receipt.push") == 2
    assert actions.count("receipt.issue") == 3


def test_one_that_ends_soon_is_renewed(place_on: Callable[..., Place]) -> None:
    place = place_on("renewed")
    place.decided(Verdict.ALLOW)
    place.work()
    with place.database.session() as session:
        session.execute(receipt.update().values(valid_until=epoch(session) + 3600))
    assert place.work().startswith("1 receipt signed; 1 image")
    with place.database.session() as session:  # the decision itself ends: a new receipt could not hold longer
        ends = int(epoch(session)) + 3600.0
        session.execute(receipt.update().values(valid_until=ends))
        session.execute(verdict.update().values(valid_until=ends))
    assert place.work() == ""


def test_a_decision_that_is_gone_is_taken_out_of_the_registry(place_on: Callable[..., Place], tmp_path: Path) -> None:
    place = place_on("gone")
    place.decided(Verdict.ALLOW)
    place.work()
    with place.database.session() as session:
        session.execute(verdict.delete())
    place.work()
    code, text = place.verify(tmp_path)
    assert (code, text) == (1, "REFUSED  there is no receipt of Dockwarden (missing)\n")


def test_off_is_off(place_on: Callable[..., Place]) -> None:
    place = place_on("off")
    with place.database.session() as session:
        registries.update(session, place.id, KEY, write_receipts=False)
    place.decided(Verdict.ALLOW)
    assert place.work() == ""


def test_a_failed_push_is_shown_and_tried_again(place_on: Callable[..., Place], tmp_path: Path) -> None:
    place = place_on("failed")
    place.decided(Verdict.ALLOW)
    with place.database.session() as session:  # https to a registry without TLS
        registries.update(session, place.id, KEY, insecure=False)
    assert place.work() == "1 receipt signed; 0 images written to registries, 1 failed"
    failed = place.push()
    assert (failed.state, failed.attempt, failed.reason) == ("failed", 1, "tls_required")
    assert place.work() == "", "it waits"
    with place.database.session() as session:
        registries.update(session, place.id, KEY, insecure=True)
        session.execute(receipt_push.update().values(next_at=0.0))
    assert place.work() == "0 receipts signed; 1 image written to registries, 0 failed"
    assert (place.push().state, place.push().attempt) == ("pushed", 0)
    assert place.verify(tmp_path)[0] == 0


def test_a_receipt_of_another_repository_does_not_open_a_copy(place_on: Callable[..., Place], tmp_path: Path) -> None:
    """Whoever may push can copy image and attestations; the receipt still names the repository that was judged."""
    place = place_on("copied")
    place.decided(Verdict.ALLOW)
    place.work()
    assert place.image.digest
    tag = f"sha256-{place.image.digest.hex}.att"
    copy = f"{place.registry.host}/receipts/copy"
    for source, target in ((str(place.image), f"{copy}:1"), (f"{place.image.name}:{tag}", f"{copy}:{tag}")):
        command = ["skopeo", "copy", "--quiet", "--insecure-policy", "--preserve-digests"]
        command += ["--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{source}", f"docker://{target}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    code, text = place.verify(tmp_path, image=f"{copy}@{place.digest}")
    assert code == 1
    assert "another repository" in text


def test_a_registry_that_is_away_is_no_answer(place_on: Callable[..., Place], tmp_path: Path) -> None:
    place = place_on("away")
    command = ["receipt", "verify", f"127.0.0.1:1/a/b@{place.digest}", "--insecure-registry", "127.0.0.1:1"]
    done = CliRunner().invoke(cli, [*command, "--key", str(place.keys(tmp_path))], standalone_mode=False)
    assert getattr(done.exception, "reason", "") == "registry_unreachable"


# The real cosign


def built(part: str, program: str) -> str:
    """The path of a program that .ci/build-part builds."""
    found = subprocess.run([ROOT / ".ci/build-part", part], capture_output=True, text=True, check=True)
    path = Path(found.stdout.strip()) / program
    if not path.exists():
        pytest.skip(f"platform: {part} was not built; install Go 1.24 or newer and run .ci/build-part {part}")
    return str(path)


@pytest.fixture(scope="module")
def cosign() -> str:
    return built("cosign", "cosign")


def attested(cosign: str, place: Place, key: Path, tmp_path: Path, *more: str) -> tuple[bool, str]:
    """Whether ``cosign verify-attestation`` accepts, and what it says."""
    command = [
        cosign,
        "verify-attestation",
        "--key",
        str(key),
        "--insecure-ignore-tlog",
        "--allow-http-registry",
        *more,
    ]
    if "--new-bundle-format" in more:
        # cosign asks for a trusted root even with a key: an empty one trusts no log and no authority.
        root = tmp_path / "root.json"
        root.write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
        command += ["--trusted-root", str(root)]
    home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, str(place.image)], capture_output=True, text=True, env=home, timeout=120, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("form", [[], ["--new-bundle-format"]], ids=["tag", "bundle"])
def test_the_real_cosign_accepts_a_receipt_and_refuses_every_other(
    place_on: Callable[..., Place], cosign: str, tmp_path: Path, form: Sequence[str]
) -> None:
    place = place_on(f"cosign-{len(form)}")
    place.decided(Verdict.ALLOW)
    place.work()
    key = place.keys(tmp_path)
    for kind in (*signing.PREDICATES, signing.environment_type("production")):
        ok, text = attested(cosign, place, key, tmp_path, "--type", kind, *form)
        assert ok, (kind, text)
    policy = ["--policy", str(ROOT / "examples/cosign/receipt.rego"), *form]
    ok, text = attested(cosign, place, key, tmp_path, "--type", signing.SUMMARY, *policy)
    assert ok, text
    # cosign demands that each attestation of a type meets the policy.
    place.decided(Verdict.DENY, "staging")
    place.decided(Verdict.ALLOW, "development")
    place.work()
    assert not attested(cosign, place, key, tmp_path, "--type", signing.SUMMARY, *policy)[0]
    summary = ["--type", signing.environment_type("production"), *policy]
    ok, text = attested(cosign, place, key, tmp_path, *summary)
    assert ok, text
    # Foreign: another key.
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(signing.public_of(signing.new_key())[1])
    assert not attested(cosign, place, foreign, tmp_path, *summary)[0]
    # For another environment.
    rego = tmp_path / "staging.rego"
    rego.write_text((ROOT / "examples/cosign/receipt.rego").read_text().replace('"production"', '"staging"'))
    staging = ["--type", signing.environment_type("staging"), "--policy", str(rego), *form]
    assert not attested(cosign, place, key, tmp_path, *staging)[0], "denied there"
    # Denied: the receipt is replaced, and the policy refuses the new one.
    place.decided(Verdict.DENY)
    place.work()
    ok, text = attested(cosign, place, key, tmp_path, *summary)
    assert not ok, text


@pytest.mark.long
@pytest.mark.parametrize("form", [[], ["--new-bundle-format"]], ids=["tag", "bundle"])
def test_the_real_cosign_refuses_an_ended_and_a_forged_receipt(
    place_on: Callable[..., Place], cosign: str, tmp_path: Path, form: Sequence[str]
) -> None:
    place = place_on(f"cosign-forged-{len(form)}")
    place.decided(Verdict.ALLOW)
    with place.database.session() as session:  # it ends within the second
        session.execute(verdict.update().values(valid_until=epoch(session) + 3600))
    place.work()
    key = place.keys(tmp_path)
    summary = ["--type", signing.SUMMARY, "--policy", str(ROOT / "examples/cosign/receipt.rego"), *form]
    assert attested(cosign, place, key, tmp_path, *summary)[0]
    with open_client(place.registry, place.settings) as client, place.database.read() as session:
        (found,) = store.to_push(session, place.digest, place.image.name)
        bundles = use_cases.bundles(session, found)
    for change in ("ended", "forged"):
        made = _changed(place, found.envelopes[signing.SUMMARY], bundles[signing.SUMMARY], change)
        with open_client(place.registry, place.settings) as client:
            pushing.attach(client, place.image, place_owner(place), made)
        ok, text = attested(cosign, place, key, tmp_path, *summary)
        assert not ok, (change, text)


@pytest.mark.long
def test_the_example_admits_and_refuses_with_the_real_cosign(
    place_on: Callable[..., Place], cosign: str, tmp_path: Path, httpserver: HTTPServer
) -> None:
    place = place_on("cosign-example")
    home = {"PATH": f"{Path(cosign).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def example(*arguments: str, **more: str) -> tuple[int, str]:
        command = [str(ROOT / "examples/cosign/refused.sh"), str(place.image), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=home | more, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    place.decided(Verdict.ALLOW)
    key = str(place.keys(tmp_path))
    code, text = example(key)
    assert (code, "refused" in text) == (1, True), "nothing was written beside the image yet"
    place.work()
    assert example(key)[0] == 0, example(key)
    httpserver.expect_request("/api/v1/receipts/keys.pem").respond_with_data(Path(key).read_text())
    code, text = example(DOCKWARDEN_SERVER=httpserver.url_for("").rstrip("/"))
    assert (code, "admitted" in text) == (0, True), text
    assert example(DOCKWARDEN_SERVER=httpserver.url_for("/nothing"))[0] == 2
    assert example(str(tmp_path / "none.pem"))[0] == 2
    assert example(key, PATH="/usr/bin:/bin")[0] == 2
    place.decided(Verdict.DENY)
    place.work()
    code, text = example(key)
    assert (code, "refused" in text) == (1, True), text
    assert "is not true" in text, "the policy refuses what the signature alone would let in"


# The real policy-controller


def _example_policy(tool: str, pem: str, *, indent: int) -> str:
    """The example's policy with our public key."""
    marked = re.compile(r"-----BEGIN PUBLIC KEY-----.*-----END PUBLIC KEY-----\n", re.DOTALL)
    example = (ROOT / "examples" / tool / "receipt.yaml").read_text()
    return marked.sub(textwrap.indent(pem, " " * indent).lstrip(), example)


def _ran_well(home: Path, *command: str) -> tuple[bool, str]:
    """Run a verifier. ``home``: it keeps the trusted roots of sigstore there, which a key needs none of."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home)},
        timeout=120,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def _attach_changed(place: Place, kind: str, change: str) -> None:
    """Write the receipt for production beside the image, changed as `_changed` does."""
    with place.database.read() as session:
        pushed = store.to_push(session, place.digest, place.image.name)
        (found,) = [each for each in pushed if each.environment == "production"]
        bundles = use_cases.bundles(session, found)
    made = _changed(place, found.envelopes[kind], bundles[kind], change)
    with open_client(place.registry, place.settings) as client:
        pushing.attach(client, place.image, place_owner(place), made)


@pytest.fixture(scope="module")
def tester() -> str:
    """The program of the sigstore policy-controller that compares one image with one policy, as its webhook does."""
    return built("policy-controller", "tester")


@pytest.mark.long
def test_the_real_policy_controller_admits_by_the_example_and_refuses_every_other(
    place_on: Callable[..., Place], tester: str, tmp_path: Path
) -> None:
    place = place_on("policy-controller")
    place.decided(Verdict.ALLOW)
    key = place.keys(tmp_path)

    def admits(pem: str, **changed: str) -> tuple[bool, str]:
        text = _example_policy("policy-controller", pem, indent=10)
        for old, new in changed.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        policy = tmp_path / "policy.yaml"
        policy.write_text(text)
        return _ran_well(tmp_path, tester, "-policy", str(policy), "-image", str(place.image))

    own = key.read_text()
    assert not admits(own)[0], "nothing was written beside the image yet"
    place.work()
    ok, text = admits(own)
    assert ok, text
    assert not admits(signing.public_of(signing.new_key())[1])[0], "of another installation"
    assert not admits(own, production="staging")[0], "for another environment"
    place.decided(Verdict.DENY, "staging")
    place.decided(Verdict.ALLOW, "development")
    place.work()
    ok, text = admits(own)
    assert ok, text
    for change in ("ended", "forged"):
        _attach_changed(place, signing.SUMMARY, change)
        ok, text = admits(own)
        assert not ok, (change, text)
    place.decided(Verdict.DENY)
    place.work()
    ok, text = admits(own)
    assert (ok, "receipt-passed" in text or "isCompliant" in text or "policy" in text) == (False, True), text


# The real Kyverno


@pytest.fixture(scope="module")
def kyverno() -> str:
    """Kyverno's own program, which applies a policy to a Pod as its webhook does."""
    return built("kyverno", "kyverno")


@pytest.mark.long
def test_the_real_kyverno_admits_by_the_example_and_refuses_every_other(
    place_on: Callable[..., Place], kyverno: str, tmp_path: Path
) -> None:
    place = place_on("kyverno")
    place.decided(Verdict.ALLOW)
    key = place.keys(tmp_path)

    def admits(pem: str, namespace: str = "production-shop", environment: str = "production") -> tuple[bool, str]:
        text = _example_policy("kyverno", pem, indent=26)
        text = text.replace("value: production\n", f"value: {environment}\n")
        text = text.replace(f"{signing.environment_type('production')}\n", f"{signing.environment_type(environment)}\n")
        policy, pod = tmp_path / "policy.yaml", tmp_path / "pod.yaml"
        policy.write_text(text)
        container = {"name": "web", "image": str(place.image)}
        metadata = {"name": "web", "namespace": namespace}
        pod.write_text(
            json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
        )
        return _ran_well(
            tmp_path, kyverno, "apply", str(policy), "--resource", str(pod), "--registry", "--remove-color"
        )

    own = key.read_text()
    assert not admits(own)[0], "nothing was written beside the image yet"
    place.work()
    ok, text = admits(own)
    assert ok, text
    assert "pass: 2, fail: 0" in text, "the policy was applied: attestations, and digest"
    assert admits(own, "production")[1] == text
    for foreign in (admits(signing.public_of(signing.new_key())[1]), admits(own, environment="staging")):
        assert not foreign[0], foreign
        assert "no matching attestations" in foreign[1] or "not found for predicate type" in foreign[1], foreign
    # Kyverno demands that each attestation of a type meets the conditions.
    place.decided(Verdict.DENY, "staging")
    place.decided(Verdict.ALLOW, "development")
    place.work()
    ok, text = admits(own)
    assert ok, text
    ok, text = admits(own, environment="staging")
    assert (ok, "the receipt does not pass" in text) == (False, True), text
    place.decided(Verdict.DENY)
    place.work()
    ok, text = admits(own)
    assert (ok, "the receipt does not pass" in text) == (False, True), text
    place.decided(Verdict.ALLOW)
    place.work()
    assert admits(own)[0]
    kind = signing.environment_type("production")
    for change, message in (("ended", "the receipt has ended"), ("forged", "no matching attestations")):
        _attach_changed(place, kind, change)
        ok, text = admits(own)
        assert (ok, message in text) == (False, True), (change, text)


def place_owner(place: Place) -> str:
    return use_cases.Signer(place.settings, KEY).verifier


def _changed(place: Place, envelope: str, bundle: str, change: str) -> list[pushing.Attestation]:
    """The summary, ended (signed by our key, as one that is old) or forged (changed after it was signed)."""
    import base64

    import orjson

    document = orjson.loads(envelope)
    payload = base64.b64decode(document["payload"])
    if change == "forged":
        payload = payload.replace(b'"dockwarden_environment":"production"', b'"dockwarden_environment":"productioN"')
        document["payload"] = base64.b64encode(payload).decode()
        text = orjson.dumps(document).decode()
    else:
        statement = orjson.loads(payload)
        statement["predicate"]["dockwarden_validUntil"] = "2020-01-01T00:00:00Z"
        with place.database.read() as session:
            (key,) = store.keys(session)
            text = signing.sign(orjson.dumps(statement), store.private_key(session, key.id, KEY))
    whole = orjson.loads(bundle) | {"dsseEnvelope": orjson.loads(text)}
    now, kind = make.NOW, str(orjson.loads(payload)["predicateType"])
    return [pushing.Attestation(kind, text.encode(), orjson.dumps(whole), place_owner(place), now)]


# The examples


@pytest.mark.parametrize("file", ["cosign/receipt.rego", "kyverno/receipt.yaml", "policy-controller/receipt.yaml"])
def test_each_example_asks_for_type_result_environment_and_end(file: str) -> None:
    """Every member that an example reads exists in the statement: a misspelt one would refuse, or admit, everything."""
    text = (ROOT / "examples" / file).read_text()
    statement = signing.statements(facts())[signing.SUMMARY].decode()
    for member in ("verificationResult", "dockwarden_environment", "dockwarden_validUntil"):
        assert member in text
        assert f'"{member}":' in statement
    assert signing.SUMMARY in text
    assert "PASSED" in text
    # cosign and Kyverno refuse an image whose receipt for another environment does not pass, if asked for all of them.
    if file.startswith("kyverno"):
        assert f"type: {signing.environment_type('production')}\n" in text
    if file.startswith("cosign"):
        assert signing.environment_type("%v") in text
