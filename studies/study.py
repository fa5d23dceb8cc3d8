"""The study: does SOFT + TSFA work, for whom, and how far can it go? Runs everything, draws and tabulates it.

    python studies/study.py [--only NAME,NAME] [--short] [--workers 2] [--out outputs/study] [--read-only] [--publish]

Resumable: runs are kept in OUT/runs and found again by their configuration. Tables, figures, numbers.json and the
reports of the headline comparisons go to OUT. `--read-only` runs nothing: it reads what is there and names what is
missing. `--publish` copies figures into docs/images/study and tables into docs/study.md, which says what was found,
and docs/study_record.md, the full record.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from raysoft.comparison.batch import Job, JobOutcome, run_batch
from raysoft.terminal.comparison_console import BatchDisplay
from raysoft.terminal.console import stdout
from studies.archive import unpack
from studies.loading import found_only, gone_outcomes
from studies.recorded import read_recorded, recorded_outcomes
from studies.settings import Scale, everything

# The offline stage's own settings are those of its plans; everything is as small as still runs.
SHORT = Scale(
    seeds=2,
    rounds=4,
    points=4,
    extra=(
        "data.max_test_samples=256",
        "cohort.size=5",
        "train.steps=2",
        "eval.every=2",
        "plan.draws=16",
        "plan.pilot_steps=2",
        "plan.pilot_rounds=1",
        "plan.repetitions=2",
    ),
)


def main() -> int:
    """Run, then read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="experiments, separated by commas (default: all; see --list)")
    parser.add_argument("--list", action="store_true", help="name the experiments and their numbers of runs")
    parser.add_argument("--short", action="store_true", help="a few seeds and rounds of everything: minutes, for CI")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("outputs/study"))
    parser.add_argument("--runs-only", action="store_true", help="no tables, no figures")
    parser.add_argument("--read-only", action="store_true", help="run nothing: read the finished runs and plans of OUT")
    parser.add_argument("--publish", action="store_true", help="copy figures and tables into docs/")
    parser.add_argument("--published", action="store_true", help="start from the runs behind docs/study_record.md")
    args = parser.parse_args()
    experiments = everything(SHORT if args.short else Scale())
    if args.list:
        for one in experiments:
            print(f"{one.name:28} {len(one.settings):3} arms {len(one.jobs()):4} runs")
        return 0
    wanted = [name for name in args.only.split(",") if name]
    unknown = sorted(set(wanted) - {one.name for one in experiments})
    if unknown:
        print(f"--only: {', '.join(unknown)} is not an experiment; see --list", file=sys.stderr)
        return 2
    by_name = {one.name: one for one in experiments}
    experiments = [by_name[name] for name in wanted or by_name]
    if args.published:
        unpack(args.out)
    jobs: list[Job] = [job for one in experiments for job in one.jobs()]
    if args.short and args.publish:
        print("--publish: a short study is no result; leave out --short", file=sys.stderr)
        return 2
    store = args.out / "runs"
    known = gone_outcomes(jobs, store) | recorded_outcomes(jobs, store, read_recorded())
    others = [job for at, job in enumerate(jobs) if at not in known]
    if args.read_only:
        found = found_only(others, store)
    else:
        with BatchDisplay(stdout()) as shown:
            found = by_seed(others, store, args.workers, shown)
    rest = iter(found)
    outcomes = [known.get(at) or next(rest) for at in range(len(jobs))]
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"{outcome.job.label}, seed {outcome.job.config.seed}: {outcome.error}", file=sys.stderr)
    if not args.runs_only:
        from studies.reading import report

        report(experiments, outcomes, args.out, publish=args.publish, plan=not args.read_only)
    return 1 if failed else 0


def by_seed(jobs: list[Job], store: Path, workers: int, shown: BatchDisplay) -> list[JobOutcome]:
    """`run_batch` with the first seed of everything first, so that an interrupted study has whole seeds."""
    order = sorted(range(len(jobs)), key=lambda at: jobs[at].config.seed)
    outcomes = run_batch([jobs[at] for at in order], store, workers, shown)
    return [outcome for _, outcome in sorted(zip(order, outcomes, strict=True), key=lambda pair: pair[0])]


if __name__ == "__main__":
    sys.exit(main())
