"""CEL expressions in policies (``when``), compiled and evaluated with a budget. No other module uses the CEL library.

Variables: ``image`` (name, tag, digest, os, architecture, size, layers, user, labels, env, age_days, and where they
are known os_family, os_version, supported_days) and ``counts`` (vulnerabilities by severity, ``fixable``,
``unfixed``, each status, ``known_exploited``, ``secrets``, ``components``), and where a workload is judged
``workload`` (see ``workload_variable``). An expression that cannot be evaluated is an incomplete reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from scanner.model import agreement
from scanner.model.finding import STATUSES, Severity
from scanner.model.scan import AttachedSbom, ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.patterns import lazy

if TYPE_CHECKING:
    from scanner.model.workload import Workload

_PLACE = lazy(r"^[A-Z_]+: ERROR: <input>:(\d+):(\d+): ")  # how the library begins the message of a compile error


class ExpressionError(ValueError):
    """An expression that does not compile or does not give a bool."""


def _cel() -> Any:
    """Return the library. Most policies have no expression, and loading it takes as long as deciding."""
    from cel_expr_python import cel

    return cel


@lru_cache(maxsize=4)
def _environment(without: str = "") -> Any:
    """Return the environment of rules; ``without``: a variable that it does not declare."""
    cel = _cel()
    variables = {
        "image": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
        "counts": cel.Type.Map(cel.Type.STRING, cel.Type.INT),
        "workload": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    }
    # No functions beyond CEL's standard ones: an expression cannot do I/O, and CEL has no unbounded loops.
    return cel.NewEnv(variables={name: kind for name, kind in variables.items() if name != without})


@lru_cache(maxsize=1)
def _event_environment() -> Any:
    cel = _cel()
    return cel.NewEnv(variables={"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})


@lru_cache(maxsize=256)
def _compile_expression(expression: str, events: bool = False) -> Any:
    try:
        return (_event_environment() if events else _environment()).compile(expression)
    except Exception as error:  # the library raises its C++ errors as several kinds; each means a refused expression
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = _PLACE.sub(r"line \1, column \2: ", lines[0]) if lines else "does not compile"
        raise ExpressionError(clean_text(why, 300)) from error


def problem(expression: str, *, events: bool = False) -> str:
    """Return why the expression is refused. Empty: it is accepted. ``events``: a filter of notifications."""
    try:
        compiled = _compile_expression(expression, events)
    except ExpressionError as error:
        return str(error)
    kind, cel = compiled.return_type(), _cel()
    return "" if kind in (cel.Type.BOOL, cel.Type.DYN) else f"is {kind.name()}, not true or false"


@lru_cache(maxsize=1024)
def uses_variable(expression: str, variable: str) -> bool:
    """Return whether an expression uses a variable. False for one that does not compile: its evaluation fails."""
    # The library exports no syntax tree, so its compiler answers: such an expression does not compile where the
    # variable is not declared. A search of the text would find the word in comments too, and a rule that seems to be
    # about workloads is not evaluated on an image without one.
    try:
        _compile_expression(expression)
    except ExpressionError:
        return False
    try:
        _environment(variable).compile(expression)
    except Exception:  # noqa: BLE001  as in `_compile_expression`
        return True
    return False


def changes_daily(expression: str) -> bool:
    """Return whether the value may change by time alone (``age_days``, ``supported_days``)."""
    # By text: a false "yes" only ends the decision's validity early.
    return "days" in expression


def is_true(
    expression: str, image: Mapping[str, Any], counts: Mapping[str, int], workload: Mapping[str, Any] | None = None
) -> bool:
    """Evaluate the expression. Raises ExpressionError for an error, an exceeded budget, or a value that is not a
    bool.
    """
    return _evaluate_expression(
        expression, {"image": dict(image), "counts": dict(counts), "workload": dict(workload or {})}
    )


def event_matches(expression: str, event: Mapping[str, Any]) -> bool:
    """Evaluate a filter of notifications on the variable ``event``. Raises ExpressionError as `is_true`."""
    return _evaluate_expression(expression, {"event": dict(event)}, events=True)


def _evaluate_expression(expression: str, data: Mapping[str, Any], *, events: bool = False) -> bool:
    try:
        value = _compile_expression(expression, events).eval(data=data).plain_value()
    except Exception as error:  # as above: the rule is incomplete, never passed
        raise ExpressionError(clean_text(str(error), 300)) from error
    # A rule is violated if it is true. Counting 1 or "yes" as true, or null as false, would decide by accident.
    if not isinstance(value, bool):
        raise ExpressionError(f"gave {type(value).__name__}, not true or false")
    return value


def image_variable(report: ScanReport, image: ImageReport, now: datetime) -> dict[str, Any]:
    """Return the variable ``image``."""
    config = image.image.config
    return {
        "name": report.repository,
        "tag": report.tag,
        "digest": str(image.image.digest),
        "os": config.platform.os,
        "architecture": config.platform.architecture,
        "size": image.image.size,
        "layers": len(image.image.layers),
        "user": config.user,
        "labels": dict(config.labels),
        "env": [name for name, _ in config.env],
        # An image may leave out when it was made (OCI image-spec, config `created`). -1 is younger than any limit, so
        # rules ask `image.age_days >= 0` first.
        "age_days": (now - config.created).days if config.created else -1,
        **_lifecycle(image, now),
    }


def workload_variable(workload: Workload) -> dict[str, Any]:
    """Return the variable ``workload``. Values that the source does not set are absent: use ``has(workload.user)``."""
    plain = (
        "name",
        "image",
        "source",
        "kind",
        "namespace",
        "unit",
        "container",
        "container_kind",
        "user",
        "run_as_non_root",
        "read_only_root",
        "privileged",
        "allow_privilege_escalation",
        "seccomp",
        "apparmor",
        "network_mode",
        "pid_mode",
        "ipc_mode",
        "memory",
        "cpus",
        "pids_limit",
        "restart",
        "healthcheck",
        "replicas",
    )
    # What the source does not say is absent, not false: `has()` tells the difference, and reading it without `has()`
    # makes the rule incomplete.
    found = {name: getattr(workload, name) for name in plain}
    return {name: value for name, value in found.items() if value is not None} | {
        "labels": dict(workload.labels),
        "env": [variable.name for variable in workload.environment],
        "cap_add": list(workload.cap_add),
        "cap_drop": list(workload.cap_drop),
        "host_ports": [port.host_port for port in workload.ports if port.host_port is not None],
        "host_paths": [mount.source for mount in workload.mounts if mount.kind == "bind"],
        "networks": [network.name for network in workload.networks],
    }


def _lifecycle(image: ImageReport, now: datetime) -> dict[str, Any]:
    """Return the operating system and its days of support. Unknown values are absent, so that an expression that reads
    one fails and the rule is incomplete.
    """
    for engine in image.engines:
        coverage = engine.coverage
        if coverage.os_family:
            known: dict[str, Any] = {"os_family": coverage.os_family, "os_version": coverage.os_version}
            if coverage.os_end_of_life is not None:
                known["supported_days"] = (coverage.os_end_of_life - now.date()).days
            return known
    return {}


def finding_counts(image: ImageReport, sboms: Sequence[AttachedSbom]) -> dict[str, int]:
    """Return the variable ``counts``: findings of engines and trusted SBOMs, without duplicates."""
    names = (*Severity, "fixable", "unfixed", "known_exploited", *(s for s in STATUSES if s not in set(Severity)))
    counts = dict.fromkeys(map(str, names), 0)
    items = [found.vulnerability for found in agreement.findings(image.engines)]
    # Severity and fix are part of the key: what an SBOM adds counts if it is worse than what the engine found.
    counted = {(*agreement.identity(item), item.severity, item.fixable) for item in items}
    for item in (found.vulnerability for sbom in sboms for found in agreement.findings(sbom.answers)):
        if (key := (*agreement.identity(item), item.severity, item.fixable)) not in counted:
            counted.add(key)
            items.append(item)
    for item in items:
        counts[item.severity] += 1
        counts["fixable"] += item.fixable
        counts["known_exploited"] += bool(item.known_exploited)
        counts["unfixed"] += not item.fixable
        if item.status not in set(Severity):  # a severity here, not a status
            counts[item.status] += 1
    counts["components"] = len(agreement.components(image.engines))
    counts["secrets"] = sum(len(engine.secrets) for engine in image.engines)
    return counts
