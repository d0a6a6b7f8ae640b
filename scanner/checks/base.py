"""The contract of every check: what it declares, what it is given, what it may answer.

A check is pure: evidence in, ``Outcome`` out. It never opens files or connections. Input it cannot read is
``Incomplete(reason)``, never ``Passed``; input that it does not concern is ``NotApplicable(reason)``.

Evidence is gathered once and judged as often as there are policies. So a check with parameters gathers everything
that any parameter could mind, says of one piece of evidence whether given parameters tolerate it
(``Check.tolerates``), and answers with ``Check.judged``; a policy's own ``parameters`` are then applied to the
stored outcome (``Check.judge``), without the image's files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, ClassVar, Final

from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Passed, SecretMatch, Severity
from scanner.model.glob import matches_text
from scanner.model.image import Image, instruction
from scanner.model.lineage import BaseImage
from scanner.model.posture import CertificateFact, RegistryFacts, TlsFacts
from scanner.model.reference import Digest, Reference
from scanner.model.workload import EngineFacts, Workload

_MAX_EVIDENCE = 500
# A line of the history can be as long as the whole config, and stands in every piece of evidence of its layer.
_MAX_INSTRUCTION = 2000
# The parameter of most checks that have one: globs of paths or names that a site has looked at and wants.
ALLOW: Final[Mapping[str, Any]] = MappingProxyType({"allow": ()})


def cut(text: str, most: int) -> str:
    """The beginning of a text, up to a space: half a secret would not be known as one, and be shown."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " …"


@dataclass(frozen=True)
class ImageSubject:
    """What an image check sees.

    ``rootfs`` is None where the layers could not all be read (then a check of files is Incomplete with
    ``rootfs_reason``). ``secrets`` is the engine's content scan, None where no engine looked. ``reference`` is None
    for an archive. ``base`` is what the image was built on, None where nobody knows. ``results`` holds what the
    image's own checks found, by check id, where a workload is judged with the stored evidence of its image.
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
        """Evidence with layer, instruction and history index filled in from ``layer_index``."""
        if layer_index is None or layer_index >= len(self.image.layers):
            return Evidence(message, path=path, **more)
        layer = self.image.layers[layer_index]
        history = next((i for i, entry in enumerate(self.image.config.history) if entry.layer == layer_index), None)
        more.setdefault("instruction", cut(instruction(layer.created_by), _MAX_INSTRUCTION))
        return Evidence(message, layer=layer.diff_id, layer_index=layer_index, path=path, history_index=history, **more)

    def setting(self, message: str, keyword: str, *, holding: str = "", **more: Any) -> Evidence:
        """Evidence about the config, with the last line of the history that begins with ``keyword`` and has
        ``holding`` in it: the one that is in force. Where the history has none, whoever built it left none.
        """
        history = self.image.config.history
        lines = ((index, instruction(entry.created_by)) for index, entry in enumerate(history))
        found = [(index, line) for index, line in lines if line.startswith(f"{keyword} ") and holding in line]
        index, line = found[-1] if found else (None, "")
        return Evidence(message, instruction=cut(line, _MAX_INSTRUCTION), history_index=index, **more)

    def layer_index(self, diff_id: Digest | None) -> int | None:
        layer = self.image.layer_of(diff_id)
        return layer.index if layer else None


@dataclass(frozen=True)
class RegistrySubject:
    """What a registry check sees: the facts of one probe, and the moment at which they are judged."""

    facts: RegistryFacts
    now: datetime
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def tls(self) -> TlsFacts | NotApplicable | Incomplete:
        """The facts of its TLS.

        Without TLS there is nothing to judge of it: ``registry-tls-version`` fails for that.
        """
        return self.facts.tls or NotApplicable("it speaks no TLS")

    def chain(self) -> tuple[CertificateFact, ...] | NotApplicable | Incomplete:
        """The certificates that it sent, its own first; never empty."""
        tls = self.tls()
        if not isinstance(tls, TlsFacts):
            return tls
        return tls.chain or Incomplete("no_certificate", "it sent no certificate")

    def path(self) -> tuple[CertificateFact, ...] | NotApplicable | Incomplete:
        """Of the certificates that it sent those that a client needs, its own first; never empty."""
        chain = self.chain()
        if not isinstance(chain, tuple):
            return chain
        return (chain[0], *(certificate for certificate in chain[1:] if certificate.needed))


class Check(ABC):
    """What the catalogue shows about every check. Class attributes, all required but the tuples.

    ``cis`` names items of the CIS Docker Benchmark 1.6 ("4.1"), ``dockle`` Dockle's codes, ``trivy`` Trivy's
    Dockerfile rules, ``article`` sections of the lessons the service automates; ``looks_at`` and ``cannot_see`` are
    one sentence each, for the catalogue; ``remedy`` is the line to write in the Dockerfile or compose file;
    ``parameters`` maps a policy parameter's name to its default, whose type (texts, number, bool, text) is the
    parameter's.
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
        """What it answers to, as a policy selects it: ``cis-docker-1.6/4.1``, ``dockle/CIS-DI-0001``,
        ``trivy/DS-0002``, ``pss/runAsUser``.
        """
        catalogues = (("cis-docker-1.6", self.cis), ("dockle", self.dockle), ("trivy", self.trivy), ("pss", self.pss))
        return tuple(f"{catalogue}/{item}" for catalogue, items in catalogues for item in items)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """Whether these parameters (every one of the check's is given) allow what was seen.

        By default a parameter ``allow`` is a list of globs over the evidence's path or name.
        """
        return is_allowed(evidence, parameters.get("allow", ()))

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """How severe this very evidence is; None: as severe as the check says of itself."""
        return None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """A remedy for this very evidence; empty: the general one."""
        return ""

    def judged(self, seen: Iterable[Evidence], parameters: Mapping[str, Any]) -> Outcome:
        """The outcome of everything that was seen.

        What an image can hold without end is cut, and the cut is never tolerated.
        """
        found = iter(seen)
        kept = list(islice(found, _MAX_EVIDENCE))
        if more := sum(1 for _ in found):
            kept.append(Evidence(f"and {more} more of the kind, which are not listed"))
        chosen = {**self.parameters, **parameters}
        tolerated = tuple(item for item in kept if self.tolerates(item, chosen))
        failed = tuple(item for item in kept if not self.tolerates(item, chosen))
        if not failed:
            return Passed(tolerated)
        return Failed(failed, self.severity_of(failed), self.remedy_for(failed), tolerated)

    def judge(self, outcome: Outcome, image: Image | None, parameters: Mapping[str, Any]) -> Outcome:
        """A stored outcome under a policy's parameters. What is not known stays so."""
        if isinstance(outcome, Passed):
            return self.judged(outcome.tolerated, parameters)
        if isinstance(outcome, Failed):
            return self.judged((*outcome.evidence, *outcome.tolerated), parameters)
        return outcome


