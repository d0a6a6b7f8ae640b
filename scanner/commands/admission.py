"""``dockwarden admission``: set up admission control for Kubernetes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from scanner import __version__
from scanner.commands._console import FILE, pass_settings, read, tell
from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.patterns import lazy
from scanner.services.admission_manifests import Cluster, manifests

# RFC 1123, a DNS label.
_LABEL = lazy(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_PEM = 1 << 20  # bytes of a file with certificates


@click.group()
def admission() -> None:
    """Admission control: let a cluster ask this service before it starts a container."""


@admission.command("kubernetes")
@click.option("--manifests", "wanted", is_flag=True, help="Print the manifests for kubectl apply.")
@click.option("--url", default="", metavar="URL", help="Server outside the cluster. Default: set one up inside it.")
@click.option("--token-file", type=FILE, help="File with a token of scope admission. Default: DOCKWARDEN_TOKEN.")
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) with which the API server verifies the server.")
@click.option("--image", default=f"dockwarden:{__version__}", show_default=True, help="Image of the server to set up.")
@click.option("--namespace", default="dockwarden", show_default=True, help="Namespace of the server to set up.")
@click.option("--certificate", type=FILE, help="Certificate chain (PEM) of the server to set up.")
@click.option("--key", type=FILE, help="Private key (PEM) of that certificate.")
@click.option("--cert-manager", "issuer", default="", metavar="ISSUER", help="ClusterIssuer that issues a certificate.")
@click.option(
    "--settings-secret",
    default="",
    metavar="NAME",
    help="Secret with DOCKWARDEN_* variables (database URL, secret key); two replicas share it.",
)
@click.option(
    "--client-name",
    "client_names",
    multiple=True,
    metavar="NAME",
    help="Name of the API server's client certificate, which then replaces the token (may be repeated).",
)
@click.option(
    "--client-ca", type=FILE, help="CA (PEM) of the API server's client certificate, for the server to set up."
)
@click.option(
    "--environment",
    "environments",
    multiple=True,
    help="Environment to review: a value of the label dockwarden/environment (may be repeated).",
)
@click.option("--exempt", multiple=True, help="Namespace that is not reviewed (may be repeated).")
@click.option(
    "--failure-policy",
    type=click.Choice(["Fail", "Ignore"]),
    default="Fail",
    show_default=True,
    help="What the API server does if it gets no answer.",
)
@click.option("--pin-tags", is_flag=True, help="Also replace tags in new Pods by the digest that was judged.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 30),
    default=5,
    show_default=True,
    help="Seconds that the API server waits for an answer.",
)
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
    client_names: tuple[str, ...],
    client_ca: Path | None,
    environments: tuple[str, ...],
    exempt: tuple[str, ...],
    failure_policy: str,
    timeout: int,
    pin_tags: bool,
) -> None:
    """Set up the admission webhook of a Kubernetes cluster.

    The manifests contain the token: store them like a secret. Without a token only the server is set up; create a
    token there, and run this command again. See docs/admission.md.
    """
    if not wanted:
        raise UsageError("--manifests is missing", hint="add --manifests, and pipe the output to: kubectl apply -f -")
    for name in (namespace, *environments):
        # Names go into YAML and into DNS names: a label (RFC 1123) needs no quoting in either.
        if not _LABEL.fullmatch(name):
            raise UsageError(f"not a valid name: {name!r}", hint="use lower-case letters, digits and '-'")
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
        client_names=client_names,
        client_ca=_bytes(client_ca),
        pin_tags=pin_tags,
    )
    click.echo(manifests(cluster), nl=False)
    if client_names:
        tell("API servers need --admission-control-config-file with this certificate: see docs/admission.md")
    elif not text:
        tell("the webhook is left out because no token was given: see docs/admission.md")
    if (text or client_names) and failure_policy == "Ignore":
        tell("failurePolicy is Ignore: while the server cannot be reached, every container is admitted")


def _bytes(file: Path | None) -> bytes:
    return read_whole(file, _MAX_PEM) if file else b""
