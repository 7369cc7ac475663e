"""The process that inspects weights: its result does not depend on how bytes arrive, and a failure raises
`Unavailable`.
"""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptry.adapters.content import FolderContent, MemoryContent
from adaptry.adapters.header import SafetensorsHeader, TensorInfo, read_header
from adaptry.adapters.inspection import inspector as inspectors
from adaptry.adapters.inspection import process as processes
from adaptry.adapters.inspection.fair_slots import FairSlots
from adaptry.adapters.inspection.files import WeightsFile, inspect_content, inspect_tiny
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.protocol import MAX_TENSORS
from adaptry.adapters.inspection.result import TensorStatistics
from adaptry.core.errors import CorruptData, Unavailable
from adaptry.testing.samples import Tensors, write_safetensors


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    with closing(Inspector()) as made:
        yield made


def mixed() -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors of many dtypes and sizes, one longer than a block, one without elements."""
    torch.manual_seed(3)
    spoiled = torch.randn(300, 300)
    spoiled[3, 4], spoiled[5, 6], spoiled[7, 8] = float("nan"), float("inf"), float("-inf")
    return {
        "a.F32": ("F32", (300, 300), spoiled.numpy().tobytes()),
        "b.F16": ("F16", (7, 5), torch.randn(7, 5).half().numpy().tobytes()),
        "c.BF16": ("BF16", (3, 3), torch.randn(3, 3).bfloat16().view(torch.uint8).numpy().tobytes()),
        "d.F64": ("F64", (2,), struct.pack("<2d", 3.0, 4.0)),
        "e.none": ("F32", (0, 4), b""),
        "f.zero": ("F32", (4,), struct.pack("<4f", 0.0, -0.0, 0.0, 0.0)),
        "g.I8": ("I8", (3,), b"\x01\x02\x80"),
        "h.I64": ("I64", (2,), bytes(16)),
        "i.BOOL": ("BOOL", (2,), b"\0\1"),
    }


def by_torch(tensors: Tensors) -> dict[str, TensorStatistics]:
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
    found = {}
    for name, (dtype, _, data) in tensors.items():
        if dtype not in types:
            found[name] = TensorStatistics(0, 0, None, not any(data))
            continue
        values = (
            torch.frombuffer(bytearray(data), dtype=types[dtype]).double()
            if data
            else torch.zeros(0).double()
        )
        norm = float(values[values.isfinite()].norm())
        is_zero = bool(len(values)) and not bool(values.ne(0).any())
        counts = int(values.isnan().sum()), int(values.isinf().sum())
        approximate: Any = pytest.approx(norm, rel=1e-12)
        found[name] = TensorStatistics(*counts, approximate, is_zero)
    return found


def placed(tensors: Tensors) -> tuple[dict[str, TensorInfo], bytes]:
    infos, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        infos[name] = TensorInfo(dtype, shape, len(data), len(data) + len(values))
        data += values
    return infos, data


@pytest.mark.parametrize("with_numpy", [False, True])
def test_statistics_of_every_tensor_equal_torchs(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_numpy: bool
) -> None:
    monkeypatch.setattr(inspectors, "LARGE", 0 if with_numpy else 1 << 40)
    write_safetensors(tmp_path / "model.safetensors", mixed())
    content = FolderContent(tmp_path, ["model.safetensors"])
    assert inspect_content(inspector, content)["model.safetensors"].tensors == by_torch(mixed())


def test_the_answer_does_not_depend_on_how_the_bytes_arrive(inspector: Inspector, tmp_path: Path) -> None:
    infos, data = placed(mixed())
    source = random.Random(5)

    def pieces(start: int) -> Iterator[bytes]:
        while start < len(data):
            end = start + source.randrange(1, 50_000)
            yield data[start:end]
            start = end

    (tmp_path / "whole").write_bytes(data)
    with (tmp_path / "whole").open("rb") as file:
        from_file = inspector.inspect(infos, file.fileno())
    assert all(inspector.inspect(infos, pieces) == from_file for _ in range(3))


def test_tiny_files_are_measured_without_a_process_with_the_same_result(
    inspector: Inspector, tmp_path: Path
) -> None:
    tiny = {name: tensor for name, tensor in mixed().items() if len(tensor[2]) < 1000}
    nan = {"nan.F32": ("F32", (2,), struct.pack("<2f", float("nan"), 2.0))}
    write_safetensors(tmp_path / "tiny.safetensors", {**tiny, **nan})
    content = FolderContent(tmp_path, ["tiny.safetensors"])
    header = read_header(content.reader("tiny.safetensors"), content.sizes["tiny.safetensors"], "it")
    before = children()
    found = inspect_tiny(WeightsFile(content, "tiny.safetensors", header))
    assert children() == before
    assert found is not None
    with content.descriptor("tiny.safetensors") as descriptor:
        assert descriptor is not None
        assert found == inspector.inspect(header.tensors, descriptor)
    assert (found.nan, len(found.tensors)) == (1, len(tiny) + 1)


@pytest.mark.parametrize(
    ("count", "numbers", "is_tiny"), [(256, 16, True), (257, 1, False), (1, 4097, False)]
)
def test_a_file_with_many_or_large_tensors_is_not_tiny(
    tmp_path: Path, count: int, numbers: int, is_tiny: bool
) -> None:
    tensors = {f"t{number}": ("F32", (numbers,), bytes(4 * numbers)) for number in range(count)}
    write_safetensors(tmp_path / "it.safetensors", tensors)
    content = FolderContent(tmp_path, ["it.safetensors"])
    header = read_header(content.reader("it.safetensors"), content.sizes["it.safetensors"], "it")
    assert (inspect_tiny(WeightsFile(content, "it.safetensors", header)) is not None) == is_tiny


def test_a_tiny_file_that_became_shorter_is_corrupt() -> None:
    header = SafetensorsHeader({"a": TensorInfo("F32", (4,), 8, 24)}, {}, 8)
    with pytest.raises(CorruptData, match="shorter than its header says"):
        inspect_tiny(WeightsFile(MemoryContent({"it": bytes(20)}), "it", header))


def test_a_process_that_dies_during_a_file_is_unavailable_and_the_next_try_works(
    inspector: Inspector,
) -> None:
    infos, data = placed(mixed())
    inspector.inspect(infos, lambda start: [data])

    def killed(start: int) -> Iterator[bytes]:
        yield data[:1000]
        for child in children():
            os.kill(child, signal.SIGKILL)
        yield data[1000:]

    with pytest.raises(Unavailable, match="could not be inspected"):
        inspector.inspect(infos, killed)
    assert inspector.inspect(infos, lambda start: [data]).nan == 1


def test_a_process_that_died_between_two_files_is_replaced(inspector: Inspector) -> None:
    infos, data = placed(mixed())
    inspector.inspect(infos, lambda start: [data])
    for child in children():
        ended = os.pidfd_open(child)
        os.kill(child, signal.SIGKILL)
        select.select([ended], [], [], 30)
        os.close(ended)
    assert inspector.inspect(infos, lambda start: [data]).nan == 1


def test_a_process_that_was_started_before_measures_the_first_files() -> None:
    process = processes.InspectionProcess(processes.LARGE)
    infos, data = placed(mixed())
    with closing(Inspector(started=process)) as inspector:
        for _ in range(2):
            assert inspector.inspect(infos, lambda start: [data]).nan == 1
        assert process.is_alive
        assert children() == {process.process.pid}
    assert not process.is_alive


@pytest.mark.parametrize("limit", ["_MEMORY", "_SECONDS"])
def test_a_process_over_its_bounds_is_unavailable(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    module, value = {"_MEMORY": (processes, 8 << 20), "_SECONDS": (inspectors, 0.001)}[limit]
    monkeypatch.setattr(module, limit, value)
    monkeypatch.setattr(inspectors, "_PLAIN_RATE", 1 << 40)
    monkeypatch.setattr(inspectors, "LARGE", 1 << 40)
    names = {f"t{number}": ("F64", (1 << 16,), struct.pack("<d", 0.5) * (1 << 16)) for number in range(40)}
    infos, data = placed(names)
    with pytest.raises(Unavailable, match=r"processor time|memory|ended"):
        inspector.inspect(infos, lambda start: [data])


def test_the_time_limit_applies_to_each_file_and_not_to_the_process(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspectors, "_SECONDS", 0.3)
    monkeypatch.setattr(inspectors, "LARGE", 1 << 40)
    block = struct.pack("<f", 0.5) * (1 << 16)
    infos, data = placed({f"t{number}": ("F32", (1 << 16,), block) for number in range(10)})
    limits = {
        resource.prlimit(child, resource.RLIMIT_CPU)
        for _ in range(8)
        if inspector.inspect(infos, lambda start: [data]).norm
        for child in children()
    }
    assert len(limits) == 1  # one process answered all requests
    assert limits.pop()[0] > 1_000_000


def test_fewer_bytes_than_promised_are_corrupt(inspector: Inspector, tmp_path: Path) -> None:
    infos, data = placed(mixed())
    with pytest.raises(CorruptData):
        inspector.inspect(infos, lambda start: [data[:-1]])
    (tmp_path / "short").write_bytes(data[:-1])
    with (tmp_path / "short").open("rb") as file, pytest.raises(CorruptData):
        inspector.inspect(infos, file.fileno())


def test_an_error_of_the_source_is_raised_and_leaves_no_process(inspector: Inspector) -> None:
    infos, data = placed(mixed())

    def broken(start: int) -> Iterator[bytes]:
        yield data[:10]
        raise Unavailable("the bucket is away")

    with pytest.raises(Unavailable, match="the bucket is away"):
        inspector.inspect(infos, broken)
    assert inspector.inspect(infos, lambda start: [data]).infinite == 2


def test_as_many_tensors_as_a_header_may_have_are_inspected(inspector: Inspector) -> None:
    infos, data = placed({f"t{number}": ("F16", (1,), b"\0\x7e") for number in range(65_536)})
    assert inspector.inspect(infos, lambda start: [data]).nan == 65_536


def test_more_tensors_than_one_request_lists_are_inspected_in_an_open_file(
    inspector: Inspector, tmp_path: Path
) -> None:
    many = 2 * MAX_TENSORS + 7
    infos, data = placed({f"t{number}": ("F32", (1,), struct.pack("<f", number)) for number in range(many)})
    (tmp_path / "whole").write_bytes(data)
    with (tmp_path / "whole").open("rb") as file:
        found = inspector.inspect(infos, file.fileno())
    assert [statistics.norm for statistics in found.tensors.values()] == list(range(many))
    assert list(found.tensors) == list(infos)


def test_many_concurrent_requests_share_a_bounded_number_of_processes() -> None:
    infos, data = placed(mixed())
    others, seen = children(), set[int]()
    with closing(Inspector(processes=2)) as inspector:

        def look(number: int) -> None:
            def pieces(start: int) -> Iterator[bytes]:
                seen.update(children() - others)
                yield data

            assert inspector.inspect(infos, pieces, f"tenant{number % 3}").nan == 1

        threads = [threading.Thread(target=look, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= len(seen) <= 2


def test_closing_ends_the_processes(inspector: Inspector) -> None:
    infos, data = placed(mixed())
    before = children()
    inspector.inspect(infos, lambda start: [data])
    assert len(children() - before) == 1
    inspector.close()
    assert children() == before


def test_a_killed_owner_leaves_no_process_behind(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_inspector import children, mixed, placed
from adaptry.adapters.inspection.inspector import Inspector
infos, data = placed(mixed())
def pieces(start):
    print(*children(), flush=True)
    yield data[:100]
    sys.stdin.read()
Inspector().inspect(infos, pieces)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout
        child = int(owner.stdout.readline())
        handle = os.pidfd_open(child)
        owner.kill()
    try:
        assert select.select([handle], [], [], 30)[0], "the child outlived its owner"
    finally:
        os.close(handle)


def test_one_tenant_does_not_keep_the_others_waiting() -> None:
    slots = FairSlots(3)
    order: list[str] = []
    go_on = threading.Event()
    started = threading.Barrier(3)

    def work(tenant: str, first: bool) -> None:
        with slots.hold(tenant, 30):
            order.append(tenant)
            if first:
                started.wait(30)
                go_on.wait(30)

    busy = [threading.Thread(target=work, args=("busy", True)) for _ in range(2)]
    for thread in busy:
        thread.start()
    started.wait(30)
    more = [threading.Thread(target=work, args=("busy", False)) for _ in range(5)]
    for thread in more:
        thread.start()
    honest = threading.Thread(target=work, args=("honest", False))
    honest.start()
    honest.join(30)
    assert order == ["busy", "busy", "honest"]
    go_on.set()
    for thread in [*busy, *more]:
        thread.join(30)
    assert len(order) == 8


def test_waiting_for_a_slot_ends() -> None:
    slots = FairSlots(1)
    with slots.hold("one", 1), pytest.raises(TimeoutError), slots.hold("other", 0.01):
        pass
    with slots.hold("other", 1):
        pass


def children() -> set[int]:
    """The inspection processes of this process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
        if parent == os.getpid() and b"adaptry.adapters.inspection.subprocess_main" in command:
            found.add(int(status.parent.name))
    return found


def test_preparing_a_process_does_not_wait_for_a_slot_that_an_inspection_has() -> None:
    """An inspection with a slot waits for the process that is being prepared, whichever began first."""

    def source(start: int) -> Iterator[bytes]:
        inspector.prepare(inspectors.LARGE)
        for thread in threading.enumerate():
            if thread.name == "inspector":
                thread.join(60)
                assert not thread.is_alive()
        yield struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)

    with closing(Inspector(1)) as inspector:
        found = inspector.inspect({"a": TensorInfo("F32", (4,), 0, 16)}, source)
    assert found.nan == 0
