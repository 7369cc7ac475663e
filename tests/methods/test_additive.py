"""Methods that add an update to a weight: described, and merged as PEFT merges them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.adapters.methods import METHODS
from adaptry.core.errors import Unsupported

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from .additive import CASES, pair_of  # noqa: E402  (needs torch and PEFT)
from .on_base import Pair  # noqa: E402  (needs torch and PEFT)
from .within_rounding import is_pefts_merge  # noqa: E402  (needs torch)

PLAIN = [name for name in CASES if not name.endswith("of conv1d")]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Conv1D differs only in orientation: one dtype is enough.
MERGES = [(name, "fp32") for name in PLAIN] + [(name, "bf16") for name in CASES]

# An AdaLoRA's rank_pattern names parameters; PEFT 0.21 warns on loading that it does not understand them.
GetPair = Callable[..., Pair]

pytestmark = pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")


@pytest.fixture(scope="module")
def shared_pair(tmp_path_factory: pytest.TempPathFactory) -> GetPair:
    """Pairs that tests only read, so that each is made once."""
    return functools.cache(
        lambda name, dtype=torch.float32: pair_of(tmp_path_factory.mktemp("pair"), name, dtype)
    )


@pytest.mark.parametrize(("name", "dtype"), MERGES)
def test_a_merge_equals_pefts(shared_pair: GetPair, name: str, dtype: str) -> None:
    pair = shared_pair(name, DTYPES[dtype])

    merged, expected, before = pair.merged(), pair.merged_by_peft(), pair.base_weights()

    assert {key for key in merged if not torch.equal(merged[key], before[key])}
    for key, tensor in merged.items():
        assert is_pefts_merge(name, tensor, expected[key], before[key]), key


# For each case: the ranks, and (inputs, outputs) by module as far as the tensors show them (0: they do not).
SPECS: dict[str, tuple[tuple[int, ...], dict[str, tuple[int, int]]]] = {
    "adalora pruned": ((2, 4), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "adalora of kernels": ((4,), {"conv": (72, 12), "one": (12, 8), "linear": (8, 16)}),
    "loha": ((2, 3), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "loha of effective kernels": ((3,), {"conv": (8, 12), "one": (12, 8), "linear": (8, 16), "line": (8, 8)}),
    "lokr": ((8,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "lokr of factors": ((1,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "vera": ((6,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "pvera": ((6,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "vblora": ((3,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "vblora of choices": ((3,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "randlora": ((5,), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "fourierft": ((), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "waveft": ((), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "miss": ((8,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "miss bat": ((8,), {"q_proj": (0, 32), "v_proj": (0, 16), "down_proj": (0, 32)}),
    "delora": ((2, 4), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "gralora hybrid": ((8,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "tinylora": ((2,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "unilora": ((2,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "c3a": ((), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
    "shira": ((), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "supertuning": ((), {"q_proj": (0, 0), "v_proj": (0, 0), "down_proj": (0, 0)}),
    "supertuning with lora": ((2,), {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (80, 32)}),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_has_ranks_and_sides(shared_pair: GetPair, name: str) -> None:
    spec = open_dir(shared_pair(name).adapter).spec
    found = {module.path.rpartition(".")[2]: (module.fan_in, module.fan_out) for module in spec.modules}
    assert (spec.ranks, found) == SPECS[name]


@pytest.mark.parametrize("name", PLAIN)
def test_every_tensor_is_claimed_and_no_finding_appears(shared_pair: GetPair, name: str) -> None:
    pair = shared_pair(name)
    assert open_dir(pair.adapter).spec.unclaimed == ()
    assert pair.findings() == []


@pytest.mark.parametrize("name", [name for name in PLAIN if "kernels" not in name])
def test_an_exact_lora_has_at_most_its_stated_rank(shared_pair: GetPair, name: str) -> None:
    pair = shared_pair(name)
    adapter = open_dir(pair.adapter)
    method = METHODS[adapter.spec.method]
    merged, before = pair.merged(), pair.base_weights()
    for module in adapter.spec.modules:
        said = method.lora_rank(module, adapter.config)
        if method.lora_form == "exact" and said is not None:
            update = (merged[f"{module.path}.weight"] - before[f"{module.path}.weight"]).double()
            strengths = torch.linalg.svdvals(update)
            assert int((strengths > 1e-5 * strengths[0]).sum()) <= said


@pytest.mark.parametrize(
    ("name", "missing", "field"),
    [("unilora", "save_indices", "indices"), ("tinylora in groups", "save_projection", "matrices")],
)
def test_unsaved_parts_are_requested_and_then_merged(
    tmp_path: Path, name: str, missing: str, field: str
) -> None:
    pair = pair_of(tmp_path, name, **{missing: False})
    with pytest.raises(Unsupported, match=f"set {missing} to true in adapter_config.json, load it with PEFT"):
        pair.merged()
    assert "no_effect" not in pair.findings()
    expected = pair.merged_by_peft()

    pair.configure(**{missing: True})
    model = transformers.AutoModelForCausalLM.from_pretrained(pair.base, dtype="auto")
    peft.PeftModel.from_pretrained(model, pair.adapter).save_pretrained(pair.adapter)

    assert all(torch.equal(tensor, expected[key]) for key, tensor in pair.merged().items())


def test_a_bone_file_is_merged_as_miss(tmp_path: Path) -> None:
    """PEFT 0.19 dropped Bone, and reads its files under the new name only."""
    pair = pair_of(tmp_path, "miss bat")
    expected = pair.merged_by_peft()
    pair.rewrite(_under_the_old_name)
    pair.configure(peft_type="BONE")

    merged = pair.merged()

    assert open_dir(pair.adapter).spec.method == "bone"
    assert all(torch.equal(tensor, expected[key]) for key, tensor in merged.items())


def _under_the_old_name(tensors: dict[str, Any]) -> None:
    for name in list(tensors):
        tensors[name.replace("miss_", "bone_")] = tensors.pop(name)


def test_a_miss_that_multiplies_needs_its_base_and_is_not_a_lora(tmp_path: Path) -> None:
    adapter = open_dir(pair_of(tmp_path, "miss bat").adapter)
    method = METHODS["miss"]
    assert method.needs_base_for(adapter.config)
    assert method.lora_rank(adapter.spec.modules[0], adapter.config) is None


def test_every_wavelet_equals_pefts() -> None:
    from peft.tuners.waveft.wavelet import Wavelet

    from adaptry.adapters.methods.wavelets import LOW_PASS

    for family, filters in LOW_PASS.items():
        assert torch.equal(torch.tensor(filters), torch.tensor(Wavelet(family).rec_lo))


def test_a_wavelet_that_peft_cannot_merge_is_refused(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "waveft")
    pair.configure(wavelet_family="db12")
    with pytest.raises(Unsupported, match="its wavelet 'db12' is not one that PEFT itself can merge"):
        pair.merged()


def test_an_adalora_without_a_positive_alpha_is_refused(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "adalora")
    pair.configure(lora_alpha=0)
    with pytest.raises(Unsupported, match="lora_alpha is not positive"):
        pair.merged()


def test_an_embedding_tied_to_a_head_is_changed_alone(tmp_path: Path) -> None:
    """The live adapter changes only the embedding; PEFT's merge also changes the head."""
    config = peft.TinyLoraConfig(r=2, u=8, target_modules=["embed_tokens"])
    pair = Pair(tmp_path, "tied", config)

    merged, expected, before = pair.merged(), pair.merged_by_peft(), pair.base_weights()

    embedding = "model.embed_tokens.weight"
    assert torch.equal(merged[embedding], expected[embedding])
    assert torch.equal(merged["lm_head.weight"], before[embedding])
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False
