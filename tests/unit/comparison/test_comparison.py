"""From runs to comparison.json and tables, on runs whose every number is known; arms as they are written."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysoft.comparison.arms import parse_arms, pick_reference
from raysoft.comparison.readings import closing_values, equal_readings, first_reach, learned, recovered_gap, totals
from raysoft.comparison.result import comparison_data
from raysoft.comparison.tables import (
    TEX_CHARACTERS,
    arms_table,
    in_width,
    note,
    pairs_table,
    sideways,
    text_table,
    time_to_table,
    write_tables,
)
from raysoft.errors import ConfigError
from raysoft.quantities import NOTHING
from raysoft.report.comparison.file import ComparisonFile
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import window_words


def make(
    accuracy, bits=1.0, seconds=1.0, joules=1.0, bits_per_byte=None, base=0.3, path="store/x", **summary_values
) -> Run:
    """A run of len(accuracy) rounds after the base (None: not evaluated); costs are per round."""
    rows = [{"round": 0, "accuracy": base, "simulated_time_s": 0.0, "uplink_bits": 0, "energy_j": 0.0, "metrics": {}}]
    for t, value in enumerate(accuracy, start=1):
        rows.append(
            {
                "round": t,
                "accuracy": value,
                "simulated_time_s": t * seconds,
                "uplink_bits": bits,
                "energy_j": joules,
                "kept_fraction_mean": 0.1 * t,
                "metrics": {},
            }
        )
    if bits_per_byte is not None:
        for row, value in zip(rows, [3.0, *bits_per_byte], strict=True):
            row["metrics"] = {"bits_per_byte": value}
    last = [value for value in accuracy if value is not None][-5:]
    summary = {
        "final_accuracy": float(np.mean(last)) if last else base,
        "uplink_bits_total": bits * len(accuracy),
        "mean_round_latency_s": seconds,
        "latency_budget_s": None,
        "simulated_time_s": seconds * len(accuracy),
        "energy_j_total": joules * len(accuracy),
        "metrics": {},
        **summary_values,
    }
    return Run(Path(path), {}, tuple(rows), summary)


# ----------------------------------------------------------------------------------------------------------- readings


def test_what_a_run_has_learned_is_the_mean_of_its_last_five_evaluations():
    run = make([0.4, 0.5, None, 0.6, 0.7, 0.8, None, 0.9])
    assert learned(run, "accuracy") == pytest.approx((0.5 + 0.6 + 0.7 + 0.8 + 0.9) / 5)
    assert learned(run, "accuracy", run.column("round") <= 4) == pytest.approx((0.4 + 0.5 + 0.6) / 3)
    assert learned(run, "accuracy", run.column("round") <= 0) == 0.3  # nothing yet: the base
    assert learned(run, "bits_per_byte") is None
    assert learned(make([0.4, 0.4], bits_per_byte=[2.0, 1.0]), "bits_per_byte") == pytest.approx(1.5)


def test_closing_values_by_hand():
    metrics = {"uplink_share_of_dense32": 0.25, "uplink_share_of_dense_same_bits": 0.5, "worst10_client_accuracy": 0.6}
    run = make([0.4, 0.5], bits=16e6, seconds=0.33, joules=2.0, latency_budget_s=0.3, metrics=metrics)
    values = closing_values(run)
    assert values["final_accuracy"] == pytest.approx(0.45)
    assert (values["uplink_mb"], values["share_dense32"], values["share_dense_same_bits"]) == (4.0, 0.25, 0.5)
    assert values["latency_over_budget"] == pytest.approx(1.1)
    assert values["kept_fraction"] == pytest.approx(0.15)
    assert (values["energy_j"], values["worst10_client_accuracy"]) == (4.0, 0.6)
    assert values["final_bits_per_byte"] is None
    assert closing_values(make([0.4]))["latency_over_budget"] is None  # no budget


def test_recovered_gap_by_hand():
    ideal = make([0.8], base=0.3)
    assert recovered_gap(make([0.7], base=0.3), ideal) == pytest.approx(0.8)
    assert recovered_gap(ideal, ideal) == 1.0
    assert recovered_gap(make([0.7]), make([0.3], base=0.3)) is None  # the reference learned nothing


def test_equal_reading_by_hand():
    cheap = make([0.4, 0.5, 0.6, 0.7], bits=10)  # 40 bits in all
    dear = make([0.5, 0.9, 0.95, 0.99], bits=18)  # 36 after two rounds
    found = equal_readings({"cheap": cheap, "dear": dear}, "bits")
    assert (found["cheap"].round, found["cheap"].at) == (4, 40)
    assert found["cheap"].accuracy == pytest.approx(0.55)
    assert (found["dear"].round, found["dear"].at) == (2, 36)
    assert found["dear"].accuracy == pytest.approx(0.7)
    seconds = equal_readings({"cheap": cheap, "dear": dear}, "seconds")
    assert [reading.round for reading in seconds.values()] == [4, 4]


def test_who_spends_nothing_is_read_at_the_end_and_sets_no_limit():
    free, paid = make([0.6, 0.8], seconds=0.0), make([0.4, 0.5], seconds=1.0)
    found = equal_readings({"free": free, "paid": paid}, "seconds")
    assert (found["free"].round, found["paid"].round, found["paid"].at) == (2, 2, 2.0)
    assert equal_readings({"free": free}, "seconds")["free"].round == 2


@given(
    st.lists(
        st.tuples(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.sampled_from([0.1, 0.3, 1.0, 7.0])),
        min_size=1,
        max_size=4,
    )
)
def test_equal_reading_pays_no_more_than_every_arm_has(arms):
    runs = {str(i): make(accuracy, joules=cost) for i, (accuracy, cost) in enumerate(arms)}
    ends = [len(accuracy) * cost for accuracy, cost in arms]
    found = equal_readings(runs, "joules")
    for i, (accuracy, cost) in enumerate(arms):
        reading = found[str(i)]
        assert reading.round == max(t for t in range(len(accuracy) + 1) if t * cost <= min(ends) * (1 + 1e-6))
        expected = accuracy[max(0, reading.round - 5) : reading.round] or [0.3]
        assert reading.accuracy == pytest.approx(np.mean(expected))
    cheapest = str(int(np.argmin(ends)))
    assert found[cheapest].round == len(arms[int(cheapest)][0])  # at its end


def test_first_reach_by_hand():
    run = make([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], bits=8e6, seconds=2.0, joules=3.0)
    assert first_reach(run, 0.3) == {"rounds": 5.0, "seconds": 10.0, "mb": 5.0, "joules": 15.0}
    assert first_reach(run, 0.31)["rounds"] == 6.0
    assert first_reach(run, 0.51) is None
    assert first_reach(make([0.9] * 4), 0.1) is None  # four evaluations are no mean of five


@given(st.lists(st.none() | st.floats(0, 1), max_size=20), st.floats(0, 1))
def test_first_reach_is_the_first_window(accuracy, value):
    run = make(accuracy)
    seen = [(t, a) for t, a in enumerate(accuracy, start=1) if a is not None]
    windows = [(seen[i + 4][0], np.mean([a for _, a in seen[i : i + 5]])) for i in range(len(seen) - 4)]
    expected = next((t for t, mean in windows if mean >= value - 1e-9), None)
    found = first_reach(run, value)
    if any(abs(mean - value) < 1e-8 for _, mean in windows):
        return  # decided by rounding
    assert (found and found["rounds"]) == expected


def test_totals_are_sums_up_to_each_record():
    run = make([0.4, 0.4, 0.4], bits=5, seconds=0.5, joules=2)
    assert totals(run)["bits"].tolist() == [0, 5, 10, 15]
    assert totals(run)["seconds"].tolist() == [0, 0.5, 1.0, 1.5]
    assert totals(run)["joules"].tolist() == [0, 2, 4, 6]


# ---------------------------------------------------------------------------------------------------- comparison.json

ARMS = parse_arms(["ideal", "a | b_1 %: soft codec.bits_per_value=4", "rounds=6"])


def example(tmp_path, seeds=3, equal=None, text=False):
    """Ideal climbs to 0.8 at 10 bits a round; the arm is 0.02 + 0.001 s² worse at seed s, at 4 bits a round."""
    runs = {arm.label: {} for arm in ARMS}
    for seed in range(seeds):
        rise = np.linspace(0.4, 0.8, 12) + 0.003 * seed
        more = {"bits_per_byte": 3.0 - rise} if text else {}
        runs["ideal"][seed] = make(rise, bits=10, path=tmp_path / f"store/i{seed}", **more)
        worse = rise - 0.02 - 0.001 * seed**2
        more = {"bits_per_byte": 3.02 - rise} if text else {}
        runs[ARMS[1].label][seed] = make(worse, bits=4, path=tmp_path / f"store/a{seed}", **more)
    folder, store = tmp_path / "out", tmp_path / "store"
    return comparison_data("name", folder, store, arms=ARMS, runs=runs, reference="ideal", margin=0.05, equal=equal)


def test_comparison_by_hand(tmp_path):
    data = example(tmp_path)
    arm = data["arms"][1]
    assert (data["store"], arm["runs"][1]["folder"]) == ("../store", "../store/a1")
    assert arm["overrides"] == ["rounds=6", "codec.bits_per_value=4"]
    final = [run["final_accuracy"] for run in arm["runs"]]
    assert arm["mean"]["final_accuracy"] == pytest.approx(np.mean(final))
    assert arm["std"]["final_accuracy"] == pytest.approx(np.std(final, ddof=1))
    (pair,) = data["pairs"]
    d = np.array([-0.02, -0.021, -0.024])
    assert pair["difference"] == pytest.approx(d.mean())
    assert pair["high"] - pair["difference"] == pytest.approx(4.30265273 * d.std(ddof=1) / math.sqrt(3))
    assert (pair["noninferior"], pair["p_holm"]) == (True, pair["p_noninferior"])
    gaps = [run["recovered_gap"] for run in arm["runs"]]
    base, ideal = 0.3, [run["final_accuracy"] for run in data["arms"][0]["runs"]]
    assert gaps == pytest.approx([(f - base) / (g - base) for f, g in zip(final, ideal, strict=True)])
    assert arm["mean"]["equal_accuracy"] is None
    assert "equal_at" not in arm["mean"]
    half = next(row for row in data["time_to"] if (row["arm"], row["target"]) == ("ideal", "50 %"))
    assert half["value"] == pytest.approx(np.mean([(0.3 + g) / 2 for g in ideal]))
    assert half["seeds_reached"] == 3
    assert half["mb"] == pytest.approx(half["rounds"] * 10 / 8e6)
    last = next(row for row in data["time_to"] if row["arm"] == arm["label"] and row["target"] == "95 %")
    assert last["seeds_reached"] == sum(f >= 0.3 + 0.95 * (g - 0.3) for f, g in zip(final, ideal, strict=True))
    assert ComparisonFile.model_validate_json(json.dumps(data, allow_nan=False)).reference == "ideal"


def test_pairs_at_equal_bits_use_equal_values(tmp_path):
    data = example(tmp_path, equal="bits")
    ideal, arm = data["arms"]
    assert {run["equal_round"] for run in ideal["runs"]} == {4}  # 48 bits of the arm pay 4 rounds
    expected = [a["equal_accuracy"] - b["equal_accuracy"] for a, b in zip(arm["runs"], ideal["runs"], strict=True)]
    assert data["pairs"][0]["difference"] == pytest.approx(np.mean(expected))
    assert data["pairs"][0]["difference"] > 0.1
    assert "read on average ideal after round 4.0" in note(data)


def test_bits_per_byte_have_pairs_of_their_own_and_holm_covers_both(tmp_path):
    data = example(tmp_path, text=True)
    by_metric = {pair["metric"]: pair for pair in data["pairs"]}
    text = by_metric["bits_per_byte"]
    assert text["difference"] == pytest.approx(0.02)
    assert (text["noninferior"], text["equivalent"]) == (True, True)  # 0.02 of 2.2 is 0.9 %
    ps = sorted(pair["p_noninferior"] for pair in data["pairs"])
    assert sorted(pair["p_holm"] for pair in data["pairs"]) == pytest.approx([2 * ps[0], max(2 * ps[0], ps[1])])
    assert "2 % of the reference's bits per byte" in note(data)


def test_one_seed_gives_null_and_no_crash(tmp_path):
    data = example(tmp_path, seeds=1)
    (pair,) = data["pairs"]
    assert pair["difference"] == pytest.approx(-0.02)
    empty = ("low", "high", "p_noninferior", "p_holm", "noninferior", "equivalent")
    assert [pair[key] for key in empty] == [None] * 6
    assert data["arms"][0]["std"]["final_accuracy"] is None
    assert pairs_table(data).rows[0][2] == NOTHING


def test_arms_with_different_seeds_are_paired_where_both_ran(tmp_path):
    runs = {
        "ideal": {0: make([0.8] * 5), 1: make([0.9] * 5), 3: make([0.7] * 5)},
        ARMS[1].label: {1: make([0.85] * 5), 2: make([0.1] * 5), 3: make([0.69] * 5)},
    }
    data = comparison_data("n", tmp_path, tmp_path, arms=ARMS, runs=runs, reference="ideal", margin=0.01, equal="bits")
    assert data["pairs"][0]["seeds"] == 2
    assert data["pairs"][0]["difference"] == pytest.approx(-0.03)
    rows = {run["seed"]: run for run in data["arms"][1]["runs"]}
    assert rows[2]["recovered_gap"] is None
    assert rows[2]["equal_round"] == 5


# ------------------------------------------------------------------------------------------------------------- tables


def test_tables_hold_every_arm_escaped(tmp_path):
    data = example(tmp_path, equal="joules", text=True)
    label = ARMS[1].label
    table = arms_table(data)
    assert table.heading[:4] == ("arm", "seeds", "accuracy %", "at equal joules %")
    assert "kept %" in table.heading
    assert "latency / budget" not in table.heading  # no arm has a budget
    assert all(len(row) == len(table.heading) for row in table.rows)
    write_tables(data, tmp_path)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["ideal", label]
    assert float(rows[1]["accuracy_difference"]) == next(
        pair["difference"] for pair in data["pairs"] if pair["metric"] == "accuracy"
    )
    assert rows[0]["bits_per_byte_p_holm"] == ""
    tables = (table, pairs_table(data), time_to_table(data))
    markdown = (tmp_path / "table.md").read_text().split("\n\n")[: len(tables)]  # and the note below
    latex = (tmp_path / "table.tex").read_text().split("\n\n")
    upright = (sideways(table), *tables[1:])  # LaTeX has one column an arm
    for one, lines, tex, wide in zip(tables, map(str.splitlines, markdown), latex, upright, strict=True):
        assert len(lines) == 2 + len(one.rows)
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(one.heading) + 1}
        body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0]
        columns = len(wide.heading)
        assert all(line.count(" & ") == columns - 1 for line in body.splitlines() if line)
        assert r"a | b\_1 \%" in tex
        assert tex.count(r"\toprule") == 1
        assert len({len(line) for line in text_table(one).splitlines()}) == 1


def test_tables_of_latex_are_told_apart_and_fit_a_page_of_two_columns(tmp_path):
    data = example(tmp_path)
    data["arms"] += [{**data["arms"][1], "label": f"arm {n} of some length"} for n in range(9)]
    write_tables(data, tmp_path)
    tables = (tmp_path / "table.tex").read_text().split("\n\n")
    assert len(tables) > 3
    for place, tex in enumerate(tables, start=1):
        assert f"% Table {place} of {len(tables)}. " in tex
        assert r"{\small" in tex
    assert "Paired differences to ideal." in tables[-2]
    assert "at the 5th evaluation at the earliest" in tables[-1].replace("\n% ", " ")
    heads = [tex.split(r"\toprule")[1].splitlines()[1].split(" & ") for tex in tables[:-2]]
    names = [name.removesuffix(r" \\").replace("\\", "") for head in heads for name in head[1:]]
    assert names == [one["label"] for one in data["arms"]]
    for part in in_width(sideways(arms_table(data)), TEX_CHARACTERS):
        cells = [[len(cell) for cell in row] for row in (part.heading, *part.rows)]
        assert sum(max(column) + 2 for column in zip(*cells, strict=True)) <= TEX_CHARACTERS


@pytest.mark.parametrize(("rounds", "coarse"), [(4, False), (5, True), (19, True), (20, False)])
def test_the_mean_of_five_is_said_and_that_it_is_coarse_for_short_runs(rounds, coarse):
    words = window_words(rounds)
    assert "at the 5th evaluation at the earliest" in words
    assert ("coarse" in words) is coarse


def test_short_runs_have_no_table_of_costs_but_a_sentence_that_says_why(tmp_path):
    data = example(tmp_path)
    assert time_to_table(data).rows
    assert "There is no table" not in note(data)
    assert data["fewest_evaluations"] == 12
    assert "at the 5th evaluation at the earliest. That is coarse" in note(data)
    assert "That is coarse" not in note(data | {"fewest_evaluations": 20})
    assert "Kept: what clients" in note(data)
    for row in data["time_to"]:
        row["seeds_reached"] = 0
    assert time_to_table(data).rows == ()
    assert "no run reached one in the mean of 5 evaluations in a row" in note(data)
    write_tables(data, tmp_path)
    assert "of the gain |" not in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.tex").read_text().count("toprule") == 2


def test_latex_escapes_what_latex_would_read(tmp_path):
    data = example(tmp_path)
    data["arms"][1]["label"] = r"\x{&}~^$#_%"
    for row in (*data["pairs"], *data["time_to"]):
        row["arm"] = {ARMS[1].label: data["arms"][1]["label"]}.get(row["arm"], row["arm"])
    write_tables(data, tmp_path)
    for wanted in (r"\textbackslash{}x\{\&\}\textasciitilde{}\textasciicircum{}\$\#\_\%", r"$\pm$"):
        assert wanted in (tmp_path / "table.tex").read_text()


# --------------------------------------------------------------------------------------------------------------- arms


@pytest.mark.parametrize(
    ("text", "label", "target", "overrides"),
    [
        ("soft", "soft", "soft", ()),
        ("q4: soft codec.bits_per_value=4", "q4", "soft", ("codec.bits_per_value=4",)),
        ("q4:soft", "q4", "soft", ()),
        ("soft codec.bits_per_value=4 rounds=3", "soft bits_per_value=4 rounds=3", "soft", None),
        ("dir/my run.yaml a.b=1", None, None, None),
        ("four bits: soft codec={name: quantize, bits: 4} rounds=2", "four bits", "soft",
         ("codec={name: quantize, bits: 4}", "rounds=2")),
        ("folder/setup.yaml", "setup", "folder/setup.yaml", ()),
        # Quotes: around values, where YAML reads them, and around whole words.
        ('a: soft method.extras=[{name: "fedprox"}] rounds=2', "a", "soft",
         ('method.extras=[{name: "fedprox"}]', "rounds=2")),
        ('a: soft data.path="b c=d e" rounds=2', "a", "soft", ('data.path="b c=d e"', "rounds=2")),
        ("a: soft data.path='it''s b=3' rounds=2", "a", "soft", ("data.path='it''s b=3'", "rounds=2")),
        ("a: soft data.path=it's rounds=2", "a", "soft", ("data.path=it's", "rounds=2")),
        ("a: soft 'data.path=b c=d' rounds=2", "a", "soft", ("data.path=b c=d", "rounds=2")),
        ("soft \"method.extras=[{name: 'fedprox'}]\"", "soft extras=[{name: 'fedprox'}]", "soft", None),
        ('a: soft data={path: "a=b.csv", label: y} rounds=3', "a", "soft",
         ('data={path: "a=b.csv", label: y}', "rounds=3")),
        ('a: soft plan.ranks=[1, "a=b"] rounds=3', "a", "soft", ('plan.ranks=[1, "a=b"]', "rounds=3")),
        ('"q 4": "folder/setup.yaml" rounds=2', "q 4", "folder/setup.yaml", ("rounds=2",)),
        ("'folder/setup.yaml'", "setup", "folder/setup.yaml", ()),
    ],
)  # fmt: skip
def test_an_arm_as_it_is_written(text, label, target, overrides):
    if label is None:
        with pytest.raises(ConfigError, match=r"form \[LABEL:\]TARGET"):
            parse_arms([text])
        return
    (arm,) = parse_arms([text])
    assert (arm.label, arm.target) == (label, target)
    assert overrides is None or arm.overrides == overrides


def test_a_path_with_blanks_may_stand_in_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my run.yaml").write_text("base: soft\nrounds: 9\n")
    for text in ("my run.yaml cohort.size=5", "'my run.yaml' cohort.size=5", 'a: "my run.yaml" "cohort.size=5"'):
        (arm,) = parse_arms([text])
        assert (arm.config(0).rounds, arm.config(0).cohort.size) == (9, 5)
    (arm,) = parse_arms(["soft", "'data.path=a b=c' rounds=3"])
    assert arm.shared == ("data.path=a b=c", "rounds=3")


def test_settings_of_all_arms_come_first_and_the_arms_own_win():
    one, two = parse_arms(["soft rounds=7", "rounds=3 cohort.size=5", "x: soft"])
    assert [(arm.config(4).rounds, arm.config(4).cohort.size, arm.config(4).seed) for arm in (one, two)] == [
        (7, 5, 4),
        (3, 5, 4),
    ]
    assert one.config(4).executor == "inline"


def test_the_reference_is_ideal_or_the_first():
    assert pick_reference(parse_arms(["soft", "ideal"]), None) == "ideal"
    assert pick_reference(parse_arms(["soft", "topk"]), None) == "soft"
    assert pick_reference(parse_arms(["soft", "topk"]), "topk") == "topk"
    assert pick_reference(parse_arms(["soft-text", "all: ideal-text", "topk"]), None) == "all"
    assert pick_reference(parse_arms(["all: ideal", "ideal: soft"]), None) == "ideal"


def test_long_labels_are_cut():
    (arm,) = parse_arms(["soft data.path=" + "x" * 200])
    assert len(arm.label) == 60
    with pytest.raises(ConfigError, match="1 to 60 characters"):
        parse_arms(["y" * 61 + ": soft"])


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_no_argument_crashes_the_reader(arguments):
    try:
        arms = parse_arms(arguments)
    except ConfigError:
        return
    assert len({arm.label for arm in arms}) == len(arms)
