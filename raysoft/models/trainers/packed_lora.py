"""Packed LoRA training: K clients share one forward and backward pass over the frozen base.

The base sees one batch of K * B samples. Every adapted matrix adds the clients' own low-rank terms by batched products
over stacked factors A [K, R, I] and B [K, O, R]; trained heads are stacked likewise. The clients' losses are summed,
and since no operation of the model mixes samples, the gradient of that sum separates into the clients' own gradients:
the result equals training them one by one (to rounding), at a fraction of the calls.

Smaller ranks are padded with zeros, smaller batches with masked samples; clients without a step are left out of it.
Dropout stays off (eval mode): its draws would tie a client to its place in the pack and make parity meaningless.
BatchNorm therefore uses its running statistics, so it does not mix samples either.

Shapes: K clients, B samples of a client in a step, P trained values of a client, R rank, I in, O out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysoft.config import TrainConfig
from raysoft.data.base import IGNORED_LABEL, Examples, StepBatch
from raysoft.errors import RaysoftError
from raysoft.models.attention import choose_attention
from raysoft.models.frozen import FrozenBase, build_module
from raysoft.models.losses import client_losses, counts, sample_counts
from raysoft.models.optim import State, clip_by_client, init_state, stepper
from raysoft.models.padding import left_padded
from raysoft.models.runtime import exact_roots, prepare
from raysoft.models.trainers.base import LocalResult
from raysoft.models.trainers.packed_layers import PackedHead, PackedLinear
from raysoft.models.trainers.stack import StackLayout, gather, scatter
from raysoft.types import Array, LocalJob, ParamSpace, Tensors


class PackedTrainer:
    """`Trainer` (see base.py) of K clients at once."""

    def __init__(self, base: FrozenBase, space: ParamSpace, device: str = "cpu", threads: int = 1) -> None:
        self.kind = base.kind
        self._pad_left = base.pad_left
        self.space = space
        self.device = prepare(device, threads)
        self.layout = StackLayout(space)
        self.module: Any = build_module(base, str(self.device))
        self._rebased = False
        self._separable: bool | None = None  # known from the first batch on
        self._linears = {pair.module: self._install_linear(pair) for pair in space.pairs}
        dense = dict.fromkeys(block.name.rpartition(".")[0] for block in space.dense)
        self._heads = {module: self._install_head(module) for module in dense}

    @torch.no_grad()
    def rebase(self, base: Tensors) -> None:
        """From now on work on W0 plus these changes, [O, I] by module; empty: on W0."""
        if not base and not self._rebased:
            return
        self._rebased = bool(base)
        for module, layer in self._linears.items():
            layer.rebase(torch.tensor(base[module], device=self.device) if base else None)

    def check_rebase(self) -> None:
        """Raises RaysoftError where W0 is not float32: rounding would swallow small changes of it."""
        for module, layer in self._linears.items():
            if layer.weight.dtype != torch.float32:
                raise RaysoftError(
                    f"this method merges into the base, whose {module} is {layer.weight.dtype}: it needs float32"
                )

    # -- training ------------------------------------------------------------------------------------------------

    def train(self, jobs: Sequence[LocalJob], batches: Sequence[StepBatch], settings: TrainConfig) -> list[LocalResult]:
        """Train every job on its rows of the batches; results in the order of the jobs.

        Raises RaysoftError if batches and jobs do not belong together.
        """
        if any(len(batch.active_K) != len(jobs) for batch in batches):
            raise RaysoftError("a pack's batches hold another number of clients than its jobs")
        if not jobs:
            return []
        exact_roots()
        if len(jobs) > 1 and not self._separates(batches):
            return [self.train([job], _rows_of(batches, k), settings)[0] for k, job in enumerate(jobs)]
        pack = _PackedBatch(self.layout, jobs, settings, self.device)
        for batch in batches:
            active = np.flatnonzero(batch.active_K)
            if len(active):
                self._step(pack, batch, active)
        self._clear()
        values = pack.values.cpu().numpy()
        losses = (pack.loss_sum / pack.loss_steps.clamp(min=1)).cpu().numpy()
        return [
            LocalResult(self.layout.unstack(row, job.start), float(loss))
            for row, job, loss in zip(values, jobs, losses, strict=True)
        ]

    def _separates(self, batches: Sequence[StepBatch]) -> bool:
        """Whether every adapted layer gets the samples, and nothing but samples, along its first dimension.

        Some models hand a layer something that all samples share (DeBERTa-v2: its relative positions) or put another
        dimension first (XLNet: the tokens); there the rows of K clients cannot be told apart, and each is trained in a
        pass of its own. Shapes may agree by accident, so one sample and two are sent through and the calls compared.
        """
        if self._separable is None:
            batch = next((one for one in batches if one.active_K.any()), None)
            if batch is None:
                return True
            inputs, _ = self._inputs(batch, np.flatnonzero(batch.active_K)[:1])
            one, two = (
                self._leading({n: v[:1].repeat_interleave(k, dim=0) for n, v in inputs.items()}) for k in (1, 2)
            )
            self._separable = len(one) == len(two) and all(2 * a == b for a, b in zip(one, two, strict=True))
        return self._separable

    @torch.no_grad()
    def _leading(self, inputs: dict[str, Tensor]) -> list[int]:
        """The first dimension of every input of an adapted layer or trained head, call by call."""
        found: list[int] = []
        layers = (*self._linears.values(), *self._heads.values())
        hooks = [layer.register_forward_pre_hook(lambda _, x: found.append(x[0].shape[0])) for layer in layers]
        try:
            self._forward(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _step(self, pack: _PackedBatch, batch: StepBatch, active: Array) -> None:
        """One optimiser step of the active clients."""
        part = pack.rows(active)
        inputs, labels = self._inputs(batch, active)
        with torch.enable_grad():
            leaves = part.leaves()
            self._set_stacked(leaves)
            logits = self._forward(inputs)
            losses_K = client_losses(self.kind, logits, labels, len(active))
            total = losses_K.sum()
            for term in part.loss_terms(leaves):
                total = total + term.sum()
            part.differentiate(total, leaves)
        part.finish_step(losses_K.detach())

    def _inputs(self, batch: StepBatch, active: Array) -> tuple[dict[str, Tensor], Tensor]:
        """The active clients' samples in one batch [K * B, ...]; samples that only pad are never scored."""
        everybody = len(active) == len(batch.active_K)
        mask = batch.mask_KB if everybody else batch.mask_KB[active]
        arrays = {name: value if everybody else value[active] for name, value in batch.inputs.items()}
        if "attention_mask" in arrays and not mask.all():
            # A sample without a single visible token would give NaN in attention, and 0 * NaN is NaN.
            visible = arrays["attention_mask"]
            arrays["attention_mask"] = np.where(mask[..., None], visible, 1).astype(visible.dtype)
        inputs = {name: self._tensor(value.reshape(-1, *value.shape[2:])) for name, value in arrays.items()}
        labels = batch.labels if everybody else batch.labels[active]
        labels = np.where(mask if labels.ndim == 2 else mask[..., None], labels, IGNORED_LABEL)
        return inputs, self._tensor(labels.reshape(-1, *labels.shape[2:]).astype(np.int64))

    # -- evaluation ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, theta: Tensors, examples: Examples, batch_size: int) -> dict[str, float]:
        """Sums over the examples for one adapter: `count`, `correct`, `loss_sum` (per token for causal models).

        All three are additive over shards. Samples are taken in order of length, so that little padding is computed.
        """
        total = torch.zeros(3, dtype=torch.float64, device=self.device)
        for _, logits, labels in self._predictions(theta, examples, batch_size):
            total += counts(self.kind, logits, labels)
        count, correct, loss_sum = total.tolist()
        return {"count": count, "correct": correct, "loss_sum": loss_sum}

    @torch.no_grad()
    def evaluate_samples(self, theta: Tensors, examples: Examples, batch_size: int) -> Array:
        """The same of every sample by itself: float64 [N, 3] with columns count, correct, loss_sum."""
        found = np.zeros((len(examples), 3))
        for index, logits, labels in self._predictions(theta, examples, batch_size):
            found[index] = sample_counts(self.kind, logits, labels).cpu().numpy()
        return found

    @torch.no_grad()
    def predict(self, theta: Tensors, examples: Examples, batch_size: int) -> Array:
        """The class that a classifier gives every sample: integers [N]."""
        found = np.zeros(len(examples), dtype=np.int64)
        for index, logits, _ in self._predictions(theta, examples, batch_size):
            found[index] = logits.argmax(-1).cpu().numpy()
        return found

    @torch.no_grad()
    def logits(self, theta: Tensors, inputs: Mapping[str, Array]) -> Tensor:
        """What the model says to one batch of inputs [N, ...] with this adapter: [N, classes], or [N, tokens, ids]."""
        self._set_single(theta)
        found = self._forward({name: self._tensor(value) for name, value in inputs.items()})
        self._clear()
        return found

    def _predictions(
        self, theta: Tensors, examples: Examples, batch_size: int
    ) -> Iterator[tuple[Array, Tensor, Tensor]]:
        """Positions, logits and labels, batch by batch."""
        self._set_single(theta)
        order = np.arange(len(examples))
        if examples.lengths is not None:
            order = np.argsort(examples.lengths, kind="stable")
        for first in range(0, len(order), batch_size):
            index = order[first : first + batch_size]
            shard = examples.take(index).trim()
            logits = self._forward({name: self._tensor(value) for name, value in shard.inputs.items()})
            yield index, logits, self._tensor(shard.labels.astype(np.int64))
        self._clear()

    # -- the model -----------------------------------------------------------------------------------------------

    def _install_linear(self, pair: Any) -> PackedLinear:
        parent, leaf = _parent(self.module, pair.module)
        layer = PackedLinear(getattr(parent, leaf), pair.out_features, pair.in_features, self.space.scale)
        setattr(parent, leaf, layer)
        return layer

    def _install_head(self, name: str) -> PackedHead:
        parent, leaf = _parent(self.module, name)
        layer = PackedHead(getattr(parent, leaf))
        setattr(parent, leaf, layer)
        return layer

    def _set_stacked(self, leaves: dict[str, Tensor]) -> None:
        for pair in self.space.pairs:
            layer = self._linears[pair.module]
            layer.factors, layer.effective = (leaves[pair.a], leaves[pair.b]), None
        for name, head in self._heads.items():
            head.stacked = (leaves[f"{name}.weight"], leaves.get(f"{name}.bias"))

    def _set_single(self, theta: Tensors) -> None:
        """One adapter for all samples: merged into the matrices once where they are float32, else as a pack of one."""
        leaves = self.layout.views(self._tensor(self.layout.stack([theta])))
        self._set_stacked(leaves)
        for pair in self.space.pairs:
            layer = self._linears[pair.module]
            if layer.weight_OI.dtype == torch.float32:
                layer.effective = torch.addmm(
                    layer.weight_OI, leaves[pair.b][0], leaves[pair.a][0], alpha=self.space.scale
                )

    def _clear(self) -> None:
        """Let go of the clients' values."""
        for layer in self._linears.values():
            layer.factors = layer.effective = None
        for head in self._heads.values():
            head.stacked = None

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        if self._pad_left:
            inputs = left_padded(inputs)
        choose_attention(self.module, inputs)
        return self.module(**inputs).logits

    def _tensor(self, value: Array) -> Tensor:
        """A tensor on the device (a copy: arrays from a shared store are read-only)."""
        tensor = torch.tensor(value, device=self.device)
        return tensor.to(self.module.dtype) if tensor.dtype == torch.float32 and value.ndim == 4 else tensor


