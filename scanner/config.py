"""Settings: frozen, read once at start from the environment and an optional TOML file.

Each setting is ``DOCKWARDEN_<NAME>`` in the environment or ``name`` in the file (``--config`` or
``DOCKWARDEN_CONFIG``); the environment has precedence. By default everything is under ``./var``: SQLite, an embedded
queue, and a server on 127.0.0.1:8080.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import field, fields, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from scanner.addresses import is_host, web_address
from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.kept_files import write_once
from scanner.lazy_dataclasses import dataclass
from scanner.patterns import lazy

PREFIX = "DOCKWARDEN_"
_MIN_SECRET = 32  # characters: 128 bits, also if it is typed as hexadecimal digits
_MAX_FILE = 1 << 20
NOTIFY = "notify"  # the lane that sends notifications; it has no scans


class Secret(str):
    """A string that is not shown by accident: ``repr``, ``format`` and logs print ``***``.

    ``reveal()`` returns the value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')" if self else "Secret('')"

    def __str__(self) -> str:
        return "***" if self else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def reveal(self) -> str:
        return "".join(self)


class KeyRing(Secret):
    """A key and its predecessor, which can still read data that has not been encrypted with the new key yet."""

    previous: Secret

    def __new__(cls, current: Secret, previous: Secret | None = None) -> KeyRing:
        ring = super().__new__(cls, current.reveal())
        ring.previous = previous or Secret("")
        return ring


# 90s, 15m, 24h, 7d, 2w
_PERIOD = lazy(r"([0-9]{1,9})\s*([smhdw])")
_SECONDS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long something is kept after it has ended.

    ``seconds`` 0: for ever. Written as ``36h``, ``90d``, ``4w``, ``0`` or ``never``.
    """

    seconds: int = 0

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Parse a period.

        Raises ValueError for invalid ones, and for a number without a unit, which would be ambiguous.
        """
        given = str(text).strip().lower()
        if given in ("0", "never"):
            return cls()
        found = _PERIOD.fullmatch(given)
        if found is None or not 0 < int(found[1]) * _SECONDS[found[2]] <= 100 * 366 * 86400:
            raise ValueError(f"not a period: {given!r}")
        return cls(int(found[1]) * _SECONDS[found[2]])

    @property
    def period(self) -> timedelta | None:
        """None: for ever."""
        return timedelta(seconds=self.seconds) if self.seconds else None

    def __str__(self) -> str:
        if not self.seconds:
            return "never"
        unit = next(unit for unit in "dhms" if self.seconds % _SECONDS[unit] == 0)
        return f"{self.seconds // _SECONDS[unit]}{unit}"


