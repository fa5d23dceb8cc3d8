"""TSFA's offline stage: which LoRA rank suits a model, its data and a latency budget, before any round.

After Kim and Choi (arXiv 2505.00333), in this project's reading. For every candidate rank r

    score(r) = c_r phi(r) + c_s eps(r, o*(r)) + c_c kappa(r),   r* = argmin, ties to the smaller rank,

phi: what a rank cannot hold of the full update (models/pilot.py); o*: the largest kept fraction within the latency
budget (allocation/solvers/offline.py); eps, kappa: what sparsification and separate averaging lose (planning/pilot.py).
Everything is keyed by the run's seed: the same configuration gives the same plan, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raysoft.allocation.solvers.budget import smallest_feasible_budget
from raysoft.allocation.solvers.offline import SampledRounds, largest_units
from raysoft.config import RunConfig, ScoreWeights, registry
from raysoft.config.identity import EMBEDDED
from raysoft.errors import ConfigError
from raysoft.federation.workload import Workload
from raysoft.kernels import portable
from raysoft.planning.events import Preparing
from raysoft.planning.table import CHOSEN, FEASIBLE, Candidate, RankPlan

if TYPE_CHECKING:
    from raysoft.planning.pilot import PilotTerms


def with_rank(config: RunConfig, rank: int) -> RunConfig:
    """The configuration at an integer rank, alpha following `plan.alpha`.

    keep-scale: s is the same at every rank. rslora: s = s_ref sqrt(r_ref / rank). s_ref is what model.lora gives at its
    own rank r_ref, or at plan.reference_rank where its rank is `plan`. Raises ConfigError for ranks in tiers.
    """
    lora = config.model.lora
    if isinstance(lora.rank, dict):
        raise ConfigError("model.lora.rank", "the offline stage chooses one rank for all clients; got tiers")
    reference = lora.rank if isinstance(lora.rank, int) else config.plan.reference_rank
    scale = lora.model_copy(update={"rank": reference}).scale()
    if config.plan.alpha == "rslora":
        update = {"rank": rank, "use_rslora": True, "alpha": scale * math.sqrt(reference)}
    elif rank == reference:
        update = {"rank": rank}
    else:
        update = {"rank": rank, "alpha": scale * (math.sqrt(rank) if lora.use_rslora else rank)}
    model = config.model.model_copy(update={"lora": lora.model_copy(update=update)})
    return config.model_copy(update={"model": model})


def resolve_rank(config: RunConfig, events: Preparing | None = None) -> RunConfig:
    """The configuration with an integer rank: unchanged, or with the rank that the offline stage chooses.

    Raises ConfigError as `make_plan`, and where no candidate rank meets the budget.
    """
    return planned(config, events)[0]


def planned(config: RunConfig, events: Preparing | None = None) -> tuple[RunConfig, RankPlan | None]:
    """`resolve_rank` with the plan behind it (None where the rank was given)."""
    if config.model.lora.rank != "plan":
        return config, None
    plan = make_plan(config, events)
    rank = plan.rank()
    (events or Preparing()).rank_chosen(rank, [one.rank for one in plan.candidates])
    return with_rank(config, rank), plan


def make_plan(config: RunConfig, events: Preparing | None = None) -> RankPlan:
    """Measure every rank of `plan.ranks` and choose. Pilots run inline, in this process.

    Raises ConfigError where the configuration has no budget, no shared band, no adapter in training, tiers of ranks or
    no proxy samples.
    """
    from raysoft.federation.executor import pin_threads

    portable.require(config.actors.portable)
    budget_s = _budget(config)
    show = events or Preparing()
    with pin_threads(config.actors.threads):  # the caller's own thread counts come back afterwards
        return _make_plan(config, budget_s, show)


def _budget(config: RunConfig) -> float:
    """What can be refused without reading anything."""
    if not registry.traits("method", config.method).trains_lora:
        raise ConfigError(
            "method.name", f"{config.method.name} trains no adapter, so there is no rank to choose; set model.lora.rank"
        )
    if registry.traits("method", config.method).alternates:
        raise ConfigError(
            "method.name",
            f"{config.method.name} sends other factors in other rounds, and a rank is planned for one payload; set "
            "model.lora.rank",
        )
    if not registry.traits("uplink", config.uplink).shares_band:
        raise ConfigError("uplink.name", f"{config.uplink.name} has no band to plan for; use uplink.name=fdma")
    budget_s = registry.options("allocator", config.allocator).latency_budget_s
    if budget_s is None:
        raise ConfigError("allocator.latency_budget_s", "is required by the offline stage, e.g. 0.3")
    with_rank(config, min(config.plan.ranks))
    return float(budget_s)


def _make_plan(config: RunConfig, budget_s: float, show: Preparing) -> RankPlan:
    from raysoft.federation.preflight import rounds_ahead
    from raysoft.federation.workload import prepare
    from raysoft.planning.pilot import simulated_clients

    if config.model.name.startswith(EMBEDDED):
        from raysoft.models.embedded import ensure

        ensure(config.model.name, threads=config.actors.threads, on_progress=show.preparing)
    show.preparing(0.0, "plan: loading model and data")
    ranks = sorted(config.plan.ranks)
    workload = prepare(with_rank(config, ranks[-1]), planning=True)
    clients = simulated_clients(config, workload)
    update = _full_update(config, workload, show)
    found = [_candidate(config, workload, rank, budget_s, update.energy_L, show) for rank in ranks]
    scored = [one for one in found if one.score is not None]
    chosen = min(scored, key=lambda one: (one.score, one.rank)).rank if scored else None
    rows = tuple(replace(one, verdict=CHOSEN) if one.rank == chosen else one for one in found)
    lora = with_rank(config, config.plan.reference_rank).model.lora
    facts = {
        "seed": config.seed,
        "alpha_rule": config.plan.alpha,
        "reference_scale": lora.scale() if config.plan.alpha == "keep-scale" else None,
        "proxy_samples": len(workload.data.proxy),
        "full_pilot": {"steps": update.steps, "loss_before": update.loss_before, "loss_after": update.loss_after},
        "federated_pilot": {
            "clients": clients,
            "rounds": config.plan.pilot_rounds,
            "repetitions": config.plan.repetitions,
        },
        "sampled_rounds": len(rounds_ahead(config, config.plan.draws)),
        "trim": config.plan.trim,
    }
    return RankPlan(rows, chosen, budget_s, config.plan.weights.model_dump(), facts)


def _full_update(config: RunConfig, workload: Workload, show: Preparing) -> Any:
    from raysoft.federation.workload import describe, with_pack_size
    from raysoft.models.pilot import full_update
    from raysoft.rng import Rng

    train = config.train
    pack = with_pack_size(config, describe(workload, config)).actors.pack_size
    assert isinstance(pack, int)
    return full_update(
        workload.base,
        workload.space,
        workload.head,
        workload.data.proxy,
        steps=config.plan.pilot_steps,
        batch_size=train.batch_size * config.cohort.size,  # as many samples as one local step of a whole cohort sees
        chunk_size=train.batch_size * pack,  # as much memory as one packed step takes
        rng=Rng(config.seed),
        device=train.device,
        threads=config.actors.threads,
        on_step=lambda fraction: show.preparing(fraction, "plan: full-gradient pilot"),
    )


def _candidate(
    config: RunConfig, workload: Workload, rank: int, budget_s: float, energy_L: Any, show: Preparing
) -> Candidate:
    from raysoft.models.pilot import truncation_error
    from raysoft.models.targets import lora_space
    from raysoft.planning.pilot import pilot_terms

    settings = with_rank(config, rank)
    lora = settings.model.lora
    row = Candidate(rank, lora.scale(), lora.alpha, truncation_error(energy_L, rank))
    largest = max(min(pair.out_features, pair.in_features) for pair in workload.space.pairs)
    if rank > largest:
        return replace(row, reason=f"no adapted matrix has a rank above {largest}")
    space, head = lora_space(workload.base, lora)
    own = replace(workload, space=space, head=head)
    show.preparing(0.0, f"plan: sampled rounds at rank {rank}")
    row = _with_latency(row, settings, own, budget_s)
    if row.reason or row.kept_fraction is None:
        return row
    text = f"plan: federated pilot at rank {rank}"
    terms = pilot_terms(settings, own, row.kept_fraction, lambda fraction: show.preparing(fraction, text))
    return _with_score(row, terms, config.plan.weights)


def _with_latency(row: Candidate, config: RunConfig, workload: Workload, budget_s: float) -> Candidate:
    """o* and the latency there, from the cohorts and channels that the run itself will meet first."""
    from raysoft.federation.coordinator import build_parts
    from raysoft.federation.executor import InlineExecutor
    from raysoft.federation.parts import first_state
    from raysoft.federation.preflight import Costs, check_latency_budget, rounds_ahead, sample_rounds
    from raysoft.federation.workload import describe, with_pack_size

    info = describe(workload, config)
    parts = build_parts(with_pack_size(config, info), info, InlineExecutor(config, workload))
    server = first_state(parts).server
    costs = Costs(parts, server)
    cost = costs.of(row.rank, 1)
    draws = sample_rounds(parts, costs, rounds_ahead(config, config.plan.draws))
    factor = registry.options("allocator", config.allocator).outage_factor
    bits_J, least = cost.menu.bits_KJ[0], int(cost.menu.least_K[0])
    rounds = SampledRounds(draws, parts.link, budget_s, factor * budget_s)
    fit = largest_units(rounds, bits_J, least, config.plan.trim)
    variable_J = bits_J - cost.fixed_bits
    row = replace(
        row,
        menu_units=len(bits_J) - 1,
        latency_mean_s=fit.latency.mean_s,
        latency_error_s=fit.latency.standard_error_s,
        latency_median_s=fit.latency.median_s,
        latency_p95_s=fit.latency.p95_s,
        senders=fit.senders,
        bit_floor=(cost.fixed_bits + cost.control_bits) / cost.dense_bits,
        smallest_budget_s=smallest_feasible_budget(draws, parts.link, factor),
    )
    if fit.units is None:
        return replace(row, reason=fit.reason)
    try:
        check_latency_budget(parts, server)  # the run would refuse itself by this rule
    except ConfigError as error:
        return replace(row, reason=error.message)
    return replace(
        row,
        units=fit.units,
        kept_fraction=float(variable_J[fit.units] / variable_J[-1]) if variable_J[-1] > 0 else 1.0,
        payload_bits=float(bits_J[fit.units]),
    )


def _with_score(row: Candidate, terms: PilotTerms, weights: ScoreWeights) -> Candidate:
    eps, kappa = terms.sparsification, terms.covariance
    return replace(
        row,
        sparsification=eps.mean,
        sparsification_error=eps.standard_error,
        covariance=kappa.mean,
        covariance_error=kappa.standard_error,
        score=weights.rank * row.phi + weights.sparsification * eps.mean + weights.covariance * kappa.mean,
        score_error=math.hypot(weights.sparsification * eps.standard_error, weights.covariance * kappa.standard_error),
        verdict=FEASIBLE,
    )
