"""LoRA files made by diffusers, and by other tools for it: described as diffusers reads them, checked against
the pipeline, pushed, pulled, and loaded again with the same outputs.

It runs in a separate environment, which `make environments` creates.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.diffusers_pipeline import open_base_folder
from adaptry.bases.fingerprinting import fingerprint
from adaptry.checks import check
from adaptry.core.errors import InvalidWeights
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import open_local

from .other_environment import OtherEnvironment

DIFFUSERS = OtherEnvironment("diffusers", "diffusers_library.py")
OF_ALL = ("plain", "older", "metadata", "patterns", "rslora", "conv", "dora")
OF_A_UNET = (*OF_ALL, "processors", "kohya", "locon", "converted")
WAYS = {"sd": OF_A_UNET, "sdxl": OF_A_UNET, "flux": (*OF_ALL, "alphas")}
CASES = [f"{pipeline}-{way}" for pipeline, ways in WAYS.items() for way in ways]
FINDINGS = {
    "plain": {"alpha_unknown"},
    "older": {"alpha_unknown"},
    "processors": {"alpha_unknown"},
    "dora": {"magnitudes_dropped"},
}

pytestmark = DIFFUSERS.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    DIFFUSERS.run("make", folder)
    return folder


@pytest.fixture(scope="module")
def told(corpus: Path) -> dict[str, Any]:
    """diffusers' results for each adapter: the scale of every live module, and the outputs of a step."""
    found: dict[str, Any] = {}
    for pipeline, ways in WAYS.items():
        answers = DIFFUSERS.run("loaded", pipeline, *(corpus / f"{pipeline}-{way}" for way in ways))
        found |= {f"{pipeline}-{way}": answer for way, answer in zip(ways, answers, strict=True)}
    return found


def base(corpus: Path, pipeline: str) -> BaseRecord:
    return fingerprint(open_base_folder(corpus / pipeline))


def codes(adapter: Adapter, record: BaseRecord) -> set[str]:
    return {found.code for found in check(adapter, record).findings}


def as_live(path: str, scales: dict[str, float], pipeline: str) -> str:
    """The live module of a spec's path, which may be flattened; kohya always writes CLIP's `text_model`."""
    if path in scales:
        return path
    encoder = {"text_encoder": "lora_te" if pipeline == "sd" else "lora_te1", "text_encoder_2": "lora_te2"}
    flat: dict[str, str] = {}
    for name in scales:
        part, _, inside = name.partition(".")
        inside = f"text_model.{inside.removeprefix('text_model.')}" if part in encoder else inside
        flat[f"{encoder.get(part, 'lora_unet')}_{inside.replace('.', '_')}"] = name
    return flat[path]


@pytest.mark.parametrize("case", CASES)
def test_modules_and_scales_are_those_of_the_live_pipeline(
    case: str, corpus: Path, told: dict[str, Any]
) -> None:
    scales = told[case]["scales"]
    spec = open_dir(corpus / case).spec
    pipeline = case.partition("-")[0]
    described = {as_live(module.path, scales, pipeline): module.scale for module in spec.modules}
    assert described == pytest.approx(scales, rel=1e-6)
    assert not spec.unclaimed


@pytest.mark.parametrize("case", CASES)
def test_a_pipelines_adapter_fits_only_that_pipeline(case: str, corpus: Path) -> None:
    pipeline, _, way = case.partition("-")
    adapter = open_dir(corpus / case)
    assert codes(adapter, base(corpus, pipeline)) == FINDINGS.get(way, set())
    for other in WAYS.keys() - {pipeline}:
        assert codes(adapter, base(corpus, other)) & {"module_missing", "shape_mismatch"}


