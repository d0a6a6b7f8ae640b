"""A change that would turn a verdict is a sentence that says what to do."""

from __future__ import annotations

import pytest

from scanner.model.decision import Change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change("upgrade", "openssl", "to 3.0.13"), "Upgrade openssl to 3.0.13"),
        (Change("configure", "root-user", "USER 10001:10001"), "Fix root-user: USER 10001:10001"),
        (Change("sign", "signature", "sign the image's digest"), "Sign the image's digest"),
        (
            Change("examine", "advisories_stale", "trivy: 200 h old"),
            "Update the advisory database: dockwarden advisories update (trivy: 200 h old)",
        ),
        (Change("examine", "some_new_reason", ""), "Find the cause: some new reason"),
        (
            Change("replace", "CVE-2026-1", "CVE-2026-1 (high) in zlib, no fix yet"),
            "Remove or replace the cause, or request an exemption: CVE-2026-1 (high) in zlib, no fix yet",
        ),
        (Change("rebuild", "base", "on a newer base"), "Rebuild base: on a newer base"),
    ],
)
def test_a_change_says_what_to_do(change: Change, text: str) -> None:
    assert change.text == text
