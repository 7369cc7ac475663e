"""A version with damaged files is not checked against its base, since the files are not those that were
pushed.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.repair import repair_registry
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.damage import change_last_byte
from adaptry.testing.samples import tiny_base, tiny_lora

REF = Ref.parse("acme/tone@1")


def test_a_damaged_version_stays_declared_when_its_base_arrives_and_is_checked_when_it_is_whole_again(
    folder: Path, tmp_path: Path
) -> None:
    registry = open_local(folder)
    adapter = open_dir(tiny_lora(tmp_path / "lora", base_name="org/tiny"))
    push(registry, adapter, AdapterName.parse("acme/tone"))
    weights = registry.versions.detail(REF).manifest.file("adapter_model.safetensors")
    assert weights is not None
    change_last_byte(registry, weights.sha256)
    assert len(verify(registry.catalog, registry.blobs)) == 1

    register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    assert registry.versions.get(REF).base_status == "declared"

    push(registry, adapter, AdapterName.parse("acme/tone"))
    repair_registry(registry, read_bytes=True)
    assert registry.versions.get(REF).base_status == "verified"
