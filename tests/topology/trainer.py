"""A trainer that pushes one adapter after another, and the invariants that hold whichever process
is killed.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.interface import Registry
from adaptry.testing.file_by_file import push_file_by_file
from adaptry.testing.samples import tiny_lora

from .repeated_operations import RepeatedOperation, patiently


class Trainer(RepeatedOperation):
    """`known`: the acknowledged versions' numbers and weights. `is_large`: whether it pushes file by file, as
    for large adapters.
    """

    def __init__(
        self, registry: HttpRegistry, name: AdapterName, folder: Path, *, is_large: bool = False
    ) -> None:
        super().__init__()
        self._push = push_file_by_file if is_large else push
        self.known: list[tuple[int, bytes]] = []
        self._registry = registry
        self._name = name
        self._folder = folder

    def once(self, turn: int) -> None:
        folder = tiny_lora(self._folder / f"lora-{turn}", seed=turn)
        pushed = patiently(lambda: self._push(self._registry, open_dir(folder), self._name))
        self.known.append((pushed.version.number, weights(folder)))

    def check(self) -> None:
        assert_nothing_lost(self._registry, self._name, self.known, self._folder)


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def assert_nothing_lost(
    registry: Registry, name: AdapterName, known: list[tuple[int, bytes]], to: Path
) -> None:
    """Asserts that each acknowledged push is exactly one version, and that each visible version can be pulled
    completely.
    """
    numbers = [number for number, _ in known]
    assert numbers == list(range(1, len(known) + 1))
    shown, page = [], registry.versions.list(name)
    while True:
        shown += [version.number for version in page.items]
        if page.next is None:
            break
        page = registry.versions.list(name, cursor=page.next)
    assert sorted(shown) == numbers
    for number, content in known[-8:]:
        folder = to / f"pulled-{number}"
        pull(registry, Ref.parse(f"{name}@{number}"), folder)
        assert weights(folder) == content
