"""Every number that a record, a summary, a table or a figure shows: what it is called, its unit, which way is better.

A new metric touches the file that measures it and this table; tables, figures, sweeps, gauges and file checks ask here.

>>> latency = quantity("mean_latency_s")
>>> latency.heading(), latency.text(0.30094), latency.better
('Mean round latency (s)', '0.301', 'lower')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MINUS, NOTHING, NOT_MEASURED = "\N{MINUS SIGN}", "–", "not measured"
Better = Literal["higher", "lower"]
Place = Literal["record", "summary", "metrics", "row", "arm"]


@dataclass(frozen=True)
class Quantity:
    """One number: `factor` times what is stored is in `unit`; `digits` are decimals in a table.

    `places`: what holds it: a line of rounds.jsonl ("record"), summary.json itself, its `metrics`, the row of a run in
    a comparison or a sweep, or only that of an arm among others ("arm"). `short`: a heading in a narrow table, where it
    differs. `text_task`: measured on text only. `gauge`: the sentence of a Prometheus gauge, where it has one.
    `meaning`: a sentence below tables of comparisons, where the heading does not say enough. Labels and `short` may
    hold {equal} and {accuracy}.
    """

    key: str
    label: str
    places: tuple[Place, ...]
    unit: str = ""
    factor: float = 1.0
    digits: int = 3
    better: Better | None = None
    short: str | None = None
    text_task: bool = False
    gauge: str | None = None
    meaning: str | None = None

    def heading(self, **words: str) -> str:
        """Over a column or along an axis: `Uplink (MB)`. `words`: what {equal} and {accuracy} stand for."""
        return self._filled(self.label, words) + (f" ({self.unit})" if self.unit else "")

    def narrow_heading(self, **words: str) -> str:
        """The same in a terminal: `uplink MB`."""
        label = self._filled(self.short or self.label.lower(), words)
        return f"{label} {self.unit}" if self.unit else label

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """The number as a table shows it, without its unit; a dash for None."""
        return number(value, self.factor, self.digits, signed=signed)

    @property
    def suffix(self) -> str:
        """The unit behind a number in a sentence, with its space."""
        return f" {self.unit}" if self.unit else ""

    def spread(self, mean: float | None, std: float | None) -> str:
        """Mean ± standard deviation."""
        scaled = [None if one is None else self.factor * one for one in (mean, std)]
        return with_error(scaled[0], scaled[1], self.digits)

    def cell(self, mean: float | None, std: float | None) -> str:
        """The same on a page, `86.1 ± 0.8`: as many decimals as two figures of the spread need, at most two more."""
        if mean is None:
            return NOTHING
        if not std:
            return amount(self.factor * mean)
        most = self.digits + 2
        needed = next((d for d in range(most) if self.factor * std * 10**d >= 9.5), most)
        return f"{number(mean, self.factor, needed)} ± {number(std, self.factor, needed)}"

    @property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.better == "lower"

    def difference_unit(self) -> str:
        """What a difference of two is counted in: points for shares in percent."""
        return "points" if self.unit == "%" else self.unit or self.short or self.label.lower()

    @property
    def possible(self) -> tuple[float, float]:
        """The least and the largest value there can be, in `unit`: a spread is drawn no further than that.

        >>> quantity("accuracy").possible, quantity("energy_j").possible, quantity("recovered_gap").possible
        ((0.0, 100.0), (0.0, inf), (-inf, inf))
        """
        if self.key not in QUANTITIES or self.key == "recovered_gap":
            return -math.inf, math.inf
        share = self.unit == "%" and ("accuracy" in self.key or self.key.startswith("kept_fraction"))
        return 0.0, self.factor if share else math.inf

    @property
    def record_key(self) -> str:
        """Where a line of rounds.jsonl has it: `accuracy`, `metrics.bits_per_byte`."""
        return self.key if "record" in self.places else f"metrics.{self.key}"

    @staticmethod
    def _filled(label: str, words: Mapping[str, str]) -> str:
        for word, meaning in {"equal": "", "accuracy": "accuracy", **words}.items():
            label = label.replace(f"{{{word}}}", meaning)  # not str.format: a plug-in names its numbers as it likes
        return label.strip()


def number(value: float | None, factor: float = 1.0, digits: int = 3, *, signed: bool = False) -> str:
    """`factor * value` with so many decimals and a true minus; a dash for None.

    >>> number(-0.0123, 100.0, 2, signed=True), number(None)
    ('−1.23', '–')
    """
    if value is None:
        return NOTHING
    return f"{factor * value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """`number` with its spread, where there is one.

    >>> with_error(-0.5, 0.25, 2), with_error(0.5, None), with_error(None, None)
    ('−0.50 ± 0.25', '0.500', '–')
    """
    text = number(value, digits=digits)
    return text if value is None or error is None else f"{text} ± {number(error, digits=digits)}"


def amount(value: float | None, unit: str = "", figures: int = 4) -> str:
    """A number of any size in a sentence: so many significant figures and its unit.

    >>> amount(0.3009391, "s"), amount(-86.1, "%", 3), amount(None, "J")
    ('0.3009 s', '−86.1 %', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.{figures}g}".replace("-", MINUS) + (f" {unit}" if unit else "")


