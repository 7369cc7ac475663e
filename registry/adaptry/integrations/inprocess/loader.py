"""`load`: loads an adapter into this program, as tensors or into a PEFT model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, overload

from adaptry.core.errors import Invalid, MissingDependency
from adaptry.integrations.inprocess import hotswap as hotswapping
from adaptry.integrations.inprocess import peft_model
from adaptry.integrations.inprocess.base_match import require_same_base
from adaptry.integrations.inprocess.fetch import AdapterSource, FetchedFiles, fetch_files
from adaptry.integrations.inprocess.load_result import LoadResult
from adaptry.integrations.inprocess.tensors import LazyTensors, require_device_and_dtype
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.registry.interface import Registry

if TYPE_CHECKING:
    from torch import device as Device  # noqa: N812
    from torch import dtype as DType  # noqa: N812
    from torch.nn import Module


@overload
def load(
    source: AdapterSource,
    *,
    registry: Registry | Path | str | None = None,
    device: str | Device = "cpu",
    dtype: DType | None = None,
    cache: Cache | None = None,
) -> LazyTensors: ...


@overload
def load(
    source: AdapterSource,
    *,
    into: Module,
    registry: Registry | Path | str | None = None,
    name: str = "default",
    hotswap: bool = False,
    trainable: bool = False,
    other_base: bool = False,
    cache: Cache | None = None,
) -> LoadResult: ...


def load(
    source: AdapterSource,
    *,
    into: Module | None = None,
    registry: Registry | Path | str | None = None,
    device: str | Device = "cpu",
    dtype: DType | None = None,
    name: str = "default",
    hotswap: bool = False,
    trainable: bool = False,
    other_base: bool = False,
    cache: Cache | None = None,
) -> LazyTensors | LoadResult:
    """Loads an adapter's tensors, or loads the adapter into a model.

        tensors = adaptry.load("acme/tone@prod", registry=registry)
        placed = adaptry.load("acme/tone@prod", registry=registry, into=model)
        placed.model.generate(…)

    A ref is resolved on every call, so an alias is never stale; files are verified once and cached by digest.

    Args:
        source: The version, as in `"acme/tone@prod"` or what `push` or `search` returned; or a folder (a
            `Path`, or a string that begins with `./`, `../`, `/` or `~`).
        into: A transformers or PEFT model, on any device. None: return tensors.
        registry: An open registry, a server's URL, or a folder. None: the configured one, as in `connect`.
        device: Without `into`: the device of the tensors.
        dtype: Without `into`: the dtype of floating-point tensors. None: as stored.
        name: With `into`: the adapter's name in the model.
        hotswap: With `into`: replaces the weights of the loaded adapter called `name` in place.
        trainable: With `into`: loads the adapter for further training.
        other_base: With `into`: allows a model of a different base. Otherwise, the files that
            the model was read from are compared with the version's base by content.
        cache: Where files are kept by digest. None: the user's worker cache.

    Returns:
        Without `into`: a mapping from tensor names to tensors, with the names, order and shapes of the file.
        A tensor is created when it is looked up; on the CPU, in its stored dtype, it is the memory-mapped
        file itself (writing to it never changes the file). With `into`: the PEFT model, the version, and how
        the model's files match the version's base.

    Raises:
        NotFound: there is no such version or folder.
        Withdrawn: the version is quarantined or revoked.
        CheckFailed: another base, or tensors that match nothing in the model.
        Conflict: the name is taken.
        DigestMismatch, Invalid, Unsupported, Unauthenticated, Unavailable.
        MissingDependency: torch or PEFT is not installed.

    After an error, the model is unchanged, with one exception: if the file cannot be read completely while a
    hotswap copies it, the adapter becomes all zeros, so that the model answers like its base.
    """
    if into is None:
        _require("torch", "adaptry[torch]")
        if hotswap or trainable or other_base:
            raise Invalid("hotswap, trainable and other_base apply only to a model: pass it as into=model")
        require_device_and_dtype(device, dtype)
    else:
        _require("peft", "peft>=0.17")
        peft_model.require_model(into)
    with fetch_files(source, registry, cache) as found:
        if into is None:
            return LazyTensors(
                found.folder / found.adapter.format.weights, found.adapter.tensors, device, dtype
            )
        return _placed(found, into, name, hotswap, trainable, other_base)


def _placed(
    found: FetchedFiles, model: Module, name: str, hotswap: bool, trainable: bool, other_base: bool
) -> LoadResult:
    base = None if other_base else require_same_base(model, found)
    placed = (
        hotswapping.swap_adapter(model, found, name)
        if hotswap
        else peft_model.add_adapter(model, found, name, trainable)
    )
    return LoadResult(placed, name, found.version, base)


def _require(library: str, requirement: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise MissingDependency(f"loading an adapter here needs {library}: pip install '{requirement}'")
