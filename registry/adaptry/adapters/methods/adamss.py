"""AdaMSS: updates of clusters of output rows, each in a small subspace (NeurIPS 2025; PEFT `tuners/adamss`).

The file does not record which rows each cluster has. PEFT computes the clusters again at every load: it
clusters the rows of the base's weight (with the bias as one more column) with scikit-learn, in the basis of
their leading directions. The file has the directions, so a merge can check that it found the same ones;
otherwise it refuses.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
)
from adaptry.adapters.methods.random_projections import projection_seed
from adaptry.adapters.methods.randomized_svd import leading_directions
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights, MissingDependency

if TYPE_CHECKING:
    from torch import Tensor

_RTOL, _ATOL = 2**-8, 1e-4
"""Largest distance of the directions (of length 1) from the file's, which are rounded to the base's dtype."""
_CLUSTERING = {"init": "random", "n_init": 1, "max_iter": 10, "random_state": 123456789}
"""PEFT's arguments for KMeans (`tuners/adamss/utils.py`)."""


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """`newB` has a column for each input, and one more if the base has a bias."""
    rank, columns = shapes["newB"]
    clusters = [role.removeprefix("B.") for role in shapes if role.startswith("B.")]
    fan_out = 0
    for cluster in clusters:
        rows, own_rank = shapes[f"B.{cluster}"]
        if shapes[f"A.{cluster}"] != (own_rank, rank):
            raise ValueError("the shapes of the factors do not match")
        fan_out += rows
    return ModuleSize(common_number(rank, min(config.rank(default=100), fan_out, columns)), 0, fan_out)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    columns = shapes["newB"][1]
    if columns in (weight.fan_in, weight.fan_in + 1):
        return None
    return f"has directions of {columns} numbers, for a weight of {weight.fan_in} columns"


def _check_installed() -> None:
    if find_spec("sklearn") is None:
        raise MissingDependency(
            "AdaMSS needs the clusters that scikit-learn finds in the base's weights:"
            " pip install scikit-learn"
        )


def _rows(weight: Tensor, parts: ModuleTensors, count: int) -> list[Tensor]:
    """The row numbers of each of the `count` clusters of `weight` [out, in or in + 1], fp32.

    Raises `MissingDependency` (no scikit-learn), and `InvalidWeights` if the directions differ from those in
    the file.
    """
    import torch

    _check_installed()
    from sklearn.cluster import KMeans

    path, directions = parts.module.path, parts["newB"]
    if weight.shape[1] != directions.shape[1]:
        raise InvalidWeights(
            f"{path} was trained on a base {'with' if weight.shape[1] < directions.shape[1] else 'without'} a"
            " bias there: merge it into its own base"
        )
    left, _, right = leading_directions(
        weight, directions.shape[0], steps=2, seed=projection_seed(parts.config, "random_seed", 0)
    )
    if not torch.allclose(right, directions, rtol=_RTOL, atol=_ATOL):
        raise InvalidWeights(
            f"the directions of {path} differ from those that PEFT finds in this base on this machine, so"
            " the rows that it changes are unknown: merge it into the base it was trained on, on the kind of"
            " machine it was trained on"
        )
    clusters = KMeans(n_clusters=count, **_CLUSTERING).fit_predict(left.contiguous().numpy())
    found = [torch.where(torch.from_numpy(clusters) == number)[0] for number in range(count)]
    if any(len(rows) != parts[f"B.{number}"].shape[0] for number, rows in enumerate(found)):
        raise InvalidWeights(
            f"the clusters of the rows of {path} have other sizes than in the file: merge it with the version"
            " of scikit-learn that it was trained with"
        )
    return found


def _update(weight: Tensor, bias: Tensor | None, parts: ModuleTensors) -> Tensor:
    """The update [out, in], or [out, in + 1] with a bias, in float32: B·A·newB for each cluster of rows."""
    import torch

    count = min(int(parts.config.rank("num_subspaces", 5)), weight.shape[0])
    if f"B.{count - 1}" not in parts or f"B.{count}" in parts:
        raise InvalidWeights(
            f"{parts.module.path} does not have the {count} parts that adapter_config.json declares: save"
            " the adapter again from the trained model"
        )
    joined = weight if bias is None else torch.cat((weight, bias[:, None]), dim=1)
    update = torch.zeros(joined.shape)
    for number, rows in enumerate(_rows(joined.float(), parts, count)):
        update[rows] = parts[f"B.{number}"] @ parts[f"A.{number}"] @ parts["newB"]
    return update


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    update = _update(weight, parts.bias(), parts)[:, : weight.shape[1]]
    return weight + update.to(weight.dtype)


def _bias(bias: Tensor, parts: ModuleTensors) -> Tensor:
    update = _update(parts.weight(), bias, parts)[:, -1]
    return bias + update.to(bias.dtype)


METHOD = Method(
    name="adamss",
    title="AdaMSS",
    key_patterns={r"adamss_A\.(?P<rest>\d+)": "A", r"adamss_B\.(?P<rest>\d+)": "B", "adamss_newB": "newB"},
    module_size=_module_size,
    products=((r"A\.\d+", r"B\.\d+"),),
    untrained_roles="newB",
    mismatch=_mismatch,
    weight=_weight,
    bias=_bias,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    needs_base=True,
    check_installed=_check_installed,
    tolerance=(
        "bit-equal with the same LAPACK in torch, scikit-learn and number of threads; otherwise within"
        " rounding, or refused if they find other directions"
    ),
)
