"""The audit log for people: one sentence per entry, with names instead of ids.

Entries are never changed; API and export return them as they were written. A name that an entry contains is preferred
to a name that is looked up now, because things are renamed later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.model.audit import Action
from scanner.store import accounts, audit, deliveries, exemptions, registries, revocations, scans

# The text after the actor's name. In braces: a member of the entry's detail, ``object``, or a name that `_Names` finds.
SENTENCES: Mapping[Action, str] = {
    Action.POLICY_WRITE: "wrote version {version} of policy {object}",
    Action.POLICY_ENABLE: "enabled policy {object}",
    Action.POLICY_DISABLE: "disabled policy {object}",
    Action.POLICY_DRY_RUN: "started a dry run of policy {policy}",
    Action.EXEMPTION_REQUEST: "requested an exemption from {what} for {images}",
    Action.EXEMPTION_APPROVE: "approved the exemption from {what} for {images}",
    Action.EXEMPTION_REJECT: "denied the exemption from {what} for {images}",
    Action.EXEMPTION_REVOKE: "ended the exemption from {what} for {images}",
    Action.EXEMPTION_LAPSE: "ended the exemption from {what} for {images}: {why}",
    Action.VEX_IMPORT: "imported a VEX document by {author}, {statements} statements",
    Action.VEX_REMOVE: "removed a VEX document by {author}",
    Action.TRUST_ROOT_WRITE: "wrote version {version} of trust root {object} for {scope}",
    Action.TRUST_ROOT_REMOVE: "removed trust root {object}",
    Action.TRUST_ROOT_ERASE: "erased a private key from trust root {object}",
    Action.TRUST_STATE_FORGET: "cleared the recorded Notary metadata of {object}",
    Action.USER_CREATE: "added user {name} as {role}",
    Action.USER_ROLE: "changed the role of {name} from {before} to {after}",
    Action.USER_PASSWORD: "changed the password of {name}",
    Action.USER_ENABLE: "enabled user {name}",
    Action.USER_DISABLE: "disabled user {name}",
    Action.USER_SIGN_OUT: "signed {name} out everywhere",
    Action.SESSION_BEGIN: "signed in by {via}",
    Action.SESSION_REFUSE: "was refused at sign-in: wrong {via}",
    Action.SESSION_END: "signed out",
    Action.SESSION_END_ALL: "signed out everywhere",
    Action.TOKEN_CREATE: "created token {name}",
    Action.TOKEN_REVOKE: "revoked token {name}",
    Action.PROJECT_CREATE: "added project {object}",
    Action.PROJECT_CHANGE: "changed project {object}",
    Action.PROJECT_MEMBER_ADD: "made {name} a member of project {object}",
    Action.PROJECT_MEMBER_REMOVE: "removed {name} from project {object}",
    Action.REGISTRY_CREATE: "added registry {host}",
    Action.REGISTRY_ADD: "added registry {object}",
    Action.REGISTRY_CHANGE: "changed registry {host}: {members}",
    Action.REGISTRY_REMOVE: "removed registry {host}",
    Action.REGISTRY_CHECK: "requested an examination of registry {object}",
    Action.REGISTRY_POLL: "requested a poll of registry {object}",
    Action.REGISTRY_IMPORT: "started an import of registry {object}",
    Action.RECEIPT_ISSUE: "signed a receipt for {object}",
    Action.RECEIPT_PUSH: "pushed a receipt of {object} to its registry",
    Action.RECEIPT_KEY_CREATE: "created receipt key {object}",
    Action.RECEIPT_KEY_REVOKE: "revoked receipt key {object}",
    Action.WEBHOOK_CREATE: "created a webhook for {registry}",
    Action.WEBHOOK_ROTATE: "rotated the secret of webhook “{name}”",
    Action.WEBHOOK_RETIRE: "ended the rotation of webhook “{name}”, keeping the {kept} secret",
    Action.WEBHOOK_ENABLE: "enabled webhook “{name}”",
    Action.WEBHOOK_DISABLE: "disabled webhook “{name}”",
    Action.WEBHOOK_REMOVE: "deleted webhook “{name}”",
    Action.EVENT_REPLAY: "replayed a delivery of {registry}",
    Action.EVENT_TAKE: "accepted refused events of a delivery of {registry}",
    Action.SCAN_REQUEST: "requested a scan of {object}",
    Action.SCAN_RESCAN: "requested a new scan of {target}",
    Action.SCAN_CANCEL: "cancelled the scan of {target}",
    Action.JOB_UPDATE: "requested an update of the advisories",
    Action.JOB_REMATCH: "requested a re-match of all packages",
    Action.JOB_CANCEL: "cancelled a job",
    Action.ADVISORIES_REVOKE: "revoked {what}",
    Action.ADVISORIES_REINSTATE: "reinstated {what}",
    Action.INVENTORY_REPORT: "reported {workloads} workloads of {object}",
    Action.INVENTORY_REMOVE: "removed {object} from the inventory",
    Action.INVENTORY_REFUSE: "was refused as reporter of {object}: {current} reports it, not {agent}",
    Action.ADMISSION_DENY: "denied {workload} in namespace {namespace}, requested by {asked_by}: {reason}",
    Action.PULL_DENY: "denied a pull of {object}, requested by {asked_by}: {reason}",
    Action.BREAK_GLASS_BEGIN: "let {object} through until {until}: {reason}",
    Action.BREAK_GLASS_END: "ended the break-glass of {object}",
    Action.CHANNEL_CREATE: "added notification channel “{name}”",
    Action.CHANNEL_CHANGE: "changed notification channel “{name}”",
    Action.CHANNEL_ENABLE: "enabled notification channel “{name}”",
    Action.CHANNEL_DISABLE: "disabled notification channel “{name}”",
    Action.CHANNEL_REMOVE: "deleted notification channel “{name}”",
    Action.CHANNEL_TEST: "sent a test message to notification channel “{name}”",
    Action.SUBSCRIPTION_CREATE: "subscribed notification channel “{channel}”",
    Action.SUBSCRIPTION_CHANGE: "changed a subscription of notification channel “{channel}”",
    Action.SUBSCRIPTION_REMOVE: "deleted a subscription of notification channel “{channel}”",
    Action.NOTIFICATION_REPLAY: "sent failed notifications of channel “{channel}” again",
    Action.RETENTION_REQUEST: "requested a pruning",
    Action.RETENTION_PRUNE: "pruned expired data",
    Action.SECRETS_ROTATE: "re-encrypted {moved} stored secrets with the new secret key",
    Action.SECRETS_FORGET: "deleted the previous secret key",
}
_LABELS = {
    "expires_at": "expires",
    "purl": "package",
    "until": "until",
    "ended": "sessions ended",
    "ca_pem": "CA certificates",
    "first_run": "first run",
}
# Members that repeat the sentence or are of use to programs only.
_OMITTED_DETAILS = frozenset({"digest", "state", "user", "subject", "rule", "enabled", "scans", "scan"})


@dataclass(frozen=True)
class ReadableEntry:
    """An entry for people.

    ``sentence`` follows the actor's name; ``notes`` is the rest of the detail, one phrase each.
    """

    entry: audit.Entry
    sentence: str
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.entry.actor} {self.sentence}"


def readable(session: Connection, entries: Iterable[audit.Entry]) -> tuple[ReadableEntry, ...]:
    """Return each entry as a sentence, with current names for ids."""
    names = _Names(session)
    return tuple(_readable(entry, names) for entry in entries)


def _readable(entry: audit.Entry, names: _Names) -> ReadableEntry:
    template = SENTENCES[Action(entry.action)] if entry.action in list(Action) else ""
    if not template:  # written by another version of Dockwarden
        return ReadableEntry(entry, f"{entry.action} {entry.object}".strip(), _notes(entry.detail, frozenset()))
    if entry.action == Action.USER_PASSWORD and entry.detail.get("name") == entry.actor:
        return ReadableEntry(entry, "changed their own password", ())
    used = _Values(entry, names)
    sentence = template.format_map(used)
    return ReadableEntry(entry, sentence, _notes(entry.detail, used.mentioned))


class _Values(dict[str, str]):
    """The values of a template, looked up on demand. ``readable`` collects the members that the sentence has used."""

    def __init__(self, entry: audit.Entry, names: _Names) -> None:
        super().__init__()
        self.mentioned = set(_OMITTED_DETAILS)
        self._entry, self._names = entry, names

    def __missing__(self, name: str) -> str:
        self.mentioned.add(name)
        entry = self._entry
        if name == "object":
            return entry.object
        if name == "what" and entry.action.startswith("exemption."):
            return _exempted_text(self._detail())
        if name in ("before", "after"):
            self.mentioned |= {"before", "after"}
        found = self._detail().get(name)
        if found in (None, "", []):
            found = self._names.of(entry, name)
        return _text(found) or f"{entry.object[:8]}…"

    def _detail(self) -> Mapping[str, Any]:
        detail = self._entry.detail
        if self._entry.action == Action.EXEMPTION_LAPSE and "images" not in detail:
            return {**self._names.exemption(self._entry.object), **detail}
        return detail


class _Names:
    """Names of ids. Each id is looked up once."""

    def __init__(self, session: Connection) -> None:
        self._session = session
        self._known: dict[tuple[str, str], object] = {}

    def of(self, entry: audit.Entry, name: str) -> str:
        """Return ``name`` (host, registry, target, ...) of the entry's object. Empty if the object is deleted."""
        return str(self.thing(entry.action.partition(".")[0], entry.object).get(name) or "")

    def exemption(self, identifier: str) -> Mapping[str, Any]:
        return self.thing("exemption", identifier)

    def thing(self, subject: str, identifier: str) -> Mapping[str, Any]:
        key = (subject, identifier)
        if key not in self._known:
            look_up = _LOOK_UPS.get(subject)
            try:
                self._known[key] = look_up(self._session, identifier) if look_up else {}
            except NotFoundError:
                self._known[key] = {}
        found: Mapping[str, Any] = self._known[key]  # type: ignore[assignment]
        return found


