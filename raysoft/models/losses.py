"""Cross-entropy of a pack of clients, and the additive counts of an evaluation.

Shapes: M = K * B samples, client by client; C classes or tokens; L tokens of a sample. Position t of a causal model
predicts token t + 1; labels of -100 are not scored (the convention of transformers).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raysoft.data.base import IGNORED_LABEL, TaskKind


def shifted(kind: TaskKind, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, C] in float32 and labels [n] that belong together, samples in order."""
    if kind == "causal-lm":
        logits, labels = logits[:, :-1], labels[:, 1:]
    return logits.reshape(-1, logits.shape[-1]).float(), labels.reshape(-1)


def client_losses(kind: TaskKind, logits: Tensor, labels: Tensor, clients: int) -> Tensor:
    """Each client's mean over its own scored samples or tokens, shape [K]; zero where it has none."""
    scores, targets = shifted(kind, logits, labels)
    losses = cross_entropy(scores, targets, ignore_index=IGNORED_LABEL, reduction="none")
    counts = (targets != IGNORED_LABEL).view(clients, -1).sum(1).clamp(min=1)
    return losses.view(clients, -1).sum(1) / counts


def counts(kind: TaskKind, logits: Tensor, labels: Tensor) -> Tensor:
    """(scored, correct, sum of losses) in float64, shape [3]: sums over shards can be added in any grouping."""
    return torch.stack([one.double().sum() for one in _scored(kind, logits, labels)])


def sample_counts(kind: TaskKind, logits: Tensor, labels: Tensor) -> Tensor:
    """`counts` of every sample by itself: float64 [samples, 3]."""
    rows = [one.double().view(len(labels), -1).sum(1) for one in _scored(kind, logits, labels)]
    return torch.stack(rows, dim=1)


def _scored(kind: TaskKind, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Is it scored, is it correct, its loss: [n] each, samples in order."""
    scores, targets = shifted(kind, logits, labels)
    losses = cross_entropy(scores, targets, ignore_index=IGNORED_LABEL, reduction="none")
    scored = targets != IGNORED_LABEL
    return scored, (scores.argmax(1) == targets) & scored, losses
