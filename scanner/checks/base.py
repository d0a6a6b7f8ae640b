"""The base classes of checks.

A check is a pure function from evidence to ``Outcome``. It opens no files or connections. Input that it cannot read
gives ``Incomplete(reason)``, never ``Passed``; input to which it does not apply gives ``NotApplicable(reason)``.

Evidence is gathered once and then evaluated with the parameters of each policy, when the image's files are gone. A
check with parameters therefore collects everything that any parameter might reject, and decides per item
(``Check.tolerates``). ``Check.judged`` builds the outcome; ``Check.judge`` applies other parameters to a stored one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, ClassVar, Final

from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, SecretMatch, Severity
from scanner.model.glob import matches_text
from scanner.model.image import Image, instruction
from scanner.model.lineage import BaseImage
from scanner.model.posture import CertificateFact, RegistryFacts, TlsFacts
from scanner.model.reference import Digest, Reference
from scanner.model.workload import EngineFacts, Workload

UNREAD: Final = "how it is run was not read"
_MAX_EVIDENCE = 500  # pieces that are stored; more are counted
# An instruction can be as long as the whole config, and is repeated in all evidence of its layer.
_MAX_INSTRUCTION = 2000
# The common parameter ``allow``: globs of paths or names that are accepted.
ALLOW: Final[Mapping[str, Any]] = MappingProxyType({"allow": ()})


def truncate_at_space(text: str, most: int) -> str:
    """Truncate a text at a space. A truncated secret would not be recognised and thus not be removed."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " …"


@dataclass(frozen=True)
class ImageSubject:
    """The input of an image check.

    ``rootfs``: None if a layer could not be read; checks of files are then Incomplete with ``rootfs_reason``.
    ``secrets``: from engines; None if no engine searched. ``reference``: None for an archive. ``base``: the base image;
    None if unknown. ``results``: stored outcomes of image checks by id, for workload checks.
    """

    image: Image
    rootfs: Rootfs | None
    rootfs_reason: str = ""
    reference: Reference | None = None
    secrets: Sequence[SecretMatch] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: BaseImage | None = None
    results: Mapping[str, Outcome] = field(default_factory=dict)

    def evidence(self, message: str, *, layer_index: int | None = None, path: str = "", **more: Any) -> Evidence:
        """Return evidence with layer, instruction and history index of ``layer_index``."""
        if layer_index is None or layer_index >= len(self.image.layers):
            return Evidence(message, path=path, **more)
        layer = self.image.layers[layer_index]
        history = next((i for i, entry in enumerate(self.image.config.history) if entry.layer == layer_index), None)
        more.setdefault("instruction", truncate_at_space(instruction(layer.created_by), _MAX_INSTRUCTION))
        return Evidence(message, layer=layer.diff_id, layer_index=layer_index, path=path, history_index=history, **more)

    def setting(self, message: str, keyword: str, *, holding: str = "", **more: Any) -> Evidence:
        """Return evidence about the config with the effective instruction: the last one of ``keyword`` that contains
        ``holding``. Without instruction if the history has none.
        """
        history = self.image.config.history
        lines = ((index, instruction(entry.created_by)) for index, entry in enumerate(history))
        found = [(index, line) for index, line in lines if line.startswith(f"{keyword} ") and holding in line]
        index, line = found[-1] if found else (None, "")
        return Evidence(message, instruction=truncate_at_space(line, _MAX_INSTRUCTION), history_index=index, **more)

    def layer_index(self, diff_id: Digest | None) -> int | None:
        layer = self.image.layer_of(diff_id)
        return layer.index if layer else None


