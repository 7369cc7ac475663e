"""The wheel, built from this tree and run from where pip installs it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("adaptry-*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def run(installed: Path, *command: str) -> str:
    """The output of a program that finds the installed wheel before this source tree."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_wheel_contains_the_three_packages_marked_as_typed(names: frozenset[str]) -> None:
    for package in ("adaptry", "adaptry_cli", "adaptry_api"):
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names


def test_the_wheel_contains_only_the_three_packages(names: frozenset[str]) -> None:
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"adaptry", "adaptry_cli", "adaptry_api"}


def test_files_have_the_same_paths_in_the_wheel_and_on_disk(names: frozenset[str]) -> None:
    on_disk = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("registry", "cli", "api")
        for path in (ROOT / root).rglob("*.py")
    }
    assert on_disk == {name for name in names if name.endswith(".py")}


def test_the_migrations_travel_in_the_wheel(names: frozenset[str]) -> None:
    assert [name for name in names if name.startswith("adaptry/storage/catalog/") and "/versions/" in name]
    assert "adaptry/storage/catalog/sqlite_schema.sql" in names


def test_the_licence_travels_in_the_wheel(names: frozenset[str]) -> None:
    assert [name for name in names if name.endswith("/licenses/LICENSE")]


def test_the_installed_command_starts(installed: Path) -> None:
    assert "push" in run(installed, sys.executable, str(installed / "bin" / "adaptry"), "--help")


def test_an_installed_registry_creates_its_tables(installed: Path, home: Path) -> None:
    code = "import adaptry; print(adaptry.__file__); print(adaptry.connect().adapters.list().items)"
    place, listed = run(installed, sys.executable, "-c", code).splitlines()
    assert place.startswith(str(installed))
    assert listed == "()"
