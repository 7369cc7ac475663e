"""WaveFT: trained wavelet coefficients at random positions (arXiv 2505.12532; PEFT `tuners/waveft`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.fourierft import coefficients, more_than_elements, too_many_coefficients
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides, add_delta
from adaptry.adapters.methods.random_projections import matrix_sides, positions
from adaptry.adapters.methods.wavelets import LOW_PASS
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _family(config: AdapterConfig) -> str:
    return str(config.fields.get("wavelet_family", "db1"))


def _is_transformed(config: AdapterConfig) -> bool:
    return config.fields.get("use_idwt") is not False


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    if config.flag("proportional_parameters"):  # each module has its share of all coefficients
        (_,) = shapes["spectrum"]
        return ModuleSize(0, 0, 0)
    return coefficients(shapes, config, 2592)


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    if config.flag("proportional_parameters"):
        return None
    return more_than_elements(weight, config, 2592)


def _shapes_in_model(weights: Mapping[str, WeightSides], config: AdapterConfig) -> Mapping[str, Shapes]:
    """The number of coefficients of each module; with `proportional_parameters`, in proportion to its
    elements.
    """
    if not config.flag("proportional_parameters"):
        return {}
    elements = {path: weight.fan_out * weight.fan_in for path, weight in weights.items()}
    budget = config.number("n_frequency", 2592) * len(elements)
    return {
        path: {"spectrum": (max(1, round(count / sum(elements.values()) * budget)),)}
        for path, count in elements.items()
    }


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("scaling", 25.0)


def _inverse(spectrum: Tensor, family: str) -> Tensor:
    """One level of the inverse transform of `spectrum`'s four quarters, like PEFT's `waverec2d`."""
    import torch

    low = torch.tensor(LOW_PASS[family])
    high = low.flip(0) * torch.tensor([1.0, -1.0]).repeat(len(low) // 2)
    filters = torch.stack(
        [torch.outer(*pair) for pair in ((low, low), (high, low), (low, high), (high, high))]
    )
    halves = [half.chunk(2, dim=1) for half in spectrum.chunk(2, dim=0)]
    quarters = torch.stack([quarter for half in halves for quarter in half])
    whole = torch.nn.functional.conv_transpose2d(quarters.unsqueeze(0), filters.unsqueeze(1), stride=2)[0, 0]
    edge = (2 * len(low) - 3) // 2
    return whole[edge : whole.shape[0] - edge, edge : whole.shape[1] - edge]


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    fan_out, fan_in = matrix_sides(parts, shape)
    rows, columns = positions(parts, len(parts["spectrum"]), fan_out, fan_in)
    if _is_transformed(parts.config):
        family = _family(parts.config)
        # The transform shortens both sides by the filter's length minus two; even sides can be halved.
        height, width = (side + len(LOW_PASS[family]) - 2 for side in (fan_out, fan_in))
        height, width = height + height % 2, width + width % 2
        spectrum = torch.zeros(height, width)
        spectrum[rows + (height - fan_out) // 2, columns + (width - fan_in) // 2] = parts["spectrum"]
        update = _inverse(spectrum, family) * parts.module.scale
        top, left = (update.shape[0] - fan_out) // 2, (update.shape[1] - fan_in) // 2
        update = update[top : top + fan_out, left : left + fan_in]
    else:
        update = torch.zeros(fan_out, fan_in)
        update[rows, columns] = parts["spectrum"]
        update = update * parts.module.scale
    return update.T if parts.orientation == "conv1d" else update


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if not _is_transformed(config) or _family(config) in LOW_PASS:
        return None
    return (
        f"its wavelet {_family(config)[:20]!a} is not one that PEFT itself can merge"
        f" ({', '.join(LOW_PASS)}): serve it with the library that trained it"
    )


METHOD = Method(
    name="waveft",
    title="WaveFT",
    key_patterns={"waveft_spectrum": "spectrum"},
    tolerance="bit-equal with the version of torch that drew its positions",
    module_size=_module_size,
    products=(("spectrum",),),
    scale=_scale,
    weight=add_delta(_delta),
    mismatch=too_many_coefficients,
    cannot_adapt=_cannot_adapt,
    shapes_in_model=_shapes_in_model,
    unmergeable_reason=_unmergeable_reason,
)
