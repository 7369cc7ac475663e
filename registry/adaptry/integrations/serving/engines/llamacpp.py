"""llama.cpp: the server loads adapters as GGUF files at its start, and identifies them by number.

A new or changed name therefore restarts the server with all files (listed in the file `ADAPTRY_ADAPTERS`).
Afterwards all scales are 0, even if others restarted the server (`deselect_adapters`): a request selects its
adapters (`"lora": [{"id": 0, "scale": 1.0}]`) by the numbers that `GET /lora-adapters` shows for the paths
that the state file has under their names. The proxy does that for clients, which name them in `model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptry.adapters.gguf_text import PREPARED_FOR, read_gguf_text
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Invalid, NotFound, Unavailable
from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, require_answer, require_success
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse

_FILE = "adapter.gguf"
_MAX_STEP_SECONDS = 600.0
"""Seconds that a request waits for the list of adapters: the server sends it between two of its steps, and a
step with a long prompt takes long on a CPU."""
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=8, nodes=100_000)


class LlamaCpp(Engine):
    """llama.cpp's HTTP server."""

    name = "llama.cpp"
    can_replace = True
    can_stack = True
    loads_by_restart = True
    is_unload_final = False
    gap = "is refused while the server restarts, which also ends every request under way"

    def __init__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> None:
        super().__init__(client)
        self._commands = commands
        # Replaced as a whole: the proxy reads it.
        self._files = {name: str(commands.prepared_path(Path(path), _FILE)) for name, path in names.items()}
        self._base_names: frozenset[str] = frozenset()

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        there = {str(one.get("path")) for one in self._server_adapters()}
        return tuple(EngineAdapter(name, file) for name, file in sorted(self._files.items()) if file in there)

    def is_prepared(self, path: Path) -> bool:
        file = self._commands.prepare_file(path, _FILE)
        return read_gguf_text(file, PREPARED_FOR) == self.name

    def load(self, name: str, path: Path) -> None:
        file = str(self._commands.prepare_file(path, _FILE))
        before = self._files
        self._files = {**before, name: file}
        if any(str(one.get("path")) == file for one in self._server_adapters()):
            return
        try:
            self.restart()
            if EngineAdapter(name, file) not in self.list_adapters():
                raise CheckFailed(f"the engine was restarted and did not load {file}")
        except (CheckFailed, Unavailable) as error:
            self._files = before
            if self.client.is_healthy():
                raise
            self.restart()  # a server that cannot load one of its files does not start
            raise CheckFailed(
                f"the engine did not start with {file}, and was restarted without it: {error.message}"
            ) from error

    def unload(self, name: str) -> None:
        """Does nothing now: the adapter stays in the server's memory, at scale 0, until the restart."""
        self._files = {other: file for other, file in self._files.items() if other != name}

    def readable_digests(self, loaded: Sequence[EngineAdapter]) -> frozenset[Digest]:
        """The versions of all files that the server was started with, with or without a name: it reads these
        files again if it is restarted with the same list."""
        files = (EngineAdapter("", str(one.get("path"))) for one in self._server_adapters())
        return frozenset(one.digest for one in (*files, *loaded) if one.digest is not None)

    def restart(self) -> None:
        self._commands.write_adapter_list(
            {name: file for name, file in self._files.items() if Path(file).is_file()}
        )
        self._commands.run_restart(self.client.is_healthy)
        self._set_scales({str(one.get("path")): 0.0 for one in self._server_adapters()})

    def deselect_adapters(self) -> None:
        """Sets all scales to 0: a server that others restarted applies every adapter to requests that select
        none.
        """
        scales = {str(one.get("path")): one.get("scale") for one in self._server_adapters()}
        quiet = {path: 0.0 if EngineAdapter("", path).digest else scale for path, scale in scales.items()}
        if quiet != scales:
            self._set_scales(quiet)

    def send_test_request(self, name: str) -> EngineResponse:
        file = self._files.get(name)
        numbers = [one.get("id") for one in self._server_adapters() if str(one.get("path")) == file]
        if not numbers:
            return EngineResponse(404, f"no adapter {name}")
        body = {"prompt": "a", "n_predict": 1, "lora": [{"id": numbers[0], "scale": 1.0}]}
        return self.client.post("/completion", body)

    def select_adapter(self, body: Mapping[str, object], name: str) -> dict[str, object]:
        return self.select_stack(body, [(name, 1.0)])

    def select_stack(
        self, body: Mapping[str, object], parts: Sequence[tuple[str, float]]
    ) -> dict[str, object]:
        files, numbers = self._files, self._numbers()
        scales = dict.fromkeys(numbers.values(), 0.0)
        for name, weight in parts:
            if name in files:
                number = numbers.get(files[name])
                if number is None:
                    raise Unavailable(
                        f"the engine was restarted without {name}, which is being loaded again; try again"
                    )
                scales[number] += weight
            elif len(parts) > 1 or not self._is_base(name):
                raise NotFound(f"{name} is neither a loaded adapter nor the base model")
        return {**body, "lora": [{"id": number, "scale": scale} for number, scale in scales.items()]}

    def _numbers(self) -> dict[str, object]:
        """The number of each file in the server. The numbers are requested each time: a server that another
        process has restarted ignores numbers that it does not have, and applies all adapters if a request
        names none."""
        adapters = self._server_adapters(_MAX_STEP_SECONDS)
        return {str(one.get("path")): one.get("id") for one in adapters}

    def _is_base(self, name: str) -> bool:
        if not self._base_names:
            listing = self.client.get("/v1/models")
            self._base_names = frozenset(str(one.get("id")) for one in listing.json_list("data"))
        return name in self._base_names

    def _set_scales(self, scales: Mapping[str, object]) -> None:
        """Sets the scales by file; the other adapters get 0."""
        body = [
            {"id": number, "scale": scales[path]}
            for path, number in self._numbers().items()
            if path in scales
        ]
        require_success(self.client.post("/lora-adapters", body), "set its adapters' scales")

    def _server_adapters(self, timeout: float = 10.0) -> list[Mapping[str, Any]]:
        """(`Any`: JSON.)"""
        response = self.client.get("/lora-adapters", timeout)
        require_answer(response, "list its adapters")
        try:
            found = strictjson.loads(response.text.encode(), _LIMITS, "the engine's answer")
        except Invalid as error:
            raise CheckFailed(f"the engine's list of adapters cannot be read: {error.message}") from error
        rows = found if isinstance(found, list) else []
        return [one for one in rows if isinstance(one, dict)]
