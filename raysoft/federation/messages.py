"""What the coordinator asks of the clients' side, what comes back, and the handles that stay there.

Requests and replies are small; handles (`TrainedPack`, `EncodedPack`) hold updates and stay where they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raysoft.federation.diagnostics import ProductSums
from raysoft.types import Array, ClientState, Curve, Pack, Tensors, Update, Upload


@dataclass(frozen=True)
class TrainRequest:
    """Train the clients of a pack from a broadcast. `states` holds only clients that remember something."""

    pack: Pack
    states: Mapping[int, ClientState]


@dataclass(frozen=True)
class TrainedPack:
    """Handle of `train`: what each client of a pack wants to send, before compression, its rank, and its state before
    that.
    """

    pack: Pack
    uploads: tuple[Upload, ...]
    ranks: tuple[int, ...]
    states: tuple[ClientState, ...]


@dataclass(frozen=True)
class EncodeRequest:
    """How many units each client of the pack may send; None: told not to send."""

    units: tuple[int | None, ...]


@dataclass(frozen=True)
class SentUpdate:
    """What the coordinator learns of one encoded update: bits (0 where silent), is it finite, measurements."""

    num_bits: int
    finite: bool
    relative_error: float
    stats: Mapping[str, Array]
    failed: str = ""  # what its codec raised, where that leaves the client out


SILENT = SentUpdate(num_bits=0, finite=True, relative_error=1.0, stats={})
NO_CURVE = Curve(0, np.zeros(1, dtype=np.int64), np.zeros(1))


@dataclass(frozen=True)
class EncodedPack:
    """Handle of `encode`: each payload as the server reads it (None: silent), and what the codec remembers if it is
    delivered, or lost."""

    decoded: tuple[Update | None, ...]
    if_delivered: tuple[Tensors, ...]
    if_lost: tuple[Tensors, ...]


@dataclass(frozen=True)
class FoldRequest:
    """mix: factor of each update in the sum (0: lost); weights: its factor had everybody sent everything.

    `rejected`: not finite, too large, or its plug-ins failed before it could send. `cohort` is the size of the whole
    cohort, of which this pack is a part.
    """

    mix: tuple[float, ...]
    arrived: tuple[bool, ...]
    rejected: tuple[bool, ...]
    weights: tuple[float, ...]
    cohort: int


@dataclass(frozen=True)
class EvaluateRequest:
    """Evaluate the broadcast model on items start..stop of the evaluation split."""

    start: int
    stop: int


@dataclass(frozen=True)
class EvaluateClientsRequest:
    """Evaluate the broadcast model on some of the training samples of each of these clients."""

    clients: tuple[int, ...]


@dataclass(frozen=True)
class PackFold:
    """What arrived of a pack, or of neighbouring ones, folded (empty: nothing arrived).

    `side`: unweighted sums of what travelled beside the updates, at r_max, float64. `products` are for the
    diagnostics; None: switched off.
    """

    folded: Tensors
    side: Tensors
    products: ProductSums | None
