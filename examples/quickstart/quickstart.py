"""The daily round from Python: push two versions of an adapter, find them, point `prod` at one, pull it.

Runs anywhere with the core install: the base and the adapters are tiny, hand-written and real in form, and
the registry is a folder that goes away at the end. With a server, only `connect` changes:
`connect("http://host")`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName
from adaptry.operations import base_registry
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_base, tiny_lora

TONE = AdapterName.parse("acme/tone")


def main(folder: Path) -> None:
    registry = adaptry.connect(str(folder / "registry"))

    # A base is known by its content; the name is what people call it.
    base = tiny_base(folder / "base")
    known = base_registry.register_base(registry, open_checkpoint(base), names=("org/tiny",))
    print(f"base {known.names[0]} is {known.id}")

    # Two trainings of one adapter are two versions. What cannot work on its base would be refused here.
    for seed, accuracy in ((1, 0.87), (2, 0.91)):
        out = tiny_lora(folder / f"out-{seed}", seed=seed, base_name="org/tiny")
        pushed = adaptry.push(
            registry, adaptry.open_dir(out), TONE, options=PushOptions(metrics={"accuracy": accuracy})
        )
        print(f"pushed {TONE}@{pushed.version.number} {pushed.version.digest}")

    for found in registry.versions.search("base:org/tiny rank<=16 metric.accuracy>=0.9").items:
        print(f"found {found.name}@{found.number}: {found.method}, rank {found.rank}, {found.metrics}")

    # An alias moves only from where you saw it; `was=None` says that there is none yet.
    second = registry.versions.get(adaptry.Ref.parse("acme/tone@2"))
    registry.aliases.move(TONE, "prod", to=second.digest, was=None)

    pulled = adaptry.pull(registry, adaptry.Ref.parse("acme/tone@prod"), folder / "tone")
    print(
        f"pulled {pulled.name}@{pulled.number}: {sorted(path.name for path in (folder / 'tone').iterdir())}"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
