"""The real mistral.rs on the CPU: what it answers with an adapter is what the verdict says, and what PEFT answers where it says so."""

from __future__ import annotations

import pytest

from adaptry.checks.runtimes import parse_runtime

from ..formats.elsewhere import Elsewhere
from .agreeing import Agreement, Both, answers, compared

ENVIRONMENT = Elsewhere("mistralrs", "../runtimes/mistralrs_engine.py")
pytestmark = ENVIRONMENT.marks


class TestMistralrs(Agreement):
    @pytest.fixture(scope="class")
    def cases(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
        folder = tmp_path_factory.mktemp("mistralrs")
        return compared(parse_runtime("mistral.rs"), answers(ENVIRONMENT), folder)
