"""The inputs of a merged model, by their paths on this machine, and its description: values for both
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest


class _IpcValue(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class ModelInputs(_IpcValue):
    """A version of an adapter, and its base.

    `adapter` is the version's ref for messages, `revision` its digest, and `adapter_files` has the path of
    each file. The base must have the id `base`; it is looked for in `base_folders`, in order, and then among
    `base_files`. `base_name` is its name for messages.
    """

    adapter: str
    revision: Digest
    adapter_files: Mapping[str, str]
    base: Digest
    base_name: str
    base_folders: tuple[str, ...] = ()
    base_files: Mapping[str, str] = {}


class MergedFile(_IpcValue):
    """`sha256` is None until a weights file has been read completely; `tag` identifies its bytes before that.
    `blob_id` is git's id of a file other than weights.
    """

    name: str
    size: int
    sha256: Digest | None
    tag: Digest
    blob_id: str | None = None


class ModelDescription(_IpcValue):
    """A merged model. Models with equal `identity` have equal bytes. `computed_by` has the versions of the
    computing libraries; `notes` are sentences for users."""

    identity: Digest
    files: tuple[MergedFile, ...]
    computed_by: tuple[str, ...]
    notes: tuple[str, ...]

    def file(self, name: str) -> MergedFile | None:
        return next((file for file in self.files if file.name == name), None)


class ComputeRequest(_IpcValue):
    """A request about a model: its description, or with `file` the bytes [start, end) of that file of model
    `identity`.
    """

    inputs: ModelInputs
    file: str | None = None
    identity: Digest | None = None
    start: int = 0
    end: int = 0
