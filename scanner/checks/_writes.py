"""Prediction of the directories to which an image's programs write.

Sources are configurations of known servers, entrypoint scripts, and directories that belong to the running user. Each
result has a confidence.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator

from scanner.checks._passwd import accounts, runtime_id
from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.image import ImageConfig
from scanner.patterns import lazy

CERTAIN, LIKELY = "certain", "likely"
TMPFS, VOLUME = "tmpfs", "volume"

# Configurations of known servers, and common entrypoint scripts.
WANTS = (
    "etc/nginx/*.conf",
    "etc/nginx/conf.d/*",
    "etc/nginx/sites-enabled/*",
    "etc/apache2/envvars",
    "usr/local/apache2/conf/httpd.conf",
    "etc/redis/redis.conf",
    "etc/redis.conf",
    "etc/mongod.conf",
    "**/docker-entrypoint.sh",
    "**/entrypoint.sh",
    "**/docker-php-entrypoint",
    "**/start.sh",
    "**/run.sh",
)


@dataclass(frozen=True)
class Need:
    """A directory that must be writable.

    ``kind``: `TMPFS` or `VOLUME`. ``why``: the reason for users. ``confidence``: `CERTAIN` or `LIKELY`.
    """

    path: str
    kind: str
    why: str
    confidence: str
    layer: int | None = None


@dataclass(frozen=True)
class Server:
    """A program that is known to write. ``data``: directories to keep; ``scratch``: temporary ones."""

    names: tuple[str, ...]
    data: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()


_SERVERS = (
    Server(("mysqld", "mariadbd", "mysqld_safe"), ("var/lib/mysql",), ("run/mysqld", "tmp")),
    Server(("postgres",), (), ("run/postgresql",)),
    Server(("mongod",), (), ("tmp",)),
    Server(("php-fpm", "php-fpm8.2", "php-fpm8.3", "php-fpm8.4"), (), ("run",)),
    Server(("rabbitmq-server",), ("var/lib/rabbitmq",), ("var/log/rabbitmq",)),
    Server(("catalina.sh",), (), ("usr/local/tomcat/logs", "usr/local/tomcat/temp", "usr/local/tomcat/work")),
    Server(("supervisord",), (), ("run", "var/log/supervisor")),
    Server(("cron", "crond"), (), ("run",)),
    Server(("haproxy",), (), ("run",)),
    Server(("squid",), ("var/spool/squid",), ("run", "var/log/squid")),
    Server(("gunicorn", "uwsgi"), (), ("tmp",)),
    Server(("prometheus",), ("prometheus",), ()),
    Server(("grafana-server", "grafana"), ("var/lib/grafana",), ("var/log/grafana",)),
    Server(("elasticsearch",), ("usr/share/elasticsearch/data",), ("usr/share/elasticsearch/logs", "tmp")),
    Server(("influxd",), ("var/lib/influxdb",), ()),
    Server(("etcd",), ("var/lib/etcd",), ()),
    Server(("dockerd",), ("var/lib/docker",), ("run", "tmp")),
)
# Directives of nginx.conf whose value is a file that nginx writes.
_NGINX = lazy(r"(?m)^[^\S\n]*(pid|error_log|access_log|\w+_temp_path|\w+_cache_path)\s+([^\s;]+)")
_NGINX_SCRATCH = ("var/cache/nginx", "var/lib/nginx")
# Debian's /etc/apache2/envvars
_APACHE = lazy(r"(?m)^[^\S\n]*export APACHE_(RUN_DIR|LOCK_DIR|LOG_DIR)=([^\s$]+)")
# Directives of httpd.conf whose value is a file that httpd writes.
_HTTPD = lazy(r"(?m)^[^\S\n]*(PidFile|ErrorLog|CustomLog)\s+\"?([^\s\"|]+)")
_SCRIPT = lazy(
    r"""(?:(?<![0-9&<])>{1,2}[ \t]*|\b(?:touch|tee(?:[ \t]+-a)?|mkdir(?:[ \t]+-p)?)[ \t]+)["']?(/[\w./-]{1,200})"""
)
# sed -i writes a new file beside the old one.
_SED = lazy(r"""\bsed[ \t]+-i\b[^\n|;&]{0,300}?[ \t]["']?(/[\w./-]{1,200})["']?[ \t]*(?:$|[\n;&|])""")
# Logs of the build: package managers and login accounting.
_BUILD_LOGS = lazy(
    r"^var/log/(?:(?:dpkg|alternatives|bootstrap|fontconfig|yum|apk|hawkey)\.log|apt/|dnf|lastlog|faillog|[bw]tmp|tallylog|anaconda/|installer/)"
)
# Directories of the file hierarchy standard for state: what is in them is written at run time.
_STATE = lazy(r"(?:var/(?:log|cache|spool|lib)|run)/[^/]+$")
_DATA = ("data", "db", "storage", "uploads")
_KERNELS = ("dev/", "proc/", "sys/")


