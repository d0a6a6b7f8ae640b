"""Evaluate signature rules: signer, key, role, and how long a verification stays valid.

Pure. An unknown or outdated verification counts neither as signed nor as unsigned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import STALE
from scanner.model.finding import Evidence, Signer, TrustStatus, Verification
from scanner.model.glob import matches_text
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text
from scanner.policy.rules import SignatureSelector


class RuleStatus(StrEnum):
    SATISFIED = "satisfied"
    UNSATISFIED = "unsatisfied"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RuleResult:
    """The result of a rule. ``slug``: why it is unknown. ``until``: when a satisfied rule must be evaluated again."""

    status: RuleStatus
    message: str
    slug: str = ""
    evidence: tuple[Evidence, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True)
class _SortedVerifications:
    """Verifications by their use for a rule: valid ones, and the reasons why others are unknown, outdated or
    refused.
    """

    good: list[Verification]
    unclear: list[str]  # could not be determined
    stale: list[str]  # valid, but older than the policy allows
    refused: list[str]


def judge(
    selector: SignatureSelector,
    verifications: Sequence[Verification],
    digests: Collection[Digest],
    now: datetime,
    max_age: timedelta,
) -> RuleResult:
    """Evaluate a signature rule. ``digests``: the accepted subjects, which are the image and the index it was pulled
    by.
    """
    found = _sort(selector, verifications, digests, now, max_age)
    if _enough(selector, found.good):
        ends = [moment for v in found.good for moment in _ends(v, max_age) if moment > now]
        evidence = tuple(_evidence(v, s) for v in found.good for s in v.signers)
        return RuleResult(
            RuleStatus.SATISFIED, _signed_summary(selector, found.good), "", evidence, min(ends, default=None)
        )
    what = f"attestation {selector.attestation}" if selector.attestation else "signature"
    if found.unclear or found.stale:
        slug = "signature_unknown" if found.unclear else STALE
        return RuleResult(
            RuleStatus.UNKNOWN, f"its {what} could not be verified: " + "; ".join((*found.unclear, *found.stale)), slug
        )
    wanted = (*selector.signers, *selector.keys, *selector.identities)
    who = f" by {_needed_text(selector)}{', '.join(wanted)}" if wanted else ""
    there = [f"{v.scheme}: by {_names(v)} only" for v in found.good]
    word = "attested" if selector.attestation else "signed"
    return RuleResult(
        RuleStatus.UNSATISFIED,
        f"not {word} as required{who}: " + ("; ".join((*found.refused, *there)) or "none found"),
    )


def _sort(
    selector: SignatureSelector,
    verifications: Sequence[Verification],
    digests: Collection[Digest],
    now: datetime,
    max_age: timedelta,
) -> _SortedVerifications:
    asked = [v for v in verifications if v.scheme in selector.scheme]
    found = _SortedVerifications([], [], [], [])
    # A scan that never asked a scheme (no trust root then, another registry) knows nothing about it: unknown, not
    # unsigned.
    found.unclear.extend(f"{s} was not verified" for s in selector.scheme if not any(v.scheme == s for v in asked))
    for v in asked:
        if v.status is TrustStatus.UNKNOWN:  # if the scheme failed, its attestations are unknown too
            found.unclear.append(f"{v.scheme}: {v.detail or v.reason}")
        elif not _is_wanted(selector, v):
            continue
        elif v.status is not TrustStatus.VERIFIED:
            found.refused.append(f"{v.scheme}: {v.reason or v.status}")
        # A valid signature that was copied from another image (a "mix and match" of tags) proves nothing about this
        # one.
        elif v.digest not in digests:
            found.refused.append(f"{v.scheme}: the signature is for another image")
        elif v.checked_at is not None and now - v.checked_at > max_age:
            found.stale.append(f"{v.scheme}: verified on {v.checked_at:%Y-%m-%d %H:%M} UTC, too long ago")
        elif not v.signers:  # such as Notation's level "skip"
            found.refused.append(f"{v.scheme}: accepted without verification, so it has no signer")
        elif not (alive := tuple(s for s in v.signers if s.expires is None or s.expires > now)):
            found.stale.append(f"{v.scheme}: the verified signature has expired since")
        elif wrong := _fields(selector, v):
            # A predicate above the limit was stored in part: the missing field may be in the rest, so the rule is
            # unknown.
            (found.unclear if v.predicate_cut else found.refused).append(f"{v.scheme}: {wrong}")
        else:
            found.good.append(replace(v, signers=alive))
    if selector.attestation and not found.good and not found.refused:
        found.refused.append(f"no attestation {selector.attestation}")
    return found


def _is_wanted(selector: SignatureSelector, v: Verification) -> bool:
    """Return whether it is the kind that the rule needs: a signature or an attestation."""
    if not selector.attestation:
        return not v.predicate_type
    return bool(v.predicate_type) and matches_text(selector.attestation, v.predicate_type)


def _fields(selector: SignatureSelector, v: Verification) -> str:
    """Return the first field that does not match the rule. Empty: all match."""
    there = dict(v.predicate)
    for path, allowed in selector.fields.items():
        if there.get(path) not in allowed:
            return f"{path} is {clean_text(there[path], 100)!r}" if path in there else f"{path} is missing"
    return ""


def _enough(selector: SignatureSelector, good: Sequence[Verification]) -> bool:
    wanted = [
        *((_signed_by, name) for name in selector.signers),
        *((_with_key, keyid) for keyid in selector.keys),
        *((_as_identity, name) for name in selector.identities),
    ]
    # The rule names no signer: any signer that a trust root of the scope trusts counts.
    if not wanted:
        if selector.require == "all":
            return {v.scheme for v in good} >= set(selector.scheme)
        # Counts signers, not signatures: one key that signs twice must not satisfy "two of them".
        return _distinct(good) >= (1 if selector.require == "any" else selector.require)
    count = sum(any(meets(v, name) for v in good) for meets, name in wanted)
    return count >= {"any": 1, "all": len(wanted)}.get(str(selector.require), selector.require)  # type: ignore[operator]


def _signed_by(v: Verification, name: str) -> bool:
    """Return whether a signer's name or role, or the satisfied trust root, is ``name``."""
    return name == v.trust or any(name in (signer.name, signer.role) for signer in v.signers)


