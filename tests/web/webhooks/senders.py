"""Each format as its registry sends it: the recorded shape, and what makes a delivery authentic. No person is in them.

A ``Sender`` stands for one registry. ``push`` says what it tells of a push, ``sign`` what it sends beside it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

DIGEST = "sha256:" + "1" * 64
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EVENTS = "application/vnd.docker.distribution.events.v2+json"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:dockwarden"
ACCOUNT = "pusher@project.iam.gserviceaccount.com"
GOOGLE = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}, private=True)
AMAZON = rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Signed:
    """What goes beside a body: headers, and the rest of the path."""

    headers: Mapping[str, str]
    path: str = ""


@dataclass(frozen=True)
class Sender:
    """``host``: what the registry calls itself in what it sends; ``repository``: as the configured registry names it.

    ``identified``: a delivery told again can be known by its id. ``push`` takes repository, tag, digest and a number
    that differs from push to push.
    """

    format: str
    repository: str
    push: Callable[[str, str, str, int], Any]
    sign: Callable[[bytes, str, int], Signed]
    host: str = ""
    media_type: str = "application/json"
    has_digest: bool = True
    identified: bool = True
    sender: str = ""
    name: str = ""

    @property
    def id(self) -> str:
        return self.name or self.format

    def body(self, tag: str = "1.4.2", digest: str = DIGEST, number: int = 1) -> bytes:
        document = self.push(self.repository, tag, digest, number)
        return json.dumps(document).encode()


def bearer(body: bytes, secret: str, number: int) -> Signed:
    return Signed({"Authorization": f"Bearer {secret}"})


def plain(body: bytes, secret: str, number: int) -> Signed:
    return Signed({"Authorization": secret})


def in_path(body: bytes, secret: str, number: int) -> Signed:
    return Signed({}, f"/{secret}")


def in_header(name: str) -> Callable[[bytes, str, int], Signed]:
    return lambda body, secret, number: Signed({name: secret})


def hmac_in(name: str, algorithm: str = "sha256", prefix: str = "", **more: str) -> Callable[[bytes, str, int], Signed]:
    def sign(body: bytes, secret: str, number: int) -> Signed:
        made = prefix + hmac.new(secret.encode(), body, algorithm).hexdigest()
        headers = {key.replace("_", "-"): value.format(number) for key, value in more.items()}
        return Signed({name: made, **headers})

    return sign


def google(body: bytes, secret: str, number: int, *, key: RSAKey = GOOGLE, **changes: Any) -> Signed:
    """The OIDC token that Pub/Sub sends; ``changes`` replace claims, None takes one out."""
    now = int(time.time())
    claims = {
        "iss": "https://accounts.google.com",
        "aud": secret,
        "azp": "109",
        "sub": "109",
        "email": ACCOUNT,
        "email_verified": True,
        "iat": now,
        "exp": now + 3600,
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    token = jwt.encode({"alg": "RS256", "kid": key.kid, "typ": "JWT"}, kept, key)
    return Signed({"Authorization": f"Bearer {token}"})


def amazon_certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(AMAZON.public_key())
    builder = builder.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    return builder.sign(AMAZON, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sns(told: Any, *, version: str = "2", key: rsa.RSAPrivateKey = AMAZON, **changes: Any) -> dict[str, Any]:
    """An SNS message that its topic signed; ``changes`` are made before it is signed."""
    host = "https://sns.eu-west-1.amazonaws.com"
    message = {
        "Type": "Notification",
        "MessageId": "22b80b92-0000-4000-8000-000000000001",
        "TopicArn": TOPIC,
        "Message": told if isinstance(told, str) else json.dumps(told),
        "Timestamp": "2026-09-01T10:00:00.000Z",
        "SignatureVersion": version,
        "SigningCertURL": f"{host}/SimpleNotificationService-0123abcd.pem",
        "UnsubscribeURL": f"{host}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:1",
        **changes,
    }
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
    message["Signature"] = base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode()
    return message


def subscription(**changes: Any) -> dict[str, Any]:
    more = {"Token": "2336412f37", "SubscribeURL": "https://evil.example/?Action=ConfirmSubscription", **changes}
    return sns("You have chosen to subscribe to the topic.", Type="SubscriptionConfirmation", **more)


def keys_of_senders(*google_keys: RSAKey) -> Callable[[str], bytes]:
    """What Google and Amazon publish, at their own addresses and nowhere else."""
    listed = [key.as_dict(private=False) for key in google_keys or (GOOGLE,)]
    published = {
        "https://www.googleapis.com/oauth2/v3/certs": json.dumps({"keys": listed}).encode(),
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem": amazon_certificate(),
    }

    def ask(address: str) -> bytes:
        if address.startswith("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&"):
            return b"<ConfirmSubscriptionResponse/>"
        return published[address]

    return ask


# The shapes


def distribution(host: str) -> Callable[[str, str, str, int], Any]:
    return lambda repository, tag, digest, number: {"events": [azure(host)(repository, tag, digest, number)]}


def azure(host: str) -> Callable[[str, str, str, int], Any]:
    def push(repository: str, tag: str, digest: str, number: int) -> Any:
        target = {"mediaType": MANIFEST, "size": 1201, "digest": digest, "length": 1201}
        return {
            "id": f"6f1e0c52-{number}",
            "timestamp": "2026-09-01T10:00:00Z",
            "action": "push",
            "target": {**target, "repository": repository, "tag": tag},
            "request": {"id": "r1", "host": host, "method": "PUT", "useragent": "docker/27"},
        }

    return push


def harbor_data(repository: str, tag: str, digest: str) -> Any:
    namespace, _, name = repository.partition("/")
    url = f"harbor.example.test/{repository}:{tag}"
    about = {"name": name, "namespace": namespace, "repo_full_name": repository, "repo_type": "private"}
    return {"resources": [{"digest": digest, "tag": tag, "resource_url": url}], "repository": about}


def harbor(repository: str, tag: str, digest: str, number: int) -> Any:
    data = harbor_data(repository, tag, digest)
    return {"type": "PUSH_ARTIFACT", "occur_at": 1788249600 + number, "operator": "robot$ci", "event_data": data}


def harbor_cloudevents(repository: str, tag: str, digest: str, number: int) -> Any:
    return {
        "specversion": "1.0",
        "id": f"c2d3-{number}",
        "source": "/projects/7/webhook/policies/3",
        "type": "harbor.artifact.pushed",
        "datacontenttype": "application/json",
        "time": "2026-09-01T10:00:00Z",
        "operator": "robot$ci",
        "data": harbor_data(repository, tag, digest),
    }


def dockerhub(repository: str, tag: str, digest: str, number: int) -> Any:
    namespace, _, name = repository.partition("/")
    return {
        "callback_url": f"https://evil.example/u/{repository}/hook/abc/",
        "push_data": {"pushed_at": 1788249600, "pusher": "ci", "tag": tag, "images": []},
        "repository": {"repo_name": repository, "namespace": namespace, "name": name, "status": "Active"},
    }


def quay(repository: str, tag: str, digest: str, number: int) -> Any:
    namespace, _, name = repository.partition("/")
    url = f"quay.example.test/{repository}"
    more = {"homepage": f"https://quay.example.test/repository/{repository}", "updated_tags": [tag]}
    return {"repository": repository, "namespace": namespace, "name": name, "docker_url": url, **more}


def github(key: str) -> Callable[[str, str, str, int], Any]:
    def push(repository: str, tag: str, digest: str, number: int) -> Any:
        namespace, _, name = repository.partition("/")
        metadata = {
            "tag": {"name": tag, "digest": digest},
            "labels": {},
            "manifest": {"digest": digest, "media_type": MANIFEST, "config": {}, "layers": []},
        }
        version = {"id": 2, "version": digest, "name": digest, "package_url": f"ghcr.io/{repository}:{tag}"}
        package = {"id": 1, "name": name, "namespace": namespace.capitalize(), "package_type": "CONTAINER"}
        package |= {"ecosystem": "CONTAINER", "owner": {"login": namespace.capitalize()}}
        package["package_version"] = {**version, "container_metadata": metadata}
        return {"action": "published", key: package, "repository": {"full_name": repository}, "sender": {"login": "ci"}}

    return push


def gitea(repository: str, tag: str, digest: str, number: int) -> Any:
    owner, _, name = repository.partition("/")
    package = {"id": 40 + number, "owner": {"login": owner.capitalize()}, "repository": None, "type": "container"}
    package |= {"name": name, "version": tag or digest, "created_at": "2026-09-01T10:00:00Z"}
    package["html_url"] = f"https://git.example.test/{owner}/-/packages/container/{name}/{tag}"
    return {"action": "created", "repository": None, "package": package, "sender": {"login": "ci"}}


def eventbridge(repository: str, tag: str, digest: str, number: int) -> Any:
    detail = {"result": "SUCCESS", "repository-name": repository, "image-digest": digest, "action-type": "PUSH"}
    event = {"version": "0", "id": f"13cd-{number}", "detail-type": "ECR Image Action", "source": "aws.ecr"}
    event |= {"account": "123456789012", "time": "2026-09-01T10:00:00Z", "region": "eu-west-1", "resources": []}
    return {**event, "detail": {**detail, "image-tag": tag}}


def by_sns(repository: str, tag: str, digest: str, number: int) -> Any:
    return sns(eventbridge(repository, tag, digest, number))


def by_sqs(repository: str, tag: str, digest: str, number: int) -> Any:
    record = {"messageId": "19dd", "receiptHandle": "x", "attributes": {}, "eventSource": "aws:sqs"}
    return {"Records": [{**record, "body": json.dumps(eventbridge(repository, tag, digest, number))}]}


def by_sns_and_sqs(repository: str, tag: str, digest: str, number: int) -> Any:
    return [{"messageId": "19dd", "body": json.dumps(by_sns(repository, tag, digest, number))}]


def pubsub(repository: str, tag: str, digest: str, number: int) -> Any:
    name = f"europe-docker.pkg.dev/{repository}"
    told = {"action": "INSERT", "digest": f"{name}@{digest}", "tag": f"{name}:{tag}"}
    data = base64.b64encode(json.dumps(told).encode()).decode()
    message = {"data": data, "messageId": str(76 + number), "publishTime": "2026-09-01T10:00:00Z", "attributes": {}}
    return {"message": message, "subscription": "projects/p/subscriptions/s"}


def jfrog(repository: str, tag: str, digest: str, number: int) -> Any:
    key, _, image = repository.partition("/")
    data = {"repo_key": key, "event_type": "pushed", "path": f"{image}/{tag}/manifest.json", "name": "manifest.json"}
    data |= {"sha256": digest.removeprefix("sha256:"), "size": 1201, "image_name": image, "tag": tag}
    more = {"subscription_key": "k", "jpd_origin": "https://art.example.test/artifactory", "source": "jfrog/ci"}
    return {"domain": "docker", "event_type": "pushed", "data": data, **more}


def nexus(repository: str, tag: str, digest: str, number: int) -> Any:
    component = {"id": "08909b", "componentId": "ZG9j", "format": "docker", "name": repository, "group": None}
    about = {"timestamp": "2026-09-01T10:00:00.000+0000", "nodeId": "N1", "initiator": "ci/10.0.0.8"}
    return {**about, "repositoryName": "hosted", "action": "CREATED", "component": {**component, "version": tag}}


def aliyun(repository: str, tag: str, digest: str, number: int) -> Any:
    namespace, _, name = repository.partition("/")
    about = {"name": name, "namespace": namespace, "region": "cn-hangzhou", "repo_full_name": repository}
    pushed = {"digest": digest, "pushed_at": f"2026-09-01 10:00:{number:02}", "tag": tag}
    return {"push_data": pushed, "repository": {**about, "repo_type": "PRIVATE"}}


REGISTRY, ECR = "registry.example.test", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
GITHUB = hmac_in("X-Hub-Signature-256", prefix="sha256=", X_GitHub_Delivery="72d3-{}")
SENDERS = (
    Sender("distribution", "shop/cart", distribution(REGISTRY), bearer, REGISTRY, EVENTS),
    Sender("gitlab", "shop/cart", distribution(REGISTRY), bearer, REGISTRY, EVENTS),
    Sender("acr", "shop/cart", azure("acme.azurecr.io"), bearer, "acme.azurecr.io"),
    Sender("harbor", "shop/cart", harbor, plain, "harbor.example.test"),
    Sender(
        "harbor",
        "shop/cart",
        harbor_cloudevents,
        plain,
        "harbor.example.test",
        "application/cloudevents+json",
        name="harbor-cloudevents",
    ),
    Sender("dockerhub", "acme/cart", dockerhub, in_path, has_digest=False, identified=False),
    Sender("quay", "acme/cart", quay, in_path, "quay.example.test", has_digest=False, identified=False),
    Sender("ghcr", "acme/cart", github("registry_package"), GITHUB, "ghcr.io"),
    Sender("ghcr", "acme/cart", github("package"), GITHUB, "ghcr.io", name="ghcr-package"),
    Sender("gitea", "acme/cart", gitea, hmac_in("X-Gitea-Signature", X_Gitea_Delivery="d-{}"), has_digest=False),
    Sender(
        "gitea",
        "acme/cart",
        gitea,
        hmac_in("X-Forgejo-Signature", X_Gitea_Delivery="d-{}"),
        has_digest=False,
        name="forgejo",
    ),
    Sender("ecr", "shop/cart", eventbridge, in_header("X-Api-Key"), ECR),
    Sender("ecr", "shop/cart", by_sqs, in_header("X-Api-Key"), ECR, name="ecr-sqs"),
    Sender("ecr", "shop/cart", by_sns, in_path, ECR, "text/plain", sender=TOPIC, name="ecr-sns"),
    Sender("ecr", "shop/cart", by_sns_and_sqs, in_header("X-Api-Key"), ECR, sender=TOPIC, name="ecr-sns-sqs"),
    Sender("gar", "p/r/cart", pubsub, google, "europe-docker.pkg.dev", sender=ACCOUNT),
    Sender("jfrog", "docker-local/cart", jfrog, hmac_in("X-JFrog-Event-Auth"), "art.example.test", identified=False),
    Sender(
        "jfrog",
        "docker-local/cart",
        jfrog,
        in_header("X-JFrog-Event-Auth"),
        "art.example.test",
        identified=False,
        name="jfrog-plain",
    ),
    Sender(
        "nexus",
        "shop/cart",
        nexus,
        hmac_in("X-Nexus-Webhook-Signature", "sha1", X_Nexus_Webhook_Delivery="n-{}"),
        has_digest=False,
    ),
    Sender("aliyun", "acme/cart", aliyun, in_path),
)


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
