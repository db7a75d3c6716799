"""2x2 average pools on the CPU in less time: PyTorch's values and derivatives of any order.

PyTorch's own pool takes contiguous arrays number by number. Here whole rows are added, two by two, and then their
neighbours; a gradient is spread the other way round. They are each other's derivative, and neither keeps its input.
Zeros and ones are summed exactly in any order, and a gradient is not summed at all, so both have PyTorch's bits. Other
values have them too, as sums in PyTorch's order; only a second derivative may differ by rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.single_step import Forms, known_as_spikes


def fast_pools(model: nn.Module) -> Forms:
    """The model's 2x2 average pools, and what may stand for their forward; see :func:`snn_probe.neurons.single_step.running`."""
    return [(m, FastPool(m, m.forward)) for m in model.modules() if _is_quarter(m)]


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


class FastPool:
    """What stands for a pool's forward: PyTorch's own where it is fast (CUDA, channels last), sums in another way (short
    floats), refuses or is compiled."""

    def __init__(self, pool: Any, original: Callable[[Tensor], Tensor]):
        self.pool, self.original = pool, original

    def __call__(self, x: Tensor) -> Tensor:
        axes = (5,) if getattr(self.pool, "step_mode", "s") == "m" else (3, 4)
        plain = x.ndim in axes and x.is_contiguous() and not x.is_cuda and x.dtype in (torch.float32, torch.float64)
        if not plain or min(x.shape[-2:]) < 2 or torch.compiler.is_compiling():
            return self.original(x)
        return _Pool.apply(x, known_as_spikes(x))


class _Pool(torch.autograd.Function):
    """(..., H, W) to the means of its 2x2 squares (..., H // 2, W // 2), summed ``in_any_order`` or in PyTorch's."""

    @staticmethod
    def forward(ctx, x, in_any_order):
        ctx.size = height, width = x.shape[-2:]
        top, bottom = (x[..., row : height // 2 * 2 : 2, : width // 2 * 2] for row in (0, 1))
        if in_any_order:
            rows = top + bottom
            return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)
        return (top[..., 0::2] + top[..., 1::2]).add_(bottom[..., 0::2]).add_(bottom[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(ctx, gradient):
        return _Spread.apply(gradient, *ctx.size), None


class _Spread(torch.autograd.Function):
    """A quarter of each number to its 2x2 square; zeros where the pool left out a row or column."""

    @staticmethod
    def forward(ctx, gradient, height, width):
        rows, columns = gradient.shape[-2:]
        spread = gradient.new_empty(*gradient.shape[:-2], 2 * rows, 2 * columns)
        top, bottom = spread[..., 0::2, :], spread[..., 1::2, :]
        torch.mul(gradient, 0.25, out=top[..., 0::2])
        top[..., 1::2] = top[..., 0::2]
        bottom.copy_(top)
        missing = (0, width % 2, 0, height % 2)
        return nn.functional.pad(spread, missing) if any(missing) else spread

    @staticmethod
    def backward(ctx, direction):
        return _Pool.apply(direction, True), None, None
