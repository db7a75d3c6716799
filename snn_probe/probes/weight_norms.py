"""Squared norms of per-example weight gradients of linear layers and convolutions, from their inputs and g = dL/dz.

S uses (timesteps, positions of a linear layer) are summed before squaring; n are the examples, or groups of them.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LOST = 1e-5  # relative error that rounding may bring where terms cancel, at the most
BLOCK = 1 << 17
"""Elements of per-example gradients formed at a time; larger blocks measured slower, as they leave the cache."""


def sum_of_squares(x: Tensor) -> Tensor:
    """(n, ...) -> (n,), accumulated in float64."""
    return x.flatten(1).square().sum(1, dtype=torch.float64)


def sum_of_terms(terms: Tensor) -> tuple[Tensor, bool]:
    """(n, a, b) summed to (n,) in float64, overwritten; and whether they cancel so little that their rounding is no
    matter."""
    found = terms.sum((1, 2), dtype=torch.float64)
    most = _LOST / torch.finfo(terms.dtype).eps
    return found, bool((terms.abs_().sum((1, 2), dtype=torch.float64) <= most * found).all())


def linear(x: Tensor, g: Tensor) -> Tensor:
    """||sum_s g_s x_s^T||^2 per group; through the Gram matrices of the uses where those are smaller."""
    x, g = (v.transpose(0, 1).flatten(1, 2) for v in (x, g))  # (n, S, C)
    _, uses, inward = x.shape
    outward = g.shape[2]
    if uses * (inward + outward) < inward * outward:
        found, sound = sum_of_terms(torch.bmm(x, x.mT).mul_(torch.bmm(g, g.mT)))
        if sound:
            return found
    size = max(1, BLOCK // (inward * outward))
    parts = [sum_of_squares(torch.bmm(a.mT, b)) for a, b in zip(g.split(size), x.split(size), strict=True)]
    return torch.cat(parts)


def convolution(x: Tensor, g: Tensor, module: Any) -> Tensor:
    """Weight gradients of n groups at once: one grouped convolution whose groups are the examples, summed over uses.

    x (S, n, C, *space), g (S, n, O, *space): with n folded into the channels, the ordinary weight gradient of a
    convolution with n * ``groups`` groups is the per-example gradient, and its batch axis S is the sum over uses.
    """
    size = max(1, BLOCK // module.weight.numel())
    parts = []
    for a, b in zip(x.split(size, dim=1), g.split(size, dim=1), strict=True):
        n = a.shape[1]
        gradient = _weight_gradient(a.flatten(1, 2).contiguous(), b.flatten(1, 2).contiguous(), module, copies=n)
        parts.append(sum_of_squares(gradient.view(n, -1)))
    return torch.cat(parts)


def convolution_one_by_one(x: Tensor, g: Tensor, module: nn.Module) -> Tensor:
    """The same from x (n, S, C, *space) and g (n, S, O, *space), one group after the other."""
    return torch.cat([sum_of_squares(_weight_gradient(a, b, module).reshape(1, -1)) for a, b in zip(x, g, strict=True)])


def _weight_gradient(x: Tensor, g: Tensor, module: Any, *, copies: int = 1) -> Tensor:
    shape = (copies * module.weight.shape[0], *module.weight.shape[1:])
    _, gradient, _ = torch.ops.aten.convolution_backward(
        g,
        x,
        module.weight.new_empty(shape),
        None,
        module.stride,
        numeric_padding(module),
        module.dilation,
        False,
        [0] * len(module.kernel_size),
        copies * module.groups,
        [False, True, False],
    )
    return gradient


def numeric_padding(module: Any) -> tuple[int, ...] | None:
    """A convolution's padding in numbers; None where it pads one side more than the other."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    pairs = list(zip(module.dilation, module.kernel_size, strict=True))
    if module.padding == "valid":
        return (0,) * len(pairs)
    return None if any(d * (k - 1) % 2 for d, k in pairs) else tuple(d * (k - 1) // 2 for d, k in pairs)
