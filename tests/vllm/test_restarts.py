"""An unreachable registry and a restarted vLLM: known versions are served, and nothing is
downloaded twice.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from adaptry.core.refs import Ref
from adaptry.operations.recall_status import recall_status
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server as serving_registry

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs

pytestmark = vllm_server.PYTHON.marks


def test_known_versions_are_served_while_the_registry_is_unreachable_and_after_a_restart(
    place: Place, env: dict[str, str], tmp_path: Path
) -> None:
    version = place.publish("acme/stays", seed=12)
    trained = place.trained(version)
    with ExitStack() as registry:
        away = registry.enter_context(serving_registry(ServerSettings(data=place.folder / "data")))
        theirs = {**env, "ADAPTRY_URL": away.url}
        with vllm_server.serving(
            vllm_server.PYTHON.python, place.base, theirs, tmp_path / "first.log"
        ) as vllm:
            assert logprobs(vllm.complete("acme/stays", models.PROMPT)) == close_to(trained)
            folder = Path(next(iter(vllm.names().values())))
            made_at = folder.stat().st_ctime_ns

            place.publish("acme/cut", seed=13)
            assert vllm.complete("acme/cut@1", models.PROMPT).status == 200
            cut = Ref.parse("acme/cut@1")

            registry.close()
            change_state(place.registry, cut, StateChange(state="revoked", reason="it leaks"))

            assert vllm.complete("acme/cut@1", models.PROMPT).status == 200
            assert not recall_status(place.registry, cut).is_complete
            assert logprobs(vllm.complete("acme/stays", models.PROMPT)) == close_to(trained)
            refused = vllm.complete("acme/other", models.PROMPT)
            assert (refused.status, "cannot reach" in refused.reason) == (503, True)
    with vllm_server.serving(vllm_server.PYTHON.python, place.base, theirs, tmp_path / "second.log") as vllm:
        assert vllm.names() == {}
        assert logprobs(vllm.complete("acme/stays", models.PROMPT)) == close_to(trained)
        assert folder.stat().st_ctime_ns == made_at
        metrics = vllm.ask("GET", "/metrics").body
        assert 'adaptry_registry_up{model_name="tiny"} 0.0' in metrics
