"""Which matrices get LoRA factors, and which head parameters are trained: from configuration and architecture.

Names follow peft: a list of names matches whole module names or their ends, a string is such a name or a regular
expression over whole module names; `auto` takes the attention projections that the LoRA paper adapts (query and value,
Hu et al., ICLR 2022, section 4.2); `attention` takes every linear layer of the attention blocks, `all-linear` every
one outside the head.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from raysoft.config import LoraConfig
from raysoft.errors import ConfigError
from raysoft.models.frozen import FrozenBase, as_float32, body_name, empty_module
from raysoft.types import Array, DenseBlock, LoraPair, ParamSpace

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

# Query and value projections by model type; families that share names share a line.
_FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("q_proj", "v_proj"),
        (
            "vit",
            "deit",
            "clip",
            "siglip",
            "llama",
            "mistral",
            "mixtral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3_text",
            "opt",
            "gpt_neo",
            "gptj",
            "phi",
            "stablelm",
            "olmo",
            "olmo2",
            "smollm3",
            "granite",
            "cohere",
            "bart",
            "modernbert-decoder",
        ),
    ),
    (
        ("query", "value"),
        (
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "electra",
            "albert",
            "beit",
            "data2vec-text",
            "dinov2",
            "swin",
            "mobilebert",
            "layoutlm",
            "longformer",
            "big_bird",
            "rembert",
            "roformer",
            "convbert",
        ),
    ),
    (("q", "v"), ("mpnet",)),
    (("c_attn",), ("gpt2", "gpt_bigcode", "openai-gpt")),
    (("q_lin", "v_lin"), ("distilbert", "flaubert", "xlm")),
    (("query_key_value",), ("gpt_neox", "bloom", "falcon")),
    (("query_proj", "value_proj"), ("deberta-v2",)),
    (("in_proj",), ("deberta",)),
    (("qkv_proj",), ("phi3", "codegen")),
    (("Wqkv",), ("mpt", "modernbert")),
)
_SHOWN = 12


def lora_space(
    base: FrozenBase, lora: LoraConfig, called: Collection[str] | None = None
) -> tuple[ParamSpace, dict[str, Array]]:
    """The trained parameters, and the start values of the trained head (empty without `train_head`), float32.

    `called`: the linear layers that a forward pass goes through (`called_linears`). One that is never called learns
    nothing, yet its bits would be charged: left out of what `auto`, `attention` and `all-linear` take, refused where
    it was asked for by name.
    Raises ConfigError for `model.lora.targets`, `model.lora.layers`, `model.lora.rank` or `model.lora.train_head`.
    """
    module = empty_module(base)
    head_modules = _head_modules(module, base) if lora.train_head else {}
    found = _linear_modules(module)
    adaptable = {name: size for name, size in found.items() if name not in head_modules}
    chosen = _choose(module, adaptable, lora.targets)
    chosen = _choose_layers(chosen, lora.layers)
    chosen = _without_dead(chosen, called, lora.targets, base)
    if not chosen:
        raise ConfigError(
            "model.lora.targets",
            f"{lora.targets!r} finds no linear layer in the body of {base.architecture}; raysoft adapts linear layers, "
            "not convolutions: choose another model",
        )
    pairs = tuple(LoraPair(name, *adaptable[name]) for name in chosen)
    head = {
        f"{name}.{leaf}": as_float32(base.weights[f"{name}.{leaf}"])
        for name, part in head_modules.items()
        for leaf, _ in part.named_parameters(recurse=False)
    }
    dense = tuple(DenseBlock(name, value.shape) for name, value in head.items())
    return ParamSpace((*pairs, *dense), lora.max_rank(), lora.scale()), head


def _without_dead(names: list[str], called: Collection[str] | None, targets: Any, base: FrozenBase) -> list[str]:
    dead = [] if called is None else [name for name in names if name not in called]
    if not dead:
        return names
    by_name = isinstance(targets, list) or targets not in ("auto", "attention", "all-linear")
    if by_name or len(dead) == len(names):
        raise ConfigError(
            "model.lora.targets",
            f"{dead[0]} of {base.architecture} is never called as a layer by its model, so an adapter there would "
            "learn nothing; name other modules",
        )
    return [name for name in names if name in called] if called else names


def check_rank(space: ParamSpace) -> None:
    """Refuse a rank that no adapted matrix can have: factors beyond it cost bits and change nothing."""
    widest = max(space.pairs, key=lambda pair: min(pair.out_features, pair.in_features))
    most = min(widest.out_features, widest.in_features)
    if space.rank > most:
        raise ConfigError(
            "model.lora.rank",
            f"is {space.rank}, but no adapted matrix has a rank above {most} ({widest.module} is "
            f"{widest.out_features} x {widest.in_features}); use at most {most}",
        )


def linear_size(part: torch.nn.Module) -> tuple[int, int] | None:
    """(out, in) features of a linear layer: nn.Linear or GPT-2's Conv1D (whose weight is transposed); else None."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(part, torch.nn.Linear):
        return part.out_features, part.in_features
    if isinstance(part, Conv1D):
        return int(part.weight.shape[1]), int(part.weight.shape[0])
    return None