class _PackedBatch:
    """Values, gradients and optimiser state of some clients, a row each."""

    def __init__(
        self, layout: StackLayout, jobs: Sequence[LocalJob], settings: TrainConfig, device: torch.device
    ) -> None:
        self.layout, self.jobs, self.settings = layout, list(jobs), settings
        self.values = torch.from_numpy(layout.stack([job.start for job in jobs])).to(device)
        self.start = self.values.clone() if any(job.loss_term for job in jobs) else self.values
        self.state: State = init_state(settings, self.values)
        self.loss_sum = torch.zeros(len(jobs), dtype=torch.float64, device=device)
        self.loss_steps = torch.zeros(len(jobs), dtype=torch.float64, device=device)
        linear = layout.linear(jobs)
        self.linear = None if linear is None else torch.from_numpy(linear).to(device)
        live = layout.live(jobs)
        self.live = None if live is None else torch.from_numpy(live).to(device)
        rates = torch.from_numpy(layout.rates(settings.lr, settings.head_lr)).to(device)
        # One row of rates for all; where something is frozen or padded, a rate of zero per client.
        self.rates = rates if self.live is None else rates * self.live

    def rows(self, active: Array) -> _Rows:
        """The part of the pack that takes the next step."""
        return _Rows(self, active)


class _Rows:
    """The active clients of one step: the pack itself if that is everybody, otherwise copies that are written back."""

    def __init__(self, pack: _PackedBatch, active: Array) -> None:
        self.pack = pack
        self.jobs = [pack.jobs[k] for k in active]
        self.index = None if len(active) == len(pack.jobs) else torch.from_numpy(active).to(pack.values.device)
        self.values = self._pick(pack.values)
        self.start = self._pick(pack.start)
        self.grad = torch.zeros_like(self.values)

    def _pick(self, rows: Tensor) -> Tensor:
        return rows if self.index is None or len(rows) == 1 else rows.index_select(0, self.index)

    def leaves(self) -> dict[str, Tensor]:
        """Autograd leaves that view the values; what nobody trains needs no gradient."""
        return {
            name: view.detach().requires_grad_(any((job.trains is None or name in job.trains) for job in self.jobs))
            for name, view in self.pack.layout.views(self.values).items()
        }

    def differentiate(self, total: Tensor, leaves: dict[str, Tensor]) -> None:
        """Gradients of all trained values, collected in one buffer [K, P]."""
        trained = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        views = self.pack.layout.views(self.grad)
        for name, gradient in zip(trained, found, strict=True):
            if gradient is not None:
                views[name].copy_(gradient)

    def loss_terms(self, leaves: dict[str, Tensor]) -> list[Tensor]:
        """Added losses, one call for all clients that share a term (equal callables)."""
        groups: list[tuple[Any, list[int]]] = []
        for k, job in enumerate(self.jobs):
            if job.loss_term is None:
                continue
            for term, members in groups:
                if term == job.loss_term:
                    members.append(k)
                    break
            else:
                groups.append((job.loss_term, [k]))
        start = self.pack.layout.views(self.start) if groups else {}
        terms = []
        for term, members in groups:
            if len(members) == len(self.jobs):
                terms.append(term(leaves, start))
            else:
                index = torch.tensor(members, device=self.values.device)
                terms.append(term(gather(leaves, index), gather(start, index)))
        return terms

    def finish_step(self, losses_K: Tensor) -> None:
        """Clip, update and book the loss."""
        pack = self.pack
        state = pack.state if self.index is None else gather(pack.state, self.index)
        with torch.no_grad():
            if pack.linear is not None:
                self.grad.add_(self._pick(pack.linear))
            if pack.live is not None:
                self.grad.masked_fill_(~self._pick(pack.live), 0.0)
            clip_by_client(self.grad, pack.settings.clip_norm)
            stepper(pack.settings)(self.values, self.grad, self._pick(pack.rates), state)
            if self.index is None:
                pack.loss_sum += losses_K
                pack.loss_steps += 1
                return
            pack.values.index_copy_(0, self.index, self.values)
            scatter(pack.state, self.index, state)
            pack.loss_sum.index_add_(0, self.index, losses_K.double())
            pack.loss_steps.index_add_(0, self.index, torch.ones_like(losses_K, dtype=torch.float64))


def _rows_of(batches: Sequence[StepBatch], client: int) -> list[StepBatch]:
    """The batches of one client of a pack."""
    one = slice(client, client + 1)
    return [
        StepBatch({n: v[one] for n, v in b.inputs.items()}, b.labels[one], b.mask_KB[one], b.active_K[one])
        for b in batches
    ]


def _parent(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf
