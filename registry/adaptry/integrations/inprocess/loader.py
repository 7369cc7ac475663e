"""`load`: an adapter into this program, as tensors or into a PEFT model."""

from __future__ import annotations

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
    registry: Registry | str | None = None,
    device: str | Device = "cpu",
    dtype: DType | None = None,
    cache: Cache | None = None,
) -> LazyTensors: ...


@overload
def load(
    source: AdapterSource,
    *,
    into: Module,
    registry: Registry | str | None = None,
    name: str = "default",
    hotswap: bool = False,
    trainable: bool = False,
    any_base: bool = False,
    cache: Cache | None = None,
) -> LoadResult: ...


def load(
    source: AdapterSource,
    *,
    into: Module | None = None,
    registry: Registry | str | None = None,
    device: str | Device = "cpu",
    dtype: DType | None = None,
    name: str = "default",
    hotswap: bool = False,
    trainable: bool = False,
    any_base: bool = False,
    cache: Cache | None = None,
) -> LazyTensors | LoadResult:
    """The tensors of a ref or folder, or that adapter in a model.

    Without `into`: names and tensors as in the file, on `device`, floats as `dtype` if given; on the CPU, as
    stored, they are the mapped file itself. With `into`, a transformers or PEFT model on whatever device: the
    adapter is in it as PEFT's `load_adapter` would have it, called `name`; with `hotswap` in the place of the
    one so called. A model that was read from files is compared with the version's base by content, unless
    `any_base`.

    `registry` is one that is open, or where it is (None: as `connect`). A version is asked for every time,
    and its files are kept by digest in `cache` (None: the user's). Raises `NotFound`, `Withdrawn`,
    `DigestMismatch`, `Conflict` (the name is taken), `Invalid`, `Unsupported`, `CheckFailed` (another base;
    something of it would do nothing), `MissingDependency` (no torch or no PEFT), and `Unavailable`; then the
    model is as it was.
    """
    if into is None:
        _require("torch", "adaptry[torch]")
        if hotswap or trainable or any_base:
            raise Invalid("hotswap, trainable and any_base are about a model: pass it as into=model")
        require_device_and_dtype(device, dtype)
    else:
        _require("peft", "peft>=0.17")
        peft_model.require_model(into)
    with fetch_files(source, registry, cache) as found:
        if into is None:
            return LazyTensors(
                found.folder / found.adapter.format.weights, found.adapter.tensors, device, dtype
            )
        return _placed(found, into, name, hotswap, trainable, any_base)


def _placed(
    found: FetchedFiles, model: Module, name: str, hotswap: bool, trainable: bool, any_base: bool
) -> LoadResult:
    base = None if any_base else require_same_base(model, found)
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
