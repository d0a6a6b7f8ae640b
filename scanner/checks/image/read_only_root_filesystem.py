"""Read-only root file system (CIS Docker 5.13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks._writes import VOLUME, WANTS, needs, smallest
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Outcome, Severity


class ReadOnlyRootFilesystem(FilesCheck):
    """Predicts whether the image works with ``--read-only``: the directories to which it writes outside of its volumes,
    and the tmpfs mounts and volumes that it needs.
    """

    id = "read-only-root-filesystem"
    title = "Needs a writable root file system"
    severity = Severity.MEDIUM
    remedy = "run with --read-only, and a --tmpfs or volume for each reported directory"
    looks_at = (
        "configurations and defaults of known servers, entrypoint scripts, log files that are not links to the "
        "console, state directories and empty directories of the running user, declared volumes"
    )
    cannot_see = "the running program: the result is a prediction with a confidence"
    cis = ("5.13",)
    article = ("Security: Read-Only Filesystems", "Logging and Monitoring: Centralized Logging")
    tags = ("read-only",)
    wants = WANTS
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(self._write_evidence(subject, rootfs), subject.parameters)

    def _write_evidence(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        volumes = [rootfs.follow(volume) or volume.strip("/") for volume in subject.image.config.volumes]
        for need in smallest(needs(subject.image.config, rootfs)):
            if not any(need.path == volume or need.path.startswith(f"{volume}/") for volume in volumes):
                message = f"/{need.path} is written to ({need.confidence}): {need.why}; mount a {need.kind} there"
                yield subject.evidence(message, layer_index=need.layer, path=need.path, name=need.kind)

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        if not all(item.path and item.path.isprintable() and " " not in item.path for item in evidence):
            return ""
        volumes = [
            f"-v {item.path.strip('/').replace('/', '-')}:/{item.path}" for item in evidence if item.name == VOLUME
        ]
        scratch = [f"--tmpfs /{item.path}" for item in evidence if item.name != VOLUME]
        return " ".join(("docker run --read-only", *scratch, *volumes))
