"""The rank term of the offline stage: how much of the full fine-tuning update a rank cannot hold.

The adapted matrices themselves are trained for some steps (no low-rank factors: a LoRA of rank r_max would have no
spectrum beyond r_max by construction), on the server's proxy samples. phi(r) is the energy of the accumulated update
beyond the r largest singular values of each matrix, as a share of all: the relative error of the best rank-r update
(Eckart and Young, 1936), hence a lower bound for any LoRA of that rank.

Steps are gradient descent with backtracking (Armijo, Pacific J. Math. 1966): the step length follows from the loss, so
there is nothing to tune, and only the direction of the accumulated update matters.
Shapes: L adapted matrices, O out, I in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from raysoft.data.base import Examples
from raysoft.models.attention import choose_attention
from raysoft.models.frozen import FrozenBase, build_module
from raysoft.models.losses import client_losses
from raysoft.models.padding import left_padded
from raysoft.models.runtime import prepare
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, Tensors

_FIRST_MOVE = 1e-2  # share of the weights' norm: where the search for a step length begins, not where it ends
_SUFFICIENT = 1e-4  # Armijo's constant (Nocedal and Wright, Numerical Optimization, section 3.1)
_HALVINGS = 40


@dataclass(frozen=True)
class FullUpdate:
    """The accumulated update: squared singular values of each matrix, descending; and how it came about."""

    energy_L: tuple[Array, ...]
    loss_before: float  # of the first batch
    loss_after: float  # of the same batch
    steps: int  # taken; fewer than asked where the loss cannot fall any further


def truncation_error(energy_L: Sequence[Array], rank: int) -> float:
    """phi(rank): energy beyond the `rank` largest singular values of each matrix over all energy; 0/0 is 0."""
    total = sum(float(energy.sum()) for energy in energy_L)
    return sum(float(energy[rank:].sum()) for energy in energy_L) / total if total > 0 else 0.0


def full_update(
    base: FrozenBase,
    space: ParamSpace,
    head: Tensors,
    samples: Examples,
    *,
    steps: int,
    batch_size: int,
    chunk_size: int,
    rng: Rng,
    device: str = "cpu",
    threads: int = 1,
    on_step: Callable[[float], None] = lambda fraction: None,
) -> FullUpdate:
    """Train the adapted matrices (and the head, where one is trained) in full for up to `steps` steps.

    Each step sees min(batch_size, N) keyed samples, `chunk_size` at a time. Deterministic given `rng` and threads.
    """
    problem = _FullUpdate(base, space, head, prepare(device, threads))
    first = problem.values
    start = {name: value.clone() for name, value in first.items()}
    now, length, taken = first, None, 0
    before = after = None
    for step in range(steps):
        batch = _batch(problem, samples, batch_size, chunk_size, rng, step)
        if step == 0:
            before = problem.loss(now, batch)
        moved, length = _descend(problem, now, batch, length)
        on_step((step + 1) / steps)
        if moved is None:
            break
        now, taken = moved, step + 1
    check = _batch(problem, samples, batch_size, chunk_size, rng, 0)
    after = problem.loss(now, check)
    energy = tuple(_energy(now[name] - start[name]) for name in problem.matrices)
    return FullUpdate(energy, float(before if before is not None else after), float(after), taken)


def _energy(change: Tensor) -> Array:
    return np.linalg.svd(change.double().cpu().numpy(), compute_uv=False) ** 2


Batch = list[tuple[float, dict[str, Tensor], Tensor]]
"""Chunks: share of the batch, inputs, labels."""


class _FullUpdate:
    """The loss as a function of the trained values, which are kept in float32."""

    def __init__(self, base: FrozenBase, space: ParamSpace, head: Tensors, device: torch.device) -> None:
        self.kind = base.kind
        self.pad_left = base.pad_left
        self.device = device
        self.module: Any = build_module(base, str(device))
        parameters = dict(self.module.named_parameters())
        self.matrices = [f"{pair.module}.weight" for pair in space.pairs]
        self.dtypes = {name: parameters[name].dtype for name in self.matrices}
        self.values = {name: parameters[name].detach().float() for name in self.matrices}
        for name in sorted(space.always_sent):
            self.dtypes[name] = parameters[name].dtype
            self.values[name] = torch.tensor(head[name], device=device, dtype=torch.float32)

    def tensor(self, value: Array) -> Tensor:
        tensor = torch.tensor(value, device=self.device)
        return tensor.to(self.module.dtype) if tensor.is_floating_point() else tensor

    def chunk_loss(self, values: dict[str, Tensor], inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        if self.pad_left:
            inputs = left_padded(inputs)
        choose_attention(self.module, inputs)
        cast = {name: value.to(self.dtypes[name]) for name, value in values.items()}
        logits = functional_call(self.module, cast, kwargs=inputs).logits
        return client_losses(self.kind, logits, labels, 1)[0]

    @torch.no_grad()
    def loss(self, values: dict[str, Tensor], batch: Batch) -> float:
        """Mean over the batch."""
        return sum(share * float(self.chunk_loss(values, inputs, labels)) for share, inputs, labels in batch)

    def gradient(self, values: dict[str, Tensor], batch: Batch) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradient, chunk by chunk."""
        total = 0.0
        sums = {name: torch.zeros_like(value) for name, value in values.items()}
        for share, inputs, labels in batch:
            leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
            with torch.enable_grad():
                loss = share * self.chunk_loss(leaves, inputs, labels)
                found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    sums[name] += gradient
            total += float(loss.detach())
        return total, sums


def _batch(problem: _FullUpdate, samples: Examples, size: int, chunk: int, rng: Rng, step: int) -> Batch:
    """Keyed samples of one step, without replacement, sorted by length where there is one (less padding)."""
    index = np.arange(len(samples))
    if len(samples) > size:
        index = np.sort(rng("plan_pilot", step).choice(len(samples), size=size, replace=False))
    if samples.lengths is not None:
        index = index[np.argsort(samples.lengths[index], kind="stable")]
    parts = [samples.take(index[at : at + chunk]).trim() for at in range(0, len(index), chunk)]
    return [
        (
            len(part) / len(index),
            {name: problem.tensor(value) for name, value in part.inputs.items()},
            problem.tensor(part.labels.astype(np.int64)),
        )
        for part in parts
    ]


def _descend(
    problem: _FullUpdate, values: dict[str, Tensor], batch: Batch, length: float | None
) -> tuple[dict[str, Tensor] | None, float | None]:
    """One accepted step, and twice its length to begin the next search with; None where no step lowers the loss."""
    loss, gradient = problem.gradient(values, batch)
    square = sum(float((g.double() ** 2).sum()) for g in gradient.values())
    if not square > 0 or not np.isfinite(square + loss):
        return None, length
    if length is None:
        norm = sum(float((values[name].double() ** 2).sum()) for name in problem.matrices) ** 0.5
        length = _FIRST_MOVE * (norm or 1.0) / square**0.5
    for _ in range(_HALVINGS):
        moved = {name: value - length * gradient[name] for name, value in values.items()}
        if problem.loss(moved, batch) <= loss - _SUFFICIENT * length * square:
            return moved, 2.0 * length
        length /= 2.0
    return None, length
