"""`inspect_folder` and `import_folder`: folders with the output of many training runs."""

from __future__ import annotations

from pathlib import Path

from adaptry.facade.arguments import BaseLike, parse_base
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.python_errors import python_errors
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.folder_import.bases import list_bases
from adaptry.operations.folder_import.plan import plan_import
from adaptry.operations.folder_import.result import FolderImport
from adaptry.operations.folder_import.run import run_import
from adaptry.operations.folder_scan import FolderScan, scan_folder


@python_errors
def inspect_folder(folder: Path | str) -> FolderScan:
    """Describes every adapter in a folder and its subfolders, from any supported tool.

    Only headers, configs and samples of the weights are read; files whose samples are equal are read
    completely, to find adapters with the same weights. An adapter that cannot be read is listed with its
    `error`.

        for adapter in adaptry.inspect_folder("runs").adapters:
            print(adapter.path, adapter.method, adapter.ranks, adapter.step, adapter.same_weights_as)

    Args:
        folder: The folder, as in `"runs"`. Links to folders, hidden folders, and folders more than 16 levels
            down are not searched.

    Raises:
        NotFound: there is no such folder.
    """
    return scan_folder(Path(folder).expanduser())


@python_errors
def import_folder(
    registry: RegistryLike,
    folder: Path | str,
    *,
    to: str,
    base: BaseLike | None = None,
    dry_run: bool = False,
    progress: ShowProgress = True,
) -> FolderImport:
    """Imports the training runs in a folder: each run becomes an adapter, each of its checkpoints a version.

    An adapter is named after the path of its run's folder; its versions are in the order of steps, and the
    end of the run is the last. Results files become evidence, as in `push`. Adapters that were already
    imported are skipped, so an interrupted import can be repeated.

        done = adaptry.import_folder(registry, "runs", to="acme")
        for failure in done.failures:
            print(failure.planned.adapter.path, failure.error)

    Args:
        registry: An open registry, a server's URL, or a folder, in which a registry is created
            unless it holds one.
        folder: The folder, as in `inspect_folder`.
        to: The namespace of the adapters, as in `"acme"`.
        base: The model that all of them were trained on. None: the one that each config names.
        dry_run: Imports nothing, and returns what would be imported.
        progress: False shows no bars.

    Returns:
        A result for each adapter of the folder, and the bases, with the command that registers each unless it
        is registered.

    Raises:
        NotFound: there is no such folder, or no adapter in it, or, in a dry run, no registry.
        InvalidRef: a malformed namespace.
        Unauthenticated, Unavailable, StorageFull.
    """
    with opened(registry, create=not dry_run) as to_registry, shown_progress(progress) as bars:
        scan = scan_folder(Path(folder).expanduser())
        results = tuple(
            run_import(
                to_registry,
                plan_import(scan, to),
                base=None if base is None else parse_base(base),
                is_dry_run=dry_run,
                progress=bars,
            )
        )
        return FolderImport(scan.root, results, list_bases(to_registry.bases, results, to), scan.unsearched)
