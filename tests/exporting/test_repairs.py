"""Repairs chosen by an engine's verdict: planned before weights are read, and bit-exact where this
is stated.
"""

from __future__ import annotations

import json
import math
import resource
import struct
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.sketch import sample_positions
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import ENGINES, RuntimeVerdict, check_runtime, parse_runtime
from adaptry.compute.exporting.export import ExportResult, export
from adaptry.compute.exporting.formats import FORMATS
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.plan import ExportPlan, plan_repairs
from adaptry.compute.exporting.repair_table import BY_REMEDY, MANUAL_REMEDIES, MERGE_REMEDIES, REPAIRS
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, Invalid, StorageFull
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, tiny_lora, write_safetensors

LAYER = "base_model.model.model.layers.0"
HEAD: Tensors = {"base_model.model.lm_head.weight": random_tensor((32, 16), 7)}
MAGNITUDES: Tensors = {f"{LAYER}.self_attn.q_proj.lora_magnitude_vector": random_tensor((16,), 9)}
ONE_OF_DOWN: Tensors = {
    f"{LAYER}.mlp.down_proj.lora_A.weight": random_tensor((4, 32), 10),
    f"{LAYER}.mlp.down_proj.lora_B.weight": random_tensor((16, 4), 11),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def setting(base: Path | None, **asked: Any) -> ExportOptions:
    if base is None:
        return ExportOptions(**asked)
    return ExportOptions(
        fingerprint(open_checkpoint(base)), lambda: open_checkpoint(base), "org/tiny", **asked
    )


def planned(folder: Path, engine: str, base: Path | None = None) -> ExportPlan:
    return plan_repairs(ParentAdapter(open_dir(folder), "it"), parse_runtime(engine), setting(base))


def exported(folder: Path, engine: str, to: Path, base: Path | None = None, **asked: Any) -> ExportResult:
    return export(
        ParentAdapter(open_dir(folder), "it"), to, setting(base, **asked), runtime=parse_runtime(engine)
    )


def judged(folder: Path, engine: str, base: Path | None = None) -> RuntimeVerdict:
    return check_runtime(open_dir(folder), parse_runtime(engine), setting(base).record)


def numbers(adapter: Adapter) -> dict[str, bytes]:
    return {name: adapter.tensor_bytes(name) for name in adapter.tensors}


def test_every_remedy_is_a_repair_or_a_merge_or_for_people() -> None:
    said = {rule.repair for engine in ENGINES.values() for rule in (*engine.preconditions, *engine.rules)}
    written = {remedy for format in FORMATS.values() for remedy in format.handled_remedies}
    known = {*BY_REMEDY, *MERGE_REMEDIES, *MANUAL_REMEDIES, *written}
    left = said - known
    words = ("start the server", "load it with", "check whether", "register the base", "expect it",
             "save it again", "serve it", "merge it with that version of PEFT")  # fmt: skip
    assert [remedy for remedy in left if not remedy.startswith(words)] == []
    assert set(BY_REMEDY) <= said


@pytest.mark.parametrize(
    ("targets", "added"),
    [(("k_proj",), {"q_proj", "v_proj"}), (("q_proj",), {"v_proj"}), (("up_proj",), {"gate_proj"})],
)
def test_missing_parts_of_a_fused_weight_are_filled_with_zeros(
    tmp_path: Path, base: Path, targets: tuple[str, ...], added: set[str]
) -> None:
    lora = tiny_lora(tmp_path / "lora", targets=targets)
    with pytest.raises(CheckFailed, match="pass the base with --base"):
        exported(lora, "sglang", tmp_path / "no")
    made = exported(lora, "sglang", tmp_path / "out", base)
    assert made.repairs == ("parts",)
    before, after = numbers(open_dir(lora)), numbers(open_dir(tmp_path / "out"))
    assert before.items() <= after.items()
    new = {name: data for name, data in after.items() if name not in before}
    assert {name.split(".")[-3] for name in new} == added
    assert all(data == bytes(len(data)) for data in new.values())
    assert judged(tmp_path / "out", "sglang", base).outcome == "as_trained"


@pytest.mark.parametrize("engine", ["sglang", "lorax", "llama.cpp", "lmdeploy", "tgi", "tensorrt-llm"])
@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 32}},
        {"use_rslora": True, "lora_alpha": 12},
    ],
    ids=["rslora", "alpha_pattern", "rslora of another alpha"],
)
def test_scales_are_folded_without_changing_an_update(
    tmp_path: Path, base: Path, engine: str, config: dict[str, Any]
) -> None:
    lora = tiny_lora(tmp_path / "lora", config=config)
    if judged(lora, engine).outcome == "as_trained":
        assert planned(lora, engine).steps == ()
        return
    made = export(
        ParentAdapter(open_dir(lora), "it"),
        tmp_path / "out",
        setting(base, exact=True),
        runtime=parse_runtime(engine),
        format="peft",
    )
    assert judged(tmp_path / "out", engine, base).outcome == "as_trained"
    assert (made.equality.largest_difference, made.equality.error, made.equality.compared_modules) == (
        0.0,
        0.0,
        4,
    )


