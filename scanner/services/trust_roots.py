"""Trust roots: write, remove, and what policies may refer to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import ConflictError, UsageError
from scanner.model import glob
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.pem import holds_private_key, refuse_private_key
from scanner.model.reference import Digest
from scanner.policy import retirement
from scanner.policy.rules import KnownNames
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
    """Write a version of a trust root. ``given`` is JSON, PEM or a keyword; its scheme validates it.

    ``where`` names the document in errors. Invalidates every decision. Raises UsageError naming the field,
    ConflictError, RefusedError.
    """
    actor.require_every_project()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"not a name: {name[:100]!r}",
            hint="use lower-case letters and digits, and . _ - after the first character",
            field="name",
        )
    plugin = catalog.schemes().get(scheme)
    if plugin is None:
        hint = "choose one of: " + ", ".join(catalog.schemes())
        raise UsageError(
            f"there is no signature scheme {scheme[:100]!r}", reason="bad_trust_root", hint=hint, field="scheme"
        )
    try:
        # JSON of an API can contain lone surrogates. They are passed on, so that the scheme's parser refuses them
        # like any other bytes that are not UTF-8.
        document = plugin.parse_trust(given.encode("utf-8", "surrogatepass"), where)
        refuse_private_key(document, where)  # schemes refuse it too; a new scheme might forget to
    except UsageError as error:
        error.field = error.field or "document"
        raise
    before = next((root for root in trust.list_roots(session) if root.name == name), None)
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
    """Return the globs over host/repository without duplicates. No glob: every repository."""
    found = tuple(dict.fromkeys(pattern.strip() for pattern in patterns if pattern.strip()))
    for pattern in found:
        wrong = glob.problem(pattern)
        if wrong or not _PATTERN.fullmatch(pattern):
            raise UsageError(
                f"not a pattern over host/repository: {pattern[:100]!r}{': ' if wrong else ''}{wrong}",
                hint="write host/repository, such as registry.example.com/shop/**",
                field="scope",
            )
    return found or ("**",)


def remove(session: Connection, name: str, actor: Actor) -> None:
    """Remove a trust root. Raises NotFoundError, ConflictError(reason="in_use") while an enabled policy names it."""
    actor.require_every_project()
    trust.get(session, name)
    for one in decisions.enabled_policies(session, catalog.known_names()):
        for rule in one.policy.rules:
            # A policy that names a root that does not exist denies everything. That is safe, but nobody who removes a
            # root expects it.
            if rule.signature and name in rule.signature.signers:
                raise ConflictError(
                    f"policy {one.policy.name!r} names {name!r} (rule {rule.id!r})",
                    reason="in_use",
                    hint="change the policy first",
                )
    trust.remove(session, name)
    gate.invalidate(session)
    audit.record(session, actor, Action.TRUST_ROOT_REMOVE, name)


def erase_private_keys(session: Connection, actor: Actor) -> tuple[str, ...]:
    """Erase private keys from all versions of all trust roots. Remove the trust roots whose newest version held one.

    Earlier versions of Dockwarden stored keys that were pasted by mistake. Every reader of trust roots could sign with
    them, so nothing is trusted by them any more: a policy that names a removed root denies until the root is written
    again. Returns the names of the removed roots.
    """
    gate.begin_change(session)
    found: dict[str, list[int]] = {}
    for view in trust.versions(session):
        if holds_private_key(view.document):
            trust.erase(session, view.name, view.version)
            found.setdefault(view.name, []).append(view.version)
    current = {root.name: root.version for root in trust.list_roots(session)}
    needed = tuple(name for name, versions in found.items() if current.get(name) in versions)
    for name, versions in found.items():
        if name in needed:
            trust.remove(session, name)
        detail = {"erased": versions, "removed": name in needed}
        audit.record(session, actor, Action.TRUST_ROOT_ERASE, name, detail=detail)
    if needed:
        gate.invalidate(session)
    return needed


def forget_state(session: Connection, actor: Actor, gun: str) -> int:
    """Delete the recorded Notary metadata of repository ``gun`` and return the number of records.

    Needed after a repository's metadata was created again: its lower versions would count as a rollback attack.
    """
    actor.require_every_project()
    count = trust.forget(session, gun)
    audit.record(session, actor, Action.TRUST_STATE_FORGET, gun, detail={"count": count})
    return count


def known_to_authors(session: Connection) -> KnownNames:
    """Return the names that a new policy may contain, including the signers of the trust roots.

    Stored policies are not parsed with it: removing a trust root must not make a policy unreadable.
    """
    signers: dict[str, frozenset[str] | None] = dict.fromkeys(catalog.schemes(), frozenset())
    for root in trust.list_roots(session):
        there = signers.get(root.scheme)
        if there is not None:
            inside = catalog.schemes()[root.scheme].signers(root.document)
            signers[root.scheme] = None if inside is None else there | inside | {root.name}
    return replace(catalog.known_names(), signers=signers)


def depends_on_notary(
    session: Connection, projects: frozenset[str] | None = None, days: int = 90
) -> tuple[retirement.Dependence, ...]:
    """Return what would fail if Docker Content Trust were switched off, for every scanned repository."""
    names: dict[str, list[retirement.Name]] = {}
    for one in trust.signed_names(session, projects):
        names.setdefault(one.repository, []).append(retirement.Name(one.tag, Digest(one.digest), one.answers))
    policies = [one.policy for one in decisions.enabled_policies(session, catalog.known_names())]
    return retirement.dependence(names, policies, moment(session), days)
