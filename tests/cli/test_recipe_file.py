"""Recipe files in combination with arguments of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("out", "better", "base")


@pytest.fixture
def recipe() -> str:
    Path("recipe.yaml").write_text("inputs: [./out, ./better=0.5]\nseed: 7\noutput: ./both\n")
    return "recipe.yaml"


def test_a_seed_of_0_is_kept(run, recipe: str) -> None:
    refused = run("combine", "--recipe", recipe, "--seed", "0", code=2)

    assert "leave out seed" in refused.stderr


def test_a_recipes_output_folder_is_replaced_on_request(run, recipe: str) -> None:
    run("combine", "--recipe", recipe)
    run("combine", "--recipe", recipe, code=4)

    assert run("combine", "--recipe", recipe, "--force").stdout == "both\n"
    assert "--alias" in run("combine", "--recipe", recipe, "--alias", "prod", code=2).stderr


def test_a_result_with_pefts_arithmetic_is_not_called_exact(run) -> None:
    told = run("combine", "./out", "./better", "--method", "peft:svd", "-o", "./both").stderr

    assert "bit-equal to PEFT's result" in told and "exact" not in told


def test_a_recipe_with_a_registry_output_creates_the_registry(run) -> None:
    Path("recipe.yaml").write_text("inputs: [./out, ./better]\noutput: acme/both\n")

    assert run("combine", "--recipe", "recipe.yaml").stdout.startswith("acme/both@1  sha256:")


def test_a_dry_run_of_resize_takes_no_energy_and_ignores_none(run) -> None:
    assert "leave out --energy" in run("resize", "./out", "--dry-run", "--energy", "0.9", code=2).stderr
