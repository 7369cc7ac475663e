"""Backups of a registry in a folder: one moment of its catalog, and every file that the catalog names.

A backup is a folder, to which later ones add only what is new, or one file (`.tar`). The catalog is copied
first and says which files it needs; while they are copied no sweep deletes any. Everything that is read back
is compared with its digest before it is used.
"""

from adaptry.storage.backup.restoration import RestoreResult, begin_epoch, check, restore
from adaptry.storage.backup.writer import BackupResult, create

__all__ = ["BackupResult", "RestoreResult", "begin_epoch", "check", "create", "restore"]
