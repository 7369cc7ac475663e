"""From what went wrong to the exit code: one table, the most precise class first.

0 done · 1 the answer is no, or a file is malformed · 2 usage · 3 not found · 4 conflict · 5 denied
6 unavailable · 7 damaged bytes · 8 this installation does not fit · 70 a fault of ours · 130 interrupted
"""

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
    0: "done",
    1: "the answer is no: a blocked check, a refused push, a lock that no longer holds, a malformed file",
    2: "usage: something in the call cannot be understood, or is not supported",
    3: "not found, or not yours to see",
    4: "conflict: the state is not what was believed; look again and retry",
    5: "denied, or no valid token",
    6: "unavailable: server gone, database busy, disk full; retrying may help",
    7: "damaged: bytes are not those of their digest",
    8: "this installation does not fit: something is not installed, or one side must be upgraded",
    70: "a fault in Adaptry; ADAPTRY_DEBUG=1 shows where",
    130: "interrupted",
    141: "whoever read the output closed it",
}


def exit_code(error: AdaptryError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAULT)
