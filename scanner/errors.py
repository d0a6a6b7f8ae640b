"""The kinds of errors that Dockwarden raises, each with a stable ``reason`` slug.

An error has a fault, which determines how it is handled: the caller's is reported to the caller (exit 2, HTTP 4xx), a
remote's is retried, an image's is recorded as a permanent, visible failure, and our own is a bug.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Who must act so that the operation can succeed."""

    CALLER = "caller"
    REMOTE = "remote"
    IMAGE = "image"
    US = "us"


class ScannerError(Exception):
    """Base of every error that a user may see.

    ``reason`` is a stable slug, which scripts compare. ``str(error)`` is one sentence without control characters or
    secrets; ``hint`` is what to do. ``retry_after``: seconds that a remote asked us to wait. ``field``: the wrong
    member of the request, so that a form can mark it; empty if it is no single one.
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
    """Invalid input of the caller: a reference, file, option or document. Exit code 2, HTTP 400."""

    fault = Fault.CALLER
    default_reason = "bad_input"


class NotFoundError(UsageError):
    """What the caller named does not exist, or the caller may not know that it exists. HTTP 404."""

    default_reason = "not_found"


class ConflictError(UsageError):
    """Our current state does not allow it, e.g. it was edited meanwhile or already exists. HTTP 409 or 412."""

    default_reason = "conflict"


class RefusedError(UsageError):
    """Refused: not signed in, no permission, or a forbidden address. HTTP 401 or 403."""

    default_reason = "refused"


class RemoteError(ScannerError):
    """A registry, notary, Clair or database did not answer properly. Retryable by default."""

    fault = Fault.REMOTE
    default_reason = "registry_error"
    retryable = True


class ImageError(ScannerError):
    """The image is malformed, malicious, or exceeds a limit. Never retried, because it would fail again."""

    fault = Fault.IMAGE
    default_reason = "malformed_image"


class NotAnImage(ImageError):
    """The reference names something valid that is not a container image: an attestation, a signature, a Helm chart.

    ``blobs``: the digests that its manifest names, if it has one.
    """

    default_reason = "not_an_image"
    blobs: tuple[str, ...] = ()


class LimitExceeded(ImageError):
    """A limit of size, count, depth or time was exceeded before the image was read completely."""

    default_reason = "limit_exceeded"


class EngineError(ScannerError):
    """An engine could not run, or its result cannot be trusted."""

    fault = Fault.US
    default_reason = "scanner_failed"


class AdvisoriesUnavailable(EngineError):
    """There is no usable advisory database, so an empty result of the engine would mean nothing."""

    default_reason = "engine_db_unavailable"


class LeaseLost(ScannerError):
    """Another worker has this scan now: stop and write nothing."""

    default_reason = "lease_lost"
