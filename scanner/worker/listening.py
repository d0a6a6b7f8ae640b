"""The socket of the web process.

The supervisor opens it once; it outlives web processes, so no connection is refused.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import MutableMapping

from scanner.config import Settings
from scanner.errors import UsageError

_BACKLOG = 2048  # connections that wait while one web process takes over from another
_FIRST_PASSED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def listen(settings: Settings, environ: MutableMapping[str, str] = os.environ) -> socket.socket:
    """Return a listening socket for the configured address, or the one that a service manager passed (systemd socket
    activation).

    Raises UsageError if the address cannot be used, usually because another server uses it.
    """
    passed = _systemd_socket(environ)
    if passed is not None:
        return passed
    place = f"{settings.host}:{settings.port}"
    if not 0 <= settings.port <= 65535:
        raise UsageError(f"{settings.port} is not a port", hint="use a number from 1 to 65535")
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=_BACKLOG)
    except OSError as error:
        raise _refused_address(place, error) from error
    except UnicodeError as error:
        raise UsageError(f"{settings.host!r} is not an address", hint="use for example 127.0.0.1 or 0.0.0.0") from error


def _refused_address(place: str, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        hint = "stop the server that runs there, or choose another port with --port or DOCKWARDEN_PORT"
        return UsageError(f"another process listens on {place} already", reason="port_in_use", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"this user may not listen on {place}", hint="choose a port above 1023")
    why = error.strerror or str(error)
    return UsageError(f"cannot listen on {place}: {why}", hint="choose an address of this machine with --host")


def _systemd_socket(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket of a systemd ``.socket`` unit.

    It stays open while the service is stopped, so connections wait in it.
    """
    # sd_listen_fds(3): LISTEN_PID protects a child that inherited the variables from using descriptors it does not
    # have.
    if environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = environ.pop("LISTEN_FDS", "0")
    environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise UsageError(
            f"{count} sockets were passed, but one is expected", hint="use one ListenStream in the .socket unit"
        )
    passed = socket.socket(fileno=_FIRST_PASSED)
    if passed.type is not socket.SOCK_STREAM or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UsageError("the passed socket does not listen", hint="use ListenStream in the .socket unit")
    passed.set_inheritable(False)
    return passed


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """The URL of a listening socket, for users."""
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return str(listening.getsockname())
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if listening.family is socket.AF_INET6 else f"{scheme}://{host}:{port}"
