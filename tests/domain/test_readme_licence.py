"""The licences stated in a README's front matter, and nowhere else."""

from __future__ import annotations

import pytest

from adaptry.core.readme_licence import stated_licences


@pytest.mark.parametrize(
    ("head", "licences"),
    [
        ("license: mit", ("mit",)),
        ('base_model: org/base\nlicense: "apache-2.0"  # as the base\ntags: [a]', ("apache-2.0",)),
        ("license:\n- mit\n- cc-by-4.0\nlanguage: en", ("mit", "cc-by-4.0")),
        ("license: [mit, mit, bsd-3-clause]", ("mit", "bsd-3-clause")),
        ("license:\r\n  - mit\r\nlanguage: en", ("mit",)),
        ("license:", ()),
        ("license: see the file LICENSE", ()),
        ("license: {name: mit}", ()),
        ("license: [mit, {a: b}, 3]", ("mit",)),
        ("license: &a mit\nother: *a", ("mit",)),
        ("license: *a", ()),
        ("license: [mit", ()),
        ("  license: mit", ()),
        ("license_name: mit", ()),
        ("description: |\n  license: mit", ()),
        (f"license: {'m' * 57}", ()),
        (f"license: [{', '.join(f'l{number}' for number in range(400))}]", ()),
    ],
)
def test_only_names_in_the_field_itself_are_licences(head: str, licences: tuple[str, ...]) -> None:
    readme = f"---\n{head}\n---\n# Tone\nlicense: gpl-3.0\n".encode()
    assert stated_licences(readme) == licences


@pytest.mark.parametrize(
    "readme", [b"", b"# Tone\nlicense: mit\n", b"---\nlicense: mit\n", b"\xff---\nlicense: mit"]
)
def test_a_readme_without_a_head_states_no_licence(readme: bytes) -> None:
    assert stated_licences(readme) == ()