def is_allowed(evidence: Evidence, allowed: Iterable[str]) -> bool:
    """Whether a glob of ``allowed`` names the evidence: its path (a leading slash does not matter; ``*`` crosses
    slashes) or its name.
    """
    names = [name for name in (evidence.path, evidence.name) if name]
    return any(matches_text(pattern.lstrip("/"), name) for pattern in allowed for name in names)


class ImageCheck(Check):
    """A check of one image.

    ``wants`` are glob patterns (fnmatch on the whole path, ``**`` any depth) of small files whose bytes it needs.
    """

    wants: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def examine(self, subject: ImageSubject) -> Outcome:
        """Judge the image. Must not raise for anything an image can contain."""


class FilesCheck(ImageCheck):
    """A check of what the layers hold. Where they could not be read it is Incomplete."""

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        return self.examine_files(subject, subject.rootfs)

    @abstractmethod
    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """Judge the merged file system and its layers."""


class ConfigCheck(ImageCheck):
    """A check of nothing but manifest, config and history.

    Every report keeps these, so a policy's parameters judge them anew.
    """

    def judge(self, outcome: Outcome, image: Image | None, parameters: Mapping[str, Any]) -> Outcome:
        """See ``Check.judge``."""
        if image is None or not isinstance(outcome, Passed | Failed):
            return outcome
        return self.examine(ImageSubject(image, None, parameters={**self.parameters, **parameters}))


class WorkloadCheck(Check):
    """A check of one workload, with the image it runs where that is known.

    ``remedies`` maps a source's id to the line that mends the finding in that source's documents; ``remedy`` is for
    the others. ``kubesec`` names kubesec's rules, ``nsa`` sections of the NSA/CISA Kubernetes Hardening Guide.
    """

    remedies: ClassVar[Mapping[str, str]] = {}
    kubesec: ClassVar[tuple[str, ...]] = ()
    nsa: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """Judge how the container is run. Must not raise."""


class ContainerCheck(WorkloadCheck):
    """A check of a container; it does not concern the engine itself."""

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        if workload.engine is not None:
            return NotApplicable("this is a container engine, not a container")
        return self.examine_container(workload, image)

    @abstractmethod
    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """Judge one container. Must not raise."""

    def failed(self, workload: Workload, *seen: Evidence) -> Failed:
        """A failure with the remedy in the language of the workload's source."""
        return Failed(seen, remedy=self.remedies.get(workload.source, ""))


class EngineCheck(WorkloadCheck):
    """A check of a container engine's own settings (CIS Docker sections 2, 6 and 7)."""

    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``WorkloadCheck.examine``."""
        if workload.engine is None:
            return NotApplicable("this is a container, not a container engine")
        return self.examine_engine(workload, workload.engine)

    @abstractmethod
    def examine_engine(self, workload: Workload, engine: EngineFacts) -> Outcome:
        """Judge one engine. Must not raise."""


class RegistryCheck(Check):
    """A check of one registry: of what a probe found out, without asking it anything itself."""

    @abstractmethod
    def examine(self, subject: RegistrySubject) -> Outcome:
        """Judge the registry. A fact that could not be found out is Incomplete. Must not raise."""


class CertificateCheck(RegistryCheck):
    """A check of the certificates that a client of the registry relies on.

    Where there is none to judge, it says why.
    """

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain = subject.path()
        return self.examine_chain(chain, subject) if isinstance(chain, tuple) else chain

    @abstractmethod
    def examine_chain(self, chain: tuple[CertificateFact, ...], subject: RegistrySubject) -> Outcome:
        """Judge the certificates, the registry's own first; never empty. Must not raise."""
