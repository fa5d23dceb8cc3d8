"""The offline stage from Python: `plan`, which chooses a LoRA rank before any round."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysoft.api.result import page_part
from raysoft.api.settings import Place, Setting, Target, configuration, name_of_target, words
from raysoft.api.undisturbed import undisturbed
from raysoft.errors import RaysoftError
from raysoft.rundir.folder import PLAN
from raysoft.rundir.reading import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from raysoft.config import RunConfig
    from raysoft.planning.events import Preparing
    from raysoft.planning.table import RankPlan


class Plan:
    """Which rank suits a model, its data and a budget: what `raysoft.plan` and `raysoft.open` give.

    `data`: the contents of plan.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: dict[str, Any] = read_json(folder / PLAN)
        if not isinstance(self.data.get("candidates"), list):
            raise RaysoftError(f"{folder / PLAN}: holds no candidates, so no plan has written it")

    @property
    def rank(self) -> int | None:
        """The chosen rank; None where every candidate was rejected."""
        return self.data["chosen_rank"]  # type: ignore[no-any-return]

    @cached_property
    def table(self) -> DataFrame:
        """A row a candidate rank: what it loses, costs and scores, and the verdict with its reason."""
        from raysoft.api.frames import frame

        return frame(self.data["candidates"])

    def plot(self) -> Figure:
        """Scores and latencies of the candidates as a matplotlib figure."""
        from raysoft.report import style
        from raysoft.report.plan_figure import plan_figure

        with style.settings():
            return plan_figure(self.data)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Plan({str(self.folder)!r}: rank {self.rank})"

    def _repr_html_(self) -> str:
        rows = [("Chosen rank", str(self.rank)), ("Latency budget", f"{self.data['latency_budget_s']:g} s")]
        rows += [(f"Rank {one['rank']}", one["reason"] or one["verdict"]) for one in self.data["candidates"]]
        return page_part(f"Plan {self.folder.resolve().name}", rows)


@undisturbed()
def plan(
    target: Target = "soft",
    *settings: Setting,
    ranks: Sequence[int] | None = None,
    alpha: str | None = None,
    out: Place | None = None,
    name: str | None = None,
    progress: bool | None = None,
    **keys: Any,
) -> Plan:
    """Choose the LoRA rank before training (TSFA's offline stage), and say why.

    `target` and settings: as for `raysoft.load`. `ranks`: the candidates (default: plan.ranks). `alpha`: `keep-scale`
    or `rslora`, how alpha follows the rank. Table and figure go to `out` (outputs/NAME-plan).
    `raysoft.run(..., {"model.lora.rank": "plan"})` plans and runs in one go.

    Raises ConfigError where nothing can be planned, or no rank meets the budget (its table is written all the same).
    """
    from raysoft.api.progress import RunProgress, board

    asked = words(settings, keys)
    config = configuration(target, [*asked, *plan_words(ranks, alpha)])
    folder = plan_place(target, out, name)
    shown = board(progress is not False)
    try:
        planned(config, folder, RunProgress(shown)).rank()
    finally:
        shown.close()
    return Plan(folder)


def plan_words(ranks: Sequence[int] | None, alpha: str | None) -> list[str]:
    """Candidates and the rule of alpha as settings of the section `plan`."""
    return [
        *(() if ranks is None else words([], {"plan.ranks": list(ranks)})),
        *(() if alpha is None else words([], {"plan.alpha": alpha})),
    ]


def plan_place(target: Target, out: Place | None, name: str | None) -> Path:
    """The folder of a plan, as `raysoft plan` chooses it. Raises ConfigError."""
    from raysoft.rundir.destination import local_destination
    from raysoft.rundir.folder import check_name

    chosen = name_of_target(target) if name is None else check_name(name)
    return local_destination(None if out is None else os.fspath(out), f"{chosen}-plan")


def planned(config: RunConfig, folder: Path, events: Preparing) -> RankPlan:
    """Measure, choose, and write the plan's folder. Raises ConfigError where the folder holds something else."""
    from raysoft.planning.table import check_folder, write_plan

    check_folder(folder)
    from raysoft.planning.stage import make_plan  # loads much, so after the check

    found = make_plan(config, events)
    write_plan(folder, found)
    return found
