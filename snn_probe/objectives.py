"""The training objectives SDT, TET and TRT.

An objective is a frozen dataclass of its hyperparameters, called as ``objective(logits, labels, params)``:
logits (T, N, C), labels (N,) int64, params the model's trainable parameters by name (only TRT reads them).
It returns a scalar: the mean over the N examples.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from snn_probe.penalty import Params as Params
from snn_probe.penalty import check_penalize, trt_penalty
from snn_probe.penalty import penalized as penalized


@dataclass(frozen=True)
class SDT:
    """Standard direct training: CE( (1/T) sum_t O(t), y ), with O(t) the logits at timestep t."""

    name: ClassVar[str] = "sdt"

    def __call__(self, logits: Tensor, labels: Tensor, params: Params | None = None) -> Tensor:
        _check(logits, labels)
        return F.cross_entropy(logits.mean(0), labels)


@dataclass(frozen=True)
class TET:
    """Temporal efficient training (Deng et al., ICLR 2022, arXiv 2202.11946).

    (1 - lambda) (1/T) sum_t CE(O(t), y) + lambda (1/T) sum_t MSE(O(t), phi), with lambda ``mse_weight``, phi
    ``mse_target`` for every class, MSE the mean over examples and classes. At lambda = 0 it bounds SDT from above.
    The paper uses lambda 0.05 on CIFAR, 0.001 on ImageNet and DVS-CIFAR10; phi is the firing threshold, 1.
    """

    name: ClassVar[str] = "tet"
    mse_weight: float = 0.05
    mse_target: float = 1.0

    def __post_init__(self):
        _check_number("mse_weight", self.mse_weight, low=0.0, high=1.0)
        _check_number("mse_target", self.mse_target)

    def __call__(self, logits: Tensor, labels: Tensor, params: Params | None = None) -> Tensor:
        _check(logits, labels)
        loss = _mean_cross_entropy(logits, labels)
        if self.mse_weight == 0.0:
            return loss
        squared = (logits - self.mse_target).square().mean()
        return (1.0 - self.mse_weight) * loss + self.mse_weight * squared


@dataclass(frozen=True)
class TRT:
    """Temporal regularization training (arXiv 2506.19256).

    (1/T) sum_t [ (1 - eta) CE(O(t), y) + eta MSE(O(t), onehot(y)) + r(t) ], eta ``mse_weight``, MSE the mean over
    examples and classes, r(t) the penalty of :func:`trt_penalty`. ``decay=0`` makes the penalty plain L2 with
    coefficient ``strength``: the control arm for every claim about TRT. Paper: CIFAR strength 1e-5, decay 0.25,
    eta 0.05; DVS-CIFAR10 5e-5, 0.5, 0.001.
    """

    name: ClassVar[str] = "trt"
    strength: float = 1e-5
    decay: float = 0.25
    epsilon: float = 1e-5
    mse_weight: float = 0.05
    penalize: str = "non_bias"

    def __post_init__(self):
        _check_number("strength", self.strength, low=0.0)
        _check_number("decay", self.decay, low=0.0)
        _check_number("epsilon", self.epsilon, low=0.0)
        _check_number("mse_weight", self.mse_weight, low=0.0, high=1.0)
        check_penalize(self.penalize)

    def __call__(self, logits: Tensor, labels: Tensor, params: Params | None = None) -> Tensor:
        loss = self.without_penalty(logits, labels)
        if self.strength == 0.0:
            return loss
        if not params:
            raise ValueError(
                "TRT penalises weights but params is empty; give the model's trainable parameters by name "
                "(snn_probe.parameters.trainable(model)), or strength=0."
            )
        return loss + trt_penalty(
            params,
            len(logits),
            strength=self.strength,
            decay=self.decay,
            epsilon=self.epsilon,
            penalize=self.penalize,
        )

    def without_penalty(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The part of the objective that depends on the examples."""
        _check(logits, labels)
        loss = _mean_cross_entropy(logits, labels)
        if self.mse_weight == 0.0:
            return loss
        onehot = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        return (1.0 - self.mse_weight) * loss + self.mse_weight * (logits - onehot).square().mean()


OBJECTIVES = {objective.name: objective for objective in (SDT, TET, TRT)}


def _mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(1/T) sum_t CE(O(t), y)."""
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 3:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; objectives take (T, N, C), time first.")
    if labels.shape != logits.shape[1:2]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and logits {tuple(logits.shape)}; "
            f"give one label per example: ({logits.shape[1]},)."
        )


def _check_number(name: str, value, *, low: float = -math.inf, high: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        allowed = "any finite number" if low == -math.inf else f"a finite number of at least {low:g}"
        if high != math.inf:
            allowed = f"a number from {low:g} to {high:g}"
        raise ValueError(f"{name} is {value!r}; give {allowed}.")
