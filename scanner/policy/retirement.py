"""What depends on Docker Content Trust, for each repository: signers, expiring keys, rules that would fail without a
Notary server, and the next steps. Pure: the input is the last verification of every scheme and the active policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from scanner.model.finding import TrustStatus, Verification
from scanner.model.glob import matches
from scanner.model.reference import Digest
from scanner.policy.rules import Policy
from scanner.policy.signatures import RuleStatus, judge

NOTARY = "notary-v1"
_RENEWED_BY_THE_SERVER = "timestamp"
_SHOWN = 5
_ANY_AGE = timedelta(days=36500)  # the age of an answer is not relevant here


@dataclass(frozen=True)
class Name:
    """A tag and the last verifications of its image."""

    tag: str
    digest: Digest
    answers: tuple[Verification, ...]  # the last ones of every scheme


@dataclass(frozen=True)
class SchemeUse:
    """How many tags of a repository a scheme has verified, and who signed them. ``unknown``: tags that could not be
    verified.
    """

    scheme: str
    verified: int  # tags
    refused: int  # tags
    unknown: int
    signers: tuple[str, ...]
    trusted_by: tuple[str, ...]  # names of the trust roots that verified them

    def describe(self) -> str:
        counts = ((self.verified, "verified"), (self.refused, "refused"), (self.unknown, "not known"))
        told = ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing signed"
        return told + (f"; trusted by {', '.join(self.trusted_by)}" if self.trusted_by else "")


@dataclass(frozen=True)
class EndingTrust:
    what: str
    at: datetime


@dataclass(frozen=True)
class FailingRule:
    """A rule that is satisfied now and would fail for these tags without a Notary server."""

    policy: str
    rule: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Dependence:
    """What a repository needs. ``on_notary``: tags that only Notary has verified. ``todo``: steps in order; empty:
    nothing depends on Notary.
    """

    repository: str
    tags: int  # how many there are
    schemes: tuple[SchemeUse, ...]
    on_notary: tuple[str, ...]
    ending: tuple[EndingTrust, ...]
    failing: tuple[FailingRule, ...]
    todo: tuple[str, ...]


def dependence(
    names: Mapping[str, Sequence[Name]], policies: Sequence[Policy], now: datetime, days: int = 90
) -> tuple[Dependence, ...]:
    """Return the result for each repository; those that depend most on Notary come first."""
    found = [_of(repository, tags, policies, now, timedelta(days=days)) for repository, tags in names.items()]
    return tuple(sorted(found, key=lambda d: (-len(d.failing), -len(d.on_notary), d.repository)))


def _of(
    repository: str, names: Sequence[Name], policies: Sequence[Policy], now: datetime, span: timedelta
) -> Dependence:
    schemes = tuple(_uses(names))
    only = tuple(name.tag for name in names if _image_schemes(name) == {NOTARY})
    ending = tuple(_ending_soon(names, now, span))
    failing = tuple(_failing_rules(repository, names, policies, now))
    todo = tuple(_todo(repository, names, schemes, only, ending, failing, policies))
    return Dependence(repository, len(names), schemes, only, ending, failing, todo)


def _image_schemes(name: Name) -> set[str]:
    """Return the schemes that verify the image itself. Attestations are not signatures."""
    return {v.scheme for v in name.answers if v.status is TrustStatus.VERIFIED and not v.predicate_type}


def _uses(names: Sequence[Name]) -> Iterator[SchemeUse]:
    answers = [v for name in names for v in name.answers if not v.predicate_type]
    for scheme, group in groupby(sorted(answers, key=lambda v: v.scheme), key=lambda v: v.scheme):
        found = list(group)
        good = [v for v in found if v.status is TrustStatus.VERIFIED]
        yield SchemeUse(
            scheme,
            len(good),
            sum(v.status is TrustStatus.REFUSED for v in found),
            sum(v.status is TrustStatus.UNKNOWN for v in found),
            tuple(dict.fromkeys(signer.describe() for v in good for signer in v.signers)),
            tuple(dict.fromkeys(v.trust for v in good if v.trust)),
        )


def _ending_soon(names: Sequence[Name], now: datetime, span: timedelta) -> Iterator[EndingTrust]:
    """Yield what expires within the time, soonest first. The timestamp role is left out: a running server renews it."""
    ends: dict[str, datetime] = {}
    for v in (v for name in names for v in name.answers if v.status is TrustStatus.VERIFIED):
        own = [(f"{signer.role or signer.name} ({v.scheme})", signer.expires) for signer in v.signers if signer.expires]
        for what, at in (*((f"{what} ({v.scheme})", at) for what, at in v.expiries), *own):
            if at < now + span and not what.startswith(_RENEWED_BY_THE_SERVER):
                ends[what] = min(at, ends.get(what, at))
    yield from (EndingTrust(what, at) for what, at in sorted(ends.items(), key=lambda item: (item[1], item[0])))


def _failing_rules(
    repository: str, names: Sequence[Name], policies: Sequence[Policy], now: datetime
) -> Iterator[FailingRule]:
    for policy in policies:
        if not matches(policy.images, repository):
            continue
        for rule in policy.rules:
            if rule.signature is None or NOTARY not in rule.signature.scheme:
                continue
            tags = []
            for name in names:
                # The same evaluation twice, once as if the server were gone: so a rule that cosign satisfies too is
                # not listed.
                with_it, without = (
                    judge(rule.signature, answers, (name.digest,), now, _ANY_AGE)
                    for answers in (name.answers, _without_notary(name.answers))
                )
                if with_it.status is RuleStatus.SATISFIED and without.status is not RuleStatus.SATISFIED:
                    tags.append(name.tag)
            if tags:
                yield FailingRule(policy.name, rule.id, tuple(tags))


def _without_notary(answers: Iterable[Verification]) -> tuple[Verification, ...]:
    return tuple(
        replace(v, status=TrustStatus.UNKNOWN, reason="unavailable", signers=()) if v.scheme == NOTARY else v
        for v in answers
    )


def _todo(
    repository: str,
    names: Sequence[Name],
    schemes: Sequence[SchemeUse],
    only: Sequence[str],
    ending: Sequence[EndingTrust],
    failing: Sequence[FailingRule],
    policies: Sequence[Policy],
) -> Iterator[str]:
    notary = next((use for use in schemes if use.scheme == NOTARY), None)
    others = [use.scheme for use in schemes if use.scheme != NOTARY and use.verified]
    if notary is None or not (notary.verified or notary.refused):
        if notary is not None and notary.unknown:
            yield from _unknown(names)
        return
    for end in ending:
        yield f"renew {end.what}: it expires on {end.at:%Y-%m-%d} and does not count after that"
    if only:
        more = f" and {len(only) - _SHOWN} more" if len(only) > _SHOWN else ""
        tags = f"tag{'s' if len(only) > 1 else ''} {', '.join(only[:_SHOWN])}{more}"
        yield f"sign {tags} with cosign or Notation as well: only Notary signatures verify them"
    if only and not others:
        yield f"add a trust root for the new scheme whose scope covers {repository}"
    for fail in failing:
        yield f"let rule {fail.rule} of policy {fail.policy} accept the new scheme beside {NOTARY}"
    if not only:
        yield (
            f"nothing is signed by Notary alone: remove {NOTARY} from the policies, then its trust root, "
            "then the server"
        )


def _unknown(names: Sequence[Name]) -> Iterator[str]:
    reasons = {
        v.reason: v.detail or v.reason
        for name in names
        for v in name.answers
        if v.scheme == NOTARY and v.status is TrustStatus.UNKNOWN and v.reason not in ("no_trust_root", "no_registry")
    }
    yield from (f"resolve first: {detail}" for detail in reasons.values())
