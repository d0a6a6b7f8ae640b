"""``dockwarden webhook``: what registries call, whose secret is printed once."""

from __future__ import annotations

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings, secret_key
from scanner.model.actor import COMMAND_LINE
from scanner.model.audit import Action
from scanner.store import audit, deliveries, registries


@click.group()
def webhook() -> None:
    """Webhooks that registries call."""


@webhook.command("create")
@click.option(
    "--registry",
    "host",
    required=True,
    metavar="HOST",
    help="The registry that will call; added if it is not configured.",
)
@click.option("--format", "format_", default="distribution", show_default=True, help="What it sends.")
@click.option("--insecure", is_flag=True, help="A registry that is added speaks plain HTTP.")
@click.option(
    "--alias", "aliases", multiple=True, metavar="HOST", help="Another name that it gives itself in what it sends."
)
@pass_settings
def create(settings: Settings, host: str, format_: str, insecure: bool, aliases: tuple[str, ...]) -> None:
    """Create a webhook and print its secret, once."""
    key = secret_key(settings)
    with administration(settings) as session:
        view = registries.find(session, host) or registries.add(session, host, key, insecure=insecure, aliases=aliases)
        identifier, secret = deliveries.create_hook(session, f"pushes of {host}", format_, view.id, key)
        audit.record(
            session, COMMAND_LINE, Action.WEBHOOK_CREATE, identifier, detail={"registry": host, "format": format_}
        )
    base = settings.public_url.rstrip("/") or f"http://{settings.host}:{settings.port}"
    tell(f"have {host} POST to {base}/webhooks/{format_} with the header 'Authorization: Bearer <secret>'")
    tell("its secret, which is not shown again:")
    click.echo(secret.reveal())


@webhook.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Every webhook, without its secret."""
    with administration(settings) as session:
        found = deliveries.list_hooks(session, None)
    for hook in found:
        state = " (disabled)" if hook.disabled else ""
        click.echo(f"{hook.id}  {hook.host:32} {hook.format:14} project {hook.project}{state}")
    if not found:
        tell("there are no webhooks yet: dockwarden webhook create --registry HOST")
