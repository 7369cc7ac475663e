"""FourierFT: trained Fourier coefficients at random places (arXiv 2405.03003; PEFT `tuners/fourierft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, WeightSides, add_delta
from adaptry.adapters.methods.random_projections import matrix_sides, positions
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def coefficients(shapes: Shapes, config: AdapterConfig, default: int) -> ModuleSize:
    """The size of a module whose number of coefficients the config declares. They do not determine its
    sides.
    """
    (count,) = shapes["spectrum"]
    known = (
        config.fields.get("n_frequency", default),
        *config.pattern_values("n_frequency_pattern").values(),
    )
    if count not in known:
        raise ValueError(f"there are {count} coefficients, which differs from the config")
    return ModuleSize(0, 0, 0)


def too_many_coefficients(
    module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides
) -> str | None:
    (count,) = shapes["spectrum"]
    declared = config.value_for("n_frequency_pattern", module.path, config.fields.get("n_frequency", count))
    if count != declared and not config.flag("proportional_parameters"):
        return f"has {count:,} coefficients, but the config declares {str(declared)[:20]}"
    if count <= weight.fan_out * weight.fan_in:
        return None
    return f"has {count:,} coefficients, but this base's weight {weight.fan_out * weight.fan_in:,} elements"


def more_than_elements(weight: WeightSides, config: AdapterConfig, default: int) -> str | None:
    """Why PEFT raises: it draws a different element for each coefficient, and there are too few elements."""
    count = config.fields.get("n_frequency", default)
    elements = weight.fan_out * weight.fan_in
    if config.pattern_values("n_frequency_pattern") or type(count) is not int or count <= elements:
        return None
    return f"gets {count:,} coefficients, but this base's weight has only {elements:,} elements"


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("scaling", 150.0)


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    fan_out, fan_in = matrix_sides(parts, shape)
    spectrum = torch.zeros(fan_out, fan_in)
    spectrum[positions(parts, len(parts["spectrum"]), fan_out, fan_in)] = parts["spectrum"]
    update: Tensor = torch.fft.ifft2(spectrum).real * parts.module.scale
    return update.T if parts.orientation == "conv1d" else update


METHOD = Method(
    name="fourierft",
    title="FourierFT",
    key_patterns={"fourierft_spectrum": "spectrum"},
    tolerance="bit-equal with the same FFT library and the version of torch that drew its places",
    module_size=lambda shapes, config: coefficients(shapes, config, 1000),
    scale=_scale,
    weight=add_delta(_delta),
    mismatch=too_many_coefficients,
    cannot_adapt=lambda weight, config: more_than_elements(weight, config, 1000),
)
