"""What passes between the rooms of raysoft. Plain frozen dataclasses over numpy arrays; no torch, no Ray.

Shapes: K clients of a cohort, ordered by client id; J points of a rate-distortion curve; R rank, I in, O out.
Units: bits, seconds, hertz, watts, joules. Radio and sums are float64, parameters and updates float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray
Tensors = Mapping[str, Array]
Update = Mapping[str, Array]
"""A client's change: end value minus start value per parameter (the delta form), float32."""


@dataclass(frozen=True)
class LoraPair:
    """A low-rank block: one adapted matrix, W0 [O, I] + scale * B [O, R] @ A [R, I]."""

    module: str
    out_features: int
    in_features: int

    @property
    def a(self) -> str:
        """Parameter name of A, shape [R, I]."""
        return f"{self.module}.lora_A"

    @property
    def b(self) -> str:
        """Parameter name of B, shape [O, R]."""
        return f"{self.module}.lora_B"

    def shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Of A and B, in this order."""
        return {self.a: (rank, self.in_features), self.b: (self.out_features, rank)}


@dataclass(frozen=True)
class DenseBlock:
    """A parameter that is trained as it is, whatever a client's rank: a weight or bias of the head."""

    name: str
    shape: tuple[int, ...]

    def shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Of the parameter."""
        return {self.name: self.shape}


Block = LoraPair | DenseBlock


@dataclass(frozen=True)
class ParamSpace:
    """What is trained, block by block; built once from the configuration and the base model.

    Low-rank blocks come first. Which values of a block are trained and travel in a round is for the method to say
    (`View.trains`).
    """

    blocks: tuple[Block, ...]
    rank: int  # r_max
    scale: float  # s in W0 + s * B A, the same for every client

    @cached_property
    def pairs(self) -> tuple[LoraPair, ...]:
        """The low-rank blocks."""
        return tuple(block for block in self.blocks if isinstance(block, LoraPair))

    @cached_property
    def dense(self) -> tuple[DenseBlock, ...]:
        """The dense blocks."""
        return tuple(block for block in self.blocks if isinstance(block, DenseBlock))

    @cached_property
    def always_sent(self) -> frozenset[str]:
        """Names of what a codec sends whole wherever it is trained: the dense blocks."""
        return frozenset(block.name for block in self.dense)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every parameter at r_max, in the order of the blocks."""
        return self.shapes_at(self.rank)

    def shapes_at(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The same for a client of this rank."""
        return {name: shape for block in self.blocks for name, shape in block.shapes(rank).items()}

    def num_values(self) -> int:
        """Number of trained scalars, P(r_max) + head."""
        return int(sum(np.prod(shape) for shape in self.shapes.values()))


@dataclass(frozen=True)
class ServerState:
    """The global model. One per trained model; all of it belongs into a checkpoint."""

    theta: Tensors  # float32
    version: int = 0  # +1 per aggregation
    extra: Tensors = field(default_factory=dict)  # moments, control variates
    base: Tensors = field(default_factory=dict)  # what was merged into W0 so far: [O, I] by module, float32
    base_bits: tuple[int, ...] = ()  # what each merge has to tell those who were away


@dataclass(frozen=True)
class GlobalModel:
    """What is evaluated, exported, hashed: the values at r_max, and what was merged into the base."""

    theta: Tensors
    base: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Broadcast:
    """Put once a round; a client's `View` is a pure function of it, of the client and of the client's rank."""

    common: Tensors
    side: Tensors = field(default_factory=dict)  # what both ends know besides the values, e.g. ORDER
    base: Tensors = field(default_factory=dict)  # see ServerState
    base_bits: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClientState:
    """What a client keeps between rounds. Built from the key when absent; owned by the coordinator."""

    rank: int
    method: Tensors = field(default_factory=dict)
    codec: Tensors = field(default_factory=dict)  # e.g. error feedback memory

    @property
    def remembers(self) -> bool:
        """Whether it holds anything that cannot be built from the key again."""
        return bool(self.method or self.codec)


ORDER = "order"
"""In `View.side`: all components of r_max, numbered matrix * r_max + j, int64 [N]. A client sends a prefix of it."""


@dataclass(frozen=True)
class Downlink:
    """Bits that a client receives in a round."""

    values: int  # float32
    side: int = 0  # e.g. an order of components
    catch_up: int = 0  # what was merged into the base while the client was away

    @property
    def total(self) -> int:
        """All of them."""
        return self.values + self.side + self.catch_up


@dataclass(frozen=True)
class View:
    """What the server and a client both know of that client in a round; made by `Method.view` on either end.

    Only `downlink` is charged for it: which values are trained and travel, the rank and the order of components cost
    an upload no bit.
    """

    tick: int
    client: int
    rank: int
    start: Tensors  # the client's own cut of the broadcast: pairs at its rank, float32
    trains: frozenset[str]  # names of the values that are trained and travel; the others stay as they are
    downlink: Downlink
    side: Tensors = field(default_factory=dict)

    @property
    def dense_bits(self) -> int:
        """Bits of an answer that leaves nothing out, as float32: the yardstick of `uplink share`."""
        return 32 * int(sum(self.start[name].size for name in self.trains))


LossTerm = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
"""(now, start) as torch tensors stacked over K -> added loss, shape [K]."""


@dataclass(frozen=True)
class LocalJob:
    """Everything the packed trainer needs to know about one client, apart from its batches."""

    start: Tensors  # values at the client's own rank
    steps: int
    trains: frozenset[str] | None = None  # names of what is trained (FFA freezes A); None: everything
    loss_term: LossTerm | None = None
    linear: Tensors | None = None  # added to the gradient of every step: the slope of a linear term of the loss


@dataclass(frozen=True)
class SumOfTerms:
    """Loss terms added up."""

    terms: tuple[LossTerm, ...]

    def __call__(self, now: Mapping[str, Any], start: Mapping[str, Any]) -> Any:
        """Added loss per client, shape [K]."""
        return sum(term(now, start) for term in self.terms)


def with_term(one: LossTerm | None, more: LossTerm) -> LossTerm:
    """The sum of what there is and one term more."""
    return more if one is None else SumOfTerms((one, more))


RANK_BITS = 16  # of the number of components that an upload has, where a method says one


@dataclass(frozen=True)
class Upload:
    """What a client wants to send, before any compression, and what the method remembers of it there.

    `side` travels beside the update as exact float32, charged; over those that arrive it is summed without weights.
    `memory_if_rejected`: where the update is not finite or too large, so that nothing may be made of it; what the
    client received it has all the same. None: what it remembered before.
    `rank`: of a method that prunes what a client was given: the update holds the first so many components, and that
    number travels, too; None: as many as the view.
    """

    update: Update
    side: Tensors = field(default_factory=dict)
    memory_if_delivered: Tensors = field(default_factory=dict)
    memory_if_lost: Tensors = field(default_factory=dict)
    memory_if_rejected: Tensors | None = None
    rank: int | None = None

    @property
    def side_bits(self) -> int:
        """Bits of `side`, and of a rank that travels."""
        return 32 * sum(value.size for value in self.side.values()) + (0 if self.rank is None else RANK_BITS)


@dataclass(frozen=True)
class Curve:
    """A codec's menu. Keeping j units costs fixed_bits + bits_J[j] and leaves the squared error error_J[j].

    bits_J[0] = 0, bits_J is increasing, error_J is decreasing and convex in bits up to rounding. At most ~65 points,
    since the curve itself has to be reported. `told_bits`: what a report of the curve has to carry besides the errors
    for the receiver to know bits_J; 0 where they follow from the model, the client's rank and the codec's options.
    """

    fixed_bits: int
    bits_J: Array
    error_J: Array
    told_bits: int = 0

    @property
    def units(self) -> int:
        """The largest number of units (keep everything)."""
        return len(self.bits_J) - 1


@dataclass(frozen=True)
class ClientReport:
    """The only per-client thing that always reaches the coordinator after training."""

    client: int
    samples: int
    rank: int
    loss: float
    cycles: float  # CPU cycles of the local training
    downlink_bits: int
    dense_bits: int  # of an answer that leaves nothing out
    curve: Curve
    finite: bool = True
    update_norm: float = 0.0  # 2-norm of the update before compression
    failed: str = ""  # what its plug-ins raised, where that leaves the client out (actors.on_failure: drop_client)


@dataclass(frozen=True)
class ChannelState:
    """Power gains of a cohort in one block: true, and as the server knows them (imperfect CSI)."""

    gain_K: Array
    reported_gain_K: Array
    parts: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Participants:
    """A round as the radio meets it: K clients with a finite update, by id, before anything is sent."""

    clients_K: Array
    weights_K: Array  # share of each in the mean, had everybody sent; sums to 1
    compute_s_K: Array  # local training
    compute_j_K: Array
    downlink_s: float  # until everybody has the global model
    power_w_K: Array  # transmit power
    channel: ChannelState


@dataclass(frozen=True)
class Allocation:
    """The coordinator's decision for one round. round_s is the predicted round latency."""

    clients_K: Array
    active_K: Array  # False: outage, told not to send
    units_K: Array
    bandwidth_hz_K: Array
    power_w_K: Array
    latency_s_K: Array
    round_s: float
    control_bits_K: Array
    weights_K: Array | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)  # for the record alone
    notes: Mapping[str, float] = field(default_factory=dict)  # what the allocator wants to see again in `observe`


