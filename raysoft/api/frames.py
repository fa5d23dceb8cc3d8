"""Records of runs as pandas frames. Values are those of the files: shares from 0 to 1, seconds, joules, bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysoft.rundir.reading import Run

if TYPE_CHECKING:
    from pandas import DataFrame

_NESTED = ("metrics", "drop_reasons")
_CLIENT_COLUMNS = ("round", "client", "status", "kept_fraction", "bandwidth_hz", "latency_s", "gain_db", "energy_j")


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> DataFrame:
    """Rows as a frame; None in a column of numbers is NaN. `columns`: those there are where there is no row."""
    import pandas as pd

    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    return pd.DataFrame({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> Any:
    import pandas as pd

    numbers = all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    )
    if numbers and any(value is None for value in values):
        return pd.Series(values, dtype="float64")
    kinds = {type(value) for value in values}
    return pd.Series(values) if len(kinds) <= 1 or numbers else pd.Series(values, dtype="object")


def rounds_frame(run: Run, **first: Any) -> DataFrame:
    """A row a round (0: the untouched base): the numbers of rounds.jsonl, each metric and each reason for a loss.

    Reasons are columns `lost_REASON` with counts of clients. `first`: columns before these, the same in every row.
    """
    reasons = list(dict.fromkeys(name for row in run.records for name in row.get("drop_reasons") or {}))
    rows = []
    for row in run.records:
        own = {key: value for key, value in row.items() if key not in _NESTED}
        metrics = {
            key: value for key, value in (row.get("metrics") or {}).items() if not isinstance(value, (dict, list))
        }
        lost = row.get("drop_reasons") or {}
        rows.append({**first, **metrics, **own, **{f"lost_{name}": lost.get(name, 0) for name in reasons}})
    front = [*first, *(key for key in (run.records[0] if run.records else {}) if key not in _NESTED)]
    return frame(rows, front)


def clients_frame(run: Run, **first: Any) -> DataFrame:
    """A row for each client of each round's cohort, as far as records hold them (the first by number of a large one).

    Columns: round, client, status (`ok`, `outage`, or why the update was lost), kept_fraction, bandwidth_hz,
    latency_s, gain_db, energy_j, and whatever else the rounds record by client.
    """
    rows = []
    for row in run.records:
        columns = (row.get("metrics") or {}).get("clients")
        ids = columns.get("id") if isinstance(columns, Mapping) else None
        if not isinstance(columns, Mapping) or not isinstance(ids, list):
            continue
        others = {
            name: values
            for name, values in columns.items()
            if name != "id" and isinstance(values, list) and len(values) == len(ids)
        }
        for place, client in enumerate(ids):
            values = {name: column[place] for name, column in others.items()}
            rows.append({**first, "round": row["round"], "client": client, **values})
    return frame(rows, [*first, *_CLIENT_COLUMNS])


def joined(frames: Sequence[DataFrame]) -> DataFrame:
    """Frames below each other, with a row number of their own."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
