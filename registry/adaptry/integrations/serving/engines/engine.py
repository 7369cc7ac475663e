"""An engine as a worker sees it: what it has loaded, and how that is changed.

Names are those that clients ask for, paths those of a cache, which contain the digest. An engine's own words are kept in
what is raised: `CheckFailed` for what it will not load, `Unavailable` where it does not answer.
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
    """An adapter that an engine has, by the name that clients ask for and the place it was loaded from."""

    name: str
    path: str

    @property
    def digest(self) -> Digest | None:
        """The version, where it was loaded from a cache; None for what someone loaded from elsewhere."""
        found = _DIGEST.search(self.path)
        return Digest(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests that an engine has answered since it started, and how many of them with an error."""

    requests: float
    errors: float


class Engine(ABC):
    """What every engine can do, at `speaking.url`."""

    name: ClassVar[str]
    """As in the table of rules (`checks.runtimes`)."""
    can_replace: ClassVar[bool] = False
    """Whether `load` under a name that is taken replaces it, requests under way ending with what they began with."""
    is_unload_final: ClassVar[bool] = True
    """Whether `unload` makes it refuse a name for good, once the files are gone; else only `renew` does."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client

    @abstractmethod
    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        """In name order. Raises `Unavailable`."""

    @abstractmethod
    def load(self, name: str, path: Path) -> None:
        """Raises `CheckFailed`, `Unavailable`, or `Conflict` where it must wait for requests that are under way."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """What is not loaded is no error. Raises `CheckFailed`, `Unavailable`."""

    @abstractmethod
    def send_test_request(self, name: str) -> EngineResponse:
        """The answer to the shortest request that names an adapter. Raises `Unavailable`."""

    def restart(self) -> None:
        """Starts the engine anew, with what it should have and nothing else. Raises `CheckFailed` where that cannot be done."""
        raise CheckFailed(f"{self.name} is not started anew by its worker")

    def names_in_use(self) -> frozenset[str]:
        """The names that requests are under way for, as far as it tells."""
        return frozenset()

    def request_counts(self) -> RequestCounts | None:
        """None where it does not count."""
        return None

    def require_working(self, name: str) -> None:
        """Raises `CheckFailed` where a request that names the adapter ends in an error of the engine's, or in its not knowing
        the name."""
        response = self.send_test_request(name)
        if response.status >= 500 or response.status == 404:
            raise CheckFailed(f"a request for {name} failed with {response.status}: {response.error_message}")

    def refuses(self, name: str) -> bool:
        """Whether a request that names the adapter gets no answer made with it."""
        return not self.send_test_request(name).is_ok


def require_success(response: EngineResponse, what: str) -> None:
    """Raises `CheckFailed` with the engine's words."""
    if not response.is_ok:
        raise CheckFailed(f"the engine would not {what}: {response.error_message}")


def require_answer(response: EngineResponse, what: str) -> None:
    """The same of what every engine of its kind tells. Raises `Unavailable` where it cannot now: it starts, or ends."""
    if response.status >= 500:
        raise Unavailable(f"the engine cannot {what} now: {response.error_message}")
    if response.status == 404:
        raise CheckFailed(
            f"what answers there does not {what}: is it another engine than was said, or is there more in its address than "
            "http://host:port?"
        )
    require_success(response, what)


def list_openai_adapters(client: EngineClient) -> tuple[EngineAdapter, ...]:
    """The adapters of an OpenAI listing: what has a `parent`."""
    response = client.get("/v1/models")
    require_answer(response, "list its models")
    found = [
        EngineAdapter(str(one.get("id")), str(one.get("root") or ""))
        for one in response.json_list("data")
        if one.get("parent")
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def sum_metric(metrics: str, name: str, label: str = "") -> float:
    """The sum of a counter's series in Prometheus's text, of those that carry a label where one is given."""
    total = 0.0
    for line in metrics.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and label in line:
            try:
                total += float(line.rpartition(" ")[2])
            except ValueError:
                continue
    return total
