"""``dockwarden trust``: verify an image's signature by one scheme, or inspect it by all.

Exit codes: 0 verified; 1 refused or not signed; 3 could not be determined.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner import catalog
from scanner.commands._console import (
    FILE,
    Exit,
    ListedOption,
    administration,
    choose,
    pass_settings,
    read,
    rfc3339,
    tell,
)
from scanner.config import Settings
from scanner.errors import ImageError, RemoteError, ScannerError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.glob import matches
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.model.untrusted import clean_text
from scanner.scanning import verification
from scanner.trust._state import DirectoryState, NoState
from scanner.trust.base import (
    UNSOUND_TRUST,
    NameScheme,
    TrustJob,
    TrustOptions,
    TrustQuestion,
    TrustRoot,
    TrustScheme,
    TrustState,
)

if TYPE_CHECKING:
    from scanner.policy.retirement import Dependence

_STATUS_NAMES = {TrustStatus.NOT_SIGNED: "refused"}  # scripts treat unsigned as refused; ``reason`` tells them apart
_TRIES = 2  # a user is waiting: give up on a failing registry sooner than a service does
_MARKS = {
    TrustStatus.VERIFIED: "✓ verified",
    TrustStatus.NOT_SIGNED: "– not signed",
    TrustStatus.REFUSED: "✕ refused",
    TrustStatus.UNKNOWN: "? unknown",
}
# Which answer of a scheme counts: a verified one first, then an unknown one, then a refusal. One valid signature is
# enough, and an unknown answer must not be reported as a definite refusal.
_ORDER = (TrustStatus.VERIFIED, TrustStatus.UNKNOWN, TrustStatus.REFUSED, TrustStatus.NOT_SIGNED)


@click.group()
def trust() -> None:
    """Image signatures: verify, inspect, and manage trust roots."""


AT = click.option(
    "--at", "now", callback=rfc3339, metavar="TIME", help="Verify as of this RFC 3339 time instead of now."
)
CA_FILE = click.option(
    "--ca-file", type=FILE, help="CA certificates (PEM) to trust for the registry and the Notary server."
)
INSECURE = click.option("--insecure-registry", multiple=True, metavar="HOST", help="Use plain HTTP for this registry.")
STATE = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Directory for the last versions seen, to detect a rollback later. Default: nothing is kept.",
)
SERVER = click.option("--notary-server", default="", metavar="URL", help="URL of the Notary v1 server.")
FORMAT = click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), show_default=True)


def _scheme(**more: Any) -> Callable[[Any], Any]:
    """The ``--scheme`` option. Its help lists the schemes."""
    return click.option(
        "--scheme", cls=ListedOption, listed=catalog.schemes, metavar="SCHEME", help="The signature scheme.", **more
    )


@trust.command("schemes")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "markdown"]), show_default=True)
def trust_schemes(format_: str) -> None:
    """List the signature schemes."""
    schemes = catalog.schemes().values()
    if format_ == "markdown":
        click.echo(schemes_table(schemes), nl=False)
        return
    for scheme in schemes:
        click.echo(f"{scheme.id:10}  {scheme.title}\n{'':10}  {scheme.describe()}")


def schemes_table(schemes: Iterable[TrustScheme]) -> str:
    """Return the table of schemes for ``docs/signatures.md``."""
    lines = ["| scheme | name | what it verifies | without a registry |", "|---|---|---|---|"]
    for scheme in schemes:
        offline = "yes: it signs names" if isinstance(scheme, NameScheme) else "no: its signatures lie beside the image"
        lines.append(f"| `{scheme.id}` | {scheme.title} | {scheme.describe()} | {offline} |")
    return "\n".join(lines) + "\n"


@trust.command("verify")
@click.argument("image", required=False)
@_scheme(default="notary-v1", show_default=True)
@SERVER
@click.option(
    "--gun",
    default="",
    help="Name that was signed, if it differs from IMAGE's. With --tag or --digest, no registry is contacted.",
)
@click.option("--tag", help="Tag to verify instead of IMAGE's.")
@click.option("--digest", help="Digest to verify instead of IMAGE's.")
@click.option(
    "--trust",
    "given",
    metavar="FILE|KEYID|tofu",
    help="Trust root: a file (JSON or PEM), a key id, or 'tofu' (trust on first use).",
)
@click.option(
    "--require-signer",
    "require_signers",
    multiple=True,
    metavar="NAME",
    help="Signer that must have signed (may be repeated: all must have signed).",
)
@STATE
@CA_FILE
@INSECURE
@AT
@FORMAT
@pass_settings
def trust_verify(
    settings: Settings,
    image: str | None,
    scheme: str,
    notary_server: str,
    gun: str,
    tag: str | None,
    digest: str | None,
    given: str | None,
    require_signers: tuple[str, ...],
    state_dir: Path | None,
    ca_file: Path | None,
    insecure_registry: tuple[str, ...],
    now: datetime,
    format_: str,
) -> Exit:
    """Verify IMAGE's signature by one scheme.

    Exit codes: 0 verified; 1 refused or not signed; 3 could not be determined (no server, no trust root).
    """
    reference = _reference(image, gun, tag, digest)
    plugin = choose(catalog.schemes(), scheme, "signature scheme")
    # Notary signs names, so a known digest needs no registry: this also answers for images that are gone.
    offline = isinstance(plugin, NameScheme) and (image is None or bool(gun and (tag or digest)) or "@" in image)
    options = TrustOptions(notary_server, gun, require_signers, ca_file)
    question = _question(settings, reference, options, state_dir, insecure_registry, now, offline=offline)
    if image is None and not isinstance(plugin, NameScheme):
        raise UsageError(
            f"{scheme} needs an IMAGE",
            hint="the registry stores this scheme's signatures with the image: name it as host/repo:tag",
        )
    answer = question.decide(plugin, given)
    click.echo(json.dumps(as_document(answer), indent=2) if format_ == "json" else describe(answer))
    return exit_of_answer(answer)


@trust.command("inspect")
@click.argument("image")
@SERVER
@click.option("--gun", default="", help="Name that was signed, if it differs from IMAGE's.")
@click.option(
    "--trust",
    "given",
    multiple=True,
    metavar="SCHEME=FILE|KEYID|tofu",
    help="Trust root of a scheme (may be repeated).",
)
@STATE
@CA_FILE
@INSECURE
@AT
@FORMAT
@pass_settings
def trust_inspect(
    settings: Settings,
    image: str,
    notary_server: str,
    gun: str,
    given: tuple[str, ...],
    state_dir: Path | None,
    ca_file: Path | None,
    insecure_registry: tuple[str, ...],
    now: datetime,
    format_: str,
) -> Exit:
    """Show the signatures of IMAGE by every scheme: who signed, and why each is accepted or refused.

    Exit codes: 0 at least one scheme verifies and none refuses; 1 one refuses, or nobody signed; 3 could not be
    determined.
    """
    schemes = catalog.schemes()
    roots: dict[str, list[TrustRoot]] = {name: [] for name in schemes}
    for item in given:
        name, equals, what = item.partition("=")
        plugin = choose(schemes, name, "signature scheme")
        if not equals or not what:
            raise UsageError(
                f"--trust {item[:40]!r} is not SCHEME=FILE", hint="write SCHEME=FILE, SCHEME=KEYID or notary-v1=tofu"
            )
        roots[name].append(_root(plugin, what))
    options = TrustOptions(notary_server, gun, (), ca_file)
    question = _question(settings, Reference.parse(image), options, state_dir, insecure_registry, now)
    answers = question.verify_all(
        schemes, {name: tuple(roots[name]) or _named_roots(settings, question.name, name) for name in schemes}
    )
    if format_ == "json":
        click.echo(json.dumps({name: [as_document(a) for a in found] for name, found in answers.items()}, indent=2))
    else:
        click.echo(f"{question.reference}\n")
        for name, found in answers.items():
            click.echo(schemes[name].title)
            click.echo("\n".join(f"  {line}" for answer in found for line in describe(answer).splitlines()) + "\n")
    # An attestation says something about the image; it does not sign it.
    signatures = [a for found in answers.values() for a in found if not a.predicate_type]
    # A scheme that refuses counts even if another verifies: the image is signed with a key that is not trusted.
    refused = next((a for a in signatures if a.status is TrustStatus.REFUSED), None)
    return exit_of_answer(refused or decisive(signatures))


@trust.group("root")
def trust_root() -> None:
    """Trust roots, by which scans and policies verify signatures."""


@trust_root.command("add")
@click.argument("name")
@click.argument("given", metavar="FILE|KEYID|tofu")
@_scheme(required=True)
@click.option(
    "--scope",
    multiple=True,
    metavar="GLOB",
    help="Repositories that it applies to, such as registry.example.com/shop/**. Default: all.",
)
@click.option("--notary-server", default="", metavar="URL", help="The Notary v1 server of these repositories.")
@pass_settings
def trust_root_add(
    settings: Settings, name: str, given: str, scheme: str, scope: tuple[str, ...], notary_server: str
) -> None:
    """Add or change a trust root. FILE holds public keys and certificates, never secrets."""
    from scanner.services import trust_roots

    plugin = choose(catalog.schemes(), scheme, "signature scheme")
    document = dict(_root(plugin, given).document)
    if notary_server:
        document["server"] = notary_server
    with administration(settings) as session:
        view = trust_roots.write(session, name, scheme, json.dumps(document), scope, COMMAND_LINE, where=name)
    tell(f"trust root {name!r}, version {view.version}, for {', '.join(view.scope)}")


@trust_root.command("list")
@FORMAT
@pass_settings
def trust_root_list(settings: Settings, format_: str) -> None:
    """List trust roots."""
    from scanner.store import trust as store

    with administration(settings) as session:
        found = store.list_roots(session)
    if format_ == "json":
        shown = [
            {"name": r.name, "version": r.version, "scheme": r.scheme, "scope": r.scope, "document": r.document}
            for r in found
        ]
        click.echo(json.dumps(shown, indent=2))
        return
    for root in found:
        click.echo(f"{root.name}  {root.scheme}  version {root.version}  {', '.join(root.scope)}")
    if not found:
        tell("there are no trust roots yet: dockwarden trust root add NAME FILE --scheme SCHEME")


@trust_root.command("remove")
@click.argument("name")
@pass_settings
def trust_root_remove(settings: Settings, name: str) -> None:
    """Delete the trust root NAME. Refused while an active policy names it."""
    from scanner.services import trust_roots

    with administration(settings) as session:
        trust_roots.remove(session, name, COMMAND_LINE)
    tell(f"trust root {name!r} is removed")


@trust.command("report")
@click.option(
    "--days",
    default=90,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="Report keys and certificates that expire within this number of days.",
)
@FORMAT
@pass_settings
def trust_report(settings: Settings, days: int, format_: str) -> None:
    """Show what depends on Docker Content Trust.

    Lists signers, expiring keys, rules that would fail without it, and next steps.

    Covers every repository that this installation has scanned.
    """
    from scanner.services import trust_roots

    with administration(settings) as session:
        found = trust_roots.depends_on_notary(session, days=days)
    if format_ == "json":
        click.echo(json.dumps([asdict(item) for item in found], indent=2, default=str))
    else:
        click.echo("\n\n".join(map(_dependence, found)) or "no image was scanned yet")


def _dependence(found: Dependence) -> str:
    lines = [f"{found.repository}  {found.tags} tag{'' if found.tags == 1 else 's'}"]
    for use in found.schemes:
        lines.append(f"  {use.scheme:10} {use.describe()}")
        # Names in certificates are the signer's own text.
        lines += [f"             {clean_text(signer)}" for signer in use.signers[:10]]
    lines += [f"  ends       {end.at:%Y-%m-%d}  {clean_text(end.what)}" for end in found.ending]
    for fail in found.failing:
        lines.append(f"  would fail rule {fail.rule} of policy {fail.policy}: {', '.join(fail.tags[:10])}")
    lines += [
        f"  {'to do' if number == 0 else '':10} {clean_text(step, 300)}" for number, step in enumerate(found.todo)
    ]
    return "\n".join(lines if found.todo or found.ending else [*lines, "  nothing depends on Notary"])


@trust.command("forget")
@click.argument("gun")
@pass_settings
def trust_forget(settings: Settings, gun: str) -> None:
    """Delete the stored versions of GUN. Needed after the owner created the repository again, which looks like a
    rollback.
    """
    from scanner.services import trust_roots

    with administration(settings) as session:
        count = trust_roots.forget_state(session, COMMAND_LINE, gun)
    tell(f"{gun}: {count} stored versions deleted")


def _reference(image: str | None, gun: str, tag: str | None, digest: str | None) -> Reference:
    if image is None and not (gun and (tag or digest)):
        raise UsageError("nothing to verify was given", hint="give IMAGE, or --gun with --tag or --digest")
    found = Reference.parse(image) if image else _reference_of_gun(gun)
    if tag is not None:
        found = replace(found, tag=tag)
    return found.at(Digest(digest)) if digest else found


def _reference_of_gun(gun: str) -> Reference:
    """A name that is only looked up in trust data, not in a registry; it may break the grammar of references."""
    host, _, repository = gun.partition("/")
    return Reference(host, repository)


def _named_roots(settings: Settings, name: str, scheme: str) -> tuple[TrustRoot, ...]:
    """Return the trust roots of this installation that apply to the repository."""
    return tuple(r for r in verification.stored_trust(settings).roots if r.scheme == scheme and matches(r.scope, name))


def _root(plugin: TrustScheme, given: str) -> TrustRoot:
    """Return the value of ``--trust``: the text of a file, a key id, or ``tofu``."""
    # A key id never names a file by accident: it is 64 hexadecimal digits.
    file = Path(given)
    if not file.is_file():
        return TrustRoot("command line", plugin.id, plugin.parse_trust(given.encode(), "--trust"))
    return TrustRoot("command line", plugin.id, plugin.parse_trust(read(file, "the trust root").encode(), given))


@dataclass(frozen=True)
class Question:
    """What to verify, and with what.

    ``offline``: no registry is contacted. ``now`` (UTC) is the time at which signatures and certificates must be valid.
    """

    reference: Reference
    offline: bool
    settings: Settings
    now: datetime
    state: TrustState
    options: TrustOptions

    @property
    def name(self) -> str:
        return self.options.gun or self.reference.name

    def verify(self, plugin: TrustScheme, roots: tuple[TrustRoot, ...]) -> tuple[Verification, ...]:
        """Return the scheme's answers. A registry that fails gives the answer "unknown"."""
        if self.offline and isinstance(plugin, NameScheme):
            return plugin.verify(TrustQuestion(reference=self.reference, roots=roots, **self._shared()))
        return self.verify_all({plugin.id: plugin}, {plugin.id: roots})[plugin.id]

    def decide(self, plugin: TrustScheme, given: str | None) -> Verification:
        """Return the scheme's answer by the trust root of ``--trust``. A contradictory trust root accepts nothing."""
        try:
            roots = (_root(plugin, given),) if given else _named_roots(self.settings, self.name, plugin.id)
            return decisive(self.verify(plugin, roots))
        except UsageError as error:
            if error.reason != UNSOUND_TRUST:
                raise
            return Verification(plugin.id, TrustStatus.REFUSED, reason="policy", detail=_with_hint(error))

    def verify_all(
        self, schemes: Mapping[str, TrustScheme], roots: Mapping[str, tuple[TrustRoot, ...]]
    ) -> dict[str, tuple[Verification, ...]]:
        """Return the answers of every scheme. The reference is resolved once."""
        # One resolution for all schemes: a tag that moves meanwhile must not give each scheme another image.
        try:
            with self._job() as job:
                return {name: plugin.verify(replace(job, roots=roots[name])) for name, plugin in schemes.items()}
        except (RemoteError, ImageError) as error:
            return {name: (_unavailable(name, error),) for name in schemes}

    def _shared(self) -> dict[str, Any]:
        """The fields of a question with and without a registry."""
        return {"now": self.now, "state": self.state, "settings": self.settings, "options": self.options}

    @contextmanager
    def _job(self) -> Iterator[TrustJob]:
        from scanner.registry.auth import CredentialStore
        from scanner.registry.client import Access, RegistryClient

        host = self.reference.host
        way = Access(host in self.settings.insecure_registries, self.options.ca_file, named=True)
        credentials = CredentialStore(self.settings)
        with RegistryClient(host, self.settings, credentials, way, tries=_TRIES) as client:
            descriptor: Descriptor
            descriptor, _ = client.manifest(self.reference)
            yield TrustJob(
                reference=self.reference.at(descriptor.digest),
                roots=(),
                credentials=credentials,
                descriptor=descriptor,
                fetch=client,
                **self._shared(),
            )


