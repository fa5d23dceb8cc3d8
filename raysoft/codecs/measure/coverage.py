"""What codecs say of the updates they encoded (`Encoded.stats`), as figures of a round.

`sent` is a mask over the rank components of r_max; N of them. Numbers are averaged over the clients that have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from raysoft.types import Array


def sent_counts(stats: Iterable[Mapping[str, Array]]) -> Array | None:
    """Of how many clients each rank component was sent, int64 [N]; None where no codec says."""
    sent_KN = [np.asarray(one["sent"], dtype=np.int64) for one in stats if "sent" in one]
    return np.sum(sent_KN, axis=0) if sent_KN else None


def coverage(counts_N: Array | None) -> dict[str, float]:
    """How evenly components came to be sent: the share that never was, and the entropy of the rest (1 = even)."""
    if counts_N is None or counts_N.sum() == 0:
        return {}
    share = counts_N[counts_N > 0] / counts_N.sum()
    entropy = float(-(share * np.log(share)).sum() / np.log(len(counts_N))) if len(counts_N) > 1 else 1.0
    return {"components_never_sent": float((counts_N == 0).mean()), "selection_entropy": entropy}


_OWN = ("cross_term_share", "memory_residual")


def mean_stats(stats: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """The mean of every number where it is finite; what only the codec knows is called codec_NAME in a record.

    (A codec of another package must not be able to write what others have measured.)
    """
    values: dict[str, list[float]] = {}
    for one in stats:
        for name in sorted(one.keys() - {"sent"}):
            values.setdefault(name if name in _OWN else f"codec_{name}", []).append(float(one[name]))
    means = {name: float(np.mean(found)) for name, found in sorted(values.items())}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}
