"""Whom an installation trusts, as people manage it: the same rules for the API, the pages and the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import ConflictError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.pem import refuse_private_key
from scanner.model.reference import Digest
from scanner.policy import retirement
from scanner.policy.rules import Known
from scanner.services import decisions
from scanner.store import audit, gate, trust
from scanner.store.session import moment

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9.*:\[\]_/-]{1,300}", re.ASCII)


def write(
    session: Connection,
    name: str,
    scheme: str,
    given: str,
    scope: Sequence[str],
    actor: Actor,
    *,
    where: str = "document",
    if_version: int | None = None,
) -> trust.RootView:
    """A trust root from what a person gave (JSON, PEM or a word), validated by its scheme.

    Every decision is made anew from the next scan on. Raises UsageError naming the field, ConflictError, RefusedError.
    """
    actor.require_every_project()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"not a name: {name[:100]!r}", hint="lower-case letters, digits, and . _ - after the first", field="name"
        )
    plugin = catalog.schemes().get(scheme)
    if plugin is None:
        hint = "choose one of: " + ", ".join(catalog.schemes())
        raise UsageError(
            f"there is no signature scheme {scheme[:100]!r}", reason="bad_trust_root", hint=hint, field="scheme"
        )
    try:
        document = plugin.parse_trust(given.encode("utf-8", "surrogatepass"), where)
        refuse_private_key(document, where)  # here too, so that a new scheme cannot forget it
    except UsageError as error:
        error.field = error.field or "document"
        raise
    before = next((root for root in trust.list_(session) if root.name == name), None)
    written = trust.put(session, name, scheme, document, _scope(scope), actor.name, if_version=if_version)
    if before is None or written.version != before.version:
        gate.invalidate(session)
        detail = {
            "version": written.version,
            "scheme": scheme,
            "scope": list(written.scope),
            "before": {"version": before.version, "scheme": before.scheme} if before else None,
        }
        audit.record(session, actor, Action.TRUST_ROOT_WRITE, name, detail=detail)
    return written


def _scope(patterns: Sequence[str]) -> tuple[str, ...]:
    """Globs over host/repository; every repository without any."""
    found = tuple(dict.fromkeys(pattern.strip() for pattern in patterns if pattern.strip()))
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            raise UsageError(
                f"not a pattern over host/repository: {pattern[:100]!r}",
                hint="such as registry.example.com/shop/**",
                field="scope",
            )
    return found or ("**",)


def remove(session: Connection, name: str, actor: Actor) -> None:
    """Trust nothing by it any more.

    Raises NotFoundError; ConflictError(reason="in_use") while a policy in force names it.
    """
    actor.require_every_project()
    trust.get(session, name)
    for one in decisions.in_force(session, catalog.known()):
        for rule in one.policy.rules:
            if rule.signature and name in rule.signature.signers:
                raise ConflictError(
                    f"policy {one.policy.name!r} names {name!r} (rule {rule.id!r})",
                    reason="in_use",
                    hint="change the policy first",
                )
    trust.remove(session, name)
    gate.invalidate(session)
    audit.record(session, actor, Action.TRUST_ROOT_REMOVE, name)


def forget_state(session: Connection, actor: Actor, gun: str) -> int:
    """Forget what was seen of a repository's Notary metadata, so that one made anew is not taken for a rollback.

    Returns how much.
    """
    actor.require_every_project()
    count = trust.forget(session, gun)
    audit.record(session, actor, Action.TRUST_STATE_FORGET, gun, detail={"count": count})
    return count


def known_to_authors(session: Connection) -> Known:
    """What a policy may name that is written now: signers too, as far as the trust roots name them.

    A policy that is in force is not judged by this: a trust root that is gone must not make it unreadable.
    """
    signers: dict[str, frozenset[str] | None] = dict.fromkeys(catalog.schemes(), frozenset())
    for root in trust.list_(session):
        there = signers.get(root.scheme)
        if there is not None:
            inside = catalog.schemes()[root.scheme].signers(root.document)
            signers[root.scheme] = None if inside is None else there | inside | {root.name}
    return replace(catalog.known(), signers=signers)


def depends_on_notary(
    session: Connection, projects: frozenset[str] | None = None, days: int = 90
) -> tuple[retirement.Dependence, ...]:
    """What would fail if content trust were switched off: of every repository that was scanned."""
    names: dict[str, list[retirement.Name]] = {}
    for one in trust.signed_names(session, projects):
        names.setdefault(one.repository, []).append(retirement.Name(one.tag, Digest(one.digest), one.answers))
    policies = [one.policy for one in decisions.in_force(session, catalog.known())]
    return retirement.dependence(names, policies, moment(session), days)
