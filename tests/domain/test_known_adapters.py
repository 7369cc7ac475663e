"""An adapter whose config and header are known equals the same adapter opened for the first time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from adaptry.adapters.adapter import Adapter, open_content, open_known
from adaptry.adapters.content import Content, MemoryContent
from adaptry.checks import check
from adaptry.core.errors import AdaptryError

Opened = tuple[object, ...]

MODULES = ("layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj", "layers.1.mlp.up_proj", "lm_head")
KEYS = st.sampled_from(
    [
        f"base_model.model.model.{module}.{role}"
        for module in MODULES
        for role in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "weight", "ia3_l")
    ]
    + ["layers.0.attn.q_proj.lora_a.weight", "base_model.model.lm_head.base_layer.weight"]
)
CONFIGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"peft_type": st.sampled_from(["LORA", "IA3", "LOHA", "", "FUTURE"])},
    optional={
        "r": st.sampled_from([2, 4, "x"]),
        "lora_alpha": st.sampled_from([8, 0.5]),
        "target_modules": st.sampled_from([["q_proj", "v_proj"], r".*\.q_proj", None]),
        "rank_pattern": st.sampled_from([{}, {"q_proj": 4}, {"layers.[01].*": 2}]),
        "modules_to_save": st.sampled_from([None, ["lm_head"], ["lm.*"]]),
        "use_dora": st.booleans(),
        "bias": st.sampled_from(["none", "all"]),
        "task_type": st.sampled_from(["CAUSAL_LM", "SEQ_CLS", "OTHER"]),
        "base_model_name_or_path": st.sampled_from(["org/base", "./base", None]),
        "auto_map": st.just({"AutoModel": "code.Model"}),
        "unknown": st.just(1),
    },
)


def weights(shapes: Mapping[str, tuple[int, ...]], value: float, surplus: bytes = b"") -> bytes:
    header, data = {}, b""
    for name, shape in shapes.items():
        size = shape[0] * shape[1] if len(shape) == 2 else shape[0]
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + 4 * size],
        }
        data += struct.pack("<f", value) * size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data + surplus


SHAPES = st.dictionaries(KEYS, st.sampled_from([(4, 16), (16, 4), (16,)]), max_size=6)
HEADS = st.builds(weights, SHAPES, st.just(0.25), st.sampled_from([b"", b"", b"", b"rest"]))


def result(open_it: Callable[[Content], Adapter], content: Content) -> Opened:
    """All data that the registry derives from the adapter, or the error."""
    try:
        adapter = open_it(content)
        reports = [check(adapter, None, name) for name in (None, "org/base", None, "sha256:12")]
        return adapter.config, adapter.header, adapter.format, adapter.spec, reports, adapter.weights_digest()
    except AdaptryError as error:
        return type(error), error.message


@settings(deadline=None, max_examples=150)
@given(CONFIGS, HEADS, st.sampled_from([{}, {"README.md": b"# Tone"}, {"model_head.safetensors": b"x" * 20}]))
def test_a_known_adapter_equals_the_same_adapter_opened_for_the_first_time(
    config: dict[str, Any], data: bytes, beside: Mapping[str, bytes]
) -> None:
    content = MemoryContent(
        {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": data, **beside}
    )
    first = result(open_content, content)
    assert [result(open_known, content) for _ in range(3)] == [first] * 3


def test_adapters_with_the_same_header_have_their_own_weights_and_configs() -> None:
    shapes = {f"base_model.model.model.{MODULES[0]}.lora_{role}.weight": (4, 4) for role in "AB"}
    seen = []
    for rank, value in ((4, 0.5), (4, 0.25), (2, 0.5), (4, 0.5)):
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
        content = MemoryContent(
            {
                "adapter_config.json": json.dumps(config).encode(),
                "adapter_model.safetensors": weights(shapes, value),
            }
        )
        seen.append(result(open_known, content))
        assert seen[-1] == result(open_content, content)
        assert open_known(content).tensor_bytes(next(iter(shapes))) == struct.pack("<f", value) * 16
    assert seen[0] == seen[3]
    assert seen[0] != seen[1]
    assert seen[0][:5] == seen[1][:5]


def test_a_truncated_file_is_refused_although_its_header_is_known() -> None:
    data = weights({f"base_model.model.model.{MODULES[0]}.lora_A.weight": (4, 16)}, 0.5)
    config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}).encode()
    for sent in (data, data[:-4], data + b"0000", data[:20], data):
        content = MemoryContent({"adapter_config.json": config, "adapter_model.safetensors": sent})
        assert result(open_known, content) == result(open_content, content)
