"""No useful healthcheck (CIS Docker 4.6)."""

from __future__ import annotations

from scanner.checks._healthchecks import why_useless
from scanner.checks._ports import ports_of
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity


class HealthcheckPresent(ConfigCheck):
    """A healthcheck that is missing, disabled or cannot fail gives an orchestrator no information."""

    id = "healthcheck"
    title = "No useful healthcheck"
    severity = Severity.LOW
    remedy = 'HEALTHCHECK --interval=30s --timeout=3s CMD ["/app/healthcheck"]'
    looks_at = "config.Healthcheck: present, not NONE, and a command that can fail"
    cannot_see = "whether the command is a meaningful test; probes of an orchestrator"
    cis = ("4.6",)
    dockle = ("CIS-DI-0006",)
    trivy = ("DS-0026",)
    article = ("Logging and Monitoring: Health Checks",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        check = subject.image.config.healthcheck
        if check is None or not check.test or check.test == ("",):
            return self._failed(subject, "the image declares no healthcheck")
        if check.test[0] == "NONE":
            return self._failed(subject, "the healthcheck is disabled (NONE)")
        useless = why_useless(" ".join(check.test[1:]))
        return self._failed(subject, useless) if useless else Passed()

    def _failed(self, subject: ImageSubject, message: str) -> Outcome:
        remedy = _suggestion(subject)
        return Failed((subject.setting(message, "HEALTHCHECK", pointer="/config/Healthcheck"),), remedy=remedy)


def _suggestion(subject: ImageSubject) -> str:
    """Return a healthcheck with the program's own test command, or with a request to its only port. Empty: neither."""
    config = subject.image.config
    started = {word.rpartition("/")[2] for word in (*config.entrypoint, *config.cmd)}
    known = next((command for program, command in _BRING_THEIR_OWN.items() if program in started), "")
    ports = [port.first for port in ports_of(config) if port.first == port.last and not port.text.endswith("/udp")]
    if not known and len(ports) == 1:
        known = f"curl --fail --silent --max-time 2 http://localhost:{ports[0]}/ || exit 1"
    return f"HEALTHCHECK --interval=30s --timeout=3s CMD {known}" if known else ""


_BRING_THEIR_OWN = {
    "redis-server": "redis-cli ping | grep -q PONG",
    "postgres": "pg_isready --quiet",
    "mysqld": "mysqladmin ping --silent",
    "mariadbd": "healthcheck.sh --connect",
    "mongod": "mongosh --quiet --eval 'db.runCommand({ping: 1}).ok' | grep -q 1",
    "rabbitmq-server": "rabbitmq-diagnostics --quiet ping",
}
