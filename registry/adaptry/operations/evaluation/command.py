"""The command line of lm-evaluation-harness that evaluates one version, planned before anything is fetched.

The adapter is in a folder that is named like its ref, so that the files which lm-eval writes state the
version that was measured.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import ByDigest, Ref
from adaptry.registry.job_types.evaluation import EvaluationOptions

OUTPUT = "results"
"""The folder in which lm-eval writes."""
_SEPARATORS = frozenset(",='\"")


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A version (a ref by digest) on its base with PEFT, or as a running engine serves it under a name.

    `base` is a folder or a name on the Hub; an engine's tokenizer is read from it. `context_length` is the
    engine's, if it is known.
    """

    ref: Ref
    base: str
    device: str = "cpu"
    engine: str | None = None
    served_as: str | None = None
    context_length: int | None = None

    @property
    def engine_name(self) -> str:
        """The engine's name for the version: by default its ref with 12 digits of the digest."""
        brief = self.ref.selector.prefix[:12] if isinstance(self.ref.selector, ByDigest) else ""
        return self.served_as or f"{self.ref.name}@sha256:{brief}"

    def arguments(self, has_chat_template: bool) -> tuple[str, ...]:
        """`--model` and the options that depend on it. Prompts are sent to an engine as tokens, including
        those that the tokenizer adds to a text, as PEFT's model gets them; a chat template adds its own
        tokens.

        Raises `Invalid` for a path that lm-eval would split.
        """
        if self.engine is None:
            given = {"pretrained": self.base, "peft": str(self.ref)}
            return ("--model", "hf", "--model_args", _joined(given), "--device", self.device)
        given = {
            "model": self.engine_name,
            "base_url": completions_url(self.engine),
            "tokenizer": self.base,
            "tokenizer_backend": "huggingface",
            "add_bos_token": str(not has_chat_template),
        }
        if self.context_length is not None:
            given["max_length"] = str(self.context_length)
        return ("--model", "local-completions", "--model_args", _joined(given))


def completions_url(engine: str) -> str:
    """The URL for completions of the engine with this base URL, which may end in `/v1`."""
    return f"{engine.rstrip('/').removesuffix('/v1')}/v1/completions"


def lm_eval_arguments(
    model: EvaluatedModel, options: EvaluationOptions, include_path: str | None = None
) -> list[str]:
    """The arguments of `lm_eval`. Raises `Invalid`."""
    arguments = ["run", *model.arguments(options.apply_chat_template), "--tasks", ",".join(options.tasks)]
    arguments += ["--batch_size", str(options.batch_size), "--output_path", OUTPUT, "--log_samples"]
    if options.limit is not None:
        arguments += ["--limit", str(options.limit)]
    if options.num_fewshot is not None:
        arguments += ["--num_fewshot", str(options.num_fewshot)]
    if options.apply_chat_template:
        arguments.append("--apply_chat_template")
    if include_path is not None:
        arguments += ["--include_path", include_path]
    return arguments


def shell_lines(model: EvaluatedModel, arguments: Sequence[str], server: str | None) -> tuple[str, ...]:
    """The same evaluation as lines for a shell: fetch the version, and evaluate it.

    With a server, lm-eval itself pushes the results to it; otherwise, a third line adds them.
    """
    ref = shlex.quote(str(model.ref))
    fetch = () if model.engine else (f"adaptry pull {ref} --to {ref}",)
    if server is None:
        return (*fetch, shlex.join(["lm_eval", *arguments]), f"adaptry evidence add {ref} {OUTPUT}")
    push = f"hub_results_org={model.ref.name.namespace},push_results_to_hub=True,push_samples_to_hub=True"
    words = ["lm_eval", *arguments, "--hf_hub_log_args", f"{push},public_repo=False"]
    return (*fetch, f"HF_ENDPOINT={shlex.quote(server)} HF_TOKEN=$ADAPTRY_TOKEN {shlex.join(words)}")


def _joined(arguments: dict[str, str]) -> str:
    for value in arguments.values():
        if _SEPARATORS & set(value):
            raise Invalid(
                f"lm-eval accepts no comma, equals sign or quotation mark in {value!r}; use another path or"
                " name"
            )
    return ",".join(f"{key}={value}" for key, value in arguments.items())
