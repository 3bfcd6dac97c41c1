"""Tiny shapes of decoder architectures that compute in other ways than the usual ones of
`tiny_models`.
"""

from __future__ import annotations

from typing import Any

PLAIN = {"hidden_size": 32, "num_hidden_layers": 2}
ATTENTION = {
    **PLAIN, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "max_position_embeddings": 256,
}  # fmt: skip
EVEN = {**ATTENTION, "num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
STATE = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_expand": 2,
    "mamba_chunk_size": 4,
}  # fmt: skip
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
LATENT = {
    **EVEN, "head_dim": 8, "q_lora_rank": None, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Once encoders, or half of an encoder and decoder.
CAUSAL = {
    **PLAIN, "intermediate_size": 48, "num_attention_heads": 2, "max_position_embeddings": 256, "is_decoder": True,
    "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0,
}  # fmt: skip
HALF = {
    "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "encoder_layers": 1,
    "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "max_position_embeddings": 256, "is_decoder": True,
    "is_encoder_decoder": False,
}  # fmt: skip

RECURRENT: dict[str, dict[str, Any]] = {
    # More layers than `rescale_every`: some of its weights change when it is evaluated.
    "rwkv": {**PLAIN, "num_hidden_layers": 7, "attention_hidden_size": 32, "intermediate_size": 48},
    "mamba": {**PLAIN, "state_size": 8},
    "falcon_mamba": {**PLAIN, "state_size": 8},
    "mamba2": {**PLAIN, "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4},
    "xlstm": {**PLAIN, "num_heads": 2, "chunk_size": 16, "qk_dim_factor": 1.0, "v_dim_factor": 1.0},
    "recurrent_gemma": {**ATTENTION, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 4},
    "jamba": {
        **ATTENTION, "num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "bamba": {**ATTENTION, "attn_layer_indices": [1], **STATE},
    "zamba": {
        **EVEN, "num_hidden_layers": 6, "attn_layer_period": 3, "attn_layer_offset": 2, "n_mamba_heads": 2,
        "mamba_d_state": 8, "use_mamba_kernels": False, "attention_head_dim": 32, "attention_hidden_size": 64,
        "mamba_dt_rank": 4,
    },
    "zamba2": {
        **EVEN, "num_hidden_layers": 4, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4,
        "mamba_headdim": 16, "chunk_size": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "use_mem_rope": True,
        "adapter_rank": 4,
    },
    "falcon_h1": {**ATTENTION, "mamba_d_ssm": 64, **STATE},
    "nemotron_h": {
        **ATTENTION, "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4, "mamba_head_dim": 16,
        "n_groups": 1, "ssm_state_size": 8, "chunk_size": 4,
    },
    "granitemoehybrid": {
        **ATTENTION, "layer_types": ["mamba", "attention"], **EXPERTS, "shared_intermediate_size": 48, **STATE,
    },
    "qwen3_next": {
        **ATTENTION, **LINEAR, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_5_text": {**ATTENTION, **LINEAR},
    "olmo_hybrid": {**ATTENTION, **LINEAR},
}  # fmt: skip

OTHERS: dict[str, dict[str, Any]] = {
    # Short convolutions and linear attention.
    "lfm2": {**ATTENTION, "layer_types": ["conv", "full_attention"]},
    "minimax": {**ATTENTION, "layer_types": ["linear_attention", "full_attention"], **EXPERTS, "block_size": 4},
    # Positions by distance (ALiBi), by the mask, learnt, or none that a caller may give.
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 256, "expansion_ratio": 2},
    "falcon": {**PLAIN, "num_attention_heads": 2, "alibi": True},
    "opt": {**PLAIN, "ffn_dim": 48, "num_attention_heads": 2, "word_embed_proj_dim": 32, "dropout": 0.0},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 2, "ffn_dim": 48, "dropout": 0.0},
    "openai-gpt": GPT,
    "ctrl": {**GPT, "dff": 48},
    # Windows and chunks.
    "gpt_neo": {**PLAIN, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
    | {"window_size": 4, "max_position_embeddings": 256},
    "gemma3_text": {**ATTENTION, "sliding_window": 4},
    "gemma3n_text": {
        **ATTENTION, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 400,
        "hidden_size_per_layer_input": 8, "laurel_rank": 4, "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4,
    },
    "cohere2": {**ATTENTION, "sliding_window": 4},
    "exaone4": {**ATTENTION, "sliding_window": 4},
    "gpt_oss": {**ATTENTION, **EXPERTS, "sliding_window": 4},
    "modernbert-decoder": {**ATTENTION, "local_attention": 4, "global_attn_every_n_layers": 2},
    "llama4_text": {
        **ATTENTION, "intermediate_size_mlp": 48, "attention_chunk_size": 4, "num_local_experts": 2,
        "num_experts_per_tok": 1,
    },
    # Other ways to keep keys and values.
    "gpt_bigcode": GPT,
    "gptj": {**GPT, "rotary_dim": 8},
    "codegen": {**GPT, "rotary_dim": 8},
    "deepseek_v2": LATENT,
    "deepseek_v3": {**LATENT, "q_lora_rank": 8},
    "diffllama": EVEN,
    "phi": EVEN,
    "phi3": ATTENTION,
    "stablelm": ATTENTION,
    "olmo2": ATTENTION,
    "doge": ATTENTION,
    "jetmoe": {**ATTENTION, "num_local_experts": 2, "num_experts_per_tok": 1, "kv_channels": 16},
    "bert": CAUSAL,
    "roberta": CAUSAL,
    "roformer": {**CAUSAL, "embedding_size": 32},
    "bart": HALF,
    "whisper": {**HALF, "max_target_positions": 256},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "causal": True},
}  # fmt: skip
DROPOUT = {
    "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "activation_dropout",
    "resid_dropout", "embed_dropout",
}  # fmt: skip
DECODERS = RECURRENT | OTHERS
