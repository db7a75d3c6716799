"""The training objectives SDT, TET and TRT, and TRT's penalty in closed form.

An objective is a frozen dataclass of its hyperparameters, called as ``objective(logits, labels, params)``:
logits (T, N, C), labels (N,) int64, params the model's trainable parameters by name (only TRT reads them).
It returns a scalar: the mean over the N examples.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Tensor]
PENALIZE = ("non_bias", "hidden_weights")


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
        _check_penalize(self.penalize)

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


def penalized(params: Params | Iterable[tuple[str, Tensor]], penalize: str) -> dict[str, Tensor]:
    """The parameters that TRT's penalty sums over, by name.

    "non_bias", as in the authors' code: every parameter whose name lacks "bias", that is convolutions, linear layers
    including the classifier, and batch-norm scales. "hidden_weights", a reading of the paper's sum over layers 1..L-1:
    kernels and matrices (two or more axes) without the last one, the classifier.
    """
    _check_penalize(penalize)
    named = {name: p for name, p in dict(params).items() if "bias" not in name}
    if penalize == "non_bias":
        return named
    weights = [name for name, p in named.items() if p.ndim >= 2]
    return {name: named[name] for name in weights[:-1]}


def trt_penalty(
    params: Params, num_steps: int, *, strength: float, decay: float, epsilon: float, penalize: str = "non_bias"
) -> Tensor:
    """R = (1/T) sum_{t=0}^{T-1} sum_w lambda w^2 / (1 + (e^{delta t} - 1)(|w| + eps)), a scalar.

    lambda ``strength``, delta ``decay``, eps ``epsilon``, w over :func:`penalized`. It depends on the weights alone, so
    value and gradient come from one blocked sweep, without a T-fold graph; with a_t = e^{delta t} - 1,

        dR/dw = (lambda/T) w sum_t (2 + 2 a_t eps + a_t |w|) / (1 + a_t (|w| + eps))^2.

    The gradient may be differentiated again (the Hessian is diagonal).
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}; give T, a whole number of at least 1.")
    weights = list(penalized(params, penalize).values())
    if not weights:
        raise ValueError(
            f"penalize={penalize!r} selects none of the parameters {', '.join(dict(params)) or '(none given)'}; "
            "give the model's weights by name."
        )
    rates = tuple(_rate(decay * t) for t in range(num_steps))
    return _Penalty.apply(strength / num_steps, rates, epsilon, *weights)


def _rate(exponent: float) -> float:
    """e^x - 1, at most 1e30: there 1/(1 + a |w|) is zero beside the term of t = 0 for any weight that matters."""
    return min(math.expm1(min(exponent, 100.0)), 1e30)


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, rates, epsilon, *weights):
        gradients = [torch.empty_like(w) if w.requires_grad else None for w in weights]
        total = torch.zeros((), dtype=torch.float64, device=weights[0].device)
        for weight, gradient in zip(weights, gradients, strict=True):
            total += _sweep(weight, gradient, scale, rates, epsilon)
        ctx.scale, ctx.rates, ctx.epsilon = scale, rates, epsilon
        ctx.gradients = gradients
        ctx.save_for_backward(*weights)
        return total.to(weights[0].dtype)

    @staticmethod
    def backward(ctx, upstream):
        found, ctx.gradients = ctx.gradients, None  # given away once: the receiver may change them in place
        if torch.is_grad_enabled() or found is None:  # to be differentiated again, or a second backward
            found = [_gradient(w, ctx.scale, ctx.rates, ctx.epsilon) for w in ctx.saved_tensors]
        else:
            if upstream.device.type == "cpu" and upstream.item() == 1.0:  # as in loss + penalty: spare a pass
                return None, None, None, *found
        return None, None, None, *(None if g is None else g * upstream for g in found)


_BLOCK = 1 << 17  # elements per block on the CPU: the few arrays in use then stay in the caches of two cores


def _sweep(weight: Tensor, gradient: Tensor | None, scale: float, rates, epsilon: float) -> Tensor:
    """``scale`` times the sum of the penalty over ``weight``, in float64; its gradient goes into ``gradient`` if given.

    With u = |w| and d_t = 1 + a_t (u + eps), and because (2 + 2 a_t eps + a_t u) / d_t^2 = (1 + a_t eps) / d_t^2 + 1 / d_t,
    value and gradient follow from sum_t 1/d_t and sum_t (1 + a_t eps) / d_t^2. Terms with a_t = 0 (t = 0, and every t
    where decay is 0) are plain L2.
    """
    flat = weight.detach().reshape(-1)
    dense = gradient is not None and gradient.is_contiguous()
    out = None if gradient is None else gradient.view(-1) if dense else torch.empty_like(flat)
    size = max(1, flat.numel() if flat.is_cuda else min(_BLOCK, flat.numel()))
    work = [torch.empty(size, dtype=flat.dtype, device=flat.device) for _ in range(4)]
    curved = [(a, torch.tensor(1.0 + a * epsilon, dtype=flat.dtype, device=flat.device)) for a in rates if a != 0.0]
    plain = len(rates) - len(curved)
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for start in range(0, flat.numel(), size):
        w = flat[start : start + size]
        u, d, first, second = (array[: w.numel()] for array in work)
        torch.abs(w, out=u)
        for i, (a, base) in enumerate(curved):
            torch.add(base, u, alpha=a, out=d)
            if i == 0:
                torch.reciprocal(d, out=first)
                torch.mul(first, first, out=second).mul_(base)
                continue
            first.add_(d.reciprocal_())
            second.addcmul_(d, d, value=1.0 + a * epsilon)
        if out is not None:
            slope = torch.mul(w, 2.0 * plain * scale, out=out[start : start + size])
            if curved:
                slope.addcmul_(torch.add(first, second, out=d), w, value=scale)
        squares = torch.mul(w, w, out=u)
        total += plain * squares.sum(dtype=torch.float64)
        if curved:
            total += torch.dot(squares, first)
    if gradient is not None and not dense:
        gradient.copy_(out.view(weight.shape))
    return total * scale


def _gradient(weight: Tensor, scale: float, rates, epsilon: float) -> Tensor:
    u = weight.abs()
    total = torch.zeros_like(weight)
    for a in rates:
        total = total + (2.0 + 2.0 * a * epsilon + a * u) / (1.0 + a * (u + epsilon)).square()
    return scale * weight * total


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


def _check_penalize(penalize: str) -> None:
    if penalize not in PENALIZE:
        raise ValueError(f"penalize is {penalize!r}; give one of {', '.join(map(repr, PENALIZE))}.")
