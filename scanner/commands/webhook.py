"""``dockwarden webhook``: webhooks for registries. A secret is printed once, when it is created."""

from __future__ import annotations

import click
from sqlalchemy.engine import Connection

from scanner import plugins
from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Secret, Settings, secret_key
from scanner.errors import NotFoundError
from scanner.model.actor import COMMAND_LINE
from scanner.services import registries as registry_use_cases
from scanner.services import webhooks as use_cases
from scanner.store import deliveries, registries

FORMATS = plugins.ids("web.webhooks")  # from file names, because commands must not import the web package


@click.group()
def webhook() -> None:
    """Webhooks for registries: create, list, rotate, disable, enable, remove.

    WEBHOOK is an id from 'webhook list', or the beginning of one.
    """


@webhook.command("create")
@click.option(
    "--registry",
    "host",
    required=True,
    metavar="HOST",
    help="Registry that calls the webhook; it is added if it is not configured.",
)
@click.option(
    "--format",
    "format_",
    default="distribution",
    show_default=True,
    type=click.Choice(FORMATS),
    help="Format of the registry's notifications.",
)
@click.option("--name", default="", help="Name of the webhook. Default: 'pushes of HOST'.")
@click.option("--header", default="", help="The HTTP header that carries the secret. Default: the format's own.")
@click.option(
    "--sender",
    default="",
    help="Required signer of deliveries: the service account's e-mail address (gar), the SNS topic's ARN (ecr).",
)
@click.option("--insecure", is_flag=True, help="Use plain HTTP, if the registry is added by this command.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="HOST",
    help="Another host name that the registry uses in its notifications.",
)
@pass_settings
def create(
    settings: Settings,
    host: str,
    format_: str,
    name: str,
    header: str,
    sender: str,
    insecure: bool,
    aliases: tuple[str, ...],
) -> None:
    """Create a webhook and print its secret. It is not shown again."""
    key = secret_key(settings)
    with administration(settings) as session:
        view = registries.find(session, host) or registry_use_cases.add(
            session, COMMAND_LINE, key, host, insecure=insecure, aliases=aliases
        )
        hook, secret = use_cases.create(
            session, COMMAND_LINE, key, view.id, format_, FORMATS, name=name, header=header, sender=sender
        )
    _print_secret(settings, hook, secret)


@webhook.command("list")
@pass_settings
def list_webhooks(settings: Settings) -> None:
    """List webhooks. Secrets are not shown."""
    with administration(settings) as session:
        found = deliveries.list_hooks(session, None)
    for hook in found:
        state = " (disabled)" if hook.disabled else ""
        state += f" (two secrets since {hook.rotating_since:%Y-%m-%d %H:%M})" if hook.rotating_since else ""
        last = f"last delivery {hook.last_delivery:%Y-%m-%d %H:%M}" if hook.last_delivery else "no delivery yet"
        click.echo(f"{hook.id}  {hook.host:32} {hook.format:14} project {hook.project}  {last}{state}")
    if not found:
        tell("there are no webhooks yet: dockwarden webhook create --registry HOST")


@webhook.command("rotate")
@click.argument("identifier", metavar="WEBHOOK")
@click.option("--finish", is_flag=True, help="Delete the old secret, when the registry sends the new one.")
@click.option("--cancel", is_flag=True, help="Delete the new secret and keep the old one.")
@pass_settings
def rotate(settings: Settings, identifier: str, finish: bool, cancel: bool) -> None:
    """Create a second secret and print it. Both are valid until --finish or --cancel."""
    if finish and cancel:
        raise click.UsageError("give --finish or --cancel, not both")
    key = secret_key(settings)
    with administration(settings) as session:
        hook = _hook_by_prefix(session, identifier)
        if finish or cancel:
            use_cases.finish(session, COMMAND_LINE, key, hook.id, "new" if finish else "old")
        else:
            hook, secret = use_cases.rotate(session, COMMAND_LINE, key, hook.id)
    if finish or cancel:
        tell(f"webhook {hook.name!r} has one secret now: the {'new' if finish else 'old'} one")
        return
    _print_secret(settings, hook, secret)
    tell(f"the old secret stays valid until: dockwarden webhook rotate {hook.id[:8]} --finish")


@webhook.command("disable")
@click.argument("identifier", metavar="WEBHOOK")
@pass_settings
def disable(settings: Settings, identifier: str) -> None:
    """Refuse deliveries to the webhook. Earlier deliveries are kept."""
    _set_disabled(settings, identifier, True)


@webhook.command("enable")
@click.argument("identifier", metavar="WEBHOOK")
@pass_settings
def enable(settings: Settings, identifier: str) -> None:
    """Accept deliveries to the webhook again."""
    _set_disabled(settings, identifier, False)


def _set_disabled(settings: Settings, identifier: str, disabled: bool) -> None:
    with administration(settings) as session:
        hook = use_cases.set_disabled(session, COMMAND_LINE, _hook_by_prefix(session, identifier).id, disabled)
    tell(f"webhook {hook.name!r} is {'disabled' if disabled else 'enabled'}")


@webhook.command("remove")
@click.argument("identifier", metavar="WEBHOOK")
@pass_settings
def remove(settings: Settings, identifier: str) -> None:
    """Delete a webhook and its deliveries. Scans that they started are kept."""
    with administration(settings) as session:
        hook = _hook_by_prefix(session, identifier)
        use_cases.remove(session, COMMAND_LINE, hook.id)
    tell(f"webhook {hook.name!r} of {hook.host} is deleted")


def _hook_by_prefix(session: Connection, identifier: str) -> deliveries.HookView:
    """Return the webhook whose id begins with ``identifier``. Raises NotFoundError if there is not exactly one."""
    found = [hook for hook in deliveries.list_hooks(session, None) if identifier and hook.id.startswith(identifier)]
    if len(found) != 1:
        several = f"{len(found)} webhooks begin" if found else "no webhook begins"
        raise NotFoundError(f"{several} with {identifier[:36]!r}", hint="dockwarden webhook list")
    return found[0]


def _print_secret(settings: Settings, hook: deliveries.HookView, secret: Secret) -> None:
    """Print the secret to stdout and the instructions to stderr."""
    base = settings.public_url.rstrip("/") or f"http://{settings.host}:{settings.port}"
    if hook.header or hook.format == "distribution":
        header = hook.header or "Authorization"
        value = "Bearer <secret>" if header.lower() == "authorization" else "<secret>"
        tell(f"configure {hook.host} to POST to {base}/webhooks/{hook.format} with the header '{header}: {value}'")
    else:
        tell(f"configure {hook.host} to POST to {base}/webhooks/{hook.format}")
    tell(f"the registry's configuration for this format: docs/webhooks.md, and the page Registries of {base}")
    if not settings.public_url:
        tell("a registry on another machine cannot use this address: set DOCKWARDEN_PUBLIC_URL to the server's address")
    tell("the secret, which is not shown again:")
    click.echo(secret.reveal())
