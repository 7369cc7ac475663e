"""Boolean and numeric fields of PEFT's configs, for all its methods.

They were read from the dataclasses of PEFT 0.21.2 (`PEFT_TYPE_TO_CONFIG_MAPPING`); a test compares them with
the installed PEFT. A field that is boolean in one method and has another type in another (`init_weights`) is
not listed; ranks (`r`), which have a separate rule, are not listed either.
"""

from __future__ import annotations

FLAGS = frozenset(
    """
    apply_GS block_share coft decompose_both enable_softmax enable_softmax_topk ensure_weight_tying
    fan_in_fan_out inference_mode init_ia3_weights layerwise_scalings lora_bias para
    prefix_projection progressbar proportional_parameters psoft_mag_a psoft_mag_b psoft_orth
    rank_dropout_scale runtime_offload_base_weight sample_at_inference save_indices
    save_only_topk_weights save_precomputed_indices save_projection select_top share_embeddings
    sparse use_asa use_cayley_neumann use_dora use_dynamic_rank use_effective_conv2d use_idwt
    use_qalora use_rslora use_trainable_adapters very_sparse
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Fields that are true or false."""

NUMBERS = frozenset(
    """
    adapter_layers adapter_len alpha asa_importance_beta asa_schedule_exponent asa_target_subspaces
    asa_uncertainty_beta auxiliary_loss_weight beta1 beta2 block_size boft_block_num boft_block_size
    boft_dropout boft_n_butterfly_factor cayley_neumann_eps d_initial decompose_factor deft_dropout
    delora_lambda deltaT depth effective_rank encoder_dropout encoder_hidden_size encoder_num_layers
    eps final_warmup frod_dropout generator_seed global_scaling_weight gralora_dropout gralora_k
    group_size hidden_size hira_dropout hybrid_r init_logits_std init_r init_scale
    init_theta_d_bound init_v_bound init_vector_bank_bound init_warmup lora_alpha lora_dropout
    mask_interval mini_r miss_dropout module_dropout n_frequency n_skills n_splits n_tasks num_B
    num_attention_heads num_cayley_neumann_terms num_frozen_tokens num_layers num_ranks
    num_subspaces num_tasks num_transformer_submodules num_vectors num_virtual_tokens oft_block_size
    opt_loss_decay_factor opt_projection_epsilon opt_projection_format_epsilon orth_reg_weight
    proj_seed projection_prng_key projection_seed prompt_tuning_init_task psoft_alpha psoft_dropout
    psoft_svd_lowrank_niter pvera_dropout qalora_group_size randlora_alpha randlora_dropout
    random_loc_seed random_seed rank_dropout regularization_alpha scaling scaling_pass_value
    shadow_alpha shadow_dropout shadow_hidden_size shadow_intermediate_size
    shadow_num_attention_heads shadow_num_hidden_layers softmax_temperature sparse_rate sparsity
    stride_A subspace_rank svd_threshold target_r tfinal theta_d_length tinit tinylora_dropout
    token_dim top_k_lora topk total_step u unilora_dropout update_hidden_size vblora_dropout
    vector_length vera_dropout weight_tying xlora_depth xlora_dropout_p xlora_size
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Fields that are numbers, whole or not."""

_MAY_BE_NULL = frozenset(
    """
    alpha cayley_neumann_eps effective_rank generator_seed lora_alpha num_attention_heads num_layers
    num_ranks num_tasks num_transformer_submodules opt_loss_decay_factor opt_projection_epsilon
    opt_projection_format_epsilon prompt_tuning_init_task random_loc_seed random_seed
    shadow_hidden_size shadow_intermediate_size shadow_num_attention_heads shadow_num_hidden_layers
    top_k_lora total_step update_hidden_size
    """.split()  # noqa: SIM905  (as a list it would be a page)
)

REQUIRED = NUMBERS - _MAY_BE_NULL
"""Numeric fields that may be absent, but never null."""
