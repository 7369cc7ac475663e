"""`inspect_folder` and `import_folder`, on an embedded registry and on a server (there, they are slow)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import adaptry
from adaptry.testing.samples import tiny_lora


@pytest.fixture
def runs(tmp_path: Path, number: int) -> Path:
    for step in range(1, 4):
        folder = tmp_path / "runs" / "tone" / f"checkpoint-{step}"
        tiny_lora(folder, seed=100 * number + step, base_name=f"org/unknown-{number}")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "adapter_config.json").write_text("{}")
    return tmp_path / "runs"


def test_a_folder_is_inspected_and_imported(where: str, name: str, number: int, runs: Path) -> None:
    namespace = name.partition("/")[0]
    broken, *checkpoints = adaptry.inspect_folder(runs).adapters
    assert broken.error is not None and broken.error.code == "not_found"
    assert [(one.run, one.step, one.ranks) for one in checkpoints] == [("tone", n, (4,)) for n in (1, 2, 3)]

    with adaptry.connect(where) as registry:
        planned = adaptry.import_folder(registry, runs, to=namespace, dry_run=True)
        assert [one.is_to_import for one in planned.versions] == [False, True, True, True]
        done = adaptry.import_folder(registry, runs, to=namespace)
        assert [one.version and one.version.number for one in done.versions] == [None, 1, 2, 3]
        assert [one.planned.adapter.path.name for one in done.failures] == ["broken"]
        assert [(base.name, base.adapters, base.is_registered) for base in done.bases] == [
            (f"org/unknown-{number}", 3, False)
        ]
        assert not any(one.is_new for one in adaptry.import_folder(registry, runs, to=namespace).versions)
    assert "3 versions imported" in repr(done) and "tone/checkpoint-3" in done._repr_html_()


@pytest.mark.slow
def test_two_imports_at_once_make_each_version_once(where: str, name: str, runs: Path) -> None:
    namespace = name.partition("/")[0]

    def import_all(_: int) -> list[bool]:
        return [one.is_new for one in adaptry.import_folder(where, runs, to=namespace).versions]

    with adaptry.connect(where), ThreadPoolExecutor(2) as threads:
        made = [sum(new) for new in zip(*threads.map(import_all, range(2)), strict=True)]

    assert made == [0, 1, 1, 1]
    with adaptry.connect(where) as registry:
        versions = registry.versions.list(adaptry.Ref.parse(name).name).items
        assert [version.number for version in versions] == [3, 2, 1]
