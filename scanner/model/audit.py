"""The actions of the audit log. Their texts are stored, and scripts compare them: none is changed or reused."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """``subject.verb``. The value is stored in the database; ``label`` is for menus."""

    POLICY_WRITE = "policy.write"
    POLICY_ENABLE = "policy.enable"
    POLICY_DISABLE = "policy.disable"
    POLICY_DRY_RUN = "policy.dry_run"
    EXEMPTION_REQUEST = "exemption.request"
    EXEMPTION_APPROVE = "exemption.approve"
    EXEMPTION_REJECT = "exemption.reject"
    EXEMPTION_REVOKE = "exemption.revoke"
    EXEMPTION_LAPSE = "exemption.lapse"
    VEX_IMPORT = "vex.import"
    VEX_REMOVE = "vex.remove"
    TRUST_ROOT_WRITE = "trust_root.write"
    TRUST_ROOT_REMOVE = "trust_root.remove"
    TRUST_ROOT_ERASE = "trust_root.erase"
    TRUST_STATE_FORGET = "trust_state.forget"
    USER_CREATE = "user.create"
    USER_ROLE = "user.role"
    USER_PASSWORD = "user.password"  # noqa: S105
    USER_ENABLE = "user.enable"
    USER_DISABLE = "user.disable"
    USER_SIGN_OUT = "user.sign_out"
    SESSION_BEGIN = "session.begin"
    SESSION_REFUSE = "session.refuse"
    SESSION_END = "session.end"
    SESSION_END_ALL = "session.end_all"
    TOKEN_CREATE = "token.create"  # noqa: S105
    TOKEN_REVOKE = "token.revoke"  # noqa: S105
    PROJECT_CREATE = "project.create"
    PROJECT_CHANGE = "project.change"
    PROJECT_MEMBER_ADD = "project.member.add"
    PROJECT_MEMBER_REMOVE = "project.member.remove"
    REGISTRY_CREATE = "registry.create"
    REGISTRY_ADD = "registry.add"  # written by the registries page before it shared the API's use case; read only
    REGISTRY_CHANGE = "registry.change"
    REGISTRY_REMOVE = "registry.remove"
    REGISTRY_CHECK = "registry.check"
    REGISTRY_POLL = "registry.poll"
    REGISTRY_IMPORT = "registry.import"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_ROTATE = "webhook.rotate"
    WEBHOOK_RETIRE = "webhook.retire"
    WEBHOOK_ENABLE = "webhook.enable"
    WEBHOOK_DISABLE = "webhook.disable"
    WEBHOOK_REMOVE = "webhook.remove"
    EVENT_REPLAY = "event.replay"
    EVENT_TAKE = "event.take"
    CHANNEL_CREATE = "channel.create"
    CHANNEL_CHANGE = "channel.change"
    CHANNEL_TEST = "channel.test"
    CHANNEL_ENABLE = "channel.enable"
    CHANNEL_DISABLE = "channel.disable"
    CHANNEL_REMOVE = "channel.remove"
    SUBSCRIPTION_CREATE = "subscription.create"
    SUBSCRIPTION_CHANGE = "subscription.change"
    SUBSCRIPTION_REMOVE = "subscription.remove"
    NOTIFICATION_REPLAY = "notification.replay"
    SCAN_REQUEST = "scan.request"
    SCAN_RESCAN = "scan.rescan"
    SCAN_CANCEL = "scan.cancel"
    JOB_UPDATE = "job.advisories-update"
    JOB_REMATCH = "job.rematch"
    JOB_CANCEL = "job.cancel"
    ADVISORIES_REVOKE = "advisories.revoke"
    ADVISORIES_REINSTATE = "advisories.reinstate"
    INVENTORY_REPORT = "inventory.report"
    INVENTORY_REMOVE = "inventory.remove"
    INVENTORY_REFUSE = "inventory.refuse"
    ADMISSION_DENY = "admission.deny"
    PULL_DENY = "pull.deny"
    BREAK_GLASS_BEGIN = "break_glass.begin"
    BREAK_GLASS_END = "break_glass.end"
    RECEIPT_ISSUE = "receipt.issue"
    RECEIPT_PUSH = "receipt.push"
    RECEIPT_KEY_CREATE = "receipt.key.create"
    RECEIPT_KEY_REVOKE = "receipt.key.revoke"
    RETENTION_REQUEST = "retention.request"
    RETENTION_PRUNE = "retention.prune"
    SECRETS_ROTATE = "secrets.rotate"
    SECRETS_FORGET = "secrets.forget"

    @property
    def subject(self) -> str:
        """The subject: the part before the first dot."""
        return self.value.partition(".")[0]

    @property
    def label(self) -> str:
        """For menus: ``Exemption: approve``."""
        subject, _, verb = self.value.replace("_", " ").partition(".")
        return f"{subject.capitalize()}: {verb.replace('.', ' ').replace('-', ' ')}"


def by_subject() -> dict[str, list[Action]]:
    """All actions, by subject."""
    found: dict[str, list[Action]] = {}
    for action in Action:
        found.setdefault(action.subject, []).append(action)
    return found
