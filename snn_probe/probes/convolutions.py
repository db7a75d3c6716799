"""Convolutions whose second derivative is one more call of the gradient's own kernel.

For y = w * x + b and a derivative g with respect to y, let B(g, x, w) = (g_x, g_w) be PyTorch's gradient of a
convolution, which is linear in g and w (g_x) and in g and x (g_w). Differentiating g_x, g_w and g_b = sum g once more
in the directions u, p, q gives

    w * u + p * x + q   for g,      B(g, u, p)   for x and w.

What PyTorch derives instead swaps examples and channels to write g_w as a convolution, and copies for it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.single_step import Forms

_AXES = {"Conv1d": 3, "Conv2d": 4, "Conv3d": 5}  # of one timestep


def twice_differentiable(model: nn.Module) -> Forms:
    """The model's convolutions, and what may stand for their forward; see :func:`snn_probe.neurons.single_step.running`."""
    return [(m, partial(_forward, m, m.forward)) for m in model.modules() if _is_plain(m)]


def _is_plain(module: Any) -> bool:
    from spikingjelly.activation_based import layer

    return (
        any(type(module) is getattr(package, name) for package in (layer, nn) for name in _AXES)
        and "forward" not in module.__dict__
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _forward(conv: Any, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leading = 2 if getattr(conv, "step_mode", "s") == "m" else 1
    if x.ndim - leading + 1 != _AXES[type(conv).__name__] or x.dtype != conv.weight.dtype:
        return original(x)
    options = (conv.stride, conv.padding, conv.dilation, False, (0,) * len(conv.stride), conv.groups)
    y = _Convolution.apply(x.flatten(0, 1) if leading == 2 else x, conv.weight, conv.bias, options)
    return y.unflatten(0, x.shape[:2]) if leading == 2 else y


class _Convolution(torch.autograd.Function):
    """x (N, C, ...), weight (O, C / groups, ...) and bias (O,) or None to y (N, O, ...)."""

    @staticmethod
    def forward(ctx, x, weight, bias, options):
        ctx.save_for_backward(x, weight)
        ctx.options = options
        return torch.convolution(x, weight, bias, *options)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return *_Gradient.apply(g, x, weight, ctx.options, list(ctx.needs_input_grad[:3])), None


class _Gradient(torch.autograd.Function):
    """The backward pass of ``_Convolution`` as a function of the derivative that enters it, of x and of the weight."""

    @staticmethod
    def forward(ctx, g, x, weight, options, wanted):
        ctx.save_for_backward(g, x, weight)
        ctx.options = options
        ctx.set_materialize_grads(False)
        return _gradients(g, x, weight, options, wanted)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u, p, q):
        g, x, weight = ctx.saved_tensors
        for_g = for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            parts = [torch.convolution(a, w, None, *ctx.options) for a, w in ((u, weight), (x, p)) if _both(a, w)]
            if q is not None:
                parts.append(q.view(-1, *[1] * (g.ndim - 2)).expand_as(g))
            for_g = sum(parts[1:], parts[0]) if parts else None
        wanted = [ctx.needs_input_grad[1] and p is not None, ctx.needs_input_grad[2] and u is not None, False]
        if any(wanted):
            like, kernel = x if u is None else u, weight if p is None else p
            for_x, for_weight, _ = _gradients(g, like, kernel, ctx.options, wanted)
        return for_g, for_x, for_weight, None, None


def _both(*tensors: Tensor | None) -> bool:
    return all(tensor is not None for tensor in tensors)


def _gradients(g, x, weight, options, wanted):
    return torch.ops.aten.convolution_backward(g, x, weight, [weight.shape[0]], *options, wanted)
