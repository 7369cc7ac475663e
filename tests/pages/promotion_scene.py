"""An adapter whose alias has a policy, in a separate namespace, and users with different rights there."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import PushOptions, VersionInfo
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

_POLICY = """alias: prod
require:
  - metric("accuracy") >= 0.9
  - approvals("{group}") >= 1
"""


@dataclass(frozen=True)
class PromotionScene:
    """`prod` is at version 1, with a worker. Version 2 has 0.95 of accuracy, and version 3 has 0.5."""

    server: Server
    name: AdapterName
    versions: tuple[VersionInfo, ...]

    def person(self, name: str, role: str = "owner") -> Browser:
        """A browser with a signed-in user."""
        return Browser(self.server, self.server.token(name, role, (self.name.namespace,)))

    @property
    def group(self) -> str:
        """The group whose approvals count."""
        return f"release-{self.name.namespace}"

    @property
    def alias(self) -> str:
        """The address of the alias."""
        return f"/-/aliases/{self.name}/prod"

    def promotion(self, number: int) -> str:
        """The address of the page on which prod is moved to a version."""
        return f"/-/adapters/{self.name}/{number}/promote?alias=prod"

    @property
    def prod(self) -> tuple[int, int]:
        """The version of prod, and the alias's generation."""
        (found,) = self.server.registry().aliases.list(self.name)
        return found.number, found.generation

    def fields(self, number: int, **more: str) -> dict[str, str]:
        """The fields of a form that was made now."""
        return {"number": str(number), "generation": str(self.prod[1]), **more}


def make_scene(server: Server, folder: Path) -> PromotionScene:
    registry, name = server.registry(), AdapterName(f"team-{secrets.token_hex(6)}", "tone")
    versions = []
    for number, accuracy in enumerate((0.91, 0.95, 0.5), 1):
        made = open_dir(tiny_lora(folder / f"tone-{number}", seed=number))
        options = PushOptions(metrics={"accuracy": accuracy})
        versions.append(push(registry, made, name, options=options).version)
    registry.aliases.move(name, "prod", versions[0].digest, None)
    resident = ResidentReport(
        name=name,
        digest=versions[0].digest,
        served_as=f"{name}@prod",
        condition="serving",
        since=versions[0].created_at,
    )
    worker = f"gpu-{name.namespace}"
    registry.workers.report(WorkerReport(worker=worker, engine="vllm", residents=(resident,)))
    scene = PromotionScene(server, name, tuple(versions))
    registry.principals.create_group(scene.group)
    text = _POLICY.format(group=scene.group)
    registry.policies.set(PolicyRequest(scope=str(name), text=text))
    return scene
