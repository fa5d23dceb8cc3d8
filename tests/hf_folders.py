"""Small Hugging Face models, and folders of them, that tests create themselves (no network, no download)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 80
LABELS = ("red", "green", "blue")


def make_model(family: str, task: str = "auto", seed: int = 0, **changes: Any) -> Any:
    """A randomly drawn `vit`, `roberta`, `gpt2` or `llama` (GPT-2 and Llama: causal LM, or `task="classification"`)."""
    import torch
    import transformers as tf

    sizes: dict[str, Any] = {
        "vit": dict(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
        ),
        "roberta": dict(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=40,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        ),
        "gpt2": dict(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=40,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        ),
        "llama": dict(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        ),
    }[family] | changes
    classes = {
        ("vit", "auto"): (tf.ViTConfig, tf.ViTForImageClassification),
        ("roberta", "auto"): (tf.RobertaConfig, tf.RobertaForSequenceClassification),
        ("gpt2", "auto"): (tf.GPT2Config, tf.GPT2LMHeadModel),
        ("gpt2", "classification"): (tf.GPT2Config, tf.GPT2ForSequenceClassification),
        ("llama", "auto"): (tf.LlamaConfig, tf.LlamaForCausalLM),
        ("llama", "classification"): (tf.LlamaConfig, tf.LlamaForSequenceClassification),
    }
    config_class, model_class = classes[family, task]
    config = config_class(**sizes, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for name, value in model.named_parameters():
            if value.ndim > 1 and "embed" not in name:
                torch.nn.init.normal_(value, std=0.15)  # strong enough that a wrong adapter shows in the logits
    return model.eval()


def make_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer over `w0 .. w70` with RoBERTa's special tokens, written to the folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [*special, *(f"w{i}" for i in range(70))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    fast.save_pretrained(folder)
    return fast


def make_folder(folder: Path, family: str, task: str = "auto", seed: int = 0, **changes: Any) -> Path:
    """A model folder as `save_pretrained` writes it, with a tokenizer or an image processor."""
    model = make_model(family, task, seed, **changes)
    model.save_pretrained(folder)
    if family == "vit":
        size = model.config.image_size
        _image_processor(size, model.config.num_channels).save_pretrained(folder)
    else:
        make_tokenizer(folder)
    return Path(folder)


def _image_processor(size: int, channels: int) -> Any:
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        size={"height": size, "width": size}, image_mean=[0.5] * channels, image_std=[0.5] * channels
    )
