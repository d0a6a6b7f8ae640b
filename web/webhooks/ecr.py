"""Amazon ECR: the events of EventBridge for new images, bare or in envelopes of SNS and SQS.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html and
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. An API destination of EventBridge sends
the secret in a header. SNS can send none: the secret is in the address, and SNS signs each message. With a topic
configured, only messages that this topic signed are taken; without one, only bare events.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.datastructures import Headers

from scanner.errors import RemoteError, UsageError
from web.webhooks.base import (
    PING,
    Fetch,
    HeaderSecret,
    PushEvent,
    UnreadableEvent,
    child,
    each,
    load,
    text,
)

_TOPIC = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+){1,3}-[0-9]):[0-9]{12}:[A-Za-z0-9_.-]{1,256}")
# The address is in the message, which anyone can write: its host must be the topic's, see `_host`.
_CERTIFICATE = re.compile(r"https://([a-z0-9.-]{1,100})/(SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem)")
_SUBSCRIBE_TOKEN = re.compile(r"[A-Za-z0-9]{1,1024}")
_ACCOUNT, _REGION = re.compile(r"[0-9]{12}"), re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-[0-9]")
# The members that SNS signs, in this order. The subject only if present.
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
# How a new image comes into a repository: it is pushed, replicated from another region or account, or fetched into a
# cache. By ``detail-type``: the member and value of a success, and of the action where the type has several.
_PUSHES = {
    "ECR Image Action": {"action-type": "PUSH", "result": "SUCCESS"},
    "ECR Replication Action": {"action-type": "REPLICATE", "result": "SUCCESS"},
    "ECR Pull Through Cache Action": {"sync-status": "SUCCESS"},
}
_HASHES: dict[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303 - SNS's version 1
_KEPT = 86400.0  # seconds: a certificate of SNS is valid for months


class Ecr(HeaderSecret):
    id = "ecr"
    title = "Amazon ECR"
    senders = "EventBridge, Amazon SNS"
    setup = (
        "Send the events by an SNS topic, which signs them: give its ARN when you create the webhook, and only that "
        "topic is accepted. Or send them by an API destination of EventBridge, which ROLE_ARN may call."
    )
    snippet = """\
aws events put-rule --name dockwarden \\
  --event-pattern '{"source": ["aws.ecr"], "detail-type": ["ECR Image Action",
    "ECR Replication Action", "ECR Pull Through Cache Action"]}'

# By an API destination
aws events create-connection --name dockwarden --authorization-type API_KEY \\
  --auth-parameters 'ApiKeyAuthParameters={ApiKeyName=<header>,ApiKeyValue=<secret>}'
aws events create-api-destination --name dockwarden --http-method POST \\
  --invocation-endpoint <url> --connection-arn CONNECTION_ARN
aws events put-targets --rule dockwarden --targets Id=1,Arn=DESTINATION_ARN,RoleArn=ROLE_ARN

# Or by SNS
aws sns set-topic-attributes --topic-arn <sender> \\
  --attribute-name SignatureVersion --attribute-value 2
aws events put-targets --rule dockwarden --targets Id=1,Arn=<sender>
aws sns subscribe --topic-arn <sender> --protocol https \\
  --notification-endpoint <url>/<token>
