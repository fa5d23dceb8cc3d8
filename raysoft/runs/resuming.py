"""What `raysoft resume` finds in a run folder, and whether it may go on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from raysoft.config import RunConfig
from raysoft.config.identity import differences, first_identity
from raysoft.config.plugin_file import copy_name
from raysoft.config.presets import with_overrides
from raysoft.config.registry import resolve
from raysoft.config.yaml12 import load_mapping
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.content import content_of
from raysoft.rundir.checks import is_lost, row_problem, summary_problem
from raysoft.rundir.environment import environment
from raysoft.rundir.folder import CONFIG, ENVIRONMENT, ROUNDS, SUMMARY, Position, write_atomic
from raysoft.rundir.plugin_files import PLUGINS, changed, kept
from raysoft.rundir.reading import damage, read_advisory, read_run
from raysoft.rundir.summary import DONE, SUMMARY_KEYS, without_columns
from raysoft.runs.checkpoint import CHECKPOINTS, Checkpoint, newest
from raysoft.types import RoundRecord

MAY_GROW = "rounds"
_ADAPTER = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Resumable:
    """A run that may go on: with this configuration, after this checkpoint (None: from round 0).

    `done`: its summary, where nothing is left to do, unless its records are to be mended (`mend`: see `salvage`).
    `redraws`: other figures are asked for than before. `notes`: sentences for the user.
    """

    config: RunConfig
    checkpoint: Checkpoint | None
    done: Mapping[str, Any] | None
    notes: tuple[str, ...]
    mend: bool = False
    redraws: bool = False


def find_resumable(folder: Path, overrides: Sequence[str] = (), may_change: Collection[str] = ()) -> Resumable:
    """Read a run folder and check that what is asked for leads to the result it would have had.

    Raises ConfigError naming the keys that differ, RaysoftError for a folder that holds no run or only damage.
    """
    if not (folder / CONFIG).is_file():
        what = "holds no config.yaml, so it is not a run folder" if folder.is_dir() else "no such run folder"
        raise RaysoftError(f"{folder}: {what}")
    tree = load_mapping(folder / CONFIG)
    with kept(folder):
        try:
            stored = resolve(tree)
        except ConfigError as error:
            raise ConfigError("", f"{folder / CONFIG}: {error}") from None
        tree = with_overrides(tree, overrides)
        config = resolve(tree)
    checkpoint, damaged = newest(folder / CHECKPOINTS, folder / ROUNDS)
    before = stored.result_keys() if checkpoint is None else checkpoint.config
    _refuse_changed_copies(folder, before, stored, config, may_change)
    _refuse_changes(before, config, may_change, 0 if checkpoint is None else checkpoint.round)
    summary, notes = _closing_summary(folder, config.rounds)
    if summary is not None:
        lacking, mend = _lacking(folder, summary, checkpoint, damaged)
        if lacking is None:
            texts = tuple(f"{text}." for text in dict.fromkeys(damaged))
            return Resumable(config, checkpoint, summary, texts, mend, redraws=config.report != stored.report)
        damaged = [*damaged, lacking]
    if checkpoint is None:
        notes.append(f"{folder} holds no checkpoint; it begins again at round 0.")
    else:
        if damaged:
            what = "; ".join(dict.fromkeys(damaged))
            notes.append(f"{what}. Going on from the checkpoint of round {checkpoint.round}.")
        notes += _check_content(checkpoint, config, may_change)
    notes += [
        f"{text} has changed since this run began; it goes on with the copy in {folder / PLUGINS}."
        for text in changed(config.plugin_files().values())
    ]
    return Resumable(config, checkpoint, None, (*notes, *_other_environment(folder, config)))


def _closing_summary(folder: Path, rounds: int) -> tuple[dict[str, Any] | None, list[str]]:
    """The summary of a run that has ended after so many rounds, else None; and what is wrong with a damaged one."""
    summary, torn = read_advisory(folder / SUMMARY)
    if summary.get("status") != DONE or summary.get("rounds") != rounds:
        return None, torn
    missing = [key for key in SUMMARY_KEYS if key not in summary and key != "identity"]  # which 0.1 did not write
    problem = f"holds no {missing[0]}, so no run has written it" if missing else summary_problem(summary)
    if problem is None:
        return summary, torn
    return None, [f"{folder / SUMMARY}: {problem}; it is left out of account."]


def _lacking(
    folder: Path, summary: Mapping[str, Any], checkpoint: Checkpoint | None, damaged: Sequence[str]
) -> tuple[str | None, bool]:
    """What a finished run should hold and can compute again from its checkpoint; whether its records are to be mended.

    Records that no checkpoint agrees with can be made readable again, no more, and that needs no computing. Raises
    RaysoftError where something is lacking and there is no checkpoint.
    """
    lacking = next((f"{folder / name}: is missing" for name in _ADAPTER if not (folder / name).is_file()), None)
    if lacking is None:
        lacking = damage(folder, summary)
        if checkpoint is not None and not checkpoint.records_intact and checkpoint.round == summary["rounds"]:
            return None, lacking is not None
        lacking = next((note for note in damaged if note.startswith(f"{folder / ROUNDS}:")), lacking)
    if lacking is not None and checkpoint is None:
        raise RaysoftError(
            f"{lacking}; this run has finished and holds no checkpoint, so nothing can be mended: run it anew with "
            "--overwrite"
        )
    return lacking, False


def read_records(folder: Path) -> list[RoundRecord]:
    """The rounds of rounds.jsonl as records, columns over clients left out; a lost round has nothing but its number."""
    names = {item.name for item in fields(RoundRecord)}
    out = []
    for row in read_run(folder).records:
        unknown = dict.fromkeys(names) | {"drop_reasons": {}, "model": "main"}  # all that a lost round says
        known = {key: value for key, value in row.items() if key in names and value is not None}
        out.append(RoundRecord(**{**unknown, **known, "metrics": without_columns(row.get("metrics", {}))}))
    return out


def recorded_drops(records: Sequence[RoundRecord]) -> dict[str, dict[str, int]]:
    """Clients lost to faults of actors, by round."""
    lost = {str(one.round): one.drop_reasons.get("actor_failed", 0) for one in records}
    return {tick: {"actor_failed": count} for tick, count in lost.items() if count}


def _refuse_changes(before: Mapping[str, Any], config: RunConfig, may_change: Collection[str], at_round: int) -> None:
    old, new = dict(_leaves(before)), dict(_leaves(config.result_keys()))
    if config.rounds < max(at_round, 0):
        raise ConfigError(MAY_GROW, f"must be at least {at_round}, the round of the checkpoint, got {config.rounds}")
    # An option that the checkpoint does not know had no other value than today's default.
    old |= {key: value for key, value in new.items() if key not in old and value == config.default_of(key)}
    allowed = {MAY_GROW, *may_change}
    kinds = sorted({key for key in old.keys() | new.keys() if key.startswith("revisions.")})
    for tree in (old, new):
        tree.update({key: 1 for key in kinds if key not in tree})
    differing = [
        f"{key} was {_shown(old.get(key))}, is {_shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not any(key == name or key.startswith(f"{name}.") for name in allowed)
    ]
    if differing:
        raise ConfigError(
            "", f"a resumed run keeps its configuration, but {'; '.join(differing)}; start a new run for another one"
        )


def _refuse_changed_copies(
    folder: Path, before: Mapping[str, Any], stored: RunConfig, config: RunConfig, may_change: Collection[str]
) -> None:
    """Raises ConfigError naming the kept copy of a plug-in's file that is not what the run began with."""
    old, now = dict(_leaves(before)), config.plugin_files()
    for key, file in stored.plugin_files().items():
        copy, was = folder / PLUGINS / copy_name(file.text), old.get(key)
        asked_for = now.get(key) == file and not {key, key.rpartition(".")[0]} & set(may_change)
        if asked_for and was is not None and was != file.digest and copy.is_file():
            raise ConfigError(
                key,
                f"{copy}, the run's copy of {file.text}, was changed since the run began: it was {was}, is "
                f"{file.digest}; put the old content back, or start a new run",
            )


