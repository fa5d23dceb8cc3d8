"""The tables of the two-page docs/study.md: numbers from those of the full record, beside words that a reader judged.

A verdict is a judgement, like the prose of the record: it stands here as written, and every number beside it is read
from numbers.json, so that both pages are of the same runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from raysoft.quantities import number
from studies.loading import ACCURACY
from studies.measures import Row
from studies.outline import DIGITS, RECORD, TEXT
from studies.product import Product
from studies.sheets import Column, Sheet, cost_columns, interval, numeric, text, verdict

ARMS = (
    "ideal",
    "soft",
    "soft-plus",
    "soft-plus codec, equal",
    "equal",
    "greedy",
    "fedit 4 bit",
    "top-k",
    "random components",
)
RANDOM, FOUR, PLUS = "random components", "fedit 4 bit", "soft-plus"
OTHERS, DEFAULT = "plan, fitted on other budgets", "plan, default constants"  # rules of the offline stage
REPRODUCED, PARTLY, NOT, TOO_SMALL = (
    "reproduced",
    "reproduced in part",
    "not reproduced",
    "not testable at this scale",
)


class Lookup:
    """Rows of the tables in numbers.json by table and key; KeyError for what is not there."""

    def __init__(self, numbers: Mapping[str, Any]):
        parts = [part["tables"] for part in numbers.values() if isinstance(part, dict) and "tables" in part]
        self.tables: dict[str, Sequence[Row]] = {name: rows for part in parts for name, rows in part.items()}

    def rows(self, table: str, key: str, values: Sequence[Any]) -> list[Row]:
        """The rows whose `key` is one of the values, in their order."""
        known = {row[key]: row for row in self.tables[table]}
        return [known[value] for value in values]

    def row(self, table: str, key: str, value: Any) -> Row:
        """The row whose `key` is the value."""
        return self.rows(table, key, [value])[0]

    def headline(self, task: str, label: str) -> Row:
        """The row of an arm in a task's headline table."""
        return self.row(f"headline-{task}", "arm", label)

    def grain(self, task: str, label: str) -> Row:
        """The row of an arm in a task's table of what may be left out."""
        return self.row(f"grain-{task}", "arm", label)

    def gain(self, task: str) -> Row:
        """What the queue gains over the best other allocator, as a mean over the budgets."""
        return self.row(f"sweep-{task}-gain-accuracy", "budget", "all (mean)")

    def regret(self, task: str, rule: str) -> str:
        """Mean regret of a rule of the offline stage over the budgets, in points."""
        table = self.tables[f"offline-{task}-regret-accuracy"]
        found = [row for row in table if row["rule"] == rule and row["budget"] == "all (mean)"]
        if not found:
            raise KeyError(rule)
        return number(found[0]["accuracy_regret_difference"], 100, 2)


def read(numbers: Mapping[str, Any]) -> list[Product]:
    """The tables of the short page; none, and a line on stderr, where the numbers lack an experiment or an arm."""
    found = Lookup(numbers)
    try:
        return [
            Product("findings-answers", {"findings-answers": answers(found)}),
            *(_headline(found, numbers, task) for task in (DIGITS, TEXT)),
            Product("findings-claims", {"findings-claims": claims(found)}),
        ]
    except (KeyError, TypeError) as error:  # TypeError: a number that was not measured
        print(f"findings: not made, because the numbers lack {error}", file=sys.stderr)
        return []


def _headline(found: Lookup, numbers: Mapping[str, Any], task: str) -> Product:
    """The arms that the answers are about, and what the record says of their runs."""
    name, short = f"headline-{task}", f"findings-{task}"
    rows = tuple(found.rows(name, "arm", ARMS))
    columns: list[Column] = [
        text("Arm", "arm"),
        numeric("Seeds", "seeds", digits=0),
        numeric("Accuracy %", "accuracy", ACCURACY.factor),
        interval(
            "Against ideal, points [95 %]", "accuracy_difference", "accuracy_low", "accuracy_high", ACCURACY.factor
        ),
        verdict("Non-inferior", "accuracy_noninferior"),
        *cost_columns("share_dense32", "latency_over_budget"),
    ]
    return Product(short, {short: Sheet(tuple(columns), rows)}, remark=numbers[name]["missing"])


