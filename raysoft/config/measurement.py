"""Sections that leave the training as it is: evaluation, what is measured, tracked and saved, how a rank is planned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raysoft.config.base import Count, Label, NonNegative, Rank, Section


class EvalConfig(Section):
    """Evaluation of the global model on fixed shards of the test split."""

    every: Count = 1
    """Rounds from one evaluation to the next. [rounds]"""
    batch_size: Count = 512
    """Samples evaluated in one pass. [samples]"""
    split: Literal["test", "validation"] = "test"
    """Samples on which the global model is evaluated."""


class MetricsConfig(Section):
    """What is measured beside the training; never changes the adapter.

    `clients`: after the last round the global model is evaluated client by client on up to `client_samples` of each
    client's own training samples (at most 1,000 clients).
    """

    covariance: Literal["auto", "exact", "sketch", "off"] = "auto"
    """How the covariance of the factors over clients is measured: exactly, by random projections, or not; auto: by
    size."""
    clients: bool = True
    """Whether the final model is evaluated client by client."""
    client_samples: Annotated[int, Field(ge=1, le=10**6)] = 32
    """Training samples of each client in that evaluation, at most. [samples]"""


class WandbConfig(Section):
    """Weights & Biases. The API key comes from the environment or `wandb login`, never from here.

    `group` (empty in a sweep: its name) and `name` (empty: the run folder's) are how a run is filed; `entity` empty is
    the key's own account. `artifacts`: what is uploaded besides numbers.
    """

    mode: Literal["off", "offline", "online"] = "off"
    """Whether runs are logged to Weights & Biases, and whether at once (online) or for later upload (offline)."""
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")] = "raysoft"
    """Project there."""
    group: Label | None = None
    """Group of the run; null: in a sweep its name, else none."""
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64)] = []  # noqa: RUF012
    """Tags of the run."""
    entity: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")] | None = None
    """User or team; null: the key's own account."""
    name: Label | None = None
    """Name of the run there; null: that of the run's folder."""
    artifacts: list[Literal["figures", "adapter"]] = []  # noqa: RUF012
    """What is uploaded besides numbers."""


class TrackingConfig(Section):
    """Where a run is logged besides its own folder; has no part in the result.

    `prometheus`: gauges under the metrics port of Ray, for a run on a cluster that is scraped.
    """

    tensorboard: bool = True
    """Whether TensorBoard curves are written into the run's folder."""
    wandb: WandbConfig = WandbConfig()
    """Logging to Weights & Biases."""
    prometheus: bool = False
    """Whether gauges are served under the metrics port of Ray."""


FigureFormat = Literal["png", "svg", "pdf", "csv"]
FigureWidth = Literal["column", "page"]


class ReportConfig(Section):
    """The figures of a report; has no part in the result (`raysoft report DIR` draws them again, as it is told to)."""

    formats: list[FigureFormat] = ["png", "csv"]  # noqa: RUF012 - pydantic copies it
    """Files in figures/; csv: the numbers that are drawn."""
    width: FigureWidth | None = None
    """One column (3.5 inches) or the page (7.16 inches) of a two-column paper; null: the page for a run, a column for
    the figures of a comparison."""


class CheckpointConfig(Section):
    """When a run is saved for `raysoft resume`: every so many rounds and after the last (null: never).

    The last `keep` checkpoints stay, and each whose round is a multiple of `keep_every`.
    """

    every: Count | None = 1
    """Rounds from one checkpoint to the next, beside that after the last round; null: none. [rounds]"""
    keep: Annotated[int, Field(ge=1, le=10**6)] = 2
    """Number of latest checkpoints that stay. [checkpoints]"""
    keep_every: Count | None = None
    """Checkpoints of rounds that are multiples of this stay as well; null: none. [rounds]"""


class ScoreWeights(Section):
    """The constants c_r, c_s and c_c of the rank's score (only their ratios matter).

    The defaults were fitted on the study's python-source runs and judged on its digits runs (docs/study_record.md);
    `raysoft plan --validate` fits one's own.
    """

    rank: NonNegative = 0.27
    """Weight of the rank term: what the rank cannot hold of a full update. [1]"""
    sparsification: NonNegative = 1.0
    """Weight of the sparsification error. [1]"""
    covariance: NonNegative = 4.3
    """Weight of what is lost by averaging the factors apart. [1]"""


class PlanConfig(Section):
    """The offline stage: which ranks compete and how they are measured. Without effect on a run of a given rank.

    `alpha`: how the scale s of W0 + s B A follows the rank. keep-scale: s stays what model.lora gives at its own rank;
    rslora: s is proportional to 1/sqrt(rank). Where model.lora.rank is `plan`, alpha belongs to `reference_rank`.
    """

    ranks: Annotated[list[Rank], Field(min_length=1, max_length=64)] = [1, 2, 4, 8, 16]  # noqa: RUF012 - pydantic copies it
    """Ranks that compete. [1]"""
    alpha: Literal["keep-scale", "rslora"] = "keep-scale"
    """How alpha follows the rank: the scale stays, or falls with the root of the rank."""
    reference_rank: Rank = 8
    """Rank to which model.lora.alpha belongs where model.lora.rank is `plan`. [1]"""
    draws: Annotated[int, Field(ge=8, le=10**6)] = 256
    """Sampled rounds (cohorts and channels) by which latency is estimated. [rounds]"""
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Share of the draws cut off each end before the mean latency. [1]"""
    pilot_steps: Annotated[int, Field(ge=1, le=10**6)] = 20
    """Full-gradient steps that measure the rank term. [steps]"""
    pilot_rounds: Annotated[int, Field(ge=1, le=10**6)] = 4
    """Federated rounds that measure the two other terms. [rounds]"""
    repetitions: Annotated[int, Field(ge=2, le=1000)] = 3
    """Repetitions of the federated pilot. [1]"""
    weights: ScoreWeights = ScoreWeights()
    """Constants of the rank's score; only their ratios matter."""

    @model_validator(mode="after")
    def _distinct(self) -> PlanConfig:
        if len(set(self.ranks)) < len(self.ranks):
            raise ValueError(f"ranks must differ, got {self.ranks}")
        return self