def _user(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"name": accounts.get_user(session, identifier).name}


def _token(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"name": accounts.get_token(session, identifier).name}


def _registry(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"host": registries.get(session, identifier).host}


def _webhook(session: Connection, identifier: str) -> Mapping[str, Any]:
    if not _is_id(identifier):  # entries of old versions contain the host
        return {"registry": identifier}
    found = deliveries.get_hook(session, identifier, None)
    return {"name": found.name, "registry": found.host}


def _delivery(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"registry": deliveries.get(session, identifier, None).host}


def _scan(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"target": scans.get(session, identifier).request.target}


def _revocation(session: Connection, identifier: str) -> Mapping[str, Any]:
    return {"what": str(revocations.get(session, identifier).what)}


def _exemption(session: Connection, identifier: str) -> Mapping[str, Any]:
    found = exemptions.get(session, identifier)
    return {"images": list(found.images), "rule": found.rule, "subject": found.subject}


_LOOK_UPS: Mapping[str, Callable[[Connection, str], Mapping[str, Any]]] = {
    "user": _user,
    "token": _token,
    "registry": _registry,
    "webhook": _webhook,
    "event": _delivery,
    "scan": _scan,
    "advisories": _revocation,
    "exemption": _exemption,
}


def _exempted_text(detail: Mapping[str, Any]) -> str:
    rule, subject = str(detail.get("rule") or ""), str(detail.get("subject") or "")
    if subject and rule:
        return f"{subject} (rule {rule})"
    return subject or (f"rule {rule}" if rule else "a rule")


def _notes(detail: Mapping[str, Any], mentioned: Iterable[str]) -> tuple[str, ...]:
    """Return a phrase for each non-empty member of the detail that the sentence did not use."""
    said, notes = set(mentioned), []
    for name, value in detail.items():
        label = _LABELS.get(name, name.replace("_", " "))
        if name in said or value in (None, "", [], {}, False):
            continue
        if isinstance(value, Mapping) and set(value) == {"before", "after"}:
            notes.append(f"{label}: {_text(value['before']) or 'none'} → {_text(value['after']) or 'none'}")
        elif name == "before":
            notes.append(f"before: {_text(value)}")
        else:
            notes.append(f"{label}: {_text(value)}")
    return tuple(notes)


def _text(value: object) -> str:
    """Return a value of the detail without brackets, quotes and digests."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} {_text(inner)}" for name, inner in value.items() if name not in _OMITTED_DETAILS and inner
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(inner) for inner in value)
    return "" if value is None else str(value)


def _is_id(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4
