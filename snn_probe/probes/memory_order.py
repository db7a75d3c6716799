"""The order in memory in which a network's convolutions are fastest: channels last, on the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from snn_probe.neurons.sharing import order_kept
from snn_probe.neurons.values_only import values_only
from snn_probe.temporal import unrolled

Order = Callable[[Tensor], Tensor]


def best_order(model: nn.Module, inputs: Tensor) -> Order:
    """A function that gives inputs with the same values, stored as ``model`` computes fastest; within ``probing``.

    On the CPU images (N, C, H, W) and streams (N, T, C, H, W) become channels last, streams time first too, and every
    layer after the first keeps that. 3x3 convolutions of 32 to 256 channels then took 0.75 to 0.8 of their time (8
    examples, Xeon, 2 threads, float32). Elsewhere, and where the network refuses the other order (code with ``view``
    does; found out on ``inputs``, a few examples), inputs stay as they are. Sums are added in another order, so logits
    differ by rounding.
    """
    if inputs.device.type != "cpu" or inputs.ndim not in (4, 5) or not inputs.is_floating_point():
        return _same
    return channels_last if _takes(model, inputs) else _same


def channels_last(inputs: Tensor) -> Tensor:
    """(N, C, H, W), or (N, T, C, H, W) with time before examples, in memory as (N, H, W, C) or (T, N, H, W, C)."""
    if inputs.ndim == 4:
        return inputs.clone(memory_format=torch.channels_last)  # not contiguous(), which leaves single channels alone
    return inputs.permute(1, 0, 3, 4, 2).contiguous().permute(1, 0, 4, 2, 3)


def _same(inputs: Tensor) -> Tensor:
    return inputs


def _takes(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the model runs on inputs stored so, and step by step where it can with others; on two examples at least,
    as the order of one in memory is ambiguous."""
    moved = channels_last(inputs if len(inputs) > 1 else torch.cat([inputs] * 2))
    with torch.no_grad(), values_only(model), order_kept():
        try:
            model(moved)
        except RuntimeError:
            return False
        return unrolled(model, moved) is not None or unrolled(model, inputs) is None
