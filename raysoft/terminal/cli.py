"""The command line. Heavy imports stay inside the commands, so that `raysoft --help` answers at once."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import typer

from raysoft.terminal import endings, plugin_commands
from raysoft.terminal import options as given

# Typer carries its own copy of click in some versions and imports click in others; its public names lead to both.
UsageError: Any = typer.BadParameter.__base__

INTERRUPTED, TERMINATED = 130, 143  # exit codes: 128 and the signal's number

app = typer.Typer(
    name="raysoft",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Simulate federated LoRA fine-tuning by many devices over a wireless link.",
    epilog="Start with: raysoft run soft",
)


@app.callback(invoke_without_command=True)
def _top(version: given.Version = False) -> None:
    if version:
        from raysoft import __version__

        typer.echo(f"raysoft {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=None)
def run(
    target: given.Target,
    overrides: given.Overrides = None,
    *,
    out: given.RunOut = None,
    name: given.RunName = None,
    executor: given.Executor = None,
    overwrite: given.Overwrite = False,
    dry_run: given.DryRun = False,
) -> None:
    """Run a configuration: train, transmit, measure, and write a report.

    model.lora.rank=plan chooses the LoRA rank first (see `raysoft plan --help`); plan.json in the run folder says why.
    RAYSOFT_OUTPUTS replaces outputs/ (a Ray job without it keeps its runs in ~/raysoft-outputs of the cluster's node).
    """
    from raysoft.api.runs import run_place
    from raysoft.rundir.remote import staged
    from raysoft.terminal.loading import load_config

    config = load_config(target, overrides or (), executor)
    place = run_place(target, out, name)
    from raysoft.terminal import console as display

    console = display.stdout()
    if dry_run:
        from raysoft.terminal.dry_run import print_plan

        print_plan(console, config, place, overwrite=overwrite, given=out is not None)
        return
    from raysoft.runs.run import run as run_config

    with (
        staged(place, "--out", overwrite) as stage,
        endings.resumable(stage.folder, stage.place),
        display.RunDisplay(console, stage.changed) as shown,
    ):
        result = run_config(config, stage.folder, overwrite=overwrite, events=shown)
    console.print()
    display.say(console, display.closing_table(result, stage.place), indent=14)


@app.command()
def resume(folder: given.Interrupted, overrides: given.Overrides = None) -> None:
    """Go on with an interrupted run from its last checkpoint, with the result of a run that was never interrupted.

    KEY=VALUE may change what has no influence on the result (executor, actors, tracking, report, checkpoint) and let
    `rounds` grow; a damaged checkpoint is passed over for the one before. A finished run is left as it is.
    """
    from raysoft.rundir.destination import expanded
    from raysoft.rundir.remote import is_uri, staged
    from raysoft.runs.run import resume as resume_run
    from raysoft.terminal import console as display

    console = display.stdout()
    place = folder if is_uri(folder) else expanded(folder, "DIR")
    with (
        staged(place, "DIR", fetch=True) as stage,
        endings.resumable(stage.folder, stage.place, resuming=True),
        display.RunDisplay(console, stage.changed) as shown,
    ):
        result = resume_run(stage.folder, overrides or (), events=shown)
    console.print()
    display.say(console, display.closing_table(result, stage.place), indent=14)


@app.command()
def show(target: given.Target, overrides: given.Overrides = None, *, explain: given.Explain = False) -> None:
    """Print the complete configuration of a preset or file, every default written out.

    With --explain every key has its meaning, unit, default and what is valid; a word without `=` is a key or section,
    to be explained alone: raysoft show soft --explain train codec.scope
    """
    from raysoft.config.plugin_file import short_name
    from raysoft.terminal.loading import load_config

    words = list(overrides or ())
    if explain:
        from raysoft.terminal.console import stdout
        from raysoft.terminal.explaining import explained

        keys = [word for word in words if "=" not in word]
        config = load_config(target, [word for word in words if "=" in word])
        typer.echo(explained(config, keys, stdout().width))
        return
    from raysoft.runs.run import to_yaml

    config = load_config(target, words)
    for key, file in config.plugin_files().items():
        typer.echo(f"# {key}: {short_name(file.text)}, {file.digest}")
    typer.echo(to_yaml(config), nl=False)


@app.command()
def plan(
    target: given.Target,
    overrides: given.Overrides = None,
    *,
    ranks: given.Ranks = None,
    alpha: given.Alpha = None,
    out: given.PlanOut = None,
    name: given.PlanName = None,
    validate: given.Validate = None,
    workers: given.PlanWorkers = 2,
    store: given.PlanStore = None,
) -> None:
    """Choose the LoRA rank before training (TSFA's offline stage): a table, a figure, and the reasons.

    For each rank: phi, what it cannot hold of a full update; the largest kept fraction within the latency budget; eps
    and kappa, what sparsifying and averaging the factors lose there. The lowest weighted sum wins. Only the server's
    proxy samples are used. `raysoft run ... model.lora.rank=plan` plans and runs in one go; the section `plan` sets
    how it is measured.

    --validate: regret accuracy(best) - accuracy(chosen) with its paired 95 % interval, the same for always taking the
    middle rank, Kendall's tau of -score and accuracy, and constants fitted to these runs (plan.weights takes them).
    Runs have the configuration's rounds, read the validation split, and are found again in --store.
    """
    from raysoft.api.plans import plan_place, plan_words
    from raysoft.comparison.arms import check_workers
    from raysoft.planning.table import ranks_of
    from raysoft.rundir.destination import local_destination
    from raysoft.terminal.loading import load_config

    check_workers(workers)
    config = load_config(target, [*(overrides or ()), *plan_words(None if ranks is None else ranks_of(ranks), alpha)])
    if validate is not None:
        from raysoft.comparison.plan_validation import check_validation

        check_validation(config, validate, workers)  # everything is refused before minutes of planning
    folder = plan_place(target, out, name)
    runs = local_destination(store, "runs", "--store")
    from raysoft.terminal import plan_console

    found = plan_console.show_plan(config, folder)
    found.rank()  # says why, where no rank is left
    if validate is not None and plan_console.show_validation(
        config, found, folder, seeds=validate, runs=runs, workers=workers
    ):
        raise typer.Exit(1)


@app.command()
def compare(
    arms: given.Arms,
    *,
    seeds: given.Seeds = 5,
    first_seed: given.FirstSeed = 0,
    equal: given.Equal = None,
    reference: given.Reference = None,
    margin: given.Margin = 0.01,
    workers: given.CompareWorkers = 2,
    name: given.CompareName = None,
    out: given.CompareOut = None,
    store: given.CompareStore = None,
    dry_run: given.CompareDryRun = False,
) -> None:
    """Run several settings with several seeds each and compare them: tables, tests, figures, one report.

    Example: raysoft compare soft ideal 'q4: soft codec.bits_per_value=4' rounds=40 --seeds 10

    All arms of a seed share data split, cohorts and channels, so differences are paired by seed. Each run is a folder
    of --store and is found there again by its configuration: a second call runs only what is missing, so an
    interrupted comparison goes on where it stopped, and comparisons share runs. A run that fails does not stop the
    others: what finished is compared, what failed is named, and the exit code is 1. RAYSOFT_OUTPUTS replaces outputs/.

    Final values are means of the last 5 evaluations, or of as many as there are after round 0. Differences to the
    reference come with 95 % t intervals, and with paired t tests of non-inferiority and equivalence (TOST) within
    --margin (bits per byte: 2 % of the reference), Holm-adjusted over the table. Recovered gap: (accuracy - base) /
    (reference - base). Time to accuracy: cost until the mean of 5 evaluations in a row first reaches the base plus 50,
    90, 95 % of the reference's gain.

    --equal: for each seed, every arm is read at the largest total (uplink bits, simulated seconds or joules) that all
    arms have reached, that is at the smallest of their final totals: the mean of its last 5 evaluations at or before
    that total. Differences and tests are then of these values, and the tables say after which round each arm was read.
    An arm that never spends any of it is read at its end. An ideal link hardly spends seconds: give it more rounds
    ('ideal rounds=400'), or leave it out and name another --reference.
    """
    from raysoft.comparison import compare as comparison
    from raysoft.terminal import comparison_console as display
    from raysoft.terminal.console import stdout

    plan = comparison.plan_comparison(
        arms,
        seeds=seeds,
        first_seed=first_seed,
        equal=equal,
        reference=reference,
        margin=margin,
        workers=workers,
        name=name,
        out=out,
        store=store,
    )
    console = stdout()
    if dry_run:
        display.print_comparison_plan(console, plan)
        return
    with endings.repeatable(), display.BatchDisplay(console) as shown:
        found = comparison.carry_out(plan, workers, shown)
    display.print_comparison(console, found)
    if found.failed:
        raise typer.Exit(1)


@app.command()
def tune(
    file: given.SweepFile,
    overrides: given.SweepOverrides = None,
    *,
    go_on: given.GoOn = False,
    name: given.SweepName = None,
    out: given.SweepOut = None,
    dry_run: given.SweepDryRun = False,
) -> None:
    """Search a space of settings with Ray Tune: many runs, some stopped early, one table and one report.

    Example: raysoft tune rank_sparsity_latency rounds=60

    Each trial is a run in its own process (executor: inline), or a coordinator with its client actors in one placement
    group (executor: ray); with RAY_ADDRESS set, as in a Ray job, on that cluster. outputs/NAME/ gets results.parquet,
    results.csv, points.csv, best.yaml, report.html, and the run folder of every trial. A sweep that was interrupted,
    however, goes on with --resume and ends with the same table. Exit 1 where trials failed; docs/tune.md tells more.
    """
    from raysoft.api.sweeps import prepared
    from raysoft.sweep.folder import check_folder

    config, sweep, folder = prepared(file, overrides or (), {}, name=name, out=out, resume=go_on)
    from raysoft.terminal import sweep_console as display
    from raysoft.terminal.console import stdout

    console = stdout()
    if dry_run:
        check_folder(folder, config, go_on)
        display.print_sweep_plan(console, sweep, folder)
        return
    from raysoft.sweep.driver import run_sweep

    with endings.repeatable(*([] if go_on else ["--resume"])), display.SweepDisplay(console) as shown:
        found = run_sweep(config, folder, shown, resume=go_on)
    display.print_sweep(console, found)
    if any(row["status"] == "failed" for row in found.results.rows):
        raise typer.Exit(1)


@app.command()
def report(
    folders: given.Folders,
    out: given.ReportOut = None,
    formats: given.ReportFormats = None,
    width: given.ReportWidth = None,
) -> None:
    """Draw figures and report.html of a run, comparison or sweep folder again, or of several runs together.

    Example: raysoft report outputs/soft --formats pdf,csv --width column
    """
    from raysoft.report import folders_of, report, report_place
    from raysoft.terminal.console import relative

    places, target = folders_of(folders, out)
    replaced = (len(places) > 1 or target is not None) and report_place(places, target).exists()
    page = report(*places, out=target, formats=formats, width=width)
    typer.echo(relative(page) + (" (replaced)" if replaced else ""))


@app.command(name="list")
def list_names(matrix: given.Matrix = False, *, as_json: given.AsJson = False) -> None:
    """List presets, sweeps and plug-ins (methods, codecs, channels, ...), each with its idea and source."""
    if as_json:
        import json

        from raysoft.api.listing import as_data

        typer.echo(json.dumps(as_data(matrix=matrix), indent=2, ensure_ascii=False))
        return
    from raysoft.terminal import console as display

    console = display.stdout()
    console.print(display.matrix(console.width) if matrix else display.names_table())


@app.command()
def completion(context: typer.Context, shell: given.Shell) -> None:
    """Print a script that completes commands, options, presets, plug-ins, keys and their values in a shell.

    Its first lines say where it goes, e.g. raysoft completion bash > ~/.local/share/bash-completion/completions/raysoft
    """
    from raysoft.errors import ConfigError
    from raysoft.terminal.completion import words
    from raysoft.terminal.completion_scripts import SHELLS, script

    if shell not in SHELLS:
        raise ConfigError("SHELL", f"must be one of {', '.join(SHELLS)}, got {shell!r:.40}")
    assert context.parent is not None
    typer.echo(script(shell, words(context.parent.command)), nl=False)


app.command()(plugin_commands.new)
app.command()(plugin_commands.check)


def main() -> None:
    """Entry point: one clear sentence and the contract's exit code for every expected failure."""
    from raysoft.errors import HeadLostError, RaysoftError
    from raysoft.kernels.portable import NotPortableError, restart
    from raysoft.terminal.interruption import end_on_sigterm, terminated

    end_on_sigterm()
    endings.forget()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an old terminal, or a file name that is not UTF-8
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # Typer turns KeyboardInterrupt into an exit, in some versions
            raise KeyboardInterrupt
        sys.exit(code)
    except UsageError as error:  # a wrong option: click's own sentence
        error.show()
        sys.exit(2)
    except NotPortableError:  # before anything was computed or written
        restart()
    except RaysoftError as error:
        endings.say(str(error))
        if isinstance(error, HeadLostError):  # without its head Ray cannot be taken down: it waits, aborts or crashes
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.exit_code)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        word, code = ("terminated", TERMINATED) if terminated() else ("interrupted", INTERRUPTED)
        endings.say(word)
        sys.exit(code)
    except MemoryError:
        endings.say("not enough memory; use fewer clients, a smaller data.max_train_samples or batch")
        sys.exit(3)
    except BrokenPipeError:  # `raysoft list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        if endings.how_to_go_on:
            endings.say("nobody reads the output any more, so the run was ended")
        sys.exit(1)
    except OSError as error:  # a full disk, a folder that vanished
        place = f"{str(error.filename)[:200]}: " if error.filename else ""
        endings.say(f"{place}{error.strerror or error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