def test_an_adapter_that_is_served_as_trained_is_written_byte_for_byte(tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora")
    made = exported(lora, "vllm", tmp_path / "out")
    assert made.repairs == ()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in lora.iterdir()
    }


def test_a_rank_above_the_servers_limit_is_reduced_and_reported(tmp_path: Path, base: Path) -> None:
    lora = tiny_lora(tmp_path / "lora", rank=8)
    made = exported(lora, "vllm,max_lora_rank=1", tmp_path / "out", base, max_error=1)
    assert made.repairs == ("rank",)
    assert 0 < made.equality.error < 1
    assert open_dir(tmp_path / "out").spec.rank == 1
    with pytest.raises(CheckFailed, match="--exact forbids"):
        exported(lora, "vllm,max_lora_rank=1", tmp_path / "exact", base, exact=True)
    assert not (tmp_path / "exact").exists()


def test_a_doubled_prefix_and_an_adapters_name_are_removed_from_keys(tmp_path: Path, base: Path) -> None:
    plain = tiny_lora(tmp_path / "plain")
    tensors = open_dir(plain)
    doubled = tmp_path / "doubled"
    doubled.mkdir()
    (doubled / "adapter_config.json").write_text((plain / "adapter_config.json").read_text())
    write_safetensors(
        doubled / "adapter_model.safetensors",
        {
            f"base_model.model.{name.replace('.weight', '.default.weight')}": (
                info.dtype,
                info.shape,
                tensors.tensor_bytes(name),
            )
            for name, info in tensors.tensors.items()
        },
    )
    assert judged(doubled, "vllm", base).outcome == "refused"
    assert exported(doubled, "vllm", tmp_path / "out", base).repairs == ("names",)
    assert numbers(open_dir(tmp_path / "out")) == numbers(tensors)


def test_a_wrong_prefix_is_corrected(tmp_path: Path, base: Path) -> None:
    plain = tiny_lora(tmp_path / "plain")
    tensors = open_dir(plain)
    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text((plain / "adapter_config.json").read_text())
    renamed = {
        name.replace("model.model.layers", "model.wrapped.model.layers"): (
            info.dtype,
            info.shape,
            tensors.tensor_bytes(name),
        )
        for name, info in tensors.tensors.items()
    }
    write_safetensors(other / "adapter_model.safetensors", renamed)
    assert {found.code for found in judged(other, "vllm", base).findings} == {"names"}
    assert exported(other, "vllm", tmp_path / "out", base).repairs == ("disk_names",)
    assert judged(tmp_path / "out", "vllm", base).outcome == "as_trained"
    assert numbers(open_dir(tmp_path / "out")) == numbers(tensors)


@pytest.mark.parametrize("engine", ["lorax", "tgi"])
def test_layers_without_a_module_are_filled_with_zeros(tmp_path: Path, base: Path, engine: str) -> None:
    lora = tiny_lora(tmp_path / "lora", extra=ONE_OF_DOWN)
    assert {found.code for found in judged(lora, engine, base).findings} == {"layers_uneven"}
    made = exported(lora, engine, tmp_path / "out", base)
    assert made.repairs == ("fill", "targets")  # PEFT drops modules that target_modules does not name
    assert judged(tmp_path / "out", engine, base).outcome == "as_trained"
    filled = open_dir(tmp_path / "out")
    added = filled.tensors.keys() - open_dir(lora).tensors.keys()
    assert len(added) == 2
    assert all(not any(filled.tensor_bytes(name)) for name in added)


def test_errors_only_in_the_config_are_corrected_there(tmp_path: Path, base: Path) -> None:
    pattern = tiny_lora(tmp_path / "pattern", config={"target_modules": r".*\.(q|v)_proj"})
    assert exported(pattern, "sglang", tmp_path / "listed", base).repairs == ("targets",)
    assert open_dir(tmp_path / "listed").config.fields["target_modules"] == ["q_proj", "v_proj"]
    listed = tiny_lora(tmp_path / "saved", config={"modules_to_save": ["lm_head"]})
    assert exported(listed, "vllm", tmp_path / "none", base).repairs == ("saved",)
    turned = tiny_lora(tmp_path / "turned", config={"fan_in_fan_out": True})
    assert exported(turned, "vllm", tmp_path / "plain", base).repairs == ("sides",)
    assert open_dir(tmp_path / "plain").config.fields["fan_in_fan_out"] is False