@dataclass(frozen=True)
class Payload:
    """A serialised update: len(data) == ceil(num_bits / 8)."""

    data: bytes
    num_bits: int


@dataclass(frozen=True)
class Outcome:
    """The uplink's verdict, before anything is summed; needs bits only."""

    arrived_K: Array
    latency_s_K: Array
    energy_j_K: Array
    reason_K: tuple[str, ...]  # "" where arrived
    round_s: float
    mix_K: Array | None = None  # factor of each update in the sum; None: the weights of those who arrived, sum 1
    noise_std: float = 0.0  # of every value that is received


@dataclass(frozen=True)
class Folded:
    """What arrived as one, before the air has done its part: float64 by name.

    `support`: where somebody sent something, bool by name; None where nobody asks (a digital uplink).
    """

    values: Tensors
    support: Tensors | None = None


@dataclass(frozen=True)
class Reception:
    """What the aggregation receives."""

    outcome: Outcome
    reports: tuple[ClientReport, ...]
    folded: Tensors | None = None  # what the method's fold makes of what arrived, float64; None: nothing arrived
    side: Tensors = field(default_factory=dict)  # sums of `Upload.side`, at r_max, float64
    sent_counts: Array | None = None  # of how many clients each rank component arrived, int64 [N], where known
    mix_K: Array | None = None  # factor of each update in what was folded; 0: it is not in there


@dataclass(frozen=True)
class Pack:
    """The unit of work, of retry and of reduction: a function of cohort and pack_size alone."""

    tick: int
    clients: tuple[int, ...]

    def __str__(self) -> str:
        return f"round {self.tick}, clients {list(self.clients)}"


@dataclass(frozen=True)
class RoundRecord:
    """One line of rounds.jsonl. None becomes null where there is no such number."""

    round: int
    accuracy: float | None
    loss: float | None
    train_loss: float | None
    metrics: Mapping[str, Any]
    round_latency_s: float
    simulated_time_s: float
    uplink_bits: int
    downlink_bits: int
    control_bits: int
    kept_fraction_mean: float | None
    queue_s: float | None
    sparsification_error: float | None
    aggregation_covariance: float | None
    participants: int
    dropped: int
    drop_reasons: Mapping[str, int]
    energy_j: float
    wall_time_s: float
    model: str = "main"
