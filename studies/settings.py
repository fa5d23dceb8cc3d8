"""What the study runs: every experiment as arms x seeds. Nothing here runs anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raysoft.comparison.arms import Arm
from raysoft.comparison.batch import Job
from studies.gone import GONE, GoneJob

# The published runs were made with packs of ten, which `auto` then was for every tiny model.
PACKS = "actors.pack_size=10"


@dataclass(frozen=True)
class Task:
    """One of the embedded tasks and its presets. `shared`: settings of all its arms."""

    name: str
    soft: str
    plus: str
    shared: tuple[str, ...]
    kept_soft: float  # mean kept fraction of `soft` on the validation split (seeds 0 and 1), for arms that fix it
    budgets_s: tuple[float, ...]  # of the latency-budget sweep
    time_s: float  # simulated time at which the sweep is read
    plan_budgets_s: tuple[float, ...]
    sgd_lr: float
    adamw_lr: float
    optimizer: str  # of the preset

    @property
    def lr(self) -> float:
        """The preset's learning rate."""
        return self.adamw_lr if self.optimizer == "adamw" else self.sgd_lr


DIGITS = Task(
    name="digits",
    soft="soft",
    plus="soft-plus",
    shared=(PACKS,),
    kept_soft=0.165,
    budgets_s=(0.2, 0.3, 0.5, 0.8),
    time_s=12.0,
    plan_budgets_s=(0.25, 0.4, 0.8),
    sgd_lr=0.15,
    adamw_lr=5e-3,
    optimizer="sgd",
)
TEXT = Task(
    name="python-source",
    soft="soft-text",
    plus="soft-plus-text",
    shared=(PACKS, "data.max_test_samples=5120"),
    kept_soft=0.369,
    budgets_s=(0.4, 0.8, 1.6),
    time_s=19.2,
    plan_budgets_s=(0.4, 0.8, 1.6),
    sgd_lr=0.3,
    adamw_lr=1e-2,
    optimizer="adamw",
)
TASKS = {task.name: task for task in (DIGITS, TEXT)}

# The largest kept fraction whose mean latency over three seeds' first 64 rounds meets the budget (`equal` meets the
# smallest one of digits with none: it gets the least).
FIXED_KEPT: dict[str, dict[float, dict[str, float]]] = {
    "digits": {
        0.2: {"minmax": 0.079, "equal": 0.05},
        0.3: {"minmax": 0.141, "equal": 0.079},
        0.5: {"minmax": 0.219, "equal": 0.141},
        0.8: {"minmax": 0.282, "equal": 0.188},
    },
    "python-source": {
        0.4: {"minmax": 0.079, "equal": 0.05},
        0.8: {"minmax": 0.204, "equal": 0.141},
        1.6: {"minmax": 0.407, "equal": 0.282},
    },
}

# Kept fractions and learning-rate factors of `grain`, `grain_tuning`; fewer for python-source: a run costs five times.
GRAIN_KEPT = {"digits": (0.05, 0.1, 0.2, 0.4), "python-source": (0.1, 0.4)}
GRAIN_FACTORS = {"digits": (1.0, 0.5, 2.0, 4.0), "python-source": (1.0, 0.5, 2.0)}

# What `grain_tuning` chose, times the preset's learning rate.
GRAIN_LR = {
    "digits": {
        "components": 1.0,
        "columns and rows apart": 1.0,
        "entries of the change": 2.0,
        "entries of the state, else zero": 2.0,
    },
    "python-source": {
        "components": 1.0,
        "columns and rows apart": 1.0,
        "entries of the change": 1.0,
        "entries of the state, else zero": 1.0,
    },
}

# The same bits as soft-plus or a little fewer; the budget matters to the outage rule only.
EQUAL_PLUS = {
    "digits": "allocator.name=equal codec.kept_fraction=0.8",
    "python-source": "allocator.name=equal allocator.latency_budget_s=0.3 codec.kept_fraction=0.5",
}

IDEAL = "method.name=fedit codec.name=identity allocator.name=ideal uplink.name=ideal"
FIXED = "allocator.name=minmax allocator.latency_budget_s=null codec.min_kept_fraction=0.01"
DENSE = "method.name=fedit codec.name=identity allocator.name=minmax"