def test_parts_that_no_adapter_file_can_express_are_merged_into_the_base(tmp_path: Path, base: Path) -> None:
    lora = tiny_lora(
        tmp_path / "lora", extra=HEAD, config={"modules_to_save": ["lm_head"], "use_rslora": True}
    )
    found = planned(lora, "sglang", base)
    assert (found.format, [finding.code for finding in found.needs_merge]) == (
        "checkpoint",
        ["saved_modules"],
    )
    made = exported(lora, "sglang", tmp_path / "out", base)
    assert made.format == "checkpoint"
    assert open_checkpoint(tmp_path / "out").tensors.keys() == open_checkpoint(base).tensors.keys()
    with pytest.raises(Invalid, match="gguf does not contain"):
        export(ParentAdapter(open_dir(lora), "it"), tmp_path / "no", setting(base), format="gguf")
    with pytest.raises(CheckFailed, match="--base"):
        exported(lora, "sglang", tmp_path / "no")


def tiny_dora(folder: Path) -> Path:
    every = {
        f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_magnitude_vector": random_tensor(
            (16,), layer
        )
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    }
    return tiny_lora(folder, extra=every, config={"use_dora": True})


def test_a_dora_needs_a_rank_and_is_then_reported_as_approximate(tmp_path: Path, base: Path) -> None:
    dora = tiny_dora(tmp_path / "dora")
    with pytest.raises(CheckFailed, match="--rank N or --energy"):
        exported(dora, "vllm", tmp_path / "out", base)
    made = exported(dora, "vllm", tmp_path / "out", base, rank=8, max_error=0.5)
    assert made.repairs == ("lora",)
    assert 0 < made.equality.error < 1
    assert judged(tmp_path / "out", "vllm", base).outcome == "as_trained"


def test_the_error_of_a_conversion_is_kept_by_later_repairs(tmp_path: Path, base: Path) -> None:
    dora = tiny_dora(tmp_path / "dora")

    converted = exported(dora, "vllm", tmp_path / "converted", base, energy=0.9)
    folded = exported(dora, "sglang", tmp_path / "folded", base, energy=0.9)

    assert (converted.repairs, folded.repairs) == (("lora",), ("lora", "fold_evenly"))
    assert folded.equality.error == pytest.approx(converted.equality.error, rel=1e-6) != 0
    with pytest.raises(CheckFailed, match=r"at most 0\.01 is allowed"):
        exported(dora, "sglang", tmp_path / "out", base, energy=0.9, max_error=0.01)


def test_the_errors_of_a_conversion_and_a_resize_are_added(tmp_path: Path, base: Path) -> None:
    dora = tiny_dora(tmp_path / "dora")

    at_once = exported(dora, "vllm", tmp_path / "at-once", base, rank=8, max_error=0.9)
    in_steps = exported(dora, "vllm,max_lora_rank=8", tmp_path / "in-steps", base, rank=12, max_error=0.9)

    assert (at_once.repairs, in_steps.repairs) == (("lora",), ("lora", "rank"))
    assert in_steps.equality.error == pytest.approx(at_once.equality.error, rel=1e-4) != 0


def test_an_irreparable_adapter_is_refused_with_a_remedy(tmp_path: Path, base: Path) -> None:
    alora = tiny_lora(tmp_path / "alora", config={"alora_invocation_tokens": [1, 2]})
    with pytest.raises(CheckFailed, match=r"aLoRA.*serve it with PEFT"):
        exported(alora, "sglang", tmp_path / "out", base)
    served = tiny_lora(tmp_path / "served")
    with pytest.raises(CheckFailed, match="start the server"):
        exported(served, "vllm,lora_target_modules=k_proj", tmp_path / "out", base)
    assert not (tmp_path / "out").exists()


