"""Secrets in command lines (CIS Docker 7.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Passed, Severity
from scanner.model.secret_arguments import find_secrets
from scanner.model.untrusted import clean_text
from scanner.model.workload import Probe, Workload

_MOST = 50


class SecretsInArguments(ContainerCheck):
    """A command line is visible to every process of its host, in docker inspect, and in the API of the cluster."""

    id = "secrets-in-arguments"
    title = "Secret in a command line"
    severity = Severity.HIGH
    remedy = "mount the Secret as a volume, and give the program the file's name"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "mount the Secret as a volume, and give the program the file's name",
        "compose": "secrets: [db_password]; command: --password-file /run/secrets/db_password",
        "docker": "docker run with a mounted file, and the file's name as argument",
        "swarm": "docker secret create; docker service update --secret-add … --args '--password-file /run/secrets/…'",
        "ecs": '"secrets": [{"name": …, "valueFrom": "arn:…"}], and let the program read the variable',
        "marathon": '"env": {"PASSWORD": {"secret": "name"}}, and let the program read the variable',
    }
    looks_at = (
        "command, arguments, healthchecks, probes and lifecycle hooks: options and variables with the name of a secret "
        "and a literal value (--password=…, -e TOKEN=…, mysql -p…), URLs with a password, headers that authenticate, "
        "tokens of a known format; also within scripts of a shell"
    )
    cannot_see = "secrets as plain arguments without an option, and what a script reads or computes"
    cis = ("7.4",)
    nsa = ("Protecting Pod secrets",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        seen = [
            *_of_words(workload, workload.command, "command", "the command"),
            *_of_words(workload, workload.arguments, "arguments", "the arguments"),
            *_of_words(workload, workload.healthcheck_test, "healthcheck", "the healthcheck"),
        ]
        for probe, number in _numbered(workload.probes):
            # Kubernetes and Compose write a command differently, and only Compose has several hooks of one kind.
            item = f"{probe.kind}/{number}"
            commands = (f"{probe.kind}/exec/command", f"{item}/command", f"{item}/command/value", item)
            seen += _of_words(workload, probe.command, probe.kind, f"the {probe.kind} command", commands)
            headers = (f"{probe.kind}/httpGet/httpHeaders",)
            seen += _of_words(workload, probe.headers, probe.kind, f"the {probe.kind} request", headers)
        # Without its own command line the image's is run, and that is the image's matter.
        return self.failed(workload, *seen[:_MOST]) if seen else Passed()


def _numbered(probes: Sequence[Probe]) -> Iterator[tuple[Probe, int]]:
    """Yield the probes, each with its number among those of its kind."""
    seen: Counter[str] = Counter()
    for probe in probes:
        yield probe, seen[probe.kind]
        seen[probe.kind] += 1


def _of_words(
    workload: Workload, words: Sequence[str] | None, field: str, label: str, places: Sequence[str] = ()
) -> Iterator[Evidence]:
    """Yield the secrets. ``places``: where the words can stand; ``field`` if they stand there themselves."""
    told: set[str] = set()
    for found in find_secrets(words or ()):
        name = clean_text(found.name, 80)
        if name not in told:
            told.add(name)
            message = f"{label} has a secret in clear text: {name}"
            # The word itself, or the whole command where it is one text.
            exact = [f"{place}/{found.word}" for place in (*places, field)]
            yield evidence(workload, message, *exact, *places, field, name=name)
