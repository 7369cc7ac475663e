"""Everything that can go wrong, one class per kind of answer.

Each error carries a sentence a person can act on (what, where, what to try) and a stable `code`.
The core has never heard of HTTP or exit codes: the API has one table from class to status, the
command line one from class to exit code, and the client turns codes back into these classes, so a
remote registry raises exactly what a local one does.
"""

from __future__ import annotations

from typing import ClassVar


class AdaptryError(Exception):
    """The root of every error we raise on purpose.

    `public_message` is what a server sends to its clients: the message, unless that names the server's
    folders or hosts.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, public_message: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.public_message = public_message or message

    def __reduce__(self) -> tuple[type[AdaptryError], tuple[str], dict[str, object]]:
        return type(self), (self.message,), vars(self)


class Invalid(AdaptryError):
    """What was given cannot be understood, whoever looks at it."""

    code = "invalid"


class InvalidRef(Invalid):
    """A ref, name or alias does not parse; the message shows the grammar."""

    code = "invalid_ref"


class InvalidPath(Invalid):
    """A file name inside a revision is not one we store."""

    code = "invalid_path"


class InvalidManifest(Invalid):
    """Manifest bytes are not canonical, or say something a manifest cannot say."""

    code = "invalid_manifest"


class InvalidConfig(Invalid):
    """An `adapter_config.json` (or a base's `config.json`) that no loader should be given."""

    code = "invalid_config"


class InvalidWeights(Invalid):
    """A safetensors file that breaks the format or our limits."""

    code = "invalid_weights"


class InvalidBundle(Invalid):
    """A bundle file that is not whole, or is not what its index says; nothing of it was taken."""

    code = "invalid_bundle"


class InvalidBackup(Invalid):
    """A backup that is not whole, or whose bytes are not those that it names; nothing of it was taken."""

    code = "invalid_backup"


class InvalidQuery(Invalid):
    """A search text that does not parse; the message shows where and what is allowed."""

    code = "invalid_query"


class Unsupported(Invalid):
    """Understood, and not something we do (yet): a method, a layout, a pickle file."""

    code = "unsupported"


class TooLarge(Invalid):
    """Over a limit; the message names the limit."""

    code = "too_large"


class NotFound(AdaptryError):
    """There is no such thing, or you may not know that there is."""

    code = "not_found"


class RevisionNotFound(NotFound):
    """The adapter is there, and no revision of it is meant by that word."""

    code = "revision_not_found"


class FileMissing(NotFound):
    """The revision is there, and has no file of that name."""

    code = "file_missing"


class Conflict(AdaptryError):
    """The state is not what the caller believed; look again and retry."""

    code = "conflict"


class OffsetMismatch(Conflict):
    """An upload chunk does not start where the received bytes end."""

    code = "offset_mismatch"

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class DigestMismatch(Conflict):
    """Bytes are not those of the digest they were announced under; nothing was kept."""

    code = "digest_mismatch"


class CheckFailed(AdaptryError):
    """The checks say this cannot work; the report says why and what to do."""

    code = "refused"


class Unauthenticated(AdaptryError):
    """No token, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class PermissionDenied(AdaptryError):
    """A known identity that may not do this."""

    code = "denied"


class Withdrawn(PermissionDenied):
    """The version is quarantined or revoked, its files withheld; the message says why, and what to take."""

    code = "withdrawn"


class Unavailable(AdaptryError):
    """Not now: the server is gone, the database is busy, the network failed. Retrying may help."""

    code = "unavailable"


class Busy(Unavailable):
    """A limit on what may happen at once is reached; the same call succeeds once others have finished.

    `retry_after` is how many seconds to wait before the next try.
    """

    code = "busy"

    def __init__(self, message: str, retry_after: float = 3.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageFull(Unavailable):
    """No space left where bytes must go; what was there before is untouched."""

    code = "storage_full"


class ReadOnly(Unavailable):
    """The registry's folder is read-only on this machine. Retrying does not help."""


class CorruptData(AdaptryError):
    """Stored bytes are no longer those that were stored."""

    code = "corrupt"


class ProtocolMismatch(AdaptryError):
    """Client and server speak different versions; the message says which side to upgrade."""

    code = "incompatible"


class MissingDependency(AdaptryError):
    """Something this needs is not installed; the message is the line that installs it."""

    code = "missing"


def by_code() -> dict[str, type[AdaptryError]]:
    """Every class by its stable code, for a client that turns answers back into errors."""
    found: dict[str, type[AdaptryError]] = {AdaptryError.code: AdaptryError}
    pending = [AdaptryError]
    while pending:
        for kind in pending.pop().__subclasses__():
            if "code" in vars(kind):  # a subclass without its own is, to a client, what it derives from
                found[kind.code] = kind
            pending.append(kind)
    return found