def _linear_modules(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    sizes = {name: linear_size(part) for name, part in module.named_modules()}
    return {name: size for name, size in sizes.items() if size is not None}


def _choose(module: torch.nn.Module, found: dict[str, tuple[int, int]], targets: str | list[str]) -> list[str]:
    if targets == "all-linear":
        body = f"{body_name(module)}."
        return [name for name in found if name.startswith(body)]
    if targets == "attention":
        names = [name for name in found if _in_attention(name)]
        if not names:
            raise ConfigError(
                "model.lora.targets",
                f"{type(module).__name__} has no attention block by name; linear modules found: {_leaves(found)}",
            )
        return names
    if targets == "auto":
        targets = _auto(module, found)
    if isinstance(targets, str):
        names = [name for name in found if _ends(name, targets) or _matches(targets, name)]
        wanted = [targets] if not names else []
    else:
        names = [name for name in found if any(_ends(name, target) for target in targets)]
        wanted = [target for target in targets if not any(_ends(name, target) for name in found)]
    if wanted:
        raise ConfigError(
            "model.lora.targets", f"{_unknown(module, wanted[0])}; linear modules found: {_leaves(found)}"
        )
    return names


def _in_attention(name: str) -> bool:
    """Whether a module lies in an attention block: `attn` or `attention` in the name of one of its parents."""
    return re.search(r"attn|attention", name.rpartition(".")[0], re.IGNORECASE) is not None


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise ConfigError("model.lora.targets", f"{pattern!r} is not a valid regular expression: {error}") from None


def _unknown(module: torch.nn.Module, target: str) -> str:
    """Say why a target has no linear module: it does not exist, or it is something else."""
    others = sorted({type(part).__name__ for name, part in module.named_modules() if _ends(name, target)})
    if others:
        return f"{target!r} is a {others[0]}, not a linear layer"
    return f"{target!r} is not in {type(module).__name__}"


def _leaves(found: dict[str, tuple[int, int]]) -> str:
    names = list(dict.fromkeys(name.rpartition(".")[2] for name in found))
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _auto(module: torch.nn.Module, found: dict[str, tuple[int, int]]) -> str | list[str]:
    config: Any = module.config
    model_type = config.model_type
    # A family's own names first; new versions of transformers give some models the names of another line.
    lines = sorted(_FAMILIES, key=lambda line: model_type not in line[1])
    if model_type in lines[0][1]:
        for names, _ in lines:
            if all(any(_ends(name, leaf) for name in found) for leaf in names):
                return list(names)
    # Slow to import, hence only for architectures that the table above does not know.
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as MAPPING

    if model_type in MAPPING:
        known = MAPPING[model_type]
        return known if isinstance(known, str) else list(known)
    raise ConfigError(
        "model.lora.targets",
        f"auto does not know the architecture {model_type!r}; name the modules to "
        f"adapt, linear modules found: {_leaves(found)}",
    )


def layer_index(name: str) -> int | None:
    """The layer a module belongs to: the first number in its dotted name (`vit.layers.3.mlp.fc1` -> 3)."""
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def _choose_layers(names: list[str], layers: Any) -> list[str]:
    if layers == "all":
        return names
    present = sorted({index for index in map(layer_index, names) if index is not None})
    missing = [layer for layer in layers if layer not in present]
    if missing:
        there = f"has layers {present[0]} to {present[-1]}" if present else "has no numbered layers"
        raise ConfigError("model.lora.layers", f"layer {missing[0]} does not exist; the adapted model {there}")
    return [name for name in names if layer_index(name) in layers]


def _head_modules(module: torch.nn.Module, base: FrozenBase) -> dict[str, torch.nn.Module]:
    """The linear layers outside the body, in the order of the model."""
    import torch

    body = body_name(module)
    parts = {
        name: part
        for name, part in module.named_modules()
        if name
        and name != body
        and not name.startswith(f"{body}.")
        and next(part.parameters(recurse=False), None) is not None
    }
    if not body or not parts:
        raise ConfigError("model.lora.train_head", f"{base.architecture} has no head of its own to train")
    for name, part in parts.items():
        if type(part) is not torch.nn.Linear:
            raise ConfigError(
                "model.lora.train_head",
                f"{name} of {base.architecture} is a {type(part).__name__}; only heads of linear layers can be trained",
            )
        if f"{name}.weight" not in base.weights:
            raise ConfigError(
                "model.lora.train_head",
                f"{name} of {base.architecture} shares its weights with the "
                "embedding and cannot be trained alone; use train_head=false",
            )
    return parts