"""
    media_types = ("application/json", "text/plain")
    header = "X-Api-Key"
    sender_label = "ARN of the SNS topic, if one is used"
    sender_pattern = _TOPIC.pattern
    sender_example = "arn:aws:sns:eu-west-1:123456789012:dockwarden"

    def verify_sender(self, body: bytes, headers: Headers, sender: str, fetch: Fetch) -> bool:
        """See `WebhookFormat.verify_sender`.

        If one message is not signed by the topic, the whole delivery is refused.
        """
        try:
            messages = [_open_record(record) for record in _records(load(body))]
        # Nothing was signed, and nothing can be read. Without a topic, ``parse`` refuses the body with its own error.
        except UsageError:
            return not sender
        # A message of SNS needs a topic to be checked against. Otherwise any AWS account could send one by its own
        # topic.
        if not sender:
            return not any(_is_sns(message) for message in messages)
        return bool(messages) and all(_is_sns(one) and _is_signed(one, sender, fetch) for one in messages)

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        return each(_records(load(body)), lambda record: _event(_open_record(record)))

    def acknowledge(self, body: bytes, sender: str, fetch: Fetch) -> None:
        """See `WebhookFormat.acknowledge`.

        Confirms a subscription to the configured topic. The address is derived from the topic's ARN;
        ``SubscribeURL`` is never followed (SSRF).
        """
        for message in map(_open_record, _records(load(body))):
            token = message.get("Token")
            if message.get("Type") != "SubscriptionConfirmation" or message.get("TopicArn") != sender:
                continue
            if isinstance(token, str) and _SUBSCRIBE_TOKEN.fullmatch(token):
                query = urlencode({"Action": "ConfirmSubscription", "TopicArn": sender, "Token": token})
                fetch(f"https://{_host(sender)}/?{query}", 0)


def _records(document: Any) -> list[Any]:
    """The records of a delivery: one event or message, or the messages of SQS. Raises UsageError otherwise."""
    if isinstance(document, dict):
        if isinstance(document.get("Records"), list):
            return list(document["Records"])
        if _is_sns(document) or "detail-type" in document or ("messageId" in document and "body" in document):
            return [document]
    if isinstance(document, list) and document:
        return document
    raise UsageError("expected an event of EventBridge, or one in a message of SNS or SQS", reason="invalid")


def _open_record(record: Any) -> dict[str, Any]:
    """The event, or the SNS message, of a record. Raises UsageError."""
    inner = record
    if isinstance(record, dict) and not _is_sns(record) and "detail-type" not in record:
        inner = record.get("body", record.get("Sns"))
    return _message(load(inner.encode("utf-8", "replace")) if isinstance(inner, str) else inner)


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not (_is_sns(value) or "detail-type" in value):
        raise UsageError("expected an event of EventBridge, or one in a message of SNS or SQS", reason="invalid")
    return value


def _is_sns(message: dict[str, Any]) -> bool:
    return "TopicArn" in message and "Type" in message


def _event(message: dict[str, Any]) -> PushEvent:
    if _is_sns(message):
        if message["Type"] != "Notification":
            return PushEvent("", "", action=PING)
        inner = text(message.get("Message"), "Message", maximum=256 << 10)
        return _parse_push(_message(load(inner.encode())))
    return _parse_push(message)


def _parse_push(event: dict[str, Any]) -> PushEvent:
    """Parse a new image. The registry's host is derived from account and region: those of the image's new place."""
    detail = child(event, "detail")
    source, kind = text(event.get("source"), "source"), text(event.get("detail-type"), "detail-type")
    wanted = _PUSHES.get(kind, {})
    given = {name: text(detail.get(name), name) for name in wanted}
    if source != "aws.ecr" or not wanted or given != wanted:
        return PushEvent("", "", action=f"{source} {kind} {' '.join(given.values())}".rstrip())
    account, region = text(event.get("account"), "account"), text(event.get("region"), "region")
    if not _ACCOUNT.fullmatch(account) or not _REGION.fullmatch(region):
        raise UsageError("invalid AWS account or region", reason="invalid")
    return PushEvent(
        host=f"{account}.dkr.ecr.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}",
        repository=text(detail.get("repository-name"), "repository-name"),
        tag=text(detail.get("image-tag"), "image-tag"),
        digest=text(detail.get("image-digest"), "image-digest"),
        media_type=text(detail.get("manifest-media-type"), "manifest-media-type"),
        id=text(event.get("id"), "id"),
    )


def _host(topic: str) -> str:
    """The host of SNS in the topic's region."""
    found = _TOPIC.fullmatch(topic)
    assert found is not None, "the topic was checked when the webhook was created"
    return f"sns.{found[2]}.amazonaws.com{'.cn' if found[1] == 'aws-cn' else ''}"


def _is_signed(message: dict[str, Any], topic: str, fetch: Fetch) -> bool:
    """Whether the topic signed the message.

    The certificate comes from SNS in the topic's region, not from the message.
    """
    names = _SIGNED.get(str(message.get("Type")))
    address = _CERTIFICATE.fullmatch(str(message.get("SigningCertURL") or message.get("SigningCertUrl")))
    digest = _HASHES.get(str(message.get("SignatureVersion")))
    if message.get("TopicArn") != topic or names is None or digest is None or not _TOPIC.fullmatch(topic):
        return False
    # The sender names the certificate's address. Only a host of SNS in the topic's region is asked (SSRF), and a
    # certificate of another region proves nothing about this topic.
    if address is None or address[1] != _host(topic):
        return False
    parts = [(name, message.get(name)) for name in names if name != "Subject" or message.get(name) is not None]
    if not all(isinstance(value, str) for _, value in parts):
        return False
    try:
        signature = base64.b64decode(str(message.get("Signature")), validate=True)
        certificate = x509.load_pem_x509_certificate(fetch(f"https://{_host(topic)}/{address[2]}", _KEPT))
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        signed_text = "".join(f"{name}\n{value}\n" for name, value in parts)
        key.verify(signature, signed_text.encode(), padding.PKCS1v15(), digest)
    except RemoteError as error:
        # SNS could not be asked. An error makes the sender repeat the delivery, where a refusal would lose it.
        if error.retryable:
            raise
        return False
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True
