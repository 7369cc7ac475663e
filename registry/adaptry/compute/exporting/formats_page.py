"""The repairs and formats as a page: `python -m adaptry.compute.exporting > docs/exporting.md`."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.compute.exporting.formats import FORMATS
from adaptry.compute.exporting.gguf_names import ARCHITECTURES, MULTIMODAL
from adaptry.compute.exporting.repair_table import REPAIRS

_HEAD = """# Exporting adapters for engines

`adaptry check REF --runtime ENGINE` reports whether an engine serves an adapter as trained, and the remedies.
`adaptry export` makes the repairs:

```sh
adaptry export acme/tone --for llama.cpp --dry-run        # show the repairs and reasons; write nothing
adaptry export acme/tone --for sglang -o acme/tone-sglang # a version that records its parent and repairs
adaptry export acme/tone --for vllm,max_lora_rank=64 -o ./for-vllm
adaptry export ./out --format gguf --base ./base -o ./for-llama
adaptry export acme/tone --push oci://ghcr.io/acme/tone:v3
```

The plan follows from the verdict's findings: each finding has a remedy, and the table below lists the
remedies that are repairs. They are made in the order of the table; each result is written and read back, and
then the engine's rules are checked again. A result that is still not served as trained is refused, and so is
a finding without a repair; the error names the remedy. If the engine already serves the adapter as trained,
no version is created (exit code 1): serve the adapter itself. Features that an adapter file cannot represent
for an engine (a trained head, biases, rows of an embedding) are merged into the base's weights, as a
checkpoint. The result is a folder, not a version of an adapter.

**The error of the result.** If both are plain LoRAs, ΔW of each module is computed from both files and
subtracted. The largest difference is reported; it is 0 for every repair that is called exact. (Factors that
differ only by zeros are compared as factors, since ΔW is the same product.) If a repair is an approximation,
the relative error ‖Δ − Δ'‖ / ‖Δ‖ is reported, and stored with a version as the metric `kept_energy`. `--rank`
and `--energy` truncate an adapter that is not a LoRA; without them, one without a low rank is refused.

**The largest allowed error.** Above a relative error of 0.1 nothing is written and the exit code is 1.
`--max-error` sets another bound; with `--energy` the bound is the loss that this share implies, if that is
larger; `--exact` refuses every change to a value. The error message names the smallest rank within the bound
and the server's option for it. An error of 0.1 means that 99 % of the energy Σσ² is kept, as with `--energy
0.99`. On SmolLM2-135M, with a random adapter of rank 32 (singular values falling by 3 % each) that moves the
base's next-token distributions by 1.2 nats (mean Kullback-Leibler divergence), an error of 0.10 moved the
adapter's own by 0.06 nats, 0.21 by 0.13, and 0.52 by 0.39.

This page is generated from the tables by `python -m adaptry.compute.exporting > docs/exporting.md`.

## Repairs

| repair | effect | exact | for the remedy |
|---|---|---|---|
"""

_TAIL = """
Formats that belong to one engine (`gguf`, `ollama`, `diffusers`) are repaired for that engine if `--for` is
not given. A version in the registry is always in PEFT's layout.

## llama.cpp

A GGUF adapter has one alpha for all modules and does not support rsLoRA, so the rest of a module's scale is
multiplied into its `lora_b`. Names come from the `gguf` package; rows of queries and keys are put in
llama.cpp's order if its converter does so; the experts of a layer are stacked. The base's config and headers
are needed, but not its weights. These model types of transformers are supported, each compared with
llama.cpp's converter without any difference: {architectures}. So were adapters of the language model in
these multimodal ones: {multimodal}; llama.cpp has no tensors for a tower in an adapter, so an adapter that
changes one is refused. Others are refused by name.

There are two differences from that converter. For `fan_in_fan_out` (GPT-2), it transposes the factors with
the weights, although they are [r, in] and [out, r] there too; if a module is square, the file loads and gives
wrong answers. And an update of an embedding that is also the output head is refused here, since llama.cpp
would change both or neither.

## OCI

The artifact has ModelPack's media types. The weights, the config and the documents are unchanged layers,
named by `org.cncf.model.filepath`. Its `subject` is the base's manifest: one in that repository, given by
`--subject TAG` or a digest, otherwise a small manifest with the base's id and facts, which is pushed too. A
registry with the referrers API lists the adapters of a base by it. For other registries (which omit
`OCI-Subject` in the response), adapters are listed in an index under the tag `sha256-<hex of the subject>`,
as the specification requires. Two clients that write that tag at once may lose one entry, since it cannot be
locked: pushing again adds it. Logins are read from the files of `docker login`, oras or skopeo; credential
helpers are not run. `ADAPTRY_CA_BUNDLE` and `ADAPTRY_PROXY` apply here too. `--format oci -o ./DIR` writes an
image layout, which skopeo copies anywhere.

## Tested with

- **llama.cpp** (through xllamacpp): the log-probabilities of every next token compared with PEFT's for the
  original, for a plain LoRA, rsLoRA, `alpha_pattern`, `rank_pattern`, embeddings, GPT-2's transposed weights,
  fused experts of Mixtral, and a LoHa. Without the repair they differ by more than 0.1, with it by less than
  0.0002 (GPT-2: 0.005, since its GELU is a table of half floats).
- **llama.cpp's converter**: every architecture above, tensor by tensor.
- **vLLM 0.32** on the CPU: the logprobs of its answers compared with PEFT's, for an adapter of rank 32
  resized to 16, a DoRA merged and converted to a LoRA, and a merged trained head and trained rows of an
  embedding.
- **PEFT**: its logits with the result compared with those for the original, for scales folded for SGLang,
  LoRAX, TGI, TensorRT-LLM and LMDeploy, added layers, merged heads and corrected names. [The
  tests](silent-answers.md).
- **mlx-lm 0.32**: its logits with an exported adapter compared with PEFT's; and PEFT's with a converted
  adapter of mlx-lm.
- **diffusers 0.42**: one step of a pipeline with the original and with the exported file, with kohya's names
  and its own. If modules of a part have different alphas in kohya's file, attention gets the most frequent
  (`alphas_mixed`). In diffusers' format each module keeps its scale, and a kohya file that we write has one
  alpha for each part.
- **Docker's registry 2.8 and skopeo**: pushing, listing, pulling, and copying from the layout; with a
  password. No registry with referrers and no token server was available: their responses were simulated by a
  proxy in front of Docker's registry.
- **mistral.rs 0.9** on the CPU, and the readers and arithmetic of **SGLang and LMDeploy**: fifty-nine
  adapters, unchanged and exported.
- **Ollama, LoRAX, TGI and TensorRT-LLM** were not run: their verdicts follow the rules from their sources
  ([list](runtimes.md)).
"""


def render_page() -> str:
    """The complete page."""
    return _HEAD + "\n".join([*_repairs(), "", "## Formats", "", *_formats()]) + "\n" + _tail()


def _tail() -> str:
    return _TAIL.format(architectures=", ".join(ARCHITECTURES), multimodal=", ".join(MULTIMODAL))


def _repairs() -> Iterator[str]:
    for repair in REPAIRS.values():
        exact = "yes" if repair.is_exact else "measured"
        when = "<br>".join(dict.fromkeys(remedy.partition(":")[0] for remedy in repair.remedies))
        yield f"| `{repair.name}` | {repair.description} | {exact} | {when} |"


def _formats() -> Iterator[str]:
    yield "| format | files | read by | tested with |"
    yield "|---|---|---|---|"
    for format in FORMATS.values():
        yield f"| `{format.name}` | {format.written_files} | {format.reader} | {format.tested_with} |"