def percent(share: float | None) -> str:
    """A share, 0 to 1, in a sentence.

    >>> percent(0.0312), percent(None)
    ('3.1 %', 'not measured')
    """
    return NOT_MEASURED if share is None else f"{number(share, 100.0, 1)} %"


_RECORD: tuple[Place, ...] = ("record",)
_SUMMARY: tuple[Place, ...] = ("summary",)
_METRICS: tuple[Place, ...] = ("metrics",)
_ROW: tuple[Place, ...] = ("row",)
_ARM: tuple[Place, ...] = ("arm",)
_MB = 1 / 8e6  # of a bit

# In the order in which tables show them.
TABLE: tuple[Quantity, ...] = (
    Quantity("round", "Round", _RECORD, digits=0, gauge="Rounds done"),
    Quantity("accuracy", "Accuracy", _RECORD, "%", 100.0, 1, "higher",
             gauge="Accuracy of the global model at its last evaluation, 0 to 1"),
    Quantity("final_accuracy", "Final accuracy", ("summary", "row"), "%", 100.0, 1, "higher", short="{accuracy}"),
    Quantity("best_accuracy", "Best accuracy", _SUMMARY, "%", 100.0, 1, "higher"),
    Quantity("base_accuracy", "Accuracy of the base", _SUMMARY, "%", 100.0, 1, "higher"),
    Quantity("last_accuracy", "Accuracy at the end", _METRICS, "%", 100.0, 1, "higher"),
    Quantity("equal_accuracy", "Accuracy at equal {equal}", _ARM, "%", 100.0, 1, "higher", short="at equal {equal}"),
    Quantity("loss", "Loss", _RECORD, better="lower", gauge="Loss of the global model at its last evaluation"),
    Quantity("train_loss", "Training loss", _RECORD, better="lower"),
    Quantity("final_loss", "Final loss", _METRICS, better="lower"),
    Quantity("bits_per_byte", "Bits per byte", _METRICS, better="lower", short="bits/byte", text_task=True),
    Quantity("final_bits_per_byte", "Bits per byte", ("metrics", "row"), better="lower", short="bits/byte",
             text_task=True),
    Quantity("base_bits_per_byte", "Bits per byte of the base", _METRICS, better="lower", text_task=True),
    Quantity("equal_bits_per_byte", "Bits per byte at equal {equal}", _ARM, better="lower",
             short="bits/byte at equal {equal}", text_task=True),
    Quantity("equal_round", "Read at round", (), digits=1),
    Quantity("recovered_gap", "Recovered gap", _ARM, "%", 100.0, 0, "higher"),
    Quantity("client_accuracy_mean", "Mean over clients", _METRICS, "%", 100.0, 1, "higher"),
    Quantity("worst10_client_accuracy", "Worst tenth of clients", ("metrics", "row"), "%", 100.0, 1, "higher",
             short="worst 10 % clients"),
    Quantity("worst10_client_bits_per_byte", "Bits per byte of the worst tenth of clients", _METRICS, better="lower",
             text_task=True),
    Quantity("rounds", "Rounds", _SUMMARY, digits=0),
    Quantity("uplink_bits", "Uplink", _RECORD, "MB", _MB, 2, "lower"),
    Quantity("uplink_bits_total", "Uplink", _SUMMARY, "MB", _MB, 2, "lower",
             gauge="Bits sent by the clients so far"),
    Quantity("uplink_mb", "Uplink", _ROW, "MB", 1.0, 2, "lower"),
    Quantity("uplink_share_of_dense32", "Of dense 32-bit", _METRICS, "%", 100.0, 1, "lower"),
    Quantity("share_dense32", "Of dense 32-bit", _ROW, "%", 100.0, 1, "lower", short="of dense 32 bit"),
    Quantity("uplink_share_of_dense_same_bits", "Of dense, same bits", _METRICS, "%", 100.0, 1, "lower"),
    Quantity("share_dense_same_bits", "Of dense, same bits", _ROW, "%", 100.0, 1, "lower",
             meaning="Of dense, same bits: the uplink, of what all trained values would take at as many bits a value."),
    Quantity("round_latency_s", "Round latency", _RECORD, "s", better="lower",
             gauge="Simulated latency of the last round, seconds"),
    Quantity("mean_round_latency_s", "Mean round latency", _SUMMARY, "s", better="lower", short="latency"),
    Quantity("mean_latency_s", "Mean round latency", _ROW, "s", better="lower", short="latency"),
    Quantity("latency_budget_s", "Latency budget", _SUMMARY, "s", better="lower"),
    Quantity("latency_over_budget", "Latency / budget", _ROW, better="lower"),
    Quantity("queue_s", "Virtual queue", _RECORD, "s", digits=2, better="lower",
             gauge="Virtual queue of the latency budget, seconds"),
    Quantity("simulated_time_s", "Simulated time", ("record", "summary"), "s", digits=1, better="lower"),
    Quantity("simulated_s", "Simulated time", _ROW, "s", digits=1, better="lower", short="simulated"),
    Quantity("energy_j", "Energy of all devices", ("record", "row"), "J", digits=1, better="lower", short="energy"),
    Quantity("energy_j_total", "Energy of all devices", _SUMMARY, "J", digits=1, better="lower",
             gauge="Energy spent by the clients so far, joules"),
    Quantity("kept_fraction_mean", "Kept fraction", _RECORD, "%", 100.0, 1, short="kept"),
    Quantity("kept_fraction", "Kept fraction", _ROW, "%", 100.0, 1, short="kept",
             meaning="Kept: what clients that may send do send, of the bits of all their components."),
    Quantity("wall_time_s", "Wall time", ("record", "summary"), "s", digits=1, better="lower"),
    Quantity("client_updates_per_s", "Client updates a second", _SUMMARY, digits=1, better="higher",
             gauge="Client updates a second of wall time in the last round"),
)  # fmt: skip
# What is learned: the metrics that comparisons, their tests and their fronts are about.
LEARNED = ("accuracy", "bits_per_byte")
QUANTITIES: Mapping[str, Quantity] = {one.key: one for one in TABLE}
_LOW = ("loss", "bits", "latency", "energy", "time", "error", "queue", "dropped", "uplink_share", "covariance")


def quantity(key: str) -> Quantity:
    """What is known of a number; of one that a plug-in measures, what its name says.

    >>> quantity("codec_error").better, quantity("codec_error").label
    ('lower', 'codec_error')
    """
    known = QUANTITIES.get(key)
    if known is not None:
        return known
    return Quantity(key, key, _METRICS, digits=4, better="lower" if any(word in key for word in _LOW) else "higher")


def keys_in(*places: Place, text_task: bool | None = None) -> tuple[str, ...]:
    """The keys of some places, in the order of tables; those of text tasks only, or all but those."""
    return tuple(one.key for one in TABLE if set(places) & set(one.places) and text_task in (None, one.text_task))
