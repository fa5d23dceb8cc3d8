"""pfl's half of against_pfl.py, in each of its processes: the wall time of every iteration into PLACE/pfl.json.

python -m torch.distributed.run --nproc_per_node=2 --standalone benchmarks/_pfl_half.py PLACE ROUNDS
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from against_pfl import BATCH, CLIENTS, LENGTH, STEPS, VOCABULARY
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.internal.ops.selector import set_framework_module
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

PARAMS = NNTrainHyperParams(
    local_num_epochs=1, local_learning_rate=0.01, local_batch_size=BATCH, local_max_grad_norm=1.0
)


class Llama(torch.nn.Module):
    """The model as pfl wants it: a loss, and metrics that nobody reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        base = transformers.LlamaForCausalLM.from_pretrained(folder)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        self.inner = peft.get_peft_model(base, peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets))

    def loss(self, ids: torch.Tensor, eval: bool = False) -> torch.Tensor:
        """Of one batch of texts."""
        self.eval() if eval else self.train()
        return self.inner(input_ids=ids, labels=ids).loss

    def metrics(self, ids: torch.Tensor) -> dict[str, float]:
        """None."""
        return {}


class Watch(TrainingProcessCallback):
    """The time of every iteration."""

    def __init__(self) -> None:
        self.at = [time.perf_counter()]

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):  # type: ignore[no-untyped-def]
        """Called by pfl."""
        self.at.append(time.perf_counter())
        return False, Metrics()


def texts(user: str) -> Dataset:
    """What a client holds."""
    ids = np.random.default_rng(int(user)).integers(3, VOCABULARY, (STEPS * BATCH, LENGTH))
    return Dataset([torch.as_tensor(ids)], user_id=user)


def main() -> None:
    """So many rounds of federated averaging."""
    place, rounds = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    set_framework_module(pytorch_ops)
    np.random.seed(0)
    module = Llama(place / "model")
    trained = [value for value in module.parameters() if value.requires_grad]
    watch = Watch()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=10**6, train_cohort_size=CLIENTS, val_cohort_size=0
        ),
        backend=SimulatedBackend(
            training_data=FederatedDataset(texts, get_user_sampler("random", [str(k) for k in range(20)])),
            val_data=None,
        ),
        model=PyTorchModel(
            module,
            local_optimizer_create=lambda values, lr: torch.optim.SGD(values, lr, momentum=0.9),
            central_optimizer=torch.optim.SGD(trained, 1.0),
        ),
        model_train_params=PARAMS,
        model_eval_params=None,
        callbacks=[watch],
    )
    if int(os.environ.get("RANK", "0")) == 0:
        (place / "pfl.json").write_text(json.dumps([b - a for a, b in zip(watch.at, watch.at[1:], strict=False)]))


if __name__ == "__main__":
    main()
