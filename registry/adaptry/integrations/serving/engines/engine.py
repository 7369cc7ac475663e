"""The interface of an engine to a worker: list, load and unload adapters.

Names are those that clients request; paths are in a cache, so they contain the digest. Errors quote the
engine's own message: `CheckFailed` if it refuses an adapter, `Unavailable` if it does not answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Unavailable
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


class Engine(ABC):
    """An engine at `client.url`."""

    name: ClassVar[str]
    """The engine's name in `checks.runtimes`."""
    can_replace: ClassVar[bool] = False
    """Whether `load` replaces an adapter under its name, while running requests finish with the old one."""
    is_unload_final: ClassVar[bool] = True
    """Whether the engine refuses a name for good after `unload` and deletion, or only after `restart`."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client

    @abstractmethod
    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        """The loaded adapters, by name. Raises `Unavailable`."""

    @abstractmethod
    def load(self, name: str, path: Path) -> None:
        """Raises `CheckFailed`, `Unavailable`, or `Conflict` if running requests still block it."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """Idempotent. Raises `CheckFailed`, `Unavailable`."""

    @abstractmethod
    def send_test_request(self, name: str) -> EngineResponse:
        """Sends the shortest request for an adapter; returns the response. Raises `Unavailable`."""

    def restart(self) -> None:
        """Restarts the engine with exactly the adapters it should have. Raises `CheckFailed` if it cannot."""
        raise CheckFailed(f"{self.name} is not started anew by its worker")

    def names_in_use(self) -> frozenset[str]:
        """The names with running requests, as far as the engine reports them."""
        return frozenset()

    def request_counts(self) -> RequestCounts | None:
        """The request counters; None if the engine has none."""
        return None

    def require_working(self, name: str) -> None:
        """Raises `CheckFailed` if a test request fails with an engine error, or the name is unknown."""
        response = self.send_test_request(name)
        if response.status >= 500 or response.status == 404:
            raise CheckFailed(f"a request for {name} failed with {response.status}: {response.error_message}")

    def refuses(self, name: str) -> bool:
        """Whether a test request for the adapter is refused."""
        return not self.send_test_request(name).is_ok


def require_success(response: EngineResponse, what: str) -> None:
    """Raises `CheckFailed` with the engine's message unless the response is OK."""
    if not response.is_ok:
        raise CheckFailed(f"the engine would not {what}: {response.error_message}")


def require_answer(response: EngineResponse, what: str) -> None:
    """As `require_success`, for endpoints that all have. Raises `Unavailable` while it starts or stops."""
    if response.status >= 500:
        raise Unavailable(f"the engine cannot {what} now: {response.error_message}")
    if response.status == 404:
        raise CheckFailed(
            f"what answers there does not {what}: is it another engine than was said, or is there more in its"
            " address than http://host:port?"
        )
    require_success(response, what)


def list_openai_adapters(client: EngineClient) -> tuple[EngineAdapter, ...]:
    """The adapters of an OpenAI model listing: the models that have a `parent`."""
    response = client.get("/v1/models")
    require_answer(response, "list its models")
    found = [
        EngineAdapter(str(one.get("id")), str(one.get("root") or ""))
        for one in response.json_list("data")
        if one.get("parent")
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def sum_metric(metrics: str, name: str, label: str = "") -> float:
    """The sum of a metric's series in Prometheus text format; only of those with `label`, if given."""
    total = 0.0
    for line in metrics.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and label in line:
            try:
                total += float(line.rpartition(" ")[2])
            except ValueError:
                continue
    return total
