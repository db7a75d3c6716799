"""Batch norm in eval mode with first and second derivative in closed form.

With running mean m and variance, r = 1 / sqrt(variance + eps), the layer is y = w r (x - m) + b in each channel. For a
derivative g with respect to y

    g_x = w r g,      g_w = sum r (x - m) g,      g_b = sum g,

and differentiating these once more in the directions u, p, q of g_x, g_w, g_b gives

    w r u + p r (x - m) + q   for g,      p r g   for x,      r sum u g   for w.

Sums and products are taken by PyTorch's own kernels for the layer and its gradient, each one sweep; what PyTorch
derives for the second derivative takes about ten.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.single_step import Forms

_AXES = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}  # of one timestep


def eval_norms(model: nn.Module) -> Forms:
    """The model's batch norms that use running statistics, and what may stand for their forward; see
    :func:`snn_probe.neurons.single_step.running`."""
    return [(m, partial(_forward, m, m.forward)) for m in model.modules() if _is_fixed(m)]


def _is_fixed(module: Any) -> bool:
    from spikingjelly.activation_based import layer

    return (
        any(type(module) is getattr(package, name) for package in (layer, nn) for name in _AXES)
        and "forward" not in module.__dict__
        and not module.training
        and module.running_mean is not None
        and module.weight is not None
    )


def _forward(norm: Any, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leading = 2 if getattr(norm, "step_mode", "s") == "m" else 1
    same = x.dtype == norm.weight.dtype == norm.running_mean.dtype
    if x.ndim - leading + 1 not in _AXES[type(norm).__name__] or not same or norm.training:
        return original(x)
    flat = x.flatten(0, 1) if leading == 2 else x
    y = _Norm.apply(flat, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    return y.unflatten(0, x.shape[:2]) if leading == 2 else y


class _Norm(torch.autograd.Function):
    """x (N, C, ...), weight and bias (C,), and the constants mean, variance (C,) and eps, to y like x."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, eps):
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx, g):
        x, weight, mean, variance = ctx.saved_tensors
        return *_Gradient.apply(g, x, weight, mean, variance, ctx.eps, list(ctx.needs_input_grad[:3])), None, None, None


class _Gradient(torch.autograd.Function):
    """The backward pass of ``_Norm`` as a function of the derivative that enters it, of x and of the weight."""

    @staticmethod
    def forward(ctx, g, x, weight, mean, variance, eps, wanted):
        ctx.save_for_backward(g, x, weight, mean, torch.rsqrt(variance + eps))
        ctx.set_materialize_grads(False)
        return _gradients(g, x, weight, mean, variance, eps, wanted)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u, p, q):
        g, x, weight, mean, r = ctx.saved_tensors
        none, one = torch.zeros_like(mean), torch.ones_like(mean)
        for_g = for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            constant = none if q is None else q
            for_g = constant[_channels(g)].expand_as(g) if u is None else _affine(u, weight * r, constant, none, one)
            if p is not None:
                centred = x - mean[_channels(x)]  # first, or what is left of a large mean has few digits
                for_g = torch.addcmul(for_g, centred, (p * r)[_channels(x)])
        second, third = ctx.needs_input_grad[1] and p is not None, ctx.needs_input_grad[2] and u is not None
        if second or third:
            scale = one if p is None else p * r
            like = g if u is None else u
            for_x, for_weight, _ = _gradients(g, like, scale, none, one, 0.0, [second, third, False])
        return for_g, for_x, for_weight * r if third else None, None, None, None, None


def _gradients(g, x, weight, mean, variance, eps, wanted):
    return torch.ops.aten.native_batch_norm_backward(g, x, weight, mean, variance, None, None, False, eps, wanted)


def _affine(x: Tensor, weight: Tensor, bias: Tensor, none: Tensor, one: Tensor) -> Tensor:
    return torch.batch_norm(x, weight, bias, none, one, False, 0.0, 0.0, False)


def _channels(x: Tensor) -> tuple[Any, ...]:
    """The index that lines numbers of channels up with x (N, C, ...)."""
    return (slice(None), *[None] * (x.ndim - 2))
