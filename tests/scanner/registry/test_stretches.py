"""Files are searched for secrets together, many in one stretch of a layer. That finds what a search of each finds."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.checks._secrets import SecretScanner
from scanner.config import Limits
from scanner.model.filesystem import ContentMatch
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants, read_layer
from tests.scanner.checks.test_secret_search import SECRETS
from tests.scanner.registry.archives import GZIP, archive, file, pack


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> SecretScanner:
    return SecretScanner(kept=tmp_path_factory.mktemp("patterns"))


class EachFile(SecretScanner):
    """Searches each file by itself."""

    def may_match(self, stretch: bytes | memoryview) -> bool:
        return True


def found(plain: bytes, scanner: SecretScanner) -> tuple[ContentMatch, ...]:
    sent = pack(plain, GZIP)
    digest, diff_id, wants = Digest.of(sent), Digest.of(plain), ContentWants((), scanner)
    facts = read_layer(
        io.BytesIO(sent), GZIP, digest=digest, size=len(sent), diff_id=diff_id, limits=Limits(), wants=wants
    )
    return facts.matches


def files(seed: int) -> Iterator[bytes]:
    """Files of all sizes, some with a secret: at the beginning, at the end, and where a stretch or a piece ends."""
    chance = random.Random(seed)
    kinds = (
        lambda text, secret: secret,
        lambda text, secret: secret + b"\n" + text,
        lambda text, secret: text + b"\n" + secret,
        lambda text, secret: text[: len(text) // 2] + b"\n" + secret + b"\n" + text,
        lambda text, secret: gzip.compress(text + b"\n" + secret),
    )
    for number in range(500):
        text = b"plain text\n" * chance.choice((0, 1, 40, 46, 47, 500, 5000, 20_000))
        secret = chance.choice(SECRETS) if chance.random() < 0.08 else b"nothing"
        yield file(f"srv/app/{number}.txt", chance.choice(kinds)(text, secret))


@pytest.mark.parametrize("seed", range(2))
def test_stretches_hide_nothing(scanner: SecretScanner, tmp_path: Path, seed: int) -> None:
    plain = archive(*files(seed))
    matches = found(plain, scanner)
    assert len({match.path for match in matches}) > 20
    assert matches == found(plain, EachFile(scanner._select))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("srv/app/.env", b"DB_PASSWORD=correct-horse-battery\n"),
        ("srv/app/.env.js", b"DB_PASSWORD=correct-horse-battery\n"),
        (".env.local.ts", b"DB_PASSWORD=correct-horse-battery\n"),
        ("etc/shadow", b"root:$6$saltsalt$" + b"a1B2" * 20 + b":19000:0:99999:7:::\n"),
        ("srv/app/x.js", gzip.compress(b"x\n" + SECRETS[0])),
    ],
)
def test_files_that_go_by_more_than_patterns_are_searched(scanner: SecretScanner, path: str, content: bytes) -> None:
    around = [file(f"srv/app/{name}.txt", b"plain text\n" * 100) for name in "abc"]
    plain = archive(*around, file(path, content), *around)
    assert {match.path for match in found(plain, scanner)} == {path}
