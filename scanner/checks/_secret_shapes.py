"""The kinds of secrets that are recognised by their form: formats with few false positives, such as tokens that begin
with a prefix of their issuer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from scanner.checks._encodings import BASE64 as _BASE64
from scanner.checks._encodings import DASH as _DASH
from scanner.checks._encodings import GLUE as _GLUE
from scanner.checks._encodings import SPACE as _SPACE
from scanner.patterns import lazy_re2


@dataclass(frozen=True)
class Shape:
    """The pattern of a kind of secret.

    Every match of ``body`` contains one of ``anchors``, and neither begins after a byte of the class ``before`` nor
    ends before one of ``after``. ``body`` has no look-around, so that Hyperscan can search for it; where it is too
    large for that, ``coarse`` are simpler expressions, of which every match of ``body`` contains one.
    """

    rule: str
    title: str
    anchors: tuple[bytes, ...]
    body: bytes
    before: bytes = b""
    after: bytes = b""
    coarse: tuple[bytes, ...] = ()
    escaped: re.Pattern[bytes] | None = None  # for text with escaped line ends (JSON, URLs, …)

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        begin = b"(?<!" + self.before + b")" if self.before else b""
        end = b"(?!" + self.after + b")" if self.after else b""
        flags = b"(?i)" if self.body.startswith(b"(?i)") else b""  # must be the first in a pattern of ``re``
        return re.compile(flags + begin + self.body.removeprefix(flags) + end)

    @property
    def searched(self) -> tuple[bytes, ...]:
        """The expressions for Hyperscan: a file without a match of one of them has no secret of this kind."""
        return self.coarse or (self.body,)

    def matches(self, data: bytes) -> Iterator[re.Match[bytes]]:
        """Yield all matches, first plain, then escaped."""
        if not any(anchor in data for anchor in self.anchors):
            return
        ends = set()
        for match in self.pattern.finditer(data):
            ends.add(match.start())
            yield match
        if self.escaped is not None:
            yield from (match for match in self.escaped.finditer(data) if match.start() not in ends)


_KEY_HEADERS = rb"(?:Proc-Type|DEK-Info|Comment|Version|Charset): ?[^\r\n\\]{0,100}"
_ESCAPED_KEY = lazy_re2(
    rb"-----BEGIN(?: [A-Z]{2,10})? PRIVATE KEY(?: BLOCK)?-----(?:G*H){0,4}G*B{36}".replace(b"H", _KEY_HEADERS)
    .replace(b"-----", _DASH + b"{5}")
    .replace(b" ", _SPACE)
    .replace(b"G*", _GLUE + b"*")
    .replace(b"B{", _BASE64 + b"{")
)
_KEY_ANCHORS = (b"PRIVATE KEY", b"PRIVATE+KEY", b"PRIVATE%20KEY", b"PRIVATE%2520KEY", b"PRIVATE\\u0020KEY")
_W = rb"[A-Za-z0-9_]"

SHAPES = (
    Shape(
        "private-key",
        "private key",
        _KEY_ANCHORS,
        rb"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----\s{0,4}(?:[\w-]{1,40}: "
        rb"[^\r\n]{0,200}\r?\n){0,10}\s{0,4}"
        rb"[A-Za-z0-9+/=\s]{40}",
        coarse=tuple(map(re.escape, _KEY_ANCHORS)),
        escaped=_ESCAPED_KEY,
    ),
    Shape(  # RFC 7517; only private keys have the member ``d``
        "jwk-private-key",
        "private key (JWK)",
        (b"kty",),
        rb"\{(?=[^{}]{0,4000}[\"']kty\\*[\"'])"
        rb"[^{}]{0,4000}?[\"']d\\*[\"']\s{0,8}:\s{0,8}\\*[\"'][A-Za-z0-9_-]{40,}\\*[\"']",
        coarse=(rb"[\"']kty\\*[\"']",),
    ),
    Shape(
        "aws-access-key",
        "AWS access key id",
        (b"AKIA", b"ASIA"),
        rb"A[KS]IA[A-Z2-7]{16}",
        before=rb"[A-Z0-9]",
        after=rb"[A-Z0-9]",
    ),
    Shape(
        "aws-secret-key",
        "AWS secret access key",
        (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY"),
        rb"(?i)aws_secret_access_key\\*[\"']?\s*[=:]\s*\\*[\"']?(?:[A-Za-z0-9/+]|\\+/|\\+u002[fF]|%2[bBfF]){40}",
        after=rb"[A-Za-z0-9/+=]",
    ),
    Shape(
        "github-token",
        "GitHub token",
        (b"ghp_", b"gho_", b"ghs_", b"ghu_", b"github_pat_"),
        rb"(?:gh[opsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
    ),
    Shape("gitlab-token", "GitLab token", (b"glpat-",), rb"glpat-[A-Za-z0-9_-]{20,}"),
    Shape(
        "slack-token",
        "Slack token",
        (b"xoxb-", b"xoxp-", b"xapp-"),
        rb"(?:xox[bp]-\d{8,}-[A-Za-z0-9-]{20,}|xapp-\d-[A-Z0-9]{8,}-\d+-[a-f0-9]{30,})",
    ),
    Shape(
        "google-service-account",
        "Google service account key",
        (b"private_key_id",),
        rb'"private_key_id\\*"\s*:\s*\\*"[a-f0-9]{40}\\*"',
    ),
    Shape(
        "google-api-key",
        "Google API key",
        (b"AIza",),
        rb"AIza[A-Za-z0-9_-]{35}",
        before=rb"[A-Za-z0-9_-]",
        after=rb"[A-Za-z0-9_-]",
    ),
    Shape("stripe-key", "Stripe live key", (b"_live_",), rb"[sr]k_live_[A-Za-z0-9]{20,}", before=rb"[A-Za-z0-9]"),
    Shape("npm-token", "npm token", (b"npm_",), rb"npm_[A-Za-z0-9]{36}", before=_W, after=rb"[A-Za-z0-9]"),
    Shape("pypi-token", "PyPI token", (b"pypi-AgE",), rb"pypi-AgE[A-Za-z0-9_-]{60,}"),
    Shape("vault-token", "Vault token", (b"hvs.", b"hvb."), rb"hv[sb]\.[A-Za-z0-9_-]{90,}", before=rb"[A-Za-z0-9]"),
    Shape("docker-token", "Docker Hub token", (b"dckr_pat_",), rb"dckr_pat_[A-Za-z0-9_-]{27,}"),
    Shape("digitalocean-token", "DigitalOcean token", (b"dop_v1_",), rb"dop_v1_[a-f0-9]{64}"),
    Shape("sendgrid-key", "SendGrid key", (b"SG.",), rb"SG\.[\w-]{22}\.[\w-]{43}", before=rb"[\w.]", after=rb"[\w-]"),
    Shape("huggingface-token", "Hugging Face token", (b"hf_",), rb"hf_[A-Za-z]{34}", before=rb"\w", after=rb"\w"),
    Shape("anthropic-key", "Anthropic key", (b"sk-ant-",), rb"sk-ant-[a-z0-9]+-[\w-]{80,}"),
    Shape(
        "openai-key",
        "OpenAI key",
        (b"sk-proj-", b"T3BlbkFJ"),
        rb"sk-(?:proj-)?[\w-]{20,200}T3BlbkFJ[\w-]{20,200}",
        coarse=(rb"T3BlbkFJ[\w-]{20}",),
    ),
    Shape("google-oauth-secret", "Google OAuth secret", (b"GOCSPX-",), rb"GOCSPX-[\w-]{28}"),
    Shape("atlassian-token", "Atlassian token", (b"ATATT3x",), rb"ATATT3x[\w=-]{180,}"),
    Shape(
        "slack-webhook",
        "Slack webhook",
        (b"hooks.slack.com",),
        rb"hooks\.slack\.com(?:\\*/|%2F)services(?:\\*/|%2F)T[A-Z0-9]{8,}(?:\\*/|%2F)B[A-Z0-9]{8,}"
        rb"(?:\\*/|%2F)[A-Za-z0-9]{20,}",
    ),
    Shape(
        "azure-storage-key",
        "Azure storage key",
        (b"AccountKey",),
        rb"AccountKey(?:=|%3D|\\u003[dD])(?:[A-Za-z0-9+/]|\\+/|\\+u002[bBfF]|%2[bBfF]){86}(?:=|%3D|\\u003[dD]){2}",
        coarse=(rb"AccountKey(?:=|%3D|\\u003[dD])",),
    ),
    Shape("age-key", "age key", (b"AGE-SECRET-KEY-1",), rb"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    Shape("putty-key", "PuTTY private key", (b"PuTTY-User-Key-File-",), rb"PuTTY-User-Key-File-[23]: [^\r\n]+"),
)
