"""The repairs and formats as a page: `python -m adaptry.compute.exporting > docs/exporting.md`."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.compute.exporting.formats import FORMATS
from adaptry.compute.exporting.gguf_names import ARCHITECTURES
from adaptry.compute.exporting.repair_table import REPAIRS

_HEAD = """# Exporting: an adapter as an engine needs it

`adaptry check REF --runtime ENGINE` says whether an engine serves an adapter as it was trained, and what
repairs it. `adaptry export` repairs it:

```sh
adaptry export acme/tone --for llama.cpp --dry-run        # which repairs, and why; nothing is made
adaptry export acme/tone --for sglang -o acme/tone-sglang # a version that names its parent and its repairs
adaptry export acme/tone --for vllm,max_lora_rank=64 -o ./out
adaptry export ./out --format gguf --base ./base -o ./for-llama
adaptry export acme/tone --push oci://ghcr.io/acme/tone:v3
```

The plan is decided from the verdict's findings: each finding has a remedy, and the table below says which
remedies are repairs. They are made in the order of the table, each written and read back; then the engine's
rules are asked again. A result that is not served as trained is refused, and so is a finding that nothing
here mends: the refusal says what does. What no file of an adapter can tell an engine (a trained head, biases,
rows of an embedding) goes into the base's weights, as a checkpoint; that is a folder, and no version of an
adapter.

**How near it is.** Where both are plain LoRAs, ΔW of each module is formed of what the two files hold, and
subtracted: the largest difference is reported, and it is 0 for every repair that is called exact. (Where
factors differ by zeros only, they are compared as factors, of which ΔW is the same product.) Where a repair
can only come near, the relative error ‖Δ − Δ'‖ / ‖Δ‖ is reported, and kept with a version as the metric
`kept_energy`. `--rank` and `--energy` bring what is no LoRA to a rank; without them it is refused where it
has none.

**How far it may be.** Above a relative error of 0.1 nothing is written and the exit code is 1 (`--max-error`
sets another bound; with `--energy` it is what that share leaves out, if that is more; `--exact` refuses what
would change a number at all). The refusal names the smallest rank that keeps the bound and the server's
option for it. 0.1 means that 99 % of the energy Σσ² is kept, which is also the share that `--energy 0.99`
asks for. On SmolLM2-135M, with a random adapter of rank 32 (singular values falling by 3 % each) that moves
the base's next-token distributions by 1.2 nats (mean Kullback-Leibler divergence), an error of 0.10 moved
the adapter's own by 0.06 nats, 0.21 by 0.13, and 0.52 by 0.39.

This page is written by `python -m adaptry.compute.exporting > docs/exporting.md`, from the tables themselves.

## Repairs

| repair | what it does | exact | for the remedy |
|---|---|---|---|
"""

_TAIL = """
Formats that are one engine's (`gguf`, `ollama`, `diffusers`) are repaired for that engine where no `--for` is
given. A version in the registry is PEFT's folder.

## llama.cpp

A GGUF adapter has one alpha for all modules and no word for rsLoRA, so what a module's scale is beside it
goes into its `lora_b`. The names are those of the `gguf` package; rows of queries and keys are put in
llama.cpp's order where its own converter does so; a layer's experts are stacked. The base's config and
headers are needed, its weights are not. Written for these model types of transformers, of which each was
compared with llama.cpp's own converter, with no number different: {architectures}. Others are refused by
name.

Two things are done otherwise than that converter does. `fan_in_fan_out` (GPT-2): it turns the factors with
the weights, although they are [r, in] and [out, r] there too; where a module is square the file loads, and
answers something else. And an update of an embedding that is the output head too is refused, since llama.cpp
would change both or neither.

## OCI

The artifact has ModelPack's media types: the weights, the config and the documents as layers as they are,
named by `org.cncf.model.filepath`. Its `subject` is the base's manifest: with `--subject TAG` or a digest,
one that is in that repository; else a small one, made of the base's id and facts, is pushed beside it. A
registry that knows referrers lists the adapters of a base by that; where one does not (it leaves out
`OCI-Subject` in its answer), they are listed in an index under the tag `sha256-<hex of the subject>`, as the
specification asks. Two clients that write that tag at once may lose one another's entry, which nobody can
lock there: pushing again lists it. A login is what `docker login` (or oras, or skopeo) kept; programs that
keep passwords elsewhere are not run. `ADAPTRY_CA_BUNDLE` and `ADAPTRY_PROXY` hold here too.
`--format oci -o ./DIR` writes an image layout, which skopeo copies anywhere.

## What was run

- **llama.cpp** (through xllamacpp): of a plain LoRA, rsLoRA, `alpha_pattern`, `rank_pattern`, embeddings,
  GPT-2's turned weights, fused experts of Mixtral and a LoHa, the log-probabilities of every next token,
  beside PEFT's with the original; without the repair they differ by more than 0.1, with it by less than
  0.0002 (GPT-2: 0.005, since its GELU is a table of half floats).
- **llama.cpp's own converter**: every architecture above, tensor by tensor.
- **vLLM 0.32** on the CPU: an adapter of rank 32 brought to 16, a DoRA merged and as the LoRA that is made of
  it, a trained head and trained rows of an embedding merged: the logprobs of what it says, beside PEFT's.
- **PEFT**: scales folded for SGLang, LoRAX, TGI, TensorRT-LLM and LMDeploy, layers filled, heads merged,
  names put right: its logits with what was made, beside those with the original.
  [Which test shows what](silent-answers.md).
- **mlx-lm 0.32**: logits with an exported adapter, beside PEFT's; and PEFT's with one of mlx-lm's brought
  back.
- **diffusers 0.42**: one step of a pipeline with the original and with the exported file, of kohya's names
  and its own. Where a part's modules have several alphas in kohya's file its attention gets the commonest
  (`alphas_mixed`): in its own format each module keeps its scale, and the kohya file that is written has one
  alpha for each part.
- **Docker's registry 2.8 and skopeo**: pushed, listed, pulled, and copied from the layout; with a password.
  No registry that keeps referrers and no token server was to be had: what they answer was put before Docker's
  registry.
- **mistral.rs 0.9** on the CPU, and **SGLang's and LMDeploy's** own readers and arithmetic: fifty-nine
  adapters as they are, and what is exported of them.
- **Ollama, LoRAX, TGI and TensorRT-LLM** were not run: the verdicts on what is made for them are by the rules
  read in their sources ([which](runtimes.md)).
"""


def render_page() -> str:
    """The whole page."""
    return _HEAD + "\n".join([*_repairs(), "", "## Formats", "", *_formats()]) + "\n" + _tail()


def _tail() -> str:
    return _TAIL.format(architectures=", ".join(ARCHITECTURES))


def _repairs() -> Iterator[str]:
    for repair in REPAIRS.values():
        told = "yes" if repair.is_exact else "measured"
        asked = "<br>".join(dict.fromkeys(remedy.partition(":")[0] for remedy in repair.remedies))
        yield f"| `{repair.name}` | {repair.description} | {told} | {asked} |"


def _formats() -> Iterator[str]:
    yield "| format | writes | read by | read in our tests by |"
    yield "|---|---|---|---|"
    for format in FORMATS.values():
        yield f"| `{format.name}` | {format.written_files} | {format.reader} | {format.tested_with} |"