@dataclass(frozen=True)
class Setting:
    """One arm of an experiment. `point`: where it lies on the experiment's axis (kept fraction, budget, V, rank).

    `gone`: of an arm whose option is no longer there, the folders of its published runs, seed by seed.
    """

    label: str
    arm: Arm
    seeds: int
    family: str = ""
    point: float = 0.0
    gone: tuple[str, ...] = ()

    def job(self, seed: int) -> Job:
        """The run of a seed."""
        config = self.arm.config(seed)
        return GoneJob(self.label, config, self.gone[seed]) if self.gone else Job(self.label, config)


@dataclass(frozen=True)
class Experiment:
    """Arms of one task. `reference`: the label that everything is compared with."""

    name: str
    task: Task
    settings: tuple[Setting, ...]
    reference: str = "ideal"

    def jobs(self) -> list[Job]:
        """All runs, seed by seed, so that an interrupted study has whole seeds."""
        return [
            one.job(seed)
            for seed in range(max(one.seeds for one in self.settings))
            for one in self.settings
            if seed < one.seeds
        ]


@dataclass(frozen=True)
class Scale:
    """How much of the study: `seeds` caps the seeds of every arm, `rounds` the rounds (None: the preset's)."""

    seeds: int = 10
    rounds: int | None = None
    points: int = 99  # at most this many arms an experiment (at least two)
    extra: tuple[str, ...] = field(default_factory=tuple)


def setting(
    task: Task, label: str, overrides: str, seeds: int, target: str | None = None, family: str = "", point: float = 0.0
) -> Setting:
    """An arm from its overrides in one string."""
    arm = Arm(label, target or task.soft, tuple(overrides.split()), task.shared)
    return Setting(label, arm, seeds, family or label, point)


def headline(task: Task) -> Experiment:
    """SOFT + TSFA, soft-plus and all baselines. Ten seeds where non-inferiority is claimed."""
    few = 10 if task is DIGITS else 5
    rows = [
        ("ideal", IDEAL, 10, None),
        ("soft", "", 10, None),
        ("soft-plus", "", 10, task.plus),
        ("soft-plus codec, equal", EQUAL_PLUS[task.name], 10, task.plus),
        ("equal", f"allocator.name=equal codec.kept_fraction={task.kept_soft}", few, None),
        ("minmax", f"allocator.name=minmax codec.kept_fraction={task.kept_soft}", few, None),
        ("greedy", "allocator.name=greedy", few, None),
        ("fedit 8 bit", f"{DENSE} codec.bits_per_value=8 allocator.outage_factor=10", few, None),
        ("fedit 4 bit", f"{DENSE} codec.bits_per_value=4 allocator.outage_factor=5", few, None),
        ("top-k", "codec.name=topk", few, None),
        ("random entries", "codec.name=randomk codec.unit=entry", few, None),
        ("random components", "codec.name=randomk codec.unit=component", few, None),
        ("svd", "codec.name=svd", few, None),
    ]
    return Experiment(
        f"headline-{task.name}", task, tuple(setting(task, name, over, n, target) for name, over, n, target in rows)
    )


def frontier(task: Task) -> Experiment:
    """Final metric against total bits: every codec at fixed kept fractions under min-max bandwidth, nobody lost."""
    families: dict[str, tuple[str, tuple[float, ...]]] = {
        "components": ("", (0.5, 0.25, 0.1, 0.05)),
        "components, 4 bit": ("codec.bits_per_value=4", (0.8, 0.4, 0.2, 0.1)),
        "top-k": ("codec.name=topk", (0.5, 0.25, 0.1, 0.05)),
        "top-k, 4 bit, error feedback": (
            "codec.name=topk codec.bits_per_value=4 codec.error_feedback=true",
            (0.4, 0.2, 0.1, 0.05),
        ),
        "random components": ("codec.name=randomk codec.unit=component", (0.5, 0.25, 0.1)),
        "random entries": ("codec.name=randomk codec.unit=entry", (0.5, 0.25, 0.1)),
        "svd": ("codec.name=svd", (0.5, 0.25, 0.1)),
        "waterfill": ("codec.name=waterfill", (0.8, 0.4, 0.16, 0.08)),
        "ecsq": ("codec.name=ecsq", (0.8, 0.4, 0.16, 0.08)),
    }
    rows = [setting(task, "ideal", IDEAL, 2)]
    rows += [
        setting(task, f"{name} {kept:g}", f"{FIXED} codec.kept_fraction={kept} {over}", 2, None, name, kept)
        for name, (over, kept_fractions) in families.items()
        for kept in kept_fractions
    ]
    plain = f"{FIXED} method.name=fedit codec.name=identity"
    for name, over, widths in (
        ("all values", "", (8, 4, 3, 2)),
        ("all, rotated", "codec.quantizer=rotated", (4, 3, 2)),
    ):
        rows += [
            setting(task, f"{name}, {q} bit", f"{plain} codec.bits_per_value={q} {over}", 2, None, name, q / 32)
            for q in widths
        ]
    return Experiment(f"frontier-{task.name}", task, tuple(rows))


