"""Quantised copies are recognised: their shapes, their method, and the model that they are copies of."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.full_hashes import full_hashes
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.bases.quantised import open_logical_view
from adaptry.checks import check
from adaptry.core.errors import CheckFailed
from adaptry.operations import base_registry
from adaptry.operations.quantised_variants import open_original, related_bases
from adaptry.registry.interface import Registry
from adaptry.testing.quantised_samples import quantised_copy
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, tiny_lora, write_safetensors

KINDS = [("nf4", False), ("nf4", True), ("fp4", False), ("int8", False)]


def record_of(folder: Path) -> BaseRecord:
    return fingerprint(open_checkpoint(folder))


def changed(folder: Path, out: Path, name: str, tensor: tuple[str, tuple[int, ...], bytes]) -> Path:
    """Writes the checkpoint in `folder` to `out`, with this tensor added or replaced."""
    checkpoint = open_checkpoint(folder)
    data = (folder / "model.safetensors").read_bytes()
    tensors = {
        key: (info.dtype, info.shape, data[info.start : info.end]) for key, info in checkpoint.tensors.items()
    }
    out.mkdir()
    write_safetensors(out / "model.safetensors", {**tensors, name: tensor})
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    return out


@pytest.mark.parametrize(("method", "nested"), KINDS)
def test_a_copy_has_its_originals_shapes_and_states_its_packing(
    tmp_path: Path, method: str, nested: bool
) -> None:
    original = record_of(tiny_base(tmp_path / "base"))
    copy = record_of(quantised_copy(tmp_path / "base", tmp_path / "copy", method, nested=nested))
    assert copy.architecture == original.architecture
    assert copy.parameters == original.parameters
    assert copy.facts["quantization"] == f"bitsandbytes {method}, {8 if method == 'int8' else 4}-bit"


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize(("method", "nested"), KINDS)
def test_a_copy_is_recognised_by_its_unquantised_tensors_and_its_codes(
    tmp_path: Path, method: str, nested: bool, dtype: str
) -> None:
    original = record_of(tiny_base(tmp_path / "base", dtype=dtype))
    copy = record_of(quantised_copy(tmp_path / "base", tmp_path / "copy", method, nested=nested))
    for found in (match_bases(original, copy), match_bases(copy, original)):
        assert found.level == "cast"
        assert (
            found.evidence == f"quantised by {copy.facts['quantization']}: all 7 unquantised tensors (norms,"
            " embeddings) agree, and the samples of all 14 packed ones match its codes"
        )


@pytest.mark.parametrize(("method", "nested"), KINDS)
def test_a_copy_of_a_fine_tune_with_unchanged_norms_and_embeddings_is_not_a_copy(
    tmp_path: Path, method: str, nested: bool
) -> None:
    base = tiny_base(tmp_path / "base")
    name = "model.layers.1.self_attn.q_proj.weight"
    tuned = changed(base, tmp_path / "tuned", name, random_tensor((16, 16), 77))
    copy = record_of(quantised_copy(tuned, tmp_path / "copy", method, nested=nested))
    found = match_bases(record_of(base), copy)
    assert found.level == "same_shapes"
    assert "layers.1.self_attn.q_proj.weight belong to other weights" in found.evidence


def test_two_copies_of_one_model_match_and_keep_their_own_ids(tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    plain = record_of(quantised_copy(tmp_path / "base", tmp_path / "plain"))
    nested = record_of(quantised_copy(tmp_path / "base", tmp_path / "nested", nested=True))
    eight = record_of(quantised_copy(tmp_path / "base", tmp_path / "eight", "int8"))
    assert len({plain.id, nested.id, eight.id}) == 3
    assert match_bases(plain, eight).level == "cast"
    assert match_bases(plain, eight).evidence.startswith(
        "both quantised, by bitsandbytes nf4, 4-bit and bitsandbytes int8"
    )


def test_copies_registered_in_either_order_find_each_other(registry: Registry, tmp_path: Path) -> None:
    base = open_checkpoint(tiny_base(tmp_path / "base"))
    copy = open_checkpoint(quantised_copy(tmp_path / "base", tmp_path / "copy"))
    cache = tmp_path / "cache"
    base_registry.register_base(registry, copy, ("org/tiny-4bit",), cache=cache)
    assert related_bases(registry.bases, fingerprint(copy)) == ()
    base_registry.register_base(registry, base, ("org/tiny",), cache=cache)

    (seen,), (back,) = (
        related_bases(registry.bases, fingerprint(copy)),
        related_bases(registry.bases, fingerprint(base)),
    )

    assert (seen.name, seen.role) == ("org/tiny", "original")
    assert (back.name, back.role) == ("org/tiny-4bit", "copy")
    assert seen.sentence().startswith("a quantised copy of org/tiny (quantised by bitsandbytes nf4, 4-bit: ")
    assert back.sentence().startswith("org/tiny-4bit is a quantised copy of it (")


def test_an_original_is_opened_only_if_it_is_unique_and_available(
    registry: Registry, tmp_path: Path, home: Path
) -> None:
    base = tiny_base(tmp_path / "base")
    copy = open_checkpoint(quantised_copy(base, tmp_path / "copy"))
    with pytest.raises(CheckFailed, match="its original is not registered: pass the original with --base"):
        open_original(registry, copy)
    base_registry.register_base(registry, open_checkpoint(base), ("org/tiny",))
    opened, sentence = open_original(registry, copy)
    assert opened.folder == base
    assert sentence.endswith("; the weights of org/tiny are used")
    (base / "model.safetensors").unlink()
    with pytest.raises(CheckFailed, match="quantised from org/tiny, whose weights were not found"):
        open_original(registry, copy)


def test_every_byte_of_a_copy_counts_in_its_full_digest(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    copy = quantised_copy(base, tmp_path / "copy")
    scales = "model.layers.0.mlp.up_proj.weight.absmax"
    other = changed(copy, tmp_path / "other", scales, random_tensor((8,), 3))
    roots = [
        full_hashes(open_checkpoint(folder), record_of(folder)).roots.exact for folder in (copy, copy, other)
    ]
    assert roots[0] == roots[1] != roots[2]


def test_an_inconsistent_quantisation_state_is_refused(tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    copy = quantised_copy(tmp_path / "base", tmp_path / "copy")
    weight = "model.layers.0.self_attn.q_proj.weight"
    for number, lie in enumerate(
        ({"shape": [16, 32]}, {"blocksize": 63}, {"dtype": "int8"}, {"shape": None}, [])
    ):
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [16, 16]}
        text = json.dumps({**state, **lie} if isinstance(lie, dict) else lie).encode()
        told = ("U8", (len(text),), text)
        folder = changed(copy, tmp_path / str(number), f"{weight}.quant_state.bitsandbytes__nf4", told)
        assert weight not in open_logical_view(open_checkpoint(folder)).packed


def i32(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    count = 1
    for side in shape:
        count *= side
    return "I32", shape, bytes(4 * count)


LAYOUTS: dict[str, tuple[Tensors, tuple[int, ...]]] = {
    "gptq, 4-bit": (
        {
            "m.qweight": i32(8, 32),
            "m.qzeros": i32(1, 4),
            "m.scales": ("F16", (1, 32), bytes(64)),
            "m.g_idx": i32(64),
        },
        (32, 64),
    ),
    "awq, 4-bit": (
        {"m.qweight": i32(64, 4), "m.qzeros": i32(1, 4), "m.scales": ("F16", (1, 32), bytes(64))},
        (32, 64),
    ),
    "compressed-tensors, 4-bit": (
        {
            "m.weight_packed": i32(32, 8),
            "m.weight_scale": ("BF16", (32, 1), bytes(64)),
            "m.weight_shape": ("I64", (2,), struct.pack("<2q", 32, 64)),
        },
        (32, 64),
    ),
    "fp8, 8-bit": (
        {"m.weight": ("F8_E4M3", (32, 64), bytes(2048)), "m.weight_scale_inv": ("F32", (1, 1), bytes(4))},
        (32, 64),
    ),
    "mxfp4, 4-bit": (
        {"m_blocks": ("U8", (2, 32, 2, 16), bytes(2048)), "m_scales": ("U8", (2, 32, 2), bytes(128))},
        (2, 64, 32),
    ),
}


@pytest.mark.parametrize("title", LAYOUTS)
def test_weights_packed_by_other_tools_have_their_unpacked_shape(tmp_path: Path, title: str) -> None:
    tensors, shape = LAYOUTS[title]
    write_safetensors(tmp_path / "model.safetensors", {**tensors, "n.weight": ("F32", (4,), bytes(16))})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    folded = open_logical_view(open_checkpoint(tmp_path))
    name = "m" if title.startswith("mxfp4") else "m.weight"
    assert folded.method == title
    assert {key: info.shape for key, info in folded.checkpoint.tensors.items()} == {
        name: shape,
        "n.weight": (4,),
    }
    record = record_of(tmp_path)
    assert record.tensors[name].shape == shape
    assert record.facts["quantization"] == title


def test_an_adapter_is_checked_against_a_copy_as_against_its_original(tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    copy = record_of(quantised_copy(tmp_path / "base", tmp_path / "copy"))
    fitting = check(open_dir(tiny_lora(tmp_path / "fits")), copy)
    (finding,) = fitting.findings
    assert (finding.code, finding.severity) == ("base_quantised", "warns")
    assert "bitsandbytes nf4, 4-bit" in finding.reason
    too_wide = check(open_dir(tiny_lora(tmp_path / "wide", hidden=32)), copy)
    assert "shape_mismatch" in {found.code for found in too_wide.findings}
    assert too_wide.is_blocked