def answers(found: Lookup) -> Sheet:
    """The questions of the study and what came out."""
    d, t, arm = DIGITS, TEXT, found.headline
    gain_d, gain_t = (found.gain(task) for task in (d, t))
    rows = [
        _answer(
            "Does SOFT choose well what to send?",
            f"Where updates are concentrated. Digits: {_points(arm(d, 'soft'))} points to `ideal` at "
            f"{_share(arm(d, 'soft'))} of the dense 32-bit uplink, random components {_points(arm(d, RANDOM))}. "
            f"python-source, where AdamW spreads an update evenly: {_points(arm(t, 'soft'))} at "
            f"{_share(arm(t, 'soft'))}, random components {_points(arm(t, RANDOM))}.",
            "Digits",
            "digits-all-arms-against-everything-sent",
        ),
        _answer(
            "Does TSFA keep its latency budget?",
            f"Yes: {_ratio(arm(d, 'soft'))} and {_ratio(arm(t, 'soft'))} times the budget. With about the same bits "
            f"equal shares of the band need {_ratio(arm(d, 'equal'))} and {_ratio(arm(t, 'equal'))} times, min–max "
            f"bandwidth {_ratio(arm(d, 'minmax'))} and {_ratio(arm(t, 'minmax'))}.",
            "Python source",
            "python-source-all-arms-against-everything-sent",
        ),
        _answer(
            "Is its queue better than solving each round alone?",
            f"Not measurably: against the best other allocator of each budget {_interval(gain_d)} and "
            f"{_interval(gain_t)} points.",
            "Allocators",
            "allocators-under-a-latency-budget",
        ),
        _answer(
            "Are whole rank components the right grain?",
            f"Not here. Four bits for every value, without any selection, lose nothing: {_points(arm(d, FOUR))} "
            f"and {_points(arm(t, FOUR))} points at {_share(arm(d, FOUR))} and {_share(arm(t, FOUR))}.",
            "How few bits",
            "how-few-bits-will-do",
        ),
        _answer(
            "How far can SOFT + TSFA go?",
            f"`soft-plus` is equivalent to everything sent: {_interval(arm(d, PLUS))} points at {_share(arm(d, PLUS))} "
            f"and {_interval(arm(t, PLUS))} at {_share(arm(t, PLUS))}, in rounds of {_seconds(arm(d, PLUS))} s "
            f"(`soft`: {_seconds(arm(d, 'soft'))} s) and {_seconds(arm(t, PLUS))} s ({_seconds(arm(t, 'soft'))} s).",
            "Options",
            "options-beyond-the-paper",
        ),
    ]
    return Sheet((text("Question", "question"), text("Answer", "answer"), text("In the record", "record")), tuple(rows))


def claims(found: Lookup) -> Sheet:
    """The claims of the paper's two abstracts, a verdict, and what it rests on."""
    each = (
        naive_sparsification,
        close_to_ideal,
        no_svd,
        latency_budget,
        lyapunov_queue,
        offline_stage,
        bound,
        large_models,
    )
    columns = [text("Claim", "claim"), text("Verdict", "verdict"), text("Here", "here")]
    return Sheet((*columns, text("In the record", "record")), tuple(claim(found) for claim in each))


def naive_sparsification(found: Lookup) -> Row:
    """What is lost where unsent entries become zero, and where columns and rows are chosen apart."""

    def zero(task: str, share: str) -> str:
        return _points(found.grain(task, f"entries of the state, else zero {share}"))

    def apart(task: str, shares: Sequence[str]) -> str:
        rows = [found.grain(task, f"columns and rows apart {share}") for share in shares]
        values = [row["accuracy_difference"] for row in rows]
        return f"{number(min(values), 100, 2, signed=True)} to {number(max(values), 100, 2, signed=True)}"

    d, t = DIGITS, TEXT
    return _claim(
        "Sparsifying the two factors naively loses much (v2)",
        PARTLY,
        f"With unsent entries set to zero: {zero(d, '0.05')} points to whole components at 5 % of the bits of "
        f"digits, {zero(d, '0.4')} at 40 %; python-source {zero(t, '0.1')} at 10 %. With columns and rows chosen "
        f"apart, nothing: {apart(d, ('0.05', '0.1', '0.2', '0.4'))} and {apart(t, ('0.1', '0.4'))}.",
        "Left out",
        "what-may-be-left-out",
    )


def close_to_ideal(found: Lookup) -> Row:
    """How far `soft` is from everything sent."""
    return _claim(
        "Sparsified rank components come close to the ideal at far fewer bits",
        PARTLY,
        f"Digits, at little loss: {_interval(found.headline(DIGITS, 'soft'))} points; python-source, hardly better "
        f"than random components: {_interval(found.headline(TEXT, 'soft'))}. Neither is non-inferior at 1 point.",
        "Claims",
        "what-of-the-papers-claims-is-reproduced",
    )


