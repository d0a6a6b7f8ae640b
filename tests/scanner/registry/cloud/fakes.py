"""What the tests of the clients share: this machine as their surroundings, and answers that no cloud should give."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping

from werkzeug import Response

from scanner.config import Settings
from scanner.registry.cloud.base import Surroundings

LOCAL = frozenset((ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")))
SECRET = "s3cret-that-nobody-may-see"


def surroundings(environment: Mapping[str, str] | None = None) -> Surroundings:
    """This machine, where the services of a cloud are on its loopback addresses."""
    return Surroundings(Settings(), environment or {}, LOCAL)


def hostile() -> dict[str, Response]:
    """Answers by what is wrong with them. Each must become a RemoteError without a secret."""
    return {
        "huge": Response(b"[" + b"0," * 100_000 + b"0]"),
        "not JSON": Response(b"<html>sign in</html>"),
        "a list": Response(b"[]"),
        "twice": Response(b'{"access_token": "a", "access_token": "b", "expires_in": 60}'),
        "deep": Response(b"[" * 10_000),
        "empty": Response(b""),
        "a redirect": Response(b"", 302, {"Location": "http://127.0.0.1:1/elsewhere"}),
        "an echo of the secret": Response(json.dumps({"error": SECRET, "message": SECRET}), 400),
        "an error that is a list": Response(json.dumps({"error": [SECRET], "errors": {"a": SECRET}}), 403),
        "no compression that we know": Response(b"x", headers={"Content-Encoding": "br"}),
        "a failure": Response(b"", 503),
    }
