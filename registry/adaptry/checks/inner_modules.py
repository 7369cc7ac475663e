"""Parts of PEFT's own layers that an item of `modules_to_save` selects.

PEFT first adapts modules, and then saves every module whose name ends with an item, also within a word. Among
them are the parts of its layers: `A` selects `lora_A`, `dropout` selects `lora_dropout`. It raises an error
for all of them but `base_layer`, whose weight it then looks for in the file.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from adaptry.adapters.methods.extras import PREFIX

BASE_LAYER = "base_layer"
_LORA = [
    "lora_A",
    "lora_B",
    "lora_dropout",
    "lora_dropout.default",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
]
INNER: Mapping[str, Sequence[str]] = {
    "lora": [*_LORA, "lora_A.default", "lora_B.default"],
    "adalora": [*_LORA, "lora_E", "ranknum"],
    "adamss": ["adamss_A", "adamss_A.default", "adamss_B", "adamss_B.default", "adamss_newB"],
    "beft": ["beft_bias"],
    "boft": ["boft_R", "boft_dropout", "boft_dropout.default", "boft_s"],
    "bone": ["miss_block", "miss_dropout", "miss_dropout.default"],
    "c3a": ["c3a_kernel"],
    "deft": ["_cached_merge_factor", "deft_P", "deft_R", "deft_dropout", "deft_dropout.default"],
    "delora": [
        "delora_A",
        "delora_B",
        "delora_dropout",
        "delora_dropout.default",
        "delora_lambda",
        "delora_w_norm",
    ],
    "fourierft": ["fourierft_spectrum"],
    "frod": ["frod_U", "frod_dropout", "frod_dropout.default", "frod_lambda_l", "frod_lambda_s_values"],
    "glora": [f"glora_{path}{end}" for path in "ABCDE" for end in ("", ".default")],
    "gralora": [
        *("gralora_A", "gralora_A_general", "gralora_B", "gralora_B_general"),
        *("gralora_dropout", "gralora_dropout.default"),
    ],
    "hira": [
        "hira_A",
        "hira_B",
        "hira_dropout",
        "hira_dropout.default",
        "hira_embedding_A",
        "hira_embedding_B",
    ],
    "hra": ["hra_u"],
    "ia3": ["ia3_l"],
    "lily": ["lily_A", "lily_A.default", "lily_B", "lily_B.default", "lily_router", "lily_router.default"],
    "ln_tuning": ["ln_tuning_layers", "ln_tuning_layers.default"],
    "loha": ["hada_t1", "hada_t2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"],
    "lokr": ["lokr_t2", "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"],
    "miss": ["miss_block", "miss_dropout", "miss_dropout.default"],
    "oft": ["oft_R", "oft_R.default", "oft_dropout", "oft_dropout.default", "oft_embedding_R"],
    "osf": [
        *("_osf_S_low_init", "_osf_U_high", "_osf_U_low_init", "_osf_V_high", "_osf_V_low_init"),
        *("osf_svd_params", "osf_svd_params.default"),
    ],
    "peanut": [
        f"peanut_{part}{end}" for part in ("A", "B", "decoders", "encoders") for end in ("", ".default")
    ],
    "poly": ["poly_lora_A", "poly_lora_B", "poly_router", "poly_router.default"],
    "psoft": [
        "_psoft_A_cache",
        "_psoft_B_cache",
        "psoft_R",
        "psoft_R.default",
        "psoft_dropout",
        "psoft_dropout.default",
    ],
    "pvera": [
        "pvera_A",
        "pvera_B",
        "pvera_dropout",
        "pvera_dropout.default",
        "pvera_lambda_b",
        "pvera_lambda_d",
    ],
    "randlora": [
        *("randlora_A", "randlora_B", "randlora_dropout", "randlora_dropout.default"),
        *("randlora_gamma", "randlora_lambda"),
    ],
    "road": ["road_alpha", "road_theta"],
    "shira": ["shira_weight"],
    "supertuning": [
        *("supertuning_indices", "supertuning_values"),
        *(f"supertuning_lora_{part}{end}" for part in ("A", "B", "dropout") for end in ("", ".default")),
    ],
    "tinylora": [
        *("tinylora_A", "tinylora_B", "tinylora_P", "tinylora_dropout", "tinylora_dropout.default"),
        *("tinylora_v", "tinylora_v.default"),
    ],
    "unilora": [
        *("unilora_dropout", "unilora_dropout.default", "unilora_indices_A", "unilora_indices_B"),
        *("unilora_scales_A", "unilora_scales_B", "unilora_theta_d"),
    ],
    "vblora": [
        *("vblora_dropout", "vblora_dropout.default", "vblora_logits_A", "vblora_logits_B"),
        "vblora_vector_bank",
    ],
    "vera": ["vera_A", "vera_B", "vera_dropout", "vera_dropout.default", "vera_lambda_b", "vera_lambda_d"],
    "waveft": ["waveft_spectrum"],
}
"""By method, the names of the modules inside PEFT 0.21's layer, beside `base_layer`. A test compares them."""


def saved_inner_module(method: str, ends: tuple[str, ...], paths: Iterable[str]) -> str | None:
    """The first part of a layer at one of these paths that PEFT refuses to save, or None.

    `ends` are the items of `modules_to_save`.
    """
    names = INNER.get(method, ()) if ends else ()
    inner = (f"{path}.{name}" for path in paths for name in names)
    return next((name for name in inner if name.endswith(ends)), None)


def base_layers_without_tensors(
    ends: tuple[str, ...], paths: Iterable[str], parameters: Container[str], tensors: Container[str]
) -> Iterator[str]:
    """The parameters of saved `base_layer` modules that are missing from the file. `paths` are those of
    PEFT's layers, `parameters` those of the model, `tensors` those of the file.
    """
    for path in paths:
        if not f"{path}.{BASE_LAYER}".endswith(ends):
            continue
        for name in ("weight", "bias"):
            held = f"{path}.{BASE_LAYER}.{name}"
            if f"{path}.{name}" in parameters and f"{PREFIX}{held}" not in tensors:
                yield held
