"""SGLang's LoRA manager, memory pool and arithmetic with its Llama: the result for an adapter matches the
verdict.
"""

from __future__ import annotations

import pytest

from adaptry.checks.runtimes import parse_runtime

from ..formats.other_environment import OtherEnvironment
from .agreement import Agreement, Both, compared, readings
from .cases import made_base

ENVIRONMENT = OtherEnvironment("sglang", "../runtimes/sglang_reader.py")
pytestmark = ENVIRONMENT.marks


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    folder = tmp_path_factory.mktemp("sglang")
    return compared(
        parse_runtime("sglang,max_lora_rank=16"), readings(ENVIRONMENT), folder, made_base(folder / "base")
    )


class TestSglang(Agreement):
    """The contract, without further tests."""