def keys_of(key: Secret) -> tuple[Secret, ...]:
    """The key to write with, followed by the previous key, which may have been used for stored data."""
    previous = key.previous if isinstance(key, KeyRing) else None
    return (key, previous) if previous else (key,)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for all untrusted input. Sizes in bytes, times in seconds."""

    layer_compressed: int = 5 << 30
    image_compressed: int = 10 << 30
    layer_uncompressed: int = 20 << 30
    image_uncompressed: int = 40 << 30
    ratio: int = 200  # uncompressed to compressed (decompression bombs), tested beyond ratio_after bytes
    ratio_after: int = 256 << 20  # uncompressed bytes from which the ratio counts: small files compress well
    file_size: int = 10 << 30
    layer_entries: int = 1_000_000
    image_entries: int = 2_000_000
    path_length: int = 4095
    path_depth: int = 128
    special_header: int = 1 << 20
    pax_records: int = 1000  # in one header
    xattrs: int = 64 << 10
    layers: int = 256
    index_manifests: int = 64
    manifest: int = 4 << 20
    config: int = 8 << 20
    token: int = 64 << 10
    report: int = 128 << 20
    report_findings: int = 200_000
    packages: int = 50_000  # of one image that an engine looks up
    json_depth: int = 64
    redirects: int = 3
    document_seconds: float = 45  # for a manifest, config, token or list, including retries
    signatures: int = 200  # examined for one image; the same number of attestations
    referrers: int = 10_000  # of one image; more is an error, since the rest could hold a signature
    fetch_seconds: float = 600
    engine_seconds: float = 540
    scan_seconds: float = 1800
    engine_memory: int = 2 << 30  # bytes of the engine's heap
    engine_file_size: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process. Use ``load``; only tests construct it directly."""

    home: Path = Path("var")
    database_url: Secret = Secret("")
    broker_url: Secret = Secret("")
    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    secret_key: Secret = Secret("")  # signs sessions, keys token hashes; empty: generated and stored in home
    # Can decrypt while secrets are re-encrypted with a new key; see docs/accounts.md.
    secret_key_previous: Secret = Secret("")
    # Chains the audit log and must never change; empty: derived from secret_key, or stored in home.
    audit_key: Secret = Secret("")
    audit_anchors: Path | None = None  # anchors of the audit log's hash chain; unset: home/audit_anchors.jsonl
    engine: str = "trivy"
    engine_secrets: bool = False
    trivy: Path | None = None  # unset: found in PATH or the environment's bin
    attached_sboms: bool = False  # also read SBOMs that are attached to an image in its registry
    clair_url: str = ""
    clair_psk: Secret = Secret("")  # base64, as in Clair's auth.psk.key
    clair_issuer: str = "dockwarden"
    clair_webhook_token: Secret = Secret("")  # the bearer token that Clair's notifier sends
    clair_ca_file: Path | None = None
    clair_layers_address: str = (
        ""  # HOST:PORT where Clair fetches layers from us; empty: a free port on the interface to Clair
    )
    clair_layers_url: str = ""  # the URL that Clair uses instead, e.g. through a proxy
    advisories: Path | None = None  # directory of the advisory databases; unset: home/advisories
    advisories_max_age_hours: float = 168
    advisories_source: str = (
        ""  # mirror of trivy-db: host/repository:tag, or a URL of db.tar.gz; empty: never downloaded
    )
    advisories_java_source: str = ""  # the same for trivy-java-db
    kev_source: str = ""  # URL of a mirror of CISA's KEV catalogue, JSON or CSV
    epss_source: str = ""  # URL of a mirror of FIRST's EPSS scores, CSV or CSV.gz
    advisories_ca_file: Path | None = None  # CA certificates of those mirrors; unset: ca_file
    advisories_interval_hours: float = 6
    receipt_hours: float = 24  # how long a receipt holds at most; it ends earlier with the decision that it signs
    receipt_pkcs11_module: Path | None = None  # library of a PKCS#11 token that holds the keys; unset: in the database
    receipt_pkcs11_token: str = ""  # the token's label
    receipt_pkcs11_pin: Secret = Secret("")
    receipt_kms_key: str = ""  # the key in a key management service that signs, such as awskms:///alias/NAME
    rematch_per_second: float = 20  # limit of decisions recomputed per second after an advisory update
    bases_interval_hours: float = 6  # how often registries are asked for the tags of base images; 0: never
    posture_max_age_hours: float = 24  # an older check of a registry is repeated
    blob_store_bytes: int = 20 << 30
    # How long each kind of record is kept; ``never``: forever. Records that are current, tagged or running are always
    # kept.
    retention_scans: Retention = Retention.parse("90d")
    retention_deliveries: Retention = Retention.parse("90d")
    retention_idempotency_keys: Retention = Retention.parse("30d")
    retention_evidence: Retention = Retention.parse("180d")
    retention_decisions: Retention = Retention.parse("400d")
    retention_sessions: Retention = Retention.parse("30d")
    retention_receipts: Retention = Retention.parse("90d")
    retention_jobs: Retention = Retention.parse("90d")
    retention_outbox: Retention = Retention.parse("30d")
    retention_audit_log: Retention = Retention()
    retention_advisories: Retention = Retention.parse("30d")
    retention_blobs: Retention = Retention.parse("30d")
    ca_file: Path | None = None
    insecure_registries: tuple[str, ...] = ()
    registry_credentials: Path | None = None  # a docker config.json for the service
    docker_config: Path | None = None  # unset: ~/.docker/config.json
    allow_private_addresses: bool = True
    allow_loopback_addresses: bool = True
    workers: int = 2
    lanes: tuple[str, ...] = ("gate", "push", "background", NOTIFY)
    lease_seconds: float = 60
    heartbeat_seconds: float = 15
    sweep_seconds: float = 10
    log_level: str = "INFO"
    log_json: bool = False
    otlp_endpoint: str = ""  # OTLP/HTTP collector of traces, without /v1/traces; empty: the standard OTEL_ variables
    oidc_issuer: str = ""  # an OpenID Connect provider; empty: passwords only
    oidc_client_id: str = ""
    oidc_client_secret: Secret = Secret("")
    oidc_scopes: tuple[str, ...] = ("openid", "profile", "email")
    oidc_groups_claim: str = "groups"
    oidc_name_claim: str = "preferred_username"
    oidc_roles: tuple[str, ...] = ()  # group=role
    oidc_default_role: str = ""  # role of users in none of these groups; empty: they may not sign in
    tls_certificate: Path | None = None  # PEM, with its chain; the server then ends TLS itself
    tls_key: Path | None = None
    admission_client_ca: Path | None = None  # PEM: CAs of the certificates by which API servers authenticate
    admission_client_names: tuple[str, ...] = ()  # subject common names or DNS names that these certificates may have
    admission_modes: tuple[str, ...] = ()  # namespace pattern=enforce|warn|audit; the first match is used
    admission_environments: tuple[str, ...] = ()  # namespace pattern=environment
    admission_exempt: tuple[str, ...] = ("kube-system", "kube-public", "kube-node-lease")  # namespace patterns
    admission_wait_seconds: float = (
        3  # how long a review waits for a scan; the webhook's own time-out may end it earlier
    )
    admission_unknown: str = (
        "deny"  # result for an image that is still being scanned: deny, or allow (and decide later)
    )
    pull_wait_seconds: float = 10  # how long a pull waits for a scan; the proxy's own time-out must be longer
    break_glass: tuple[str, ...] = ()  # users who may let a digest through in an emergency; empty: nobody
    trusted_proxies: int = 0
    rate_limits: bool = True
    limits: Limits = field(default_factory=Limits)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL: as set, otherwise SQLite in home."""
        return self.database_url.reveal() or f"sqlite:///{self.home.absolute() / 'dockwarden.db'}"

    @property
    def embedded(self) -> bool:
        """Whether no external database or broker is configured: one process tree with SQLite and its own queue."""
        return not self.database_url and not self.broker_url

    @property
    def advisories_dir(self) -> Path:
        return self.advisories or self.home / "advisories"

    @property
    def blobs_dir(self) -> Path:
        return self.home / "blobs"

    @property
    def work_dir(self) -> Path:
        return self.home / "work"


def load(environ: Mapping[str, str] | None = None, file: Path | None = None, **overrides: Any) -> Settings:
    """Read settings: ``overrides`` (command-line options), then the environment, the TOML file, and defaults.

    Raises UsageError with the variable, or file and key, for an unknown name or a value of the wrong type.
    """
    environ = os.environ if environ is None else environ
    file = file or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    values: dict[str, Any] = {}
    limit_names = {f.name for f in fields(Limits)}
    limits: dict[str, int | float] = {}

    def accept(name: str, raw: Any, where: str) -> None:
        if name.startswith("limit_") and name[6:] in limit_names:
            limits[name[6:]] = _convert(raw, type(getattr(Limits(), name[6:])), where)
        elif name in Settings.__annotations__ and name != "limits":
            values[name] = _convert(raw, _kind_of(name), where)
            _check_address(name, values[name], where)
        else:
            raise UsageError(f"{where}: no such setting", reason="unknown_setting", hint="see docs/settings.md")

    if file:
        for name, raw in _read_toml(file).items():
            if name == "limits" and isinstance(raw, dict):
                for inner, value in raw.items():
                    accept(f"limit_{inner}", value, f"{file}: limits.{inner}")
            else:
                accept(name, raw, f"{file}: {name}")
    for variable, raw in environ.items():
        name = variable[len(PREFIX) :].lower()
        if variable.startswith(PREFIX) and name not in ("config", "token", "server", "password"):
            accept(name, raw, variable)
    values.update({name: value for name, value in overrides.items() if value is not None})
    return replace(Settings(), limits=Limits(**limits), **values)  # type: ignore[arg-type]


def _kind_of(name: str) -> Any:
    """Return the type of a setting. Evaluating the types of all takes longer than most commands."""
    only = SimpleNamespace(__annotations__={name: Settings.__annotations__[name]})
    return get_type_hints(only, globals())[name]


_URLS = ("public_url", "otlp_endpoint", "clair_url", "clair_layers_url", "oidc_issuer")
_SOURCES = ("advisories_source", "advisories_java_source", "kev_source", "epss_source")  # may also be references


def _check_address(name: str, value: Any, where: str) -> None:
    """Refuse an address that cannot be one where it is set, not when a scan needs it. Raises UsageError."""
    if value and (name in _URLS or (name in _SOURCES and "://" in value)):
        web_address(value, where)
    elif value and name == "clair_layers_address":
        host, _, port = value.rpartition(":")
        if not is_host(host.removeprefix("[").removesuffix("]")) or not port.isascii() or not port.isdigit():
            raise UsageError(f"{where}: not a valid value", hint="expected HOST:PORT, or [IPV6]:PORT")
    elif name == "broker_url" and not all(map(_is_broker, value.reveal().split(";"))):
        raise UsageError(f"{where}: not a URL with a valid host and port", hint="write redis://HOST:PORT/0")
    elif name == "port" and not 0 <= value < 65536:
        raise UsageError(f"{where}: not a valid value", hint="expected a port, 0 to 65535")


def _is_broker(url: str) -> bool:
    try:
        return bool(urlsplit(url).scheme) and urlsplit(url).port != 0
    except ValueError:
        return False


def _read_toml(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(read_whole(file, _MAX_FILE, "the settings file").decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error


_EXPECTED_VALUES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple: "a list of texts",
    Retention: "a period such as 36h, 90d or 4w, or never",
}


def _convert(raw: Any, kind: Any, where: str) -> Any:
    try:
        if get_origin(kind) is tuple:
            return (
                tuple(part.strip() for part in raw.split(",") if part.strip())
                if isinstance(raw, str)
                else tuple(map(str, raw))
            )
        if kind is not None and type(None) in get_args(kind):
            kind = next(arg for arg in get_args(kind) if arg is not type(None))
        if kind is Retention:
            return Retention.parse(raw)
        if kind is bool:
            if isinstance(raw, bool):
                return raw
            return {
                "1": True,
                "true": True,
                "yes": True,
                "on": True,
                "0": False,
                "false": False,
                "no": False,
                "off": False,
            }[str(raw).lower()]
        return kind(raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        expected = _EXPECTED_VALUES.get(get_origin(kind) or kind, "a text")
        raise UsageError(f"{where}: not a valid value", hint=f"expected {expected}") from error


def audit_key(settings: Settings) -> Secret:
    """The key of the audit log's hash chain: as set, otherwise generated once and stored in ``home/audit_key``.

    If processes share a secret key but have no audit key, it is derived from the secret key. Otherwise each process
    would generate its own, and no chain could be verified. Raises as `secret_key`.
    """
    if settings.secret_key and not settings.audit_key:
        shared = secret_key(settings).reveal().encode()
        return Secret(hmac.new(shared, b"dockwarden audit log", "sha256").hexdigest())
    return _kept_key(settings.audit_key, settings.home / "audit_key", "AUDIT_KEY")


def secret_key(settings: Settings) -> KeyRing:
    """The key of token hashes, web sessions and stored secrets: as set, otherwise generated once and stored in
    ``home/secret_key`` (0600).

    Processes that start at the same time get the same key, because the file is created atomically. Raises UsageError if
    the key is too short.
    """
    current = _kept_key(settings.secret_key, settings.home / "secret_key", "SECRET_KEY")
    former = settings.home / PREVIOUS_KEY
    if settings.secret_key_previous or former.is_file():
        return KeyRing(current, _kept_key(settings.secret_key_previous, former, "SECRET_KEY_PREVIOUS"))
    return KeyRing(current)


PREVIOUS_KEY = "secret_key_previous"


def new_secret_key(settings: Settings) -> None:
    """Generate a new secret key in home and keep the current one as the previous key.

    Raises UsageError if the key is set by the environment, or the last change is unfinished.
    """
    current, former = settings.home / "secret_key", settings.home / PREVIOUS_KEY
    if settings.secret_key:
        raise UsageError(
            f"the key is set by {PREFIX}SECRET_KEY",
            hint=f"set {PREFIX}SECRET_KEY_PREVIOUS to it and {PREFIX}SECRET_KEY to a new one of 32 random "
            "characters or more",
        )
    if former.exists():
        raise UsageError(
            "the last change of the key is not finished",
            hint="dockwarden secrets rotate, then dockwarden secrets forget",
        )
    secret_key(settings)
    os.link(current, former)  # first, so that the key that decrypts everything exists at every moment
    import secrets
    import tempfile

    descriptor, name = tempfile.mkstemp(dir=settings.home, prefix=".secret_key-")
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(secrets.token_urlsafe(48) + "\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(name, current)


def _kept_key(given: Secret, file: Path, setting: str) -> Secret:
    found = given
    if not found:
        if not file.exists():
            import secrets

            write_once(file, (secrets.token_urlsafe(48) + "\n").encode())
        found = Secret(read_whole(file, _MAX_FILE, "the key").decode("ascii", "replace").strip())
    if len(found.reveal()) < _MIN_SECRET:
        raise UsageError(
            f"the key {PREFIX}{setting} has fewer than {_MIN_SECRET} characters",
            reason="weak_secret_key",
            hint=f"set {PREFIX}{setting} to 32 random characters or more, or unset it",
        )
    return found


def keep_private(home: Path) -> None:
    """Create the state directory with access for its owner only, and remove others' access to existing files.

    A directory of another user (a volume with its own group) or one that all share (/tmp) is not changed.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = home.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return
    for path in (home, *home.iterdir()):
        with contextlib.suppress(OSError):  # deleted meanwhile, or a file system without modes
            mode = path.lstat().st_mode
            if mode & 0o077 and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and path.lstat().st_uid == os.geteuid():
                path.chmod(mode & 0o700)
