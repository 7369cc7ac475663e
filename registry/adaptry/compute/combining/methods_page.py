"""The page of all methods of combining: what is to know of them together, and each as the table has it."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.method import CombineMethod, MethodParameter
from adaptry.compute.combining.peft_modes import PREFIX

_ABOVE = """\
# Combining adapters

`adaptry combine` makes one adapter of several of the same base: of other ranks, for other modules, of other
methods once they are converted to LoRA. The result is a plain LoRA with scale 1, which any engine serves.

```sh
adaptry combine acme/tone acme/facts=0.5 -o acme/both
adaptry combine acme/tone acme/facts=0.5 --method ties --param density=0.2 --rank 16 -o acme/both
adaptry combine --recipe both.yaml --dry-run
```

A recipe says the same in a file, and more: other methods, parameters or weights for some modules. The first
pattern that matches a module wins, matched as PEFT matches a `rank_pattern`; folders are those where the
command runs.

```yaml
method: ties
parameters: {density: 0.2}
inputs: [acme/tone, acme/facts=0.5]
modules:
  - match: mlp.down_proj
    method: linear
rank: 16
seed: 7
output: acme/both
```

This page is written by `python -m adaptry.compute.combining > docs/combining.md`.

## What holds for all

With Δ_i = s_i B_i A_i the update of an input at a module and w_i its weight:

- **The update is what is combined**, with its trained scale α/r (or α/√r) in it. That is what the papers
  speak of, and not what PEFT's types without `svd` do, which combine lora_A and lora_B each by itself.
- **A module that only some inputs have** is combined of those alone, unless the method's own words below say
  otherwise; a weight of 0 is absence.
- **Each module is treated by itself**, as PEFT and mergekit do. Where a paper prunes the whole model at once,
  a module with small updates loses more there than here.
- **Factors or dense.** Methods marked *factors* never form a dense update: their work grows with the ranks.
  Those marked *dense* form one module's updates, a few rows at a time, and bring the result to a rank
  afterwards: the one asked for (`rank`, or `energy`), else the largest of the inputs. What is lost is told as
  a share of ‖Δ‖², the rounding to a `dtype` of 16 bits included. The leading singular vectors come from an
  iteration that stops when at most 10⁻⁷ of what a full decomposition keeps could be missing.
- **Chance comes from the recipe's seed**, with a generator for each module and input. The same recipe gives
  the same bytes on the same type of machine.
- **Magnitudes that are equal stay or go together**, where others break ties by the order of a sort.
- **Nothing is made of NaN**: an input that holds NaN or infinity is refused, and so is a result beyond its
  dtype.

## From PEFT

What `model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "both", combination_type="ties_svd", density=0.2)`
makes is, bit for bit,

```sh
adaptry combine ./a=0.7 ./b=0.3 --method peft:ties_svd --param density=0.2 -o ./both
```

Each `combination_type` has a mode named `peft:` and its name. They are PEFT 0.21's arithmetic in float32 on a
CPU, in its order of operations, with its quirks: a weight of 0 still votes and divides; one input alone is
always `linear`; the rank is that of the configs (`--rank` is `svd_rank`). Tests compare them with PEFT on
models like Llama, GPT-2 and BERT and on convolutions, with 2, 4 and 8 adapters. What PEFT's method loses of a
sum is not measured. Where PEFT raises over the adapters, so do these, with the way out. Differences:

- PEFT gives the result the first adapter's config: `use_rslora` there makes it √r too strong, a PiSSA-like
  `init_lora_weights` changes the base when it is loaded. Here the config is that of a plain LoRA.
- `svd_driver` is for CUDA, and is left out.
- PEFT refuses to mix a `target_modules` that is a list with one that is a text; here only the modules count.

To leave PEFT's arithmetic for the methods themselves: `peft:cat` is `linear`; `peft:svd` is `svd`, without a
dense matrix; `peft:ties_svd` is `ties` with `sign: unweighted`; `peft:dare_linear_svd` is `dare_linear` with
other draws; `peft:magnitude_prune_svd` is `magnitude_prune`. `peft:linear`, `peft:ties` and the others
without svd have no counterpart: sums of factors are no sums of updates.

## From mergekit

mergekit merges whole models, and a LoRA after it was merged into its base. The same methods of the updates
give the same numbers, up to roundings, with these parameters (tests compare with mergekit 0.1.5):

| mergekit | here |
|---|---|
| `task_arithmetic` | `linear` |
| `ties` | `ties` with `divide: weights` |
| `dare_linear` | `dare_linear` with `rescale: l1` |
| `dare_ties` | `dare_ties` with `rescale: l1`, `divide: none` |
| `della` (epsilon ε) | `della` with `epsilon: 2ε`, `rescale: l1`, `divide: weights` |
| `della_linear` (epsilon ε) | `della_linear` with `epsilon: 2ε`, `rescale: l1` |
| `breadcrumbs` | `breadcrumbs` |
| `breadcrumbs_ties` | `breadcrumbs_ties` with `divide: none` |
| `sce` (select_topk) | `sce` with `select` |

Its `normalize` is `normalize` of the sums and `divide: weights` or `none` of the elections; its `lambda` is
`lambda`. What is drawn by chance follows the same law and is not the same draw.
"""


def render_page() -> str:
    """`docs/combining.md`."""
    own = [each for name, each in COMBINE_METHODS.items() if not name.startswith(PREFIX)]
    of_peft = [each for name, each in COMBINE_METHODS.items() if name.startswith(PREFIX)]
    lines = [_ABOVE, "## The methods", "", *_overview(own)]
    for method in own:
        lines += ["", *_section(method)]
    lines += ["", "## PEFT's", "", *_overview(of_peft)]
    for method in of_peft:
        lines += ["", *_section(method)]
    return "\n".join(lines) + "\n"


def _overview(combinations: list[CombineMethod]) -> Iterator[str]:
    yield "| method | | work |"
    yield "|---|---|---|"
    for each in combinations:
        yield f"| [`{each.name}`](#{_anchor(each.name)}) | {each.title} | {each.delta_form} |"


def _anchor(name: str) -> str:
    """As GitHub makes one of the heading `name`."""
    return name.replace(":", "")


def _section(method: CombineMethod) -> Iterator[str]:
    yield f"### `{method.name}`"
    yield ""
    yield f"{method.title[0].upper()}{method.title[1:]}. Source: {method.source}."
    if bounds := _bounds(method):
        yield bounds
    if method.parameters:
        yield ""
        yield "| parameter | default | takes | |"
        yield "|---|---|---|---|"
        for name, parameter in method.parameters.items():
            yield (
                f"| `{name}` | {_word(parameter.default)} | {_taken(parameter)} | {_cell(parameter.about)} |"
            )
    if method.differences:
        yield ""
        yield method.differences


def _bounds(method: CombineMethod) -> str:
    fewest, most = method.inputs
    told = (
        f"Takes {fewest} inputs."
        if fewest == most
        else f"Takes {fewest} inputs or more."
        if fewest > 1
        else ""
    )
    return f"{told} Weights mean nothing to it.".strip() if not method.uses_weights else told


def _taken(parameter: MethodParameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if isinstance(parameter.default, bool):
        return "`true`, `false`"
    if parameter.low is None or parameter.high is None:
        return "a number"
    return f"{parameter.low:g} to {parameter.high:g}"


def _cell(text: str) -> str:
    """Text inside a table, where a bar ends a cell."""
    return text.replace("|", "\\|")


def _word(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
