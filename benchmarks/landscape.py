"""Slices of the loss: a 5x5 plane through three networks against loss-landscapes (``tiny`` on 512 digits, T = 4), and a
line of 21 points against a plain loop over evaluations by SpikingJelly (``tiny`` again, and VGGSNN).

The peer's plane steps back and forth, and every other column starts one step late: its value [i, j] belongs to the
point (i, j + 1) where i is even. Its error is taken at the point that it visited.
"""

import copy

import numpy as np
import torch
from cases import digits_case, vgg_case
from contests import Contest, Work

from snn_probe.objectives import SDT
from snn_probe.probes import loss_slice
from snn_probe.results import Result

POINTS = 5  # of the plane, along each direction
LINE = 21


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


def loop_over(case):
    """A line in the weights, each point an evaluation under ``no_grad`` as SpikingJelly's examples write it."""

    def prepare(small: bool) -> Work:
        from spikingjelly.activation_based import functional

        model, batches = case(small)
        end = {n: p.detach() for n, p in moved(model, 1).named_parameters()}
        theta = {n: p.detach().clone() for n, p in model.named_parameters()}
        direction = {n: end[n] - theta[n] for n in theta}
        axis = [i / LINE for i in range(LINE)]
        plain = copy.deepcopy(model)

        @torch.no_grad()
        def peer():
            found = []
            for alpha in axis:
                for name, p in plain.named_parameters():
                    p.copy_(theta[name] + alpha * direction[name])
                total = 0.0
                for inputs, labels in batches:
                    x = (
                        inputs.transpose(0, 1)
                        if model.num_steps is None
                        else inputs.expand(model.num_steps, *inputs.shape)
                    )
                    total += float(SDT()(plain.net(x), labels)) * len(labels)
                    functional.reset_net(plain.net)
                found.append(total / sum(len(labels) for _, labels in batches))
            return found

        def ours():
            return loss_slice(model, batches, [SDT()], alphas=axis, directions=direction).table["loss"].tolist()

        exact = None

        def error(answer) -> float:
            nonlocal exact
            exact = peer() if exact is None else exact
            return float(np.abs(np.asarray(answer) - exact).max())

        return Work(peer, ours, error)

    return prepare


def one_batch(small: bool):
    model, batch = digits_case(2 if small else 512)
    return model, [batch]


LOOP = "largest difference of a loss; reference: the loop itself"
CONTESTS = [
    Contest("landscape", "landscape 5x5, tiny, 512 digits, T=4", "loss-landscapes", prepare,
            "largest error of a loss; reference: plain evaluation at the same weights", "loss-landscapes"),
    Contest("loop-tiny", "landscape, 21 points, tiny, 512 digits, T=4", "loop over SpikingJelly", loop_over(one_batch), LOOP,
            "spikingjelly"),
    Contest("loop-vggsnn", "landscape, 21 points, VGGSNN half width 2x48x48, T=10, 16 examples", "loop over SpikingJelly",
            loop_over(lambda small: vgg_case(1, 1) if small else vgg_case(1, 16)), LOOP, "spikingjelly"),
]  # fmt: skip
