"""The frozen base model from a Hugging Face name or a local folder: safetensors only, no code from the checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysoft.data.base import TaskKind
from raysoft.data.hub import hub_is_offline
from raysoft.errors import ConfigError
from raysoft.models.frozen import (
    FrozenBase,
    aligned_copy,
    body_name,
    build_module,
    checksum,
    empty_module,
    freeze,
    quiet,
    verify,
)
from raysoft.rng import Rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_log = logging.getLogger(__name__)
_AUTO_CLASSES = {
    "image-classification": "AutoModelForImageClassification",
    "sequence-classification": "AutoModelForSequenceClassification",
    "causal-lm": "AutoModelForCausalLM",
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def load_base(
    name_or_folder: str,
    kind: TaskKind,
    num_labels: int | None,
    label_names: tuple[str, ...],
    revision: str | None,
    rng: Rng,
    pad_id: int | None = None,
) -> FrozenBase:
    """A pretrained model for a task. `HF_HUB_OFFLINE=1` reads the local cache only.

    A head that the checkpoint lacks (or has for another number of labels) is drawn from `rng`: normal with the model's
    initializer_range, biases zero; its parameters are listed in `fresh`. Where the checkpoint knows the same labels in
    another order, its head is put into the order of `label_names`. `pad_id` is what the texts are padded with: decoder
    classifiers find the end of a sample by it. Raises ConfigError("model.name", ...) for a missing
    folder or name, weights that are not safetensors, an unknown architecture, or a checkpoint that does not fit.
    """
    import torch

    config = read_config(name_or_folder, revision)
    if pad_id is not None and kind == "sequence-classification":
        config.get_text_config().pad_token_id = config.pad_token_id = pad_id
    old_names = tuple(str(config.id2label[i]) for i in sorted(config.id2label)) if num_labels is not None else ()
    if num_labels is not None:
        names = label_names or tuple(f"LABEL_{i}" for i in range(num_labels))
        config.num_labels = num_labels
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    with torch.random.fork_rng(devices=[]):  # the library draws missing weights; ours replace them below
        module, missing = _load_module(name_or_folder, kind, config, revision)
    fresh = _draw_missing(module, missing, name_or_folder, rng)
    if fresh and kind == "causal-lm":
        raise _refuse(
            name_or_folder, f"has no trained language-model head (it lacks {fresh[0]}); choose a language model"
        )
    if kind == "causal-lm":
        _check_causal(module, name_or_folder)
    if fresh:  # models/tasks.py sees to it that such a head is trained
        _log.info("%s: %s not in the checkpoint, drawn from the run's seed", name_or_folder, ", ".join(fresh))
    elif label_names:
        fresh = _reorder_labels(module, old_names, label_names)
    return freeze(module, kind, name_or_folder if revision is None else f"{name_or_folder}@{revision}", fresh)


def _refuse(name: str, why: str) -> ConfigError:
    return ConfigError("model.name", f"{name!r} {why}")


def _check_folder(name: str) -> None:
    """Clear words for what can be seen without loading anything."""
    folder = Path(name).expanduser()
    if not folder.exists():
        if name.startswith(("/", ".", "~")) or name.count("/") > 1 or not name.strip():
            raise _refuse(name, "is not an existing folder")
        return
    if not folder.is_dir():
        raise _refuse(name, "is a file; give the folder that holds config.json and model.safetensors")
    if (folder / "adapter_config.json").exists():
        raise _refuse(name, "holds an adapter, not a base model; name the model it was trained on")
    if not (folder / "config.json").exists():
        raise _refuse(name, "holds no config.json; give a folder written by save_pretrained")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        found = f"has its weights in {pickles[0]}, which can run code when read" if pickles else "holds no weights"
        raise _refuse(name, f"{found}; only safetensors are read (save_pretrained writes them)")


def read_config(name: str, revision: str | None) -> Any:
    """A model's configuration, weights unread. Raises ConfigError("model.name") as `load_base` does."""
    from transformers import AutoConfig

    _check_folder(name)
    try:
        with quiet():
            return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # a damaged config.json: every architecture checks it in its own way
        raise _explain(name, error) from None


def position_offset(config: Any) -> int:
    """How many rows of the position table no token has: RoBERTa and its kin count from padding_idx + 1."""
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"), quiet():
            module = AutoModel.from_config(config)
    except Exception:  # whatever is wrong with it is said when it is loaded
        return 0
    for name, part in module.named_modules():
        if (
            isinstance(part, torch.nn.Embedding)
            and name.endswith("position_embeddings")
            and part.padding_idx is not None
        ):
            return part.padding_idx + 1
    return 0