def needs(config: ImageConfig, rootfs: Rootfs) -> Iterator[Need]:
    """Yield all needs, including those covered by the image's volumes. Symbolic links in paths are resolved."""
    for need in (
        *_servers(config, rootfs),
        *_scripts(config, rootfs),
        *_logs(rootfs),
        *_prepared_directories(config, rootfs),
    ):
        path = rootfs.follow(need.path) or need.path
        if path and not path.startswith(_KERNELS) and path not in ("dev", "proc", "sys"):
            yield Need(path, need.kind, need.why, need.confidence, need.layer)


def smallest(found: Iterator[Need]) -> list[Need]:
    """Return one need per directory, without subdirectories. The most certain reason is kept."""
    kept: dict[str, Need] = {}
    # Parents first, so that a subdirectory finds its parent kept. Of one directory the certain reason comes first:
    # the two words sort in that order.
    for need in sorted(found, key=lambda n: (n.path.count("/"), n.path, n.confidence)):
        parents = need.path.split("/")
        if not any("/".join(parents[:n]) in kept for n in range(1, len(parents) + 1)):
            kept[need.path] = need
    return list(kept.values())


def started_programs(config: ImageConfig) -> frozenset[str]:
    """Return names of programs in entrypoint and command, including those in shell scripts."""
    words = re.split(r"[\s;&|\"'()]+", " ".join((*config.entrypoint, *config.cmd)))
    return frozenset(word.rpartition("/")[2] for word in words if word)


def _servers(config: ImageConfig, rootfs: Rootfs) -> Iterator[Need]:
    names = started_programs(config)
    for server in _SERVERS:
        name = next((name for name in server.names if name in names), "")
        for kind, paths in ((VOLUME, server.data), (TMPFS, server.scratch)):
            for path in paths if name else ():
                yield Need(path, kind, f"{name} writes there by default", CERTAIN, _layer(rootfs, path))
    if names & {"nginx", "nginx-debug", "openresty"}:
        yield from _nginx(rootfs)
    if names & {"apache2", "apache2ctl", "apachectl", "httpd", "apache2-foreground", "httpd-foreground"}:
        yield from _apache(rootfs)
    variables = dict(config.env)
    if "postgres" in names:
        path = variables.get("PGDATA", "/var/lib/postgresql/data").strip("/")
        yield Need(path, VOLUME, "postgres keeps its data there", CERTAIN, _layer(rootfs, path))
    if "redis-server" in names:
        path = (
            _configured_value(rootfs, ("etc/redis/redis.conf", "etc/redis.conf"), r"(?m)^dir\s+(\S+)")
            or config.working_dir
            or "/data"
        )
        yield Need(path.strip("/") or "data", VOLUME, "redis-server writes its dump there", CERTAIN)
    if "mongod" in names:
        path = _configured_value(rootfs, ("etc/mongod.conf",), r"(?m)^[^\S\n]*dbPath:\s*(\S+)") or "/data/db"
        yield Need(path.strip("/"), VOLUME, "mongod keeps its data there", CERTAIN)


def _nginx(rootfs: Rootfs) -> Iterator[Need]:
    said = dict.fromkeys(m for text in _texts(rootfs, "etc/nginx/") for m in _NGINX.findall(text))
    kinds = {name for name, _ in said}
    for name, value in said:
        if value.startswith("/") and not _is_console(rootfs, value):
            path = value.strip("/") if name.endswith("_path") else posixpath.dirname(value).strip("/")
            yield Need(path, TMPFS, f"its configuration sets {name} {value}", CERTAIN, _layer(rootfs, value))
    if "pid" not in kinds:
        yield Need("run", TMPFS, "nginx writes nginx.pid there by default", CERTAIN)
    if not any(name.endswith("_temp_path") for name in kinds):
        path = next((path for path in _NGINX_SCRATCH if path in rootfs.files), _NGINX_SCRATCH[0])
        yield Need(path, TMPFS, "nginx buffers requests and responses there by default", CERTAIN, _layer(rootfs, path))
    # The official images link these files to the console. Nothing is written to the directory then.
    logs = [f"/var/log/nginx/{name}.log" for name in ("access", "error")]
    if not kinds & {"access_log", "error_log"} and not all(_is_console(rootfs, path) for path in logs):
        yield Need("var/log/nginx", TMPFS, "nginx writes its logs there by default", CERTAIN)