def no_svd(found: Lookup) -> Row:
    """What a codec with an SVD loses at the same bits."""
    return _claim(
        "SVDs are too much for clients; SOFT needs none (v2)",
        TOO_SMALL,
        f"The cost was not measured: these matrices are small. `svd` loses more at the same bits "
        f"({_points(found.headline(DIGITS, 'svd'))} and {_points(found.headline(TEXT, 'svd'))} points).",
        "Python source",
        "python-source-all-arms-against-everything-sent",
    )


def latency_budget(_: Lookup) -> Row:
    """Its numbers are those of the answers above."""
    return _claim(
        "Sparsity and bandwidth adapted to the channel keep a long-term latency budget",
        REPRODUCED,
        "On both tasks; fixed shares break it (see the answers above).",
        "Allocators",
        "allocators-under-a-latency-budget",
    )


def lyapunov_queue(found: Lookup) -> Row:
    """The gain over the best other allocator, and the trade-off over V."""
    gain_d, gain_t = (found.gain(task) for task in (DIGITS, TEXT))
    low, high = (found.row("tradeoff-digits-bounded", "v", v) for v in (0.1, 30))
    return _claim(
        "The Lyapunov queue is better than solving each round alone",
        NOT,
        f"{_points(gain_d)} and {_points(gain_t)} points to the best other allocator; intervals hold 0. The "
        f"trade-off is as in theory: from V = 0.1 to 30 the penalty falls from {number(low['penalty'], 1, 4)} to "
        f"{number(high['penalty'], 1, 4)}, the queue grows from {number(low['queue_s'], 1, 3)} to "
        f"{number(high['queue_s'], 1, 3)} s.",
        "Over V",
        "the-penalty-and-the-queue-over-v",
    )


def offline_stage(found: Lookup) -> Row:
    """The mean regret of the offline stage's score, by the constants it was given."""
    d, t = DIGITS, TEXT
    return _claim(
        "An offline stage finds the rank for the budget (v2)",
        PARTLY,
        f"The best rank moves on python-source. Mean regret of the score: {found.regret(d, 'plan')} and "
        f"{found.regret(t, 'plan')} points untuned, {found.regret(d, OTHERS)} and {found.regret(t, OTHERS)} fitted "
        f"on other budgets; on digits {found.regret(d, DEFAULT)} fitted on python-source.",
        "Offline stage",
        "the-offline-stage",
    )


def bound(found: Lookup) -> Row:
    """How well the bound ranks budgets, methods and ranks."""

    def tau(task: str, kind: str, what: str = "fitted") -> str:
        return number(found.row(f"bound-{task}", "comparison", kind)[f"{what}_tau"], 1, 2)

    d, t = DIGITS, TEXT
    return _claim(
        "A bound shows how rank, sparsification error and covariance act",
        PARTLY,
        f"Kendall's τ with the outcome: {tau(d, 'budgets')} and {tau(t, 'budgets')} over budgets, "
        f"{tau(d, 'methods')} and {tau(t, 'methods')} over methods, {tau(d, 'ranks')} and {tau(t, 'ranks')} over "
        f"ranks. Covariance alone ranks methods the wrong way round ({tau(d, 'methods', 'covariance_alone')} and "
        f"{tau(t, 'methods', 'covariance_alone')}).",
        "The bound",
        "the-bound-as-a-ranking",
    )


def large_models(_: Lookup) -> Row:
    """Nothing here could show it."""
    return _claim(
        "Large models become deployable over real radio links (v1)",
        TOO_SMALL,
        "Models of at most 0.4 million parameters over a simulated radio.",
        "Limits",
        "limits",
    )


def _answer(question: str, answer: str, words: str, anchor: str) -> Row:
    return {"question": f"**{question}**", "answer": answer, "record": _link(words, anchor)}


def _claim(claim: str, judged: str, here: str, words: str, anchor: str) -> Row:
    return {"claim": claim, "verdict": f"**{judged}**", "here": here, "record": _link(words, anchor)}


def _link(words: str, anchor: str) -> str:
    return f"[{words}]({RECORD.file}#{anchor})"


def _points(row: Row) -> str:
    return number(row["accuracy_difference"], ACCURACY.factor, ACCURACY.digits, signed=True)


def _interval(row: Row) -> str:
    ends = (number(row[f"accuracy_{end}"], ACCURACY.factor, ACCURACY.digits, signed=True) for end in ("low", "high"))
    return f"{_points(row)} [{', '.join(ends)}]"


def _share(row: Row) -> str:
    return f"{number(row['share_dense32'], 100, 1)} %"


def _ratio(row: Row) -> str:
    return number(row["latency_over_budget"], 1, 3)


def _seconds(row: Row) -> str:
    return number(row["mean_latency_s"], 1, 3)
