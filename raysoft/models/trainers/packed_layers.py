"""Linear layers for K clients at once: the frozen weight is shared, LoRA factors and heads are stacked.

Shapes: K clients, N samples (times tokens) per client, I in, O out, R rank (zero rows and columns pad smaller ranks).
The input's leading dimension is K * B, client by client, so a view [K, N, I] separates the clients without a copy.

Two ways to the same derivative (Hu et al., ICLR 2022: y = x (W0 + s B A)^T), chosen by shape alone:
- factored: y = x W0^T + s (x A^T) B^T, the usual one, 3 R (I + O) multiplications more per token than the base;
- merged: y = x (W0 + s B A)^T with one small product per client, I * O multiplications more per token (the gradient of
  the merged matrix). Its products are wide, so it is faster where I * O is not much more than 3 R (I + O).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_MERGE_LIMIT = 4.5  # merged if I * O <= limit * R * (I + O); measured on one core at 64 x 64, rank 8


def merges(out_features: int, in_features: int, rank: int, dtype: torch.dtype) -> bool:
    """Whether a matrix of this shape is trained in merged form (never for bfloat16: s B A would be rounded away)."""
    small = in_features * out_features <= _MERGE_LIMIT * rank * (in_features + out_features)
    return small and dtype == torch.float32


class _Merged(torch.autograd.Function):
    """y = x (W + s B A)^T + bias, per client: [K, N, O]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Any:
        x3 = x.reshape(len(b), -1, a.shape[2])
        merged_KOI = torch.baddbmm(weight_OI.expand(len(b), -1, -1), b, a, alpha=scale)
        y = torch.bmm(x3, merged_KOI.transpose(1, 2))
        if bias is not None:
            y += bias
        # The merged matrix is small next to the activations here (see `merges`), so it is kept for the way back.
        ctx.save_for_backward(x3, merged_KOI, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x3, merged_KOI, a, b = ctx.saved_tensors
        g3 = grads[0].reshape(*x3.shape[:2], b.shape[1])
        need_x, need_a, need_b = (ctx.needs_input_grad[i] for i in (0, 3, 4))
        dx = torch.bmm(g3, merged_KOI).view(ctx.shape) if need_x else None
        da = db = None
        if need_a or need_b:
            dw_KOI = torch.bmm(g3.transpose(1, 2), x3).mul_(ctx.scale)
            da = torch.bmm(b.transpose(1, 2), dw_KOI) if need_a else None
            db = torch.bmm(dw_KOI, a.transpose(1, 2)) if need_b else None
        return dx, None, None, da, db, None


class _Factored(torch.autograd.Function):
    """y = x W^T + bias + s (x A^T) B^T, per client: [K * N, O]; the factors may have a wider dtype than the base."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Any:
        clients, out = b.shape[:2]
        flat = x.reshape(-1, x.shape[-1])
        y = torch.mm(flat, weight_OI.t()) if bias is None else torch.addmm(bias, flat, weight_OI.t())
        x3 = flat.view(clients, -1, x.shape[-1])
        u_KNR = torch.bmm(x3.to(a.dtype), a.transpose(1, 2))
        y3 = y.view(clients, -1, out)
        if y.dtype == b.dtype:
            y3.baddbmm_(u_KNR, b.transpose(1, 2), alpha=scale)
        else:
            y3 += torch.bmm(u_KNR, b.transpose(1, 2)).mul_(scale).to(y.dtype)
        ctx.save_for_backward(x3, u_KNR, a, b, weight_OI)
        ctx.scale, ctx.shape = scale, x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x3, u_KNR, a, b, weight_OI = ctx.saved_tensors
        g3 = grads[0].reshape(*x3.shape[:2], b.shape[1])
        need_x, need_a, need_b = (ctx.needs_input_grad[i] for i in (0, 3, 4))
        wide = g3.to(b.dtype)
        gu_KNR = torch.bmm(wide, b).mul_(ctx.scale) if need_x or need_a else None
        dx = da = db = None
        if need_x and gu_KNR is not None:
            dx = torch.mm(g3.view(-1, b.shape[1]), weight_OI).view_as(x3)
            if dx.dtype == a.dtype:
                dx.baddbmm_(gu_KNR, a)
            else:
                dx += torch.bmm(gu_KNR, a).to(dx.dtype)
            dx = dx.view(ctx.shape)
        if need_a and gu_KNR is not None:
            da = torch.bmm(gu_KNR.transpose(1, 2), x3.to(a.dtype))
        if need_b:
            db = torch.bmm(wide.transpose(1, 2), u_KNR).mul_(ctx.scale)
        return dx, None, None, da, db, None


class PackedLinear(nn.Module):
    """Stands in for a frozen nn.Linear or Conv1D; behaves like it until factors are set."""

    def __init__(self, base: nn.Module, out_features: int, in_features: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.out_features, self.in_features = out_features, in_features
        weight: Any = base.weight
        self.weight_OI: Tensor = weight if isinstance(base, nn.Linear) else weight.t()
        self.factors: tuple[Tensor, Tensor] | None = None  # A [K, R, I], B [K, O, R]
        self.effective: Tensor | None = None  # one merged matrix for everybody (evaluation)

    def rebase(self, change_OI: Tensor | None) -> None:
        """From now on work with the frozen weight plus this; None: the frozen weight itself, which stays as it is."""
        weight: Any = self.base.weight
        frozen: Tensor = weight if isinstance(self.base, nn.Linear) else weight.t()
        del self.weight_OI  # which may be registered as a parameter
        self.weight_OI = frozen if change_OI is None else frozen + change_OI

    @property
    def weight(self) -> Tensor:
        """The frozen weight, for code that asks a layer for its dtype or device."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Input [K * B, ..., I] to output [K * B, ..., O]."""
        if self.effective is not None:
            return nn.functional.linear(x, self.effective, self.bias)
        if self.factors is None:
            return self.base(x)
        a, b = self.factors
        merged = merges(self.out_features, self.in_features, a.shape[1], self.weight_OI.dtype)
        function = _Merged if merged else _Factored
        y = function.apply(x, self.weight_OI, self.bias, a, b, self.scale)
        # The view is made out here because some models change it in place (`query /= sqrt(d)`), which autograd forbids
        # for a view that a function of ours returns.
        return y.view(*x.shape[:-1], self.out_features)


class PackedHead(nn.Module):
    """Stands in for a linear layer of the head, which every client trains for itself."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.stacked: tuple[Tensor, Tensor | None] | None = None  # weight [K, O, I], bias [K, O]

    @property
    def weight(self) -> Tensor:
        """The base model's weight, for code that asks a layer for its dtype or device."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Input [K * B, ..., I] to output [K * B, ..., O], computed in the stacked weight's dtype."""
        if self.stacked is None:
            return self.base(x)
        weight, bias = self.stacked
        clients, out, fan_in = weight.shape
        x3 = x.reshape(clients, -1, fan_in).to(weight.dtype)
        y = (
            torch.bmm(x3, weight.transpose(1, 2))
            if bias is None
            else torch.baddbmm(bias.unsqueeze(1), x3, weight.transpose(1, 2))
        )
        return y.view(*x.shape[:-1], out)
