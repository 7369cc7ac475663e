"""The rollouts role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, parse_stored_alias
from adaptry.registry.http.connection import Connection
from adaptry.registry.http.paths import idempotency_header, owner_path
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan, Rollouts

_ROLLOUT = TypeAdapter(RolloutInfo)
_ROLLOUTS: TypeAdapter[tuple[RolloutInfo, ...]] = TypeAdapter(tuple[RolloutInfo, ...])


@dataclass(frozen=True)
class HttpRollouts(Rollouts):
    """The rollouts of a server's registry. Calls that start or change one have an idempotency key or a
    generation.
    """

    server: Connection

    def start(self, name: AdapterName, alias: str, to: Digest, plan: RolloutPlan) -> RolloutInfo:
        body = {"alias": alias, "to": str(to), **plan.model_dump(mode="json")}
        path = owner_path(name, "rollouts")
        return self.server.request_value(
            _ROLLOUT, "POST", path, body=body, headers=idempotency_header(), again=True
        )

    def list(self, name: AdapterName) -> tuple[RolloutInfo, ...]:
        return self.server.request_value(_ROLLOUTS, "GET", owner_path(name, "rollouts"))

    def change(self, name: AdapterName, alias: str, change: RolloutChange, was: int) -> RolloutInfo:
        path = owner_path(name, "rollouts", parse_stored_alias(alias))
        body, seen = change.model_dump(mode="json"), {"If-Match": f'"{was}"'}
        return self.server.request_value(_ROLLOUT, "PATCH", path, body=body, headers=seen, again=False)
