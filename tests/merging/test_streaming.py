"""The process that computes merged models: its responses, and that nothing is lost if it or a reader dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merge_verification.merge_record import check_inputs, read_merge_record
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.compute.sidecar_client.client import ComputeClient
from adaptry.compute.sidecar_client.inputs import ModelDescription, ModelInputs
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound, Unavailable, Unsupported
from adaptry.testing.samples import tiny_base, tiny_lora

transformers = pytest.importorskip("transformers")
Make = Callable[..., Path]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base", hidden=32, shards=2)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_lora(tmp_path / "tone", hidden=32)


@pytest.fixture
def computing(tmp_path: Path) -> Iterator[ComputeClient]:
    computing = ComputeClient(tmp_path / "work")
    yield computing
    computing.close()


def model_inputs(base: Path, adapter: Path) -> ModelInputs:
    """The inputs as named by a server that has the base in a folder."""
    return ModelInputs(
        adapter="acme/tone@1",
        revision=Digest.of(b"the manifest of acme/tone@1"),
        adapter_files={path.name: str(path) for path in adapter.iterdir()},
        base=fingerprint(open_checkpoint(base)).id,
        base_name="org/tiny",
        base_folders=(str(base),),
    )


def large_base(folder: Path) -> Path:
    """A base in one file of 25 MB: more than the buffers between a process and its reader hold."""
    config = transformers.LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=96, max_position_embeddings=64,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def whole(computing: ComputeClient, made_of: ModelInputs, model: ModelDescription, name: str) -> bytes:
    found = model.file(name)
    assert found is not None
    return b"".join(computing.read(made_of, model, name, 0, found.size))


def on_disk(base: Path, adapter: Path, target: Path) -> dict[str, bytes]:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),))
    merge(
        recipe, open_checkpoint(base), [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))], target
    )
    return {path.name: path.read_bytes() for path in target.iterdir() if path.name != "adaptry_merge.json"}


def test_streamed_files_equal_those_of_a_merge_on_disk(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    written = on_disk(base, adapter, tmp_path / "merged")
    made_of = model_inputs(base, adapter)

    model = computing.describe(made_of)

    assert {file.name: file.size for file in model.files if file.name != "adaptry_merge.json"} == {
        name: len(data) for name, data in written.items()
    }
    assert {name: whole(computing, made_of, model, name) for name in written} == written


def test_a_file_has_its_digest_once_it_was_read_whole(
    computing: ComputeClient, base: Path, adapter: Path
) -> None:
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    weights = [file.name for file in model.files if file.sha256 is None]
    assert weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

    data = whole(computing, made_of, model, weights[0])

    first, second = (computing.describe(made_of).file(name) for name in weights)
    assert first is not None
    assert second is not None
    assert (first.sha256, second.sha256) == (Digest.of(data), None)


def test_an_interrupted_and_resumed_read_still_gives_a_digest(
    computing: ComputeClient, base: Path, adapter: Path
) -> None:
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    name, size = next((file.name, file.size) for file in model.files if file.sha256 is None)
    middle = size // 2

    first = b"".join(computing.read(made_of, model, name, 0, middle))
    rest = b"".join(computing.read(made_of, model, name, middle - 1000, size))

    found = computing.describe(made_of).file(name)
    assert found is not None
    assert found.sha256 == Digest.of(first[: middle - 1000] + rest)


def test_digests_are_remembered_by_the_next_process(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    for file in model.files:
        whole(computing, made_of, model, file.name)
    computing.close()

    other = ComputeClient(tmp_path / "work")
    try:
        again = other.describe(made_of)
    finally:
        other.close()

    assert again.identity == model.identity
    assert all(file.sha256 for file in again.files)


def test_a_stream_continues_after_the_process_is_killed(
    computing: ComputeClient, adapter: Path, tmp_path: Path
) -> None:
    base = large_base(tmp_path / "large")
    adapter = tiny_lora(tmp_path / "wide", hidden=512)
    expected = on_disk(base, adapter, tmp_path / "merged")["model.safetensors"]
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    stream = computing.read(made_of, model, "model.safetensors", 0, len(expected))

    read = bytearray(next(stream))
    first = computing.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for piece in stream:
        read += piece

    assert bytes(read) == expected
    assert computing.pid != first


def test_readers_of_one_model_do_not_disturb_each_other(computing: ComputeClient, tmp_path: Path) -> None:
    base, adapter = large_base(tmp_path / "large"), tiny_lora(tmp_path / "wide", hidden=512)
    expected = on_disk(base, adapter, tmp_path / "merged")["model.safetensors"]
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    read: dict[int, bytes] = {}

    def reader(start: int) -> None:
        pieces = computing.read(made_of, model, "model.safetensors", start, len(expected))
        read[start] = b"".join(pieces)

    readers = [threading.Thread(target=reader, args=(start,)) for start in (0, 1, 7_000_000)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()

    assert read == {start: expected[start:] for start in (0, 1, 7_000_000)}


def test_a_reader_that_stops_frees_its_slot(tmp_path: Path) -> None:
    base, adapter = large_base(tmp_path / "large"), tiny_lora(tmp_path / "wide", hidden=512)
    computing = ComputeClient(tmp_path / "work", streams=1)
    try:
        made_of = model_inputs(base, adapter)
        model = computing.describe(made_of)
        stream = computing.read(made_of, model, "model.safetensors", 0, 20_000_000)
        next(stream)

        with pytest.raises(Unavailable, match="try again"):
            next(computing.read(made_of, model, "model.safetensors", 0, 1))
        stream.close()  # type: ignore[attr-defined]  # a generator

        assert whole(computing, made_of, model, "config.json")
    finally:
        computing.close()


def test_an_impossible_merge_has_a_reason_without_server_paths(
    computing: ComputeClient, base: Path, tmp_path: Path
) -> None:
    prompt = tiny_lora(tmp_path / "other", hidden=32, layers=5)
    with pytest.raises(CheckFailed, match="modules are not in org/tiny") as raised:
        computing.describe(model_inputs(base, prompt))
    assert str(tmp_path) not in raised.value.message

    bare = tiny_lora(tmp_path / "bare", hidden=32, config={"peft_type": "ADALORA_OF_TOMORROW"})
    with pytest.raises((CheckFailed, Unsupported)):
        computing.describe(model_inputs(base, bare))


def test_the_error_for_a_missing_base_names_the_option_for_it(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    made_of = model_inputs(base, adapter)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match="adaptry base add FOLDER --name org/tiny --store"):
        computing.describe(made_of)


def test_a_stored_base_is_read_from_the_files_of_the_store(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    expected = on_disk(base, adapter, tmp_path / "merged")
    made_of = model_inputs(base, adapter)
    blobs = {
        path.name: str(path.rename(tmp_path / Digest.of(path.read_bytes()).hex)) for path in base.iterdir()
    }
    made_of = made_of.model_copy(update={"base_files": blobs})

    model = computing.describe(made_of)

    assert {name: whole(computing, made_of, model, name) for name in expected} == expected
    assert [path.name for path in (tmp_path / "work").iterdir() if path.name.startswith("opening")] == []


def test_a_base_modified_during_streaming_is_another_model(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    (base / "tokenizer_config.json").write_text("{}")
    computing.close()
    other = ComputeClient(tmp_path / "work")
    try:
        with pytest.raises(Conflict, match="request it again"):
            whole(other, made_of, model, "config.json")
    finally:
        other.close()


def test_the_streamed_record_lists_the_inputs(
    computing: ComputeClient, base: Path, adapter: Path, tmp_path: Path
) -> None:
    made_of = model_inputs(base, adapter)
    model = computing.describe(made_of)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "adaptry_merge.json").write_bytes(
        whole(computing, made_of, model, "adaptry_merge.json")
    )

    record: MergeRecord = read_merge_record(tmp_path / "got")

    assert record.base == made_of.base
    assert record.inputs[0].revision == made_of.revision
    check_inputs(record, [WeightedAdapter(open_dir(adapter), 1.0, "tone")])


def test_finished_files_are_kept_within_the_limit(base: Path, adapter: Path, tmp_path: Path) -> None:
    made_of = model_inputs(base, adapter)
    work = tmp_path / "work"
    limit = max(path.stat().st_size for path in base.glob("*.safetensors")) + 1000
    computing = ComputeClient(work, cache=limit)
    try:
        model = computing.describe(made_of)
        weights = [file for file in model.files if file.name.endswith(".safetensors")]
        assert all(file.size <= limit for file in weights)
        assert sum(file.size for file in weights) > limit

        first = [whole(computing, made_of, model, file.name) for file in weights]
        again = [whole(computing, made_of, model, file.name) for file in weights]

        assert first == again
        kept = list((work / "files").iterdir())
        assert len(kept) == 1
        assert kept[0].read_bytes() in first
    finally:
        computing.close()


def test_incomplete_cached_files_are_swept(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "files").mkdir(parents=True)
    (tmp_path / "work" / "files" / "ab.cd.part").write_bytes(b"half")
    computing = ComputeClient(tmp_path / "work", cache=1 << 20)
    try:
        computing.describe(model_inputs(base, adapter))
    finally:
        computing.close()
    assert list((tmp_path / "work" / "files").iterdir()) == []


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    words = [sys.executable, "-m", "adaptry.compute.merging.streaming", "--control", str(theirs.fileno())]
    with subprocess.Popen([*words, "--folder", str(tmp_path)], pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.close()
        assert process.wait(timeout=60) == 0


def test_the_servers_side_imports_no_numeric_library() -> None:
    code = "import adaptry.compute.sidecar_client.client, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "numpy", "llvmlite"}.isdisjoint(found.split())