def sweep(task: Task) -> Experiment:
    """Allocators under the same latency budgets, with the same simulated time to learn in.

    TSFA and greedy choose what is sent; `minmax` and `equal` send the largest fraction that meets it on average.
    """
    seeds = 3 if task is DIGITS else 2
    rows = []
    for budget in task.budgets_s:
        rounds = round(1.15 * task.time_s / budget)  # a little more than the time holds: rounds may be shorter
        own = f"rounds={rounds} eval.every={max(1, rounds // 12)} allocator.latency_budget_s={budget}"
        choices = {"tsfa": "", "greedy": ""}
        choices |= {name: f"codec.kept_fraction={kept}" for name, kept in FIXED_KEPT[task.name][budget].items()}
        rows += [
            setting(task, f"{name}, {budget:g} s", f"{own} allocator.name={name} {over}", seeds, None, name, budget)
            for name, over in choices.items()
        ]
    return Experiment(f"sweep-{task.name}", task, tuple(rows), reference=rows[0].label)


def options(task: Task) -> Experiment:
    """The options beyond the paper, alone and together, at about a tenth of the dense 32-bit uplink for everybody."""
    tenth = f"{FIXED} codec.kept_fraction=0.1"
    eight = f"{FIXED} codec.kept_fraction=0.8 codec.bits_per_value=4"  # the same bits
    rows = [
        ("soft", tenth),
        ("error feedback", f"{tenth} codec.error_feedback=true"),
        ("error feedback, transported", f"{tenth} codec.error_feedback=transport"),
        ("re-orthogonalised", f"{tenth} method.reorthogonalize=true"),
        ("re-orthogonalised, transport", f"{tenth} method.reorthogonalize=true codec.error_feedback=transport"),
        ("server lr 1.5", f"{tenth} method.server_lr=1.5"),
        *((label, tenth) for label in GONE[task.name]),
        ("shared mask", f"{tenth} method.shared_mask=true"),
        ("4 bit", eight),
        ("4 bit, rotated", f"{eight} codec.quantizer=rotated"),
        ("4 bit, rotated, error feedback", f"{eight} codec.quantizer=rotated codec.error_feedback=true"),
        ("waterfill", f"{FIXED} codec.name=waterfill codec.kept_fraction=0.8"),
        ("ecsq", f"{FIXED} codec.name=ecsq codec.kept_fraction=0.8"),
        ("ecsq, error feedback", f"{FIXED} codec.name=ecsq codec.kept_fraction=0.8 codec.error_feedback=true"),
        ("ecsq, re-orthogonalised", f"{FIXED} codec.name=ecsq codec.kept_fraction=0.8 method.reorthogonalize=true"),
    ]
    return Experiment(
        f"options-{task.name}",
        task,
        tuple(replace(setting(task, name, over, 2), gone=GONE[task.name].get(name, ())) for name, over in rows),
        reference="soft",
    )


def optimizers(task: Task) -> Experiment:
    """The same arms under the other optimiser, at its own learning rate."""
    other = "adamw" if task.optimizer == "sgd" else "sgd"
    lr = task.adamw_lr if other == "adamw" else task.sgd_lr
    train = f"train.optimizer={other} train.lr={lr}"
    return Experiment(
        f"optimizers-{task.name}",
        task,
        tuple(
            setting(task, name, f"{over} {train}", 3, target)
            for name, over, target in (("ideal", IDEAL, None), ("soft", "", None), ("soft-plus", "", task.plus))
        ),
    )


def tradeoff(task: Task, bounded: bool = False) -> Experiment:
    """TSFA over V from an empty queue, as specified or with the presets' bound on a single round (two budgets).

    Many rounds of one local step each: a queue takes about V rounds times a constant to fill; it is read in the second
    half.
    """
    longest = "2.0" if bounded else "null"
    own = f"allocator.queue_init=zero allocator.longest_round={longest} rounds=240 train.steps=1 eval.every=24"
    rows = [setting(task, f"V = {v:g}", f"{own} allocator.v={v}", 2, None, "tsfa", v) for v in (0.1, 0.3, 1, 3, 10, 30)]
    name = f"tradeoff-{task.name}{'-bounded' if bounded else ''}"
    return Experiment(name, task, tuple(rows), reference="V = 1")


