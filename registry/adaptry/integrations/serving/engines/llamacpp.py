"""llama.cpp: adapters are GGUF files that its server loads when it starts, and knows by number.

So a name that is new, or stands for another version, starts the server anew with all files that are to be there (their list is in
`ADAPTRY_ADAPTERS`). Afterwards all scales are 0: a request says which adapter it means (`"lora": [{"id": 0, "scale": 1.0}]`), by the
number that `GET /lora-adapters` shows for the path under its name in the state file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Refused
from adaptry.integrations.serving.engines.engine import Engine, Loaded, require_done, require_told
from adaptry.integrations.serving.engines.hooks import NO_NAMES, NOTHING, Outside
from adaptry.integrations.serving.engines.http import Reply, Speaking

_FILE = "adapter.gguf"
_LIMITS = strictjson.Limits(size=1 << 20, depth=8, nodes=100_000)


class LlamaCpp(Engine):
    """llama.cpp's HTTP server."""

    name = "llama.cpp"
    swaps = True
    forgets = False

    def __init__(
        self, speaking: Speaking, outside: Outside = NOTHING, names: Mapping[str, str] = NO_NAMES
    ) -> None:
        super().__init__(speaking)
        self._outside = outside
        self._files = {name: str(Path(path).parent / _FILE) for name, path in names.items()}

    def loaded(self) -> tuple[Loaded, ...]:
        there = {str(one.get("path")) for one in self._listed()}
        return tuple(Loaded(name, file) for name, file in sorted(self._files.items()) if file in there)

    def load(self, name: str, path: Path) -> None:
        file = str(self._outside.prepared(path, _FILE))
        before = dict(self._files)
        self._files[name] = file
        if any(str(one.get("path")) == file for one in self._listed()):
            return
        try:
            self.renew()
            if Loaded(name, file) not in self.loaded():
                raise Refused(f"the engine was started anew and did not load {file}")
        except Refused:
            self._files = before
            raise

    def unload(self, name: str) -> None:
        """The file stays in the server's memory until it is started anew, at scale 0."""
        self._files.pop(name, None)

    def renew(self) -> None:
        self._outside.write({name: file for name, file in self._files.items() if Path(file).is_file()})
        self._outside.start_anew(self.speaking.is_up)
        self._silence()

    def ask(self, name: str) -> Reply:
        file = self._files.get(name)
        numbers = [one.get("id") for one in self._listed() if str(one.get("path")) == file]
        if not numbers:
            return Reply(404, f"no adapter {name}")
        body = {"prompt": "a", "n_predict": 1, "lora": [{"id": numbers[0], "scale": 1.0}]}
        return self.speaking.post("/completion", body)

    def _silence(self) -> None:
        scales = [{"id": one.get("id"), "scale": 0.0} for one in self._listed()]
        require_done(self.speaking.post("/lora-adapters", scales), "set its adapters' scales")

    def _listed(self) -> list[Mapping[str, Any]]:
        """(`Any`: JSON.)"""
        reply = self.speaking.get("/lora-adapters")
        require_told(reply, "list its adapters")
        try:
            found = strictjson.loads(reply.text.encode(), _LIMITS, "the engine's answer")
        except Invalid as error:
            raise Refused(f"the engine's list of adapters cannot be read: {error.message}") from error
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
