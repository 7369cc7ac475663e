"""Computes mergekit's results for a few updates, element by element. Run it with a Python that has mergekit
0.1.5.

`PYTHON tests/combining/mergekit_elements.py < question > answer`: JSON with `updates` (lists of numbers) and
`cases` (method, weights, parameters); the answer has a list of numbers for each case.
`mergekit_elements.json` holds the answers to the questions of `test_elementwise.py`.
"""

from __future__ import annotations

import json
import sys

import torch
from mergekit.merge_methods import merge_tensors


def main() -> None:
    question = json.load(sys.stdin)
    updates = [torch.tensor(update) for update in question["updates"]]
    ids = [f"input{place}" for place in range(len(updates))]
    answer = {}
    for name, (method, weights, parameters) in question["cases"].items():
        torch.manual_seed(0)
        held = len(weights)
        if method != "sce":
            parameters = {"weight": dict(zip(ids, weights, strict=False)), **parameters}
        made = merge_tensors(
            [torch.zeros_like(updates[0]), *updates[:held]],  # a base of zeros: a model is its update
            method,
            parameters=parameters,
            ids=["base", *ids[:held]],
            base_index=0,
        )
        answer[name] = [[float(f"{value:.7g}") for value in row] for row in made.tolist()]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