def offline(task: Task) -> Experiment:
    """Every rank at three latency budgets, s constant."""
    seeds = 3 if task is DIGITS else 2
    rows = []
    for budget in task.plan_budgets_s:
        for rank in (2, 4, 8, 16):
            over = f"model.lora.rank={rank} model.lora.alpha={2 * rank} allocator.latency_budget_s={budget}"
            rows.append(setting(task, f"rank {rank}, {budget:g} s", over, seeds, None, f"{budget:g} s", rank))
    return Experiment(f"offline-{task.name}", task, tuple(rows), reference=rows[0].label)


def head(task: Task) -> Experiment:
    """With a trained head: how much the head explains alone."""
    own = "model.lora.train_head=true"
    rows = [
        setting(task, "ideal, head trained", f"{IDEAL} {own}", 3),
        setting(task, "soft, head trained", own, 3),
        setting(task, "head only", f"{own} method.name=head_only codec.name=identity allocator.name=minmax", 3),
    ]
    return Experiment(f"head-{task.name}", task, tuple(rows), reference="ideal, head trained")


GRAINS = {
    "components": "",
    "columns and rows apart": "codec.matched=false",
    "entries of the change": "codec.name=topk",
    "entries of the state, else zero": "codec.name=topk codec.fallback=zero",
}


def grain(task: Task) -> Experiment:
    """What may be left out: whole components, columns and rows apart, entries of the change, or of the state itself."""
    rows = [setting(task, "ideal", IDEAL, 5)]
    rows += [
        setting(
            task,
            f"{name} {kept:g}",
            f"{FIXED} codec.kept_fraction={kept} {over} train.lr={task.lr * GRAIN_LR[task.name][name]:g}",
            5,
            None,
            name,
            kept,
        )
        for name, over in GRAINS.items()
        for kept in GRAIN_KEPT[task.name]
    ]
    return Experiment(f"grain-{task.name}", task, tuple(rows))


def grain_tuning(task: Task) -> Experiment:
    """The learning rate of every arm of `grain`, from the same few, at a tenth of the bits, on validation samples."""
    rows = [
        setting(
            task,
            f"{name}, lr x {factor:g}",
            f"{FIXED} codec.kept_fraction=0.1 {over} train.lr={task.lr * factor:g} eval.split=validation",
            2,
            None,
            name,
            factor,
        )
        for name, over in GRAINS.items()
        for factor in GRAIN_FACTORS[task.name]
    ]
    return Experiment(f"grain-tuning-{task.name}", task, tuple(rows), reference=rows[0].label)


def scaled(experiment: Experiment, scale: Scale) -> Experiment:
    """A smaller copy: the first arm and others evenly spread over the rest, so that every axis keeps several points."""
    more = (() if scale.rounds is None else (f"rounds={scale.rounds}",)) + scale.extra
    rows = tuple(
        replace(one, seeds=min(one.seeds, scale.seeds), arm=replace(one.arm, overrides=(*one.arm.overrides, *more)))
        for one in _spread(experiment.settings, scale.points)
    )
    return replace(experiment, settings=rows)


def _spread(settings: tuple[Setting, ...], points: int) -> tuple[Setting, ...]:
    """The first, the last and others in even steps, at most `points` (at least two)."""
    if len(settings) <= points:
        return settings
    return tuple(settings[round(i * (len(settings) - 1) / (points - 1))] for i in range(points))


def everything(scale: Scale) -> list[Experiment]:
    """All experiments, the most important first."""
    out = [headline(DIGITS), headline(TEXT), frontier(DIGITS), frontier(TEXT)]
    out += [sweep(DIGITS), sweep(TEXT), offline(DIGITS), offline(TEXT), options(DIGITS), options(TEXT)]
    out += [optimizers(DIGITS), optimizers(TEXT), tradeoff(DIGITS), tradeoff(DIGITS, bounded=True)]
    out += [head(DIGITS)]
    out += [grain_tuning(DIGITS), grain(DIGITS), grain_tuning(TEXT), grain(TEXT)]
    return [scaled(one, scale) for one in out]