def _apache(rootfs: Rootfs) -> Iterator[Need]:
    for text in _texts(rootfs, "etc/apache2/envvars"):
        for name, value in _APACHE.findall(text):
            yield Need(value.strip("/"), TMPFS, f"etc/apache2/envvars sets APACHE_{name}={value}", CERTAIN)
    for text in _texts(rootfs, "usr/local/apache2/conf/httpd.conf"):
        said = dict(_HTTPD.findall(text))
        if "PidFile" not in said:
            yield Need("usr/local/apache2/logs", TMPFS, "httpd writes httpd.pid there by default", CERTAIN)
        for name, value in said.items():
            if not value.startswith(("/proc/", "/dev/")):
                path = posixpath.dirname(value if value.startswith("/") else f"/usr/local/apache2/{value}").strip("/")
                yield Need(path, TMPFS, f"httpd.conf sets {name} {value}", CERTAIN)


def _scripts(config: ImageConfig, rootfs: Rootfs) -> Iterator[Need]:
    """Yield directories to which the entrypoint script writes before it starts the program."""
    for word in (*config.entrypoint[:3], *config.cmd[:1]):
        candidates = (
            [word] if "/" in word else [f"{d}/{word}" for d in ("usr/local/bin", "usr/bin", "bin", "usr/local/sbin")]
        )
        path = next((found for c in candidates if (found := rootfs.resolve(c))), None)
        data = rootfs.content(path) if path else None
        if not path or data is None or not data.startswith(b"#!"):
            continue
        text = "\n".join(
            line for line in data.decode("utf-8", "replace")[: 1 << 17].split("\n") if not line.lstrip().startswith("#")
        )
        for match in (*_SCRIPT.finditer(text), *_SED.finditer(text)):
            target = match[1].strip("/")
            made = target in rootfs.files and rootfs.files[target].entry.type is FileType.DIRECTORY
            directory = target if made or "mkdir" in match[0] else posixpath.dirname(target)
            yield Need(
                directory, TMPFS, f"/{path} writes /{target} before it starts the program", LIKELY, _layer(rootfs, path)
            )


def _logs(rootfs: Rootfs) -> Iterator[Need]:
    for path, placed in rootfs.files.items():
        if (
            path.startswith("var/log/")
            and placed.entry.type is FileType.FILE
            and not _BUILD_LOGS.match(path)
            and placed.layer > 0
        ):
            # A log in the first layer was written when the distribution built its image, not by this image's program.
            directory = posixpath.dirname(path)
            yield Need(directory, TMPFS, f"contains the log file {path.rpartition('/')[2]}", LIKELY, placed.layer)


def _prepared_directories(config: ImageConfig, rootfs: Rootfs) -> Iterator[Need]:
    """Yield state directories of the running user, and its empty directories, which are probably created for
    writing.
    """
    uid = _uid(config, rootfs)
    if not uid:
        return
    own = {
        path: placed
        for path, placed in rootfs.files.items()
        if placed.entry.uid == uid
        and placed.entry.type is FileType.DIRECTORY
        and not path.startswith(("home/", "root/", "tmp/"))
    }
    full: dict[str, list[str]] = defaultdict(list)
    for path in rootfs.files if own else ():
        full[path.rpartition("/")[0]].append(path)
    for path, placed in own.items():
        inside = full.get(path, [])
        console = bool(inside) and all(_is_console(rootfs, name) for name in inside)
        if (_STATE.match(path) or not inside) and not console:
            why = f"belongs to the running user {config.user[:40]}" + ("" if inside else " and is empty")
            kept = path.startswith("var/lib/") or path.rpartition("/")[2] in _DATA
            yield Need(path, VOLUME if kept else TMPFS, why, LIKELY, placed.layer)


def _uid(config: ImageConfig, rootfs: Rootfs) -> int | None:
    name = config.user.partition(":")[0]
    number = runtime_id(name)
    if number is not None:
        return number
    return next((a.uid for a in accounts(rootfs) or () if a.name == name), None)


def _texts(rootfs: Rootfs, prefix: str) -> Iterator[str]:
    for path in sorted(path for path in rootfs.files if path.startswith(prefix)):
        data = rootfs.content(path)
        if data is not None:
            yield data.decode("utf-8", "replace")


def _configured_value(rootfs: Rootfs, paths: tuple[str, ...], pattern: str) -> str:
    texts = [data.decode("utf-8", "replace") for path in paths if (data := rootfs.content(path)) is not None]
    return next((match[1].strip("\"'") for text in texts if (match := re.search(pattern, text))), "")


def _is_console(rootfs: Rootfs, path: str) -> bool:
    """Return whether a log file is standard output or error, by name or symbolic link."""
    placed = rootfs.files.get(path.strip("/"))
    link = placed.entry.link if placed is not None and placed.entry.type is FileType.SYMLINK else ""
    return any(name.startswith(("/dev/std", "/dev/null", "/proc/self/fd", "/dev/fd")) for name in (path, link))


def _layer(rootfs: Rootfs, path: str) -> int | None:
    resolved = rootfs.resolve(path)
    return rootfs.files[resolved].layer if resolved else None
