"""The frame of most methods: clients train some of the values, the server adds a mean of their changes.

A method of this kind is a `build` that fills in what it does differently: see fedit.py for the plainest one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raysoft.methods.base import MethodConfig, add_change, difference
from raysoft.methods.folds import Fold, Sum
from raysoft.methods.ranks import cut_to_rank
from raysoft.types import (
    Array,
    Broadcast,
    Downlink,
    GlobalModel,
    LocalJob,
    LossTerm,
    ParamSpace,
    Reception,
    ServerState,
    Tensors,
    Upload,
    View,
)

Change = Callable[[ServerState, Tensors], Tensors | None]
"""(server, what was folded) -> the change that is added at server_lr = 1; None: none is, the products are applied."""
Part = Callable[[dict[str, Array]], tuple[dict[str, Array], int, int]]
"""A client's cut of the values -> (what it starts from, how many values travel to it, bits that say which)."""
Sends = Callable[[View, LocalJob, Tensors, Tensors], Upload]
"""(view, job, values after the job, memory) -> what the client wants to send."""
Then = Callable[[ServerState, ServerState, Reception], ServerState]
"""(before, after the mean change was added, what was received) -> the next global model."""


@dataclass(frozen=True)
class Averaging:
    """`Method` of parts.

    changes: names of the values that the method ever changes; clients receive these, the rest they have from a seed or
    the base. None: all. trains: of these, the ones of a round; None: all of them.
    rank_of: the rank that a client trains, given the one that it was drawn with and what it remembers.
    penalty: the term of the loss of a client.
    sends: what it sends; None: the change of what was trained.
    side: what the server says besides the values, and its bits for a client of some rank.
    catch_up: bits of what was merged into the base without the client, given what it remembers.
    part: where clients start from a part of what the method changes, and not from all of it.
    remembers: what a client keeps of what it received, whatever becomes of its upload.
    change_of: where what is folded is not itself the mean change. then: what happens after the change was added.
    """

    config: MethodConfig
    space: ParamSpace
    changes: frozenset[str] | None = None
    trains: Callable[[int], frozenset[str]] | None = None
    rank_of: Callable[[int, Tensors], int] = field(default=lambda rank, memory: rank)
    penalty: Callable[[View], LossTerm | None] = field(default=lambda view: None)
    sends: Sends | None = None
    side: Callable[[ServerState], Tensors] | None = None
    side_bits: Callable[[int], int] = field(default=lambda rank: 0)
    catch_up: Callable[[Broadcast, Tensors], int] = field(default=lambda down, memory: 0)
    part: Part | None = None
    remembers: Callable[[View], Tensors] | None = None
    fold: Fold = field(default=Sum())
    change_of: Change | None = None
    then: Then | None = None

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """The global model with its base, and what the server says besides."""
        side = {} if self.side is None else self.side(server)
        return Broadcast(server.theta, side, server.base, server.base_bits)

    def view(self, down: Broadcast, client: int, rank: int, tick: int, memory: Tensors | None = None) -> View:
        """The client's cut of the broadcast; it receives what the method changes, as float32, and what it missed."""
        rank = self.rank_of(rank, memory or {})
        start = cut_to_rank(down.common, self.space, rank)
        changes = frozenset(start) if self.changes is None else self.changes
        values, which = int(sum(start[name].size for name in changes)), 0
        if self.part is not None:
            start, values, which = self.part(start)
        trains = changes if self.trains is None else self.trains(tick)
        downlink = Downlink(32 * values, self.side_bits(rank) + which, self.catch_up(down, memory or {}))
        return View(tick, client, rank, start, trains, downlink, down.side)

    def local(self, view: View, memory: Tensors, steps: int) -> LocalJob:
        """Train what the view says, with the penalty."""
        return LocalJob(view.start, steps, view.trains, self.penalty(view))

    def upload(self, view: View, job: LocalJob, end: Tensors, memory: Tensors) -> Upload:
        """The change of what was trained, or what the method makes of it."""
        if self.sends is not None:
            return self.sends(view, job, end, memory)
        change = difference(view.start, end, view.trains)
        if self.remembers is None:
            return Upload(change)
        kept = self.remembers(view)
        return Upload(change, memory_if_delivered=kept, memory_if_lost=kept, memory_if_rejected=kept)

    def change(self, server: ServerState, folded: Tensors) -> Tensors | None:
        """The mean change, as it is folded or made of it; None where `then` applies the products themselves."""
        return folded if self.change_of is None else self.change_of(server, folded)

    def model(self, server: ServerState) -> GlobalModel:
        """The values, and what was merged into the base."""
        return GlobalModel(server.theta, server.base)

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """Add the mean change, then what the method does besides. Nobody arrived: nothing changes."""
        if received.folded is None:
            return server
        change = self.change(server, received.folded)
        if change is None and self.then is None:
            raise ValueError("change_of gives None, and there is no `then` that applies the products")
        after = add_change(server, change or {}, self.config.server_lr)
        return after if self.then is None else self.then(server, after, received)


def factor_names(space: ParamSpace, kind: str) -> frozenset[str]:
    """Names of A ("a"), of B ("b") or of both ("ab"), with the trained head, which always travels."""
    pairs = space.pairs
    return space.always_sent | {n for p in pairs for n, one in ((p.a, "a"), (p.b, "b")) if one in kind}
