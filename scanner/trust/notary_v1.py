"""Docker Content Trust (Notary v1): whether a name is signed by its publisher, and with which digest.

The verifier is ``scanner.trust._tuf``, which does no I/O. This module has the trust root's document, the fetcher, and
the three answers.
"""

from __future__ import annotations

import json
import re
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from scanner.addresses import web_address
from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.pem import CERTIFICATE, PUBLIC_KEY, pem_blocks, refuse_private_key
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text, load_untrusted_json, network_reason
from scanner.outbound import AnswerTooLarge, OpenAnswer, certificate_hint, http_client, tls_error
from scanner.patterns import lazy
from scanner.registry.auth import Authenticator, CredentialStore, parse_challenges
from scanner.trust._documents import quoted
from scanner.trust._pki import certificates_pem, load_certificates, load_public_key, public_key_pem
from scanner.trust._tuf.anchors import (
    Anchor,
    Mode,
    anchor_digest,
    anchor_of,
    is_authority,
)
from scanner.trust._tuf.documents import ROOT_LIMIT, key_id, parse_root, usable_key
from scanner.trust._tuf.repository import Query, State, Want, drive, verify
from scanner.trust.base import NameScheme, SignatureRefused, TrustQuestion, TrustRoot

# SHA-256 of the canonical key, in hexadecimal.
_KEY_ID = lazy(r"[0-9a-f]{64}", re.ASCII)
# A Globally Unique Name is host/repository.
_GUN = lazy(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+", re.ASCII)
_MAX_GUN = 512
_FIELDS = ("mode", "ids", "pem", "root_json", "server", "ca", "require_signers", "signers")
# A dead Notary server must not hold up a scan: its answer is unknown, and the policy decides.
_SECONDS = 6.0
_TRIES = 2  # a scan is retried as a whole
_RUNS = 4  # attempts at one question; a parallel run for the same name can save its state first
# These reasons mean that the image is unsigned. All others mean that a signature is wrong.
_NOT_SIGNED = frozenset({"no_trust_data", "not_signed", "signer_missing"})


class NotaryV1(NameScheme):
    """Signed tags of a Notary v1 server (`DOCKER_CONTENT_TRUST=1`). See [content trust](trust.md)."""

    id = "notary-v1"
    title = "Docker Content Trust (Notary v1)"

    def verify(self, job: TrustQuestion) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``."""
        if not job.roots:
            detail = "no trust root says which signers to trust"
            return (
                Verification(self.id, TrustStatus.UNKNOWN, reason="no_trust_root", detail=detail, checked_at=job.now),
            )
        return tuple(self._verify_by(root, job) for root in job.roots)

    def _verify_by(self, root: TrustRoot, job: TrustQuestion) -> Verification:
        found: ScannerError
        try:
            return self._answer(root, job)
        except SignatureRefused as error:
            status = TrustStatus.NOT_SIGNED if error.reason in _NOT_SIGNED else TrustStatus.REFUSED
            found = error
        except ScannerError as error:  # server, TLS, address or state failed: the answer is unknown
            status, found = TrustStatus.UNKNOWN, error
        detail = f"{found}" + (f" ({found.hint})" if found.hint else "")
        return Verification(
            self.id, status, job.reference.digest, found.reason, detail, trust=root.name, checked_at=job.now
        )

    def _answer(self, root: TrustRoot, job: TrustQuestion) -> Verification:
        anchor = anchor_of(root.document)
        for _ in range(_RUNS):
            try:
                return self._run(root, anchor, _Memory(job, f"{job.name}#{anchor_digest(anchor)}"), job)
            except _StateChanged:
                continue  # verify again, also against what the other run has seen
        raise RemoteError(
            f"{job.name} is being verified by too many processes at once", reason="unavailable", hint="try again"
        )

    def _run(self, root: TrustRoot, anchor: Anchor, memory: _Memory, job: TrustQuestion) -> Verification:
        gun, remembered = job.name, memory.state()
        query = Query(
            job.reference.tag,
            job.reference.digest,
            job.options.require_signers or tuple(root.document.get("require_signers", ())),
        )
        with open_server(root, job, gun) as server:
            answer, repository = drive(verify(gun, anchor, remembered, job.now, query, memory.keep), server.fetch)
        notes = [f"{fault.role} could not be used: {fault.message}" for fault in answer.faults]
        if anchor.mode is Mode.TOFU:
            seen = (
                "because it equals the one seen first"
                if remembered
                else "although it was seen for the first time and may come from an attacker"
            )
            notes.append(f"the root is trusted {seen}; pin {', '.join(repository.root_ids())} to rule that out")
        return Verification(
            self.id,
            TrustStatus.VERIFIED,
            Digest(answer.digest),
            signers=answer.signers,
            role=answer.role,
            trust=root.name,
            expiries=tuple(repository.expiries()),
            checked_at=job.now,
            notes=tuple(notes),
        )

    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """See ``TrustScheme.parse_trust``.

        A single word is ``tofu`` or the id of a root certificate. PEM blocks are root keys, a CA, or root certificates.
        A ``root.json`` is trusted as a whole.
        """
        text = _text(data, where)
        if _KEY_ID.fullmatch(text):
            return _normalised_document({"mode": Mode.CERT_IDS, "ids": [text]}, where)
        if text == Mode.TOFU:
            return _normalised_document({"mode": Mode.TOFU}, where)
        if text.startswith("{"):
            document = load_untrusted_json(text.encode(), limit=ROOT_LIMIT, error=UsageError, reason="bad_trust_root")
            refuse_private_key(document, where)
            if "signed" in document and "signatures" in document:
                return _normalised_document({"mode": Mode.ROOT_JSON, "root_json": text}, where)
            return _normalised_document(document, where)
        if "-----BEGIN " in text:
            return _normalised_document(_from_pem(text, where), where)
        raise _invalid(
            where, f"{quoted(text)} is neither a file nor a key id nor 'tofu'", "a key id has 64 lower-case hex digits"
        )

    def signers(self, document: Mapping[str, Any]) -> frozenset[str] | None:
        """See ``TrustScheme.signers``: the delegations that the document names."""
        named = (*document.get("signers", ()), *document.get("require_signers", ()))
        return frozenset(("Repo Admin", *named)) if named else None


def _text(data: bytes, where: str) -> str:
    refuse_private_key(data, where)
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise _invalid(where, "not UTF-8 text") from None


def _invalid(where: str, what: str, hint: str = "see docs/trust.md") -> UsageError:
    return UsageError(f"{where}: {clean_text(what, 300)}", reason="bad_trust_root", hint=hint)


def _from_pem(text: str, where: str) -> dict[str, Any]:
    """Public keys are root keys. Certificates are a CA if all of them are authorities, otherwise root certificates."""
    if not any(f"-----BEGIN {label}-----" in text for label in CERTIFICATE):
        try:
            return {"mode": Mode.ROOT_KEYS, "pem": pem_blocks(text, PUBLIC_KEY, "a PEM public key")}
        except ValueError as error:
            raise _invalid(where, str(error)) from None
    certificates = _certificates(text, where)
    if all(is_authority(certificate) for certificate in certificates):
        return {"mode": Mode.CA, "pem": certificates_pem(certificates)}
    ids = []
    for certificate in certificates:
        public: Any = certificate.public_key()
        kind = "ecdsa-x509" if usable_key(public, "ecdsa") else "rsa-x509"
        ids.append(key_id(kind, certificate.public_bytes(serialization.Encoding.PEM)))
    return {"mode": Mode.CERT_IDS, "ids": ids}


def _normalised_document(document: Any, where: str) -> dict[str, Any]:
    """Validate a trust root's document and keep only the members that its mode needs. Raises UsageError."""
    if not isinstance(document, dict):
        raise _invalid(where, "not a JSON object")
    unknown = sorted(set(document) - set(_FIELDS))
    if unknown:
        raise _invalid(where, f"unknown field {unknown[0]!r}", f"known fields: {', '.join(_FIELDS)}")
    if document.get("mode") not in [str(mode) for mode in Mode]:
        raise _invalid(where, f"mode: {document.get('mode')!r} is not a mode", f"one of: {', '.join(Mode)}")
    mode = Mode(document["mode"])
    found: dict[str, Any] = {"mode": str(mode)}
    if mode is Mode.CERT_IDS:
        found["ids"] = _text_list(document.get("ids"), "ids", where)
        if not all(_KEY_ID.fullmatch(item) for item in found["ids"]):
            raise _invalid(
                where,
                "ids: a certificate's id has 64 lower-case hex digits",
                "'docker trust inspect' shows it as the root's id",
            )
    elif mode is Mode.ROOT_KEYS:
        found["pem"] = _text_list(document.get("pem"), "pem", where)
        found["pem"] = [_key(item, where) for item in found["pem"]]
    elif mode is Mode.CA:
        given = _required_text(document.get("pem"), "pem", where)
        found["pem"] = certificates_pem(_certificates(given, f"{where}: pem"))
    elif mode is Mode.ROOT_JSON:
        found["root_json"] = _root_json(document.get("root_json"), where)
    if document.get("server"):
        found["server"] = server_url(_required_text(document["server"], "server", where), f"{where}: server")
    if document.get("ca"):
        found["ca"] = certificates_pem(_certificates(_required_text(document["ca"], "ca", where), f"{where}: ca"))
    for name in ("require_signers", "signers"):
        if document.get(name):
            found[name] = _text_list(document[name], name, where)
    return found


def _required_text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _invalid(where, f"{name}: a string is required")
    return value


def _text_list(value: Any, name: str, where: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items or len(items) > 100:
        raise _invalid(where, f"{name}: a list of strings is required")
    return [_required_text(item, name, where) for item in items]


def _root_json(value: Any, where: str) -> str:
    text = (
        json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else _required_text(value, "root_json", where)
    )
    try:
        parse_root(text.encode("utf-8", "surrogatepass"), ROOT_LIMIT)
    except SignatureRefused as error:
        raise _invalid(where, f"root_json: {error}") from error
    return text


def _certificates(text: str, where: str) -> tuple[x509.Certificate, ...]:
    try:
        return load_certificates(text)
    except ValueError as error:
        raise _invalid(where, str(error)) from None


def _key(text: str, where: str) -> str:
    """Return the key encoded again: other text around it is not kept."""
    try:
        return public_key_pem(load_public_key(text))
    except ValueError as error:
        raise _invalid(where, f"pem: not a public key: {error}", "openssl pkey -in KEY -pubout") from None


class _StateChanged(Exception):
    """Another run saved its state in the meantime."""


class _Memory:
    """The trust state of one name under one anchor."""

    def __init__(self, job: TrustQuestion, key: str) -> None:
        self._job, self._key = job, key
        self._data = job.state.load(key)

    def state(self) -> State | None:
        """Return the remembered state, or None if there is none.

        Raises RemoteError(reason="bad_state"): treating an unreadable state as none would accept a rollback.
        """
        try:
            return None if self._data is None else State.load(self._data)
        except SignatureRefused as error:
            raise RemoteError(f"{error}", reason="bad_state", retryable=False) from error

    def keep(self, state: State) -> None:
        """Save verified state. Raises _StateChanged."""
        data = state.dump()
        if data == self._data:
            return
        if not self._job.state.save(self._key, data, self._data):
            raise _StateChanged
        self._data = data


def server_url(text: str, where: str) -> str:
    """Check an https URL without user name, query and fragment, which could carry secrets. Raises UsageError."""
    try:
        parts = web_address(text, where, schemes=("https",))
        usable = not (parts.username or parts.query or parts.fragment)
    except UsageError:
        usable = False
    if not usable:
        raise _invalid(where, f"{text[:200]!r} is not the address of a Notary server", "write https://host[:port]")
    return text.rstrip("/")


@contextmanager
def open_server(root: TrustRoot, job: TrustQuestion, gun: str) -> Iterator[NotaryServer]:
    """Open the server of the command line or of the trust root."""
    url = job.options.server or root.document.get("server", "")
    if not url:
        raise UsageError(
            "no Notary server is configured",
            reason="no_server",
            hint="give --notary-server, or 'server' in the trust root",
        )
    url = server_url(url, "--notary-server" if job.options.server else "the Notary server")
    if len(gun) > _MAX_GUN or not _GUN.fullmatch(gun) or ".." in gun:
        raise UsageError(f"not a repository name: {gun[:200]!r}", hint="write host/repository, without a tag")
    with tempfile.TemporaryDirectory(prefix="notary-") as directory:
        ca_file = job.options.ca_file
        if root.document.get("ca") and ca_file is None:
            ca_file = Path(directory) / "ca.pem"
            ca_file.write_text(root.document["ca"], "utf-8")
        server = NotaryServer(url, gun, job, ca_file or job.settings.ca_file)
        try:
            yield server
        finally:
            server.close()


class NotaryServer:
    """Fetches the files of one repository: https only, no redirects, bounded bodies, one time limit for all of them.

    A server that the user named on the command line may have any address, and receives the user's own credentials
    for it.
    """

    def __init__(self, url: str, gun: str, job: TrustQuestion, ca_file: Path | None) -> None:
        parts, settings, named = urlsplit(url), job.settings, bool(job.options.server)
        self._host, self._base = parts.netloc, f"{url}/v2/"
        self._files = f"{url}/v2/{quote(gun, safe='/:[]')}/_trust/tuf/"
        self._scope = f"repository:{gun}:pull"
        self._ends = time.monotonic() + _SECONDS
        self._http = http_client(
            settings,
            own=[parts.hostname or "", job.reference.host.partition(":")[0]],
            named=named,
            ca_file=ca_file,
            ends=self._ends,
        )
        self._store = job.credentials or CredentialStore(settings, personal=named)
        self._registry, self._limit = job.reference.host, settings.limits.token
        self._auth = self._authenticator(self._host)
        self._signed_in = False

    def _authenticator(self, host: str) -> Authenticator:
        return Authenticator(host, self._store, self._http, self._limit, insecure=False)

    def close(self) -> None:
        self._http.close()

    def fetch(self, want: Want) -> bytes | None:
        """Return the file's bytes, or None for 404.

        Raises RemoteError(reason="unavailable" or "tls"), SignatureRefused(reason="too_large").
        """
        if not self._signed_in:
            self._sign_in()
        url, last = f"{self._files}{want.name}.json", _TRIES - 1
        for attempt in range(_TRIES):
            try:
                return self._get(url, want)
            except RemoteError as error:
                if attempt == last or not error.retryable or time.monotonic() > self._ends:
                    raise
        raise AssertionError("unreachable")

    def _sign_in(self) -> None:
        """``GET /v2/``: a 401 names the way to sign in.

        Other answers are ignored; the requests for files will fail then.

        If the server wants a token (as Harbor does), only the registry's own token service may see the registry's
        password: the authenticator compares the realm with the registry's host. The Notary server sees only its own
        credentials.
        """
        self._signed_in = True
        with self._open(self._base) as response:
            if response.status != httpx.codes.UNAUTHORIZED:
                return
            challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
            wants_token = any(challenge.scheme == "bearer" for challenge in challenges)
            if wants_token and self._store.find(self._host) is None:
                self._auth = self._authenticator(self._registry)
            self._auth.answer(response, self._scope)

    def _get(self, url: str, want: Want) -> bytes | None:
        with self._open(url) as response:
            status = response.status
            # Only 404 means that a file does not exist. Any other failure is unknown, never "unsigned".
            if status == httpx.codes.NOT_FOUND:
                self._require_notary(response)
                return None
            if status != httpx.codes.OK:
                raise RemoteError(
                    f"{self._host} answered {status} for {want.name}.json",
                    reason="unavailable",
                    retryable=status >= 500,
                )
            try:
                return response.body(want.limit)
            # Refused, not unknown: the limit is the TUF client's own (specification 5.3.3), and an honest server
            # keeps it.
            except AnswerTooLarge:
                raise SignatureRefused(
                    f"{want.name}.json is larger than {want.limit} bytes", reason="too_large"
                ) from None

    def _require_notary(self, response: OpenAnswer) -> None:
        """Check that a 404 is by a Notary server, whose errors are JSON objects. Raises RemoteError(unavailable).

        A registry, a proxy or a web server at a mistyped address answers 404 to everything, with a text or a page.
        Believing it would make every image of the trust root "not signed".
        """
        try:
            document = load_untrusted_json(response.body(self._limit), limit=self._limit, error=RemoteError)
        except (AnswerTooLarge, RemoteError):
            document = None
        if not isinstance(document, dict):
            raise RemoteError(
                f"{self._host} answered 404, and not as a Notary server does",
                reason="unavailable",
                hint="check the server's address in the trust root, or --notary-server",
                retryable=False,
            )

    @contextmanager
    def _open(self, url: str) -> Iterator[OpenAnswer]:
        authorization = self._auth.header(self._scope)
        headers = {"Accept": "application/json", **({"Authorization": authorization} if authorization else {})}
        try:
            with self._http.open("GET", url, headers=headers, read_seconds=self._seconds_left()) as response:
                yield response
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        except RemoteError as error:  # no such host
            if error.reason in ("unavailable", "tls"):
                raise
            raise RemoteError(str(error), reason="unavailable", hint=error.hint, retryable=False) from error

    def _seconds_left(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise RemoteError(
                f"{self._host} did not answer within {_SECONDS:.0f} s", reason="unavailable", retryable=False
            )
        return left

    def _unavailable(self, error: httpx.HTTPError) -> RemoteError:
        cause = tls_error(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{self._host}: its certificate is not trusted: {cause.verify_message}"
            hint = certificate_hint(cause, "give its CA with --ca-file")
            return RemoteError(message, reason="tls", hint=hint, retryable=False)
        if cause is not None:
            return RemoteError(f"{self._host}: no TLS connection: {cause}", reason="tls", retryable=False)
        retryable = not isinstance(error, httpx.TimeoutException | httpx.ConnectError)
        return RemoteError(
            f"cannot reach {self._host}: {network_reason(error)}", reason="unavailable", retryable=retryable
        )
