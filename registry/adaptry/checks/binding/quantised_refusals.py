"""What PEFT refuses on the weights of each quantiser.

Observed with PEFT 0.21 and transformers 5.24 on adapters of every method, with bases of bitsandbytes 0.50,
GPTQModel 7.7 (for GPTQ and AWQ), compressed-tensors 0.20 and torchao 0.18. FP8 in blocks is not listed:
without a GPU, transformers loads it as plain weights.
"""

from __future__ import annotations

from adaptry.core.lazy_dataclass import dataclass

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class QuantisedRefusals:
    """The methods in `methods` raise an error, and those in `idle` change nothing. LoRAs whose
    `init_lora_weights` begins with one of `starts` raise an error, as do DoRA without `has_dora` and MiSS's
    `bat` without `has_bat`. Those in `in_float32` return float32, which the next layer of a 16-bit model
    refuses. `condition` ends a sentence.
    """

    methods: frozenset[str]
    starts: tuple[str, ...]
    idle: frozenset[str] = _NONE
    in_float32: frozenset[str] = _NONE
    has_dora: bool = True
    has_bat: bool = True
    condition: str = ""


_READ_VALUES = frozenset(["adamss", "delora", "frod", "glora", "osf", "psoft", "tinylora"])
"""These compute with the values of the weight when PEFT loads them."""
_FOUR_BIT = frozenset(["deft", "hra", "loha", "lokr", "peanut", "supertuning"])
"""These read the shape of a weight, which bitsandbytes' 4-bit codes do not have."""
_IN_FLOAT32 = frozenset(["ia3", "pvera", "randlora", "road"])
"""Their layers for bitsandbytes do not cast the result to the dtype of the input."""
_LINEAR_ONLY = frozenset([
    "adamss", "beft", "c3a", "deft", "delora", "fourierft", "frod", "glora", "gralora", "hira", "hra", "ia3",
    "lily", "loha", "lokr", "peanut", "poly", "psoft", "pvera", "randlora", "road", "supertuning", "tinylora",
    "unilora", "vblora", "waveft",
])  # fmt: skip
"""These have a layer for an `nn.Linear`, and not for GPTQ's."""
_SHARED = frozenset(["lily", "pvera", "randlora", "unilora", "vblora", "vera"])
"""Their layers share modules, which compressed-tensors tries to move twice."""
_WITHOUT_WEIGHT = frozenset([
    "adalora", "adamss", "boft", "c3a", "deft", "delora", "frod", "glora", "loha", "lokr", "lora", "miss",
    "oft", "psoft", "shira", "supertuning", "tinylora",
])  # fmt: skip
"""These read an attribute `weight`, which a packed layer of compressed-tensors does not have."""
_UNPACKED = ", unless transformers unpacks them at loading: CompressedTensorsConfig(run_compressed=False)"

_BITSANDBYTES = ("mica", "orthogonal", "pissa")
_DECOMPOSED = ("mica", "olora", "pissa")
_GPTQ = QuantisedRefusals(_LINEAR_ONLY, _DECOMPOSED, frozenset(["osf"]), has_dora=False, has_bat=False)
_REFUSALS = {
    "bitsandbytes 4": QuantisedRefusals(
        _READ_VALUES | _FOUR_BIT, _BITSANDBYTES, frozenset(["unilora"]), _IN_FLOAT32
    ),
    "bitsandbytes 8": QuantisedRefusals(
        _READ_VALUES | {"supertuning"},
        _BITSANDBYTES,
        frozenset(["unilora"]),
        _IN_FLOAT32 | {"adalora", "shira"},
    ),
    "gptq 8": _GPTQ,
    "gptq 4": QuantisedRefusals(
        _LINEAR_ONLY | {"shira"},
        (*_DECOMPOSED, "lora_ga", "orthogonal"),
        _GPTQ.idle,
        has_dora=False,
        has_bat=False,
    ),
    "awq 4": QuantisedRefusals(
        _LINEAR_ONLY | {"adalora", "shira"},
        (*_DECOMPOSED, "lora_ga", "orthogonal"),
        _GPTQ.idle,
        has_dora=False,
        has_bat=False,
    ),
    "compressed-tensors 4": QuantisedRefusals(
        _WITHOUT_WEIGHT | _SHARED, (), frozenset(["osf"]), condition=_UNPACKED
    ),
    "compressed-tensors 8": QuantisedRefusals(
        _SHARED | {"adalora", "adamss", "delora", "frod", "osf", "psoft", "tinylora"},
        (*_DECOMPOSED, "orthogonal"),
        condition=_UNPACKED,
    ),
    "compressed-tensors fp8 8": QuantisedRefusals(
        _SHARED | {"adalora", "adamss", "delora", "psoft", "supertuning", "tinylora"},
        _DECOMPOSED,
        has_dora=False,
        condition=_UNPACKED,
    ),
    "torchao 8": QuantisedRefusals(
        _READ_VALUES | {"deft", "hira", "hra", "peanut", "supertuning"}, _DECOMPOSED
    ),
}


def find_refusals(quantization: str) -> QuantisedRefusals | None:
    """What PEFT refuses for a base with this fact `quantization`, such as `bitsandbytes nf4, 4-bit`; None if
    it was not observed.
    """
    method, _, bits = quantization.partition(", ")
    quantiser = "bitsandbytes" if method.startswith("bitsandbytes") else method
    return _REFUSALS.get(f"{quantiser} {bits.removesuffix('-bit')}")
