"""Signatures against AWS's published vectors: the signature version 4 test suite, and the example of its manual."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scanner.config import Secret
from scanner.registry.cloud.sigv4 import Keys, signed_headers

KEYS = Keys("AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
SESSION = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwt"
    "hAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVX"
    "AkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
URL = "https://example.amazonaws.com/"
FORM = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Content-Length": "13",
    "x-amz-content-sha256": "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
}
MANUAL = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "keys", "service", "names", "signature"),
    [
        pytest.param(
            "GET",
            URL,
            {},
            b"",
            KEYS,
            "service",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            id="get-vanilla",
        ),
        pytest.param(
            "POST",
            URL,
            {},
            b"",
            KEYS,
            "service",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            id="post-vanilla",
        ),
        pytest.param(
            "POST",
            URL,
            {},
            b"",
            Keys(KEYS.access_key, KEYS.secret, Secret(SESSION)),
            "service",
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            id="post-sts-header-before",
        ),
        pytest.param(
            "POST",
            URL,
            FORM,
            b"Param1=value1",
            KEYS,
            "service",
            "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
            id="post-x-www-form-urlencoded",
        ),
        pytest.param(
            "GET",
            "https://iam.amazonaws.com/?Version=2010-05-08&Action=ListUsers",
            MANUAL,
            b"",
            KEYS,
            "iam",
            "content-type;host;x-amz-date",
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            id="manual",
        ),
    ],
)
def test_published_vectors(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    keys: Keys,
    service: str,
    names: str,
    signature: str,
) -> None:
    found = signed_headers(method, url, headers, body, keys, "us-east-1", service, AT)
    assert found["authorization"] == (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    assert found["x-amz-date"] == "20150830T123600Z"


def test_keys_do_not_show_their_secret() -> None:
    shown = repr(Keys("AKID", Secret("very-secret"), Secret("session-token")))
    assert "very-secret" not in shown
    assert "session-token" not in shown
