"""The interface of an engine to a worker: list, load and unload adapters.

Names are those that clients request; paths are in a cache, so they contain the digest. Errors quote the
engine's own message: `CheckFailed` if it refuses an adapter, `Unavailable` if it does not answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.engine_holds import EngineAddress
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse

_DIGEST = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/|$)")


@dataclass(frozen=True, slots=True)
class EngineAdapter:
    """A loaded adapter: the name that clients request, and the path it was loaded from."""

    name: str
    path: str

    @property
    def digest(self) -> Digest | None:
        """The version's digest if it was loaded from a cache; None if it was loaded from elsewhere."""
        found = _DIGEST.search(self.path)
        return Digest(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests that an engine has answered since its start, and how many of them failed."""

    requests: float
    errors: float


@dataclass(frozen=True, slots=True)
class AdapterUsage:
    """When an adapter last answered (Unix time), its answers by status, and its tokens by kind
    (`prompt_tokens`, `completion_tokens`)."""

    last_used: float
    requests: Mapping[int, int]
    tokens: Mapping[str, int]


class Engine(ABC):
    """An engine at `client.url`."""

    name: str
    """The engine's name in `checks.runtimes`."""
    can_replace: bool = False
    """Whether `load` replaces an adapter under its name, while running requests finish with the old one."""
    can_alias: bool = False
    """Whether `alias` gives loaded adapters further names."""
    can_be_proxied: bool = True
    """Whether a proxy can choose the adapter that answers a request, by changing the request's body."""
    can_stack: bool = False
    """Whether a request can be answered by several adapters, each with a weight (`select_stack`)."""
    loads_by_restart: bool = False
    """Whether `load` and `restart` end the requests under way."""
    is_unload_final: bool = True
    """Whether the engine refuses a name for good after `unload` and deletion, or only after `restart`."""
    gap: str | None = None
    """What happens to requests while a name moves to another version; None if all of them are answered."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client

    @abstractmethod
    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        """The loaded adapters, by name. Raises `Unavailable`."""

    def is_prepared(self, path: Path) -> bool:
        """Whether the engine loads a copy of the adapter in `path` that was repaired for it; creates this
        copy. Raises `CheckFailed` if that fails, `StorageFull`, `Unavailable`."""
        return False

    @abstractmethod
    def load(self, name: str, path: Path) -> None:
        """Loads the adapter. Raises `CheckFailed`, `Unavailable`, or `Conflict` if running requests still
        block it.
        """

    @abstractmethod
    def unload(self, name: str) -> None:
        """Unloads the adapter. Idempotent. Raises `CheckFailed`, `Unavailable`."""

    @abstractmethod
    def send_test_request(self, name: str) -> EngineResponse:
        """Sends the shortest request for an adapter; returns the response. Raises `Unavailable`."""

    def alias(self, name: str, target: str) -> None:
        """Makes `name` stand for the loaded adapter `target`, in one step. Only if `can_alias`."""
        raise CheckFailed(f"{self.name} cannot give an adapter a second name")

    def suspend(self, name: str) -> None:
        """Makes new requests for `name` wait for `alias` or `unload`. Only if `can_alias`."""
        raise CheckFailed(f"{self.name} cannot suspend requests")

    def end_suspensions(self, wanted: Collection[str]) -> None:
        """Resumes the requests that wait for names other than `wanted`."""
        return

    def select_adapter(self, body: Mapping[str, object], name: str) -> dict[str, object]:
        """The body of a client's request, changed so that the loaded adapter `name` answers it."""
        return {**body, "model": name}

    def select_stack(
        self, body: Mapping[str, object], parts: Sequence[tuple[str, float]]
    ) -> dict[str, object]:
        """Like `select_adapter`, for several adapters with their weights. Only if `can_stack`.

        Raises `NotFound` for a name that is neither a loaded adapter nor, if it is the only one, the base;
        `Unavailable` and `CheckFailed` if the engine does not answer, or no longer has the loaded adapters.
        """
        raise CheckFailed(f"{self.name} answers a request with one adapter only")

    @property
    def address(self) -> EngineAddress:
        """The engine as the cache knows it."""
        return EngineAddress(self.name, self.client.url, reads_at_start=not self.is_unload_final)

    def readable_digests(self, loaded: Sequence[EngineAdapter]) -> frozenset[Digest] | None:
        """The versions whose files the engine may read again, given those `loaded`; None if that is
        unknown."""
        return frozenset(one.digest for one in loaded if one.digest is not None)

    def restart(self) -> None:
        """Restarts the engine with exactly the adapters it should have. Raises `CheckFailed` if it cannot."""
        raise CheckFailed(f"a worker does not restart {self.name}")

    def deselect_adapters(self) -> None:
        """Makes requests that select no adapter get the base's answers, even if others restarted the engine.
        Raises `CheckFailed`, `Unavailable`."""
        return

    def names_in_use(self) -> frozenset[str]:
        """The names with running requests, as far as the engine reports them."""
        return frozenset()

    def started_at(self) -> float | None:
        """The time when the engine's process started (Unix time); None if the engine does not report it."""
        return None

    def request_counts(self) -> RequestCounts | None:
        """The request counters; None if the engine has none."""
        return None

    def usage(self) -> Mapping[str, AdapterUsage]:
        """The usage of the loaded adapters by name, as far as it is known."""
        return {}

    def require_working(self, name: str) -> None:
        """Raises `CheckFailed` if a test request fails with an engine error, or the name is unknown."""
        response = self.send_test_request(name)
        if response.status >= 500 or response.status == 404:
            raise CheckFailed(f"a request for {name} failed with {response.status}: {response.error_message}")

    def require_loaded(self, name: str, digest: Digest) -> None:
        """Raises `CheckFailed` unless the engine lists the version under the name, whatever it answered to
        `load`."""
        paths = {one.name: one.path for one in self.list_adapters()}
        if name not in paths:
            raise CheckFailed(f"the engine reported {name} as loaded, but does not list it")
        if EngineAdapter(name, paths[name]).digest != digest:
            raise CheckFailed(f"the engine reported {name} as loaded, but lists it from {paths[name]}")

    def refuses(self, name: str) -> bool:
        """Whether a test request for the adapter is refused."""
        return not self.send_test_request(name).is_ok


def require_success(response: EngineResponse, what: str) -> None:
    """Raises `CheckFailed` with the engine's message unless the response is OK."""
    if not response.is_ok:
        raise CheckFailed(f"the engine refused to {what}: {response.error_message}")


def require_answer(response: EngineResponse, what: str) -> None:
    """Like `require_success`, for endpoints that every engine of the kind has. Raises `Unavailable` while the
    engine starts or stops."""
    if response.status >= 500:
        raise Unavailable(f"the engine cannot {what} now: {response.error_message}")
    if response.status == 404:
        raise CheckFailed(
            f"the server at this address cannot {what}: is it another kind of engine, or does its address"
            " have more than http://host:port?"
        )
    require_success(response, what)


def list_openai_adapters(client: EngineClient) -> tuple[EngineAdapter, ...]:
    """The adapters of an OpenAI model listing: the models that have a `parent`."""
    response = client.get("/v1/models")
    require_answer(response, "list its models")
    if not isinstance(response.json.get("data"), list):
        raise Unavailable("the engine cannot list its models now: its answer has no list")
    found = [
        EngineAdapter(str(one.get("id")), str(one.get("root") or ""))
        for one in response.json_list("data")
        if one.get("parent")
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def sum_metric(metrics: str, name: str, label: str = "") -> float:
    """The sum of a metric's series in Prometheus text format; only those with `label` count, if it is
    given.
    """
    total = 0.0
    for line in metrics.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and label in line:
            try:
                total += float(line.rpartition(" ")[2])
            except ValueError:
                continue
    return total
