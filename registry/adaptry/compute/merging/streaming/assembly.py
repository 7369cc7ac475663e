"""Opens a merged model from its inputs. Everything that can fail fails here, before a weight is computed.

A store names files by digest; while they are opened, they are linked into folders as loaders expect. Messages
name the base and the adapter as the user does, and never contain a path on this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from adaptry.adapters.adapter import open_content
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import FolderContent
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import MergeSource, check_inputs, plan_recipe
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.record import RECORD_FILE, build_merge_record
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.compute.sidecar_client.inputs import ModelInputs
from adaptry.core.errors import AdaptryError, NotFound


def open_merged_model(inputs: ModelInputs, scratch: Path) -> VirtualCheckpoint:
    """The merged model: its weights, and the record that a merge writes.

    The record has no digests of files and no release of Adaptry, so equal bytes have equal names. `scratch`
    is a work folder. Raises the errors of `plan`, and `NotFound` if the base is in none of its folders.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="opening-") as links:
        try:
            return _assembled(inputs, Path(links), scratch)
        except AdaptryError as error:
            raise type(error)(_public_message(error.message, inputs, links)) from error


def _assembled(inputs: ModelInputs, links: Path, scratch: Path) -> VirtualCheckpoint:
    folder = _linked(links / "adapter", inputs.adapter_files)
    adapter = open_content(FolderContent(folder, list(inputs.adapter_files)))
    checkpoint, base = _base(inputs, links / "base")
    source = MergeSource(WeightedAdapter(adapter, 1.0, inputs.adapter, base), inputs.revision)
    recipe = MergeRecipe(base=str(inputs.base), inputs=(RecipeInput(source=inputs.adapter),))
    plan = plan_recipe(recipe, checkpoint, [source])
    check_inputs([source.weighted])
    kernels = choose_kernels()
    made = _record(recipe, plan, kernels.names_for(plan.changed_tensors), inputs)
    return VirtualCheckpoint(plan, kernels, inputs.revision, {RECORD_FILE: made}, scratch)


def _record(recipe: MergeRecipe, plan: MergePlan, kernels: tuple[str, ...], inputs: ModelInputs) -> bytes:
    made = build_merge_record(recipe, plan, (), kernels, (inputs.revision,))
    return (made.model_copy(update={"adaptry": ""}).model_dump_json(indent=2) + "\n").encode()


def _base(inputs: ModelInputs, links: Path) -> tuple[HfCheckpoint, BaseRecord]:
    for folder in _folders(inputs, links):
        try:
            checkpoint = open_checkpoint(folder)
            found = fingerprint(checkpoint)
        except AdaptryError:
            continue  # gone, moved or overwritten
        if found.id == inputs.base:
            return checkpoint, found
    raise NotFound(
        f"the weights of {inputs.base_name} are not available on the server: store them once with "
        f"`adaptry base add FOLDER --name {inputs.base_name} --store`"
    )


def _folders(inputs: ModelInputs, links: Path) -> Iterator[Path]:
    yield from map(Path, inputs.base_folders)
    if inputs.base_files:
        yield _linked(links, inputs.base_files)


def _linked(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir()
    for name, place in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(place)
    return folder


def _public_message(message: str, inputs: ModelInputs, links: str) -> str:
    for folder in (*inputs.base_folders, f"{links}/base"):
        message = message.replace(folder, inputs.base_name)
    return message.replace(f"{links}/adapter", inputs.adapter)
