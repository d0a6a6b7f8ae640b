"""Secrets in environment variables (CIS Docker 7.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.secret_variables import is_secret
from scanner.model.workload import Variable, Workload

_MOST_PLACED = 200  # each has its place looked up by name


class SecretsInEnvironment(ContainerCheck):
    """Variables are visible in docker inspect, to child processes, in crash dumps and often in logs."""

    id = "secrets-in-environment"
    title = "Secret in an environment variable"
    severity = Severity.HIGH
    remedy = "mount the Secret as a volume"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "mount the Secret as a volume",
        "compose": "secrets: [db_password]; read /run/secrets/db_password",
        "docker": "docker run with a mounted file instead of --env",
        "swarm": "docker secret create; docker service update --secret-add",
        "ecs": '"secrets": [{"name": …, "valueFrom": "arn:…"}]',
        "marathon": '"env": {"PASSWORD": {"secret": "name"}}',
    }
    looks_at = (
        "names and values of variables: a name typical of a secret with a literal value, a private "
        "key, a token of a known format, a URL with a password"
    )
    cannot_see = "secrets in variables with unremarkable names and values"
    cis = ("7.4",)
    trivy = ("KSV-0109",)
    nsa = ("Protecting Pod secrets",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            evidence(
                workload,
                f"the variable {variable.name} looks like a secret and has a literal value",
                *((f"environment/{variable.name}",) if number < _MOST_PLACED else ()),
                "environment",
                name=variable.name,
            )
            for number, variable in enumerate(workload.environment)
            if variable.origin in ("literal", "file") and _holds_secret(variable)
        ]
        return self.failed(workload, *seen) if seen else Passed()


def _holds_secret(variable: Variable) -> bool:
    # the reader removed the value and recorded whether it looked like a secret
    if variable.withheld:
        return variable.withheld == "secret"
    return bool(variable.value) and is_secret(variable.name, variable.value)
