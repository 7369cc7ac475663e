"""AdaMSS: updates of clusters of output rows, each in a small subspace (NeurIPS 2025, AdaMSS; PEFT `tuners/adamss`)."""

from __future__ import annotations

from adaptry.adapter.config import AdapterConfig
from adaptry.methods.method import Method, Shapes, Width, same


def _width(shapes: Shapes, config: AdapterConfig) -> Width:
    """`newB` is as wide as the inputs, with one column more where the base has a bias."""
    rank, columns = shapes["newB"]
    clusters = [role.removeprefix("B.") for role in shapes if role.startswith("B.")]
    if any(shapes[f"A.{cluster}"] != (shapes[f"B.{cluster}"][1], rank) for cluster in clusters):
        raise ValueError("the factors do not multiply")
    fan_out = sum(shapes[f"B.{cluster}"][0] for cluster in clusters)
    return Width(same(rank, min(config.rank(default=100), fan_out, columns)), 0, fan_out)


METHOD = Method(
    name="adamss",
    title="AdaMSS",
    tails={r"adamss_A\.(?P<rest>\d+)": "A", r"adamss_B\.(?P<rest>\d+)": "B", "adamss_newB": "newB"},
    width=_width,
    instead=(
        "which rows of the weight each part changes is not in the file, PEFT clusters them anew with scikit-learn as it "
        "loads: merge it with PEFT's merge_and_unload in the environment it was trained in, and push the model"
    ),
    needs_base=True,
    tolerance="",
)
