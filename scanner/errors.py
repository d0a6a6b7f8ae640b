"""The few kinds of error Dockwarden raises, each with a stable ``reason`` slug.

An error says who is at fault, because that decides what happens next: a caller's mistake is told to the caller
(exit 2, HTTP 4xx), a remote's is retried, an image's is recorded as a terminal, visible failure, and ours is a bug.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Who has to act for the operation to succeed."""

    CALLER = "caller"
    REMOTE = "remote"
    IMAGE = "image"
    US = "us"


class ScannerError(Exception):
    """Base of every error that a user may see.

    ``reason`` is a stable slug (part of the interface: scripts compare it), ``str(error)`` one plain sentence without
    control characters or secrets, ``hint`` what to do about it. ``retry_after`` (seconds) is what a remote asked for.
    ``field`` names the member of the request that is wrong, so that a form can mark it; empty: none in particular.
    """

    fault: Fault = Fault.US
    default_reason: str = "internal_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        hint: str = "",
        retry_after: float | None = None,
        retryable: bool | None = None,
        field: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.hint = hint
        self.retry_after = retry_after
        self.field = field
        if retryable is not None:
            self.retryable = retryable


class UsageError(ScannerError):
    """The caller asked for something that cannot be: a bad reference, file, option, document. Exit code 2, HTTP 400."""

    fault = Fault.CALLER
    default_reason = "bad_input"


class NotFoundError(UsageError):
    """What the caller named does not exist, or the caller may not know that it does. HTTP 404."""

    default_reason = "not_found"


class ConflictError(UsageError):
    """The state on our side does not allow it now (edited meanwhile, already exists). HTTP 409 or 412."""

    default_reason = "conflict"


class RefusedError(UsageError):
    """We refuse to do it: not signed in, not allowed, address not allowed. HTTP 401 or 403."""

    default_reason = "refused"


class RemoteError(ScannerError):
    """A registry, notary, Clair or database did not answer as it should. Retried unless told otherwise."""

    fault = Fault.REMOTE
    default_reason = "registry_error"
    retryable = True


class ImageError(ScannerError):
    """The image itself is malformed, hostile or outside our limits. Never retried: it would only fail again."""

    fault = Fault.IMAGE
    default_reason = "malformed_image"


class NotAnImage(ImageError):
    """What the reference names is whole and well, but no container image: an attestation, a signature, a chart.

    Nobody's fault. ``blobs``: the digests of what its manifest names, where there is one.
    """

    default_reason = "not_an_image"
    blobs: tuple[str, ...] = ()


class LimitExceeded(ImageError):
    """A bound on size, count, depth or time was passed before the image was read to its end."""

    default_reason = "limit_exceeded"


class EngineError(ScannerError):
    """An engine could not be run, or its answer cannot be trusted."""

    fault = Fault.US
    default_reason = "scanner_failed"


class AdvisoriesUnavailable(EngineError):
    """There is no usable advisory database, so an engine's silence would mean nothing."""

    default_reason = "engine_db_unavailable"


class LeaseLost(ScannerError):
    """Another worker owns this scan now: stop, and write nothing."""

    default_reason = "lease_lost"
