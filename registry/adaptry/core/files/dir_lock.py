"""A lock on an open folder, which tells the folders of living processes from those of dead ones."""

from __future__ import annotations


def try_lock(descriptor: int) -> bool:
    """Locks an open folder for as long as this process has it open; False where another has. Not on Windows."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
