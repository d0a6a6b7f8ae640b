"""The queue: Celery, used only to wake up workers.

A message is ``kick(scan_id)``. It may be lost, repeated or forged without harm, so it is acknowledged early. The
database has the state: no result backend, chords, ETA, or retries by the broker. Workers also poll the database every
few seconds, so an unavailable broker delays scans by seconds and loses none.
"""

from __future__ import annotations

import logging
import math
import time
from weakref import WeakKeyDictionary

from celery import Celery
from kombu import Connection
from kombu.entity import Exchange, Queue
from kombu.pools import producers

from scanner import telemetry
from scanner.config import Settings
from scanner.model.scan import Lane

log = logging.getLogger(__name__)

_NOWHERE = "memory://"
KICK, KEEP_UP = "dockwarden.kick", "dockwarden.keep-up"
_SOCKET_SECONDS = 0.5  # the row is committed: a broker that does not answer delays the caller by no more than this
# After a failure the broker is left alone for so long: each try would delay a caller.
_SILENT_SECONDS = 2.0
_silent_until: WeakKeyDictionary[Celery, float] = WeakKeyDictionary()


def make_app(settings: Settings, broker: str = "") -> Celery:
    """Create the Celery app. Without a broker (embedded) messages go nowhere, and workers find scans by polling."""
    url = broker or settings.broker_url.reveal() or _NOWHERE
    app = Celery("dockwarden", broker=url, backend=None, set_as_current=False)
    exchange = Exchange("dockwarden", type="direct")
    arguments = {"x-queue-type": "quorum"} if url.startswith(("amqp", "pyamqp")) else None
    app.conf.update(
        task_queues=[Queue(lane.value, exchange, routing_key=lane.value, queue_arguments=arguments) for lane in Lane],
        task_default_queue=Lane.PUSH.value,
        task_default_exchange="dockwarden",
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=_SOCKET_SECONDS,
        broker_transport_options={"visibility_timeout": 86400, "socket_timeout": 5, "health_check_interval": 25}
        if url.startswith("redis") or url.startswith("unix")
        else {},
        task_publish_retry=False,
        enable_utc=True,
    )
    if url == _NOWHERE:
        _silent_until[app] = math.inf
    return app


def enqueue(app: Celery, scan_id: str, lane: Lane) -> bool:
    """Notify a worker of this lane, after the commit. Never raises, and takes at most half a second.

    Returns False if the message was lost; workers then find the scan by polling. After a loss, no message is sent for
    two seconds, so that a caller that records many scans is not delayed for each.
    """
    if time.monotonic() < _silent_until.get(app, 0.0):
        return False
    try:
        with (
            telemetry.span("enqueue", lane=lane.value),
            producers[_writer(app)].acquire(block=True, timeout=_SOCKET_SECONDS) as producer,
        ):
            app.send_task(KICK, args=(scan_id,), queue=lane.value, retry=False, ignore_result=True, producer=producer)
    except Exception as error:  # noqa: BLE001  each broker library has its own errors; the scan is safe in the database
        log.warning("cannot notify the workers: %s", type(error).__name__)
        _silent_until[app] = time.monotonic() + _SILENT_SECONDS
        return False
    return True


def reachable(app: Celery) -> bool:
    """Whether the broker answers within half a second. True if embedded, because none is needed."""
    if app.conf.broker_url == _NOWHERE:
        return True
    try:
        with _writer(app) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=_SOCKET_SECONDS)
    except Exception:  # noqa: BLE001  as above: any error means unreachable
        return False
    return True


def _writer(app: Celery) -> Connection:
    """A connection to publish with.

    Its time-outs are shorter than the consumer's, and it does not retry: kombu would first sleep for two seconds,
    despite ``retry=False``.
    """
    options: dict[str, float] = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    if app.conf.broker_url.startswith(("redis", "unix")):
        options |= {"socket_timeout": _SOCKET_SECONDS, "socket_connect_timeout": _SOCKET_SECONDS}
    return app.connection_for_write(connect_timeout=_SOCKET_SECONDS, transport_options=options)
