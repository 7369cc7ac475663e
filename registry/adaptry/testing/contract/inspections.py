"""Promises about weights: every kind of push inspects them before admission, and the results are shown."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Invalid, NotFound
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import copy, push
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult, TensorInspection
from adaptry.testing.contract.fixtures import EVE, TONE, ContractFixtures, MakeLora, MakeRegistry
from adaptry.testing.samples import Tensors, tiny_base, tiny_lora, write_safetensors

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
FACTOR = f"{MODULE}.lora_B.weight"
NAN, INFINITY = float("nan"), float("inf")


class InspectionsContract(ContractFixtures):
    """`versions.inspect_tensors`, and the inspection of weights at admission."""

    @pytest.mark.parametrize(("value", "code"), [(NAN, "weights_nan"), (-INFINITY, "weights_infinite")])
    def test_non_finite_weights_are_refused_on_every_way_in(
        self, registry: Registry, lora: MakeLora, value: float, code: str
    ) -> None:
        registry.adapters.create(TONE, AdapterEdit())
        adapter = lora(extra=one_value(value))
        manifest = upload_adapter(registry, adapter)
        with pytest.raises(CheckFailed, match=code):
            registry.versions.put(TONE, manifest.to_bytes(), PushOptions())
        with pytest.raises(CheckFailed, match=code):
            registry.commits.put(TONE, "main", manifest.to_bytes(), CommitNote(title="diverged"))
        registry.commits.create_branch(TONE, "run.step-1")
        before = registry.commits.get(TONE, "run.step-1")
        with pytest.raises(CheckFailed, match=code):
            registry.commits.put(TONE, "run.step-1", manifest.to_bytes(), CommitNote(title="diverged"))
        assert registry.commits.get(TONE, "run.step-1") == before
        with pytest.raises(CheckFailed, match=code):
            push(registry, adapter, TONE)
        assert registry.adapters.get(TONE).versions == 0

    def test_weights_forced_in_with_a_reason_keep_their_findings(
        self, registry: Registry, lora: MakeLora
    ) -> None:
        pushed = push(
            registry, lora(extra=one_value(NAN)), TONE, options=PushOptions(force_reason="to show the fault")
        )
        detail = registry.versions.detail(Ref(TONE))
        assert "weights_nan" in finding_codes(pushed)
        assert detail.report == pushed.report
        assert detail.forced == "to show the fault"
        assert detail.inspection is not None
        assert (detail.inspection.nan, detail.inspection.infinite) == (1, 0)

    def test_warnings_of_a_push_are_stored(self, registry: Registry, lora: MakeLora) -> None:
        pushed = push(registry, lora(layers=1, targets=("q_proj",), extra=zeros()), TONE)
        assert "untrained" in finding_codes(pushed)
        detail = registry.versions.detail(Ref(TONE))
        assert detail.report == pushed.report
        assert detail.version.findings == len(pushed.report.findings)

    def test_vectors_that_cancel_and_updates_beside_magnitudes_are_found_at_a_push(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        pair = ("F32", (16, 2), b"".join(struct.pack("<2f", each + 1, each + 1) for each in range(16)))
        config = {"peft_type": "HRA", "r": 2, "target_modules": ["q_proj"]}
        folder = tiny_lora(tmp_path / "hra", layers=1, config=config)
        write_safetensors(folder / "adapter_model.safetensors", {f"{MODULE}.hra_u": pair})
        assert "untrained" in finding_codes(
            push(registry, open_dir(folder), AdapterName.parse("acme/cancelling"))
        )

        magnitudes = {f"{MODULE}.lora_magnitude_vector": ("F32", (16,), struct.pack("<f", 0.5) * 16)}
        folder = tiny_lora(
            tmp_path / "dora",
            layers=1,
            targets=("q_proj",),
            extra={**zeros(), **magnitudes},
            config={"use_dora": True},
        )
        found = finding_codes(push(registry, open_dir(folder), AdapterName.parse("acme/scaled")))
        assert "updates_zero" in found
        assert "untrained" not in found

    def test_findings_stay_when_the_base_becomes_known(
        self, registry: Registry, lora: MakeLora, tmp_path: Path
    ) -> None:
        push(registry, lora(layers=1, targets=("q_proj",), extra=zeros()), TONE)
        register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
        detail = registry.versions.detail(Ref(TONE))
        assert detail.version.base_status == "verified"
        found = {finding.code for finding in detail.report.findings}
        assert "untrained" in found
        assert "base_unknown" not in found

    def test_every_tensor_has_its_norm_in_pages(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(extra={FACTOR: ("F32", (16, 4), struct.pack("<f", 0.5) * 64)}), TONE)
        ref = Ref(TONE)
        first = registry.versions.inspect_tensors(ref, limit=3)
        assert len(first.items) == 3
        assert first.next is not None
        tensors = list(iter_items(lambda cursor: registry.versions.inspect_tensors(ref, cursor, 3)))
        assert len(tensors) == 8
        assert tensors[:3] == list(first.items)
        assert (
            TensorInspection(file="adapter_model.safetensors", tensor=FACTOR, nan=0, infinite=0, norm=4.0)
            in tensors
        )
        whole = registry.versions.detail(ref).inspection
        assert whole is not None
        assert whole.tensors == 8
        assert whole.norm == pytest.approx(sum((one.norm or 0) ** 2 for one in tensors) ** 0.5)
        with pytest.raises(Invalid):
            registry.versions.inspect_tensors(ref, limit=0)
        with pytest.raises(Invalid):
            registry.versions.inspect_tensors(ref, cursor="nonsense")

    def test_only_readers_list_tensors(
        self, make_registry: MakeRegistry, registry: Registry, lora: MakeLora
    ) -> None:
        push(registry, lora(), TONE)
        with pytest.raises(NotFound):
            make_registry(EVE).versions.inspect_tensors(Ref(TONE))

    def test_a_copy_is_inspected_where_it_arrives(self, registry: Registry, lora: MakeLora) -> None:
        push(registry, lora(extra=one_value(NAN)), TONE, options=PushOptions(force_reason="to copy it"))
        with pytest.raises(CheckFailed, match="weights_nan"):
            copy(registry, Ref(TONE), registry, "acme/other")


def one_value(value: float) -> Tensors:
    """A factor with one element that has a different value."""
    return {FACTOR: ("F32", (16, 4), struct.pack("<63f", *[0.1] * 63) + struct.pack("<f", value))}


def zeros() -> Tensors:
    return {FACTOR: ("F32", (16, 4), bytes(256))}


def finding_codes(pushed: PushResult) -> list[str]:
    return [finding.code for finding in pushed.report.findings]


def upload_adapter(registry: Registry, adapter: Adapter) -> Manifest:
    """Uploads an adapter's files as any client may."""
    files = {path: adapter.content.read_all(path, 1 << 20) for path in adapter.content.sizes}
    for data in files.values():
        digest = Digest.of(data)
        if not registry.files.has(TONE, digest):
            upload = registry.uploads.open(TONE, digest, len(data))
            registry.uploads.finish(registry.uploads.append(upload, 0, [data]))
    return Manifest.of({path: (len(data), Digest.of(data)) for path, data in files.items()})
