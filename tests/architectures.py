"""A tiny, randomly drawn model of every architecture that `model.lora.targets: auto` knows, and of some odd ones."""

from __future__ import annotations

from typing import Any

VOCABULARY = 64
PAD = 1
LABELS = ("red", "green", "blue")
IMAGE_TYPES = ("vit", "deit", "beit", "dinov2", "swin", "clip", "siglip")
CAUSAL_ONLY = ("codegen", "gptj", "gpt_neo", "olmo", "olmo2", "granite", "cohere", "falcon", "mpt", "phi3_small")

UNSET: Any = object()  # a property there, not a setting
# Whatever an architecture calls its sizes: those it has are set.
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "emb_dim": 32,
    "embedding_size": 32,
    "true_hidden_size": 32,
    "intra_bottleneck_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "hidden_dim": 48,
    "n_inner": 48,
    "max_position_embeddings": 40,
    "n_positions": 40,
    "n_ctx": 40,
    "max_seq_len": 40,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": 8,
    "position_buckets": 4,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "pad_index": PAD,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "num_local_experts": 2,
    "num_experts_per_tok": 2,
    "attention_window": [4, 4],
    "use_cache": False,
}
ODD = ("longformer", "xlnet", "mamba2", "openai-gpt", "mpnet", "big_bird")
_OWN: dict[str, dict[str, Any]] = {
    "swin": {
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 2,
        "num_layers": UNSET,
        "hidden_size": UNSET,
        "num_attention_heads": UNSET,
        "num_hidden_layers": UNSET,
    },
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "albert": {"num_hidden_groups": 1, "inner_group_num": 1},
    "mobilebert": {"num_attention_heads": 2, "num_hidden_layers": 2},
    "modernbert": {"global_attn_every_n_layers": 1, "local_attention": 8},
    "modernbert-decoder": {"global_attn_every_n_layers": 1, "local_attention": 8},
    "gpt_bigcode": {"multi_query": True},
    "xlm": {"n_langs": 1, "causal": False},
    "longformer": {"max_position_embeddings": 66},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8},
    "xlnet": {"d_inner": 48, "d_head": 8, "max_position_embeddings": UNSET},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "head_dim": UNSET},
    "deit": {"image_size": 16},
}


def kind_of(model_type: str) -> str:
    if model_type in IMAGE_TYPES:
        return "image-classification"
    import transformers

    config_class = transformers.CONFIG_MAPPING[model_type]
    classifies = config_class in transformers.AutoModelForSequenceClassification._model_mapping
    return "sequence-classification" if classifies else "causal-lm"


def tiny(model_type: str, seed: int = 0) -> Any:
    """A model with a head for its kind of task (`kind_of`)."""
    import torch
    import transformers as tf

    names = dict(enumerate(LABELS))
    config = tf.AutoConfig.for_model(model_type)
    targets = [config]
    if model_type in ("clip", "siglip"):
        targets = [config.vision_config]
    for part in targets:
        wanted = {key: value for key, value in _SIZES.items() if hasattr(part, key)} | _OWN.get(model_type, {})
        wanted = {key: value for key, value in wanted.items() if value is not UNSET}
        fresh = type(part)(**wanted)
        if part is config:
            config = fresh
        else:
            config.vision_config = fresh
    config.id2label, config.label2id = names, {name: n for n, name in names.items()}
    auto = {
        "image-classification": tf.AutoModelForImageClassification,
        "sequence-classification": tf.AutoModelForSequenceClassification,
        "causal-lm": tf.AutoModelForCausalLM,
    }[kind_of(model_type)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = auto._model_mapping[type(config)]
        model = (found[-1] if isinstance(found, tuple) else found)(config)
        for name, value in model.named_parameters():
            if value.ndim > 1 and "embed" not in name:
                torch.nn.init.normal_(value, std=0.15)
    return model.eval()
