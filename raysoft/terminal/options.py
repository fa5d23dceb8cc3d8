"""The arguments and options of the command line, by command: their types, and what `--help` says of them."""

from __future__ import annotations

from typing import Annotated

import typer

Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]

# ------------------------------------------------------------------------------------------------ of several commands

Target = Annotated[
    str, typer.Argument(metavar="PRESET|FILE.yaml", help="A preset (see `raysoft list`) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings on top, e.g. train.lr=1e-2 rounds=10.")
]

# --------------------------------------------------------------------------------------------------------------- show

Explain = Annotated[
    bool, typer.Option("--explain", help="Say what every key means; KEY or SECTION among the words: only these.")
]

# -------------------------------------------------------------------------------------------------------- run, resume

RunOut = Annotated[
    str | None,
    typer.Option(metavar="DIR|URI", help="Run folder, or storage such as s3://bucket/run (default: outputs/NAME)."),
]
RunName = Annotated[str | None, typer.Option(help="Name of the run (default: the preset's or file's name).")]
Executor = Annotated[str | None, typer.Option(metavar="inline|ray", help="Where to compute; same result.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the settings, print the plan, run nothing.")]
Interrupted = Annotated[str, typer.Argument(metavar="DIR|URI", help="The folder of a run that was interrupted.")]

# --------------------------------------------------------------------------------------------------------------- plan

Ranks = Annotated[
    str | None, typer.Option(metavar="R,R,...", help="Candidate ranks (default: plan.ranks, 1,2,4,8,16).")
]
Alpha = Annotated[
    str | None,
    typer.Option(
        metavar="keep-scale|rslora",
        help="How alpha follows the rank: s = alpha/rank stays (the default), or s falls with sqrt(rank).",
    ),
]
PlanOut = Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the plan (default: outputs/NAME-plan).")]
PlanName = Annotated[str | None, typer.Option(help="Name of the plan (default: the preset's or file's name).")]
Validate = Annotated[
    int | None,
    typer.Option(metavar="N", help="Then run every feasible rank with N seeds and say how well the plan chose."),
]
PlanWorkers = Annotated[int, typer.Option(help="With --validate: runs side by side, one thread each.")]
PlanStore = Annotated[
    str | None, typer.Option(metavar="DIR", help="With --validate: folder of the runs (default: outputs/runs).")
]

# ------------------------------------------------------------------------------------------------------------ compare

Arms = Annotated[
    list[str],
    typer.Argument(
        metavar="ARM...", help="'[LABEL:]PRESET|FILE.yaml [key=value ...]' each; a bare key=value goes to every arm."
    ),
]
Seeds = Annotated[int, typer.Option(help="Runs of each arm, with seeds FIRST, FIRST+1, ...")]
FirstSeed = Annotated[int, typer.Option(metavar="FIRST", help="The first seed.")]
Equal = Annotated[
    str | None, typer.Option(metavar="bits|seconds|joules", help="Compare where all arms have spent the same.")
]
Reference = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="Arm to compare with (default: that of an ideal preset, else the first)."),
]
Margin = Annotated[float, typer.Option(help="Accuracy that counts as no worse; 0.01 is one point.")]
CompareWorkers = Annotated[int, typer.Option(help="Runs side by side, one thread each.")]
CompareName = Annotated[str | None, typer.Option(help="Name of the comparison (default: from the arms).")]
CompareOut = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder of the comparison (default: outputs/NAME).")
]
CompareStore = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder of the runs, shared by comparisons (default: outputs/runs).")
]
CompareDryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the settings, list runs to do and runs found, run nothing.")
]

# --------------------------------------------------------------------------------------------------------------- tune

SweepFile = Annotated[
    str, typer.Argument(metavar="SWEEP|FILE.yaml", help="A sweep that comes along (see `raysoft list`) or a YAML file.")
]
SweepOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the sweep (seeds=3), or settings of every run (rounds=60)."),
]
GoOn = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted sweep; start it where there is none.")]
SweepName = Annotated[str | None, typer.Option(help="Name of the sweep (default: its `name`, or the file's).")]
SweepOut = Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the sweep (default: outputs/NAME).")]
SweepDryRun = Annotated[bool, typer.Option("--dry-run", help="Check every point, list the trials, run nothing.")]

# ------------------------------------------------------------------------------------------------------- report, list

Folders = Annotated[
    list[str],
    typer.Argument(
        metavar="DIR...", help="Run folders, several are drawn together; or one comparison or sweep folder."
    ),
]
ReportFormats = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Files of the figures: some of png,svg,pdf,csv (else report.formats)."),
]
ReportWidth = Annotated[
    str | None, typer.Option(metavar="column|page", help="For one column of a paper, or the page (else report.width).")
]
ReportOut = Annotated[str | None, typer.Option(metavar="FILE|DIR", help="Where to write the report of runs.")]
Matrix = Annotated[bool, typer.Option("--matrix", help="Show which plug-ins work together.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON, with the traits of every plug-in.")]

# --------------------------------------------------------------------------------------------------------- completion

Shell = Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Which shell.")]

# --------------------------------------------------------------------------------------------------------- new, check

Kind = Annotated[str, typer.Argument(metavar="KIND", help="method, extra, codec, allocator, uplink or channel.")]
TemplateName = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits and '_'; the file is NAME.py.")]
PluginFile = Annotated[str, typer.Argument(metavar="FILE.py", help="A plug-in in a file of your own.")]
OfKind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Its kind (default: what its Config says).")]
