"""A virtual merged checkpoint has the bytes of the one that a merge writes, as a whole and in any range."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.adapters.header import read_header
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge, plan_recipe
from adaptry.compute.merging.streaming.identity import ARITHMETIC
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.testing.samples import tiny_base, tiny_lora

torch = pytest.importorskip("torch")
Make = Callable[..., Path]

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lora": ({"shard": "100KB"}, {"r": 4, "target_modules": "all-linear"}),
    "bf16": ({"dtype": torch.bfloat16}, {"r": 8, "target_modules": ["q_proj", "down_proj"]}),
    "conv1d": ({"kind": "gpt2", "dtype": torch.float16}, {"r": 4, "target_modules": ["c_attn", "c_proj"]}),
    "dora": ({"shard": "100KB"}, {"r": 4, "target_modules": ["v_proj", "up_proj"], "use_dora": True}),
    "odd rank": ({}, {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "embed_tokens"]}),
    "whole weights": ({"tied": True}, {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
}


@pytest.fixture(params=KINDS)
def folders(request: pytest.FixtureRequest, make_base: Make, make_adapter: Make) -> tuple[Path, Path]:
    base, adapter = KINDS[request.param]
    made = make_base(**base)
    return made, make_adapter(made, **adapter)


def opened(base: Path, adapter: Path, scratch: Path, kernel: str = "auto") -> VirtualCheckpoint:
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))
    plan = plan_recipe(recipe_of(base), open_checkpoint(base), [source])
    return VirtualCheckpoint(plan, choose_kernels(kernel=kernel), Digest.of(b"tone"), {}, scratch)


def recipe_of(base: Path) -> MergeRecipe:
    return MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),))


def on_disk(base: Path, adapter: Path, target: Path, kernel: str = "auto") -> dict[str, bytes]:
    merge(
        recipe_of(base),
        open_checkpoint(base),
        [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))],
        target,
        MergeOptions(kernel=kernel),
    )
    return {path.name: path.read_bytes() for path in target.iterdir() if path.name != "adaptry_merge.json"}


def read(virtual: VirtualCheckpoint, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(
        bytes(part) for part in virtual.read(name, start, virtual.sizes[name] if end is None else end)
    )


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_every_virtual_file_equals_a_merged_one(
    folders: tuple[Path, Path], kernel: str, tmp_path: Path
) -> None:
    written = on_disk(*folders, tmp_path / "merged", kernel)

    virtual = opened(*folders, tmp_path, kernel)

    assert virtual.sizes == {name: len(data) for name, data in written.items()}
    for name, data in written.items():
        assert read(virtual, name) == data, name


def test_any_range_equals_that_part_of_the_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    written = on_disk(*folders, tmp_path / "merged")
    virtual = opened(*folders, tmp_path)
    source = random.Random(5)

    for name, data in written.items():
        for _ in range(40):
            start = source.randrange(len(data) + 1)
            end = source.choice([start, start + 1, start + 100, source.randint(start, len(data))])
            assert read(virtual, name, start, min(end, len(data))) == data[start:end], (name, start, end)


def test_sizes_and_headers_are_known_before_a_weight_is_read(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(shard="100KB")
    virtual = opened(base, make_adapter(base, r=4, target_modules="all-linear"), tmp_path)

    shards = [name for name in virtual.sizes if name.endswith(".safetensors")]
    for name in shards:
        header = read_header(
            lambda at, size, name=name: read(virtual, name, at, at + size), virtual.sizes[name], name
        )
        assert header.tensors == open_checkpoint(base).shards[name].tensors
    assert len(shards) > 2


def test_files_beside_the_weights_are_known_by_their_digests(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base()
    virtual = opened(base, make_adapter(base, r=4, target_modules=["q_proj"]), tmp_path)

    assert {"config.json", "generation_config.json"} <= virtual.side_files.keys()
    for name, file in virtual.side_files.items():
        data = read(virtual, name)
        assert (file.size, file.sha256) == (len(data), Digest.of(data))
        assert file.blob_id == git_blob(data)


def git_blob(data: bytes) -> str:
    import hashlib

    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


def test_tags_depend_only_on_adapter_base_and_kernel(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.bfloat16)
    one = make_adapter(base, "one", r=4, target_modules=["q_proj"])
    names = opened(base, one, tmp_path)

    again, by_torch = opened(base, one, tmp_path), opened(base, one, tmp_path, "torch")
    (base / "generation_config.json").write_text("{}")
    beside = opened(base, one, tmp_path)

    assert (again.identity, again.tags) == (names.identity, names.tags)
    assert by_torch.identity != names.identity
    assert by_torch.tags != names.tags
    assert beside.identity != names.identity
    assert beside.tags == names.tags


def test_a_modified_base_is_detected(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base()
    virtual = opened(base, make_adapter(base, r=4, target_modules=["q_proj"]), tmp_path)
    assert virtual.is_current

    with (base / "model.safetensors").open("ab") as file:
        file.write(b"more")

    assert not virtual.is_current


def test_an_unknown_file_is_not_found(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base()
    virtual = opened(base, make_adapter(base, r=4, target_modules=["q_proj"]), tmp_path)
    with pytest.raises(NotFound, match="no file"):
        list(virtual.read("pytorch_model.bin", 0, 1))


@pytest.mark.parametrize(
    ("dtype", "digest"),
    [("F32", "de810399bdbf5acb"), ("F16", "a89396fc9e78cefb"), ("BF16", "c89caa39ea6c2342")],
)
def test_the_compiled_kernel_gives_the_recorded_bytes(dtype: str, digest: str, tmp_path: Path) -> None:
    """If these change on purpose, `ARITHMETIC` is increased, so that cached data never have the name of other
    bytes.
    """
    base = tiny_base(tmp_path / "base", hidden=64, dtype=dtype)
    adapter = tiny_lora(tmp_path / "tone", hidden=64, targets=("q_proj", "v_proj", "down_proj"))

    virtual = opened(base, adapter, tmp_path)

    assert (virtual.computed_by, ARITHMETIC) == (("llvm",), 3)
    assert Digest.of(read(virtual, "model.safetensors")).hex[:16] == digest
