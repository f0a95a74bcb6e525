"""Batch norm over the batches of all processes together, on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

__all__ = ["Sum", "SyncBatchNorm2d", "synchronise_norms"]

DIMS = (0, 2, 3)


class Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; backward, the sum of its gradients over all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Sum; the argument stays as it is."""
        return _total(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Every process's result depends on every process's argument."""
        return _total(gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics in training are those of all processes' batches together.

    torch's own SyncBatchNorm runs on GPUs alone and is no `BatchNorm2d`, so neither activation checkpointing nor the
    frozen norms at the end of a run would know it. In evaluation it is `BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same; N may differ between the processes."""
        if not self.training:
            return super().forward(x)
        y: Tensor
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        if self.num_batches_tracked is not None:  # activation checkpointing takes it away for its second computation
            self.num_batches_tracked.add_(1)
        return y


class _Normalise(torch.autograd.Function):
    """Batch norm and its gradient (Ioffe and Szegedy, 2015, arXiv:1502.03167) with sums over all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)
        size = wide.new_full((1,), x.numel() // x.shape[1])
        total = _total(torch.cat([wide.sum(DIMS), size]))
        count = total[-1:]
        mean = total[:-1] / count
        # The mean is taken off first: in fp32 the difference of two large sums of squares would be noise.
        variance = _total((wide - _channels(mean)).square().sum(DIMS)) / count
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (wide - _channels(mean)) * _channels(scale * weight) + _channels(bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        wide = gradient.to(weight.dtype)
        normal = (x.to(weight.dtype) - _channels(mean)) * _channels(scale)
        of_bias, of_weight = wide.sum(DIMS), (wide * normal).sum(DIMS)
        mean_bias, mean_weight = (_total(torch.stack([of_bias, of_weight])) / count).unbind()
        centred = wide - _channels(mean_bias) - normal * _channels(mean_weight)
        return (centred * _channels(scale * weight)).to(x.dtype), of_weight, of_bias, None


def synchronise_norms(model: nn.Module) -> None:
    """Make every `BatchNorm2d` of a model a `SyncBatchNorm2d`, in place; weights, statistics and keys stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d


def _total(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def _channels(values: Tensor) -> Tensor:
    return values[:, None, None]
