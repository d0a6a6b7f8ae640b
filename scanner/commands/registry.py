"""``dockwarden registry``: the registries that a server pulls from, and an examination of a registry's security.

Exit codes of ``check``: 0: no finding of medium severity or more. 1: at least one. 3: a check of that severity could
not be completed.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from scanner import catalog
from scanner.commands._console import FILE, Exit, administration, pass_settings, prompt_secret, read, tell, write
from scanner.config import Secret, Settings, secret_key
from scanner.errors import UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.model.cloud_registry import KINDS, STATIC
from scanner.model.finding import CheckResult, Failed, Incomplete, NotApplicable, Severity
from scanner.model.plurals import number_of
from scanner.model.posture import Posture
from scanner.model.reference import Reference
from scanner.model.registry import HARBOR, IDENTITY, RegistryChanges, anonymous, changes
from scanner.model.untrusted import clean_text
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access
from scanner.scanning import posture
from scanner.services import reconciliation as polls
from scanner.services import registries as use_cases
from scanner.store import reconciliation, registries
from scanner.store.jobs import JobView
from scanner.store.reconciliation import ListBy

_MARKS = {"passed": ("✓", "32"), "failed": ("✕", "31"), "incomplete": ("?", "33"), "not-applicable": ("–", "2")}
_HARBOR = "It is a Harbor that may request scans. Reports to it hold vulnerabilities, or also the failed checks."
_KIND = "Kind of user name and password: static, or those of a cloud (docs/registries.md)."
_ROLE = "Use the identity that the cloud gives to the workers' machine or pod; no secret is stored."
_TENANT = "acr: the tenant's ID or domain name."
_ALIASES = "Another host name that the registry uses in its webhooks; in 'edit', an empty value ('') removes them."
_RECEIPTS = "Write signed decisions beside its images; needs push rights."
_ROLE_ARN = "ecr: role that the access key or the machine's identity assumes."
_SERVICE = "Another host that may get the password, such as GitLab for its registry. An empty value ('') removes it."
_FROM_FILE = "Read the password, token or key from a file, such as a Google service account's JSON."
_LOOK_SECONDS = 2.0
_ORDER = ("failed", "incomplete", "passed", "not-applicable")


@click.group()
def registry() -> None:
    """Registries: manage those that a server pulls from, and check how a registry is secured."""


# Each field has one option. `edit` and `credentials` ask for changes: without the option, a field is kept.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "aliases": {"flags": "--alias", "multiple": True, "metavar": "HOST", "help": _ALIASES},
    "insecure": {"flags": "--insecure/--secure", "is_flag": True, "help": "The registry uses plain HTTP."},
    "write_receipts": {"flags": "--write-receipts/--no-write-receipts", "is_flag": True, "help": _RECEIPTS},
    "harbor": {"flags": "--harbor", "type": click.Choice(HARBOR), "help": _HARBOR},
    "credentials": {"flags": "--credentials", "type": click.Choice(KINDS), "help": _KIND},
    "machine_role": {"flags": "--machine-role/--no-machine-role", "is_flag": True, "help": _ROLE},
    "username": {"flags": "--username", "help": "User name for pulls."},
    "tenant": {"flags": "--tenant", "help": _TENANT},
    "role_arn": {"flags": "--role-arn", "metavar": "ARN", "help": _ROLE_ARN},
    "external_id": {"flags": "--external-id", "help": "ecr: the external ID that the role's trust policy asks for."},
    "token_service": {"flags": "--token-service", "metavar": "HOST", "help": _SERVICE},
}
_CONNECTION = frozenset(_OPTIONS) - IDENTITY
Command = Callable[..., Any]


def _fields(names: Collection[str]) -> Callable[[Command], Command]:
    """The options of these fields. Their values come by name; None: the option was not given."""

    def decorate(command: Command) -> Command:
        for name, option in reversed(list(_OPTIONS.items())):
            if name in names:
                more = {key: value for key, value in option.items() if key != "flags"}
                command = click.option(option["flags"], name, default=None, **more)(command)
        return command

    return decorate


def _changes(given: Mapping[str, Any], ca_file: Path | None = None, no_ca: bool = False) -> RegistryChanges:
    """Return the fields whose options were given. An empty host name among several removes them."""
    if ca_file and no_ca:
        raise UsageError("give --ca-file or --no-ca, not both")
    found = {name: value for name, value in given.items() if value is not None and value != ()}
    if "aliases" in found:
        found["aliases"] = [alias for alias in found["aliases"] if alias]
    if ca_file or no_ca:
        found["ca_pem"] = read(ca_file, "CA file") if ca_file else ""
    return changes(found)


@registry.command("add")
@click.argument("host")
@_fields(_OPTIONS)
@click.option("--password-file", type=FILE, help=_FROM_FILE)
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for it, in addition to the system's.")
@click.option("--project", default="default", show_default=True, help="Project that owns the registry's images.")
@pass_settings
def add(
    settings: Settings, host: str, password_file: Path | None, ca_file: Path | None, project: str, **given: Any
) -> None:
    """Configure the registry HOST (host[:port]).

    With --username or --credentials, the password, token or secret is read from --password-file or
    DOCKWARDEN_PASSWORD, or prompted for. A cloud gives out tokens for it when images are pulled: ecr (access key),
    gar (service account's key), acr (client secret); or for --machine-role.
    """
    chosen = _changes(given, ca_file)
    is_cloud = chosen.get("credentials", STATIC) != STATIC
    needs = bool(chosen.get("username") or password_file or is_cloud) and not chosen.get("machine_role")
    password = _password(password_file) if needs else None
    with administration(settings) as session:
        use_cases.add(session, COMMAND_LINE, secret_key(settings), host, password=password, project=project, **chosen)
    tell(f"registry {host} is configured; next, create a webhook: dockwarden webhook create --registry {host}")


@registry.command("list")
@pass_settings
def list_registries(settings: Settings) -> None:
    """List configured registries. Passwords are not shown."""
    with administration(settings) as session:
        found = registries.list_registries(session)
    for view in found:
        connection = "plain HTTP" if view.insecure else "TLS, own CA" if view.ca_pem else "TLS"
        access = f"signs in as {view.username}" if view.username else "token" if view.has_password else "anonymous"
        if view.credentials != STATIC:
            access = f"{view.credentials}, {'machine role' if view.machine_role else view.username or 'key'}"
        also = f", also {', '.join(view.aliases)}" if view.aliases else ""
        asks = "" if view.harbor == "off" else f", Harbor ({view.harbor})"
        click.echo(f"{view.host:40} {connection:12} {access:36} project {view.project}{asks}{also}")
    if not found:
        tell("there are no registries yet: dockwarden registry add HOST")


@registry.command("edit")
@click.argument("host")
@_fields(_CONNECTION | {"credentials", "machine_role", "tenant"})
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) that replace the registry's present ones.")
@click.option("--no-ca", is_flag=True, help="Trust the system's CA certificates only.")
@pass_settings
def edit(settings: Settings, host: str, ca_file: Path | None, no_ca: bool, **given: Any) -> None:
    """Change the settings of the registry HOST. Options that are not given keep their value.

    A new password or secret is set by 'registry credentials'. Another kind of credentials forgets the stored ones.
    """
    chosen = _changes(given, ca_file, no_ca)
    with administration(settings) as session:
        found = use_cases.by_host(session, host)
        if not chosen:
            raise UsageError("no option was given: nothing would change", hint="dockwarden registry edit --help")
        use_cases.change(session, COMMAND_LINE, secret_key(settings), found.id, **chosen)
    tell(f"registry {host} is changed")


@registry.command("credentials")
@click.argument("host")
@_fields(IDENTITY)
@click.option("--password-file", type=FILE, help=_FROM_FILE)
@click.option("--remove", is_flag=True, help="Delete the stored credentials: pulls are anonymous.")
@pass_settings
def credentials(settings: Settings, host: str, password_file: Path | None, remove: bool, **given: Any) -> None:
    """Replace the credentials of the registry HOST. The next pull uses them.

    The password, token or secret is read from --password-file or DOCKWARDEN_PASSWORD, or prompted for; none is needed
    with --machine-role.
    """
    chosen = _changes(given)
    if remove and (chosen or password_file):
        raise UsageError("give --remove alone")
    is_role = bool(chosen.get("machine_role"))
    if is_role and password_file:
        raise UsageError("give --machine-role or --password-file, not both")
    key = secret_key(settings)
    with administration(settings) as session:
        found = use_cases.by_host(session, host)
    if remove:
        chosen = anonymous()
    # Between two transactions: the prompt waits for a person, and the first one would hold SQLite's write lock
    # meanwhile.
    password = Secret("") if remove else None if is_role else _password(password_file)
    with administration(settings) as session:
        use_cases.change(session, COMMAND_LINE, key, found.id, password=password, **chosen)
    tell(
        f"registry {host}: "
        + ("pulls are anonymous now" if remove else "new credentials are stored; the next pull uses them")
    )


@registry.command("remove")
@click.argument("host")
@pass_settings
def remove(settings: Settings, host: str) -> None:
    """Delete the registry HOST and its credentials. Scan results are kept. Remove its webhooks first."""
    with administration(settings) as session:
        use_cases.remove(session, COMMAND_LINE, use_cases.by_host(session, host).id)
    tell(f"registry {host} is removed")


@registry.command("poll")
@click.argument("host")
@click.option("--every", metavar="PERIOD", help="Poll at this interval from now on: 15m, 1h, 1d; off: no polls.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Poll these repositories only; '' selects all.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out these repositories; '' leaves out none.")
@click.option(
    "--list-by",
    type=click.Choice([one.value for one in ListBy]),
    help="Where polls and imports list repositories: the best list that answers, the registry's own API, /v2/_catalog, "
    "or what pushes and scans have named.",
)
@click.option("--status", is_flag=True, help="Show the settings and the last result.")
@pass_settings
def poll(
    settings: Settings,
    host: str,
    every: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    list_by: str | None,
    status: bool,
) -> None:
    """Find pushes to the registry HOST that its webhooks lost, and scan them.

    Without options, a worker polls now. A pattern selects repositories without the host: shop/**.
    """
    if status and (every or include or exclude or list_by):
        raise UsageError("give --status alone")
    changed = every is not None or include or exclude or list_by
    with administration(settings) as session:
        found = use_cases.by_host(session, host)
        if changed:
            view = polls.change(
                session,
                COMMAND_LINE,
                found.id,
                seconds=None if every is None else polls.interval(every),
                include=[pattern for pattern in include if pattern] if include else None,
                exclude=[pattern for pattern in exclude if pattern] if exclude else None,
                list_by=ListBy(list_by) if list_by else None,
            )
        elif status:
            view = polls.settings(session, COMMAND_LINE, found.id)
        else:
            polls.poll(session, COMMAND_LINE, found.id)
            tell(f"a worker polls {host} soon; see the result with: dockwarden registry poll {host} --status")
            return
        run = polls.last_poll(session, COMMAND_LINE, found.id)
    click.echo(
        f"{host}: {f'polled every {polls.duration(view.seconds)}' if view.seconds else 'not polled at intervals'}"
    )
    for label, patterns in (("only", view.include), ("except", view.exclude)):
        if patterns:
            click.echo(f"  {label}: {', '.join(patterns)}")
    if view.list_by is not ListBy.AUTO:
        click.echo(f"  repositories listed by: {view.list_by}")
    if run is not None:
        click.echo(f"  last poll: {_run_text(run)}")
        _tell_listed_by(view.listed_by)
    for problem in view.problems if status else ():
        click.echo(f"  error: {clean_text(problem, 300)}")


@registry.command("import")
@click.argument("host")
@click.option("--dry-run", is_flag=True, help="Only count what would be scanned.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Import these repositories only.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out these repositories.")
@click.option("--status", is_flag=True, help="Show the progress of the newest import.")
@click.option("--cancel", is_flag=True, help="Cancel the unfinished import and its waiting scans.")
@click.option("--wait", is_flag=True, help="Wait for the end and show the progress.")
@pass_settings
def import_(
    settings: Settings,
    host: str,
    dry_run: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    status: bool,
    cancel: bool,
    wait: bool,
) -> None:
    """Scan every tag of the registry HOST that has not been scanned.

    A worker does it, behind the scans of pushes. A pattern selects repositories without the host: shop/**.
    """
    if (status or cancel) and (dry_run or include or exclude or status is cancel):
        raise UsageError("give --status or --cancel alone")
    with administration(settings) as session:
        found = use_cases.by_host(session, host)
        if cancel:
            view: polls.ImportView | None = polls.cancel_import(session, COMMAND_LINE, found.id)
        elif status:
            view = polls.last_import(session, COMMAND_LINE, found.id)
        else:
            view = polls.start_import(
                session, COMMAND_LINE, found.id, dry_run=dry_run, include=include, exclude=exclude
            )
    if view is None:
        tell(f"{host} was never imported: dockwarden registry import {host} --dry-run")
        return
    # Each look in a transaction of its own: one that lasts would keep SQLite from writing.
    while wait and not view.state.terminal:
        tell(_import_text(view))
        time.sleep(_LOOK_SECONDS)
        with administration(settings) as session:
            view = polls.last_import(session, COMMAND_LINE, found.id) or view
    click.echo(f"{host}: {_import_text(view)}")
    _tell_listed_by(view.listed_by)
    for problem in view.problems:
        click.echo(f"  error: {clean_text(problem, 300)}")
    if not (status or cancel or view.state.terminal):
        tell(f"a worker continues; see its progress with: dockwarden registry import {host} --status")


def _run_text(run: JobView) -> str:
    if run.state.terminal:
        return f"{run.state}, {run.message}" if run.message else str(run.state)
    progress = f": {run.progress.message}, {run.progress.done} tags" if run.progress else ""
    return f"unfinished{progress}" + (f" ({run.message})" if run.message else "")


def _tell_listed_by(found: reconciliation.ListedBy) -> None:
    if found.id:
        click.echo(f"  repositories listed by {clean_text(found.title, 100)}")
    if found.note:
        click.echo(f"  note: {clean_text(found.note, 300)}")


def _import_text(view: polls.ImportView) -> str:
    what = "count" if view.dry_run else "import"
    left = f"; about {polls.duration(view.seconds_left)}" if view.seconds_left else ""
    left += (" with one worker slot" if view.dry_run else " left") if left else ""
    if view.state.terminal:
        return f"{what} {view.state}: {view.message or view.job.reason}{left}"
    places = number_of(view.repositories, "repository", "repositories")
    numbers = f"{number_of(view.tags, 'tag')} in {places}, {view.known} scanned before"
    return f"{what} unfinished ({view.phase}): {numbers}, {view.ended} of {view.queued} queued scans ended{left}"


def _password(file: Path | None = None) -> Secret:
    if file is not None:
        return Secret(read(file, "password file").strip())
    # No option takes the password itself: arguments of a process are visible to every user of the machine.
    given = os.environ.get("DOCKWARDEN_PASSWORD")
    return Secret(given if given is not None else prompt_secret("Password or token"))


@registry.command("check")
@click.argument("host", required=False)
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for it, in addition to the system's.")
@click.option(
    "--insecure-registry",
    is_flag=False,
    flag_value="",
    metavar="[HOST]",
    help="Use plain HTTP (port 80 by default), and send credentials over it.",
)
@click.option("--repository", default="", metavar="NAME", help="Repository to request access to.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("-o", "--output", type=FILE, help="Write the report to a file instead of stdout.")
@pass_settings
def check(
    settings: Settings,
    host: str | None,
    ca_file: Path | None,
    insecure_registry: str | None,
    repository: str,
    format_: str,
    output: Path | None,
) -> Exit:
    """Examine TLS, authentication and access control of the registry HOST (host[:port]).

    Changes nothing in the registry. Uses the credentials of your docker config to find a repository and to
    compare digests, and sends them over trusted TLS only.

    Exits with 1 for a finding of medium severity or more, and with 3 if a check could not be completed.
    """
    # Accept the repository with HOST, as 'scan' takes it, or without.
    host = _host(host or insecure_registry or "")
    # The flag without a value applies to HOST itself; with a value it names the host, as in `scan`.
    insecure = insecure_registry in ("", host) or host in settings.insecure_registries
    name = _repository(host, repository)
    access = Access(insecure, ca_file, named=True)
    tell(f"examining {host}")
    found = posture.examine(host, settings, CredentialStore(settings), access, name)
    if format_ == "json":
        write(json.dumps(document(found), indent=2), output)
    else:
        color = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        write("\n".join(lines(found, color=color)), output)
    return exit_of_posture(found)


def _host(text: str) -> str:
    """``host[:port]``. Raises UsageError for anything else."""
    try:
        if Reference.parse(f"{text}/x:y").host == text:
            return text
    # Round trip: only a text that the reference grammar reads back as the same host is one.
    except UsageError:
        pass
    if text and all(c.isalnum() or c in "-." for c in text):
        return (
            text  # a bare name such as "registry" is a host here, although an image reference reads it as a repository
        )
    raise UsageError(f"not a registry host: {text[:200]!r}", hint="write host[:port], without https://")


def _repository(host: str, text: str) -> str:
    if not text:
        return ""
    name = text.removeprefix(f"{host}/")
    # RFC 2606 reserves the name. A host is needed for the grammar; "library/" must not be added as for Docker Hub.
    parsed = Reference.parse(f"registry.invalid/{name}")
    if parsed.repository != name:
        raise UsageError(
            f"not a repository: {text[:200]!r}", hint="write the repository's name in the registry, such as team/app"
        )
    return name


def exit_of_posture(found: Posture) -> Exit:
    """Return the exit code. Only medium severity or more counts, so that a missing header fails no build."""
    serious = [r for r in found.results if _severity(r).rank >= Severity.MEDIUM.rank]
    if any(isinstance(result.outcome, Failed) for result in serious):
        return Exit.DENIED
    return Exit.UNDECIDED if any(isinstance(result.outcome, Incomplete) for result in serious) else Exit.OK


def _severity(result: CheckResult) -> Severity:
    outcome = result.outcome
    return outcome.severity or result.severity if isinstance(outcome, Failed) else result.severity


def document(found: Posture) -> dict[str, object]:
    """Format the posture as JSON: each result with title and remedy. Schema ``dockwarden/posture/1``."""
    values = TypeAdapter(Posture).dump_python(found, mode="json")
    checks = catalog.registry_checks()
    for result in values["results"]:
        check = checks[result["check"]]
        outcome = result["outcome"]
        result["title"], result["remedy"] = check.title, outcome.get("remedy") or check.remedy
    return {"schema": "dockwarden/posture/1", **values}


def lines(found: Posture, *, color: bool = False) -> Iterator[str]:
    """Format the posture for a terminal: failed checks first, each with evidence and remedy."""
    kinds = [result.outcome.kind for result in found.results]
    counts = ", ".join(f"{kinds.count(kind)} {kind.replace('-', ' ')}" for kind in _ORDER if kind in kinds)
    yield f"{clean_text(found.host, 300)}: {counts}"
    yield f"  examined {found.checked_at:%Y-%m-%d %H:%M} UTC" + (
        f", access tested on {clean_text(found.repository, 200)}" if found.repository else ""
    )
    yield ""
    ranked = sorted(found.results, key=lambda r: (_ORDER.index(r.outcome.kind), -_severity(r).rank))
    for result in ranked:
        yield from _result(result, color)


def _result(result: CheckResult, color: bool) -> Iterator[str]:
    outcome = result.outcome
    check = catalog.registry_checks()[result.check]
    mark, code = _MARKS[outcome.kind]
    mark = f"\x1b[{code}m{mark}\x1b[0m" if color else mark
    what = f"{_severity(result)}: {check.title}" if isinstance(outcome, Failed) else ""
    yield f"{mark} {result.check:<32} {what}".rstrip()
    if isinstance(outcome, Failed):
        for evidence in outcome.evidence[:10]:
            yield from _wrapped_lines(evidence.message)
        yield from _wrapped_lines(f"remedy: {outcome.remedy or check.remedy}")
    elif isinstance(outcome, Incomplete):
        yield from _wrapped_lines(f"unknown: {outcome.detail or outcome.reason}")
    elif isinstance(outcome, NotApplicable):
        yield from _wrapped_lines(f"does not apply: {outcome.reason}")
    else:
        for evidence in outcome.tolerated[:3]:
            yield from _wrapped_lines(evidence.message)


def _wrapped_lines(text: str) -> list[str]:
    return textwrap.wrap(clean_text(text, 600), 110, initial_indent="    ", subsequent_indent="      ")