def _check_content(checkpoint: Checkpoint, config: RunConfig, may_change: Collection[str]) -> list[str]:
    """Sentences on what cannot be checked. Raises ConfigError naming what has another content than before."""
    now = content_of(config)
    noted = checkpoint.identity
    before = first_identity(config.model_dump(mode="json")) if noted is None else noted
    differing = {
        key: pair
        for key, pair in differences({key: before.get(key) for key in now}, now).items()
        if key not in may_change and not key.startswith(tuple(f"{name}." for name in may_change))
    }
    for key, (old, new) in differing.items():
        if old is not None:
            is_now = "cannot be read" if new is None else f"is {new}"
            raise ConfigError(
                key,
                f"{_named(config, key)} is not what the rounds so far were computed with: it was {old}, it {is_now}; "
                "put the old content back, or start a new run",
            )
    if not differing:
        return []
    which = " and ".join(f"{key} ({_named(config, key)})" for key in differing)
    why = "was written by a version that noted no digests" if noted is None else "holds no digest of it"
    return [f"It cannot be checked whether {which} is still what the run began with: the checkpoint {why}."]


def _named(config: RunConfig, key: str) -> str:
    """The value of a configuration key, as the user wrote it."""
    value: Any = config.model_dump(mode="json")
    for word in key.split("."):
        value = value[int(word)] if isinstance(value, list) else value[word]
    return str(value)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _other_environment(folder: Path, config: RunConfig) -> list[str]:
    """A sentence where processor, thread count or a library differ from those of the rounds so far."""
    before, torn = read_advisory(folder / ENVIRONMENT)
    if not before:
        return torn
    now = environment(config.actors.threads)
    keys = ("cpu", "threads", "python", "machine")
    changes = [f"{key} {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
    old, new = before.get("libraries"), now["libraries"]
    old = old if isinstance(old, dict) else {}
    changes += [f"{name} {old.get(name)} -> {new.get(name)}" for name in new if old.get(name) != new.get(name)]
    if not changes:
        return []
    return [f"The rounds so far were computed elsewhere ({', '.join(changes)}); the last bits may differ."]


# -------------------------------------------------------------------------------------------------- damaged records


@dataclass(frozen=True)
class Salvaged:
    """The records that go on: where they end, and the rounds that are lost. `aside`: the damaged file, if there was."""

    position: Position
    lost: tuple[int, ...]
    aside: Path | None

    def note(self, at_round: int, finished: bool = False) -> str:
        """What the user has to know. `finished`: the run has its summary, and that is all that was to be mended."""
        kept = "" if self.aside is None else f" (kept as {self.aside.name})"
        totals = "" if finished else ", and totals over them stay unknown"
        what = f"the records of rounds {_spans(self.lost)} are lost{totals}"
        if not self.lost:
            what = "every line can be read and is taken as it is"
        return f"{ROUNDS} is not what was written up to round {at_round}{kept}: {what}. " + (
            f"{SUMMARY} stays."
            if finished
            else f"The state after round {at_round} is intact, and the run goes on from it."
        )


def salvage(folder: Path, at_round: int) -> Salvaged:
    """Make rounds.jsonl one line a round up to `at_round` again. Only for who holds the folder's lock.

    A checkpoint's state does not need the records of the rounds before it, so a run goes on from it all the same. The
    file as it was is kept beside the new one. The line of a lost round holds its number and `metrics.lost`; totals that
    such a round belongs to are not known any more, and stand as null in the summary.
    """
    path = folder / ROUNDS
    rows: dict[int, str] = {}
    aside = None
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            row = _row(line)
            if row is not None and 0 <= row["round"] <= at_round:
                rows.setdefault(row["round"], line)
        aside = _unused(path)
        shutil.copyfile(path, aside)  # and only then another one in its place: a crash between loses nothing
    lines = [rows.get(tick) or json.dumps(_lost_row(tick)) for tick in range(at_round + 1)]
    text = "".join(line + "\n" for line in lines)
    write_atomic(path, text)
    lost = tuple(tick for tick, line in enumerate(lines) if is_lost(json.loads(line)))
    return Salvaged(Position.of(text.encode("utf-8")), lost, aside)


def _lost_row(tick: int) -> dict[str, Any]:
    """The line of a round whose record is lost."""
    return {"round": tick, "metrics": {"lost": True}, "drop_reasons": {}}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if row_problem(row) is None else None


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in range(10_000))
    return next(name for name in names if not name.exists())


def _spans(ticks: tuple[int, ...]) -> str:
    """
    >>> _spans((0, 1, 2, 5))
    '0-2, 5'
    """
    spans: list[list[int]] = []
    for tick in ticks:
        if spans and tick == spans[-1][1] + 1:
            spans[-1][1] = tick
        else:
            spans.append([tick, tick])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
