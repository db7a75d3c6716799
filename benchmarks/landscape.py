"""A 5x5 plane of the loss through three networks against loss-landscapes: ``tiny`` on 512 digits, T = 4.

The peer's plane steps back and forth, and every other column starts one step late: its value [i, j] belongs to the
point (i, j + 1) where i is even. Its error is taken at the point that it visited.
"""

import copy

import numpy as np
import torch
from cases import digits_case
from contests import Contest, Work

from snn_probe.objectives import SDT
from snn_probe.probes import loss_slice
from snn_probe.results import Result

POINTS = 5


def moved(model, seed: int):
    """A copy whose weights are up to 30 % away, in random directions."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p += 0.3 * p.abs().mean() * torch.randn(p.shape, generator=generator)
    return other


def prepare(small: bool) -> Work:
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    model, batch = digits_case(2 if small else 512)
    ends = [moved(model, seed) for seed in (1, 2)]
    theta = {name: p.detach() for name, p in model.named_parameters()}
    directions = [{n: p.detach() - theta[n] for n, p in end.named_parameters()} for end in ends]
    axis = [i / POINTS for i in range(POINTS)]

    def peer():
        metric = Loss(lambda logits, labels: SDT()(logits, labels), *batch)
        return loss_landscapes.planar_interpolation(model, *ends, metric, steps=POINTS, deepcopy_model=True)

    def ours():
        return loss_slice(model, [batch], [SDT()], alphas=axis, betas=axis, directions=directions)

    def loss_at(alpha: float, beta: float) -> float:
        weights = {n: p + alpha * directions[0][n] + beta * directions[1][n] for n, p in theta.items()}
        with torch.no_grad():
            return float(SDT()(torch.func.functional_call(model, weights, (batch[0],)), batch[1]))

    def error(answer) -> float:
        if isinstance(answer, Result):
            table = answer.table
            exact = [loss_at(a, b) for a, b in zip(table["alpha"], table["beta"], strict=True)]
            return float(np.abs(table["loss"] - exact).max())
        visited = [[loss_at(i / POINTS, (j + 1 - i % 2) / POINTS) for j in range(POINTS)] for i in range(POINTS)]
        return float(np.abs(np.asarray(answer, dtype=float) - visited).max())

    return Work(peer, ours, error)


CONTESTS = [
    Contest("landscape", "landscape 5x5, tiny, 512 digits, T=4", "loss-landscapes", prepare,
            "largest error of a loss; reference: plain evaluation at the same weights", "loss-landscapes")
]  # fmt: skip
