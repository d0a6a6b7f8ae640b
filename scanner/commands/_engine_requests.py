"""What a request to a Docker engine would start, read from what the engine tells an authorization plugin of it.

https://docs.docker.com/engine/extend/plugins_authorization/
https://docs.docker.com/reference/api/engine/

The engine reads requests leniently, so whatever it could read in another way than we do is refused: bodies that it did
not pass on (CVE-2024-41110: Content-Length 0; more than 1 MiB; another Content-Type), members spelled in another case
(Go takes ``image`` for ``Image``, and the last of the two wins), members of ``HostConfig`` outside of it, parameters
given twice or in a form, paths that are not plain, versions of the API before 1.24. An endpoint that changes something
and is not known here is refused as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from scanner.errors import UsageError
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.patterns import lazy

BODY_LIMIT = 1 << 20  # the engine passes no larger body on
# DELETE starts nothing: a container that ends harms no policy.
_READ_ONLY_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
# A plain path only: one with escapes is read differently by the engine's router.
_PATH = lazy(r"(?:/v(?P<major>[0-9]{1,2})\.(?P<minor>[0-9]{1,3}))?(?P<path>(?:/[A-Za-z0-9._:@+-]+)+)", re.ASCII)
# Before it, a start takes settings in its body, which the engine does not pass on to a plugin when it is large.
_OLDEST_API = (1, 24)

_CREATE = lazy(r"/containers/create")
_START = lazy(r"/containers/(?P<name>[^/]+)/(?P<verb>start|restart)")
# It runs in a container that was judged, unless it asks for more rights.
_EXEC = lazy(r"/containers/[^/]+/exec")
# It can raise limits that a policy judged at the start.
_UPDATE = lazy(r"/containers/(?P<name>[^/]+)/update")
_SERVICE = lazy(r"/services/(?:create|(?P<name>[^/]+)/update)")
_SWARM = lazy(r"/swarm/(?:init|join)")
_PULL = lazy(r"/images/create")
_BUILD = lazy(r"/build")
# A plugin runs with the rights that it asks for, outside any container.
_PLUGIN = lazy(r"/plugins/(?:pull|create|.+/(?:upgrade|enable|set))")
# What changes something and starts nothing that was not judged when it was created, and is judged when it starts.
_HARMLESS = lazy(
    r"/auth|/commit|/session|/grpc|/build/(?:prune|cancel)|/exec/[^/]+/(?:start|resize)"
    r"|/containers/(?:prune|[^/]+/(?:stop|kill|pause|unpause|rename|wait|resize|attach|archive|checkpoints))"
    r"|/images/(?:load|prune|.+/(?:push|tag))|/plugins/.+/(?:disable|push)"
    r"|/networks/(?:create|prune|[^/]+/(?:connect|disconnect))|/volumes/(?:create|prune|[^/]+)"
    r"|/swarm/(?:leave|update|unlock)|/nodes/[^/]+/update"
    r"|/(?:secrets|configs)/(?:create|[^/]+/update)|/system/prune"
)

# Members of the structures that say what is started and how. Another spelling of one of them is refused.
_KNOWN_MEMBERS = re.findall(
    r"\w+",
    """
    Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd
    Healthcheck Test Interval Timeout Retries StartPeriod StartInterval ArgsEscaped Image Volumes WorkingDir
    Entrypoint NetworkDisabled MacAddress OnBuild Labels StopSignal StopTimeout Shell HostConfig
    NetworkingConfig EndpointsConfig Binds ContainerIDFile LogConfig Type Config NetworkMode PortBindings
    RestartPolicy Name MaximumRetryCount AutoRemove VolumeDriver VolumesFrom ConsoleSize Annotations CapAdd
    CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode
    Privileged PublishAllPorts ReadonlyRootfs SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls
    Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight CpuPeriod CpuQuota CpuRealtimePeriod
    CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules DeviceRequests KernelMemory
    MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits Mounts MaskedPaths
    ReadonlyPaths Init Source Target ReadOnly Consistency BindOptions VolumeOptions TmpfsOptions DriverConfig
    Options Propagation
    PathOnHost PathInContainer CgroupPermissions HostIp HostPort Soft Hard TaskTemplate ContainerSpec Resources
    Limits Reservations NanoCPUs MemoryBytes Pids Placement Networks Mode EndpointSpec Ports Privileges
    CredentialSpec SELinuxContext Seccomp AppArmor NoNewPrivileges Groups Args Command Dir CapabilityAdd
    CapabilityDrop Secrets Configs PluginSpec NetworkAttachmentSpec LogDriver Replicated Global Replicas
    UpdateConfig RollbackConfig PublishedPort TargetPort PublishMode DetachKeys
    """,
)
_KNOWN_SPELLINGS = frozenset(_KNOWN_MEMBERS)
_FOLDED_SPELLINGS = frozenset(name.casefold() for name in _KNOWN_MEMBERS)
# The members of a container's creation. Members of HostConfig beside them are used by engines, and judged by nobody.
_OF_THE_CONTAINER = frozenset(
    re.findall(
        r"\w+",
        """
        Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce Env Cmd
        Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild Labels
        StopSignal StopTimeout Shell HostConfig NetworkingConfig
        """,
    )
)
# Members whose own members are named by people.
_MAPS = frozenset(
    {
        "Labels",
        "ExposedPorts",
        "Volumes",
        "PortBindings",
        "Annotations",
        "StorageOpt",
        "Tmpfs",
        "Sysctls",
        "Config",
        "Options",
        "DriverOpts",
        "EndpointsConfig",
    }
)


@dataclass(frozen=True)
class Ask:
    """Something that must be judged. ``image`` is as the request writes it; empty: that of ``container``.

    ``document``: how it would be run, as ``docker inspect`` or ``docker service inspect`` prints it; with
    ``container``, the settings of that container which the request changes. ``rolled_back``: the service whose former
    settings the engine would use instead of the request's.
    """

    operation: str  # such as "create" or "exec", for messages
    name: str
    image: str = ""
    container: str = ""
    source: str = "docker"  # docker or swarm: which reader understands ``document``
    document: Mapping[str, Any] | None = None
    images: tuple[str, ...] = ()  # all that a build names; judged one by one
    rolled_back: str = ""


def read(
    method: str,
    uri: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    builds: bool = True,
    swarm: bool = False,
) -> Ask | None:
    """What a request would start. None: nothing that concerns us.

    ``body`` None: the engine passed none on. Raises UsageError(reason="refused") for what is never let through.
    """
    # Reading and deleting start nothing.
    if method in _READ_ONLY_METHODS:
        return None
    raw, _, query = uri.partition("?")
    found = _PATH.fullmatch(raw)
    if found is None or {".", ".."} & set(raw.split("/")):
        raise _refused_request("its path can be read in two ways")
    if method not in ("POST", "PUT"):
        raise _refused_request(f"the method {clean_text(method, 20)!r} is unknown")
    if found["major"] and (int(found["major"]), int(found["minor"])) < _OLDEST_API:
        raise _refused_request("its version of the API is older than 1.24")
    path = found["path"]
    if _CREATE.fullmatch(path):
        return _create(_json(headers, body), _one(query, "name"))
    if started := _START.fullmatch(path):
        return _start(headers, query, body, started["verb"], started["name"])
    if updated := _UPDATE.fullmatch(path):
        return _update(_json(headers, body), updated["name"])
    if service := _SERVICE.fullmatch(path):
        return _service(_json(headers, body), query, service["name"] or "")
    if _PULL.fullmatch(path):
        return _pull(headers, query)
    if _EXEC.fullmatch(path):
        _exec(_json(headers, body))
        return None
    if _BUILD.fullmatch(path):
        return _build(headers, query, builds)
    if _PLUGIN.fullmatch(path):
        raise _refused_request("a plugin of the engine runs as root, and no policy judges one")
    if _SWARM.fullmatch(path) and not swarm:
        raise _refused_request("the managers of a swarm start services here without asking; see --swarm")
    if not builds and path in ("/session", "/grpc"):
        raise _refused_request("builds are not allowed on this host")
    if _HARMLESS.fullmatch(path) or _SWARM.fullmatch(path):
        return None
    raise _refused_request(f"it does not know {clean_text(path, 100)}")


def _refused_request(message: str) -> UsageError:
    return UsageError(f"Dockwarden refuses this request: {message}", reason="refused")


def _header(headers: Mapping[str, str], name: str) -> str:
    found = [value for key, value in headers.items() if key.lower() == name]
    # The engine and this plugin could each take another one of two headers.
    if len(found) > 1:
        raise _refused_request(f"the header {name} is there twice")
    return str(found[0]).strip() if found else ""


def _check_body_is_whole(headers: Mapping[str, str], body: bytes | None) -> None:
    """The body that the engine will read is the one that we see. Raises UsageError."""
    length = _header(headers, "content-length")
    if length and (not length.isascii() or not length.isdigit() or int(length) != len(body or b"")):
        raise _refused_request("its body was not passed on whole")


def _json(headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
    _check_body_is_whole(headers, body)
    kind = _header(headers, "content-type").partition(";")[0].strip().lower()
    if kind not in ("", "application/json"):
        raise _refused_request("its body is not JSON")
    if not body:
        raise _refused_request("its body was not passed on, so nobody knows what it would start")
    value = _parse_json(body)
    if not isinstance(value, dict):
        raise _refused_request("its body is not an object")
    _check_spelling(value)
    return value


def _parse_json(data: bytes) -> Any:
    try:
        return load_untrusted_json(data, limit=BODY_LIMIT, error=UsageError, mend_text=True)
    except UsageError as error:
        raise _refused_request(str(error)) from error


def _check_spelling(value: Any, free: bool = False) -> None:
    """Refuse members that Go would take for others."""
    if isinstance(value, list):
        for each in value:
            _check_spelling(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if not free and key not in _KNOWN_SPELLINGS and key.casefold() in _FOLDED_SPELLINGS:
                raise _refused_request(
                    f"the member {clean_text(key, 60)!r} differs from a known one only in upper or lower case"
                )
            _check_spelling(each, free=key in _MAPS and not free)


def _one(query: str, name: str) -> str:
    """A parameter. Go takes the first of several, and spells names exactly."""
    try:
        found = parse_qs(query, keep_blank_values=True, strict_parsing=False, max_num_fields=50, errors="strict")
    except ValueError as error:
        raise _refused_request("its parameters cannot be read") from error
    values = found.get(name, [])
    if len(values) > 1:
        raise _refused_request(f"the parameter {name} is there twice")
    if ";" in query:
        raise _refused_request("its parameters can be read in two ways")
    return values[0] if values else ""


def _create(body: dict[str, Any], name: str) -> Ask:
    # Without a HostConfig, the engine (up to 24.0) takes its members from beside ``Image``: ContainerConfigWrapper.
    if misplaced := sorted(key for key in body.keys() & _KNOWN_SPELLINGS - _OF_THE_CONTAINER if body[key]):
        raise _refused_request(f"the member {misplaced[0]!r} is outside of HostConfig")
    image = body.get("Image")
    if not isinstance(image, str) or not image:
        raise _refused_request("it names no image")
    config = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
    host = body.get("HostConfig")
    if host is not None and not isinstance(host, dict):
        raise _refused_request("HostConfig is not an object")
    # The engine makes a name up for a container that is given none; messages need one now.
    document = {"Name": name or "new", "Config": config, "HostConfig": host or {}}
    return Ask("container create", name, image, document=document)


def _start(headers: Mapping[str, str], query: str, body: bytes | None, verb: str, name: str) -> Ask:
    # Old versions of the API took a HostConfig with the start. It would replace the one that was judged at the
    # creation.
    if body and body.strip() not in (b"{}", b"null"):
        raise _refused_request("settings that come with the start are not judged")
    _check_body_is_whole(headers, body)
    if _one(query, "checkpoint") or _one(query, "checkpoint-dir"):
        raise _refused_request("a checkpoint holds processes that nobody has judged")
    return Ask(f"container {verb}", name, container=name)


def _update(body: dict[str, Any], name: str) -> Ask | None:
    """The container with the settings that the update changes. The engine takes empty ones for unchanged."""
    policy = body.get("RestartPolicy")
    restarts = policy.get("Name") not in (None, "", "no") if isinstance(policy, dict) else policy is not None
    changed = {key: value for key, value in body.items() if value and (key != "RestartPolicy" or restarts)}
    # An update that only ends restarts stops what is denied, so it needs nobody's consent.
    return Ask("container update", name, container=name, document=changed) if changed else None


def _service(body: dict[str, Any], query: str, updated: str) -> Ask:
    if rollback := _one(query, "rollback"):
        if rollback != "previous" or not updated:
            raise _refused_request("rollback is not 'previous'")
        return Ask("service rollback", updated, source="swarm", rolled_back=updated)
    template = body.get("TaskTemplate")
    if not isinstance(template, dict):
        raise _refused_request("the service has no TaskTemplate")
    if template.get("PluginSpec") is not None or template.get("Runtime") not in (None, "", "container"):
        raise _refused_request("a plugin of the engine runs as root, and no policy judges one")
    container = template.get("ContainerSpec")
    image = container.get("Image") if isinstance(container, dict) else None
    if not isinstance(image, str) or not image:
        raise _refused_request("the service names no image")
    name = body.get("Name") if isinstance(body.get("Name"), str) else ""
    verb = "update" if updated else "create"
    return Ask(f"service {verb}", str(name), image, source="swarm", document={"ID": "new", "Spec": body})


def _no_form(headers: Mapping[str, str]) -> None:
    if _header(headers, "content-type").lower().startswith(("application/x-www-form-urlencoded", "multipart/")):
        raise _refused_request("parameters in a form replace those that were judged")


def _pull(headers: Mapping[str, str], query: str) -> Ask | None:
    _no_form(headers)
    image, tag, source = (_one(query, name) for name in ("fromImage", "tag", "fromSrc"))
    if not image:
        if source:
            return None  # an import has no digest of a registry, so nothing of it starts
        raise _refused_request("it names no image")
    # Of a header that comes twice the engine passes the last one on, and reads the first: a form can be hidden behind
    # another Content-Type, and a chunked body has no header. Docker's clients announce the empty body of a pull.
    if _header(headers, "content-length") != "0":
        raise _refused_request("a pull has no body; send Content-Length: 0")
    if ":" in tag:  # a digest, of any algorithm
        image = f"{image}@{tag}"
    elif tag:
        image = f"{image}:{tag}"
    # Without a tag the engine's API pulls all tags, and not `latest` as the command line does.
    elif ":" not in image.rpartition("/")[2] and "@" not in image:
        raise _refused_request("it pulls every tag of the repository")
    return Ask("image pull", image, image)


def _exec(body: dict[str, Any]) -> None:
    # In any case of letters, because Go reads member names so. A privileged exec has every capability, whatever the
    # container was judged with.
    if any(key.casefold() == "privileged" and value for key, value in body.items()):
        raise _refused_request("a privileged exec is not allowed")


def _build(headers: Mapping[str, str], query: str, builds: bool) -> Ask | None:
    """Builds are let through where they are allowed: what they make has no digest of a registry, so it does not start.

    The Dockerfile is in the build's context, which the engine passes to no plugin; the images that the build names
    beside it are judged.
    """
    if not builds:
        raise _refused_request("builds are not allowed on this host")
    _no_form(headers)
    text = _one(query, "cachefrom")
    if not text:
        return None
    names = _parse_json(text.encode())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > 20:
        raise _refused_request("cachefrom is not a list of images")
    return Ask("image build", _one(query, "t")[:253], images=tuple(names)) if names else None
