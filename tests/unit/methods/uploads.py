"""Fixed uploads for the server step of any method, and the weights that come of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raysoft.config import Plugin, registry
from raysoft.methods.base import Method
from raysoft.methods.folds import Arrived
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import cut_to_rank, pad_to_rank
from raysoft.rng import Rng
from raysoft.types import Array, ClientReport, Curve, GlobalModel, Outcome, ParamSpace, Reception, ServerState, Update

NO_CURVE = Curve(0, np.zeros(1), np.zeros(1))


def built(name: str, space: ParamSpace, **options: Any) -> Method:
    """A method by its name."""
    return registry.build("method", Plugin(name=name, **options), space)


def effective(model: GlobalModel, space: ParamSpace) -> dict[str, Array]:
    """The change of W0 by module, float64."""
    return {
        pair.module: model.base.get(pair.module, 0.0)
        + space.scale * model.theta[pair.b].astype(float) @ model.theta[pair.a].astype(float)
        for pair in space.pairs
    }


@dataclass(frozen=True)
class Uploads:
    """Of K clients that start from one server: their changes at their own ranks, and their factors in the mean."""

    space: ParamSpace
    server: ServerState
    ranks: tuple[int, ...]
    updates: tuple[Update, ...]
    mix_K: Array

    @classmethod
    def drawn(
        cls,
        space: ParamSpace,
        seed: int,
        ranks: tuple[int, ...],
        *,
        start: str = "trained",
        mix_K: Array | None = None,
        size: float = 0.3,
    ) -> Uploads:
        """Random ones. `start`: "fresh", B = 0 as every run begins, or "trained", with some B."""
        draws = np.random.default_rng(seed)
        heads = {name: draws.normal(size=space.shapes[name]).astype(np.float32) for name in sorted(space.always_sent)}
        theta = initial_theta(space, heads, "peft", Rng(seed))
        if start == "trained":
            for pair in space.pairs:
                theta[pair.b] = draws.normal(size=space.shapes[pair.b]).astype(np.float32)
        updates = tuple(
            {n: (size * draws.normal(size=value.shape)).astype(np.float32) for n, value in one.items()}
            for one in (cut_to_rank(theta, space, rank) for rank in ranks)
        )
        mix = draws.dirichlet(np.ones(len(ranks))) if mix_K is None else mix_K
        return cls(space, ServerState(theta), ranks, updates, mix)

    def permuted(self, order: list[int]) -> Uploads:
        """The same clients in another order."""
        return replace(
            self,
            ranks=tuple(self.ranks[k] for k in order),
            updates=tuple(self.updates[k] for k in order),
            mix_K=self.mix_K[order],
        )

    def reception(self, method: Method) -> Reception:
        """As a round hands it to `aggregate`; who has no weight is not among those who arrived."""
        arrived = [
            Arrived(pad_to_rank(update, self.space), float(mix), self.server.theta, rank)
            for update, mix, rank in zip(self.updates, self.mix_K, self.ranks, strict=True)
            if mix != 0.0
        ]
        half = len(arrived) // 2
        first, second = method.fold.part(arrived[:half]), method.fold.part(arrived[half:])
        total = method.fold.join(first, second) if first and second else first or second
        reports = tuple(ClientReport(k, 10, rank, 1.0, 1.0, 0, 0, NO_CURVE) for k, rank in enumerate(self.ranks))
        nobody = np.zeros(len(self.ranks))
        outcome = Outcome(self.mix_K > 0, nobody, nobody, ("",) * len(self.ranks), 0.0)
        return Reception(outcome, reports, method.fold.finish(total), mix_K=self.mix_K)

    def after(self, method: Method) -> ServerState:
        """The next global model."""
        return method.aggregate(self.server, self.reception(method), 1)

    def weights_after(self, method: Method) -> dict[str, Array]:
        """The change of W0 by module that the next global model stands for."""
        return effective(method.model(self.after(method)), self.space)

    def wanted(self, step: float = 1.0) -> dict[str, Array]:
        """The change of W0 with the exact mean of the clients' products, dense: float64."""
        before = effective(GlobalModel(self.server.theta, self.server.base), self.space)
        out = dict(before)
        for update, mix in zip(self.updates, self.mix_K, strict=True):
            change = pad_to_rank(update, self.space)
            theta = {name: self.server.theta[name].astype(float) + change[name] for name in change}
            theirs = effective(GlobalModel(theta, self.server.base), self.space)
            out = {m: value + step * mix * (theirs[m] - before[m]) for m, value in out.items()}
        return out


def error(found: dict[str, Array], wanted: dict[str, Array]) -> float:
    """Frobenius norm of the difference over all modules."""
    return float(np.sqrt(sum(((found[module] - wanted[module]) ** 2).sum() for module in wanted)))
