"""LMDeploy's adapter reader with its Llama: its result for an adapter matches the verdict."""

from __future__ import annotations

import pytest

from adaptry.checks.runtimes import parse_runtime

from ..formats.other_environment import OtherEnvironment
from .agreement import Agreement, Both, compared, readings
from .cases import made_base

ENVIRONMENT = OtherEnvironment("lmdeploy", "../runtimes/lmdeploy_reader.py")
pytestmark = ENVIRONMENT.marks


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    folder = tmp_path_factory.mktemp("lmdeploy")
    return compared(parse_runtime("lmdeploy"), readings(ENVIRONMENT), folder, made_base(folder / "base"))


class TestLmdeploy(Agreement):
    """The contract, without further tests."""