@dataclass(frozen=True)
class RegistrySubject:
    """The input of a registry check: the facts of a probe, and the time of evaluation."""

    facts: RegistryFacts
    now: datetime
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def tls(self) -> TlsFacts | NotApplicable | Incomplete:
        """Return the TLS facts. Without TLS it is not applicable: ``registry-tls-version`` fails instead."""
        return self.facts.tls or NotApplicable("the registry does not use TLS")

    def chain(self) -> tuple[CertificateFact, ...] | NotApplicable | Incomplete:
        """Return the certificates that the registry sent, its own first. Never empty."""
        tls = self.tls()
        if not isinstance(tls, TlsFacts):
            return tls
        return tls.chain or Incomplete("no_certificate", "the registry sent no certificate")

    def path(self) -> tuple[CertificateFact, ...] | NotApplicable | Incomplete:
        """Return the sent certificates that a client needs for verification, the registry's own first. Never empty."""
        chain = self.chain()
        if not isinstance(chain, tuple):
            return chain
        return (chain[0], *(certificate for certificate in chain[1:] if certificate.needed))


class Check(ABC):
    """The class attributes of a check, which the catalogue shows. Tuples are optional.

    ``cis``: items of the CIS Docker Benchmark 1.6 ("4.1"). ``dockle``, ``trivy``: rules of these tools. ``article``:
    sections of "Docker in Production". ``pss``: controls of the Pod Security Standards. ``looks_at``,
    ``cannot_see``: one phrase each. ``remedy``: an instruction or setting. ``parameters``: default by name; the
    default's type (texts, number, bool, text) is the parameter's.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    remedy: ClassVar[str]
    looks_at: ClassVar[str]
    cannot_see: ClassVar[str]
    cis: ClassVar[tuple[str, ...]] = ()
    dockle: ClassVar[tuple[str, ...]] = ()
    article: ClassVar[tuple[str, ...]] = ()
    pss: ClassVar[tuple[str, ...]] = ()
    trivy: ClassVar[tuple[str, ...]] = ()
    tags: ClassVar[tuple[str, ...]] = ()
    parameters: ClassVar[Mapping[str, Any]] = {}

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Return the mapped items as policies select them: ``cis-docker-1.6/4.1``, ``dockle/CIS-DI-0001``,
        ``trivy/DS-0002``, ``pss/runAsUser``.
        """
        catalogues = (("cis-docker-1.6", self.cis), ("dockle", self.dockle), ("trivy", self.trivy), ("pss", self.pss))
        return tuple(f"{catalogue}/{item}" for catalogue, items in catalogues for item in items)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """Return whether the evidence is accepted. ``parameters`` contains all parameters of the check.

        The default implementation matches the globs of ``allow`` with the evidence's path or name.
        """
        return is_allowed(evidence, parameters.get("allow", ()))

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """Return the severity of specific evidence. None: the check's severity."""
        return None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """Return the remedy for specific evidence. Empty: the check's remedy."""
        return ""

    def judged(self, seen: Iterable[Evidence], parameters: Mapping[str, Any]) -> Outcome:
        """Return the outcome for the collected evidence.

        Evidence beyond the limit is replaced by a count, which no parameter accepts. Otherwise an image could hide a
        finding behind many accepted ones.
        """
        found = iter(seen)
        kept = list(islice(found, _MAX_EVIDENCE))
        if more := sum(1 for _ in found):
            kept.append(Evidence(f"and {more} more, not listed"))
        chosen = {**self.parameters, **parameters}
        tolerated = tuple(item for item in kept if self.tolerates(item, chosen))
        failed = tuple(item for item in kept if not self.tolerates(item, chosen))
        if not failed:
            return Passed(tolerated)
        return Failed(failed, self.severity_of(failed), self.remedy_for(failed), tolerated)

    def judge(self, outcome: Outcome, image: Image | None, parameters: Mapping[str, Any]) -> Outcome:
        """Apply a policy's parameters to a stored outcome. Incomplete outcomes stay incomplete."""
        if isinstance(outcome, Passed):
            return self.judged(outcome.tolerated, parameters)
        if isinstance(outcome, Failed):
            # Both lists again: a stricter policy may not accept what the former one tolerated.
            return self.judged((*outcome.evidence, *outcome.tolerated), parameters)
        return outcome


