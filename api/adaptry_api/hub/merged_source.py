"""Locates the input files of a merged model on this machine, and runs the process that computes it.

A version's files are in the store. Its base's files are in the store too, or in the folder from which the
base was registered on this machine; for a folder, the process checks that it still holds that base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from adaptry.bases.local_index import find_paths
from adaptry.compute.sidecar_client.client import ComputeClient
from adaptry.compute.sidecar_client.inputs import ModelDescription, ModelInputs
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.registry.base_info import BaseInfo
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


class MergedModelSource:
    """`place_of` gives the location of stored bytes; `places` is the folder that records the locations of
    bases. `folder` is for the process, and up to `cache` bytes of finished files are kept there.
    """

    def __init__(self, folder: Path, place_of: Callable[[Digest], Path], places: Path, cache: int) -> None:
        self._place_of = place_of
        self._places = places
        self._compute_client = ComputeClient(folder, cache)

    def inputs_of(self, registry: Registry, version: VersionInfo) -> ModelInputs:
        """The input files that the caller may read. Raises `NotFound`, and `CheckFailed` for a version whose
        base is not registered.
        """
        label = version.label
        if version.base_id is None or version.base_status != "verified":
            named = f" ({version.base_name})" if version.base_name else ""
            raise CheckFailed(
                f"{label} is not served merged: its base{named} is not registered by content; an"
                " administrator can register it with `adaptry base add FOLDER --name ORG/MODEL --store`; if"
                " the adapter's config has another name for it, bind the version to it:"
                f" `adaptry base bind {label} ORG/MODEL`"
            )
        base = registry.bases.get(str(version.base_id))
        tree = registry.commits.tree(version.name, version.digest)
        return ModelInputs(
            adapter=label,
            revision=version.digest,
            adapter_files={entry.path: str(self._place_of(entry.sha256)) for entry in tree.files},
            base=base.id,
            base_name=base_label(base),
            base_folders=tuple(str(folder) for folder in find_paths(self._places, base.id)),
            base_files={entry.path: str(self._place_of(entry.sha256)) for entry in base.stored},
        )

    def describe(self, inputs: ModelInputs) -> ModelDescription:
        """The description of the merged model. Raises `CheckFailed` if the version cannot be merged or its
        base's files are missing; `Unavailable`.
        """
        try:
            return self._compute_client.describe(inputs)
        except (NotFound, CheckFailed) as error:
            raise CheckFailed(f"{inputs.adapter} is not served merged: {error.message}") from error

    def read(self, inputs: ModelInputs, model: ModelDescription, file: str, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on. Raises the errors of `ComputeClient.read`."""
        found = model.file(file)
        end = found.size if found else start
        return self._compute_client.read(inputs, model, file, start, end)

    def close(self) -> None:
        self._compute_client.close()


def base_label(base: BaseInfo) -> str:
    return base.names[0] if base.names else base.id.brief
