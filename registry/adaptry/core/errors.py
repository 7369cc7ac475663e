"""The errors that Adaptry raises: one class for each way in which a caller can react.

Each error has a stable `code` and a message with the problem, its location and a remedy. The core has neither
HTTP statuses nor exit codes: the API has a table from class to status, the command line one from class to
exit code, and the client maps codes back to these classes. So a remote registry raises exactly what a local
one does.
"""

from __future__ import annotations

from typing import ClassVar


class AdaptryError(Exception):
    """The base class of every error that Adaptry raises on purpose.

    A server sends `public_message` to its clients. It is the message, unless that names folders or hosts of
    the server.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, public_message: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.public_message: str = public_message or message

    def __reduce__(self) -> tuple[type[AdaptryError], tuple[str], dict[str, object]]:
        return type(self), (self.message,), vars(self)


class Invalid(AdaptryError):
    """The input is malformed. No change of state or permissions would make it valid."""

    code = "invalid"


class InvalidRef(Invalid):
    """A ref, name or alias does not parse; the message shows the grammar."""

    code = "invalid_ref"


class InvalidPath(Invalid):
    """A file name that a revision may not contain."""

    code = "invalid_path"


class InvalidManifest(Invalid):
    """A manifest is not in canonical form, or has a field or value that is not allowed."""

    code = "invalid_manifest"


class InvalidConfig(Invalid):
    """An `adapter_config.json`, or a base's `config.json`, that is unsafe or malformed."""

    code = "invalid_config"


class InvalidWeights(Invalid):
    """A safetensors file that violates the format or exceeds our limits."""

    code = "invalid_weights"


class InvalidBundle(Invalid):
    """A bundle is incomplete, or its contents differ from its index. Nothing was imported."""

    code = "invalid_bundle"


class InvalidBackup(Invalid):
    """A backup is incomplete, or its files differ from its list. Nothing was restored."""

    code = "invalid_backup"


class InvalidQuery(Invalid):
    """A query does not parse; the message shows where, and the grammar."""

    code = "invalid_query"


class Unsupported(Invalid):
    """Valid input that Adaptry does not support: a method, a layout, a pickle file."""

    code = "unsupported"


class TooLarge(Invalid):
    """The input exceeds a limit, which the message names."""

    code = "too_large"


class QuotaExceeded(TooLarge):
    """A namespace or principal would store more than it may. Waiting does not help; the message has the
    remedy.
    """

    code = "quota_exceeded"


class NotFound(AdaptryError):
    """The object does not exist, or the caller may not know that it exists.

    `is_hidden` is true if it exists. Only the audit log uses this, since callers get the same answer in both
    cases.
    """

    code = "not_found"
    is_hidden = False


class RevisionNotFound(NotFound):
    """The adapter exists, but the ref selects none of its revisions."""

    code = "revision_not_found"


class FileMissing(NotFound):
    """The revision exists, but has no file with this name."""

    code = "file_missing"


class Conflict(AdaptryError):
    """The state has changed since the caller read it. Read it again and retry."""

    code = "conflict"


class OffsetMismatch(Conflict):
    """A chunk of an upload does not start where the received bytes end."""

    code = "offset_mismatch"

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class DigestMismatch(Conflict):
    """The bytes do not match their announced digest. Nothing was stored."""

    code = "digest_mismatch"


class CheckFailed(AdaptryError):
    """The checks found that this cannot work; the report has reasons and remedies."""

    code = "refused"


class Unauthenticated(AdaptryError):
    """No token, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class PermissionDenied(AdaptryError):
    """The caller is known, but lacks the right to do this."""

    code = "denied"


class Withdrawn(PermissionDenied):
    """The version is quarantined or revoked, so its files are withheld. The message says why, and which
    version to use instead.
    """

    code = "withdrawn"


class Unavailable(AdaptryError):
    """A temporary failure: of the server, the database or the network. Retrying may help."""

    code = "unavailable"


class Busy(Unavailable):
    """Too many operations run at once. The same call succeeds after others have finished.

    `retry_after` is the number of seconds to wait before the next attempt.
    """

    code = "busy"

    def __init__(self, message: str, retry_after: float = 3.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyRequests(Busy):
    """A namespace or principal sends more requests a minute than it may. The same call succeeds after
    `retry_after` seconds.
    """

    code = "too_many_requests"


FULL_REMEDY = "free some space and try again (a job: `adaptry jobs retry JOB`); stored files are unchanged"
"""The remedy for a registry whose disk or bucket is full."""


class StorageFull(Unavailable):
    """No space is left on the disk. Existing files are unchanged."""

    code = "storage_full"


class ReadOnly(Unavailable):
    """The registry's folder is read-only on this machine. Retrying does not help."""


class CorruptData(AdaptryError):
    """Stored bytes have changed since they were stored."""

    code = "corrupt"


class ProtocolMismatch(AdaptryError):
    """Client and server use different versions of the protocol; the message says which to upgrade."""

    code = "incompatible"


class MissingDependency(AdaptryError):
    """A package is not installed; the message is the command that installs it."""

    code = "missing"


def copies_of(error: Exception, count: int) -> list[Exception]:
    """A copy of `error` for each of `count` callers, with `error` as its cause; a `RuntimeError` if its class
    cannot be copied. If all callers raised the same object, its traceback would mix their frames.
    """
    made: list[Exception] = []
    for _ in range(count):
        try:
            copied = type(error).__new__(type(error), *error.args)
            vars(copied).update(vars(error))
        except Exception:  # noqa: BLE001  (a class that cannot be made here, such as pydantic's)
            copied = RuntimeError(f"{type(error).__name__}: {error}")
        copied.__cause__ = error
        made.append(copied)
    return made


def by_code() -> dict[str, type[AdaptryError]]:
    """Every error class by its stable code; a client uses it to turn responses back into errors."""
    found: dict[str, type[AdaptryError]] = {AdaptryError.code: AdaptryError}
    pending = [AdaptryError]
    while pending:
        for kind in pending.pop().__subclasses__():
            if "code" in vars(kind):  # a client sees a subclass without a code as its parent class
                found[kind.code] = kind
            pending.append(kind)
    return found
