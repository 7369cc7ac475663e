"""Full weights in an adapter's file, which replace a weight of the base, in addition to any method.

`modules_to_save`, biases, saved embeddings and token rows belong to PEFT and not to a method: every tuner may
have them.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.spec import ExtraKind, ExtraWeight
from adaptry.core.errors import InvalidConfig
from adaptry.core.lazy_pattern import lazy_pattern

PREFIX = "base_model.model."
INSIDE_WRAPPER = lazy_pattern(r"\.(?:modules_to_save|original_module)\.")
"""A part of a name in memory; PEFT looks up a saved module's weight under the module's own name."""

_TOKEN_ROWS = lazy_pattern(r"(?P<path>.+?)(?:\.token_adapter)?\.trainable_tokens_delta")
_BASE_LAYER = lazy_pattern(r"(?P<path>.+)\.base_layer\.(?P<parameter>(?:in_proj_)?(?:weight|bias))")
_WRAPPED = lazy_pattern(
    r"(?P<path>.+)\.(?:modules_to_save|original_module)\.(?P<parameter>(?:.+\.)?(?:weight|bias))"
)
_EMBEDDINGS = frozenset(
    ["embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "tok_embeddings", "output",
     "embeddings", "shared"]
)  # fmt: skip


def extra_weight(key: str, name: str, info: TensorInfo, config: AdapterConfig) -> ExtraWeight | None:
    """The full weight that `key` (without its prefix; `name` with it) holds, or None."""
    kind: ExtraKind
    if match := _TOKEN_ROWS.fullmatch(key):
        return ExtraWeight(target=f"{match['path']}.weight", kind="token_rows", tensor=name, shape=info.shape)
    if match := _BASE_LAYER.fullmatch(key):
        kind = "bias" if match["parameter"].endswith("bias") else "saved_embedding"
        # PEFT wraps an embedding whose rows it trains, and saves all of it if the vocabulary was resized.
        path = match["path"].removesuffix(".token_adapter").replace(".base_layer", "")
        target = f"{path}.{match['parameter']}"
        return ExtraWeight(target=target, kind=kind, tensor=name, shape=info.shape)
    path, _, parameter = key.rpartition(".")
    if not path or "lora_" in key or INSIDE_WRAPPER.search(key):
        return None
    if config.is_saved(path):
        kind = "module"
    elif "bias" in parameter and config.fields.get("bias") not in (None, "none"):
        kind = "bias"
    elif parameter == "weight" and path.rsplit(".", 1)[-1] in _EMBEDDINGS:
        kind = "saved_embedding"
    else:
        return None
    target = key.replace(".base_layer.", ".")
    return ExtraWeight(target=target, kind=kind, tensor=name, shape=info.shape)


def is_duplicate_of_saved(key: str, tensors: Mapping[str, TensorInfo], config: AdapterConfig) -> bool:
    """Whether `key` repeats a module of `modules_to_save`, or a module tied to one, that the file also has
    under its own name.

    PEFT writes the whole wrapper if the vocabulary was resized, and all biases in it with `bias="all"`, but
    reads only the module's name back.
    """
    match = _WRAPPED.fullmatch(key)
    if match is None:
        return False
    is_tied = config.ties_saved and match["path"].rpartition(".")[2] in _EMBEDDINGS
    if not is_tied and not config.is_saved(match["path"]):
        return False
    inside = [match["parameter"]]
    if config.fields.get("bias") == "all" and inside[0].endswith("bias"):
        inside.append(inside[0].partition(".")[2])  # a bias of an inner module, after the adapter's name
    return any(name and f"{PREFIX}{match['path']}.{name}" in tensors for name in inside)


def extra_traits(extras: list[ExtraWeight]) -> list[str]:
    names = {
        "module": "modules_to_save",
        "bias": "bias",
        "saved_embedding": "saved_embedding",
        "token_rows": "trainable_tokens",
    }
    return sorted({names[extra.kind] for extra in extras if extra.kind in names})


def token_rows(config: AdapterConfig, target: str) -> tuple[int, ...]:
    """The rows of `target` that a file's token rows replace, in the order of the token rows.

    In PEFT, a list applies to the input embedding; the keys of a mapping are ends of an embedding's name;
    TRAINABLE_TOKENS has `token_indices`. A head that is tied to the embedding has the embedding's rows.
    Raises `InvalidConfig` if the config lists no rows.
    """
    indices = config.token_indices
    if isinstance(indices, dict):
        path = target.removesuffix(".weight")
        tied = next(iter(indices.values())) if len(indices) == 1 else None
        indices = next((rows for end, rows in indices.items() if path.endswith(end)), tied)
    if not isinstance(indices, list) or not all(type(row) is int and row >= 0 for row in indices):
        raise InvalidConfig(f"adapter_config.json names no token indices for {target}")
    return tuple(indices)
