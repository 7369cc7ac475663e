"""If a file is overwritten in place while an adapter is made from it, the result would be a mixture, so there
is none. If a file is replaced by another one, the original is still read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.conversion.convert import convert
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.conversion.resize import ResizeOptions, resize
from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
from adaptry.compute.extraction.plan import plan_extraction
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import Invalid
from adaptry.core.progress import Progress
from adaptry.testing.samples import tiny_base, tiny_lora

torch = pytest.importorskip("torch")

INPUT = RecipeInput(source="one")
WAYS: dict[str, Callable[[ParentAdapter], LazyAdapter]] = {
    "combine": lambda one: build_combined_adapter(
        plan_combination(CombineRecipe(inputs=(INPUT, INPUT)), [one, one])
    ),
    "ties": lambda one: build_combined_adapter(
        plan_combination(CombineRecipe(inputs=(INPUT, INPUT), method="ties"), [one, one])
    ),
    "convert": lambda one: convert(one, ConvertOptions()),
    "resize": lambda one: resize(one, ResizeOptions(rank=2)),
}
WRITE: dict[str, Callable[[Path, bytes], object]] = {
    "other values": lambda file, data: file.write_bytes(data),
    "fewer bytes": lambda file, data: file.write_bytes(data[:-64]),
    "more bytes": lambda file, data: file.write_bytes(data + bytes(64)),
}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_lora(tmp_path / "one")


def retrained(adapter: Path) -> bytes:
    """The bytes of a file with the same header and other values."""
    data = (adapter / "adapter_model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    values = torch.frombuffer(bytearray(data[start:]), dtype=torch.float32)
    return data[:start] + (values + 1).numpy().tobytes()


def once(change: Callable[[], object]) -> Progress:
    """A progress callback that makes the change at its first call."""
    done: list[object] = []

    def progress(*_: object) -> None:
        if not done:
            done.append(change())

    return progress


@pytest.mark.parametrize("written", WRITE)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_made_of_a_file_that_was_written_in_the_meantime(
    adapter: Path, tmp_path: Path, way: str, written: str
) -> None:
    file, data = adapter / "adapter_model.safetensors", retrained(adapter)
    made = WAYS[way](ParentAdapter(open_dir(adapter), "one"))

    with pytest.raises(Invalid, match="while it was read; is something still writing it"):
        write_adapter(made, tmp_path / "to" / "out", progress=once(lambda: WRITE[written](file, data)))

    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_was_replaced_is_read_as_it_was(adapter: Path, tmp_path: Path, way: str) -> None:
    new, file = tmp_path / "new", adapter / "adapter_model.safetensors"
    new.write_bytes(retrained(adapter))
    write_adapter(WAYS[way](ParentAdapter(open_dir(adapter), "one")), tmp_path / "before")
    made = WAYS[way](ParentAdapter(open_dir(adapter), "one"))

    write_adapter(made, tmp_path / "out", progress=once(lambda: new.replace(file)))

    assert not new.exists()
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_a_file_that_is_not_read_may_change(adapter: Path, tmp_path: Path) -> None:
    notes = adapter / "README.md"
    notes.write_text("Notes")
    made = WAYS["combine"](ParentAdapter(open_dir(adapter), "one"))

    write_adapter(made, tmp_path / "out", progress=once(lambda: notes.write_text("More notes")))

    assert (tmp_path / "out").is_dir()


def test_nothing_is_merged_of_an_adapter_that_was_written_in_the_meantime(
    adapter: Path, tmp_path: Path
) -> None:
    base, file, data = tiny_base(tmp_path / "base"), adapter / "adapter_model.safetensors", retrained(adapter)
    sources = [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "one"))]

    with pytest.raises(Invalid, match="changed while it was read"):
        merge(
            MergeRecipe(base=str(base), inputs=(INPUT,)),
            open_checkpoint(base),
            sources,
            tmp_path / "out",
            progress=once(lambda: file.write_bytes(data)),
        )

    assert not (tmp_path / "out").exists()


def test_nothing_is_merged_into_a_base_that_was_written_in_the_meantime(
    adapter: Path, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path / "base")
    weights = base / "model.safetensors"
    sources = [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "one"))]

    with pytest.raises(Invalid, match="changed while it was read"):
        merge(
            MergeRecipe(base=str(base), inputs=(INPUT,)),
            open_checkpoint(base),
            sources,
            tmp_path / "out",
            progress=once(lambda: weights.write_bytes(weights.read_bytes())),
        )

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changed", ["base", "tuned"])
def test_nothing_is_extracted_from_a_model_that_was_written_in_the_meantime(
    tmp_path: Path, changed: str
) -> None:
    tiny_base(tmp_path / "base", seed=1)
    tiny_base(tmp_path / "tuned", seed=2)
    weights = tmp_path / changed / "model.safetensors"
    recipe = ExtractRecipe(rank=2)
    plan = plan_extraction(recipe, open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "tuned"))

    with pytest.raises(Invalid, match="changed while it was read"):
        write_adapter(
            build_extracted_adapter(plan),
            tmp_path / "out",
            progress=once(lambda: weights.write_bytes(weights.read_bytes())),
        )

    assert not (tmp_path / "out").exists()
