"""AdaMSS: updates of clusters of output rows, each in a small subspace (NeurIPS 2025; PEFT `tuners/adamss`).

Which rows a part changes is not in the file: PEFT finds it anew whenever it loads one, by clustering the rows
of the base's weight (its bias a column more) with scikit-learn, in the basis of their leading directions. The
directions are in the file, so whether the same ones are found here can be told, and where they are not
nothing is merged.
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
"""How far the directions (of length 1) may be from the file's, which are rounded to the base's dtype."""
_CLUSTERING = {"init": "random", "n_init": 1, "max_iter": 10, "random_state": 123456789}
"""What PEFT gives to KMeans (`tuners/adamss/utils.py`)."""


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """`newB` is as wide as the inputs, with one column more where the base has a bias."""
    rank, columns = shapes["newB"]
    clusters = [role.removeprefix("B.") for role in shapes if role.startswith("B.")]
    if any(shapes[f"A.{cluster}"] != (shapes[f"B.{cluster}"][1], rank) for cluster in clusters):
        raise ValueError("the factors do not multiply")
    fan_out = sum(shapes[f"B.{cluster}"][0] for cluster in clusters)
    return ModuleSize(common_number(rank, min(config.rank(default=100), fan_out, columns)), 0, fan_out)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    columns = shapes["newB"][1]
    if columns in (weight.fan_in, weight.fan_in + 1):
        return None
    return f"has directions of {columns} numbers, for a weight of {weight.fan_in} columns"


def _check_installed() -> None:
    if find_spec("sklearn") is None:
        raise MissingDependency(
            "AdaMSS is merged by clusters that scikit-learn finds in the base's weights:"
            " pip install scikit-learn"
        )


def _rows(weight: Tensor, parts: ModuleTensors, count: int) -> list[Tensor]:
    """The row numbers of each of the `count` clusters of `weight` [out, in or in + 1], fp32.

    Raises `MissingDependency` (no scikit-learn), and `InvalidWeights` where they are not those of the file.
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
            f"the directions of {path} are not those that PEFT finds in this base on this machine, so which"
            " rows it changes cannot be told: merge it into the base it was trained on, on such a machine as"
            " it was trained on"
        )
    clusters = KMeans(n_clusters=count, **_CLUSTERING).fit_predict(left.contiguous().numpy())
    found = [torch.where(torch.from_numpy(clusters) == number)[0] for number in range(count)]
    if any(len(rows) != parts[f"B.{number}"].shape[0] for number, rows in enumerate(found)):
        raise InvalidWeights(
            f"the rows of {path} fall into clusters of other sizes than the file has: merge it with the"
            " scikit-learn it was trained with"
        )
    return found


def _update(weight: Tensor, bias: Tensor | None, parts: ModuleTensors) -> Tensor:
    """[out, in], or [out, in + 1] with a bias, fp32: for each cluster of rows its B·A·newB."""
    import torch

    count = min(int(parts.config.rank("num_subspaces", 5)), weight.shape[0])
    if f"B.{count - 1}" not in parts or f"B.{count}" in parts:
        raise InvalidWeights(
            f"{parts.module.path} has another number of parts than the {count} of adapter_config.json: save"
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
    untrained_roles="newB",
    mismatch=_mismatch,
    weight=_weight,
    bias=_bias,
    lora_form="given_base",
    lora_rank=lambda module, config: module.rank,
    needs_base=True,
    check_installed=_check_installed,
    tolerance=(
        "bit-equal where torch's LAPACK and scikit-learn are the same, on as many threads; else within"
        " rounding, or refused where they find other directions"
    ),
)
