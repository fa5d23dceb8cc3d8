"""Whole rounds in this process: a started coordinator, its executor, and clients whose training is tampered with."""

from dataclasses import replace

import numpy as np

from raysoft.config.presets import load_config
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor
from tests.conftest import SMALL_RUN


def coordinator(preset="soft", *settings):
    """(started coordinator, its executor) of a short run."""
    config = load_config(preset, [*SMALL_RUN, "executor=inline", *settings])
    executor = InlineExecutor(config)
    made = Coordinator(config, executor)
    made.start()
    return made, executor


def with_ends(executor, change):
    """Each client's training ends where `change(client, start, end)` says; returns what everybody's ended with."""
    trainer, ends = executor.worker.trainer, {}
    plain_map, plain_train = executor.map, trainer.train
    current = []

    def map_(stage, down, requests, handles=None):
        current[:] = [list(r.pack.clients) for r in requests] if stage == "train" else []
        return plain_map(stage, down, requests, handles)

    def train(jobs, batches, settings):
        pack, results = current.pop(0), plain_train(jobs, batches, settings)
        for k, client in enumerate(pack):
            results[k] = replace(results[k], end=change(client, jobs[k].start, results[k].end))
            ends[client] = jobs[k].start, results[k].end
        return results

    executor.map, trainer.train = map_, train
    return ends


def broken(executor, clients):
    """These clients' training ends in nan."""
    return with_ends(
        executor,
        lambda client, _, end: {n: np.full_like(v, np.nan) for n, v in end.items()} if client in clients else end,
    )
