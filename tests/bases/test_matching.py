"""The similarity of two bases: every level, with its evidence."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.full_hashes import full_hashes
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import tiny_base, write_safetensors


def record_of(folder: Path, full: bool = False) -> BaseRecord:
    checkpoint = open_checkpoint(folder)
    record = fingerprint(checkpoint)
    return record.model_copy(update={"roots": full_hashes(checkpoint, record).roots}) if full else record


def mapped(folder: Path, dtype: str, convert: Callable[[tuple[float, ...]], bytes], only: str = "") -> Path:
    """The float32 base in `folder` with each tensor (whose name contains `only`) converted."""
    checkpoint = open_checkpoint(folder)
    data = (folder / "model.safetensors").read_bytes()
    tensors = {}
    for name, info in checkpoint.tensors.items():
        stored = data[info.start : info.end]
        if only in name:
            values = struct.unpack(f"<{info.numel}f", stored)
            tensors[name] = (dtype, info.shape, convert(values))
        else:
            tensors[name] = (info.dtype, info.shape, stored)
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def to_bfloat16(values: tuple[float, ...]) -> bytes:
    """Rounds to the nearest bfloat16, ties to even."""
    rounded = bytearray()
    for (bits,) in struct.iter_unpack("<I", struct.pack(f"<{len(values)}f", *values)):
        rounded += ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to_bytes(2, "little")
    return bytes(rounded)


def to_float16(values: tuple[float, ...]) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def perturbed(by: float) -> Callable[[tuple[float, ...]], bytes]:
    source = random.Random(5)
    return lambda values: struct.pack(
        f"<{len(values)}f", *(v * (1 + by * source.uniform(-1, 1)) for v in values)
    )


def test_a_base_matches_itself_by_samples_and_exactly_once_everything_was_read(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    assert match_bases(record_of(base), record_of(base)).level == "same_weights"
    assert match_bases(record_of(base, full=True), record_of(base, full=True)).level == "exact"


def test_a_bfloat16_cast_is_recognised_from_either_side(tmp_path: Path) -> None:
    wide = record_of(tiny_base(tmp_path / "wide"))
    narrow = record_of(mapped(tiny_base(tmp_path / "narrow"), "BF16", to_bfloat16))
    assert match_bases(wide, narrow).level == match_bases(narrow, wide).level == "cast"
    assert "bfloat16" in match_bases(wide, narrow).evidence


def test_a_float16_cast_is_recognised(tmp_path: Path) -> None:
    wide = record_of(tiny_base(tmp_path / "wide"))
    narrow = record_of(mapped(tiny_base(tmp_path / "narrow"), "F16", to_float16))
    assert match_bases(wide, narrow).level == "cast"


def test_two_casts_of_a_third_copy_are_probable_and_not_claimed(tmp_path: Path) -> None:
    half = record_of(mapped(tiny_base(tmp_path / "half"), "F16", to_float16))
    brain = record_of(mapped(tiny_base(tmp_path / "brain"), "BF16", to_bfloat16))
    found = match_bases(half, brain)
    assert found.level == "same_shapes"
    assert "probably" in found.evidence


def test_a_light_fine_tune_is_not_a_cast(tmp_path: Path) -> None:
    wide = record_of(tiny_base(tmp_path / "wide"))
    tuned = record_of(mapped(tiny_base(tmp_path / "tuned"), "F32", perturbed(1e-3)))
    assert match_bases(wide, tuned).level == "same_shapes"


def test_one_changed_tensor_is_named(tmp_path: Path) -> None:
    wide = record_of(tiny_base(tmp_path / "wide"))
    tuned = record_of(
        mapped(tiny_base(tmp_path / "tuned"), "F32", perturbed(0.5), only="layers.1.mlp.up_proj")
    )
    found = match_bases(wide, tuned)
    assert found.level == "same_shapes"
    assert "layers.1.mlp.up_proj.weight" in found.evidence


def test_the_same_weights_with_another_rope_are_not_the_same_base(tmp_path: Path) -> None:
    base, other = tiny_base(tmp_path / "base"), tiny_base(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}))
    found = match_bases(record_of(base), record_of(other))
    assert found.level == "same_shapes"
    assert "rope" in found.evidence


def test_samples_that_agree_where_full_digests_do_not_are_not_called_equal(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=64)
    one = record_of(base, full=True)
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    info = open_checkpoint(base).tensors["model.layers.0.mlp.up_proj.weight"]
    for at in range(info.start, info.end, 4):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        if record_of(base).id == one.id:
            break
    found = match_bases(one, record_of(base, full=True))
    assert found.level == "same_shapes"
    assert "digests" in found.evidence


def test_another_model_is_different_in_words(tmp_path: Path) -> None:
    found = match_bases(record_of(tiny_base(tmp_path / "a")), record_of(tiny_base(tmp_path / "b", layers=3)))
    assert found.level == "different"
    assert "layers 2 against 3" in found.evidence


def test_a_quantised_copy_is_recognised_by_its_unquantised_tensors(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    packed = tiny_base(tmp_path / "packed")
    tensors = {}
    data = (packed / "model.safetensors").read_bytes()
    for name, info in open_checkpoint(packed).tensors.items():
        if "_proj" in name:
            words = (info.shape[1] // 8, info.shape[0])
            tensors[name.replace(".weight", ".qweight")] = ("I32", words, bytes(4 * words[0] * words[1]))
        else:
            tensors[name] = (info.dtype, info.shape, data[info.start : info.end])
    write_safetensors(packed / "model.safetensors", tensors)
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq"}})
    )
    found = match_bases(record_of(base), record_of(packed))
    assert found.level == "cast"
    assert "gptq" in found.evidence
    retrained = record_of(tiny_base(tmp_path / "retrained", seed=9))
    assert match_bases(retrained, record_of(packed)).level == "different"
