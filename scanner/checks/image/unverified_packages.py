"""Packages installed without verification (CIS Docker 4.11)."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.checks._history import Command, evidence, failed, history
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity
from scanner.patterns import lazy

_OPTIONS = {
    "--allow-unauthenticated": ("apt", "apt-get", "aptitude"),
    "--force-yes": ("apt", "apt-get"),
    "--allow-insecure-repositories": ("apt", "apt-get"),
    "--allow-untrusted": ("apk",),
    "--nogpgcheck": ("yum", "dnf", "dnf5", "microdnf", "tdnf"),
    "--nosignature": ("rpm",),
    "--nodigest": ("rpm",),
    "--no-gpg-checks": ("zypper",),
    "--no-gpg-check": ("zypper",),
    "--allow-unsigned-rpm": ("zypper",),
    "--trusted-host": ("pip", "pip3"),
    "--insecure": ("curl",),
    "-k": ("curl",),
    "--no-check-certificate": ("wget",),
    "--no-check-certificates": ("aria2c",),
}
# Every spelling that the programs take: apt's StringToBool, booleans of libdnf and of git-config(1). GIT_SSL_NO_VERIFY
# counts with any value, "false" included.
_YES, _NO = "(?:yes|true|with|on|enable|1)", "(?:no|false|without|off|disable|0)"
_OFF = frozenset(("0", "false", "no", "off"))
_WORDS = lazy(
    rf"(?i)apt::get::allowunauthenticated={_YES}\b|acquire::allowinsecurerepositories={_YES}\b"
    rf"|verify-(?:peer|host)={_NO}\b|--setopt=(?:\S*\.)?(?:gpgcheck|sslverify)={_NO}\b|http\.sslverify={_NO}\b"
    r"|--strict-ssl=false|npm_config_strict_ssl=false|(?:GIT_SSL_NO_VERIFY|PIP_TRUSTED_HOST)=\S"
    r"|(?:NODE_TLS_REJECT_UNAUTHORIZED|PYTHONHTTPSVERIFY)=0\b"
)
_SETTINGS = lazy(
    r"(?i)^(?:npm|yarn|pnpm) config set strict-ssl[ =]false|^git config .*http\.sslverify (?:false|no|off|0)|^conda "
    r"config --set ssl_verify (?:false|no)"
)
# Here and in other checks, blanks before a setting are those of its own line: with ``\s*`` each line of a file of blank
# lines would be searched to the end of the file.
# sources.list(5): options in brackets that switch verification off.
_TRUSTED = lazy(
    rb"(?im)^[^\S\n]*(?:deb(?:-src)?\s+\[[^\]\n]*(?:trusted|allow-insecure)=" + _YES.encode() + rb"\b[^\]\n]*\]"
    rb"|(?:Trusted|Allow-Insecure):\s*" + _YES.encode() + rb"\b)"
)
# apt.conf(5): settings that switch verification off.
_APT_CONF = lazy(
    rb"(?im)^[^\S\n]*(?:APT::Get::AllowUnauthenticated|Acquire::AllowInsecureRepositories)\s+\"?"
    + _YES.encode()
    + rb"\b"
)


class UnverifiedPackages(ImageCheck):
    """Without verification of signatures and certificates, an attacker in the network can replace packages."""

    id = "unverified-packages"
    title = "Packages installed without verification"
    severity = Severity.HIGH
    remedy = "install the repository's signing key, and remove the option that disables verification"
    looks_at = "options and settings of RUN commands in the history, and configured repositories (apt, yum, dnf)"
    cannot_see = "packages that are copied as files; scripts that RUN calls"
    cis = ("4.11",)
    dockle = ("CIS-DI-0011",)
    article = ("Security", "Lessons Learned: Security isn't optional")
    tags = ("build", "history", "supply-chain")
    wants = (
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/*",
        "etc/apt/apt.conf.d/*",
        "etc/yum.repos.d/*.repo",
        "etc/yum.conf",
        "etc/dnf/dnf.conf",
    )

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        found = [
            evidence(subject, run, f"{command.name} runs without verification: {option}")
            for run in lines.runs()
            for command in run.commands
            if (option := _option(command))
        ]
        if subject.rootfs is not None:
            found.extend(_configured_repositories(subject, subject.rootfs))
        if found:
            return failed(found)
        return Incomplete("layers_unreadable", subject.rootfs_reason) if subject.rootfs is None else lines.outcome(())


def _option(command: Command) -> str:
    for option, programs in _OPTIONS.items():
        if command.name in programs and command.has(option):
            return option
    # Set for one command, a variable is in no layer's environment, where weakened-environment would find it.
    if match := _WORDS.search(" ".join(command.environment)):
        return match[0]
    if command.name in ("pip", "pip3") or "pip" in command.words[:3]:
        return "--trusted-host" if command.has("--trusted-host") else ""
    text = str(command)
    match = _WORDS.search(text) or _SETTINGS.search(text)
    return match[0] if match and command.name not in ("echo", "printf") else ""


def _configured_repositories(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
    for path, placed in rootfs.files.items():
        if not path.startswith(("etc/apt/", "etc/yum", "etc/dnf/")) or (data := rootfs.content(path)) is None:
            continue
        if path.startswith("etc/apt/"):
            match = (_APT_CONF if "apt.conf" in path else _TRUSTED).search(data)
            what = match[0].decode("utf-8", "replace").strip() if match else ""
        else:
            what = _unchecked_repository(data.decode("utf-8", "replace"))
        if what:
            yield subject.evidence(f"/{path} contains {what[:120]}", layer_index=placed.layer, path=path)


def _unchecked_repository(text: str) -> str:
    """Return the first enabled repository (or main section) without signature verification. Empty: none."""
    section, settings = "", {"": ""}
    for line in (*text.splitlines()[:5000], "[]"):
        line = line.strip()
        if line.startswith("["):
            if settings.get("gpgcheck") in _OFF and settings.get("enabled", "1") not in _OFF:
                return f"gpgcheck=0 in {section}"
            section, settings = line, {}
        elif "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            settings[name.strip().lower()] = value.strip().lower()
    return ""
