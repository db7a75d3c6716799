"""2x2 average pools on the CPU as strided sums: PyTorch's values and derivatives of any order in less time.

PyTorch's own pool takes contiguous arrays number by number. The pool is linear, so it and the spreading of a gradient are
each other's derivative; neither keeps its input. Values are summed in PyTorch's order, so they have the same bits; zeros
and ones are exact in any order, and are summed in the fastest.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons import Forms, known_as_spikes


def fast_pools(model: nn.Module) -> Forms:
    """The model's 2x2 average pools, and what may stand for their forward; see :func:`snn_probe.neurons.running`."""
    return [(m, partial(_forward, m, m.forward)) for m in model.modules() if _is_quarter(m)]


def _is_quarter(module: Any) -> bool:
    from spikingjelly.activation_based import layer

    return (
        type(module) in (layer.AvgPool2d, nn.AvgPool2d)
        and "forward" not in module.__dict__
        and module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and not module.ceil_mode
        and module.divisor_override is None
    )


def _forward(pool: Any, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """PyTorch's own where it is fast (CUDA, channels last), sums in another way (short floats) or is compiled."""
    axes = (5,) if getattr(pool, "step_mode", "s") == "m" else (3, 4)
    plain = x.ndim in axes and x.is_contiguous() and not x.is_cuda and x.dtype in (torch.float32, torch.float64)
    return _Pool.apply(x, known_as_spikes(x)) if plain and not torch.compiler.is_compiling() else original(x)


class _Pool(torch.autograd.Function):
    """(..., H, W) to the means of its 2x2 squares (..., H // 2, W // 2)."""

    @staticmethod
    def forward(ctx, x, exact):
        ctx.size = height, width = x.shape[-2:]
        top, bottom = (x[..., row : height // 2 * 2 : 2, : width // 2 * 2] for row in (0, 1))
        if exact:
            rows = top + bottom
            return torch.add(rows[..., 0::2], rows[..., 1::2]).mul_(0.25)
        return (top[..., 0::2] + top[..., 1::2]).add_(bottom[..., 0::2]).add_(bottom[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(ctx, gradient):
        return _Spread.apply(gradient, *ctx.size), None


class _Spread(torch.autograd.Function):
    """A quarter of each number to its 2x2 square; zeros where the pool left out a row or column."""

    @staticmethod
    def forward(ctx, gradient, height, width):
        quarter = gradient * 0.25
        rows = torch.stack([quarter, quarter], -1).flatten(-2)
        spread = torch.stack([rows, rows], -2).flatten(-3, -2)
        missing = (0, width % 2, 0, height % 2)
        return nn.functional.pad(spread, missing) if any(missing) else spread

    @staticmethod
    def backward(ctx, direction):
        return _Pool.apply(direction, False), None, None
