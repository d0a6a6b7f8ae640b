"""``dockwarden admission``: setting up what asks before something is started."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from scanner import __version__
from scanner.commands._console import FILE, pass_settings, read, tell
from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.services.admission_manifests import Cluster, manifests

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_PEM = 1 << 20


@click.group()
def admission() -> None:
    """Admission: have a cluster ask before it starts something."""


@admission.command("kubernetes")
@click.option("--manifests", "wanted", is_flag=True, help="Print the manifests for kubectl apply.")
@click.option("--url", default="", metavar="URL", help="A server outside the cluster; without, one inside is set up.")
@click.option("--token-file", type=FILE, help="A token of scope admission; DOCKWARDEN_TOKEN without.")
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) by which the API server knows the server.")
@click.option("--image", default=f"dockwarden:{__version__}", show_default=True, help="The image of the server inside.")
@click.option("--namespace", default="dockwarden", show_default=True, help="Where the server inside runs.")
@click.option("--certificate", type=FILE, help="The certificate of the server inside, with its chain (PEM).")
@click.option("--key", type=FILE, help="Its private key (PEM).")
@click.option("--cert-manager", "issuer", default="", metavar="ISSUER", help="A ClusterIssuer that issues one instead.")
@click.option(
    "--settings-secret",
    default="",
    metavar="NAME",
    help="A secret of DOCKWARDEN_* variables with a database and a secret key: two replicas then share them.",
)
@click.option("--environment", "environments", multiple=True, help="A value of the label dockwarden/environment.")
@click.option("--exempt", multiple=True, help="Another namespace that is not asked about.")
@click.option(
    "--failure-policy",
    type=click.Choice(["Fail", "Ignore"]),
    default="Fail",
    show_default=True,
    help="What the API server does where no answer comes.",
)
@click.option("--pin-tags", is_flag=True, help="Also replace tags in new Pods by the digest that was judged.")
@click.option("--timeout", type=click.IntRange(1, 30), default=5, show_default=True, help="Seconds until then.")
@pass_settings
def kubernetes(
    settings: Settings,
    wanted: bool,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    image: str,
    namespace: str,
    certificate: Path | None,
    key: Path | None,
    issuer: str,
    settings_secret: str,
    environments: tuple[str, ...],
    exempt: tuple[str, ...],
    failure_policy: str,
    timeout: int,
    pin_tags: bool,
) -> None:
    """Set up the admission webhook of a Kubernetes cluster.

    The manifests hold the token: keep them as you keep secrets. Without a token only the server is set up, which then
    makes one. docs/admission.md leads through it.
    """
    if not wanted:
        raise UsageError("nothing to do", hint="--manifests prints what to give to kubectl apply -f -")
    for name in (namespace, *environments):
        if not _LABEL.fullmatch(name):
            raise UsageError(f"{name!r} is not a name of lower-case letters, digits and '-'")
    text = read(token_file, "the token file").strip() if token_file else os.environ.get("DOCKWARDEN_TOKEN", "")
    cluster = Cluster(
        token=Secret(text),
        url=url,
        ca=_bytes(ca_file),
        image=image,
        namespace=namespace,
        environments=environments,
        exempt=(*settings.admission_exempt, *exempt),
        failure_policy=failure_policy,
        timeout=timeout,
        certificate=_bytes(certificate),
        key=_bytes(key),
        issuer=issuer,
        settings_secret=settings_secret,
        pin_tags=pin_tags,
    )
    click.echo(manifests(cluster), nl=False)
    if not text:
        tell("the webhook is left out until there is a token: see docs/admission.md")
    elif failure_policy == "Ignore":
        tell("while the server cannot be reached, everything is let in (failurePolicy: Ignore)")


def _bytes(file: Path | None) -> bytes:
    return read_whole(file, _MAX_PEM) if file else b""
