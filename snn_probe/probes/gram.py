"""Squared norms of a convolution's per-example weight gradients from Gram matrices of its positions.

With X (a, K) the patches of one example's input, a = uses x positions and K = channels x kernel, and G (a, O) what the
loss has for its outputs, the weight's gradient is G^T X, and

    || G^T X ||^2 = sum_ij (X X^T)_ij (G G^T)_ij.

X X^T serves every loss; so where a is small, deep in a network, T traces cost a fraction of T weight gradients, and no
weight gradient is formed. (The identity is that of "ghost norms", Li et al., arXiv 2110.05679.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_probe.probes.layouts import CONV
from snn_probe.probes.weight_norms import sum_of_terms

_ROOM = 8  # times the inputs' memory that the Gram matrices may take


def pays(module: Any, *, uses: int, positions: int, losses: int, prefixes: bool) -> bool:
    """Whether fewer products are needed this way for so many losses, each on all uses, or on the first ones
    (``prefixes``), whose number then grows from one loss to the next."""
    if not (isinstance(module, CONV) and len(module.kernel_size) == 2 and module.groups == 1):
        return False
    patch, outward = module.weight[0].numel(), module.weight.shape[0]
    rows = uses * positions
    here, direct = (1 / 3, 1 / 2) if prefixes else (1, 1)
    fewer = rows * (patch + here * losses * outward) < direct * losses * outward * patch
    return fewer and rows <= _ROOM * module.in_channels


def of_inputs(x: Tensor, module: Any, padding: Any) -> Tensor:
    """X X^T of each example, (n, a, a), for x (n, S, C, H, W)."""
    found = []
    for one in x:
        patches = F.unfold(one, module.kernel_size, module.dilation, padding, module.stride)  # (S, K, positions)
        rows = patches.transpose(1, 2).flatten(0, 1)
        found.append(rows @ rows.T)
    return torch.stack(found)


def squared_norms(gram: Tensor, g: Tensor) -> tuple[Tensor, bool]:
    """(n,) in float64, for g (n, S, O, H, W) and the rows and columns of ``gram`` that belong to its uses; and whether
    the terms of the sum cancel so little that their rounding is no matter."""
    rows = g.flatten(3).transpose(2, 3).flatten(1, 2)  # (n, a, O)
    return sum_of_terms(torch.bmm(rows, rows.mT).mul_(gram))