def _question(
    settings: Settings,
    reference: Reference,
    options: TrustOptions,
    state_dir: Path | None,
    insecure_registries: tuple[str, ...],
    now: datetime,
    *,
    offline: bool = False,
) -> Question:
    """Build the question from the options of ``verify`` and ``inspect``."""
    registries = settings.insecure_registries + insecure_registries
    return Question(
        reference=reference,
        offline=offline,
        settings=replace(settings, insecure_registries=registries, ca_file=options.ca_file or settings.ca_file),
        now=now,
        state=DirectoryState(state_dir) if state_dir else NoState(),
        options=options,
    )


def _unavailable(scheme: str, error: RemoteError | ImageError) -> Verification:
    """The answer if the registry gave no image: it failed, or sent bytes with another digest."""
    if isinstance(error, RemoteError):
        # A TLS failure has its own reason: it can be an attack, while an unavailable registry is usually an outage.
        reason = "tls" if error.reason.startswith("tls_") else "unavailable"
        return Verification(scheme, TrustStatus.UNKNOWN, reason=reason, detail=_with_hint(error))
    reason = "checksum" if error.reason == "digest_mismatch" else error.reason
    return Verification(scheme, TrustStatus.REFUSED, reason=reason, detail=_with_hint(error))


def _with_hint(error: ScannerError) -> str:
    return f"{error}" + (f" ({error.hint})" if error.hint else "")


