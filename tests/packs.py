"""Packs of clients for trainer tests, and the same training by peft and torch.optim, one client at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raysoft.config import LoraConfig, TrainConfig
from raysoft.data.base import IGNORED_LABEL, Examples, StepBatch
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import cut_to_rank
from raysoft.models.base import FrozenBase, freeze
from raysoft.models.targets import lora_space
from raysoft.rng import Rng
from raysoft.types import LocalJob, ParamSpace
from tests.hf_folders import LABELS, VOCABULARY, make_model

KINDS = {
    ("vit", "auto"): "image-classification",
    ("roberta", "auto"): "sequence-classification",
    ("gpt2", "auto"): "causal-lm",
    ("llama", "auto"): "causal-lm",
    ("gpt2", "classification"): "sequence-classification",
    ("llama", "classification"): "sequence-classification",
}


def make_base(family: str, task: str = "auto", **changes: Any) -> FrozenBase:
    return freeze(make_model(family, task, **changes), KINDS[family, task], f"tests/{family}")


def make_theta(space: ParamSpace, head: dict[str, np.ndarray], seed: int = 3) -> dict[str, np.ndarray]:
    """A start in mid-training: B is not zero, so that every factor has a gradient from the first step."""
    theta = initial_theta(space, head, "peft", Rng(seed))
    for pair in space.pairs:
        draws = Rng(seed)(f"start:{pair.b}").normal(0.0, 0.05, space.shapes[pair.b])
        theta[pair.b] = draws.astype(np.float32)
    return theta


def make_jobs(
    space: ParamSpace,
    head: dict[str, np.ndarray],
    ranks: Sequence[int],
    steps: Sequence[int] | None = None,
    trains: frozenset[str] | None = None,
    loss_term: Any = None,
) -> list[LocalJob]:
    jobs = []
    for k, rank in enumerate(ranks):
        start = cut_to_rank(make_theta(space, head, seed=10 + k), space, rank)
        jobs.append(LocalJob(start, 3 if steps is None else steps[k], trains, loss_term))
    return jobs


def make_batches(
    base: FrozenBase,
    sizes: Sequence[Sequence[int]],
    steps: Sequence[int] | None = None,
    length: int = 12,
    seed: int = 5,
) -> list[StepBatch]:
    """One StepBatch a row of `sizes` (samples of each client); client k takes part in its first steps[k] steps.

    A client's samples depend on (seed, client, step) only, so changing one client leaves the others' data alone.
    """
    width = max(max(row) for row in sizes)
    batches = []
    for step, row in enumerate(sizes):
        samples = [_samples(base, width, length, Rng(seed)("samples", k, step)) for k in range(len(row))]
        mask = np.arange(width)[None] < np.asarray(row)[:, None]
        inputs = {name: np.stack([s.inputs[name] for s in samples]) for name in samples[0].inputs}
        for value in inputs.values():
            value[~mask] = 0
        labels = np.stack([s.labels for s in samples])
        labels[~mask] = 0  # whatever stands there must not matter
        active = np.array([steps is None or step < steps[k] for k in range(len(row))])
        batches.append(StepBatch(inputs, labels, mask, active))
    return batches


def _samples(base: FrozenBase, count: int, length: int, generator: np.random.Generator) -> Examples:
    if base.kind == "image-classification":
        pixels = generator.normal(size=(count, 1, 8, 8)).astype(np.float32)
        return Examples({"pixel_values": pixels}, generator.integers(0, len(LABELS), count))
    lengths = generator.integers(4, length + 1, count)
    visible = np.arange(length)[None] < lengths[:, None]
    tokens = np.where(visible, generator.integers(3, VOCABULARY, (count, length)), 1)
    inputs = {"input_ids": tokens, "attention_mask": visible.astype(np.int64)}
    if base.kind == "causal-lm":
        return Examples(inputs, np.where(visible, tokens, IGNORED_LABEL), lengths)
    return Examples(inputs, generator.integers(0, len(LABELS), count), lengths)


def make_examples(base: FrozenBase, count: int, length: int = 12, seed: int = 8) -> Examples:
    return _samples(base, count, length, Rng(seed)("examples"))


def peft_model(family: str, task: str, space: ParamSpace, start: dict[str, np.ndarray], **changes: Any) -> Any:
    """peft's model holding the values `start`, with alpha chosen so that its scale is the space's."""
    import peft
    import torch

    rank = start[space.pairs[0].a].shape[0]
    heads = sorted({name.split(".")[0] for name in space.always_sent})
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=space.scale * rank,
        lora_dropout=0.0,
        target_modules=[p.module for p in space.pairs],
        modules_to_save=heads or None,
        fan_in_fan_out=family == "gpt2",
    )
    model = peft.get_peft_model(make_model(family, task, **changes), config).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in peft_names(space, parameters).items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(start[name])))
    return model


def peft_names(space: ParamSpace, parameters: dict[str, Any]) -> dict[str, Any]:
    """peft's parameters by raysoft's names."""
    found = {}
    for pair in space.pairs:
        found[pair.a] = parameters[f"base_model.model.{pair.module}.lora_A.default.weight"]
        found[pair.b] = parameters[f"base_model.model.{pair.module}.lora_B.default.weight"]
    for name in space.always_sent:
        owner, rest = name.split(".", 1)
        found[name] = parameters[f"base_model.model.{owner}.modules_to_save.default.{rest}"]
    return found


def train_with_peft(
    family: str,
    task: str,
    base: FrozenBase,
    space: ParamSpace,
    job: LocalJob,
    batches: Sequence[StepBatch],
    client: int,
    settings: TrainConfig,
) -> tuple[dict[str, np.ndarray], float]:
    """What packed training must reproduce for one client: its end values and its mean loss."""
    import torch

    model = peft_model(family, task, space, dict(job.start))
    parameters = peft_names(space, dict(model.named_parameters()))
    for name, parameter in parameters.items():
        parameter.requires_grad_(job.trains is None or name in job.trains)
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    head = [p for name, p in trained.items() if name in space.always_sent]
    body = [p for name, p in trained.items() if name not in space.always_sent]
    groups = [{"params": body}, {"params": head, "lr": settings.head_lr or settings.lr}]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(
            groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
    losses = []
    for batch in batches:
        if not batch.active_K[client]:
            continue
        real = batch.mask_KB[client]
        inputs = {name: torch.from_numpy(value[client][real]) for name, value in batch.inputs.items()}
        labels = torch.from_numpy(batch.labels[client][real])
        optimizer.zero_grad()
        loss = _loss(base.kind, model(**inputs).logits, labels)
        loss.backward()
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(list(trained.values()), settings.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return {name: p.detach().numpy().copy() for name, p in parameters.items()}, float(np.mean(losses))


def _loss(kind: str, logits: Any, labels: Any) -> Any:
    import torch

    if kind == "causal-lm":
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, labels)


def space_of(base: FrozenBase, **lora: Any) -> tuple[ParamSpace, dict[str, np.ndarray]]:
    return lora_space(base, LoraConfig(**lora))
