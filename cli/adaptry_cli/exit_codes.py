"""From errors to exit codes, and what each code means: one table, the most precise class first."""

from __future__ import annotations

from adaptry.core.errors import (
    AdaptryError,
    CheckFailed,
    Conflict,
    CorruptData,
    DigestMismatch,
    Invalid,
    InvalidBackup,
    InvalidBundle,
    InvalidConfig,
    InvalidManifest,
    InvalidWeights,
    MissingDependency,
    NotFound,
    PermissionDenied,
    ProtocolMismatch,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)

NO = 1
USAGE = 2
FAULT = 70
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES: tuple[tuple[type[AdaptryError], int], ...] = (
    (CheckFailed, NO),
    (InvalidConfig, NO),
    (InvalidWeights, NO),
    (InvalidManifest, NO),
    (InvalidBundle, NO),
    (InvalidBackup, NO),
    (QuotaExceeded, NO),
    (Invalid, USAGE),
    (NotFound, 3),
    (DigestMismatch, 7),
    (CorruptData, 7),
    (Conflict, 4),
    (PermissionDenied, 5),
    (Unauthenticated, 5),
    (Unavailable, 6),
    (ProtocolMismatch, 8),
    (MissingDependency, 8),
)
MEANINGS: dict[int, str] = {
    0: "success",
    1: (
        "negative result: a blocked check, a refused push, a full quota, an outdated lock file,"
        " a malformed file"
    ),
    2: "usage: the command line is wrong, or asks for something that is not supported",
    3: "not found, or you may not read it",
    4: "conflict: someone else changed it first; look again and retry",
    5: "permission denied, or no valid token",
    6: "unavailable: the server does not answer, the database is busy, the disk is full; a retry may help",
    7: "damaged: the bytes do not match their digest",
    8: "installation: a package is missing or broken, or one side must be upgraded",
    70: "a bug in Adaptry; ADAPTRY_DEBUG=1 shows where",
    130: "interrupted by Ctrl-C",
    141: "the reader of the output closed it early",
}


def exit_code(error: AdaptryError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAULT)
