"""The spec of an adapter, derived from its tensors' headers and its config, and never entered by users.

A spec lists every tensor of the file exactly once: as part of a module's update, as a full weight that
replaces one of the base's, or as *unclaimed* (no rule of the method matches it). Nothing is silently dropped.
"""

from __future__ import annotations

from typing import Literal

from adaptry.core.value import FrozenValue, limited, value

LAYOUT = 2
"""The version of this derivation. `reindex` rebuilds catalog rows that an older version derived."""

ModuleKind = Literal[
    "linear", "embedding", "conv", "flat", "parameter", "attention", "norm", "block", "other"
]
"""`flat`: a matrix, or a convolution whose kernel is flattened to [out, in·k…]. `block`: a part of the model
whose output is added to, without a change of its weights.
"""
ExtraKind = Literal["module", "bias", "saved_embedding", "token_rows", "norm"]


@value
class ModuleSpec(FrozenValue):
    """One adapted module.

    `path` is the module's name in the model (`model.layers.0.self_attn.q_proj`). For LoRA kinds `down` is
    lora_A, [rank, in] (or [rank, in, *kernel]), and `up` is lora_B, [out, rank]; `scale` multiplies up@down.
    `tensors` maps the role of each tensor (`A`, `B`, `magnitude`, …) to its name in the file. If a module has
    several 3-D parameters, `parameter` names the one that is changed, if the config determines it; `rank` is
    then that of all experts together.
    """

    path: str
    kind: ModuleKind
    rank: int
    alpha: float
    scale: float
    fan_in: int
    fan_out: int
    tensors: dict[str, str]
    parameter: str | None = None

    def __post_init__(self) -> None:
        vars(self).update(alpha=float(self.alpha), scale=float(self.scale))

    @property
    def name(self) -> str:
        """The name that PEFT's patterns match: the path without `base_layer`, with the parameter if there is
        one. The output projection of a `MultiheadAttention` has the attention's.
        """
        path = self.path.replace(".base_layer", "")
        if self.kind == "attention":
            path = path.removesuffix(".out_proj")
        return f"{path}.{self.parameter}" if self.parameter else path


@value
class ExtraWeight(FrozenValue):
    """A full tensor that replaces one of the base's, or rows of it: `modules_to_save`, biases, saved
    embeddings.
    """

    target: str  # the parameter in the model, e.g. `lm_head.weight`
    kind: ExtraKind
    tensor: str  # its name in the file
    shape: tuple[int, ...]


@value
class Spec(FrozenValue):
    """A description of an adapter: enough to list, search, check and plan without reading weights.

    `traits` are features that affect how it may be used: `dora`, `rslora`, `pissa`, `target_parameters`, …
    `shared` are tensors of the whole model by role (VeRA's projections, a prompt's embeddings).
    `virtual_tokens` is the number of tokens that a prompt method puts before the input. `layouts` are the
    file's layouts (`key_layout`), where libraries changed theirs. `parameters` is the number of elements, and
    `size` the size of all tensors in bytes.
    """

    method: str
    layout: int = LAYOUT
    modules: tuple[ModuleSpec, ...] = ()
    extras: tuple[ExtraWeight, ...] = ()
    shared: dict[str, str] = limited(default_factory=dict, json_schema_extra={"default": {}})
    virtual_tokens: int | None = None
    unclaimed: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    parameters: int = 0
    size: int = 0
    base_name: str | None = None
    task: str | None = None
    peft_version: str | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """The distinct ranks, smallest first; empty if the method has none."""
        return tuple(sorted({module.rank for module in self.modules if module.rank}))

    @property
    def rank(self) -> int | None:
        """The largest rank, which an engine must support."""
        return max(self.ranks, default=None)

    @property
    def alpha(self) -> float | None:
        """The largest alpha; None for methods that have none."""
        return max((module.alpha for module in self.modules if module.rank and module.alpha), default=None)

    def replacement_of(self, parameter: str) -> ExtraWeight | None:
        """The whole tensor of the file that replaces this parameter of the base, or None."""
        whole = (extra for extra in self.extras if extra.kind != "token_rows")
        return next((extra for extra in whole if extra.target == parameter), None)

    @property
    def targets(self) -> tuple[str, ...]:
        """The last parts of the adapted modules' paths, sorted: `k_proj`, `q_proj`."""
        return tuple(sorted({module.path.rsplit(".", 1)[-1] for module in self.modules}))