def _explain(name: str, error: Exception) -> ConfigError:
    """One sentence instead of the library's paragraphs."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "requires you to execute" in text:
        return _refuse(
            name,
            "needs Python code from its repository, which is never run; choose a model whose "
            "architecture is part of transformers",
        )
    if "safetensors" in text:
        return _refuse(name, "has no safetensors weights; only safetensors are read")
    if "does not recognize" in text or "Unrecognized model" in text or "should have a `model_type`" in text:
        return _refuse(name, "has an architecture that the installed transformers does not know")
    if Path(name).expanduser().exists():
        return _refuse(name, f"cannot be read: {text[:160]}")
    if hub_is_offline():
        return _refuse(name, "is neither a folder nor in the local cache, and HF_HUB_OFFLINE forbids to download it")
    if "onnect" in text or "offline" in text or "cached files" in text:
        return _refuse(name, "is neither a folder nor in the local cache, and the Hugging Face hub cannot be reached")
    return _refuse(
        name,
        "is neither a folder nor a model on the Hugging Face hub that can be read (check the spelling, "
        "and model.revision)",
    )


def _load_module(name: str, kind: TaskKind, config: Any, revision: str | None) -> tuple[Any, set[str]]:
    """The model and the names of weights that the checkpoint lacks or has in another shape."""
    import transformers

    auto = getattr(transformers, _AUTO_CLASSES[kind])
    if type(config) not in auto._model_mapping:
        raise _refuse(name, f"is a {config.model_type} model, for which transformers has no {kind} head")
    try:
        with quiet():
            module, info = auto.from_pretrained(
                name,
                config=config,
                revision=revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype="auto",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # from the reader of the weights, or from any line of an architecture
        raise _explain(name, error) from None
    if getattr(module, "_hf_peft_config_loaded", False):
        raise _refuse(name, "is an adapter, not a base model; name the model it was trained on")
    strange = [key for key, value in module.named_parameters() if not value.isfinite().all()]
    if strange:
        raise _refuse(name, f"has {len(strange)} weights with values that are not finite, e.g. {strange[0]}")
    return module, set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}


def _check_causal(module: Any, name: str) -> None:
    """An encoder with a language-model head sees the token it has to predict; its loss would mean nothing."""
    import torch

    ids = torch.tensor([[0, 1, 2], [0, 1, 3]]) % module.config.get_text_config().vocab_size
    with torch.no_grad():
        one, two = module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :2].float()
    if (one - two).abs().max() > 1e-2 * one.abs().max():
        raise _refuse(
            name,
            f"is a {module.config.model_type} model whose attention also looks ahead, so it cannot be trained as a "
            "causal-lm; choose a decoder such as GPT-2 or Llama",
        )


def _draw_missing(module: torch.nn.Module, missing: set[str], name: str, rng: Rng) -> tuple[str, ...]:
    """Fill in a missing head (or pooler); anything else missing means that checkpoint and architecture do not fit."""
    import torch

    body = f"{body_name(module)}."
    parameters = dict(module.named_parameters())
    fresh = sorted(key for key in missing if key in parameters)
    strange = [key for key in fresh if key.startswith(body) and ".pooler." not in key]
    if strange:
        raise _refuse(
            name,
            f"lacks {len(strange)} of {len(parameters)} weights of {type(module).__name__} (or has "
            f"them in another shape), e.g. {strange[0]}",
        )
    config: Any = module.config
    std = float(getattr(config, "initializer_range", None) or 0.02)
    with torch.no_grad():
        for key in fresh:
            target = parameters[key]
            if target.ndim > 1:
                draws = rng(f"fresh_weight:{key}").normal(0.0, std, tuple(target.shape))
                target.copy_(torch.from_numpy(draws))
            else:
                target.fill_(0.0 if key.endswith("bias") else 1.0)
    return tuple(fresh)


def _reorder_labels(module: torch.nn.Module, old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Rows of the last head layer in the data's order of labels, where the checkpoint knows the same labels.

    Returns the names of the parameters that changed.
    """
    import torch

    order = [list(old).index(name) for name in new] if sorted(old) == sorted(new) else []
    if not order or order == sorted(order):
        return ()
    body = f"{body_name(module)}."
    heads = [
        (key, part)
        for key, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and not key.startswith(body) and part.out_features == len(order)
    ]
    if not heads:
        return ()
    name, head = heads[-1]
    with torch.no_grad():
        for value in head.parameters():
            value.copy_(value[order].clone())
    return tuple(f"{name}.{leaf}" for leaf, _ in head.named_parameters())


__all__ = [
    "FrozenBase",
    "aligned_copy",
    "build_module",
    "checksum",
    "empty_module",
    "freeze",
    "load_base",
    "position_offset",
    "read_config",
    "verify",
]
