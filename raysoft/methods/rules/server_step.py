"""A server optimiser: the mean change of a round as the gradient of a step that the server takes itself.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv 2003.00295), Algorithm 2.

The change is what the round proposes minus what there was. Moments are kept value by value in `ServerState.extra`, so
they are checkpointed with the model. Of a round in which a value was not trained (the other factor under RoLoRA),
value and moments stay; where nobody arrived, all of them do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from raysoft.types import Array, Reception, ServerState

Moments = Mapping[str, Array]
"""By letter, e.g. m and v: float64 in the shape of the value."""
Rule = Callable[[Array, Moments], tuple[Array, Moments]]
"""(change, moments so far) -> (what is added to the value, moments after it); float64."""


def stepped(
    before: ServerState,
    proposed: ServerState,
    received: Reception,
    *,
    name: str,
    first: Mapping[str, float],
    rule: Rule,
) -> ServerState:
    """`proposed` with a step of the rule in place of the change, value by value of those that were trained.

    `name`: under which `extra` keeps the moments, as `<name>/<letter>/<value>`, float32. `first`: what a moment is
    before the first step, by letter. The step is made of moments in float64 and rounded once, as they are themselves.
    """
    if received.folded is None:
        return proposed
    theta, extra = dict(proposed.theta), dict(proposed.extra)
    for key, old in before.theta.items():
        if key not in received.folded:
            continue
        start = old.astype(np.float64)
        places = {letter: f"{name}/{letter}/{key}" for letter in first}
        known = {
            letter: extra[place].astype(np.float64) if place in extra else np.full(start.shape, first[letter])
            for letter, place in places.items()
        }
        step, after = rule(proposed.theta[key].astype(np.float64) - start, known)
        theta[key] = (start + step).astype(np.float32)
        extra |= {places[letter]: value.astype(np.float32) for letter, value in after.items()}
    return replace(proposed, theta=theta, extra=extra)
