"""Layers before the first spiking one see a static image at every timestep, so they are computed once, not T times."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_Norm = nn.modules.batchnorm._BatchNorm

_order_kept = False


def split(net: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The leading layers of ``net`` that can be computed once, and the others; known only for an ``nn.Sequential``."""
    if type(net) is not nn.Sequential:
        return [], [net]
    layers = list(net)
    for i, layer in enumerate(layers):
        if not _is_shareable(layer):
            return layers[:i], layers[i:]
    return layers, []


@contextmanager
def order_kept() -> Iterator[None]:
    """Within this context images with a single channel stay channels last: merging the axes before them forgets it."""
    global _order_kept
    before, _order_kept = _order_kept, True
    try:
        yield
    finally:
        _order_kept = before


def once(layers: list[nn.Module], x: Tensor, copies: int) -> Tensor:
    """``layers`` on the images alone, with the effect on running statistics that ``copies`` of them would have."""
    forgets = _order_kept and x.ndim == 5 and len(x) == x.shape[2] == x.stride(2) == 1
    for layer in layers:
        x = _norm_of_copies(layer, x, copies) if isinstance(layer, _Norm) and layer.training else layer(x)
    return x[0].contiguous(memory_format=torch.channels_last).unsqueeze(0) if forgets else x


def _is_shareable(module: nn.Module) -> bool:
    """True for stateless SpikingJelly layers whose result at one timestep does not depend on the other timesteps.

    In training mode a batch norm's does, but not where the timesteps are equal.
    """
    from spikingjelly.activation_based import layer

    convolutions, pools = (layer.Conv1d, layer.Conv2d, layer.Conv3d), (layer.AvgPool2d, layer.MaxPool2d)
    norms = (layer.BatchNorm1d, layer.BatchNorm2d, layer.BatchNorm3d)
    return type(module) in (*convolutions, *pools, *norms)


def _norm_of_copies(norm: Any, x: Tensor, copies: int) -> Tensor:
    """A batch norm in training mode on ``x``, as if it were on ``copies`` of it.

    Mean and variance v of the n values of a channel are those of the copies, so results and gradients are the same. The
    running variance takes the unbiased one, which for c copies is v n c / (n c - 1), not the v n / (n - 1) that the
    layer adds times its momentum: the difference is what it adds, times (1 - c) / (n c - 1).
    """
    n = x.numel() // norm.num_features
    if n == 1:  # alone it has no unbiased variance, and the layer refuses it
        return norm(torch.cat([x] * copies))[:1]
    if norm.running_var is None:
        return norm(x)
    before = norm.running_var.clone()
    result = norm(x)
    momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    added = norm.running_var - (1.0 - momentum) * before
    # through .data, since autograd keeps the buffer for the backward pass, which in training mode does not read it
    norm.running_var.data.add_(added, alpha=(1 - copies) / (n * copies - 1))
    return result
