"""TRT's penalty, forward and backward, against a loop over t in the paper's form: kernels as in a ResNet-19, T = 6."""

import math

import torch
from contests import Contest, Work

from snn_probe.objectives import trt_penalty

SHAPES = [(512, 512, 3, 3)] * 5 + [(256, 256, 3, 3), (256, 512), (10, 256)]


def by_loop(weights, steps: int, strength: float, decay: float, epsilon: float):
    total = 0.0
    for t in range(steps):
        for w in weights:
            total = total + (strength * w**2 / (1 + (math.exp(decay * t) - 1) * (w.abs() + epsilon))).sum()
    return total / steps


def prepare(small: bool) -> Work:
    torch.manual_seed(0)
    weights = {str(i): (0.05 * torch.randn(s)).requires_grad_() for i, s in enumerate(SHAPES[-2:] if small else SHAPES)}
    leaves = list(weights.values())
    settings = dict(strength=1e-5, decay=0.25, epsilon=1e-5)

    def error(gradients) -> float:
        double = [w.detach().double().requires_grad_() for w in leaves]
        exact = torch.autograd.grad(by_loop(double, 6, 1e-5, 0.25, 1e-5), double)
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradients, exact, strict=True))

    return Work(
        lambda: torch.autograd.grad(by_loop(leaves, 6, 1e-5, 0.25, 1e-5), leaves),
        lambda: torch.autograd.grad(trt_penalty(weights, 6, **settings), leaves),
        error,
    )


CONTESTS = [
    Contest(
        "penalty",
        "TRT penalty, 12.5 M weights, T=6, forward + backward",
        "loop over t in the paper's form",
        prepare,
        "largest error of the gradient; reference: the loop in float64",
        pairs_per_repeat=4,
    )
]