def decisive(answers: Sequence[Verification]) -> Verification:
    """Return the answer about the image's signature that counts. Attestations are not signatures."""
    signatures = [answer for answer in answers if not answer.predicate_type]
    return min(signatures, key=lambda answer: _ORDER.index(answer.status))


def exit_of_answer(answer: Verification) -> Exit:
    # Unknown is not a refusal: a script that retries an outage must be able to tell them apart.
    if answer.status is TrustStatus.UNKNOWN:
        return Exit.UNDECIDED
    return Exit.OK if answer.status is TrustStatus.VERIFIED else Exit.DENIED


def as_document(answer: Verification) -> dict[str, Any]:
    """Format the answer as JSON."""
    return {
        "scheme": answer.scheme,
        "status": _STATUS_NAMES.get(answer.status, str(answer.status)),
        "reason": answer.reason,
        "detail": answer.detail,
        "digest": answer.digest,
        "role": answer.role,
        "trust": answer.trust,
        "signers": [
            {
                "name": signer.name,
                "keyid": signer.keyid,
                "role": signer.role,
                "issuer": signer.issuer,
                "expires": signer.expires.isoformat() if signer.expires else None,
            }
            for signer in answer.signers
        ],
        "predicate_type": answer.predicate_type,
        "expiries": [{"what": what, "at": at.isoformat()} for what, at in answer.expiries],
        "notes": list(answer.notes),
    }


def describe(answer: Verification) -> str:
    """Format the answer for a terminal."""
    lines = [_MARKS[answer.status] + (f": {answer.reason}" if answer.reason else "")]
    facts = [
        ("why", clean_text(answer.detail)),
        ("digest", answer.digest or ""),
        ("role", clean_text(answer.role)),
        ("attests", clean_text(answer.predicate_type)),
        ("trusted by", clean_text(answer.trust)),
        *(("signer", _signer(signer)) for signer in answer.signers),
        *(("note", clean_text(note)) for note in answer.notes),
    ]
    lines += [f"  {name:10} {value}" for name, value in facts if value]
    return "\n".join(lines)


def _signer(signer: Signer) -> str:
    parts = [
        signer.name or signer.role or "unnamed",
        f"key {signer.keyid[:16]}" if signer.keyid else "",
        f"issued by {signer.issuer}" if signer.issuer else "",
        f"expires {signer.expires:%Y-%m-%d}" if signer.expires else "",
    ]
    return clean_text(", ".join(part for part in parts if part))
