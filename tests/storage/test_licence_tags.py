"""A push sets the licence of its README as the adapter's tag, and searches find it."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")


def test_the_newest_readme_that_states_a_licence_sets_it(tmp_path: Path) -> None:
    with open_local(tmp_path / "registry") as registry:

        def pushed(seed: int, readme: str | None) -> tuple[str, ...]:
            folder = tiny_lora(tmp_path / f"lora-{seed}", seed=seed)
            if readme is not None:
                (folder / "README.md").write_text(readme)
            push(registry, open_dir(folder), TONE)
            return registry.adapters.get(TONE).tags

        assert pushed(1, None) == ()
        registry.adapters.edit(TONE, AdapterEdit(tags=("warm", "license:other")))
        assert pushed(2, "---\nlicense: MIT\n---\n# Tone\n") == ("warm", "license:mit")
        assert pushed(3, "# Tone\nThe licence is the MIT licence.\n") == ("warm", "license:mit")
        assert pushed(4, "---\nlicense: [apache-2.0, MIT, mit]\n---\n") == (
            "warm",
            "license:apache-2.0",
            "license:mit",
        )
        assert [one.number for one in registry.versions.search("licence:apache-2.0").items] == [4, 3, 2, 1]
        event = registry.adapters.history(TONE).items[0]
        assert (event.kind, event.detail["tags"]) == (
            "adapter.edited",
            "warm, license:apache-2.0, license:mit",
        )
        assert verify(registry.catalog, registry.blobs) == ()