@pytest.mark.parametrize("pipeline", WAYS)
def test_an_adapter_that_is_pulled_back_is_loaded_and_makes_the_same_step(
    pipeline: str, corpus: Path, told: dict[str, Any], tmp_path: Path
) -> None:
    registry = open_local(tmp_path / "registry")
    for way in WAYS[pipeline]:
        push(registry, open_dir(corpus / f"{pipeline}-{way}"), f"acme/{way}")
        pull(registry, f"acme/{way}", tmp_path / way)
    after = DIFFUSERS.run("loaded", pipeline, *(tmp_path / way for way in WAYS[pipeline]))
    assert [answer["step"] for answer in after] == [
        told[f"{pipeline}-{way}"]["step"] for way in WAYS[pipeline]
    ]


def test_an_unsaved_alpha_changes_the_output_and_is_a_finding(corpus: Path, told: dict[str, Any]) -> None:
    assert told["sd-plain"]["step"] != told["sd-metadata"]["step"]
    assert "alpha_unknown" in codes(open_dir(corpus / "sd-plain"), base(corpus, "sd"))
    assert "alpha_unknown" not in codes(open_dir(corpus / "sd-metadata"), base(corpus, "sd"))


Tensors = dict[str, Any]


def rewritten(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy with the same metadata and changed tensors."""
    shutil.copytree(source, target)
    (path,) = target.glob("*.safetensors")
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata)
    return target


def without_an_up(tensors: Tensors) -> Tensors:
    lost = next(name for name in tensors if "lora_B" in name or "lora_up" in name or ".up." in name)
    return {name: tensor for name, tensor in tensors.items() if name != lost}


def turned(tensors: Tensors) -> Tensors:
    return {
        name: tensor.T.copy() if "lora_" in name and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
    }


BROKEN: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {  # "": it is refused
    "an up is missing": (without_an_up, "keys_dropped"),
    "factors are turned": (turned, "shape_mismatch"),
    "a foreign prefix": (lambda tensors: {f"pipe.{name}": t for name, t in tensors.items()}, ""),
    "an extra tensor": (
        lambda tensors: {**tensors, "unet.extra": next(iter(tensors.values())).copy()},
        "keys_unknown",
    ),
}


OF_BROKEN = ("sd-plain", "sd-metadata", "sd-kohya", "sdxl-metadata")


@pytest.fixture(scope="module")
def broken(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, broken in every way, each in a folder named after both."""
    folder = tmp_path_factory.mktemp("broken")
    for case in OF_BROKEN:
        for how, (change, _) in BROKEN.items():
            rewritten(corpus / case, folder / f"{case}, {how}", change)
    return folder


@pytest.mark.parametrize("case", OF_BROKEN)
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_has_its_finding(how: str, case: str, corpus: Path, broken: Path) -> None:
    _, code = BROKEN[how]
    folder = broken / f"{case}, {how}"
    if not code:
        with pytest.raises(InvalidWeights, match="names contain the part"):
            open_dir(folder)
    else:
        assert code in codes(open_dir(folder), base(corpus, case.partition("-")[0]))


@pytest.mark.parametrize("pipeline", ["sd", "sdxl"])
def test_diffusers_refuses_a_broken_file_or_computes_another_step(
    pipeline: str, broken: Path, told: dict[str, Any]
) -> None:
    folders = sorted(broken.glob(f"{pipeline}-*"))
    for folder, answer in zip(folders, DIFFUSERS.run("loaded", pipeline, *folders), strict=True):
        assert answer.get("step") != told[folder.name.partition(",")[0]]["step"], folder.name


def test_alphas_under_diffusers_own_names_are_refused_by_a_unets_loader(corpus: Path) -> None:
    adapter = open_dir(corpus / "sd-alphas")
    assert "loader_refuses" in codes(adapter, base(corpus, "sd"))
    (answer,) = DIFFUSERS.run("loaded", "sd", corpus / "sd-alphas")
    assert "Invalid LoRA checkpoint" in answer["refused"]


def test_a_pipelines_id_does_not_depend_on_sharding(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus / "sd", tmp_path / "sd")
    whole = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = sorted(load_file(whole).items())
    whole.unlink()
    for number, part in enumerate((tensors[::2], tensors[1::2]), start=1):
        save_file(dict(part), whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"))
    assert fingerprint(open_base_folder(tmp_path / "sd")).id == base(corpus, "sd").id
