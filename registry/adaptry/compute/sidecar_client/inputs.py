"""The inputs of a merged model, by their paths on this machine, and its description: values for both
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest


class _Passed(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class ModelInputs(_Passed):
    """An adapter's version and its base.

    `adapter` is what people call the version, `revision` its digest, `adapter_files` where each of its files
    is. The base is looked for in `base_folders`, in order, and then among `base_files`; it must have the id
    `base`. `base_name` is what people call it.
    """

    adapter: str
    revision: Digest
    adapter_files: Mapping[str, str]
    base: Digest
    base_name: str
    base_folders: tuple[str, ...] = ()
    base_files: Mapping[str, str] = {}


class MergedFile(_Passed):
    """`sha256` is None until a weights file has been read completely; `tag` names its bytes before that.
    `blob_id` is what git calls a file beside the weights.
    """

    name: str
    size: int
    sha256: Digest | None
    tag: Digest
    blob_id: str | None = None


class ModelDescription(_Passed):
    """A merged model: equal `identity`, equal bytes; `computed_by`: by what; `notes`: what to know."""

    identity: Digest
    files: tuple[MergedFile, ...]
    computed_by: tuple[str, ...]
    notes: tuple[str, ...]

    def file(self, name: str) -> MergedFile | None:
        return next((file for file in self.files if file.name == name), None)


class ComputeRequest(_Passed):
    """A request about a model: its description, or with `file` the bytes [start, end) of that file of model
    `identity`.
    """

    ingredients: ModelInputs
    file: str | None = None
    identity: Digest | None = None
    start: int = 0
    end: int = 0
