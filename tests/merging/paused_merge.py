"""A process that merges and pauses in the middle: it prints `writing`, and continues when it gets a line.

python paused_merge.py BASE ADAPTER WEIGHT TARGET SHARE

It stops once SHARE (0 to 1) of the bytes have been written. An error of ours ends it with its code on stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import AdaptryError


def main(base: str, adapter: str, weight: str, target: str, share: str) -> None:
    has_stopped = False

    def stop_once(_: str, done: int, total: int) -> None:
        nonlocal has_stopped
        if not has_stopped and done >= float(share) * total:
            has_stopped = True
            print("writing", flush=True)
            sys.stdin.readline()

    strength = float(weight)
    recipe = MergeRecipe(base=base, inputs=(RecipeInput(source=adapter, weight=strength),))
    source = MergeSource(WeightedAdapter(open_dir(adapter), strength, adapter))
    try:
        merge(recipe, open_checkpoint(base), [source], Path(target), progress=stop_once)
    except AdaptryError as error:
        sys.exit(f"{error.code}: {error.message}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main(*sys.argv[1:])
