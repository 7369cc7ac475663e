"""At most one `adaptry follow` runs for each engine, whatever address it uses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptry.core.errors import Conflict
from adaptry.integrations.serving.cache.engine_holds import EngineAddress
from adaptry.integrations.serving.follow.engine_claim import claim_engine


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("http://localhost", "http://127.0.0.1:80/"),
        ("https://gateway.example", "https://gateway.example:443"),
        ("http://gateway.example:8080/llama", "http://gateway.example:8080/llama/"),
    ],
)
def test_one_engine_under_two_addresses_has_one_follower(tmp_path: Path, first: str, second: str) -> None:
    held = claim_engine(tmp_path, EngineAddress("vllm", first))
    with pytest.raises(Conflict, match="already manages the adapters of the engine"):
        claim_engine(tmp_path, EngineAddress("vllm", second))
    held.close()
    claim_engine(tmp_path, EngineAddress("vllm", second)).close()


def test_engines_behind_one_gateway_have_a_follower_each(tmp_path: Path) -> None:
    addresses = ("http://gateway.example:8080/a", "http://gateway.example:8080/b", "http://gateway.example")
    held = [claim_engine(tmp_path, EngineAddress("vllm", url)) for url in addresses]
    for claim in held:
        claim.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names for this")
def test_followers_with_different_caches_notice_each_other_on_one_machine(tmp_path: Path) -> None:
    """Otherwise each would restart llama.cpp with only its own adapters, in every pass."""
    folders = (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    engine = EngineAddress("llamacpp", "http://127.0.0.1:8080")
    held = claim_engine(folders[0], engine)
    with pytest.raises(Conflict, match="already manages the adapters of the engine"):
        claim_engine(folders[1], engine)
    held.close()
    claim_engine(folders[1], engine).close()
