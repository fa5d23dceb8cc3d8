"""Where the actors of a run live on a cluster: one placement group, spread over its nodes, and what is left of it.

The coordinator stays on the driver's node and asks for no core. A group that cannot be placed is refused with the
arithmetic before anything waits for it; one that waits for other runs, or for an autoscaler, waits a bounded time.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from raysoft.config import RunConfig
from raysoft.distributed.resources import ActorPlan, Machine, plan_for_growth, plan_on_nodes
from raysoft.errors import ResourceError

log = logging.getLogger("raysoft")
PATIENCE_S = 5.0  # until a run says that it waits, and takes less where it may
KNOCK_S = 1.0


@dataclass(frozen=True)
class Reservation:
    """What each actor gets, and the group that holds it (None: a Ray of one machine, started for this run)."""

    plan: ActorPlan
    group: PlacementGroup | None = None

    def release(self) -> None:
        """Give everything back; actors that still live in the group end with it."""
        if self.group is not None:
            with suppress(Exception):  # the cluster may be gone, and then so is the group
                remove_placement_group(self.group)


def reserve(config: RunConfig) -> Reservation:
    """Room for a run's actors in the cluster that this process has joined.

    Raises ResourceError within seconds where the cluster is too small, with a setting that fits, and after
    actors.wait_for_nodes_s (actors.timeout_s where that is 0) where others hold what it needs.
    """
    actors = config.actors
    grows = actors.wait_for_nodes_s > 0
    plan = plan_for_growth(config) if grows else plan_on_nodes(config, machines(total_resources()))
    patience_s = max(1.0, actors.wait_for_nodes_s) if grows else PATIENCE_S  # Ray counts whole seconds
    deadline = time.monotonic() + (patience_s if grows else actors.timeout_s) - 1.0
    told = False
    while True:
        room = Reservation(plan, placement_group([plan.bundle()] * plan.actors, strategy="SPREAD"))
        late = time.monotonic() >= deadline
        if room.group.wait(patience_s):  # type: ignore[union-attr]
            return room
        room.release()
        free = free_resources()
        cores = sum(one.get("CPU", 0.0) for one in free.values())
        if late:
            raise ResourceError(
                f"actors.cpus: {plan.actors} actors x {plan.cpus_per_actor:g} cores were not free in time ({cores:g} "
                f"are on the cluster's {len(free)} nodes); set actors.cpus to fewer, or actors.timeout_s to more"
            )
        try:
            plan = plan_on_nodes(config, machines(free))  # a smaller share, where the sizes are `auto`
        except ResourceError as error:
            if time.monotonic() >= deadline:
                raise ResourceError(f"{error} (of what is free now; others may hold the rest)") from None
        if not told:
            log.warning("waiting for room on the cluster: %g cores are free on its %d nodes", cores, len(free))
        told, patience_s = True, PATIENCE_S


def total_resources() -> dict[str, Mapping[str, float]]:
    """Resources of each living node by its id, the driver's node first."""
    return _driver_first({node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]})


def free_resources() -> dict[str, Mapping[str, float]]:
    """What of them nobody has taken."""
    from ray._private.state import available_resources_per_node

    return _driver_first(available_resources_per_node())


def _driver_first(nodes: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    here = ray.get_runtime_context().get_node_id()
    return dict(sorted(nodes.items(), key=lambda item: (item[0] != here, item[0])))


def machines(nodes: Mapping[str, Mapping[str, float]]) -> list[Machine]:
    """Ray's resources as the sizing of actors reads them."""
    return [Machine(one.get("CPU", 0.0), int(one.get("memory", 0)), one.get("GPU", 0.0)) for one in nodes.values()]


def on_drivers_node() -> dict[str, Any]:
    """Actor options of a coordinator: beside the driver, who writes what it hands over."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)}


def in_group(group: PlacementGroup | None, slot: int) -> dict[str, Any]:
    """Actor options of a client actor: its own bundle."""
    if group is None:
        return {}
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=slot)}


def without_room(group: PlacementGroup | None) -> set[int]:
    """Bundles whose node is lost and which no other node has taken yet (empty without a group)."""
    if group is None:
        return set()
    placed = placement_group_table(group)["bundles_to_node_id"]
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    answers = {node: _answers(nodes[node]) for node in set(placed.values()) & set(nodes)}
    return {slot for slot, node in placed.items() if not answers.get(node, False)}


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's raylet takes connections: Ray itself notices a lost node some seconds later."""
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=KNOCK_S).close()
    except OSError:
        return False
    return True
