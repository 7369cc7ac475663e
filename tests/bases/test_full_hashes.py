"""Complete hashes of a base: roots that do not depend on how weights are divided into files, and the digests
of the files.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from adaptry.adapters.base_record import Roots
from adaptry.adapters.tensor_names import normalised
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.full_hashes import full_hashes
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidWeights
from adaptry.core.sha256_streams import can_interleave
from adaptry.testing.samples import random_tensor, tiny_base, write_safetensors


def roots_of(folder: Path) -> Roots:
    checkpoint = open_checkpoint(folder)
    return full_hashes(checkpoint, fingerprint(checkpoint), files=False).roots


def test_the_roots_do_not_depend_on_sharding(tmp_path: Path) -> None:
    assert roots_of(tiny_base(tmp_path / "a")) == roots_of(tiny_base(tmp_path / "b", shards=3))


def test_file_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base", shards=2)
    checkpoint = open_checkpoint(folder)
    found = full_hashes(checkpoint, fingerprint(checkpoint)).files
    assert found == {
        path.name: Digest(hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.glob("*.safetensors"))
    }


def test_one_changed_byte_changes_the_root(tmp_path: Path) -> None:
    before = roots_of(tiny_base(tmp_path / "base"))
    path = tmp_path / "base" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert roots_of(tmp_path / "base").exact != before.exact


def test_the_exact_and_canonical_roots_of_a_bfloat16_base_are_equal(tmp_path: Path) -> None:
    roots = roots_of(tiny_base(tmp_path / "base", dtype="BF16"))
    assert roots.exact == roots.canon


def test_a_float32_base_and_its_bfloat16_cast_share_the_canonical_root(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    wide = tiny_base(tmp_path / "wide")
    narrow = tiny_base(tmp_path / "narrow", dtype="BF16")
    info = open_checkpoint(wide)
    data = (wide / "model.safetensors").read_bytes()
    tensors = {}
    for name, tensor in info.tensors.items():
        bits = np.frombuffer(data[tensor.start : tensor.end], "<u4").astype("u8")
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        tensors[name] = ("BF16", tensor.shape, rounded.tobytes())
    write_safetensors(narrow / "model.safetensors", tensors)
    assert roots_of(narrow).canon == roots_of(wide).canon
    assert roots_of(narrow).exact != roots_of(wide).exact


def test_progress_ends_at_the_bytes_that_were_announced(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    full_hashes(
        checkpoint, fingerprint(checkpoint), progress=lambda _, done, total: told.append((done, total))
    )
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert told[0] == (0, size + checkpoint.size)
    assert told[-1] == (size + checkpoint.size, size + checkpoint.size)


def test_weights_larger_than_a_piece_are_read_whole(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    tensor = random_tensor((3,), 1)
    data = bytes(range(256)) * (9 << 12)
    write_safetensors(
        folder / "model.safetensors", {"a.weight": tensor, "b.weight": ("F32", (len(data) // 4,), data)}
    )
    checkpoint = open_checkpoint(folder)
    found = full_hashes(checkpoint, fingerprint(checkpoint)).files["model.safetensors"]
    assert found.hex == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("is_interleaved", [False, True])
def test_large_and_small_tensors_have_the_digests_of_hashlib(
    tmp_path: Path, shards: int, is_interleaved: bool
) -> None:
    """Tensors begin and end within pieces; some have several, some are empty. There is one file, or
    more files than cores.
    """
    if is_interleaved:
        can_interleave()  # enough to compile the loop
    chance = random.Random(shards)
    sizes = [1_000_003, 3, 0, 300_000, 700_001, 64, 262_144, 17, 0, 500_000, 900_000, 2]
    tensors = {
        f"layer.{number}.weight": ("BF16" if number % 3 else "I8", size, chance.randbytes(2 * size))
        for number, size in enumerate(sizes)
    }
    folder = tiny_base(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    for shard in range(shards):
        write_safetensors(
            folder / f"model-{shard + 1:05d}-of-{shards:05d}.safetensors",
            {
                name: (dtype, (size,) if dtype == "BF16" else (2 * size,), data)
                for place, (name, (dtype, size, data)) in enumerate(tensors.items())
                if place % shards == shard
            },
        )
    checkpoint = open_checkpoint(folder)
    found = full_hashes(checkpoint, fingerprint(checkpoint))
    assert found.files == {
        path.name: Digest.of(path.read_bytes()) for path in sorted(folder.glob("*.safetensors"))
    }
    plain = normalised(tensors)
    lines = [
        f"{plain[name]}\t{dtype}\t[{size if dtype == 'BF16' else 2 * size}]\t{Digest.of(data).hex}\n"
        for name, (dtype, size, data) in sorted(tensors.items(), key=lambda item: plain[item[0]])
    ]
    assert found.roots.exact == Digest.of("".join(lines).encode())
    assert found.roots.canon == found.roots.exact
    assert full_hashes(checkpoint, fingerprint(checkpoint), files=False).roots == found.roots


def test_a_file_truncated_during_the_read_is_an_error(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    record = fingerprint(checkpoint)
    path = checkpoint.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InvalidWeights, match="shorter"):
        full_hashes(checkpoint, record)