def test_a_plan_reads_only_headers(tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora", config={"use_rslora": True})
    weights = lora / "adapter_model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:  # the header stays, the numbers are NaN
        file.seek(size - 64)
        file.write(b"\xff" * 64)
    assert [step.repair.name for step in planned(lora, "sglang").steps] == ["fold"]


def test_repairs_are_made_in_the_order_of_the_table(tmp_path: Path, base: Path) -> None:
    config = {"use_rslora": True, "fan_in_fan_out": True, "target_modules": r".*\.(q|v)_proj"}
    lora = tiny_lora(tmp_path / "lora", rank=8, config=config)
    made = exported(lora, "sglang,max_lora_rank=4", tmp_path / "out", base, max_error=1)
    order = list(REPAIRS)
    assert list(made.repairs) == sorted(made.repairs, key=order.index)
    assert {"fold", "rank"} <= set(made.repairs)
    assert judged(tmp_path / "out", "sglang,max_lora_rank=4", base).outcome == "as_trained"


def test_an_existing_target_is_not_replaced(tmp_path: Path, base: Path) -> None:
    from adaptry.core.errors import Conflict

    lora = tiny_lora(tmp_path / "lora", config={"use_rslora": True})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(Conflict):
        exported(lora, "llama.cpp", tmp_path / "out", base)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert json.loads((lora / "adapter_config.json").read_text())["use_rslora"] is True


def test_another_base_than_its_own_is_refused_before_anything_is_written(tmp_path: Path, base: Path) -> None:
    wider = tiny_base(tmp_path / "wider", hidden=32)
    lora = tiny_lora(tmp_path / "lora", config={"use_rslora": True})
    for format in ("gguf", "mlx", "peft", "oci"):
        with pytest.raises(CheckFailed, match="takes 16 inputs, but this base's weight has 32"):
            export(ParentAdapter(open_dir(lora), "it"), tmp_path / "out", setting(wider), format=format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["gguf", "mlx"])
def test_unusual_scales_are_written_or_refused_with_a_sentence(
    tmp_path: Path, base: Path, format: str
) -> None:
    def made(folder: Path) -> ExportResult:
        return export(
            ParentAdapter(open_dir(folder), "it"), folder.with_suffix(".out"), setting(base), format=format
        )

    with pytest.raises(CheckFailed, match="scale_zero"):
        made(tiny_lora(tmp_path / "zero", config={"lora_alpha": 0}))
    made(tiny_lora(tmp_path / "negative", config={"lora_alpha": -4}))
    with pytest.raises(CheckFailed, match="weights_nan"):
        nan = ("F32", (4, 16), struct.pack("<64f", *[math.nan] * 64))
        made(tiny_lora(tmp_path / "nan", extra={f"{LAYER}.self_attn.q_proj.lora_A.weight": nan}))
    with pytest.raises(CheckFailed, match="no_effect"):
        made(tiny_lora(tmp_path / "empty", targets=(), extra={}))


def test_a_gguf_on_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, base: Path) -> None:
    pytest.importorskip("gguf", reason="GGUF files are written by gguf: pip install gguf")
    lora = tiny_lora(tmp_path / "lora", rank=256)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(StorageFull, match="no space left"):
            export(ParentAdapter(open_dir(lora), "it"), tmp_path / "out", setting(base), format="gguf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_an_adapter_is_replaced_by_its_repaired_form_on_request(tmp_path: Path, base: Path) -> None:
    lora = tiny_lora(tmp_path / "lora", config={"use_rslora": True})
    exported(lora, "sglang", lora, base, may_replace=True)
    assert judged(lora, "sglang", base).outcome == "as_trained"


EMBEDDING = "base_model.model.model.embed_tokens"
FACTORS: Tensors = {
    f"{EMBEDDING}.lora_embedding_A": random_tensor((4, 32), 12),
    f"{EMBEDDING}.lora_embedding_B": random_tensor((16, 4), 13),
}


def with_embedding(folder: Path, dtype: str, values: bytes) -> Path:
    """A LoRA of the embeddings, with these values as the copy of the base's embedding."""
    return tiny_lora(
        folder,
        extra={**FACTORS, f"{EMBEDDING}.base_layer.weight": (dtype, (32, 16), values)},
        config={"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
    )


def embedding_of(base: Path) -> bytes:
    checkpoint = open_checkpoint(base)
    info = checkpoint.tensors["model.embed_tokens.weight"]
    assert info.dtype == "F32"
    return checkpoint.path_of("model.embed_tokens.weight").read_bytes()[info.start : info.end]


def test_a_copy_of_the_bases_embedding_is_left_out(tmp_path: Path, base: Path) -> None:
    copied = with_embedding(tmp_path / "copied", "F32", embedding_of(base))
    assert judged(copied, "llama.cpp", base).outcome == "as_trained"
    assert exported(copied, "llama.cpp", tmp_path / "out", base).repairs == ("copies",)


def test_a_rounded_copy_of_the_bases_embedding_is_not_served_as_trained_and_left_out(
    tmp_path: Path, base: Path
) -> None:
    own = struct.unpack("<512f", embedding_of(base))
    rounded = with_embedding(tmp_path / "rounded", "F16", struct.pack("<512e", *own))
    verdict = judged(rounded, "sglang", base)
    assert verdict.outcome == "not_as_trained"
    assert "embed_tokens.weight by a rounded copy" in verdict.findings[0].reason
    assert exported(rounded, "sglang", tmp_path / "out", base).repairs == ("copies",)


def test_a_changed_embedding_beside_its_update_goes_into_the_base(tmp_path: Path, base: Path) -> None:
    changed = with_embedding(tmp_path / "changed", "F32", random_tensor((32, 16), 14)[2])
    verdict = judged(changed, "llama.cpp", base)
    assert verdict.outcome == "not_as_trained"
    assert "by values that differ from the base's" in verdict.findings[0].reason
    assert exported(changed, "llama.cpp", tmp_path / "out", base).format == "checkpoint"


def test_an_embedding_changed_outside_the_samples_is_never_left_out(tmp_path: Path, base: Path) -> None:
    values = bytearray(embedding_of(base))
    seen = sample_positions("embed_tokens.weight", (32, 16))
    struct.pack_into("<f", values, 4 * next(place for place in range(512) if place not in seen), 0.5)
    changed = with_embedding(tmp_path / "changed", "F32", bytes(values))
    with pytest.raises(CheckFailed, match=r"embed_tokens.weight, which differs from the base's"):
        exported(changed, "llama.cpp", tmp_path / "no", base)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("engine", ["vllm", "mistral.rs"])
@pytest.mark.parametrize(
    ("config", "repair"),
    [({"bias": "lora_only"}, "bias"), ({"modules_to_save": ["lm_head"]}, "saved")],
    ids=["bias", "modules_to_save"],
)
def test_modules_listed_in_the_config_but_absent_are_removed_from_it(
    tmp_path: Path, engine: str, config: dict[str, Any], repair: str
) -> None:
    lora = tiny_lora(tmp_path / "lora", config=config)
    made = exported(lora, engine, tmp_path / "out")
    assert (made.format, made.repairs, made.equality.error) == ("peft", (repair,), 0)
    assert numbers(open_dir(tmp_path / "out")) == numbers(open_dir(lora))
    assert judged(tmp_path / "out", engine).outcome == "as_trained"


def test_an_adapters_name_in_tensor_names_is_removed_for_vllm(tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora")
    plain = numbers(open_dir(lora))
    tensors = {
        name.replace(".weight", ".default.weight"): ("F32", info.shape, plain[name])
        for name, info in open_dir(lora).tensors.items()
    }
    write_safetensors(lora / "adapter_model.safetensors", tensors)
    assert exported(lora, "vllm", tmp_path / "out").repairs == ("names",)
    assert numbers(open_dir(tmp_path / "out")) == plain


def test_factors_of_float64_are_written_as_float32_for_mistralrs(tmp_path: Path) -> None:
    lora = tiny_lora(tmp_path / "lora")
    plain = numbers(open_dir(lora))
    wide = {}
    for name, info in open_dir(lora).tensors.items():
        values = struct.unpack(f"<{math.prod(info.shape)}f", plain[name])
        wide[name] = ("F64", info.shape, struct.pack(f"<{len(values)}d", *values))
    write_safetensors(lora / "adapter_model.safetensors", wide)
    assert exported(lora, "mistral.rs", tmp_path / "out").repairs == ("float32",)
    assert numbers(open_dir(tmp_path / "out")) == plain


@pytest.mark.parametrize("engine", ["vllm", "lmdeploy", "llama.cpp", "mistral.rs"])
@pytest.mark.parametrize(
    "config",
    [{"target_modules": ["q_proj"]}, {"exclude_modules": ["v_proj"]}, {"modules_to_save": ["lm_head"]}],
    ids=json.dumps,
)
def test_a_config_that_makes_peft_drop_modules_is_corrected_for_every_engine(
    tmp_path: Path, base: Path, engine: str, config: dict[str, Any]
) -> None:
    """This holds whether or not the engine reads the field."""
    lora = tiny_lora(tmp_path / "lora", config=config)
    made = export(
        ParentAdapter(open_dir(lora), "it"),
        tmp_path / "out",
        setting(base, exact=True),
        runtime=parse_runtime(engine),
        format="peft",
    )
    assert len(made.repairs) == 1
    assert numbers(open_dir(tmp_path / "out")) == numbers(open_dir(lora))
    assert judged(tmp_path / "out", "peft", base).outcome == "as_trained"
    assert judged(tmp_path / "out", engine, base).outcome == "as_trained"
