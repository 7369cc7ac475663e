"""Backups of a registry in a folder: a snapshot of its catalog, and every file that the catalog names.

A backup is one file (`.tar`), or a folder to which later backups add only new files. The catalog is copied
first; it names the files that are needed, and no sweep deletes any while they are copied. A restore compares
everything with its digest before using it.
"""

from adaptry.storage.backup.restoration import RestoreResult, begin_epoch, check, restore
from adaptry.storage.backup.writer import BackupResult, create

__all__ = ["BackupResult", "RestoreResult", "begin_epoch", "check", "create", "restore"]
