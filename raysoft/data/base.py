"""What a data source hands over: arrays, ready for the model. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from raysoft.types import Array

TaskKind = Literal["image-classification", "sequence-classification", "causal-lm"]
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Examples:
    """N samples. inputs: pixel_values [N, C, H, W] float32, or input_ids and attention_mask [N, L] integer.

    labels: [N] class ids, or [N, L] token ids with -100 where nothing is scored (causal LM: the same positions as
    input_ids; the shift by one happens in the loss).
    """

    inputs: Mapping[str, Array]
    labels: Array
    lengths: Array | None = None  # [N] tokens before padding; None for images

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index_N: Array) -> Examples:
        """The samples at these positions (a copy)."""
        return Examples(
            inputs={name: value[index_N] for name, value in self.inputs.items()},
            labels=self.labels[index_N],
            lengths=None if self.lengths is None else self.lengths[index_N],
        )

    def trim(self) -> Examples:
        """Padding beyond the longest sample cut off (views); lengths are rounded up to a multiple of 8."""
        if self.lengths is None or len(self) == 0:
            return self
        width = min(-(-int(self.lengths.max()) // 8) * 8, next(iter(self.inputs.values())).shape[1])
        return Examples(
            inputs={name: value[:, :width] for name, value in self.inputs.items()},
            labels=self.labels[:, :width] if self.labels.ndim == 2 else self.labels,
            lengths=self.lengths,
        )


@dataclass(frozen=True)
class TaskData:
    """A task's splits. `proxy` is the server's small share of the training data (for `plan`)."""

    kind: TaskKind
    train: Examples
    validation: Examples
    test: Examples
    proxy: Examples
    label_names: tuple[str, ...] = ()
    label_note: str = ""  # how the classes and the model's head came together, for people
    groups: Array | None = None  # [N_train] natural client of each training sample, 0..G-1
    proxy_groups: Array | None = None  # [N_proxy] the same for the proxy, numbered for itself
    group_names: tuple[str, ...] = ()
    pad_id: int | None = None  # the token that fills up texts, for the model's own configuration
    bits_per_byte: bool = False  # causal LM over bytes: loss / ln 2 is bits per byte


@dataclass(frozen=True)
class Partition:
    """Which training samples each client holds.

    Either explicit shards (index arrays), or `virtual`: client k's samples are a keyed draw with replacement, a pure
    function of (seed, k), so that any population costs nothing.
    """

    clients: int
    shards: tuple[Array, ...] | None = None
    virtual_samples: int = 0
    num_train: int = 0
    seed: int = 0
    names: tuple[str, ...] = field(default_factory=tuple)

    def indices(self, client: int) -> Array:
        """Training sample positions of one client."""
        if self.shards is not None:
            return self.shards[client]
        from raysoft.rng import Rng

        draws = Rng(self.seed).uniform("virtual_partition", client, size=self.virtual_samples)[0]
        return np.minimum((draws * self.num_train).astype(np.int64), self.num_train - 1)

    def size(self, client: int) -> int:
        """Number of samples of one client."""
        return len(self.shards[client]) if self.shards is not None else self.virtual_samples


@dataclass(frozen=True)
class StepBatch:
    """One local step of a pack of K clients, padded to B samples each (and to L tokens, where there are tokens)."""

    inputs: Mapping[str, Array]  # [K, B, ...]
    labels: Array  # [K, B] or [K, B, L]
    mask_KB: Array  # bool: a real sample
    active_K: Array  # bool: the client takes this step at all
