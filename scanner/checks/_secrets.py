"""Secrets by name and by shape. A value is never kept: what is shown of it says which kind it is and how long.

By content: a few shapes that are unmistakable (issuers put prefixes into their tokens so that they can be found). By name: files that
hold credentials, variables that are called so. Placeholders are left alone; a finding that is none teaches people to look away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import re2

from scanner.model.filesystem import ContentMatch

_MAX_FILE = 1 << 20
_MAX_MATCHES = 20


@dataclass(frozen=True)
class Shape:
    """A secret's unmistakable form. ``anchor`` is a literal that every match contains: it is looked for first, because that is fast."""

    rule: str
    title: str
    anchors: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


SHAPES = (
    Shape(
        "private-key",
        "private key",
        (b" PRIVATE KEY",),
        re.compile(
            rb"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----\s*(?:[\w-]+: .*\s+)*[A-Za-z0-9+/=\s]{40}"
        ),
    ),
    Shape(
        "aws-access-key",
        "AWS access key id",
        (b"AKIA", b"ASIA"),
        re.compile(rb"(?<![A-Z0-9])A[KS]IA[A-Z2-7]{16}(?![A-Z0-9])"),
    ),
    Shape(
        "aws-secret-key",
        "AWS secret access key",
        (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY"),
        re.compile(rb"(?i)aws_secret_access_key[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"),
    ),
    Shape(
        "github-token",
        "GitHub token",
        (b"ghp_", b"gho_", b"ghs_", b"ghu_", b"github_pat_"),
        re.compile(rb"(?:gh[opsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})"),
    ),
    Shape("gitlab-token", "GitLab token", (b"glpat-",), re.compile(rb"glpat-[A-Za-z0-9_-]{20,}")),
    Shape(
        "slack-token",
        "Slack token",
        (b"xoxb-", b"xoxp-", b"xapp-"),
        re.compile(rb"(?:xox[bp]-\d{8,}-[A-Za-z0-9-]{20,}|xapp-\d-[A-Z0-9]{8,}-\d+-[a-f0-9]{30,})"),
    ),
    Shape(
        "google-service-account",
        "Google service account key",
        (b'"private_key_id"',),
        re.compile(rb'"private_key_id"\s*:\s*"[a-f0-9]{40}"'),
    ),
    Shape(
        "google-api-key",
        "Google API key",
        (b"AIza",),
        re.compile(rb"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    ),
    Shape("stripe-key", "Stripe live key", (b"_live_",), re.compile(rb"(?<![A-Za-z0-9])[sr]k_live_[A-Za-z0-9]{20,}")),
    Shape("npm-token", "npm token", (b"npm_",), re.compile(rb"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])")),
    Shape("pypi-token", "PyPI token", (b"pypi-AgE",), re.compile(rb"pypi-AgE[A-Za-z0-9_-]{60,}")),
)
# RE2 looks for all anchors at once, nine times as fast as ``re`` does: this runs over every byte of every small file.
_ANY_ANCHOR = re2.compile(b"|".join(re.escape(anchor) for shape in SHAPES for anchor in shape.anchors))

_FILES = re.compile(
    r"(?:^|/)(?:id_(?:rsa|dsa|ecdsa|ed25519)|credentials(?:\.(?:json|xml))?|password\.txt|secret_token\.rb|\.netrc|\.pgpass|\.htpasswd|\.git-credentials"
    r"|\.docker/config\.json|\.dockercfg|\.aws/credentials|\.kube/config|\.env(?:\.(?:local|production))?|[^/]+\.(?:ovpn|jks|keystore|p12|pfx|kdbx|psafe3|agilekeychain|keychain))$"
)
_IGNORED = re.compile(
    r"(?:^|/)(?:usr/share/(?:doc|man|info|perl|python3?)|usr/lib/python[^/]*/test|(?:.*/)?(?:site|dist)-packages/.*(?:tests?|testing|data)"
    r"|node_modules/.*/(?:tests?|fixtures|examples?)/|proc|sys)/"
)
_NAMES = re.compile(
    r"(?i)(?:^|_)(?:pass(?:wd|word|phrase)?|pwd|secret|token|api_?key|access_?key|private_?key|credentials?|auth)(?:_|$)"
)
_HARMLESS_NAMES = re.compile(
    r"(?i)^(?:GPG_KEYS?|.*_(?:FILE|PATH|DIR|URL|SHA256|SHA512|VERSION|NAME|TYPE|EXPIRY|TTL|LENGTH|ALGORITHM)|SSL_CERT_.*|PWD|OLDPWD|SSH_AUTH_SOCK)$"
)
_PLACEHOLDER = re.compile(
    r"(?i)^(?:$|\$.*|<.*>|\{\{.*|changeme|change[-_]me|replace[-_]?me|example.*|dummy|test|none|null|true|false|yes|no|x+|\*+|0|1|/.*|https?://[^@]*|file:.*|unset|empty|your[-_].*|todo)$"
)


class SecretScanner:
    """Looks into files as they pass through the layer reader (``scanner.registry.layers.ContentScanner``)."""

    version = "secrets-1"

    def wants(self, path: str, size: int) -> bool:
        """Files of a size that a person or a tool writes; not documentation or other people's tests."""
        return 8 <= size <= _MAX_FILE and not _IGNORED.search(path)

    def search(self, path: str, data: bytes) -> list[ContentMatch]:
        """Every shape found, at most a few: one anchor search over the file, then only what it points at."""
        if _ANY_ANCHOR.search(data) is None:
            return []
        found = []
        for shape in SHAPES:
            if any(anchor in data for anchor in shape.anchors):
                for match in shape.pattern.finditer(data):
                    if not _documented(match[0]):
                        found.append(
                            ContentMatch(shape.rule, path, data.count(b"\n", 0, match.start()) + 1, redact(match[0]))
                        )
                    if len(found) >= _MAX_MATCHES:
                        return found
        return found


def _documented(value: bytes) -> bool:
    """Values that vendors print in their documentation, and whose only use is to be examples."""
    return b"EXAMPLE" in value or b"xxxx" in value.lower()


def redact(value: bytes) -> str:
    """What may be shown: how it begins (the issuer's prefix, no more than a fifth of it) and how long it is."""
    head = value.split(b"\n", 1)[0] if value.startswith(b"-----") else value[: min(4, len(value) // 5)]
    return f"{head.decode('ascii', 'replace')}… ({len(value)} characters)"


def title(rule: str) -> str:
    return next((shape.title for shape in SHAPES if shape.rule == rule), rule)


def is_secret_file(path: str) -> bool:
    """Whether the name says that the file holds credentials."""
    return _FILES.search(path) is not None and _IGNORED.search(path) is None


def is_secret_variable(name: str, value: str) -> bool:
    """Whether a variable is called like a secret and holds more than a placeholder or a place."""
    return bool(_NAMES.search(name)) and not _HARMLESS_NAMES.match(name) and not _PLACEHOLDER.match(value.strip("\"' "))


def shape_of(value: str) -> str | None:
    """The rule of an unmistakable secret inside a text."""
    data = value.encode("utf-8", "replace")
    if _ANY_ANCHOR.search(data) is None:
        return None
    return next((s.rule for s in SHAPES if (match := s.pattern.search(data)) and not _documented(match[0])), None)
