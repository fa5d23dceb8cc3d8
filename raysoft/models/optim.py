"""SGD with momentum and AdamW for K clients at once, each with its own step count; torch.optim's update rules.

Shapes: K clients, P parameters of a client in one row. Only clients that take a step are handed in, so the state of a
finished client, weight decay included, stands still. A learning rate of zero marks what is frozen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from raysoft.config import TrainConfig

State = dict[str, Tensor]


def init_state(settings: TrainConfig, values_KP: Tensor) -> State:
    """Moments of zero and no steps taken."""
    state = {"steps": torch.zeros(len(values_KP), 1, dtype=torch.float64, device=values_KP.device)}
    names = ("first", "second") if settings.optimizer == "adamw" else ("momentum",) if settings.momentum else ()
    return state | {name: torch.zeros_like(values_KP) for name in names}


def clip_by_client(grad_KP: Tensor, clip_norm: float | None) -> None:
    """Scale each client's gradient to at most `clip_norm`, in place (torch.nn.utils.clip_grad_norm_, per row)."""
    if clip_norm is not None:
        norm_K1 = torch.linalg.vector_norm(grad_KP, dim=1, keepdim=True)
        grad_KP *= (clip_norm / (norm_K1 + 1e-6)).clamp(max=1.0)


def stepper(settings: TrainConfig) -> Callable[[Tensor, Tensor, Tensor, State], None]:
    """`step(values_KP, grad_KP, lr_KP, state)`: one update in place; lr broadcasts to [K, P]."""

    def sgd(values: Tensor, grad: Tensor, lr: Tensor, state: State) -> None:
        if settings.weight_decay:
            grad.add_(values, alpha=settings.weight_decay)
        if settings.momentum:
            grad = state["momentum"].mul_(settings.momentum).add_(grad)
        values.sub_(grad * lr)

    def adamw(values: Tensor, grad: Tensor, lr: Tensor, state: State) -> None:
        beta1, beta2 = settings.betas
        steps = state["steps"].add_(1.0)
        correction1 = (1.0 - beta1**steps).to(values.dtype)
        correction2 = (1.0 - beta2**steps).sqrt().to(values.dtype)
        if settings.weight_decay:
            values.mul_(1.0 - lr * settings.weight_decay)
        first = state["first"].lerp_(grad, 1.0 - beta1)
        second = state["second"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        denominator = second.sqrt().div_(correction2).add_(settings.eps)
        values.sub_((first * (lr / correction1)).div_(denominator))

    return adamw if settings.optimizer == "adamw" else sgd