def is_allowed(evidence: Evidence, allowed: Iterable[str]) -> bool:
    """Return whether a glob matches the evidence's path or name. A leading slash is ignored; ``*`` matches slashes."""
    names = [name for name in (evidence.path, evidence.name) if name]
    return any(matches_text(pattern.lstrip("/"), name) for pattern in allowed for name in names)


class ImageCheck(Check):
    """A check of one image.

    ``wants``: globs (fnmatch on the whole path, ``**`` for any depth) of small files whose content it needs.
    ``looks_at_reference``: whether it looks at the reference by which the image was scanned; other checks are not given
    it. Such a check must not look at files: it is repeated for each reference of an image whose result is remembered.
    """

    wants: ClassVar[tuple[str, ...]] = ()
    looks_at_reference: ClassVar[bool] = False

    @abstractmethod
    def examine(self, subject: ImageSubject) -> Outcome:
        """Check the image. Must not raise for any content of an image."""


class FilesCheck(ImageCheck):
    """A check of files. Incomplete if the layers could not be read."""

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        return self.examine_files(subject, subject.rootfs)

    @abstractmethod
    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """Check the merged file system and its layers."""


class ConfigCheck(ImageCheck):
    """A check of manifest, config and history only.

    Reports contain these, so the check is simply repeated with a policy's parameters.
    """

    def judge(self, outcome: Outcome, image: Image | None, parameters: Mapping[str, Any]) -> Outcome:
        """See ``Check.judge``."""
        if image is None or not isinstance(outcome, Passed | Failed):
            return outcome
        return self.examine(ImageSubject(image, None, parameters={**self.parameters, **parameters}))


class WorkloadCheck(Check):
    """A check of one workload, with its image if that is known.

    ``remedies``: remedies by workload source; ``remedy`` is for other sources. ``kubesec``: rules of kubesec
    ("HostPID"). ``nsa``: sections of the NSA/CISA Kubernetes Hardening Guide.
    """

    remedies: ClassVar[Mapping[str, str]] = {}
    kubesec: ClassVar[tuple[str, ...]] = ()
    nsa: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """Check the workload. Must not raise."""


class ContainerCheck(WorkloadCheck):
    """A check of containers. Not applicable to engines."""

    inapplicable: ClassVar[str] = "this is a container engine, not a container"

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        if workload.engine is not None:
            return NotApplicable(self.inapplicable)
        if workload.unread:
            return NotApplicable(UNREAD)
        return self.examine_container(workload, image)

    @abstractmethod
    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """Check a container. Must not raise."""

    def failed(self, workload: Workload, *seen: Evidence) -> Failed:
        """Return a failure with the remedy for the workload's source."""
        return Failed(seen, remedy=self.remedies.get(workload.source, ""))


class EngineCheck(WorkloadCheck):
    """A check of a container engine's own settings (CIS Docker sections 2, 6 and 7)."""

    inapplicable: ClassVar[str] = "this is a container, not a container engine"

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        if workload.engine is None:
            return NotApplicable(self.inapplicable)
        return self.examine_engine(workload, workload.engine)

    @abstractmethod
    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """Check an engine. Must not raise."""


class RegistryCheck(Check):
    """A check of one registry, based on the facts of a probe. It sends no requests."""

    @abstractmethod
    def examine(self, subject: RegistrySubject) -> Outcome:
        """Check the registry. An unknown fact is Incomplete. Must not raise."""


class CertificateCheck(RegistryCheck):
    """A check of the certificates that clients of the registry need. Not applicable or incomplete without any."""

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain = subject.path()
        return self.examine_chain(chain, subject) if isinstance(chain, tuple) else chain

    @abstractmethod
    def examine_chain(self, chain: tuple[CertificateFact, ...], subject: RegistrySubject) -> Outcome:
        """Check the certificates, the registry's own first. Never empty. Must not raise."""