def _with_key(v: Verification, keyid: str) -> bool:
    return any(keyid == signer.keyid for signer in v.signers)


def _as_identity(v: Verification, name: str) -> bool:
    # Only keyless signers have an identity that a CA verified. A key's name is free text.
    return any(name == signer.name for signer in v.signers if signer.issuer)


def _distinct(good: Iterable[Verification]) -> int:
    """Return the number of distinct signers. One key counts once, even under several names, and so does one identity:
    a keyless signer has a new key for each signature.
    """
    groups: list[set[tuple[str, ...]]] = []
    for signer in (signer for v in good for signer in v.signers):
        own: set[tuple[str, ...]] = {("key", signer.keyid)} if signer.keyid else set()
        if signer.issuer or not own:  # the name of a key is free text
            own.add(("identity", signer.issuer, signer.name))
        groups, same = [g for g in groups if not g & own], [g for g in groups if g & own]
        groups.append(own.union(*same))
    return len(groups)


def _ends(v: Verification, max_age: timedelta) -> Iterator[datetime]:
    if v.checked_at is not None:
        yield v.checked_at + max_age
    yield from (signer.expires for signer in v.signers if signer.expires)


def _signed_summary(selector: SignatureSelector, good: Sequence[Verification]) -> str:
    word = f"attested ({selector.attestation})" if selector.attestation else "signed"
    return "; ".join(f"{word} by {_names(v)}{_trusted_text(v)}" for v in good)


def _names(v: Verification) -> str:
    return ", ".join(dict.fromkeys(signer.describe() for signer in v.signers))


def _trusted_text(v: Verification) -> str:
    return f"; {v.scheme}, trusted by {v.trust}" if v.trust else f"; {v.scheme}"


def _evidence(v: Verification, signer: Signer) -> Evidence:
    return Evidence(f"{v.scheme}: {signer.describe()}", keyid=signer.keyid, name=signer.name or v.trust)


def _needed_text(selector: SignatureSelector) -> str:
    return {"any": "one of ", "all": "all of "}.get(str(selector.require), f"{selector.require} of ")
