"""Files that are made to hold keys, and whose content cannot be judged from outside (CIS Docker 4.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.checks._secrets import MAX_FILE, is_configuration, is_ignored
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity

_KINDS = {
    "key store": "jks keystore p12 pfx bks jceks",
    "password database": "kdb kdbx psafe3 agilekeychain keychain gnucash gnucache",
    "disk encryption key": "bek tpm fve",
    "database file": "mdf sdf",
    "network capture": "pcap pcapng",
    "Kerberos keytab": "keytab",
}
_KIND_OF = {extension: kind for kind, extensions in _KINDS.items() for extension in extensions.split()}
# Certificates that a platform trusts: key stores by name, without a key in them.
_TRUST_STORES = re.compile(
    r"(?:^|/)(?:cacerts|truststore|trust-?store)[^/]*$|^etc/(?:ssl|pki)/(?:certs|ca-trust)/|/lib/security/",
    re.IGNORECASE,
)


class CredentialFiles(FilesCheck):
    """Key stores, password databases, captures: binary, so their names have to do.

    Files of text are judged by what stands in them (embedded-secrets). Also those that a later layer deletes.
    """

    id = "credential-files"
    title = "Key stores and other files of credentials"
    severity = Severity.HIGH
    remedy = (
        "RUN --mount=type=secret,id=keystore,target=/run/secrets/keystore …  or mount the file when the "
        "container starts"
    )
    looks_at = "names and sizes of the files of every layer"
    cannot_see = "whether there is a key in it, and whether its password is known"
    cis = ("4.10",)
    dockle = ("CIS-DI-0010",)
    article = ("Security",)
    tags = ("secrets",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(self._found(subject, rootfs), subject.parameters)

    def _found(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
        for index, layer in enumerate(rootfs.layers):
            for entry in layer.entries:
                if entry.type is not FileType.FILE or not entry.size:
                    continue
                kind = _kind(entry.path, entry.size)
                if kind:
                    by = hidden.get((index, entry.path))
                    note = f"; layer {by} hides it, but it is still in the image" if by is not None else ""
                    message = f"/{entry.path} is named as a {kind}{note}"
                    yield subject.evidence(message, layer_index=index, path=entry.path)


def _kind(path: str, size: int) -> str:
    if size > MAX_FILE and is_configuration(path):
        return f"file of credentials and is too large to be looked into ({size} bytes)"
    kind = _KIND_OF.get(path.rpartition("/")[2].rpartition(".")[2].lower(), "")
    return "" if not kind or _TRUST_STORES.search(path) is not None or is_ignored(path) else kind
