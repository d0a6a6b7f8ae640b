"""Environment variables that disable security features."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from scanner.checks.base import ALLOW, ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity

_OFF = frozenset(("0", "false", "no", "off", "never", "none"))
_ON = frozenset(("1", "true", "yes", "on", "*", "all"))
_TLS = "certificates are not verified"


def _is_off(value: str) -> bool:
    return value.lower() in _OFF


def _is_on(value: str) -> bool:
    return value.lower() in _ON


def _is_set(value: str) -> bool:
    return value != ""


def _plain_http(value: str) -> bool:
    return bool(re.search(r"(?i)\bhttp://(?!localhost|127\.|\[::1\])", value))


# Upper-case name -> condition on the value, and its effect.
_KNOWN: dict[str, tuple[Callable[[str], bool], str]] = {
    "NODE_TLS_REJECT_UNAUTHORIZED": (lambda v: v.strip() == "0", f"Node.js: {_TLS}"),
    "PYTHONHTTPSVERIFY": (lambda v: v.strip() == "0", f"Python: {_TLS}"),
    "GIT_SSL_NO_VERIFY": (lambda v: v.lower() not in ("", "0", "false"), f"git: {_TLS}"),
    "NPM_CONFIG_STRICT_SSL": (_is_off, f"npm: {_TLS}"),
    "YARN_STRICT_SSL": (_is_off, f"yarn: {_TLS}"),
    "YARN_ENABLE_STRICT_SSL": (_is_off, f"yarn: {_TLS}"),
    "PIP_TRUSTED_HOST": (_is_set, "pip: no TLS for these hosts"),
    "UV_INSECURE_HOST": (_is_set, "uv: no TLS for these hosts"),
    "PIP_INDEX_URL": (_plain_http, "pip: packages over plain HTTP"),
    "PIP_EXTRA_INDEX_URL": (_plain_http, "pip: packages over plain HTTP"),
    "NPM_CONFIG_REGISTRY": (_plain_http, "npm: packages over plain HTTP"),
    "GOPROXY": (_plain_http, "Go: modules over plain HTTP"),
    "GOINSECURE": (_is_set, "Go: modules without TLS"),
    "GOSUMDB": (_is_off, "Go: modules are not compared with the checksum database"),
    "GONOSUMDB": (_is_on, "Go: modules are not compared with the checksum database"),
    "GONOSUMCHECK": (_is_on, "Go: modules are not compared with the checksum database"),
    "REQUESTS_CA_BUNDLE": (lambda v: v == "", f"requests: {_TLS}"),
    "CURL_CA_BUNDLE": (lambda v: v == "", f"curl, requests: {_TLS}"),
    "CONDA_SSL_VERIFY": (_is_off, f"conda: {_TLS}"),
    "PERL_LWP_SSL_VERIFY_HOSTNAME": (_is_off, f"Perl: {_TLS}"),
    "SSL_VERIFY": (_is_off, _TLS),
    "VERIFY_SSL": (_is_off, _TLS),
    "VAULT_SKIP_VERIFY": (_is_on, f"Vault: {_TLS}"),
    "NOMAD_SKIP_VERIFY": (_is_on, f"Nomad: {_TLS}"),
    "CONSUL_HTTP_SSL_VERIFY": (_is_off, f"Consul: {_TLS}"),
    "AWS_NO_VERIFY_SSL": (_is_on, f"AWS: {_TLS}"),
    "HELM_KUBEINSECURE_SKIP_TLS_VERIFY": (_is_on, f"Helm: {_TLS}"),
    "ANSIBLE_HOST_KEY_CHECKING": (_is_off, "Ansible: hosts' keys are not compared"),
    "GIT_SSH_COMMAND": (lambda v: "stricthostkeychecking=no" in v.lower(), "git: hosts' keys are not compared"),
    "DOCKER_CONTENT_TRUST": (_is_off, "Docker: signatures are not verified"),
    "COMPOSER_ALLOW_SUPERUSER": (_is_on, "Composer: runs packages' scripts as root"),
    "APT_KEY_DONT_WARN_ON_DANGEROUS_USAGE": (_is_on, "apt: keys are added without warning"),
    "FLASK_DEBUG": (_is_on, "Flask: the debugger runs any code that is sent to it"),
    "FLASK_ENV": (lambda v: v.lower() == "development", "Flask: the debugger runs any code that is sent to it"),
    "WERKZEUG_DEBUG_PIN": (_is_off, "Werkzeug: the debugger needs no PIN"),
    "DJANGO_DEBUG": (_is_on, "Django: errors show settings and source"),
    "APP_DEBUG": (_is_on, "Laravel: errors show settings and source"),
    "ASPNETCORE_ENVIRONMENT": (lambda v: v.lower() == "development", "ASP.NET: errors show source"),
    "RAILS_ENV": (lambda v: v.lower() == "development", "Rails: errors show source and a console"),
    "NODE_OPTIONS": (lambda v: "--inspect" in v, "Node.js: the inspector runs any code"),
    "JAVA_TOOL_OPTIONS": (lambda v: "jdwp" in v or "trustURLCodebase=true" in v, "Java: the debugger runs any code"),
    "JAVA_OPTS": (lambda v: "jdwp" in v or "trustURLCodebase=true" in v, "Java: the debugger runs any code"),
    "LD_PRELOAD": (
        lambda v: bool(re.search(r"(?:^|[:\s])(?:/tmp|/var/tmp|/dev/shm|[^/:\s])", v)),
        "code from a world-writable directory",
    ),
    "MYSQL_ALLOW_EMPTY_PASSWORD": (_is_set, "MySQL: root needs no password"),
    "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD": (_is_set, "MariaDB: root needs no password"),
    "POSTGRES_HOST_AUTH_METHOD": (lambda v: v.lower() == "trust", "PostgreSQL: no password is needed"),
    "ALLOW_EMPTY_PASSWORD": (_is_on, "no password is needed"),
    "ALLOW_ANONYMOUS_LOGIN": (_is_on, "no password is needed"),
}
_PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PERL5LIB", "RUBYLIB")
_WRITABLE = ("/tmp/", "/var/tmp/", "/dev/shm/")  # noqa: S108
_LESSER = ("DOCKER_CONTENT_TRUST", "COMPOSER_ALLOW_SUPERUSER", "RAILS_ENV", "ASPNETCORE_ENVIRONMENT")


class WeakenedEnvironment(ConfigCheck):
    """Disabled TLS verification, enabled debuggers and writable search paths. In ENV they affect every program in the
    container.
    """

    id = "weakened-environment"
    title = "Environment variables weaken security"
    severity = Severity.HIGH
    remedy = (
        "remove the ENV instruction; for a private CA use COPY ca.crt /usr/local/share/ca-certificates/ and RUN "
        "update-ca-certificates"
    )
    looks_at = "config.Env: known settings, and relative or world-writable directories in search paths"
    cannot_see = "the same settings in files or command lines; variables that are set at run time"
    article = ("Security",)
    tags = ("config",)
    parameters = ALLOW

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._weak(subject), subject.parameters)

    def _weak(self, subject: ImageSubject) -> Iterator[Evidence]:
        for name, value in subject.image.config.env:
            test, effect = _KNOWN.get(name.upper(), (None, ""))
            if test is not None and test(value):
                yield self._evidence(subject, name, f"{name}={value[:60]}: {effect}")
            # On Windows the separator is ";", and each part begins with a drive: all would look relative.
            if name in _PATHS and subject.image.platform.os != "windows":
                for part in value.split(":") if value else ():
                    if not part.startswith("/") or f"{part}/".startswith(_WRITABLE):
                        yield self._evidence(
                            subject, name, f"{name} contains {part!r}, where other users can place programs"
                        )

    def _evidence(self, subject: ImageSubject, name: str, message: str) -> Evidence:
        return subject.setting(message, "ENV", holding=f"{name}=", pointer="/config/Env", name=name)

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        return Severity.LOW if all(item.name.upper() in _LESSER for item in evidence) else None
