"""Binary files that usually contain keys (CIS Docker 4.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.checks._secrets import is_ignored
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.patterns import lazy

_KINDS = {
    "key store": "jks keystore p12 pfx bks jceks",
    "password database": "kdb kdbx psafe3 agilekeychain keychain gnucash gnucache",
    "disk encryption key": "bek tpm fve",
    "database file": "mdf sdf",
    "network capture": "pcap pcapng",
    "Kerberos keytab": "keytab",
}
_KIND_OF = {extension: kind for kind, extensions in _KINDS.items() for extension in extensions.split()}
# Stores of trusted certificates without keys.
_TRUST_STORES = lazy(
    r"(?:^|/)(?:cacerts|truststore|trust-?store)[^/]*$|^etc/(?:ssl|pki)/(?:certs|ca-trust)/|/lib/security/",
    re.IGNORECASE,
)


class CredentialFiles(FilesCheck):
    """Key stores, password databases and network captures are binary, so they are recognised by name.

    Text files are checked by content (embedded-secrets). Files that a later layer deletes are included.
    """

    id = "credential-files"
    title = "Key stores and other credential files"
    severity = Severity.HIGH
    remedy = "RUN --mount=type=secret,id=keystore,target=/run/secrets/keystore …  or mount the file at run time"
    looks_at = "names and sizes of files in all layers"
    cannot_see = "whether the file contains a key"
    cis = ("4.10",)
    dockle = ("CIS-DI-0010",)
    article = ("Security",)
    tags = ("secrets",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(self._credential_evidence(subject, rootfs), subject.parameters)

    def _credential_evidence(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
        for index, layer in enumerate(rootfs.layers):
            for entry in layer.entries:
                if entry.type is not FileType.FILE or not entry.size:
                    continue
                kind = _kind(entry.path)
                if kind:
                    by = hidden.get((index, entry.path))
                    note = f"; layer {by} deletes it, but the image still contains it" if by is not None else ""
                    message = f"/{entry.path} has the name of a {kind}{note}"
                    yield subject.evidence(message, layer_index=index, path=entry.path)


def _kind(path: str) -> str:
    kind = _KIND_OF.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "")
    return "" if not kind or _TRUST_STORES.search(path) is not None or is_ignored(path) else kind
