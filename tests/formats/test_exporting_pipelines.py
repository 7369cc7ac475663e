"""LoRA files of pipelines exported in diffusers' and kohya's layouts: diffusers gives the same output with
either as with the original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adaptry.adapters.adapter import open_dir
from adaptry.bases.diffusers_pipeline import open_base_folder
from adaptry.bases.fingerprinting import fingerprint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, Unsupported

from .other_environment import OtherEnvironment

DIFFUSERS = OtherEnvironment("diffusers", "diffusers_library.py")
TO_KOHYA = ("metadata", "patterns", "rslora", "conv")
TO_DIFFUSERS = ("kohya", "locon", "metadata")

pytestmark = DIFFUSERS.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    DIFFUSERS.run("make", folder)
    return folder


def written(corpus: Path, case: str, format: str, target: Path) -> Path:
    record = fingerprint(open_base_folder(corpus / case.partition("-")[0]))
    export(ParentAdapter(open_dir(corpus / case), case), target, ExportOptions(record), format=format)
    return target


def same(kind: str, one: list[Path], other: list[Path]) -> None:
    before, after = (DIFFUSERS.run("loaded", kind, *paths) for paths in (one, other))
    for first, second in zip(before, after, strict=True):
        assert "refused" not in second, second
        assert _close(first["step"], second["step"])
        assert first["scales"].keys() == second["scales"].keys()


def _close(one: list[Any], other: list[Any]) -> bool:
    return one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize(("format", "ways"), [("kohya", TO_KOHYA), ("diffusers", TO_DIFFUSERS)])
def test_export_to_either_layout_preserves_diffusers_answers(
    corpus: Path, tmp_path: Path, kind: str, format: str, ways: tuple[str, ...]
) -> None:
    cases = [f"{kind}-{way}" for way in ways if (corpus / f"{kind}-{way}").exists()]
    made = [written(corpus, case, format, tmp_path / case) for case in cases]
    same(kind, [corpus / case for case in cases], made)


def test_alphas_in_tensors_are_moved_where_diffusers_reads_them(corpus: Path, tmp_path: Path) -> None:
    made = written(corpus, "sd-alphas", "diffusers", tmp_path / "made")
    refused, own, as_trained = DIFFUSERS.run(
        "loaded", "sd", corpus / "sd-alphas", made, corpus / "sd-metadata"
    )
    assert "refused" in refused
    assert _close(own["step"], as_trained["step"])


def test_different_alphas_of_a_kohya_file_are_moved_where_diffusers_reads_them(
    corpus: Path, tmp_path: Path
) -> None:
    tensors = load_file(corpus / "sd-kohya" / "style.safetensors")
    name = next(name for name in tensors if name.startswith("lora_unet") and name.endswith("to_q.alpha"))
    (tmp_path / "mixed").mkdir()
    save_file(
        {**tensors, name: np.array(24.0, np.float32)},
        tmp_path / "mixed" / "style.safetensors",
        {"ss_network_dim": "4"},
    )
    record = fingerprint(open_base_folder(corpus / "sd"))
    mixed, runtime = ParentAdapter(open_dir(tmp_path / "mixed"), "mixed"), parse_runtime("diffusers")
    assert "alphas_mixed" in {found.code for found in check_runtime(mixed.adapter, runtime, record).findings}
    export(mixed, tmp_path / "diffusers", ExportOptions(record), runtime=runtime)
    export(mixed, tmp_path / "kohya", ExportOptions(record), format="kohya")
    paths = [tmp_path / name for name in ("mixed", "diffusers", "kohya")]
    as_it_is, own, evened = DIFFUSERS.run("loaded", "sd", *paths)
    assert set(as_it_is["scales"].values()) == {0.5, 1.5}
    assert set(own["scales"].values()) == {0.5, 1.5, 6.0}
    assert _close(own["step"], evened["step"])
    assert not _close(own["step"], as_it_is["step"])


def test_adapters_that_the_format_cannot_represent_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="--format diffusers"):
        written(corpus, "flux-metadata", "kohya", tmp_path / "flux")
    with pytest.raises(CheckFailed, match="DoRA"):
        written(corpus, "sd-dora", "kohya", tmp_path / "dora")
    with pytest.raises(CheckFailed, match=r"module_missing|its pipeline"):
        record = fingerprint(open_base_folder(corpus / "flux"))
        export(
            ParentAdapter(open_dir(corpus / "sd-kohya"), "it"),
            tmp_path / "it",
            ExportOptions(record),
            format="diffusers",
        )
