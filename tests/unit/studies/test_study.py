"""The study's reading: exact numbers from synthetic runs, missing runs, figures, publication."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from raysoft.comparison.batch import JobOutcome
from raysoft.errors import RaysoftError
from raysoft.report import style
from raysoft.rundir.reading import read_run
from studies import frontiers, grain, measures, outline, plans, publishing, ranks, reading, smaller, surrogate, sweeps
from studies.loading import ACCURACY, BITS_PER_BYTE, found_only, metrics_of, read_results
from studies.settings import DIGITS, TEXT, Scale, everything, offline, scaled, sweep
from studies.sheets import Sheet, interval, numeric, plus_minus, text
from tests.figure_checks import check_texts
from tests.run_folders import make_run

ROUNDS = 12
EXPERIMENTS = {one.name: one for one in everything(Scale())}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """One finished run with bits per byte, to be copied and changed."""
    return make_run(tmp_path_factory.mktemp("template") / "run", clients=20, cohort=5, rounds=ROUNDS, text=True)


def write(template, path, *, accuracy=None, rank=8, eps=None, kappa=None, share=None, seconds=None):
    """A copy of the template in which every round after the base has these values."""
    shutil.copytree(template, path)
    rows = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for row in rows[1:]:
        if accuracy is not None:
            row["accuracy"], row["metrics"]["bits_per_byte"] = accuracy, 5.0 - 4.0 * accuracy
        if eps is not None:
            row["sparsification_error"], row["aggregation_covariance"] = eps, kappa
        if seconds is not None:
            row["simulated_time_s"] = seconds * row["round"]
    (path / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((path / "summary.json").read_text())
    summary["final_accuracy"] = accuracy
    if share is not None:
        summary["metrics"]["uplink_share_of_dense32"] = share
    (path / "summary.json").write_text(json.dumps(summary))
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("rank: 8", f"rank: {rank}"))
    return path


def results_of(template, folder, experiment, values, missing=()):
    """Results whose runs have the settings of `values(setting, seed)`; `missing`: pairs of label and seed."""
    outcomes = []
    for job in experiment.jobs():
        seed = job.config.seed
        if (job.label, seed) in missing:
            outcomes.append(JobOutcome(job, None))
            continue
        one = next(item for item in experiment.settings if item.label == job.label)
        path = folder / f"{experiment.name}-{len(outcomes)}"
        outcomes.append(JobOutcome(job, write(template, path, **values(one, seed))))
    return read_results([experiment], outcomes)[experiment.name], outcomes


# ------------------------------------------------------------------------------------------------------- numbers


def test_pooled_intervals_are_the_t_intervals_of_one_list():
    values = [0.3, 0.5, 0.1, 0.4]
    (half,), freedom = measures.pooled_half_widths([values])
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert freedom == 3
    assert half == pytest.approx((high - low) / 2)


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=4), min_size=1, max_size=6).filter(
        lambda lists: any(len(one) > 1 for one in lists)
    )
)
def test_pooled_variance_is_that_of_the_linear_model(lists):
    halves, freedom = measures.pooled_half_widths(lists)
    observed = np.concatenate(lists)
    group = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    design = (group[:, None] == np.arange(len(lists))).astype(float)
    rest = observed - design @ np.linalg.lstsq(design, observed, rcond=None)[0]
    assert freedom == len(observed) - len(lists)
    variance = rest @ rest / freedom
    for half, one in zip(halves, lists, strict=True):
        assert half == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(variance / len(one)), abs=1e-9)


def test_differences_are_paired_by_seed():
    row = measures.difference_row("m", {0: 1.0, 1: 2.0, 5: 9.0}, {1: 1.5, 0: 0.0, 2: 7.0})
    assert (row["m_difference"], row["m_pairs"], row["m_smallest"], row["m_largest"]) == (0.75, 2, 0.5, 1.0)
    nothing = measures.difference_row("m", {0: 1.0}, {1: 1.0})
    assert nothing["m_difference"] is None
    assert nothing["m_pairs"] == 0


def test_bands_of_both_metrics():
    assert ACCURACY.within(0.875, 0.88)
    assert not ACCURACY.within(0.8749, 0.88)
    assert BITS_PER_BYTE.within(2.04, 2.0)
    assert not BITS_PER_BYTE.within(2.0401, 2.0)
    assert [metric.name for metric in metrics_of(TEXT)] == ["accuracy", "bits_per_byte"]


def test_sheets_format_numbers_and_leave_out_empty_columns():
    rows = ({"a": "x|y", "m": 0.5, "m_std": 0.01, "d": -0.02, "d_low": -0.05, "d_high": 0.01, "never": None},)
    columns = (
        text("Arm", "a"),
        plus_minus("M", "m", 100.0, 1),
        interval("D", "d", "d_low", "d_high", 100.0, 1),
        numeric("Never", "never"),
    )
    lines = Sheet(columns, rows, "A note.").markdown().splitlines()
    assert lines[0] == "| Arm | M | D |"
    assert lines[2] == "| x\\|y | 50.0 ± 1.0 | −2.0 [−5.0, +1.0] |"
    assert lines[-1] == "A note."
    assert Sheet(columns, rows).csv().splitlines()[1] == "x|y,0.5,0.01,-0.02,-0.05,0.01,"
    assert Sheet(columns, (), "Why.").markdown() == "No finished runs. Why.\n"


# ---------------------------------------------------------------------------------------------------- experiments


def test_the_smallest_share_within_the_band(template, tmp_path):
    whole = EXPERIMENTS["frontier-digits"]
    rows = tuple(one for one in whole.settings if one.label == "ideal" or one.family in ("top-k", "ecsq"))

    def values(one, seed):
        if one.label == "ideal":
            return {"accuracy": 0.80 + 0.01 * seed, "share": 1.0}
        # top-k loses half its missing share in points, ecsq always a whole point
        lost = 0.01 if one.family == "ecsq" else 0.01 * (0.5 - one.point)
        return {"accuracy": 0.80 + 0.01 * seed - lost, "share": one.point}

    results, _ = results_of(template, tmp_path, replace(whole, settings=rows), values)
    product = frontiers.read(results)
    smallest = {row["family"]: row for row in product.numbers["smallest_share_within_band"]}
    assert smallest["top-k"]["accuracy_share"] == pytest.approx(0.05)
    assert smallest["top-k"]["accuracy_difference"] == pytest.approx(-0.0045)
    assert smallest["ecsq"]["accuracy_share"] is None
    point = next(row for row in product.sheets["frontier-digits"].rows if row["arm"] == "top-k 0.25")
    assert (point["accuracy_min"], point["accuracy_max"]) == pytest.approx((0.7975, 0.8075))
    check_figures(product)


def test_the_sweep_is_read_at_its_time_against_the_best_other(template, tmp_path):
    experiment = sweep(DIGITS)
    gain = {"tsfa": 0.03, "greedy": 0.02, "minmax": 0.01, "equal": 0.0}

    def values(one, seed):
        noise = 0.001 * seed * (one.family == "tsfa")
        return {"accuracy": 0.7 + gain[one.family] + noise, "seconds": 2.0 if one.point < 0.5 else 0.5}

    results, _ = results_of(template, tmp_path, experiment, values)
    product = sweeps.read(results)
    first, *_, last = product.sheets["sweep-digits-gain-accuracy"].rows
    assert first["best_other"] == "greedy"
    assert first["accuracy_difference"] == pytest.approx(0.011)
    assert last["budget"] == sweeps.ALL
    assert last["accuracy_low"] == pytest.approx(0.011 - stats.t.ppf(0.975, 2) * 0.001 / math.sqrt(3))
    rows = {row["arm"]: row for row in product.sheets["sweep-digits"].rows}
    assert rows["tsfa, 0.2 s"]["rounds_in_time"] == 6  # 12 s at 2 s a round
    assert rows["tsfa, 0.2 s"]["reaches_time"]
    assert not rows["tsfa, 0.8 s"]["reaches_time"]  # 12 rounds of 0.5 s
    assert "tsfa, 0.8 s (6.0 s)" in product.sheets["sweep-digits"].note
    check_figures(product)


def fake_plan(chosen, scores):
    """plan.json in which the score is phi, and eps and kappa are small and alike."""
    return {
        "chosen_rank": chosen,
        "candidates": [
            {
                "rank": rank,
                "score": score,
                "score_error": 0.01,
                "phi": score,
                "sparsification": 0.1,
                "covariance": 0.01,
                "kept_fraction": 0.5,
                "verdict": "feasible",
                "reason": "",
            }
            for rank, score in scores.items()
        ],
    }


REACHED = {2: 0.70, 4: 0.74, 8: 0.76, 16: 0.72}


def test_regret_of_every_rule(template, tmp_path):
    experiment = offline(DIGITS)
    results, _ = results_of(
        template, tmp_path, experiment, lambda one, seed: {"accuracy": REACHED[int(one.point)] + 0.01 * seed}
    )
    good = {2: 0.4, 4: 0.2, 8: 0.1, 16: 0.3}  # the order of what was reached
    # At the first budget the plan is wrong; its terms elsewhere order the ranks rightly.
    budgets = list(plans.budgets(experiment))
    made = {budget: fake_plan(8, good) for budget in budgets} | {budgets[0]: fake_plan(2, {**good, 2: 0.05})}
    product = ranks.read(results, made)
    rows = {(row["rule"], row["budget"]): row for row in product.sheets["offline-digits-regret-accuracy"].rows}
    first, second = (f"{budget:g} s" for budget in budgets[:2])
    assert rows["plan", first]["accuracy_regret_difference"] == pytest.approx(0.06)
    assert rows["plan", second]["accuracy_regret_difference"] == 0.0
    assert rows["plan", "all (mean)"]["accuracy_regret_difference"] == pytest.approx(0.02)
    assert rows["always 4", "all (mean)"]["accuracy_regret_difference"] == pytest.approx(0.02)
    assert rows["always 8", "all (mean)"]["accuracy_regret_difference"] == pytest.approx(0.0)
    assert rows["plan, fitted on other budgets", first]["chosen"] == 2  # phi alone, as the fit says
    assert rows["plan, default constants", second]["chosen"] == 8
    taus = product.numbers["accuracy"]["tau"]
    assert taus[second]["tau"] == pytest.approx(1.0)
    assert taus[first]["tau"] == pytest.approx(stats.kendalltau([-0.05, -0.2, -0.1, -0.3], list(REACHED.values()))[0])
    check_figures(product)


def test_fitted_constants_never_see_the_budget_they_are_judged_by():
    plan = fake_plan(4, {2: 0.4, 4: 0.2, 8: 0.1})
    reached = {0.2: {2: {0: 0.5}, 4: {0: 0.6}, 8: {0: 0.7}}, 0.4: {2: {0: 0.7}, 4: {0: 0.6}, 8: {0: 0.5}}}
    rules, fitted = ranks.choices(reached, {0.2: plan, 0.4: plan})
    assert fitted[0.2]["rank"] == 0.0  # at 0.4 more phi goes with more accuracy
    assert rules["plan, fitted on other budgets"][0.2] is None
    assert fitted[0.4]["rank"] == pytest.approx(0.6428, abs=1e-3)  # slope of the three points at 0.2
    assert rules["plan, fitted on other budgets"][0.4] == 8


def test_a_rank_that_no_run_has_is_no_choice():
    rows = ranks.regret_rows("always 4", {0.2: 4}, {0.2: {2: {0: 0.5}, 8: {0: 0.6}}}, ACCURACY)
    assert rows == [{"metric": "accuracy", "rule": "always 4", "budget": "0.2 s", "chosen": 4}]


def test_the_bound_orders_what_it_explains(template, tmp_path):
    plan = fake_plan(8, {2: 0.4, 4: 0.3, 8: 0.2, 16: 0.1})

    def values(one, seed):
        rank = int(one.point) if one.label.startswith("rank") else 8
        phi = {2: 0.4, 4: 0.3, 8: 0.2, 16: 0.1}[rank]
        place = [setting.label for setting in chosen.settings].index(one.label)
        eps, kappa = 0.05 * ((7 * place) % 5), 0.02 * ((3 * place) % 4)
        accuracy = 0.9 - 0.2 * phi - 0.5 * eps - 1.0 * kappa + 0.01 * seed
        return {"accuracy": accuracy, "rank": rank, "eps": eps, "kappa": kappa}

    parts = {}
    for experiment in (EXPERIMENTS["headline-digits"], sweep(DIGITS), offline(DIGITS)):
        chosen = scaled(experiment, Scale(seeds=2, points=6))
        parts[chosen.name] = results_of(template, tmp_path, chosen, values)[0]
    product = surrogate.read(DIGITS, parts, {0.2: plan})
    rows = {row["comparison"]: row for row in product.sheets["bound-digits"].rows}
    assert set(rows) == {"methods", "allocations", "ranks", "budgets"}
    # Fitted on ranks and budgets of other runs, all three constants are right, so every order is.
    weights = [rows["methods"][f"weight_{name}"] for name in ("rank", "sparsification", "covariance")]
    assert weights == pytest.approx([0.2, 0.5, 1.0], abs=1e-6)
    assert rows["methods"]["fitted_tau"] == pytest.approx(1.0)
    assert rows["allocations"]["fitted_tau"] == pytest.approx(1.0)
    assert rows["ranks"]["weight_rank"] == 0.0  # methods and allocations all have rank 8
    check_figures(product)
    one = surrogate.samples_of(parts["offline-digits"], plan, ACCURACY)[0]
    assert surrogate.comparable([one, replace(one, group="alone")]) == []
    assert surrogate.comparable([one, one]) == [one, one]


def test_options_are_sorted_with_pooled_intervals(template, tmp_path):
    experiment = EXPERIMENTS["options-python-source"]
    places = {one.label: number for number, one in enumerate(experiment.settings)}
    results, _ = results_of(
        template,
        tmp_path,
        experiment,
        lambda one, seed: {"accuracy": 0.5 + 0.001 * places[one.label] + 0.0005 * seed * (places[one.label] % 2)},
        missing={("ecsq", 1)},
    )
    product = smaller.read_options(results)
    sheet = product.sheets[experiment.name]
    found = [row["bits_per_byte"] for row in sheet.rows]
    assert found == sorted(found)  # lower is better
    row = next(row for row in sheet.rows if row["arm"] == "error feedback")
    assert row["accuracy_difference"] == pytest.approx(0.00125)
    assert row["accuracy_low"] < row["accuracy_pooled_low"] < row["accuracy_difference"]
    assert "1 of" in product.remark
    check_figures(product)


def test_the_grain_is_compared_at_the_same_share_of_the_bits(template, tmp_path):
    experiment = EXPERIMENTS["grain-digits"]
    level = {0.05: 0.5, 0.1: 0.6, 0.2: 0.7, 0.4: 0.8, 0.0: 0.9}
    lost = {"components": 0.0, "columns and rows apart": 0.02, "entries of the state, else zero": 0.3}

    def values(one, seed):
        return {"accuracy": level[one.point] + 0.01 * seed - lost.get(one.family, -0.01), "share": one.point}

    results, _ = results_of(template, tmp_path, experiment, values)
    product = grain.read(results)
    rows = {row["arm"]: row for row in product.sheets[experiment.name].rows}
    assert len(rows) == 17
    for kept in (0.05, 0.1, 0.2, 0.4):
        assert rows[f"components {kept:g}"]["accuracy_difference"] is None
        assert rows[f"columns and rows apart {kept:g}"]["accuracy_difference"] == pytest.approx(-0.02)
        assert rows[f"entries of the change {kept:g}"]["accuracy_difference"] == pytest.approx(0.01)
        state = rows[f"entries of the state, else zero {kept:g}"]
        assert state["accuracy_difference"] == state["accuracy_low"] == pytest.approx(-0.3)
    assert rows["ideal"]["accuracy_difference"] is None
    assert list(product.figures) == ["grain-digits-accuracy"]
    assert product.figures["grain-digits-accuracy"]() is not None


def test_the_tradeoff_is_read_in_the_second_half(template, tmp_path):
    results, _ = results_of(template, tmp_path, EXPERIMENTS["tradeoff-digits"], lambda one, seed: {"accuracy": 0.8})
    row = smaller.read_tradeoff(results).sheets["tradeoff-digits"].rows[0]
    run = read_run(template)
    assert row["penalty"] == pytest.approx(run.column("metrics.penalty")[-ROUNDS // 2 :].mean())
    assert row["queue_s"] == pytest.approx(run.column("queue_s")[-ROUNDS // 2 :].mean())
    check_figures(smaller.read_tradeoff(results))


def check_figures(product):
    """Every figure draws, its words apart and inside."""
    assert product.figures
    with style.settings("column"):
        for name, draw in product.figures.items():
            check_texts(draw(), name)


# ------------------------------------------------------------------------------------------- report and publication


@pytest.mark.slow
def test_everything_is_read_with_runs_missing(template, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("raysoft.report.comparison.html.DPI", 50)
    monkeypatch.setattr("studies.product.DPI", 50)
    experiments = [one for one in everything(Scale(seeds=2, points=3)) if one.task is DIGITS]
    assert experiments[-1].name == "grain-digits"  # of which no run is there
    outcomes = []
    for experiment in experiments[:-1]:
        lost = {(experiment.settings[-1].label, 1)} if experiment.name.startswith(("headline", "sweep")) else ()
        outcomes += results_of(template, tmp_path, experiment, lambda one, seed: {"accuracy": 0.8 + 0.01 * seed}, lost)[
            1
        ]
    outcomes += [JobOutcome(job, None) for job in experiments[-1].jobs()]
    out = tmp_path / "study"
    reading.report(experiments, outcomes, out, publish=False, plan=False)
    numbers = json.loads((out / "numbers.json").read_text())
    assert {one.name for one in experiments[:-1]} <= set(numbers)
    assert "1 of 6 runs are missing" in numbers["headline-digits"]["missing"]
    said = capsys.readouterr().err
    assert "grain-digits: no finished run" in said
    assert "findings: not made, because the numbers lack" in said
    assert (out / "headline-digits" / "report.html").is_file()
    for figure in ("pareto-accuracy-mb", "accuracy-seconds", "difference-accuracy"):
        assert (out / "figures" / f"headline-digits-{figure}.png").is_file()
    assert "1 of 6 runs are missing" in (out / "tables" / "headline-digits.md").read_text()


def test_reading_only_finds_finished_runs(tmp_path):
    jobs = EXPERIMENTS["head-digits"].jobs()
    assert [one.folder for one in found_only(jobs, tmp_path)] == [None] * len(jobs)


def test_a_plan_is_asked_for_the_ranks_of_its_budget_and_found_again(tmp_path):
    experiment = scaled(offline(TEXT), Scale(points=12))
    budget = TEXT.plan_budgets_s[1]
    config = plans.plan_config(experiment, budget)
    assert list(config.plan.ranks) == [2, 4, 8, 16]
    assert config.model.lora.rank == "plan"
    ran = {one.label: one.arm.config(0) for one in experiment.settings}
    from raysoft.planning.stage import with_rank

    for rank in config.plan.ranks:
        assert with_rank(config, rank).model.lora.scale() == ran[f"rank {rank}, {budget:g} s"].model.lora.scale()
    folder = tmp_path / f"{TEXT.name}-{budget:g}s-{config.config_hash()[:8]}"
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(fake_plan(4, {4: 0.1})))
    found = plans.plans_of(experiment, tmp_path, compute=False)
    assert list(found) == [budget]
    assert plans.terms_of(found[budget]) == {4: (0.1, 0.1, 0.01)}


def test_a_small_study_keeps_every_axis():
    few = scaled(offline(DIGITS), Scale(points=4))
    assert len(few.settings) == 4
    assert few.settings[0].label == offline(DIGITS).settings[0].label
    assert len({one.family for one in few.settings}) == 3


def test_publishing_fills_tables_and_shrinks_figures(tmp_path, capsys):
    out, docs = tmp_path / "study", tmp_path / "docs"
    for folder in (out / "tables", out / "figures", docs):
        folder.mkdir(parents=True)
    (out / "tables" / "head-digits.md").write_text("| a |\n| --- |\n| 1 |\n")
    rng = np.random.default_rng(0)
    noisy = np.clip(rng.normal(200, 30, (600, 900, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out / "figures" / "tradeoff-digits.png")
    publishing.publish_study(out, docs)
    page = (docs / "study_record.md").read_text()
    assert "<!-- table: head-digits -->\n\n| a |\n| --- |\n| 1 |\n\n<!-- end -->" in page
    assert "not published" in capsys.readouterr().err
    small = docs / "images" / "study" / "tradeoff-digits.png"
    assert small.stat().st_size < (out / "figures" / "tradeoff-digits.png").stat().st_size
    with Image.open(small) as image:
        assert image.size == (900, 600)
    # Prose stays; a second publication changes nothing.
    (docs / "study_record.md").write_text(page.replace("# The study", "# Mine"))
    short = (docs / "study.md").read_text()
    publishing.publish_study(out, docs)
    assert (docs / "study_record.md").read_text() == page.replace("# The study", "# Mine")
    assert (docs / "study.md").read_text() == short


def test_a_marker_without_an_end_is_refused(tmp_path):
    with pytest.raises(RaysoftError, match=r"docs/mine\.md: 2 tables are opened but 1 are closed"):
        publishing.filled("<!-- table: a -->\n<!-- table: b -->\n<!-- end -->", tmp_path, "mine.md")


def test_the_page_names_only_what_the_study_makes():
    named = {figure.name for figure in publishing.figures()}
    assert len(named) == len(publishing.figures())
    tasks = {"digits", "python-source"}
    assert all(any(task in name for task in tasks) for name in named)
    assert Path(publishing.DOCS).is_dir()


def test_a_page_links_to_drawn_figures_only_and_gets_the_others_later():
    page = publishing.new_page(outline.RECORD)
    names = [figure.name for figure in outline.RECORD.figures()]
    none = publishing.with_figures(page, set())
    assert "](images/" not in none
    assert none.count("<!-- not drawn yet: ") == len(names)
    one = publishing.with_figures(none, {names[0]})
    assert one.count("](images/") == 1
    assert f"images/study/{names[0]}.png)" in one
    assert publishing.with_figures(none, set(names)) == page
