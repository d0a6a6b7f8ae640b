"""What the adapters of doors share: who calls, with the same query that the gate asks, and what a process remembers."""

from __future__ import annotations

from collections.abc import Callable

from flask import current_app, g, request

from scanner import queue
from scanner.model.actor import Actor
from scanner.model.scan import Lane
from scanner.services import doors
from scanner.services.door_calls import Recorder
from scanner.store import gate as store_gate
from scanner.store.gate import GateLookup
from web import tls
from web.auth import bearer, gate_caller
from web.resources import resources, take_new_scan
from web.security import admission
from web.throttle import Rate
from web.waiting import wait_for_end

_PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP")
TOKEN_PREFIX = "dw_"  # noqa: S105  how every token begins


def token_of_request() -> str:
    """The token in the path, else in the Authorization header.

    A caller that cannot send headers of its own has the token in its path; some such callers pass their client's
    Authorization header on, which is meant for another server.
    """
    in_path = str((request.view_args or {}).get("path_token", ""))
    header = request.headers.get("Authorization", "")
    return bearer(header) if header and not in_path.startswith(TOKEN_PREFIX) else in_path


def authenticate(bucket: str, rate: Rate, token: Callable[[], str] = token_of_request) -> Actor:
    """The principal of the request's token, which is compared as a keyed hash. ``token`` finds it."""
    caller = gate_caller(token())
    g.token_hash = caller.token_hash
    if resources().settings.rate_limits and not admission():
        resources().throttle.take(bucket, caller.lookup.token_id, rate)
    return caller.actor


def authenticate_certificate(bucket: str, rate: Rate) -> Actor | None:
    """The principal of the certificate that the client presented in the TLS handshake. None: it has none that counts.

    It was verified against ``admission_client_ca``. Its name must be one of ``admission_client_names``, because a CA
    of a cluster also signs the certificates of nodes and of people.
    """
    names = tls.names_of(request.environ.get(tls.CLIENT_CERTIFICATE) or {})
    found = sorted(names & set(resources().settings.admission_client_names))
    # A proxy that ends TLS would show its own certificate for every client. API servers send none of these headers.
    if not found or any(name in request.headers for name in _PROXY_HEADERS):
        return None
    g.token_hash = None
    name = f"certificate {found[0]}"
    if resources().settings.rate_limits and not admission():
        resources().throttle.take(bucket, name, rate)
    return Actor(name, name, "certificate", frozenset({"admission"}), None)


def door(source: str, client: str = "") -> doors.DoorServices:
    """What judging needs of this process. ``source`` is that of the scans that it asks for.

    ``client``: on whose behalf the door asks: a namespace, a host, an address. It may be forged.
    """
    token_hash = g.token_hash

    def ask(digest: str, repository: str, environment: str) -> GateLookup | None:
        if token_hash is None:  # authenticated by a certificate
            with resources().database.read() as session:
                return store_gate.lookup(session, digest, repository, environment)
        return resources().gate.ask(token_hash, digest, repository, environment)

    memory = current_app.extensions.setdefault("doors_memory", doors.DecisionCache())
    return doors.DoorServices(
        resources().database,
        resources().settings,
        memory,
        ask,
        lambda scan_id: queue.enqueue(resources().celery, scan_id, Lane.GATE),
        wait_for_end,
        source,
        lambda: take_new_scan(source, client),
    )


def recorder() -> Recorder:
    """The one of this process."""
    found = current_app.extensions.get("doors_recorder")
    if found is None:
        found = current_app.extensions.setdefault("doors_recorder", Recorder(resources().database))
    recorder: Recorder = found
    return recorder
