#!/usr/bin/env python3
"""Ask Dockwarden about an image exactly as Harbor does, and say whether Harbor would let it be pulled.

    DOCKWARDEN_TOKEN=... examples/harbor/refused.py DOCKWARDEN HARBOR REPOSITORY@DIGEST

for example https://dockwarden.example.com https://harbor.example.com shop/web@sha256:...

For a private repository, set HARBOR_ROBOT to name:secret of a robot account that may pull it. Like Harbor, this waits
5 seconds for an answer, follows no redirects, reads Refresh-After as a signed byte, and gives up at the first error.

Exit codes: 0: Harbor allows the pull. 1: a finding of severity Critical refuses it. 2: wrong usage. 3: the scan failed,
which refuses the pull as well.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

SECONDS, FIRST_CHECK, DEFAULT_CHECK, INT8 = 5, 2, 5, 127
REPORT = "application/vnd.security.vulnerability.report; version=1.1"
REQUEST = "application/vnd.scanner.adapter.scan.request+json; version=1.1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def call(
    server: str, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request of Harbor's client. Redirects are answers like any other."""
    parts = urlsplit(server)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=SECONDS)
    try:
        token = {"Authorization": f"Bearer {os.environ['DOCKWARDEN_TOKEN']}"}
        connection.request(method, f"{parts.path.rstrip('/')}/adapters/harbor/api/v1{path}", body, token | headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def failed(answer: http.client.HTTPResponse, body: bytes) -> SystemExit:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    print(f"the scan failed ({answer.status}): {message}", file=sys.stderr)
    return SystemExit(3)


def report_of(server: str, registry: str, image: str) -> dict[str, Any]:
    """Request a scan and wait for its report."""
    repository, _, digest = image.partition("@")
    robot = os.environ.get("HARBOR_ROBOT", "")
    authorization = f"Basic {base64.b64encode(robot.encode()).decode()}" if robot else ""
    order = {
        "registry": {"url": registry, "authorization": authorization},
        "artifact": {"repository": repository, "digest": digest, "tag": "", "mime_type": MANIFEST},
    }
    answer, body = call(server, "POST", "/scan", {"Content-Type": REQUEST}, json.dumps(order))
    if answer.status != 202:
        raise failed(answer, body)
    scan_id, pause = json.loads(body)["id"], FIRST_CHECK
    while True:
        time.sleep(pause)
        answer, body = call(server, "GET", f"/scan/{scan_id}/report", {"Accept": REPORT})
        if answer.status != 302:
            break
        text = answer.headers.get("Refresh-After", "")
        pause = int(text) if text.isdigit() and int(text) <= INT8 else DEFAULT_CHECK
    if answer.status != 200:
        raise failed(answer, body)
    found: dict[str, Any] = json.loads(body)
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    if not os.environ.get("DOCKWARDEN_TOKEN"):
        print("set DOCKWARDEN_TOKEN: dockwarden token create NAME --scope harbor", file=sys.stderr)
        return 2
    if "@" not in arguments[2]:
        print("name the digest, as Harbor does: skopeo inspect --format '{{.Digest}}' docker://IMAGE", file=sys.stderr)
        return 2
    try:
        found = report_of(*arguments)
    except OSError as error:
        print(f"Dockwarden does not answer: {error}", file=sys.stderr)
        return 3
    for item in found["vulnerabilities"]:
        first = item["description"].partition("\n")[0]
        print(f"{item['severity']:10} {item['id']:20} {item['package']} {item['version']}  {first}")
    critical = [item["id"] for item in found["vulnerabilities"] if item["severity"] == "Critical"]
    if critical:
        print(f"refused: {', '.join(critical)}")
        return 1
    print("allowed: no finding of severity Critical")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
