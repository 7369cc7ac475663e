"""Daily work from Python: push two versions of an adapter, find them, point `prod` at one, pull it.

Runs anywhere with the core install: the base and the adapters are tiny, hand-written and real in form, and
the registry is a folder that is deleted at the end. With a server, only `connect` changes:
`connect("http://host")`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base, tiny_lora


def main(folder: Path) -> None:
    with adaptry.connect(folder / "registry") as registry:
        # A base is identified by its content; the name is for people.
        base = open_checkpoint(tiny_base(folder / "base"))
        known = base_registry.register_base(registry, base, names=("org/tiny",))
        print(f"base {known.names[0]} is {known.id}")

        # Two trainings of one adapter are two versions. An adapter that cannot work on its base would be
        # refused.
        for seed, accuracy in ((1, 0.87), (2, 0.91)):
            out = tiny_lora(folder / f"out-{seed}", seed=seed, base_name="org/tiny")
            pushed = adaptry.push(registry, out, "acme/tone", metrics={"accuracy": accuracy})
            print(f"pushed {pushed.version.label} {pushed.version.digest}")

        print(adaptry.search(registry, "base:org/tiny rank<=16 metric.accuracy>=0.9"))

        # Every move of an alias is recorded; `expect=0` requires that the alias does not exist yet.
        adaptry.promote(registry, "acme/tone@2", expect=0)

        pulled = adaptry.pull(registry, "acme/tone@prod", folder / "tone")
        print(f"pulled {pulled.label}: {sorted(path.name for path in (folder / 'tone').iterdir())}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
